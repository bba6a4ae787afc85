import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { BODY_LIMIT_BYTES, BULK_BODY_LIMIT_BYTES } from '../../app/config';
import { openApiDocument, type OperationObject, type SchemaObject } from '../../app/http/openapi';
import { held, type Trial } from './event-loop';
import { LOAN, raw, statuses } from './harness';

/**
 * What a client writes is measured before it is read: no value of the contract, however large or hostile, holds the
 * event loop for long. All inputs come from the OpenAPI document, so that a new one is tried as well.
 */
const BODY_MS = 20;
/** For header fields, parameters and paths, which have 15 kB at most. */
const FIELD_MS = 5;
const FIELD_BYTES = 15_000;

let service: ChildProcess;
let port: number;
beforeAll(async () => {
  // Without the collection of coverage, which costs processor time too.
  const env = { ...process.env };
  delete env.NODE_V8_COVERAGE;
  service = fork(join(__dirname, 'measured.ts'), { execArgv: ['--import', 'tsx'], serialization: 'advanced', env });
  [port] = (await once(service, 'message')) as [number];
}, 60_000);
afterAll(async () => {
  const ended = once(service, 'exit');
  service.disconnect();
  await ended;
});

async function tooLong(trials: readonly Trial[], boundMs: number): Promise<string[]> {
  const answered = once(service, 'message');
  service.send({ trials, boundMs });
  return ((await answered) as [string[]])[0];
}

const UUID = '00000000-0000-4000-8000-000000000000';
const document = openApiDocument('50000');
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods)
    .filter(([, { operationId }]) => !operationId.endsWith('Unversioned'))
    .map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
);

function requestOf(
  { method, path }: { readonly method: string; readonly path: string },
  fields: Readonly<Record<string, string>> = {},
  body?: string,
): Buffer {
  const all: Record<string, string> = { Host: 'a', Connection: 'close', ...fields };
  if (body !== undefined) all['Content-Type'] ??= 'application/json';
  const text = body === undefined ? undefined : Buffer.from(body);
  if (text !== undefined) all['Content-Length'] = String(text.length);
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = `${method} ${path.replace(/\{\w+\}/g, UUID)} HTTP/1.1\r\n${lines.join('')}\r\n`;
  return Buffer.concat([Buffer.from(head, 'latin1'), text ?? Buffer.alloc(0)]);
}

/** Texts that patterns and parsers go through again and again, each after a beginning that they take, and with an end that they do not. */
const REPEATS = [
  ...[' ', '\t', ',', ', ', ';', '; ', '"', '\\', '/', '=', '-', '.', ':', '%', '*', '+', '(', '<', '[', '0', '9', 'a'],
  ...['a,', 'a;', 'a=a;', 'a,"', '";', '\\"', '"",', '"a",', 'W/"a",', 'a/b,', 'a/*;q=0.1,', ';q=0.1', ';a="', '::1'],
  ...['a-', '1:', 'a b ', '\xe9', '%41', '%C3%A9', '1e', '0.', '-1'],
];
const filled = (start: string, repeat: string, end: string) =>
  start + repeat.repeat(Math.floor((FIELD_BYTES - start.length - end.length) / repeat.length)) + end;

