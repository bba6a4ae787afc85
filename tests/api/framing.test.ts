import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { freePort } from '../../infra/embedded/ports';
import { ensureCertificate } from '../../ssl/certificates';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { LOAN, startService, statuses, type TestService, until } from './harness';
import { environmentOf, type RunningProcess, serve } from './process';

/** Bytes on a connection, and what comes back: work that was accepted is answered, and nothing else is mixed into it. */
const directory = mkdtempSync(join(tmpdir(), 'branchloans-framing-'));
let api: TestService;
let cluster: RunningProcess;
let clusterDatabase: TestDatabase;
const ports = { clear: 0, tls: 0, cluster: 0 };
beforeAll(async () => {
  const { certificateFile, keyFile } = await ensureCertificate({ directory, domain: 'localhost' });
  const [certificate, key] = [readFileSync(certificateFile, 'utf8'), readFileSync(keyFile, 'utf8')];
  ports.tls = await freePort();
  api = await startService({ tls: { port: ports.tls, certificate, key } });
  ports.clear = api.port;
  clusterDatabase = await createDatabase();
  cluster = await serve({ ...environmentOf(clusterDatabase.connection), PROCESSES: '2', LOG_LEVEL: 'debug' });
  ports.cluster = cluster.port;
}, 60_000);
afterAll(async () => {
  await cluster.end('SIGTERM');
  await Promise.all([api.stop(), clusterDatabase.drop()]);
  rmSync(directory, { recursive: true });
});

type Way = keyof typeof ports;

interface Script {
  /** Closes the client's side after its last bytes. */
  readonly halfClose?: boolean;
  /** Sent some time after the first bytes. */
  readonly later?: string;
  /** Stops to wait when this came. */
  readonly untilSeen?: RegExp;
}

/** Sends bytes as they are, and resolves to all that came back until the server closed its side, or for three seconds. */
function send(way: Way, bytes: string | Buffer, { halfClose = false, later, untilSeen = /$^/ }: Script = {}) {
  return new Promise<string>((resolve) => {
    const options = { host: '127.0.0.1', port: ports[way], allowHalfOpen: true, rejectUnauthorized: false };
    const begin = async () => {
      socket.write(bytes);
      if (later !== undefined) {
        await sleep(50);
        socket.write(later);
      }
      if (halfClose) socket.end();
    };
    const socket: Socket =
      way === 'tls' ? connectTls(options, () => void begin()) : connect(options, () => void begin());
    let received = '';
    const finish = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(received);
    };
    const timer = setTimeout(finish, 3_000);
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      received += chunk;
      if (untilSeen.test(received)) finish();
    });
    for (const event of ['end', 'close', 'error']) socket.once(event, finish);
  });
}

const database = (way: Way) => (way === 'cluster' ? clusterDatabase : api.database);
const logs = (way: Way) => (way === 'cluster' ? cluster : api).logs();

let made = 0;
/** A request for a loan of a borrower of its own. */
function newLoan(fields = '') {
  const id = `framing-${++made}`;
  const body = JSON.stringify({ ...LOAN, borrower_id: id });
  const head = `POST /api/v1/loans HTTP/1.1\r\nHost: a\r\nX-Request-ID: ${id}\r\nContent-Type: application/json\r\n`;
  return { id, bytes: `${head}${fields}Content-Length: ${body.length}\r\n\r\n${body}` };
}

async function loansOf(way: Way, borrower: string): Promise<number> {
  const text = 'SELECT count(*) FROM loans WHERE borrower_id = $1';
  const [row] = await database(way).sql<{ count: string }>(text, [borrower]);
  return Number(row?.count);
}

/** Lets no loan be stored for a while. */
async function holdLoans(way: Way, seconds: number): Promise<() => Promise<unknown>> {
  const held = database(way).sql(
    `BEGIN; LOCK TABLE loans IN SHARE ROW EXCLUSIVE MODE; SELECT pg_sleep(${seconds}); COMMIT`,
  );
  await until(async () => {
    const rows = await database(way).sql(
      `SELECT 1 FROM pg_locks WHERE relation = 'loans'::regclass AND mode = 'ShareRowExclusiveLock' AND granted`,
    );
    return rows.length > 0;
  });
  return () => held;
}

/** The access log of a request, once it is there. */
async function logged(way: Way, requestId: string): Promise<Record<string, unknown>[]> {
  const lines = () => logs(way).filter((line) => line.request_id === requestId && line.message === 'request');
  await until(() => lines().length > 0);
  return lines();
}

