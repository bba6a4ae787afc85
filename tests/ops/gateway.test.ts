import { createHash, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, type SecureVersion } from 'node:tls';
import { BULK_BODY_LIMIT_BYTES } from '../../app/config';
import { GATEWAY_PROBLEMS } from '../../infra/ops/answers';
import { withCanary } from '../../infra/ops/canary';
import { MAINTENANCE_PROBLEM } from '../../infra/ops/maintenance';
import { ensureCertificate } from '../../ssl/certificates';
import { describeUnless } from '../skip';
import { missingForContainers } from './binaries';
import { type Answer, DOMAIN, OPERATOR_TOKEN, PASSWORD, Stage } from './stage';

const missing = missingForContainers(['node', 'nginx']);
const SECURITY_HEADERS = [
  ...['x-content-type-options', 'x-frame-options', 'content-security-policy', 'referrer-policy'],
  ...['cross-origin-resource-policy', 'permissions-policy', 'cache-control'],
];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const BROWSER = { Accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8' };
const JSON_ONLY = { 'Content-Type': 'application/json' };

interface Echo {
  readonly name: string;
  readonly port: number;
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly rawHeaders: readonly string[];
  readonly bytes: number;
}

const echo = (answer: Answer) => JSON.parse(answer.body) as Echo;

/** Every field exactly once, and the document of that status. */
function expectProblem(answer: Answer, status: number, { encrypted = true } = {}): void {
  expect({ status: answer.status, type: answer.headers['content-type'] }).toEqual({
    status,
    type: ['application/problem+json; charset=utf-8'],
  });
  const [slug, title] = GATEWAY_PROBLEMS[status] ?? [];
  const [requestId] = answer.headers['x-request-id'] ?? [];
  expect(JSON.parse(answer.body)).toMatchObject({ type: `urn:problem:${slug}`, title, status, request_id: requestId });
  expect(requestId).toMatch(/^[A-Za-z0-9._-]{1,128}$/);
  expect(answer.headers.vary).toEqual(['Accept']);
  expectSecurityHeaders(answer, { encrypted });
}

/** The same for a person: whole in itself, and nothing of what stands behind the gateway. */
function expectPage(answer: Answer, status: number, { encrypted = true } = {}): void {
  expect({ status: answer.status, type: answer.headers['content-type'], vary: answer.headers.vary }).toEqual({
    status,
    type: ['text/html; charset=utf-8'],
    vary: ['Accept'],
  });
  const [, title, detail] = GATEWAY_PROBLEMS[status] ?? [];
  expect(answer.body).toContain(`<h1><small>${status}</small> ${title}</h1><p>${detail}</p>`);
  expect(answer.body).toContain(`<title>${status} ${title} - Branch Loans</title>`);
  expect(answer.body).toContain(`<code>${answer.headers['x-request-id']?.[0]}</code>`);
  expectWhole(answer);
  expectSecurityHeaders(answer, { encrypted });
}

/** Brings all that it needs, and its policy allows that and nothing else. */
function expectWhole({ body, headers }: Answer): void {
  expect(body).toMatch(/^<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"/);
  expect(body).not.toMatch(/\bsrc=|url\(|<link|<script|\$|upstream|nginx|api-1|api-2|172\./);
  expect([...body.matchAll(/href="([^"]*)"/g)].filter(([, href = '']) => href !== '' && href !== '/status')).toEqual(
    [],
  );
  const [, style = ''] = /<style>(.*?)<\/style>/s.exec(body) ?? [];
  expect(style).toContain('color-scheme:light dark');
  const hash = createHash('sha256').update(style).digest('base64');
  expect(headers['content-security-policy']).toEqual([
    `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  ]);
}

function expectSecurityHeaders({ headers }: Answer, { encrypted = true } = {}): void {
  expect(SECURITY_HEADERS.filter((name) => headers[name]?.length !== 1)).toEqual([]);
  expect(headers['strict-transport-security']).toEqual(encrypted ? ['max-age=31536000; includeSubDomains'] : undefined);
  expect(headers['x-request-id']).toHaveLength(1);
  expect(headers.server).toEqual(['nginx']);
}

function parseRaw(text: string): Answer {
  const [head = '', ...body] = text.split('\r\n\r\n');
  const [statusLine = '', ...lines] = head.split('\r\n');
  const headers: Record<string, string[]> = {};
  for (const line of lines) {
    const colon = line.indexOf(':');
    (headers[line.slice(0, colon).toLowerCase()] ??= []).push(line.slice(colon + 1).trim());
  }
  return { status: Number(statusLine.split(' ')[1]), headers, body: body.join('\r\n\r\n') };
}

/** The same for a body in chunks, of which there is one. */
function parseChunked(text: string): Answer {
  const answer = parseRaw(text);
  return { ...answer, body: answer.body.slice(answer.body.indexOf('{'), answer.body.lastIndexOf('}') + 1) };
}

describeUnless(missing, 'the gateway', () => {
  let certificate: { certificate: string; key: string };
  let stage: Stage;

  beforeAll(async () => {
    certificate = await makeCertificate();
    stage = new Stage(certificate);
    stage.startUpstream('first', ['api-1', 'prometheus', 'alertmanager', 'grafana']);
    await stage.startGateway(['api-1']);
    await stage.untilAnswered();
  }, 60_000);

  afterAll(() => stage.close());

  describe('forwards', () => {
    test.each([
      ['/docs', 8000],
      ['/api/loans?limit=2&q=%2Fa%20b', 8000],
      ['/api/v1/loans/%2e', 8000],
      ['/grafana/', 3000],
      ['/grafana/api/health?x=1', 3000],
    ])('%s unchanged to port %i', async (path, port) => {
      const answer = await stage.request(path);
      expect(answer.status).toBe(200);
      expect(echo(answer)).toMatchObject({ port, url: path, method: 'GET' });
    });

    test('the development listener, /metrics included, to the API', async () => {
      for (const path of ['/metrics', '/grafana/', '/api/loans']) {
        const answer = await stage.request(path, { listener: 'api' });
        expect(echo(answer)).toMatchObject({ port: 8000, url: path });
        expect(answer.headers['strict-transport-security']).toBeUndefined();
      }
    });

    test('a body of exactly the limit', async () => {
      const answer = await stage.request('/api/loans', {
        method: 'POST',
        body: 'x'.repeat(65_536),
        headers: JSON_ONLY,
      });
      expect(echo(answer)).toMatchObject({ method: 'POST', bytes: 65_536 });
    });

    test.each(['/api/loans/bulk', '/api/v1/loans/bulk'])('a body for %s of exactly its limit', async (path) => {
      for (const listener of ['https', 'api'] as const) {
        const body = 'x'.repeat(BULK_BODY_LIMIT_BYTES);
        const answer = await stage.request(path, { listener, method: 'POST', body, headers: JSON_ONLY });
        expect(echo(answer)).toMatchObject({ method: 'POST', url: path, bytes: BULK_BODY_LIMIT_BYTES });
      }
    });

    test('an export, however long the pauses in it', async () => {
      const answer = await stage.request('/api/v1/loans/export?pause=12000');
      expect([answer.status, answer.body]).toEqual([200, 'first\r\nsecond\r\n']);
      expectSecurityHeaders(answer);
    }, 30_000);

    test('that an export broke off, so that nobody takes it for the whole', async () => {
      await expect(stage.request('/api/v1/loans/export?pause=100&cut')).rejects.toThrow('aborted');
    });

    test('what the gateway knows, not what the client claims', async () => {
      const { headers, rawHeaders } = echo(
        await stage.request('/api/loans', {
          host: DOMAIN,
          headers: {
            'X-Forwarded-For': '203.0.113.1',
            'X-Forwarded-Proto': 'gopher',
            'X-Forwarded-Host': 'evil.example',
            'X-Real-IP': '203.0.113.1',
            Forwarded: 'for=203.0.113.1',
            Proxy: 'http://evil.example',
            Upgrade: 'websocket',
            Connection: 'Upgrade',
          },
        }),
      );
      expect(headers).toMatchObject({ host: DOMAIN, 'x-forwarded-proto': 'https', 'x-forwarded-host': DOMAIN });
      expect(headers['x-forwarded-for']).not.toContain('203.0.113.1');
      expect(headers['x-real-ip']).toBe(headers['x-forwarded-for']);
      expect(rawHeaders.filter((name) => /^(forwarded|proxy|upgrade|connection)$/i.test(name))).toEqual([]);
    });

    test('a websocket of Grafana, both ways', async () => {
      const handshake =
        'GET /grafana/api/live/ws HTTP/1.1\r\nHost: branchloans.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
        'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';
      const received = await stage.raw(`${handshake}ping-through`, { untilSeen: /ping-through/ });
      expect(received).toMatch(/^HTTP\/1\.1 101 /);
      expect(received).toContain('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
      expect(received).toContain('ping-through');
    });

    test('HTTP/2', async () => {
      const client = connectHttp2(`https://127.0.0.1:${stage.port('https')}`, { rejectUnauthorized: false });
      try {
        const stream = client.request({ ':path': '/api/loans', ':authority': 'localhost' });
        const status = await new Promise((resolve, reject) => {
          stream.on('response', (headers) => resolve(headers[':status'])).on('error', reject);
        });
        expect(status).toBe(200);
        stream.close();
      } finally {
        client.destroy();
      }
    });
  });

  describe('refuses', () => {
    test.each([
      '/metrics',
      '/metrics/',
      '/METRICS',
      '//metrics',
      '/%6detrics?x=1',
      '/a/../metrics',
      '/grafana/metrics',
    ])('%s', async (path) => expectProblem(await stage.request(path), 404));

    test('another host name, with 421', async () => {
      expectProblem(await stage.request('/', { host: 'evil.example' }), 421);
      expectProblem(await stage.request('/docs', { host: 'evil.example', listener: 'http' }), 421, {
        encrypted: false,
      });
      const absolute = await stage.raw(
        'GET http://evil.example/ HTTP/1.1\r\nHost: branchloans.test\r\nConnection: close\r\n\r\n',
      );
      expectProblem(parseRaw(absolute), 421);
    });

    test.each([
      ['no header that makes sense', 'GET / HTTP/1.1\r\nHost: branchloans.test\r\nContent-Length: a\r\n\r\n', 400],
      [
        'two lengths',
        'POST /api/loans HTTP/1.1\r\nHost: branchloans.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n',
        400,
      ],
      [
        'length and coding',
        'POST /api/loans HTTP/1.1\r\nHost: branchloans.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
      ['two hosts', 'GET / HTTP/1.1\r\nHost: branchloans.test\r\nHost: evil.example\r\n\r\n', 400],
      ['garbage', '\x01\x02\x03 nonsense\r\n\r\n', 400],
      ['a zero byte', 'GET /%00 HTTP/1.1\r\nHost: branchloans.test\r\n\r\n', 400],
      ['a way out', 'GET /../../etc/passwd HTTP/1.1\r\nHost: branchloans.test\r\n\r\n', 400],
      [
        'an unknown coding',
        'POST /api/loans HTTP/1.1\r\nHost: branchloans.test\r\nTransfer-Encoding: xchunked\r\n\r\n',
        501,
      ],
      ['TRACE', 'TRACE / HTTP/1.1\r\nHost: branchloans.test\r\n\r\n', 405],
      ['HTTP/3.0', 'GET / HTTP/3.0\r\nHost: branchloans.test\r\n\r\n', 505],
      ['a long address', `GET /${'a'.repeat(9_000)} HTTP/1.1\r\nHost: branchloans.test\r\n\r\n`, 414],
      ['a long header field', `GET / HTTP/1.1\r\nHost: branchloans.test\r\nX-Long: ${'a'.repeat(9_000)}\r\n\r\n`, 431],
    ])('%s', async (_name, text, status) => expectProblem(parseRaw(await stage.raw(text)), status));

    test.each([
      ['/metrics', 404],
      ['/metrics?x=<script>', 404],
      ['/prometheus/', 401],
    ])('%s, a browser with a page', async (path, status) => {
      const answer = await stage.request(path, { headers: BROWSER });
      expectPage(answer, status);
      expect(answer.body).toContain('<a href="/status">');
      expect(answer.body).not.toContain('script');
      for (const accept of ['*/*', 'application/json', 'application/problem+json, text/html', 'text/csv', '']) {
        expectProblem(await stage.request(path, { headers: { Accept: accept } }), status);
      }
    });

    test('a browser with a page, whatever it named or wanted', async () => {
      const clear = { encrypted: false };
      expectPage(await stage.request('/', { host: 'evil.example', headers: BROWSER }), 421);
      expectPage(await stage.request('/api/loans', { listener: 'http', headers: BROWSER }), 403, clear);
      expectProblem(await stage.request('/api/loans', { listener: 'http', headers: { Accept: '*/*' } }), 403, clear);
      const accept = `Host: ${DOMAIN}\r\nAccept: text/html\r\n\r\n`;
      expectPage(parseRaw(await stage.raw(`TRACE / HTTP/1.1\r\n${accept}`)), 405);
      expectPage(parseRaw(await stage.raw(`GET / HTTP/1.1\r\n${accept}`, { clear: true })), 403, clear);
      expectProblem(parseRaw(await stage.raw(`GET / HTTP/1.1\r\nX: ${'a'.repeat(9_000)}\r\n${accept}`)), 431);
    });

    test('HEAD with the fields of the same answer and no body', async () => {
      for (const [headers, type] of [
        [BROWSER, 'text/html'],
        [{}, 'application/problem+json'],
      ] as const) {
        const [head, whole] = await Promise.all([
          stage.request('/metrics', { method: 'HEAD', headers }),
          stage.request('/metrics', { headers }),
        ]);
        expect([head.status, head.body, head.headers['content-type']]).toEqual([404, '', [`${type}; charset=utf-8`]]);
        expect(head.headers['content-length']).toEqual(whole.headers['content-length']);
      }
    });

    test('a body above the limit, announced or not', async () => {
      const body = 'x'.repeat(65_537);
      expectProblem(await stage.request('/api/loans', { method: 'POST', body }), 413);
      const chunked = await stage.raw(
        `POST /api/loans HTTP/1.1\r\nHost: branchloans.test\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n${body}\r\n0\r\n\r\n`,
      );
      expectProblem(parseRaw(chunked), 413);
    });

    test('a body above the limit of its path, with the same document', async () => {
      const bulk = '/api/v1/loans/bulk';
      const body = 'x'.repeat(BULK_BODY_LIMIT_BYTES + 1);
      expectProblem(await stage.request(bulk, { method: 'POST', body }), 413);
      for (const path of [`${bulk}/`, `${bulk}x`, '/api/v2/loans/bulk', '/api/v1/loans']) {
        expectProblem(await stage.request(path, { method: 'POST', body: body.slice(0, 65_537) }), 413);
      }
    });

    test('clear text on the encrypted port', async () => {
      const answer = await stage.raw('GET / HTTP/1.1\r\nHost: branchloans.test\r\n\r\n', { clear: true });
      expectProblem(parseRaw(answer), 403, { encrypted: false });
    });

    test.each(['TLSv1', 'TLSv1.1'] as const)('%s', async (version) => {
      await expect(handshake(stage.port('https'), version)).resolves.toMatch(/ALERT_PROTOCOL_VERSION|alert protocol/);
    });

    test.each(['TLSv1.2', 'TLSv1.3'] as const)('but not %s', async (version) => {
      await expect(handshake(stage.port('https'), version)).resolves.toBe(version);
    });
  });

  describe('on one connection', () => {
    const request = (path: string, fields = '', body = '') =>
      `POST ${path} HTTP/1.1\r\nHost: ${DOMAIN}\r\n${fields}Content-Length: ${body.length}\r\n\r\n${body}`;
    const codes = (received: string) => [...received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, code]) => Number(code));

    test.each([
      ['a byte too many', '', 'X', []],
      ['garbage', '', 'X\r\n\r\n', [400]],
      ['a malformed request', '', 'GET / HTTP/1.1\r\nContent-Length: a\r\n\r\n', [400]],
      ['garbage after Connection: close', 'Connection: close\r\n', 'GARBAGE\r\n\r\n', []],
      ['the end of the client’s side', '', '', []],
    ])('answers a request that is under way, whatever follows it: %s', async (_name, fields, after, then) => {
      for (const path of ['/slow/300', '/api/v1/loans/bulk?pause', '/api/v1/loans/export?pause=300']) {
        const received = await stage.raw(request(path, fields, '{}') + after, { halfClose: true });
        expect([path, codes(received)]).toEqual([path, [200, ...then]]);
      }
    });

    test('logs what such a client got', async () => {
      const id = randomUUID();
      await stage.raw(request('/slow/300', `X-Request-ID: ${id}\r\n`, '{}'), { halfClose: true });
      expect(await stage.logged(id)).toEqual([expect.objectContaining({ status: '200', upstream_status: '200' })]);
    });

    test('ends an export whose client is gone', async () => {
      const id = randomUUID();
      const startedAt = performance.now();
      await stage.raw(request('/api/v1/loans/export?pause=1000', `X-Request-ID: ${id}\r\n`), { untilSeen: /first/ });
      expect(await stage.logged(id)).toHaveLength(1);
      expect(performance.now() - startedAt).toBeLessThan(5_000);
    });

    test.each([
      ['gzip, chunked', 'HTTP/1.1', 501],
      ['foo, chunked', 'HTTP/1.1', 501],
      ['chunked, chunked', 'HTTP/1.1', 501],
      ['identity', 'HTTP/1.1', 501],
      ['chunked', 'HTTP/1.0', 400],
    ])('refuses Transfer-Encoding: %s of %s', async (coding, version, status) => {
      const fields = `Host: ${DOMAIN}\r\nTransfer-Encoding: ${coding}\r\n\r\n`;
      const received = await stage.raw(`POST /api/v1/loans ${version}\r\n${fields}2\r\n{}\r\n0\r\n\r\n`);
      expectProblem(parseRaw(received), status);
    });

    test('refuses two Transfer-Encodings', async () => {
      const fields = `Host: ${DOMAIN}\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n`;
      const received = await stage.raw(`POST /api/v1/loans HTTP/1.1\r\n${fields}2\r\n{}\r\n0\r\n\r\n`);
      expectProblem(parseRaw(received), 400);
    });

    test.each([
      ['Authorization', 'Bearer a', 'Bearer b'],
      ['Host', DOMAIN, DOMAIN],
      ['Content-Length', '0', '0'],
      ['Expect', '100-continue', '100-continue'],
      ['If-Match', '"a"', '"b"'],
      ['X-Request-ID', 'a', 'b'],
      ['X-Operator-Token', OPERATOR_TOKEN, OPERATOR_TOKEN],
    ])('refuses two lines of %s', async (name, first, second) => {
      const twice = `${name}: ${first}\r\n${name.toLowerCase()}: ${second}\r\n`;
      const fields = name === 'Host' ? twice : `Host: ${DOMAIN}\r\n${twice}`;
      expectProblem(parseRaw(await stage.raw(`GET /api/v1/loans HTTP/1.1\r\n${fields}\r\n`)), 400);
    });

    test.each(['Idempotency-Key', 'Content-Type', 'Content-Encoding', 'Origin'])(
      'leaves it to the API to refuse two lines of %s',
      async (name) => {
        const fields = `Host: ${DOMAIN}\r\n${name}: a\r\n${name}: b\r\nConnection: close\r\n\r\n`;
        const { rawHeaders } = echo(parseChunked(await stage.raw(`GET /api/v1/loans HTTP/1.1\r\n${fields}`)));
        expect(rawHeaders.filter((word) => word.toLowerCase() === name.toLowerCase())).toHaveLength(2);
      },
    );

    test('sends no 100 where it refuses a body that is announced, and one where it does not', async () => {
      const announced = (length: number) =>
        `POST /api/v1/loans HTTP/1.1\r\nHost: ${DOMAIN}\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
      expect(codes(await stage.raw(announced(99_999_999), { milliseconds: 1_000 }))).toEqual([413]);
      expect(codes(await stage.raw(announced(2), { later: '{}', untilSeen: /1 200/ }))).toEqual([100, 200]);
    });

    test('refuses an expectation that it does not know', async () => {
      for (const expectation of ['tea', 'tea 100-continue', '100-continue, tea', '"100-continue"']) {
        const received = await stage.raw(request('/api/v1/loans', `Expect: ${expectation}\r\n`));
        expectProblem(parseRaw(received), 417);
      }
      const old = request('/api/v1/loans', 'Expect: tea\r\n').replace('HTTP/1.1', 'HTTP/1.0');
      expect(codes(await stage.raw(old))).toEqual([200]);
    });
  });

  describe.each([
    ['/prometheus/', 9090],
    ['/alertmanager/', 9093],
  ])('asks for a password for %s', (monitor, port) => {
    const basic = (password: string) => ({
      Authorization: `Basic ${Buffer.from(`admin:${password}`).toString('base64')}`,
    });

    test('and forwards, without it, what comes with the right one', async () => {
      const answer = await stage.request(`${monitor}graph?g0.expr=up`, { headers: basic(PASSWORD) });
      expect(echo(answer)).toMatchObject({ port, url: `${monitor}graph?g0.expr=up` });
      expect(echo(answer).headers.authorization).toBeUndefined();
      expectSecurityHeaders(answer);
      expect(answer.headers['content-security-policy']?.[0]).toContain("script-src 'self' 'unsafe-inline'");
    });

    test.each([
      ['no', {}],
      ['a wrong', basic('admin')],
    ])('and answers 401 to %s password', async (_name, headers) => {
      const answer = await stage.request(monitor, { headers });
      expectProblem(answer, 401);
      expect(answer.headers['www-authenticate']).toEqual(['Basic realm="Prometheus"']);
    });
  });

  describe('in clear text', () => {
    test.each([
      '/',
      '/?a=b',
      '/docs',
      '/docs/x?a=b',
      '/grafana/',
      '/prometheus/',
      '/alertmanager/',
      '/sre/dashboard-ui',
      '/status',
    ])('redirects %s', async (path) => {
      const answer = await stage.request(path, { listener: 'http', host: DOMAIN });
      expect({ status: answer.status, body: answer.body, location: answer.headers.location }).toEqual({
        status: 308,
        body: '',
        location: [`https://${DOMAIN}:8443${path}`],
      });
      expectSecurityHeaders(answer, { encrypted: false });
    });

    test.each([
      ['POST', '/'],
      ['GET', '/api/loans'],
      ['POST', '/grafana/login'],
      ['GET', '/metrics'],
      ['GET', '/docsandmore'],
      ['GET', '/gateway/health'],
    ])('refuses %s %s', async (method, path) => {
      expectProblem(await stage.request(path, { listener: 'http', method }), 403, { encrypted: false });
    });

    test('tells only the container itself that it is healthy', () => {
      const { status, output } = stage.exec(['curl', '-sf', 'http://127.0.0.1:8080/gateway/health']);
      expect({ status, output }).toEqual({ status: 0, output: 'ok\n' });
    });
  });

  test.each([
    ['/grafana', '/grafana/'],
    ['/prometheus', '/prometheus/'],
    ['/alertmanager', '/alertmanager/'],
  ])('redirects %s, whatever the port', async (path, location) => {
    const answer = await stage.request(path);
    expect({ status: answer.status, location: answer.headers.location, body: answer.body }).toEqual({
      status: 301,
      location: [location],
      body: '',
    });
    expectSecurityHeaders(answer);
  });

  describe('of the address without a path', () => {
    test.each([
      ['GET', BROWSER],
      ['GET', { Accept: 'application/json' }],
      ['HEAD', {}],
    ])('%s with %o leads to how the service is', async (method, headers) => {
      for (const path of ['/', '/?utm=1']) {
        const answer = await stage.request(path, { method, headers });
        expect([answer.status, answer.headers.location, answer.body]).toEqual([302, ['/status'], '']);
        expectSecurityHeaders(answer);
        expect(answer.headers['cache-control']).toEqual(['no-store']);
      }
    });

    test.each(['POST', 'DELETE', 'OPTIONS'])('%s finds nothing', async (method) => {
      expectProblem(await stage.request('/', { method }), 404);
    });

    test("the API's own answer is that of the API alone", async () => {
      expect(echo(await stage.request('/', { listener: 'api' }))).toMatchObject({ port: 8000, url: '/' });
    });
  });

  test.each(['/api/loans', '/own-headers', '/metrics', '/'])(
    'of %s browsers keep that it wants TLS, whatever its host is called',
    async (path) => {
      for (const host of ['localhost', '127.0.0.1', `${DOMAIN}:8443`]) {
        expect((await stage.request(path, { host })).headers['strict-transport-security']).toHaveLength(1);
      }
      // RFC 6797, 7.2: never in clear text.
      expect((await stage.request(path, { listener: 'api' })).headers).not.toHaveProperty('strict-transport-security');
    },
  );

  describe('header fields', () => {
    test.each(['/api/loans', '/own-headers', '/problem', '/grafana/'])(
      'are there once on the answer to %s',
      async (path) => {
        const answer = await stage.request(path);
        const doubled = Object.entries(answer.headers).filter(([, values]) => values.length !== 1);
        expect(doubled).toEqual([]);
        expect(answer.headers).toHaveProperty('strict-transport-security', ['max-age=31536000; includeSubDomains']);
        expect(SECURITY_HEADERS.filter((name) => answer.headers[name] === undefined)).toEqual(
          path === '/grafana/' ? ['content-security-policy'] : [],
        );
      },
    );

    test("an API's own problem goes through untouched", async () => {
      const answer = await stage.request('/problem');
      expect(answer.status).toBe(422);
      expect(echo(answer).url).toBe('/problem');
    });

    test.each(['a', 'A-1._z', 'x'.repeat(128)])('the request id %s is kept', async (id) => {
      const answer = await stage.request('/api/loans', { headers: { 'X-Request-ID': id } });
      expect(answer.headers['x-request-id']).toEqual([id]);
      expect(echo(answer).headers['x-request-id']).toBe(id);
    });

    test.each(['x'.repeat(129), 'a b', 'a,b', '<script>', 'ü'])('the request id %s is replaced', async (id) => {
      const answer = await stage.request('/api/loans', { headers: { 'X-Request-ID': id } });
      expect(answer.headers['x-request-id']?.[0]).toMatch(UUID);
      expect(answer.headers['x-request-id']).toEqual([echo(answer).headers['x-request-id']]);
    });
  });

  test('nobody waits for ever: not for the service, not for the client', async () => {
    const slow = 'POST /api/loans HTTP/1.1\r\nHost: branchloans.test\r\nContent-Length: 10\r\n\r\nab';
    const [hanging, hangingPage, body, header] = await Promise.all([
      stage.request('/hang'),
      stage.request('/hang', { headers: BROWSER }),
      stage.raw(slow, { milliseconds: 15_000 }),
      stage.raw('GET / HTTP/1.1\r\nHost: bra', { milliseconds: 15_000 }).then(() => Date.now()),
    ]);
    expectProblem(hanging, 504);
    expectPage(hangingPage, 504);
    expect(hangingPage.headers['retry-after']).toEqual(['2']);
    expect(hanging.headers['retry-after']).toEqual(['2']);
    expect(body === '' || parseRaw(body).status === 408).toBe(true);
    expect(header).toBeLessThan(Date.now() + 1);
  }, 30_000);

  test('logs one JSON line a request, without query and credentials', async () => {
    const id = randomUUID();
    const canary = `canary-${id}`;
    const headers = { 'X-Request-ID': id, Authorization: `Bearer ${canary}`, Cookie: canary };
    const answer = await stage.request(`/api/loans?key=${canary}`, { headers });
    expect(echo(answer).headers['authorization']).toBe(headers.Authorization);
    await stage.request(`/metrics?key=${canary}`, { headers });
    const entries = await stage.logged(id, 2);
    expect(entries.map(({ message, level }) => [level, message])).toEqual([
      ['info', 'GET /api/loans 200'],
      ['info', 'GET /metrics 404'],
    ]);
    for (const { timestamp = '' } of entries) {
      expect(timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      expect(Math.abs(Date.now() - Date.parse(timestamp))).toBeLessThan(60_000);
    }
    expect(Object.keys(entries[0] ?? {}).slice(0, 4)).toEqual(['timestamp', 'level', 'message', 'request_id']);
    expect(entries).toMatchObject([
      { request_id: id, method: 'GET', path: '/api/loans', status: '200', upstream_status: '200', tls: 'TLSv1.3' },
      { request_id: id, path: '/metrics', status: '404', upstream: '' },
    ]);
    expect(entries[0]?.upstream).toMatch(/:8000$/);
    expect(stage.logs()).not.toContain(canary);
  });

  test('logs no API key that stands where it does not belong, also where the API breaks off', async () => {
    const secret = 'Zq3'.repeat(12);
    const key = `bl_staging_a1b2c3d4e5f6_${secret}ab`;
    const encoded = Array.from(key, (character) => `%${character.charCodeAt(0).toString(16)}`).join('');
    const shown: Record<string, string> = {
      [`/api/v1/loans/${key}/events`]: '/api/v1/loans/bl_staging_a1b2c3d4e5f6_***',
      [`/api/loans/x${key}`]: '/api/loans/xbl_staging_a1b2c3d4e5f6_***',
      [`/api/loans/${key.slice(0, 20)}`]: '/api/loans/***',
      [`/api/loans/${encoded}`]: '/api/loans/***',
      [`/api/loans/${key.replaceAll('_', '%5F')}`]: '/api/loans/***',
      [`/api/loans;token=${secret}`]: '/api/loans***',
      [`/api/loans/Bearer%20${secret}`]: '/api/loans/***',
      [`/api/loans/${secret}ab`]: '/api/loans/***',
      '/api/v1/loans/8c3b5d0e-58a8-4f7e-9d35-0f4d1f4ad6c1/repayments':
        '/api/v1/loans/8c3b5d0e-58a8-4f7e-9d35-0f4d1f4ad6c1/repayments',
    };
    for (const [path, logged] of Object.entries(shown)) {
      const id = randomUUID();
      const headers = { 'X-Request-ID': id, Referer: `https://desk.example/${key}`, 'User-Agent': key, Cookie: key };
      await stage.request(path, { headers });
      expect((await stage.logged(id))[0]?.path).toBe(logged);
    }
    // The gateway answers these itself: the upstream breaks off, the path is not for the public, the name is another's.
    const id = randomUUID();
    const cut = await stage.request(`/cut?access_token=${key}`, { headers: { 'X-Request-ID': id } });
    expect([cut.status, (await stage.logged(id)).length]).toEqual([502, 1]);
    await stage.request(`/cut/${key}`, { headers: { Referer: key } });
    const refused = await stage.request(`/${key}`, { host: `${key.slice(0, 40)}.example` });
    expect(refused.status).toBe(421);
    expect(refused.body).not.toContain(secret);
    const named = await stage.request('/api/loans', { headers: { 'X-Request-ID': key } });
    expect(named.headers['x-request-id']?.[0]).toMatch(UUID);
    for (const part of [secret, encoded, key.slice(0, 30)]) expect(stage.logs()).not.toContain(part);
  });

  describe('traces', () => {
    const OWN = '4bf92f3577b34da6a3ce929d0e0e4736';
    const CLIENT = '00f067aa0ba902b7';
    const W3C = /^00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])$/;

    /** What the API got, in parts, and what the gateway logged. */
    async function traceOf(headers: Record<string, string>, on = stage) {
      const id = randomUUID();
      const { headers: received } = echo(
        await on.request('/api/loans', { headers: { ...headers, 'X-Request-ID': id } }),
      );
      const [, trace, span, flags] = W3C.exec(received['traceparent'] ?? '') ?? [];
      const [entry] = await on.logged(id);
      expect([entry?.trace_id, entry?.span_id]).toEqual([trace, span]);
      return { trace, span, flags, state: received['tracestate'], gateway: received['x-gateway-span'] };
    }

    test('begins one where a client has none', async () => {
      const { headers } = echo(await stage.request('/api/loans'));
      const [, trace, span, flags] = W3C.exec(headers['traceparent'] ?? '') ?? [];
      expect([span, flags]).toEqual([trace?.slice(0, 16), '00']);
      expect(headers['tracestate']).toBeUndefined();
      const [passedOn = '', after = '', ...more] = headers['x-gateway-span']?.split(' ') ?? [];
      expect(Math.abs(Date.now() / 1_000 - Number(passedOn))).toBeLessThan(60);
      expect([after, more]).toEqual([expect.stringMatching(/^\d+\.\d{3}$/), []]);
    });

    test.each([
      ['00', '01', '01'],
      ['00', '00', '00'],
      // Flags of a later version mean no more than that.
      ['00', '03', '01'],
      ['cc', '02-what-comes-later', '00'],
    ])("goes on with a client's, of version %s and with flags %s", async (version, given, flags) => {
      const taken = await traceOf({ traceparent: `${version}-${OWN}-${CLIENT}-${given}`, tracestate: 'a=1,b=2' });
      expect(taken).toMatchObject({ trace: OWN, flags, state: 'a=1,b=2' });
      // A span of its own, the child of the client's.
      expect(taken.span).not.toBe(CLIENT);
      expect(taken.gateway?.split(' ')[2]).toBe(CLIENT);
    });

    test.each([
      ['', 'nothing'],
      [`00-${OWN}-${CLIENT}`, 'no flags'],
      [`00-${OWN}-${CLIENT}-01-more`, 'more than version 00 has'],
      [`00-${OWN}-${CLIENT}-0x`, 'a flag that is no number'],
      [`ff-${OWN}-${CLIENT}-01`, 'a version that is none'],
      [`00-${'0'.repeat(32)}-${CLIENT}-01`, 'no trace'],
      [`00-${OWN}-${'0'.repeat(16)}-01`, 'no span'],
      [`00-${OWN.toUpperCase()}-${CLIENT}-01`, 'capital letters'],
      [`00-${OWN}-${CLIENT}-01, 00-${OWN}-${CLIENT}-01`, 'two at once'],
      [`x00-${OWN}-${CLIENT}-01`, 'a beginning that is none'],
    ])('begins one for %j: %s', async (traceparent) => {
      const taken = await traceOf({
        traceparent,
        tracestate: 'a=1',
        'X-Gateway-Span': `1700000000.000 9.000 ${CLIENT}`,
      });
      expect(taken).toMatchObject({ trace: expect.stringMatching(/^[0-9a-f]{32}$/), flags: '00', state: undefined });
      expect(taken.trace).not.toBe(OWN);
      // Not what the client claims.
      expect(taken.gateway).toMatch(/^\d{10}\.\d{3} 0\.\d{3}$/);
    });

    test('samples a share of them, and where told so asks no client', async () => {
      const strict = new Stage(certificate, { tracing: { sampleRatio: 0.5, clientsDecide: false } });
      const all = new Stage(certificate, { tracing: { sampleRatio: 1, clientsDecide: true } });
      try {
        for (const each of [strict, all]) {
          each.startUpstream('first', ['api-1']);
          await each.startGateway(['api-1']);
          await each.untilAnswered();
        }
        const flags: (string | undefined)[] = [];
        for (let count = 0; count < 60; count += 1) {
          const { headers } = echo(
            await strict.request('/api/loans', { headers: { traceparent: `00-${OWN}-${CLIENT}-01` } }),
          );
          flags.push(W3C.exec(headers['traceparent'] ?? '')?.[3]);
        }
        // Of 60 with a half chance each: outside of this once in a million runs.
        expect(flags.filter((flag) => flag === '01').length).toBeGreaterThan(10);
        expect(flags.filter((flag) => flag === '00').length).toBeGreaterThan(10);
        expect((await traceOf({}, all)).flags).toBe('01');
        expect((await traceOf({ traceparent: `00-${OWN}-${CLIENT}-00` }, all)).flags).toBe('00');
      } finally {
        strict.close();
        all.close();
      }
    }, 60_000);
  });

  test('limits requests at one time from one address', async () => {
    const narrow = new Stage(certificate, { connectionsPerAddress: 2 });
    try {
      narrow.startUpstream('first', ['api-1']);
      await narrow.startGateway(['api-1']);
      await narrow.untilAnswered();
      const all = async (headers: Record<string, string>) => {
        const answers = await Promise.all(Array.from({ length: 6 }, () => narrow.request('/slow/1500', { headers })));
        const refused = answers.filter(({ status }) => status !== 200);
        expect(refused).toHaveLength(4);
        expect(refused.filter((answer) => answer.headers['retry-after']?.[0] !== '2')).toEqual([]);
        return refused;
      };
      (await all({})).forEach((answer) => expectProblem(answer, 429));
      (await all(BROWSER)).forEach((answer) => expectPage(answer, 429));
    } finally {
      narrow.close();
    }
  }, 60_000);
});

