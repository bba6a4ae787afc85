import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROBLEMS } from '../../app/errors';
import { OPERATIONS, problemSchema } from '../../app/http/contract';
import { problemsOf } from '../../app/http/contract/operation';
import { loanEventSchema, loanSchema, statisticsSchema } from '../../app/http/contract/loans';
import { databaseHealthSchema, healthSchema, statusSchema } from '../../app/http/contract/probes';
import { balanceSchema, bookingSchema, repaymentSchema, scheduleSchema } from '../../app/http/contract/repayments';
import { openApiDocument } from '../../app/http/openapi';
import { LOAN, startService, type TestService } from './harness';
import { borrower } from './ledger';

const FILE = join(__dirname, '..', '..', 'docs', 'openapi.json');
const document = openApiDocument('50000');

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

it('docs/openapi.json is this release; UPDATE_OPENAPI=1 writes it', () => {
  const text = `${JSON.stringify(document, undefined, 2)}\n`;
  if (process.env.UPDATE_OPENAPI === '1') writeFileSync(FILE, text);
  expect(readFileSync(FILE, 'utf8')).toBe(text);
});

it('is served as it is written', async () => {
  const answer = await api.ask('GET', '/openapi.json');
  expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
  expect(answer.json()).toEqual(JSON.parse(JSON.stringify(document)));
});

it('names exactly the routes there are', async () => {
  for (const [path, methods] of Object.entries(document.paths)) {
    const allow = (await api.ask('OPTIONS', path.replace(/{\w+}/g, 'x'))).headers.allow
      ?.split(', ')
      .filter((method) => method !== 'HEAD');
    expect([path, allow]).toEqual([path, Object.keys(methods).map((method) => method.toUpperCase())]);
  }
  const ids = Object.values(document.paths).flatMap((methods) =>
    Object.values(methods).map(({ operationId }) => operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
});

it('resolves every reference, and describes every status of every operation by problems of the catalogue', () => {
  for (const [, name] of JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
    expect(Object.keys(document.components.schemas)).toContain(name);
  }
  for (const operation of OPERATIONS) {
    const described = document.paths[operation.paths[0]!.replace(/:(\w+)/g, '{$1}')]![operation.method.toLowerCase()]!;
    const conditional = operation.headers?.includes('If-None-Match') === true ? [304] : [];
    const problems = problemsOf(operation).map((slug) => PROBLEMS[slug].status);
    const expected = [operation.answer.status, ...conditional, ...problems];
    expect(Object.keys(described.responses).map(Number).sort()).toEqual([...new Set(expected)].sort());
  }
});

it('describes what is really answered', async () => {
  const created = await api.post(LOAN);
  expect(loanSchema.safeParse(created.json()).error).toBeUndefined();
  await api.post({ borrower_id: 'b', amount: 1, currency: 'inr' });
  const at = borrower(api);
  const paid = await at.loan();
  const booked = await at.pay(paid, '100');
  expect(bookingSchema.safeParse(booked.json()).error).toBeUndefined();
  await at.reverse(paid, booked.json().repayment.id as string);
  expect(problemSchema.safeParse((await at.pay(paid, '99999')).json()).error).toBeUndefined();
  for (const [path, schema] of [
    ['/api/v1/loans', loanSchema.array()],
    [created.headers.location!, loanSchema],
    [`${created.headers.location!}/events`, loanEventSchema.array()],
    [`${created.headers.location!}/schedule`, scheduleSchema],
    [`${paid}/balance`, balanceSchema],
    [`${paid}/repayments`, repaymentSchema.array()],
    [`${paid}/events`, loanEventSchema.array()],
    ['/api/stats', statisticsSchema],
    ['/health', healthSchema],
    ['/health/live', statusSchema],
    ['/health/ready', statusSchema],
    ['/health-db', databaseHealthSchema],
    ['/nowhere', problemSchema],
    ['/api/loans?x=1', problemSchema],
  ] as const) {
    const answer = await api.ask('GET', path);
    expect([path, schema.safeParse(answer.json()).error]).toEqual([path, undefined]);
  }
});

it('says which operation needs a key, and with which scope', () => {
  for (const { access, method, paths } of OPERATIONS) {
    for (const path of paths) {
      const { security, responses } = document.paths[path.replace(/:(\w+)/g, '{$1}')]![method.toLowerCase()]!;
      expect([path, security]).toEqual([path, access === 'public' ? [] : [{ apiKey: [access] }]]);
      const [unauthorized, forbidden] = [responses['401'], responses['403']];
      expect([path, unauthorized !== undefined, forbidden !== undefined]).toEqual([
        path,
        access !== 'public',
        access !== 'public',
      ]);
    }
  }
  expect(document.components.securitySchemes).toMatchObject({ apiKey: { type: 'http', scheme: 'bearer' } });
});

describe('the page', () => {
  it('shows every operation, shape and problem, with nothing inline and nothing from elsewhere', async () => {
    const { status, headers, text } = await api.ask('GET', '/docs');
    expect([status, headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
    const policy = headers['content-security-policy'] as string;
    expect(policy).toMatch(
      /^default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none';/,
    );
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    for (const path of Object.keys(document.paths)) expect(text).toContain(` ${path}</code>`);
    for (const name of Object.keys(document.components.schemas)) expect(text).toContain(`id="schema-${name}"`);
    for (const slug of Object.keys(PROBLEMS)) expect(text).toContain(`<code>${slug}</code>`);
    expect(text.match(/<script[^>]*>[^]*?<\/script>/g)).toEqual([
      '<script type="module" src="/docs/try-it.js"></script>',
    ]);
    expect(text).not.toMatch(/<style|style=| on\w+=|https?:|undefined|\[object/);
    expect(text).toContain('name="viewport"');
    const opened = [...text.matchAll(/<(details|section|table|tr|td|main|body)\b/g)].length;
    expect([...text.matchAll(/<\/(details|section|table|tr|td|main|body)>/g)]).toHaveLength(opened);
  });

  it('takes its style from here, for day and night', async () => {
    const { status, headers, text } = await api.ask('GET', '/docs/style.css');
    expect([status, headers['content-type']]).toEqual([200, 'text/css; charset=utf-8']);
    expect(text).toContain('prefers-color-scheme: dark');
  });

  it.each([
    ['/openapi.json', 'application/json; charset=utf-8'],
    ['/docs', 'text/html; charset=utf-8'],
    ['/docs/style.css', 'text/css; charset=utf-8'],
    ['/docs/try-it.js', 'text/javascript; charset=utf-8'],
    ['/docs/icon.svg', 'image/svg+xml'],
  ])('%s is kept by a browser, which asks whether it is still current', async (path, contentType) => {
    const { status, headers } = await api.ask('GET', path);
    expect([status, headers['content-type'], headers['cache-control']]).toEqual([200, contentType, 'no-cache']);
    const tag = headers.etag as string;
    // A gateway that compresses makes the tag a weak one.
    for (const known of [tag, `W/${tag}`, `"x", ${tag}`]) {
      const again = await api.ask('GET', path, { headers: { 'if-none-match': known } });
      expect([again.status, again.text, again.headers.etag]).toEqual([304, '', tag]);
    }
    expect((await api.ask('GET', path, { headers: { 'if-none-match': '"x"' } })).status).toBe(200);
  });
});