/** Bodies of problem documents in what came back. */
const problems = (received: string) => [...received.matchAll(/urn:problem:([a-z0-9-]+)/g)].map(([, slug]) => slug);

const AFTER: readonly (readonly [name: string, fields: string, bytes: string, then: number[]])[] = [
  ['a byte too many', '', 'X', [400]],
  ['a second request that is malformed', '', 'GET / HTTP/1.1\r\nX : a\r\n\r\n', [400]],
  ['a second request line that is cut', '', 'GE', []],
  ['a second request with a method that does not exist', '', 'BREW / HTTP/1.1\r\nHost: a\r\n\r\n', [400, 405]],
  ['a second request with a bad length', '', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n', [400]],
  ['too long header fields', '', `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, [431]],
  ['CONNECT', '', 'CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', [405]],
  ['TLS', '', '\x16\x03\x01\x00\xa5\x01', [400]],
  ['garbage after Connection: close', 'Connection: close\r\n', 'GARBAGE\r\n\r\n', []],
  ['a request after Connection: close', 'Connection: close\r\n', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', []],
];

describe.each(['clear', 'tls', 'cluster'] as const)('a valid request on a connection (%s), followed by', (way) => {
  describe.each(['in the same packet', 'a moment later, while it is under way'])('%s', (when) => {
    it.each(AFTER)('%s: is answered 201, then refused or closed', async (_name, fields, bytes, then) => {
      const { id, bytes: request } = newLoan(fields);
      const together = when === 'in the same packet';
      const done = together ? () => undefined : await holdLoans(way, 0.3);
      const script = { halfClose: then.length === 0, ...(!together && { later: bytes }) };
      const received = await send(way, together ? request + bytes : request, script);
      await done();
      const [first, ...others] = statuses(received);
      expect([first, await loansOf(way, id)]).toEqual([201, 1]);
      expect(others.length).toBeLessThanOrEqual(1);
      if (then.length > 0) expect(then).toContain(others[0]);
      expect(problems(received)).toHaveLength(others.length);
      expect(await logged(way, id)).toEqual([expect.objectContaining({ status: 201 })]);
    });
  });

  it('nothing, when its client closes its side at once: is answered', async () => {
    const { id, bytes } = newLoan();
    const done = await holdLoans(way, 0.3);
    const received = await send(way, bytes, { halfClose: true });
    await done();
    expect([statuses(received), await loansOf(way, id)]).toEqual([[201], 1]);
    expect(await logged(way, id)).toEqual([expect.objectContaining({ status: 201 })]);
  });

  it("others, and the end of its client's side: all are answered, in their order", async () => {
    const [first, second] = [newLoan(), newLoan()];
    const read = 'GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n';
    const done = await holdLoans(way, 0.3);
    const received = await send(way, first.bytes + read + second.bytes, { halfClose: true });
    await done();
    expect(statuses(received)).toEqual([201, 404, 201]);
    expect(received.indexOf(first.id)).toBeLessThan(received.indexOf(second.id));
  });
});

describe.each(['clear', 'tls', 'cluster'] as const)('a body that cannot be read (%s)', (way) => {
  const head = (id: string, framing: string) =>
    `POST /api/v1/loans HTTP/1.1\r\nHost: a\r\nX-Request-ID: ${id}\r\nContent-Type: application/json\r\n${framing}\r\n\r\n`;

  it.each([
    ['a bad chunk', 'Transfer-Encoding: chunked', 'zz\r\n'],
    ['a good chunk and a bad one', 'Transfer-Encoding: chunked', '1\r\n{\r\nzz\r\n'],
    ['an end that comes too early', 'Content-Length: 100', '{'],
  ])('%s: its own request is answered 400, and logged and counted once', async (_name, framing, body) => {
    const id = `framing-${++made}`;
    const refusedBefore = logs(way).filter(({ message }) => message === 'request refused').length;
    const received = await send(way, head(id, framing) + body, { halfClose: framing.startsWith('Content') });
    expect([statuses(received), problems(received)]).toEqual([[400], ['malformed-request']]);
    expect(received).toContain(`X-Request-ID: ${id}\r\n`);
    expect(received).toMatch(/connection: close/i);
    const line = { status: 400, problem: 'malformed-request', route: '/api/loans' };
    expect(await logged(way, id)).toEqual([expect.objectContaining(line)]);
    expect(logs(way).filter(({ message }) => message === 'request refused')).toHaveLength(refusedBefore);
  });

  it('after a valid request: that one is answered 201', async () => {
    const [{ id, bytes }, broken] = [newLoan(), `framing-${++made}`];
    const received = await send(way, `${bytes}${head(broken, 'Transfer-Encoding: chunked')}zz\r\n`);
    expect([statuses(received), await loansOf(way, id)]).toEqual([[201, 400], 1]);
    expect(await logged(way, broken)).toEqual([expect.objectContaining({ status: 400 })]);
  });

  it('of a request that was refused for its media type: one answer, and the end', async () => {
    const request = head('x', 'Transfer-Encoding: chunked').replace('application/json', 'text/plain');
    expect(statuses(await send(way, request, { later: 'zz\r\n' }))).toEqual([415]);
  });
});

it('a tunnel that is refused and reset harms no other connection', async () => {
  for (let turn = 0; turn < 5; turn++) {
    const socket = connect(ports.cluster, '127.0.0.1', () => {
      socket.write('CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', () => socket.resetAndDestroy());
    });
    await new Promise((resolve) => socket.once('close', resolve));
  }
  expect(statuses(await send('cluster', newLoan('Connection: close\r\n').bytes))).toEqual([201]);
  expect(logs('cluster').filter(({ message }) => message === 'worker died')).toEqual([]);
});

describe('a refusal of what is no request', () => {
  it('is sent, logged and counted once, however many bytes follow', async () => {
    const counted = async () =>
      Number(
        /^http_requests_refused_total\{route="unmatched",status_code="400"\} (\d+)$/m.exec(
          (await api.ask('GET', '/metrics')).text,
        )?.[1] ?? '0',
      );
    const before = await counted();
    const received = await send('clear', 'nonsense\r\n\r\n', { later: 'more\r\n\r\n' });
    expect(statuses(received)).toEqual([400]);
    expect(await counted()).toBe(before + 1);
  });

  it('reaches a client that goes on sending', async () => {
    const received = await send('clear', Buffer.from(`GET / HTTP/1.1\r\nX: ${'x'.repeat(2_000_000)}\r\n\r\n`));
    expect([statuses(received), problems(received)]).toEqual([[431], ['headers-too-large']]);
  });
});

describe.each(['clear', 'tls'] as const)('a coding of the body (%s)', (way) => {
  it.each([
    ['HTTP/1.1', 'Transfer-Encoding: gzip, chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: foo, chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: foo,chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: chunked, chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: chunked, identity\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: identity\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: gzip\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: "chunked"\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: chunked;q=1\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: , chunked\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding:\r\n'],
    ['HTTP/1.1', 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n'],
    ['HTTP/1.0', 'Transfer-Encoding: chunked\r\n'],
    ['HTTP/1.0', 'Transfer-Encoding: gzip, chunked\r\n'],
  ])('%s %j is refused, and ends the connection', async (version, coding) => {
    const id = `framing-${++made}`;
    const body = JSON.stringify({ ...LOAN, borrower_id: id });
    const received = await send(
      way,
      `POST /api/v1/loans ${version}\r\nHost: a\r\nContent-Type: application/json\r\n${coding}\r\n` +
        `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: a\r\n\r\n`,
    );
    expect([statuses(received), problems(received)]).toEqual([[400], ['malformed-request']]);
    expect(await loansOf(way, id)).toBe(0);
  });

  it.each(['chunked', 'Chunked', ' chunked '])('%j is taken', async (coding) => {
    const id = `framing-${++made}`;
    const body = JSON.stringify({ ...LOAN, borrower_id: id });
    const received = await send(
      way,
      'POST /api/v1/loans HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nConnection: close\r\n' +
        `Transfer-Encoding: ${coding}\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    );
    expect([statuses(received), await loansOf(way, id)]).toEqual([[201], 1]);
  });
});

