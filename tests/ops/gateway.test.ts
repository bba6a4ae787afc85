import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { Agent } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls, type SecureVersion } from 'node:tls';
import { BULK_BODY_LIMIT_BYTES } from '../../app/config';
import { GATEWAY_PROBLEMS } from '../../infra/ops/nginx';
import { ensureCertificate } from '../../ssl/certificates';
import { describeUnless } from '../skip';
import { missingForContainers } from './binaries';
import { type Answer, DOMAIN, PASSWORD, Stage } from './stage';

const missing = missingForContainers(['node', 'nginx']);
const SECURITY_HEADERS = [
  ...['x-content-type-options', 'x-frame-options', 'content-security-policy', 'referrer-policy'],
  ...['cross-origin-resource-policy', 'permissions-policy', 'cache-control'],
];
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
  expectSecurityHeaders(answer, { encrypted });
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

describeUnless(missing, 'the gateway', () => {
  let certificate: { certificate: string; key: string };
  let stage: Stage;

  beforeAll(async () => {
    certificate = await makeCertificate();
    stage = new Stage(certificate);
    stage.startUpstream('first', ['api-1', 'prometheus', 'grafana']);
    await stage.startGateway(['api-1']);
    await stage.untilAnswered();
  }, 60_000);

  afterAll(() => stage.close());

  describe('forwards', () => {
    test.each([
      ['/', 8000],
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
        await stage.request('/', {
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
        'GET /grafana/api/live/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
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
        'GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
      );
      expectProblem(parseRaw(absolute), 421);
    });

    test.each([
      ['no header that makes sense', 'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: a\r\n\r\n', 400],
      ['two lengths', 'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n', 400],
      [
        'length and coding',
        'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
      ['two hosts', 'GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n', 400],
      ['garbage', '\x01\x02\x03 nonsense\r\n\r\n', 400],
      ['a zero byte', 'GET /%00 HTTP/1.1\r\nHost: localhost\r\n\r\n', 400],
      ['a way out', 'GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n', 400],
      ['an unknown coding', 'POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n', 501],
      ['TRACE', 'TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n', 405],
      ['HTTP/3.0', 'GET / HTTP/3.0\r\nHost: localhost\r\n\r\n', 505],
      ['a long address', `GET /${'a'.repeat(9_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`, 414],
      ['a long header field', `GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ${'a'.repeat(9_000)}\r\n\r\n`, 431],
    ])('%s', async (_name, text, status) => expectProblem(parseRaw(await stage.raw(text)), status));

    test('a body above the limit, announced or not', async () => {
      const body = 'x'.repeat(65_537);
      expectProblem(await stage.request('/api/loans', { method: 'POST', body }), 413);
      const chunked = await stage.raw(
        `POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n${body}\r\n0\r\n\r\n`,
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
      const answer = await stage.raw('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n', { clear: true });
      expectProblem(parseRaw(answer), 403, { encrypted: false });
    });

    test.each(['TLSv1', 'TLSv1.1'] as const)('%s', async (version) => {
      await expect(handshake(stage.port('https'), version)).resolves.toMatch(/ALERT_PROTOCOL_VERSION|alert protocol/);
    });

    test.each(['TLSv1.2', 'TLSv1.3'] as const)('but not %s', async (version) => {
      await expect(handshake(stage.port('https'), version)).resolves.toBe(version);
    });
  });

  describe('asks for a password for /prometheus/', () => {
    const basic = (password: string) => ({
      Authorization: `Basic ${Buffer.from(`admin:${password}`).toString('base64')}`,
    });

    test('and forwards, without it, what comes with the right one', async () => {
      const answer = await stage.request('/prometheus/graph?g0.expr=up', { headers: basic(PASSWORD) });
      expect(echo(answer)).toMatchObject({ port: 9090, url: '/prometheus/graph?g0.expr=up' });
      expect(echo(answer).headers.authorization).toBeUndefined();
      expectSecurityHeaders(answer);
      expect(answer.headers['content-security-policy']?.[0]).toContain("script-src 'self' 'unsafe-inline'");
    });

    test.each([
      ['no', {}],
      ['a wrong', basic('admin')],
    ])('and answers 401 to %s password', async (_name, headers) => {
      const answer = await stage.request('/prometheus/', { headers });
      expectProblem(answer, 401);
      expect(answer.headers['www-authenticate']).toEqual(['Basic realm="Prometheus"']);
    });
  });

  describe('in clear text', () => {
    test.each(['/docs', '/docs/x?a=b', '/grafana/', '/prometheus/', '/sre/dashboard-ui', '/status'])(
      'redirects %s',
      async (path) => {
        const answer = await stage.request(path, { listener: 'http', host: DOMAIN });
        expect({ status: answer.status, body: answer.body, location: answer.headers.location }).toEqual({
          status: 308,
          body: '',
          location: [`https://${DOMAIN}:8443${path}`],
        });
        expectSecurityHeaders(answer, { encrypted: false });
      },
    );

    test.each([
      ['GET', '/'],
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
  ])('redirects %s, whatever the port', async (path, location) => {
    const answer = await stage.request(path);
    expect({ status: answer.status, location: answer.headers.location, body: answer.body }).toEqual({
      status: 301,
      location: [location],
      body: '',
    });
    expectSecurityHeaders(answer);
  });

  describe('header fields', () => {
    test.each(['/', '/own-headers', '/problem', '/grafana/'])('are there once on the answer to %s', async (path) => {
      const answer = await stage.request(path);
      const doubled = Object.entries(answer.headers).filter(([, values]) => values.length !== 1);
      expect(doubled).toEqual([]);
      expect(answer.headers).toHaveProperty('strict-transport-security', ['max-age=31536000; includeSubDomains']);
      expect(SECURITY_HEADERS.filter((name) => answer.headers[name] === undefined)).toEqual(
        path === '/grafana/' ? ['content-security-policy'] : [],
      );
    });

    test("an API's own problem goes through untouched", async () => {
      const answer = await stage.request('/problem');
      expect(answer.status).toBe(422);
      expect(echo(answer).url).toBe('/problem');
    });

    test.each(['a', 'A-1._z', 'x'.repeat(128)])('the request id %s is kept', async (id) => {
      const answer = await stage.request('/', { headers: { 'X-Request-ID': id } });
      expect(answer.headers['x-request-id']).toEqual([id]);
      expect(echo(answer).headers['x-request-id']).toBe(id);
    });

    test.each(['x'.repeat(129), 'a b', 'a,b', '<script>', 'ü'])('the request id %s is replaced', async (id) => {
      const answer = await stage.request('/', { headers: { 'X-Request-ID': id } });
      expect(answer.headers['x-request-id']?.[0]).toMatch(/^[0-9a-f]{32}$/);
      expect(answer.headers['x-request-id']).toEqual([echo(answer).headers['x-request-id']]);
    });
  });

  test('nobody waits for ever: not for the service, not for the client', async () => {
    const slow = 'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nab';
    const [hanging, body, header] = await Promise.all([
      stage.request('/hang'),
      stage.raw(slow, { milliseconds: 15_000 }),
      stage.raw('GET / HTTP/1.1\r\nHost: loc', { milliseconds: 15_000 }).then(() => Date.now()),
    ]);
    expectProblem(hanging, 504);
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
    expect(entries).toMatchObject([
      { request_id: id, method: 'GET', path: '/api/loans', status: '200', upstream_status: '200', tls: 'TLSv1.3' },
      { request_id: id, path: '/metrics', status: '404', upstream: '' },
    ]);
    expect(entries[0]?.upstream).toMatch(/:8000$/);
    expect(stage.logs()).not.toContain(canary);
  });

  test('limits requests at one time from one address', async () => {
    const narrow = new Stage(certificate, { connectionsPerAddress: 2 });
    try {
      narrow.startUpstream('first', ['api-1']);
      await narrow.startGateway(['api-1']);
      await narrow.untilAnswered();
      const answers = await Promise.all(Array.from({ length: 6 }, () => narrow.request('/slow/2000')));
      const refused = answers.filter(({ status }) => status !== 200);
      expect(refused).toHaveLength(4);
      refused.forEach((answer) => expectProblem(answer, 429));
    } finally {
      narrow.close();
    }
  }, 60_000);
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
    expectProblem(await stage.request('/'), 502);
    expectProblem(await stage.request('/grafana/'), 502);
    expectProblem(await stage.request('/prometheus/', { headers }), 502);
    stage.startUpstream('late', ['api-2', 'prometheus', 'grafana']);
    await stage.untilAnswered();
    expect(stage.isRunning()).toBe(true);
  }, 30_000);

  test('answers 503 while no server is listed', async () => {
    await stage.reload([]);
    expectProblem(await stage.request('/api/loans', { method: 'POST', body: '{}' }), 503);
    expectProblem(await stage.request('/', { listener: 'api' }), 503, { encrypted: false });
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

  test('a request that was cut off behind the gateway is tried again if it is a GET, and never if it is a POST', async () => {
    await stage.reload(['api-2', 'api-3']);
    await stage.untilAnswered();
    const attempts = async (method: string) => {
      const id = randomUUID();
      expectProblem(await stage.request('/cut', { method, headers: { 'X-Request-ID': id } }), 502);
      const [entry] = await stage.logged(id);
      return entry?.upstream?.split(', ').length;
    };
    // More than two where connections that were kept open turn out to be dead.
    expect(await attempts('GET')).toBeGreaterThanOrEqual(2);
    expect(await attempts('POST')).toBe(1);
  });

  test('a listed container that dies is left out within seconds, and the gateway starts again without it', async () => {
    await stage.reload(['api-2', 'api-3']);
    await stage.untilAnswered();
    stage.stopUpstream('new');
    const death = Date.now();
    // A request that is being tried again while the name disappears may fail; after that none does.
    for (let good = 0; good < 20; good += 1) {
      if ((await stage.request('/')).status !== 200) good = 0;
    }
    expect(Date.now() - death).toBeLessThan(15_000);
    await stage.restartGateway();
    await stage.untilAnswered();
  }, 60_000);

  test('winds down without failing a request: then no connection is left to wait for', async () => {
    const load = startLoad(stage, 20);
    await sleep(1_000);
    await stage.windDown();
    const { failures, answered } = await load.stop();
    expect(failures).toEqual([]);
    expect(answered).toBeGreaterThan(100);
    expect(stage.finishing()).toEqual([]);
    const agent = new Agent({ keepAlive: true });
    expect((await stage.request('/', { agent })).headers.connection).toEqual(['close']);
    agent.destroy();
    await stage.restartGateway();
    expect((await stage.request('/', { agent })).headers.connection).not.toEqual(['close']);
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

/** POSTs on connections that stay open, with pauses in which a reload could close them. */
function startLoad(stage: Stage, clients: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: clients });
  const result = { answered: 0, failures: [] as string[], names: new Set<string>() };
  let running = true;
  const client = async () => {
    while (running) {
      try {
        const answer = await stage.request('/slow/5', { method: 'POST', body: '{}', agent });
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
