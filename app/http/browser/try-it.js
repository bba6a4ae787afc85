// @ts-check

/**
 * Turns each operation of the page into a form that calls it. The page is complete without this script, and the
 * script is served as it stands here, so that a content policy of 'self' is all it needs.
 *
 * The API key stays in its field: no storage, no address, no command line holds it, and it goes with the page.
 *
 * What is read of the OpenAPI document:
 * @typedef {{ $ref?: string, type?: string | string[], format?: string, enum?: unknown[], examples?: unknown[],
 *   default?: unknown, minimum?: number, anyOf?: Schema[], items?: Schema, properties?: Record<string, Schema>,
 *   required?: string[] }} Schema
 * @typedef {{ name: string, in: string, required: boolean, description?: string, schema: Schema }} Parameter
 * @typedef {{ operationId: string, parameters?: Parameter[],
 *   requestBody?: { content: Record<string, { schema: Schema }> } }} Operation
 * @typedef {{ paths: Record<string, Record<string, Operation>>, components: { schemas: Record<string, Schema> } }} Api
 *
 * @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Field
 * @typedef {{ method: string, path: string, headers: Record<string, string>, body: string | undefined }} Call
 */

const TIMEOUT_MS = 30_000;
/** An export may be endless: this much of an answer is read and shown. */
const MAX_SHOWN_BYTES = 256 * 1024;

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * A value that fits the schema: its example where it has one. Of an object, what is required or has an example.
 * @param {Schema} schema
 * @param {Api} api
 * @returns {unknown}
 */
function exampleOf(schema, api, depth = 0) {
  const { $ref, anyOf, enum: choices, examples, items, properties, required = [] } = schema;
  const named = $ref === undefined ? undefined : api.components.schemas[$ref.split('/').at(-1) ?? ''];
  if (depth > 8) return null;
  if (named !== undefined) return exampleOf(named, api, depth + 1);
  if (examples?.[0] !== undefined) return examples[0];
  if (choices !== undefined) return choices[0];
  if (properties !== undefined) {
    const shown = Object.entries(properties).filter(([name, { examples }]) => required.includes(name) || examples);
    return Object.fromEntries(shown.map(([name, value]) => [name, exampleOf(value, api, depth + 1)]));
  }
  const [first] = anyOf ?? [];
  if (first !== undefined) return exampleOf(first, api, depth + 1);
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === 'array') return items === undefined ? [] : [exampleOf(items, api, depth + 1)];
  if (type === 'object' || type === undefined) return {};
  if (type === 'integer' || type === 'number') return schema.minimum ?? 1;
  if (type === 'boolean') return true;
  return schema.format === 'date' ? new Date().toISOString().slice(0, 10) : 'text';
}

/**
 * @param {Parameter} parameter
 * @param {string} id
 * @returns {Field}
 */
function fieldFor({ name, in: place, required, schema }, id) {
  const attributes = {
    id,
    autocomplete: 'off',
    'data-in': place,
    'data-name': name,
    ...(required && { required: '' }),
  };
  const choices = schema.type === 'boolean' ? [true, false] : schema.enum;
  if (choices !== undefined) {
    const options = ['', ...choices].map((choice) => element('option', {}, String(choice)));
    return element('select', attributes, ...options);
  }
  const placeholder = schema.default === undefined ? '' : JSON.stringify(schema.default);
  return element('input', { ...attributes, type: 'text', spellcheck: 'false', placeholder });
}

/**
 * @param {string} label
 * @param {string} note
 * @param {Field} field
 */
function labelled(label, note, field) {
  const described = element('small', { id: `${field.id}-note` }, note);
  field.setAttribute('aria-describedby', described.id);
  return element('p', {}, element('label', { for: field.id }, label), ' ', described, field);
}

/**
 * What the fields ask for. A field that is empty is not sent.
 * @param {string} method
 * @param {string} template
 * @param {readonly Field[]} fields
 * @param {string} key
 * @returns {Call}
 */
function callOf(method, template, fields, key) {
  let path = template;
  /** @type {string | undefined} */
  let body;
  const query = new URLSearchParams();
  /** @type {Record<string, string>} */
  const headers = {};
  for (const { value, dataset } of fields) {
    const { in: place, name = '' } = dataset;
    if (value === '') continue;
    if (place === 'path') path = path.replace(`{${name}}`, encodeURIComponent(value));
    if (place === 'query') query.append(name, value);
    if (place === 'header') headers[name] = value;
    if (place === 'body') [body, headers['Content-Type']] = [value, name];
  }
  if (key !== '') headers['Authorization'] = `Bearer ${key}`;
  return { method, path: query.size === 0 ? path : `${path}?${query.toString()}`, headers, body };
}

/**
 * The same call for a shell, with the key left to a variable: commands are copied into places where a key must not be.
 * @param {Call} call
 */
function commandOf({ method, path, headers, body }) {
  const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = Object.entries(headers).map(([name, value]) =>
    name === 'Authorization' ? '-H "Authorization: Bearer $API_KEY"' : `-H ${quoted(`${name}: ${value}`)}`,
  );
  const start = `curl -i ${method === 'GET' ? '' : `-X ${method} `}${quoted(`${location.origin}${path}`)}`;
  return [start, ...lines, ...(body === undefined ? [] : [`--data-binary ${quoted(body)}`])].join(' \\\n  ');
}

/**
 * Line breaks and indents for a JSON text. Its numbers and strings stay as they are: reading and writing them would
 * make 1.5 of 1.50.
 * @param {string} text
 */