describe('a field that holds one value', () => {
  it.each([
    ['Authorization', 'Bearer a', 'Bearer b'],
    ['Authorization', 'Bearer a', 'Bearer a'],
    ['Host', 'a', 'b'],
    ['Content-Type', 'application/json', 'application/json'],
    ['Content-Type', 'application/json', 'text/plain'],
    ['Content-Encoding', 'identity', 'identity'],
    ['Content-Length', '1', '1'],
    ['Expect', '100-continue', '100-continue'],
    ['Idempotency-Key', 'k', 'k'],
    ['X-Request-ID', 'a', 'b'],
    ['X-Operator-Token', 'a', 'b'],
    ['Origin', 'https://a.example', 'https://b.example'],
  ])('%s is refused when it is given twice (%s, %s)', async (name, first, second) => {
    const id = `framing-${++made}`;
    const own = name === 'Content-Type' ? '' : 'Content-Type: application/json\r\n';
    const host = name === 'Host' ? '' : 'Host: a\r\n';
    const body = JSON.stringify({ ...LOAN, borrower_id: id });
    const length = name === 'Content-Length' ? '' : `Content-Length: ${body.length}\r\n`;
    const received = await send(
      'clear',
      `POST /api/v1/loans HTTP/1.1\r\n${host}${own}${length}${name}: ${first}\r\n` +
        `${name.toUpperCase()}: ${second}\r\nConnection: close\r\n\r\n${body}`,
    );
    expect([statuses(received), problems(received)]).toEqual([[400], ['malformed-request']]);
    expect(await loansOf('clear', id)).toBe(0);
  });

  it.each([
    ['Accept', 'application/json', 'text/html'],
    ['If-None-Match', '"a"', '"b"'],
    ['If-Match', '"a"', '"b"'],
    ['tracestate', 'a=1', 'b=2'],
    ['traceparent', `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`, `00-${'cd'.repeat(16)}-${'ab'.repeat(8)}-01`],
    ['Cookie', 'a=1', 'b=2'],
  ])('but not %s, which holds a list', async (name, first, second) => {
    const received = await send(
      'clear',
      `GET /health/live HTTP/1.1\r\nHost: a\r\n${name}: ${first}\r\n${name}: ${second}\r\nConnection: close\r\n\r\n`,
    );
    expect(statuses(received)).toEqual([200]);
  });
});

