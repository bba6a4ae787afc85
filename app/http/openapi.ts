import { z } from 'zod';
import { PROBLEMS } from '../errors';
import { components, OPERATIONS } from './contract';
import {
  type Components,
  HEADER_PATTERNS,
  type Operation,
  PROBLEM_HEADERS,
  problemsOf,
  REQUEST_HEADERS,
} from './contract/operation';

export interface SchemaObject {
  readonly [key: string]: unknown;
  readonly type?: string | string[];
  readonly description?: string;
  readonly properties?: Record<string, SchemaObject>;
  readonly required?: string[];
}

interface ContentObject {
  readonly description: string;
  readonly headers?: Record<string, unknown>;
  readonly content?: Record<string, { schema: SchemaObject }>;
}

export interface OperationObject {
  readonly operationId: string;
  readonly summary: string;
  /** The scopes that a key needs; empty where none is needed. */
  readonly security: readonly Record<string, readonly string[]>[];
  readonly parameters?: { name: string; in: string; required: boolean; description?: string; schema: SchemaObject }[];
  readonly requestBody?: { required: true; content: Record<string, { schema: SchemaObject }> };
  readonly responses: Record<string, ContentObject>;
}

export interface OpenApiDocument {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly paths: Record<string, Record<string, OperationObject>>;
  readonly components: {
    readonly schemas: Record<string, SchemaObject>;
    readonly securitySchemes: Record<string, object>;
  };
}

const SECURITY_SCHEMES = {
  apiKey: {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'bl_<environment>_<id>_<secret>',
    description:
      'An API key, as Authorization: Bearer <key>. An operation names the scope that the key must have; admin ' +
      'includes all others. A key that follows another by rotation is the same client: Idempotency-Key, rate limits and ' +
      'actors of events stay as they are.',
  },
} as const;

/** The OpenAPI 3.1 document of the service, made from the contract alone. */
export function openApiDocument(maxAmount: string): OpenApiDocument {
  const paths: Record<string, Record<string, OperationObject>> = {};
  for (const operation of OPERATIONS) {
    for (const path of operation.paths) {
      const described = (paths[path.replace(/:(\w+)/g, '{$1}')] ??= {});
      described[operation.method.toLowerCase()] = describe(operation, path);
    }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Branch Loans',
      version: '1.0.0',
      description:
        'Loans in several currencies. Amounts are exact decimals. Every failure is an RFC 9457 problem document (a page for who ' +
        'asks for HTML). ' +
        '/api and /api/v1 are the same.',
    },
    paths,
    components: { schemas: schemas(components(maxAmount)), securitySchemes: SECURITY_SCHEMES },
  };
}

function describe(operation: Operation, path: string): OperationObject {
  const { access, answer, body } = operation;
  const unversioned = path.startsWith('/api/') && !path.startsWith('/api/v1/');
  const parameters = parametersOf(operation, path);
  const schema: SchemaObject = answer.schema === undefined ? { type: 'string' } : reference(answer.schema);
  return {
    operationId: unversioned ? `${operation.id}Unversioned` : operation.id,
    summary: operation.summary,
    security: access === 'public' ? [] : [{ apiKey: [access] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body !== undefined && {
      requestBody: { required: true, content: { 'application/json': { schema: reference(body) } } },
    }),
    responses: {
      [answer.status]: {
        description: operation.summary,
        ...(answer.headers !== undefined && { headers: answerHeaders(answer.headers) }),
        content: Object.fromEntries([answer.mediaType ?? 'application/json'].flat().map((type) => [type, { schema }])),
      },
      ...(operation.headers?.includes('If-None-Match') === true && {
        304: { description: 'The client has the current version already' },
      }),
      ...problemResponses(operation),
    },
  };
}

function answerHeaders(headers: Readonly<Record<string, string>>): Record<string, object> {
  const described = Object.entries(headers).map(([name, description]) => {
    return [name, { description, schema: { type: 'string', ...(name === 'Location' && { format: 'uri-reference' }) } }];
  });
  return Object.fromEntries(described) as Record<string, object>;
}

function parametersOf({ query, headers = [] }: Operation, path: string): NonNullable<OperationObject['parameters']> {
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name = '']) => {
    return { name, in: 'path', required: true, schema: { type: 'string', format: 'uuid' } };
  });
  const properties = query === undefined ? {} : (jsonSchema(query, 'input').properties ?? {});
  const inQuery = Object.entries(properties).map(([name, { description, ...schema }]) => {
    return { name, in: 'query', required: false, ...(description !== undefined && { description }), schema };
  });
  const inHeader = headers.map((name) => {
    const schema = { type: 'string', ...(name in HEADER_PATTERNS && { pattern: HEADER_PATTERNS[name] }) };
    return { name, in: 'header', required: false, description: REQUEST_HEADERS[name], schema };
  });
  return [...inPath, ...inQuery, ...inHeader];
}

/** One response for each status: several problems may share one. */
function problemResponses(operation: Operation): Record<string, ContentObject> {
  const responses: Record<string, ContentObject> = {};
  for (const slug of problemsOf(operation)) {
    const { status, title } = PROBLEMS[slug];
    const before = responses[status]?.description;
    const description = `${slug}: ${title}`;
    const headers = { ...responses[status]?.headers, ...answerHeaders(PROBLEM_HEADERS[slug] ?? {}) };
    responses[status] = {
      description: before === undefined ? description : `${before}; ${description}`,
      ...(status === 401 && { headers: answerHeaders({ 'WWW-Authenticate': 'Bearer, and what is wrong (RFC 6750)' }) }),
      ...(Object.keys(headers).length > 0 && { headers }),
      content: { 'application/problem+json': { schema: reference('Problem') } },
    };
  }
  return responses;
}

function reference(name: string): SchemaObject {
  return { $ref: `#/components/schemas/${name}` };
}

const REQUESTS = new Set(OPERATIONS.flatMap(({ body }) => body ?? []));

function schemas(components: Components): Record<string, SchemaObject> {
  return Object.fromEntries(
    Object.entries(components).map(([name, schema]): [string, SchemaObject] => {
      if ('listOf' in schema) return [name, { type: 'array', items: reference(schema.listOf) }];
      return [name, jsonSchema(schema, REQUESTS.has(name) ? 'input' : 'output')];
    }),
  );
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): SchemaObject {
  const described = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    // zod leaves these out of a value that is transformed, since they might be of its result: ours are what is sent.
    override({ zodSchema, jsonSchema }) {
      const { examples, default: fallback } = z.globalRegistry.get(zodSchema) ?? {};
      Object.assign(
        jsonSchema,
        examples !== undefined && { examples },
        fallback !== undefined && { default: fallback },
      );
    },
  });
  delete described.$schema; // The document as a whole says which dialect it uses.
  return described as SchemaObject;
}