/** Every field that the service, or a library in it, reads, and beginnings that take a parser in. */
const BEGINNINGS: Readonly<Record<string, readonly string[]>> = {
  Accept: ['', 'text/html,', 'text/html,"', 'text/html;a="', 'application/openmetrics-text'],
  'Accept-Encoding': ['', 'gzip'],
  'Access-Control-Request-Headers': ['', 'a'],
  'Access-Control-Request-Method': ['', 'POST'],
  Authorization: ['', 'Bearer ', 'Bearer a', 'Bearer bl_test_', 'Basic a'],
  'Content-Encoding': ['', 'identity'],
  'Content-Type': [
    '',
    'application/json',
    'application/json;',
    'application/json; charset=utf-8',
    'application/json; charset="',
  ],
  Cookie: ['', 'a='],
  Expect: ['', '100-continue'],
  Forwarded: ['', 'for='],
  Host: ['', 'a:', 'a:1', '[::'],
  'Idempotency-Key': ['', '"', '"\\"', 'a'],
  'If-Match': ['', '"', '"a"', '"a",', 'W/"a"'],
  'If-Modified-Since': ['', 'Mon, 30 Nov 2026'],
  'If-None-Match': ['', '"', '"a"', '"a",', 'W/"a"', '*'],
  Origin: ['', 'https://desk.example'],
  Range: ['', 'bytes=0-'],
  Referer: ['', 'https://a/'],
  traceparent: ['', `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`],
  tracestate: ['', 'a=b,'],
  'User-Agent': ['', 'curl/8'],
  'X-Forwarded-For': ['', '1.2.3.4', '::ffff:1.2.3.4', '::'],
  'X-Gateway-Span': ['', '1700000000.000 1.000 '],
  'X-Operator-Token': [''],
  'X-Request-ID': ['', 'a'],
};

it('names every header field that the contract has', () => {
  const named = operations.flatMap(({ operation }) => operation.parameters ?? []).filter((one) => one.in === 'header');
  expect(Object.keys(BEGINNINGS)).toEqual(expect.arrayContaining(named.map(({ name }) => name)));
});

describe.each(Object.entries(BEGINNINGS))('the header field %s', (field, beginnings) => {
  it.each([
    ['a loan that is created', { method: 'POST', path: '/api/v1/loans' }, JSON.stringify({ ...LOAN, amount: '0' })],
    ['a loan that is moved', { method: 'POST', path: '/api/v1/loans/{id}/transitions' }, '{"to":"approved"}'],
    ['a loan that is not there', { method: 'GET', path: '/api/v1/loans/{id}' }, undefined],
    ['metrics', { method: 'GET', path: '/metrics' }, undefined],
    ['a page', { method: 'GET', path: '/docs' }, undefined],
    ['a preflight', { method: 'OPTIONS', path: '/api/v1/loans' }, undefined],
  ])(
    `of 15 kB, for %s, takes less than ${FIELD_MS} ms`,
    async (_name, target, body) => {
      const preflight: Record<string, string> =
        target.method === 'OPTIONS' ? { Origin: 'https://desk.example', 'Access-Control-Request-Method': 'POST' } : {};
      const page: Record<string, string> = field === 'Accept' ? {} : { Accept: 'text/html' };
      const trials = beginnings.flatMap((start) =>
        REPEATS.filter((repeat) => !/^%/.test(repeat)).map((repeat) => ({
          name: JSON.stringify([start, repeat]),
          bytes: requestOf(target, { ...preflight, ...page, [field]: filled(start, repeat, '\xe9x') }, body),
        })),
      );
      // What the request costs by itself is not the field's.
      const bound = target.path === '/metrics' || target.path === '/docs' ? 4 * FIELD_MS : FIELD_MS;
      expect(await tooLong(trials, bound)).toEqual([]);
    },
    60_000,
  );
});

