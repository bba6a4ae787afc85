import { formatApiKey } from '../../app/domain/api-key';
import { LOAN, raw, startService, statuses, type TestService } from './harness';

const DESK = 'https://desk.example';
const CORS = /^access-control-/;
const corsOf = (headers: object) => Object.fromEntries(Object.entries(headers).filter(([name]) => CORS.test(name)));
const words = (field: unknown) => String(field).split(/\s*,\s*/);

describe('pages of other web sites (CORS)', () => {
  let api: TestService;
  beforeAll(async () => {
    api = await startService({ corsOrigins: [DESK, 'http://localhost:3000'], apiKeys: 'required' });
  });
  afterAll(() => api.stop());

  const preflight = (origin: string, path = '/api/v1/loans') =>
    api.ask('OPTIONS', path, {
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,idempotency-key,if-match,content-type,x-evil',
      },
    });

  it.each([DESK, 'http://localhost:3000'])('a preflight from %s is answered without a key', async (origin) => {
    const { status, headers, text } = await preflight(origin);
    expect([status, text]).toEqual([204, '']);
    expect(headers).toMatchObject({ 'access-control-allow-origin': origin, 'access-control-max-age': '600' });
    expect(headers.vary).toBe('Origin');
    expect(words(headers['access-control-allow-methods'])).toEqual(expect.arrayContaining(['GET', 'HEAD', 'POST']));
    const allowed = words(headers['access-control-allow-headers']);
    expect(allowed).toEqual(
      expect.arrayContaining(['Authorization', 'Idempotency-Key', 'If-Match', 'If-None-Match', 'Content-Type']),
    );
    expect(allowed).not.toContain('x-evil');
    expect(headers).not.toHaveProperty('access-control-allow-credentials');
  });

  it.each([
    'https://desk.example.evil.example',
    'https://desk.example:8443',
    'http://desk.example',
    'https://DESK.example',
    'https://evil.example',
    'null',
    '*',
    '',
  ])('a preflight from "%s" allows nothing', async (origin) => {
    const { headers } = await preflight(origin);
    expect(corsOf(headers)).toEqual({});
    expect(headers.vary).toBe('Origin');
  });

  it('an answer can be read by its page, with the fields that a client needs; a refusal too', async () => {
    for (const [path, status] of [
      ['/health', 200],
      ['/api/v1/loans', 401],
      ['/nowhere', 404],
    ] as const) {
      const answer = await api.ask('GET', path, { headers: { origin: DESK } });
      expect([path, answer.status]).toEqual([path, status]);
      expect(answer.headers['access-control-allow-origin']).toBe(DESK);
      expect(words(answer.headers.vary)).toContain('Origin');
      expect(words(answer.headers['access-control-expose-headers'])).toEqual(
        expect.arrayContaining([
          ...['ETag', 'Link', 'Location', 'RateLimit', 'RateLimit-Policy', 'Retry-After'],
          ...['Idempotent-Replayed', 'X-Request-ID'],
        ]),
      );
      expect(answer.headers).not.toHaveProperty('access-control-allow-credentials');
    }
  });

  it('an answer to another site, or to none, is the same without these fields', async () => {
    for (const headers of [{ origin: 'https://evil.example' }, {}] as Record<string, string>[]) {
      const answer = await api.ask('GET', '/health', { headers });
      expect(corsOf(answer.headers)).toEqual({});
      expect(answer.headers.vary).toBe('Origin');
    }
  });

  it('OPTIONS that is no preflight still says what a path can do', async () => {
    const { status, headers } = await api.ask('OPTIONS', '/api/v1/loans', { headers: { origin: DESK } });
    expect([status, headers.allow]).toEqual([204, 'GET, HEAD, POST']);
  });
});

it('CORS is off unless it is asked for', async () => {
  const api = await startService();
  try {
    const headers = { origin: DESK, 'access-control-request-method': 'POST' };
    for (const answer of [await api.ask('OPTIONS', '/api/v1/loans', { headers }), await api.post(LOAN, headers)]) {
      expect(corsOf(answer.headers)).toEqual({});
      expect(answer.headers).not.toHaveProperty('vary');
    }
  } finally {
    await api.stop();
  }
});

describe('names that the service answers to', () => {
  let api: TestService;
  beforeAll(async () => {
    api = await startService({
      allowedHosts: ['branchloans.com', 'localhost', '127.0.0.1', '[::1]'],
      corsOrigins: [DESK],
    });
  });
  afterAll(() => api.stop());
  const get = (host: string, path = '/api/v1/loans') => api.ask('GET', path, { headers: { host } });

  it.each([
    ['branchloans.com', 200],
    ['branchloans.com:8443', 200],
    ['BranchLoans.com', 200],
    ['localhost:1', 200],
    ['127.0.0.1', 200],
    ['[::1]:8000', 200],
    ['evil.example', 421],
    ['evil.example:8000', 421],
    ['api.branchloans.com', 421],
    ['branchloans.com.evil.example', 421],
    ['branchloans.com@evil.example', 421],
    ['evil.example#branchloans.com', 421],
    ['branchloans.com.', 421],
    ['branchloans.com:80:80', 421],
    ['::1', 421],
  ])('"%s": %i', async (host, status) => {
    const answer = await get(host);
    expect(answer.status).toBe(status);
    if (status !== 200) expect(answer.json()).toMatchObject({ type: 'urn:problem:misdirected-request', status });
  });

  it('none, and an empty one, are no names of ours', async () => {
    for (const request of ['GET /api/stats HTTP/1.1\r\nHost:\r\n', 'GET /api/stats HTTP/1.0\r\n']) {
      expect(statuses(await raw(api.port, `${request}Connection: close\r\n\r\n`))).toEqual([421]);
    }
    expect(statuses(await raw(api.port, 'GET /health HTTP/1.0\r\n\r\n'))).toEqual([200]);
  });

  it.each(['/health', '/health/live', '/health/ready', '/health-db', '/metrics'])(
    'monitors come by address: %s is answered to any name',
    async (path) => {
      for (const host of ['10.0.0.7:8000', 'api:8000', 'branchloans-api-1']) {
        expect((await get(host, path)).status).toBe(200);
      }
    },
  );

  it('a key or a preflight changes nothing about that', async () => {
    const authorization = `Bearer ${formatApiKey({ environment: 'test', id: '0'.repeat(12) }, 'x'.repeat(32))}`;
    expect((await api.ask('GET', '/api/stats', { headers: { host: 'evil.example', authorization } })).status).toBe(421);
    const headers = { host: 'evil.example', origin: DESK, 'access-control-request-method': 'POST' };
    const answer = await api.ask('OPTIONS', '/api/v1/loans', { headers });
    expect([answer.status, corsOf(answer.headers)]).toEqual([421, {}]);
  });
});
