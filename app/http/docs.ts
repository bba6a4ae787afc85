import { PROBLEMS } from '../errors';
import { escape, htmlPage } from './html';
import type { OpenApiDocument, OperationObject, SchemaObject } from './openapi';

/**
 * The OpenAPI document as one page for people: plain HTML that is complete without its script (browser/try-it.js),
 * which finds the operations by their ids and puts a form into each.
 */
export function docsPage(document: OpenApiDocument): string {
  const { title, version, description } = document.info;
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => operationSection(method, path, operation)),
  );
  const schemas = Object.entries(document.components.schemas).map(([name, schema]) => schemaSection(name, schema));
  const problems = Object.entries(PROBLEMS).map(
    ([slug, problem]) =>
      `<tr><td><code>${slug}</code></td><td>${problem.status}</td><td>${escape(problem.title)}</td></tr>`,
  );
  const body = `<header><h1>${escape(title)} API <small>${escape(version)}</small></h1>
<p>${escape(description)} The same as a document for programs: <a href="/openapi.json">openapi.json</a>.</p>
<noscript><p>With JavaScript this page can also try the calls.</p></noscript></header>
<main>
<section><h2>Operations</h2>${operations.join('\n')}</section>
<section><h2>Shapes</h2>${schemas.join('\n')}</section>
<section><h2>Problems</h2>
<p>Content type <code>application/problem+json</code>; the type is <code>urn:problem:</code> and the name below.</p>
<div class="scroll"><table><thead><tr><th>Name</th><th>Status</th><th>Meaning</th></tr></thead>
<tbody>${problems.join('\n')}</tbody></table></div></section>
</main>`;
  return htmlPage({ title: `${title} API`, body, script: '/docs/try-it.js' });
}

function operationSection(method: string, path: string, operation: OperationObject): string {
  const parameters = (operation.parameters ?? []).map(
    ({ name, in: place, description = '', schema }) =>
      `<tr><td><code>${escape(name)}</code></td><td>${place}</td><td>${typeOf(schema)} ${escape(description)}</td></tr>`,
  );
  const scopes = operation.security.flatMap((needed) => Object.values(needed).flat());
  const body = operation.requestBody?.content['application/json']?.schema;
  const responses = Object.entries(operation.responses).map(([status, { description, content = {} }]) => {
    const schema = Object.values(content)[0]?.schema;
    return `<tr><td>${status}</td><td>${escape(description)}</td><td>${schema === undefined ? '' : typeOf(schema)}</td></tr>`;
  });
  return `<details id="${escape(operation.operationId)}">
<summary><code><b class="${method}">${method.toUpperCase()}</b> ${escape(path)}</code> <span>${escape(operation.summary)}</span></summary>
${scopes.length === 0 ? '' : `<p>Needs a key with the scope <code>${escape(scopes.join(' '))}</code></p>`}
${parameters.length === 0 ? '' : table(['Parameter', 'In', 'Value'], parameters)}
${body === undefined ? '' : `<p>Body: ${typeOf(body)}</p>`}
${table(['Status', 'When', 'Body'], responses)}
</details>`;
}

function schemaSection(name: string, schema: SchemaObject): string {
  const rows = Object.entries(schema.properties ?? {}).map(([property, value]) => {
    const required = schema.required?.includes(property) === true ? 'required' : '';
    return `<tr><td><code>${escape(property)}</code></td><td>${typeOf(value)} ${required}</td><td>${escape(value.description ?? '')}</td></tr>`;
  });
  const content = rows.length === 0 ? `<p>${typeOf(schema)}</p>` : table(['Property', 'Type', 'Meaning'], rows);
  return `<h3 id="schema-${name}">${name}</h3>${content}`;
}

function table(headings: readonly string[], rows: readonly string[]): string {
  const head = headings.map((heading) => `<th>${heading}</th>`).join('');
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>${rows.join('\n')}</tbody></table></div>`;
}

/** A schema in a few words, with links to the named ones. */
function typeOf(schema: SchemaObject): string {
  const { $ref, anyOf, items, type, format } = schema;
  if (typeof $ref === 'string') {
    const name = $ref.split('/').at(-1) ?? '';
    return `<a href="#schema-${name}">${name}</a>`;
  }
  if (Array.isArray(anyOf)) return anyOf.map((choice) => typeOf(choice as SchemaObject)).join(' or ');
  if (type === 'array') return `list of ${typeOf(items as SchemaObject)}`;
  if (Array.isArray(schema['enum']))
    return schema['enum'].map((value) => `<code>${escape(String(value))}</code>`).join(' ');
  const name = Array.isArray(type) ? type.join(' or ') : (type ?? 'any');
  return escape(typeof format === 'string' ? `${name} (${format})` : name);
}