describeUnless(missing, 'the gateway in maintenance', () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = new Stage(await makeCertificate());
    stage.startUpstream('first', ['api-1', 'prometheus', 'alertmanager', 'grafana']);
    await stage.startGateway(['api-1']);
    await stage.untilAnswered();
  }, 60_000);
  beforeEach(() => stage.setMaintenance(true));
  afterAll(() => stage.close());

  function expectClosed(answer: Answer, { encrypted = true } = {}): void {
    expect({ status: answer.status, type: answer.headers['content-type'] }).toEqual({
      status: 503,
      type: ['application/problem+json; charset=utf-8'],
    });
    expect(answer.headers['retry-after']).toEqual(['60']);
    expect(JSON.parse(answer.body)).toMatchObject({
      ...MAINTENANCE_PROBLEM,
      request_id: answer.headers['x-request-id']?.[0],
    });
    expectSecurityHeaders(answer, { encrypted });
  }

  test.each([
    ['GET', '/'],
    ['GET', '/docs'],
    ['GET', '/status'],
    ['GET', '/healthy'],
    ['GET', '/health/other'],
    ['GET', '/api/v1/loans?limit=2'],
    ['POST', '/api/v1/loans'],
    ['POST', '/api/v1/loans/bulk'],
    ['GET', '/api/v1/loans/export'],
    ['DELETE', '/api/v1/loans/1'],
    ['OPTIONS', '/api/v1/loans'],
  ])('answers %s %s with 503, with TLS and on the loopback listener', async (method, path) => {
    const body = method === 'POST' ? '{}' : undefined;
    const answer = await stage.request(path, { method, body });
    expectClosed(answer);
    expect(JSON.parse(answer.body)).toHaveProperty('instance', path.split('?')[0]);
    expectClosed(await stage.request(path, { method, body, listener: 'api' }), { encrypted: false });
  });

  test('answers HEAD without a body', async () => {
    const answer = await stage.request('/api/loans', { method: 'HEAD' });
    expect([answer.status, answer.headers['retry-after'], answer.body]).toEqual([503, ['60'], '']);
  });

  test('keeps the connection, also after the body of a POST', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const connections = new Set<unknown>();
    agent.on('free', (socket: unknown) => connections.add(socket));
    for (let count = 0; count < 3; count += 1) {
      expectClosed(await stage.request('/api/loans', { method: 'POST', body: 'x'.repeat(60_000), agent }));
    }
    agent.destroy();
    expect(connections.size).toBe(1);
  });

  test.each([
    ['application/json', 'json'],
    ['application/problem+json', 'json'],
    ['application/json, text/html;q=0.5', 'json'],
    ['*/*', 'json'],
    ['text/csv', 'json'],
    [BROWSER.Accept, 'html'],
    ['TEXT/HTML', 'html'],
  ])('answers %s with %s', async (accept, kind) => {
    const answer = await stage.request('/api/loans', { headers: { Accept: accept } });
    expect(answer.headers['content-type']?.[0]).toContain(kind);
    expect([answer.status, answer.headers['retry-after'], answer.headers['vary']]).toEqual([503, ['60'], ['Accept']]);
  });

  test('shows a page that needs nothing else and that its policy allows', async () => {
    const answer = await stage.request('/docs', { headers: BROWSER });
    expect(answer.headers['content-type']).toEqual(['text/html; charset=utf-8']);
    expectSecurityHeaders(answer);
    expect(answer.body).toContain('<h1>Branch Loans is closed for maintenance</h1>');
    expect(answer.body).toContain(answer.headers['x-request-id']?.[0]);
    expectWhole(answer);
  });

  test('answers HTTP/2', async () => {
    const client = connectHttp2(`https://127.0.0.1:${stage.port('https')}`, { rejectUnauthorized: false });
    try {
      const stream = client.request({ ':path': '/api/loans', ':authority': 'localhost', ':method': 'POST' });
      stream.end('{}');
      const headers = await new Promise((resolve, reject) => {
        stream.on('response', resolve).on('error', reject);
      });
      expect(headers).toMatchObject({ ':status': 503, 'retry-after': '60' });
      stream.close();
    } finally {
      client.destroy();
    }
  });

  test.each(['/health', '/health-db', '/health/live', '/health/ready?x=1'])('lets the probe %s pass', async (path) => {
    for (const listener of ['https', 'api'] as const) {
      expect(echo(await stage.request(path, { listener }))).toMatchObject({ port: 8000, url: path });
    }
  });

  test('lets pages with a login of their own pass, and its own health', async () => {
    expect(echo(await stage.request('/grafana/'))).toMatchObject({ port: 3000 });
    const headers = { Authorization: `Basic ${Buffer.from(`admin:${PASSWORD}`).toString('base64')}` };
    expect(echo(await stage.request('/prometheus/', { headers }))).toMatchObject({ port: 9090 });
    expect(stage.exec(['curl', '-sf', 'http://127.0.0.1:8080/gateway/health'])).toMatchObject({ status: 0 });
  });

  test('lets operators pass; their token reaches neither what stands behind it nor the log', async () => {
    const headers = { 'X-Operator-Token': OPERATOR_TOKEN };
    const arrived = await Promise.all([
      stage.request('/api/v1/loans', { headers, method: 'POST', body: '{}' }),
      stage.request('/api/v1/loans/export', { headers }),
      stage.request('/api/loans', { headers, listener: 'api' }),
      stage.request('/grafana/', { headers }),
      stage.request('/prometheus/', { headers: { ...headers, Authorization: `Basic ${btoa(`admin:${PASSWORD}`)}` } }),
    ]);
    expect(arrived.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(arrived.filter(({ body }) => body.toLowerCase().includes('operator'))).toEqual([]);
    stage.setMaintenance(false);
    expect((await stage.request('/api/loans', { headers })).body.toLowerCase()).not.toContain('operator');
    await stage.request('/metrics', { headers });
    expect(stage.logs()).not.toContain(OPERATOR_TOKEN);
  });

  test.each([
    '',
    OPERATOR_TOKEN.toLowerCase(),
    OPERATOR_TOKEN.slice(1),
    `${OPERATOR_TOKEN}x`,
    `${OPERATOR_TOKEN}, ${OPERATOR_TOKEN}`,
  ])('does not take "%s" for the token', async (token) => {
    expectClosed(await stage.request('/api/loans', { headers: { 'X-Operator-Token': token } }));
  });

  test('lets a request finish that was under way, and opens again at once', async () => {
    stage.setMaintenance(false);
    const underWay = stage.request('/slow/1500', { method: 'POST', body: '{}' });
    await sleep(500);
    stage.setMaintenance(true);
    expectClosed(await stage.request('/slow/1500', { method: 'POST', body: '{}' }));
    expect((await underWay).status).toBe(200);
    stage.setMaintenance(false);
    expect((await stage.request('/api/loans')).status).toBe(200);
  });

  test('stays closed over a reload and a restart', async () => {
    await stage.reload([]);
    expectClosed(await stage.request('/api/loans'));
    expectProblem(await stage.request('/api/loans', { headers: { 'X-Operator-Token': OPERATOR_TOKEN } }), 503);
    await stage.restartGateway();
    expectClosed(await stage.request('/api/loans'));
  }, 30_000);
});