describe.each(['clear', 'tls'] as const)('an expectation (%s)', (way) => {
  const body = JSON.stringify(LOAN);
  const ask = (path: string, fields: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nHost: a\r\n${fields}Expect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`;
  const json = 'Content-Type: application/json\r\n';

  it('of 100-continue is met when the body is wanted, and not before', async () => {
    const received = await send(way, ask('/api/v1/loans', json, body.length), {
      later: body,
      untilSeen: /HTTP\/1.1 201/,
    });
    expect(statuses(received)).toEqual([100, 201]);
  });

  it.each([
    ['a body that is too large', 413, '/api/v1/loans', json, 99_999_999],
    ['a body that is too large for many loans', 413, '/api/v1/loans/bulk', json, 1_200_001],
    ['a wrong media type', 415, '/api/v1/loans', 'Content-Type: text/plain\r\n', 10],
    ['a coding', 415, '/api/v1/loans', `${json}Content-Encoding: gzip\r\n`, 10],
    ['a key that is none', 401, '/api/v1/loans', `${json}Authorization: Bearer x\r\n`, 10],
    ['an unknown path', 404, '/nowhere', json, 10],
    ['a method that is not allowed', 405, '/health', json, 10],
    ['a query that is not known', 422, '/api/v1/loans?x=1', json, 10],
    ['an id that is none', 400, '/api/v1/loans/x/transitions', json, 10],
    ['an id of a loan that is none', 400, '/api/v1/loans/x/repayments', json, 10],
    [
      'a condition that is none',
      400,
      `/api/v1/loans/${'0'.repeat(8)}-0000-4000-8000-${'0'.repeat(12)}/repayments`,
      `${json}If-Match: x\r\n`,
      10,
    ],
  ])('of 100-continue is not met for %s: %d alone', async (_name, status, path, fields, length) => {
    const received = await send(way, ask(path, fields, length));
    expect(statuses(received)).toEqual([status]);
    expect(received).toMatch(/connection: close/i);
  });

  it.each(['tea', '100-continue, tea', '100-continue;x=1', '200-ok', '"100-continue"', ''])(
    'of %j is refused with 417',
    async (value) => {
      const request = ask('/api/v1/loans', json, body.length).replace('Expect: 100-continue', `Expect: ${value}`);
      const received = await send(way, request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n') + body);
      expect([statuses(received), problems(received)]).toEqual([[417], ['expectation-failed']]);
    },
  );

  it('of a client of HTTP/1.0 is ignored', async () => {
    const request = ask('/api/v1/loans', json, body.length).replace('HTTP/1.1', 'HTTP/1.0');
    expect(statuses(await send(way, request + body))).toEqual([201]);
  });
});