describe.each(operations.map((one) => [one.operation.operationId, one] as const))(
  '%s',
  (_id, { path, method, operation }) => {
    const parameters = (operation.parameters ?? []).filter((one) => one.in !== 'header');
    const unencoded = /[^!$&'()*+,;=:@/?\x2d-\x7e%]|%(?![0-9A-F]{2})|["<>\\^`{|}]/g;
    const encoded = (text: string) =>
      text.replace(unencoded, (character) => `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`);
    const tried = REPEATS.map((repeat) => [repeat, encoded(repeat)] as const);
    const inputs = [
      ...parameters.map(({ name, in: where }) => [where, name] as const),
      ['query', 'unknown'] as const,
      ['query', ''] as const,
    ];

    it.each(inputs)(
      `in its %s, %j of 15 kB takes less than ${FIELD_MS} ms`,
      async (where, name) => {
        const trials = tried.map(([repeat, text]) => {
          const value = filled('', text, 'x');
          const target =
            where === 'path' ? path.replace(`{${name}}`, value.replaceAll('/', '%2F')) : `${path}?${name}=${value}`;
          return { name: JSON.stringify(repeat), bytes: requestOf({ method, path: target }, { Accept: 'text/html' }) };
        });
        trials.push({ name: 'many', bytes: requestOf({ method, path: `${path}?${'a&'.repeat(7_000)}` }) });
        trials.push({ name: 'many others', bytes: requestOf({ method, path: `${path}?${manyNames(3_000)}` }) });
        const heavy = /^\/(metrics|docs|openapi\.json|sre|status|health)|\/(status|metrics)/.test(path);
        expect(await tooLong(trials, heavy ? 4 * FIELD_MS : FIELD_MS)).toEqual([]);
      },
      60_000,
    );
  },
);

function manyNames(count: number): string {
  return Array.from({ length: count }, (_, index) => `${index.toString(36)}=`).join('&');
}

/** JSON of one value that fills the body. */
const HOSTILE: Readonly<Record<string, (bytes: number) => string>> = {
  'digits in a string': (bytes) => `"${'9'.repeat(bytes)}"`,
  digits: (bytes) => '9'.repeat(bytes),
  'digits after a minus': (bytes) => `-${'9'.repeat(bytes)}`,
  'zeros in a string': (bytes) => `"${'0'.repeat(bytes)}"`,
  'a fraction': (bytes) => `0.${'1'.repeat(bytes)}`,
  'a fraction of zeros': (bytes) => `1.${'0'.repeat(bytes)}`,
  'a fraction of zeros in a string': (bytes) => `"1.${'0'.repeat(bytes)}"`,
  'an exponent': (bytes) => `1e${'9'.repeat(bytes)}`,
  'an exponent of zeros': (bytes) => `1e${'0'.repeat(bytes)}1`,
  'digits with an exponent': (bytes) => `${'9'.repeat(bytes)}e-20`,
  'a fraction with an exponent': (bytes) => `1.${'0'.repeat(bytes)}e20`,
  letters: (bytes) => `"${'x'.repeat(bytes)}"`,
  blanks: (bytes) => `"${' '.repeat(bytes)}"`,
  'blanks at the end': (bytes) => `"x${' '.repeat(bytes)}"`,
  'wide blanks': (bytes) => `"${'\u3000'.repeat(bytes / 3)}"`,
  'characters outside the first plane': (bytes) => `"${'\u{1F600}'.repeat(bytes / 4)}"`,
  'combining marks': (bytes) => `"${'e\u0301'.repeat(bytes / 3)}"`,
  escapes: (bytes) => `"${'\\u0041'.repeat(bytes / 6)}"`,
  'short escapes': (bytes) => `"${'\\n'.repeat(bytes / 2)}"`,
  'escapes without an end': (bytes) => `"${'\\n'.repeat(bytes / 2)}`,
  'escaped NUL': (bytes) => `"${'\\u0000'.repeat(bytes / 6)}"`,
  'halves of pairs': (bytes) => `"${'\\ud800'.repeat(bytes / 6)}"`,
  backslashes: (bytes) => `"${'\\\\'.repeat(bytes / 2)}"`,
  hyphens: (bytes) => `"${'-'.repeat(bytes)}"`,
  'space around a value': (bytes) => `${' '.repeat(bytes)}1`,
  arrays: (bytes) => `[${'[],'.repeat(Math.min(bytes / 3, 24_900))}[]]`,
  brackets: (bytes) => '['.repeat(bytes),
  objects: (bytes) => `[${'{"a":1},'.repeat(Math.min(bytes / 8, 9_900))}{}]`,
  properties: (bytes) => `{${manyProperties(Math.min(bytes / 12, 9_900))}}`,
  'numbers as properties': (bytes) =>
    `{${Array.from({ length: Math.min(bytes / 14, 9_900) }, (_, n) => `"${n * 99_991}":1`).join(',')}}`,
  'different properties of many objects': (bytes) =>
    `[${Array.from({ length: 5 }, (_, n) => `{${manyProperties(Math.min(bytes / 60, 1_990), n)}}`).join(',')}]`,
  'a long property': (bytes) => `{"${'n'.repeat(bytes)}":1}`,
  'a long property twice': (bytes) => `{"${'n'.repeat(bytes / 2 - 10)}":1,"${'n'.repeat(bytes / 2 - 10)}":1}`,
  'numbers in a list': (bytes) => `[${'1,'.repeat(Math.min(bytes / 2, 24_900))}1]`,
};

function manyProperties(count: number, series = 0): string {
  return Array.from({ length: count }, (_, index) => `"${series}${index.toString(36)}":1`).join(',');
}

const withBody = operations.filter(({ operation }) => operation.requestBody !== undefined);
const VALID: Readonly<Record<string, unknown>> = {
  NewLoan: LOAN,
  NewLoanList: { loans: [LOAN] },
  Transition: { to: 'approved' },
  NewRepayment: { amount: '1.00' },
  Reversal: { reason: 'x' },
  Echo: {},
};

describe.each(withBody.map((one) => [one.operation.operationId, one] as const))(
  'the body of %s',
  (id, { path, method, operation }) => {
    const limit = (id === 'createLoans' ? BULK_BODY_LIMIT_BYTES : BODY_LIMIT_BYTES) - 1_000;
    const places = placesOf(operation);

    it.each(places)(
      `at %j, of any kind and as large as it may be, takes less than ${BODY_MS} ms`,
      async (_place, write) => {
        const trials = Object.entries(HOSTILE).map(([name, value]) => ({
          name,
          bytes: requestOf({ method, path }, {}, write(value(limit))),
        }));
        expect(await tooLong(trials, BODY_MS)).toEqual([]);
      },
      60_000,
    );
  },
);

/** Every place of the body where a client writes a value, with what writes such a body. */
function placesOf(operation: OperationObject): (readonly [place: string, write: (value: string) => string])[] {
  const { $ref } = operation.requestBody!.content['application/json']!.schema;
  const name = String($ref).split('/').at(-1)!;
  const valid = VALID[name] as Record<string, unknown>;
  const schema = document.components.schemas[name]!;
  const around = (value: Record<string, unknown>, property: string, hole: string) =>
    JSON.stringify({ ...value, [property]: hole });
  const within = (
    properties: Record<string, SchemaObject> = {},
    value: Record<string, unknown>,
    wrap: (text: string) => string,
  ) =>
    [...Object.keys(properties), 'unknown'].map((property) => {
      const write = (hostile: string) => wrap(around(value, property, '\u0001').replace('"\\u0001"', () => hostile));
      return [property, write] as const;
    });
  const whole = ['', (value: string) => value] as const;
  if (name !== 'NewLoanList') return [whole, ...within(schema.properties, valid, (text) => text)];
  const loan = document.components.schemas.NewLoan!;
  return [
    whole,
    ...within(schema.properties, valid, (text) => text),
    ...within(loan.properties, LOAN, (text) => `{"loans":[${text}]}`).map(
      ([at, write]) => [`loans/0/${at}`, write] as const,
    ),
  ];
}

it('the measurement sees what holds the event loop', async () => {
  const quadratic = /^a\s*(?:;x\s*)?;?\s*$/;
  const work = () => Promise.resolve(quadratic.test(`a${' '.repeat(8_000)}x`));
  expect(await held(work, BODY_MS)).toBeGreaterThan(BODY_MS);
});

it('many loans at once, as large as they may be, are let through', async () => {
  const loans = Array.from({ length: 1_000 }, () => ({ ...LOAN, borrower_id: 'x'.repeat(255) }));
  const bytes = requestOf(
    { method: 'POST', path: '/api/v1/loans/bulk' },
    { 'Idempotency-Key': 'bounds' },
    JSON.stringify({ loans }),
  );
  expect(statuses(await raw(port, bytes, 10_000))).toEqual([201]);
});