describeUnless(missing, 'the gateway without what stands behind it', () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = new Stage(await makeCertificate());
    await stage.startGateway(['api-1', 'api-2']);
  }, 60_000);

  afterAll(() => stage.close());

  test('starts with names that nobody has, answers 502, and serves as soon as they appear', async () => {
    const headers = { Authorization: `Basic ${Buffer.from(`admin:${PASSWORD}`).toString('base64')}` };
    expectProblem(await stage.request('/api/loans'), 502);
    expectProblem(await stage.request('/grafana/'), 502);
    expectProblem(await stage.request('/prometheus/', { headers }), 502);
    for (const path of ['/status', '/grafana/']) {
      const page = await stage.request(path, { headers: BROWSER });
      expectPage(page, 502);
      expect(page.headers['retry-after']).toEqual(['2']);
      expect(page.body).toContain('<a href="">Try again</a>');
    }
    for (const accept of ['*/*', 'application/json']) {
      expectProblem(await stage.request('/status', { headers: { Accept: accept } }), 502);
    }
    const head = await stage.request('/status', { method: 'HEAD', headers: BROWSER });
    expect([head.status, head.body, head.headers['content-type']]).toEqual([502, '', ['text/html; charset=utf-8']]);
    stage.startUpstream('late', ['api-2', 'prometheus', 'alertmanager', 'grafana']);
    await stage.untilAnswered();
    expect(stage.isRunning()).toBe(true);
  }, 30_000);

  test('answers 503 while no server is listed', async () => {
    await stage.reload([]);
    expectProblem(await stage.request('/api/loans', { method: 'POST', body: '{}' }), 503);
    expectProblem(await stage.request('/api/loans', { listener: 'api' }), 503, { encrypted: false });
    await stage.reload(['api-2']);
    await stage.untilAnswered();
  }, 30_000);
});

