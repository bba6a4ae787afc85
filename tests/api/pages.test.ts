import { PROBLEMS } from '../../app/errors';
import { newestMigration } from '../../app/db/migrate';
import { CONFIG, ask, LOAN, startService, type TestService } from './harness';

/** What people see: the status page, and failures in a browser. */

const CHROME = 'text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

const get = (path: string, accept?: string, method = 'GET') =>
  api.ask(method, path, { headers: accept === undefined ? {} : { accept } });

describe('a failure is', () => {
  it.each([
    [undefined, false],
    ['*/*', false],
    ['application/json', false],
    ['application/problem+json', false],
    ['application/json, text/html', false],
    ['text/html, application/json', true],
    ['text/html;q=0.5, application/json', false],
    ['text/html;q=0', false],
    ['text/*', false],
    ['image/png', false],
    ['text/html', true],
    ['TEXT/HTML', true],
    [CHROME, true],
    ['text/html, application/problem+json;q=0.9', true],
    ['text/html;;;q=x,,', false],
    ['text/htmlx', false],
  ])('for Accept: %s a page: %s', async (accept, page) => {
    const { status, headers } = await get('/nowhere', accept);
    const type = page ? 'text/html; charset=utf-8' : 'application/problem+json; charset=utf-8';
    expect([status, headers['content-type'], headers.vary]).toEqual([404, type, 'Accept']);
    expect(headers['cache-control']).toBe('no-store');
    expect(headers['content-security-policy']).toMatch(page ? /^default-src 'self';/ : /^default-src 'none';/);
  });

  it('the same to know, as a page and as a document', async () => {
    for (const path of ['/nowhere', '/api/loans/x', '/api/loans?limit=0&x=<y>', `/api/loans/${crypto.randomUUID()}`]) {
      const problem = (await get(path)).json();
      const { status, headers, text } = await get(path, CHROME);
      expect(status).toBe(problem.status);
      const errors = (problem.errors ?? []) as { parameter: string; detail: string }[];
      const faults = errors.flatMap(({ parameter, detail }) => [parameter, detail]);
      const facts = [problem.title, problem.type, problem.instance, headers['x-request-id'], problem.detail, ...faults];
      for (const fact of facts) expect(text).toContain(String(fact).replaceAll('<', '&lt;').replaceAll('>', '&gt;'));
    }
  });

  it('never a way for HTML of others', async () => {
    const { text } = await get(`/<script>alert("1")</script>?"><img/src=x>=1`, CHROME);
    expect(text).not.toMatch(/<script>|<img|"1"/);
    const parameter = await get('/api/loans?%3Cimg%20src=x%3E=1', CHROME);
    expect(parameter.text).toContain('&lt;img src');
    expect(parameter.text).not.toContain('<img');
  });

  it('no page where something was to be changed, or where the answer has no body', async () => {
    const posted = await api.post({ ...LOAN, amount: -1 }, { accept: CHROME });
    expect(posted.headers['content-type']).toBe('application/problem+json; charset=utf-8');
    const head = await get('/nowhere', CHROME, 'HEAD');
    expect([head.status, head.text, head.headers.vary]).toEqual([404, '', 'Accept']);
    expect(head.headers['content-type']).toBe('text/html; charset=utf-8');
  });

  it('a page also when the database is away, with what the header says', async () => {
    const alone = await startService({ database: { ...CONFIG.database, port: 1 } });
    const { status, text } = await ask(alone.port, 'GET', '/api/loans', { headers: { accept: CHROME } });
    expect(status).toBe(503);
    expect(text).toContain(PROBLEMS['db-unavailable'].title);
    await alone.stop();
  });
});

it('an answer that is no failure is as it was, for a browser too', async () => {
  const { headers } = await get('/api/loans', CHROME);
  expect([headers['content-type'], headers.vary]).toEqual(['application/json; charset=utf-8', undefined]);
});

describe('GET /status', () => {
  it('shows what /api/status says, without its script too', async () => {
    const { status, headers, text } = await get('/status', CHROME);
    expect([status, headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
    expect(headers['content-security-policy']).toMatch(/^default-src 'self';/);
    expect(text).toContain('>The service is well</p>');
    for (const [name, value] of Object.entries({ version: '1.2.3', commit: 'abc', 'database.status': 'up' })) {
      expect(text).toContain(`<span data-value="${name}">${value}</span>`);
    }
    expect(text).toContain(`<span data-value="database.schema_version">${newestMigration()}</span>`);
    expect(text).not.toMatch(/<style|style=| on\w+=|https?:|undefined|\[object/);
  });

  it('says so when the database is away', async () => {
    const alone = await startService({ database: { ...CONFIG.database, port: 1 } });
    const { status, text } = await ask(alone.port, 'GET', '/status');
    expect(status).toBe(200);
    expect(text).toContain('<p class="state degraded"');
    expect(text).toContain('<span data-value="database.latency_ms">unknown</span>');
    await alone.stop();
  });
});