function indented(text) {
  let depth = 0;
  const line = () => `\n${'  '.repeat(depth)}`;
  return text.replace(/"(?:[^"\\]|\\.)*"|[[{]\s*[\]}]|[[\]{},:]|\s+/g, (token) => {
    if (token === '{' || token === '[') return (depth++, token + line());
    if (token === '}' || token === ']') return (depth--, line() + token);
    if (token === ',') return token + line();
    if (token === ':') return ': ';
    return token.trim();
  });
}

/**
 * @param {Response} response
 * @returns {Promise<string>}
 */
async function shownBody(response) {
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  let text = '';
  let length = 0;
  for (;;) {
    const { value, done } = (await reader?.read()) ?? { value: undefined, done: true };
    if (done) break;
    length += value.length;
    text += decoder.decode(value, { stream: true });
    if (length > MAX_SHOWN_BYTES) {
      await reader?.cancel();
      return `${text}\n… and more, not shown here`;
    }
  }
  return /[/+]json\b/.test(response.headers.get('Content-Type') ?? '') ? indented(text) : text;
}

/**
 * @param {Call} call
 * @returns {Promise<{ outcome: string, headers: string, body: string }>}
 */
async function send({ method, path, headers, body }) {
  const startedAt = performance.now();
  try {
    const response = await fetch(path, {
      ...{ method, headers, ...(body !== undefined && { body }) },
      // The API knows a caller by the key alone, and never leads elsewhere.
      ...{ credentials: 'omit', redirect: 'error', cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) },
    });
    const shown = await shownBody(response);
    const milliseconds = Math.round(performance.now() - startedAt);
    return {
      // HTTP/2 has no words for a status.
      outcome: `${`${response.status} ${response.statusText}`.trim()} in ${milliseconds} ms`,
      headers: [...response.headers].map(([name, value]) => `${name}: ${value}`).join('\n'),
      body: shown,
    };
  } catch (error) {
    return { outcome: `No answer: ${error instanceof Error ? error.message : String(error)}`, headers: '', body: '' };
  }
}

/** @param {string} title */
function panel(title) {
  const text = element('pre', { tabindex: '0', role: 'region', 'aria-label': title });
  return { text, whole: element('div', {}, element('h3', {}, title), text) };
}

/**
 * @param {string} method
 * @param {string} path
 * @param {Operation} operation
 * @param {Api} api
 * @param {HTMLInputElement} key
 */
function formFor(method, path, { operationId, parameters = [], requestBody }, api, key) {
  const title = `${method} ${path}`;
  const form = element('form', { class: 'try', 'aria-label': `Try ${title}`, autocomplete: 'off' });
  /** @type {Field[]} */
  const fields = [];
  for (const parameter of parameters) {
    const { name, in: place, required, description = '' } = parameter;
    const field = fieldFor(parameter, `${operationId}-${place}-${name}`);
    fields.push(field);
    form.append(labelled(name, `${place}${required ? ', required' : ''}. ${description}`, field));
  }
  for (const [type, { schema }] of Object.entries(requestBody?.content ?? {}).slice(0, 1)) {
    const example = type.endsWith('json') ? JSON.stringify(exampleOf(schema, api), undefined, 2) : '';
    const field = element('textarea', { id: `${operationId}-body`, rows: '8', spellcheck: 'false', 'data-in': 'body' });
    field.dataset['name'] = type;
    field.value = example;
    fields.push(field);
    form.append(labelled('Body', `${type}. Sent as it stands here.`, field));
  }
  const button = element('button', {}, 'Send');
  const outcome = element('p', { role: 'status' });
  const [body, headers, command] = [panel('Body'), panel('Header fields'), panel('As a command')];
  const result = element('div', { class: 'result' }, body.whole, headers.whole, command.whole);
  result.hidden = true;
  form.append(button, outcome, result);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (button.ariaDisabled === 'true') return;
    // Not really disabled: that would take the focus away.
    button.ariaDisabled = 'true';
    outcome.textContent = 'Waiting for the answer';
    const call = callOf(method, path, fields, key.value.trim());
    void send(call).then((answer) => {
      body.text.textContent = answer.body;
      headers.text.textContent = answer.headers;
      command.text.textContent = commandOf(call);
      result.hidden = false;
      outcome.textContent = answer.outcome;
      button.ariaDisabled = null;
    });
  });
  return form;
}

function keyForm() {
  const field = element('input', { id: 'api-key', type: 'password', autocomplete: 'off', spellcheck: 'false' });
  const note = 'Sent as Authorization: Bearer with what you try here. Only this page knows it, until you leave it.';
  const form = element('form', { class: 'try' }, labelled('API key', note, field));
  form.addEventListener('submit', (event) => event.preventDefault());
  // A page that is left may be kept, and shown again with all its fields.
  window.addEventListener('pagehide', () => (field.value = ''));
  return { field, form };
}

const key = keyForm();
const response = await fetch('/openapi.json', { credentials: 'omit' }).catch(() => undefined);
const main = document.querySelector('main');
if (response?.ok === true) {
  /** @type {unknown} */
  const read = await response.json();
  const api = /** @type {Api} */ (read);
  main?.prepend(key.form);
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = document.getElementById(operation.operationId);
      if (!(section instanceof HTMLDetailsElement)) continue;
      const build = () => section.append(formFor(method.toUpperCase(), path, operation, api, key.field));
      if (section.open) build();
      else section.addEventListener('toggle', build, { once: true });
    }
  }
} else {
  main?.prepend(element('p', { role: 'alert' }, 'Calls cannot be tried now: /openapi.json could not be read.'));
}