describeUnless(missing, 'the gateway with several servers', () => {
  let stage: Stage;

  beforeAll(async () => {
    stage = new Stage(await makeCertificate());
    stage.startUpstream('old', ['api-2']);
    stage.startUpstream('new', ['api-3']);
    await stage.startGateway(['api-2']);
    await stage.untilAnswered();
  }, 60_000);

  afterAll(() => stage.close());

  test('a switch under load, old and new together in between, fails no request', async () => {
    const load = startLoad(stage, 20);
    for (let round = 0; round < 3; round += 1) {
      for (const servers of [['api-2', 'api-3'], ['api-3'], ['api-3', 'api-2'], ['api-2']]) {
        await sleep(400);
        await stage.reload(servers);
      }
    }
    const { answered, failures, names } = await load.stop();
    expect(failures).toEqual([]);
    expect([...names].sort()).toEqual(['new', 'old']);
    expect(answered).toBeGreaterThan(200);
  }, 60_000);

  test('an idle connection is good after a switch, when the servers before it are gone, for a POST too', async () => {
    await stage.reload(['api-2']);
    await stage.untilAnswered();
    const idle = keptConnections(10);
    const askAll = () =>
      Promise.all(
        Array.from({ length: 10 }, () => stage.request('/slow/50', { method: 'POST', body: '{}', agent: idle.agent })),
      );
    await askAll();
    // For longer than nginx keeps one over a reload by itself.
    await sleep(6_000);
    await stage.reload(['api-2', 'api-3']);
    await stage.untilAnswered();
    await stage.reload(['api-3']);
    stage.killUpstream('old');
    const answers = await askAll();
    stage.reviveUpstream('old');
    idle.agent.destroy();
    expect(answers.map((answer) => [answer.status, echo(answer).name])).toEqual(Array(10).fill([200, 'new']));
    expect(echo(answers[0]!).headers['x-forwarded-proto']).toBe('https');
    expect(idle.opened()).toBe(10);
  }, 60_000);

  test('a request that was cut off behind the gateway is tried again, a POST only if it has an Idempotency-Key', async () => {
    await stage.reload(['api-2', 'api-3']);
    await stage.untilAnswered();
    const attempts = async (method: string, path = '/cut', headers: Record<string, string> = {}) => {
      // What fails too often is left out for two seconds.
      await stage.untilAnswered();
      const id = randomUUID();
      expectProblem(
        await stage.request(path, { method, headers: { 'X-Request-ID': id, ...headers }, body: '{}' }),
        502,
      );
      const [entry] = await stage.logged(id);
      return entry?.upstream?.split(/, | : /).length;
    };
    const keyed = { 'Idempotency-Key': 'k-1' };
    // More than two where connections that were kept open turn out to be dead.
    expect(await attempts('GET')).toBeGreaterThanOrEqual(2);
    expect(await attempts('POST', '/cut', keyed)).toBeGreaterThanOrEqual(2);
    expect(await attempts('POST', '/api/v1/loans/bulk?cut', keyed)).toBeGreaterThanOrEqual(2);
    expect(await attempts('POST')).toBe(1);
    expect(await attempts('POST', '/cut', { 'Idempotency-Key': '' })).toBe(1);
    expect(await attempts('PATCH', '/cut', keyed)).toBe(1);
  });

  test('a canary gets its share exactly, over all workers and connections', async () => {
    await stage.reload(withCanary(['api-2'], ['api-3'], 10));
    await stage.untilAnswered();
    const agent = new Agent({ keepAlive: true, maxSockets: 50 });
    const count: Record<string, number> = {};
    for (let round = 0; round < 40; round += 1) {
      const answers = await Promise.all(Array.from({ length: 50 }, () => stage.request('/api/loans', { agent })));
      for (const answer of answers) count[echo(answer).name] = (count[echo(answer).name] ?? 0) + 1;
    }
    agent.destroy();
    expect((count['old'] ?? 0) + (count['new'] ?? 0)).toBe(2_000);
    expect(Math.abs((count['new'] ?? 0) - 200)).toBeLessThanOrEqual(5);
  }, 60_000);

  test('what is tried again arrives whole, and succeeds where only one container fails', async () => {
    const headers = { 'Idempotency-Key': 'k-2', ...JSON_ONLY };
    // Both are left out for up to three seconds after what the test before did.
    await sleep(3_500);
    for (const [path, body] of [
      ['/fails/old?x=1', '{"amount": 5}'],
      ['/api/v1/loans/bulk?fails=old', 'x'.repeat(BULK_BODY_LIMIT_BYTES)],
    ] as const) {
      for (let turn = 0; turn < 6; turn += 1) {
        const answer = await stage.request(path, { method: 'POST', headers, body });
        expect(answer.status).toBe(200);
        expect(echo(answer)).toMatchObject({ method: 'POST', url: path, bytes: body.length, name: 'new' });
        expect(echo(answer).headers).toMatchObject({ 'idempotency-key': 'k-2', 'content-type': 'application/json' });
        expectSecurityHeaders(answer);
      }
    }
  });

  test('a container that is killed under load fails no request, but for POSTs without a key', async () => {
    await stage.reload(['api-2', 'api-3']);
    await stage.untilAnswered();
    // Long enough that the container dies with some of them.
    const load = startLoad(stage, 20, (turn) => ({
      path: '/slow/150',
      ...(turn % 2 === 0
        ? { method: 'GET' }
        : { method: 'POST', body: '{}', headers: { 'Idempotency-Key': randomUUID() } }),
    }));
    await sleep(1_000);
    stage.killUpstream('new');
    // Longer than nginx goes by an address that it knows.
    await sleep(7_000);
    stage.reviveUpstream('new');
    await sleep(6_000);
    const { answered, failures } = await load.stop();
    expect(failures).toEqual([]);
    expect(answered).toBeGreaterThan(200);
  }, 60_000);

  test('a listed container that dies is left out within seconds, and the gateway starts again without it', async () => {
    await stage.reload(['api-2', 'api-3']);
    await stage.untilAnswered();
    stage.stopUpstream('new');
    // For longer than nginx goes by an address that it knows.
    const end = Date.now() + 7_000;
    const statuses = new Set<number>();
    while (Date.now() < end) statuses.add((await stage.request('/api/loans')).status);
    expect([...statuses]).toEqual([200]);
    await stage.restartGateway();
    await stage.untilAnswered();
  }, 60_000);

  test('winds down without failing a request: then no connection is left to wait for', async () => {
    const idle = keptConnections(5);
    await Promise.all(Array.from({ length: 5 }, () => stage.request('/slow/50', { agent: idle.agent })));
    const load = startLoad(stage, 20);
    await sleep(1_000);
    await stage.windDown();
    const { failures, answered } = await load.stop();
    expect(failures).toEqual([]);
    expect(answered).toBeGreaterThan(100);
    expect(stage.finishing()).toEqual([]);
    idle.agent.destroy();
    const agent = new Agent({ keepAlive: true });
    expect((await stage.request('/api/loans', { agent })).headers.connection).toEqual(['close']);
    agent.destroy();
    await stage.restartGateway();
    expect((await stage.request('/api/loans', { agent })).headers.connection).not.toEqual(['close']);
  }, 60_000);
});

async function makeCertificate(): Promise<{ certificate: string; key: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'gateway-certificate-'));
  try {
    const { certificateFile, keyFile } = await ensureCertificate({ directory, domain: DOMAIN });
    return { certificate: readFileSync(certificateFile, 'utf8'), key: readFileSync(keyFile, 'utf8') };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Connections that stay open, and how many of them were made. */
function keptConnections(most: number): { readonly agent: Agent; readonly opened: () => number } {
  const agent = new Agent({ keepAlive: true, maxSockets: most });
  let opened = 0;
  const createConnection = agent.createConnection.bind(agent);
  agent.createConnection = (...given) => {
    opened += 1;
    return createConnection(...given);
  };
  return { agent, opened: () => opened };
}

/** Requests on connections that stay open, with pauses in which a reload could close them. */
function startLoad(
  stage: Stage,
  clients: number,
  requestOf: (turn: number) => {
    method: string;
    path?: string;
    body?: string;
    headers?: Record<string, string>;
  } = () => ({
    method: 'POST',
    body: '{}',
  }),
) {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const result = { answered: 0, failures: [] as string[], names: new Set<string>() };
  let running = true;
  const client = async () => {
    for (let turn = 0; running; turn += 1) {
      try {
        const { path = '/slow/5', ...request } = requestOf(turn);
        const answer = await stage.request(path, { ...request, agent });
        if (answer.status === 200) result.names.add(echo(answer).name);
        else result.failures.push(`${answer.status} ${answer.body}`);
      } catch (error) {
        result.failures.push(String(error));
      }
      result.answered += 1;
      await sleep(Math.random() * 60);
    }
  };
  const all = Array.from({ length: clients }, client);
  return {
    stop: async () => {
      running = false;
      await Promise.all(all);
      agent.destroy();
      return result;
    },
  };
}

/** @returns the version that was agreed on, or the error. */
function handshake(port: number, version: SecureVersion): Promise<string> {
  const at = { host: '127.0.0.1', port, rejectUnauthorized: false };
  return new Promise((resolve) => {
    // Level 0, or this client itself would refuse to offer the old versions.
    const socket = connectTls(
      { ...at, minVersion: version, maxVersion: version, ciphers: 'DEFAULT@SECLEVEL=0' },
      () => {
        resolve(socket.getProtocol() ?? 'none');
        socket.destroy();
      },
    );
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
