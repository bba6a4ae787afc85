import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { ask, LOAN, until } from './harness';
import { environmentOf, type RunningProcess, serve } from './process';
import { type ReceivedSpan, type Receiver, spansOf, startReceiver } from './receivers';

const CLIENT_SPAN = '00f067aa0ba902b7';
const newTrace = () => randomBytes(16).toString('hex');
const traceparent = (trace: string, flags = '01') => `00-${trace}-${CLIENT_SPAN}-${flags}`;

let database: TestDatabase;
let collector: Receiver;
beforeAll(async () => {
  database = await createDatabase();
  collector = await startReceiver();
});
afterAll(async () => {
  await collector.close();
  await database.drop();
});

const traced = (further: Record<string, string> = {}, to = collector) =>
  serve({
    ...environmentOf(database.connection),
    LOG_LEVEL: 'debug',
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${to.port}`,
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    ...further,
  });

const post = ({ port }: RunningProcess, headers: Record<string, string>, borrower = 'usr_kenya_001') =>
  ask(port, 'POST', '/api/v1/loans', {
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ ...LOAN, borrower_id: borrower }),
  });
const get = ({ port }: RunningProcess, path: string, headers: Record<string, string> = {}) =>
  ask(port, 'GET', path, { headers });

const ofTrace = (trace: string, receiver = collector) => spansOf(receiver).filter(({ traceId }) => traceId === trace);
const servers = (spans: readonly ReceivedSpan[]) => spans.filter(({ kind }) => kind === 2);

/** The spans of a trace, when that of the request is among them. */
async function arrived(trace: string, requests = 1): Promise<ReceivedSpan[]> {
  await until(() => servers(ofTrace(trace)).length >= requests);
  return ofTrace(trace);
}

describe('a service with a collector', () => {
  it('passes no API key on that a client has put into its trace state', async () => {
    const running = await traced({ OTEL_TRACES_SAMPLER: 'always_on' });
    const [clean, dirty] = [newTrace(), newTrace()];
    const key = `bl_test_a1b2c3d4e5f6_${'Zq3'.repeat(12)}ab`;
    await get(running, '/api/v1/stats', { traceparent: traceparent(clean), tracestate: 'desk=1' });
    await get(running, '/api/v1/stats', {
      traceparent: traceparent(dirty),
      tracestate: `desk=${key}`,
      'x-request-id': key,
    });
    await Promise.all([arrived(clean), arrived(dirty)]);
    await running.end('SIGTERM');
    const sent = collector.bodies().join();
    expect(sent).toContain('desk=1');
    expect(sent).not.toContain('bl_test');
  });

  let service: RunningProcess;
  beforeAll(async () => {
    service = await traced({
      ENVIRONMENT: 'staging',
      VERSION: '1.2.3',
      OTEL_TRACES_SAMPLER_ARG: '0',
      CLIENT_ADDRESS: 'x-forwarded-for',
    });
  });
  afterAll(async () => {
    expect(await service.end('SIGTERM')).toMatchObject({ code: 0, stderr: '' });
  });

  it('shows one request in the log and in its spans, down to the statement', async () => {
    const [trace, id] = [newTrace(), randomUUID()];
    const { status } = await post(service, { traceparent: traceparent(trace), 'x-request-id': id });
    expect(status).toBe(201);
    const spans = await arrived(trace);
    const [server] = servers(spans);
    expect(server).toMatchObject({
      service: 'branchloans-api',
      name: expect.stringMatching(/^POST \/api\/(v1\/)?loans$/),
      parentSpanId: CLIENT_SPAN,
      attributes: {
        'http.request.method': 'POST',
        'http.route': expect.stringMatching(/^\/api\/(v1\/)?loans$/),
        'http.response.status_code': 201,
        'http.request.header.x-request-id': [id],
      },
    });
    const statements = spans.filter(({ kind }) => kind === 3);
    expect(statements.map(({ name }) => name)).toContain('loan_insert');
    for (const { name, parentSpanId, attributes, startedAt, endedAt } of statements) {
      expect(parentSpanId).toBe(server?.spanId);
      expect(attributes).toEqual({ 'db.system.name': 'postgresql', 'db.operation.name': name });
      expect(startedAt).toBeGreaterThanOrEqual(server!.startedAt);
      expect(endedAt).toBeLessThanOrEqual(server!.endedAt);
    }
    const lines = service.logs().filter(({ request_id }) => request_id === id);
    expect(lines.map(({ message }) => message)).toEqual(['loan created', 'request']);
    for (const line of lines) expect(line).toMatchObject({ trace_id: trace, span_id: server?.spanId });
  });

  it('tells the collector no path, no value and no header field', async () => {
    const trace = newTrace();
    const secrets = ['canary-borrower', 'canary-key', 'canary-query'];
    const headers = { traceparent: traceparent(trace), authorization: 'Bearer canary-key', cookie: 'canary-key' };
    await post(service, headers, 'canary-borrower');
    const created = await post(service, { traceparent: traceparent(trace) }, 'canary-borrower');
    const loan = (created.json() as { id: string }).id;
    await get(service, `/api/v1/loans/${loan}`, headers);
    await get(service, '/api/v1/loans?borrower_id=canary-query', headers);
    await get(service, '/canary-query/nowhere', headers);
    const spans = await arrived(trace, 5);
    expect(servers(spans).map(({ name }) => name)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^GET \/api\/(v1\/)?loans\/:id$/), 'GET unmatched']),
    );
    for (const secret of [...secrets, loan, LOAN.amount]) expect(collector.bodies().join('')).not.toContain(secret);
  });

  it('shows the statement that several requests share in the trace of each, and that it is one', async () => {
    const together = async () => {
      const traces = Array.from({ length: 20 }, newTrace);
      await Promise.all(traces.map((trace) => post(service, { traceparent: traceparent(trace) })));
      const all = (await Promise.all(traces.map((trace) => arrived(trace)))).flat();
      const statements = all.filter(({ kind }) => kind === 3);
      expect(new Set(statements.map(({ traceId }) => traceId)).size).toBe(traces.length);
      return { statements, sharing: statements.filter(({ links }) => links.length > 0) };
    };
    // Whether they meet is for the machine to say.
    let { statements, sharing } = await together();
    for (let again = 0; sharing.length === 0 && again < 9; again++) ({ statements, sharing } = await together());
    expect(sharing.length).toBeGreaterThan(0);
    for (const { links, attributes } of sharing) {
      expect(statements.map(({ spanId }) => spanId)).toEqual(expect.arrayContaining([...links]));
      expect(Number(attributes['branchloans.requests'])).toBeGreaterThan(1);
    }
  });

  it.each([
    ['GET', '/health'],
    ['GET', '/health/ready'],
    ['GET', '/metrics'],
  ])('makes no span of %s %s', async (_method, path) => {
    const [probe, after] = [newTrace(), newTrace()];
    await get(service, path, { traceparent: traceparent(probe) });
    await get(service, '/api/v1/stats', { traceparent: traceparent(after) });
    await arrived(after);
    expect(ofTrace(probe)).toEqual([]);
  });

  it('marks what failed', async () => {
    const trace = newTrace();
    await database.sql('ALTER TABLE loans RENAME COLUMN amount TO other');
    try {
      expect((await post(service, { traceparent: traceparent(trace) })).status).toBe(500);
    } finally {
      await database.sql('ALTER TABLE loans RENAME COLUMN other TO amount');
    }
    const spans = await arrived(trace);
    expect(servers(spans)).toMatchObject([{ status: 2, attributes: { 'error.type': 'internal' } }]);
    expect(spans).toContainEqual(
      expect.objectContaining({
        kind: 3,
        status: 2,
        attributes: expect.objectContaining({ 'db.response.status_code': '42703', 'error.type': '42703' }),
      }),
    );
  });

  it("sends the gateway's own span, the root or the client's child, and believes nothing that is none", async () => {
    const now = Date.now();
    const field = (parent: string) => `${((now - 40) / 1_000).toFixed(3)} 0.060${parent}`;
    const [root, child, none] = [newTrace(), newTrace(), newTrace()];
    await get(service, '/api/v1/stats', { traceparent: traceparent(root), 'x-gateway-span': field('') });
    await get(service, '/api/v1/stats', {
      traceparent: traceparent(child),
      'x-gateway-span': field(' 1234567890abcdef'),
    });
    await get(service, '/api/v1/stats', { traceparent: traceparent(none), 'x-gateway-span': '1 2 3' });
    const gateway = (spans: readonly ReceivedSpan[]) => spans.find(({ service: of }) => of === 'branchloans-gateway');
    const first = gateway(await arrived(root, 2))!;
    expect(first).toMatchObject({
      spanId: CLIENT_SPAN,
      name: expect.stringMatching(/^GET \/api\/(v1\/)?stats$/),
      kind: 2,
    });
    expect(first.parentSpanId ?? '').toBe('');
    expect(Math.abs(first.startedAt - (now - 100))).toBeLessThan(2);
    expect(first.endedAt).toBeGreaterThanOrEqual(now);
    expect(gateway(await arrived(child, 2))).toMatchObject({ parentSpanId: '1234567890abcdef' });
    expect(await arrived(none)).not.toContainEqual(expect.objectContaining({ service: 'branchloans-gateway' }));
  });

  it('names a sampled request as exemplar of its bucket, for who asks for OpenMetrics', async () => {
    const Accept = 'application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1';
    const [sampled, other] = [newTrace(), newTrace()];
    await get(service, '/api/v1/stats', { traceparent: traceparent(sampled) });
    await get(service, '/api/v1/stats', { traceparent: traceparent(other, '00') });
    for (let turn = 0; turn < 2; turn++) {
      const { text, headers } = await get(service, '/metrics', { accept: Accept });
      expect(headers['content-type']).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
      expect(text).toMatch(
        new RegExp(
          `^http_request_duration_seconds_bucket\\{.*route="/api/(?:v1/)?stats".*\\} \\d+ # \\{trace_id="${sampled}"\\} [\\d.e-]+ \\d{10}\\.\\d+$`,
          'm',
        ),
      );
      expect(text).not.toContain(other);
      expect(text).toMatch(/^# TYPE loans_created counter$/m);
      expect(text).toMatch(/^loans_created_total\{currency="KES"\} \d+$/m);
      expect(text.endsWith('# EOF\n')).toBe(true);
    }
    const plain = await get(service, '/metrics');
    expect(plain.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(plain.text).not.toContain('trace_id');
    expect(plain.text).toMatch(/^# TYPE loans_created_total counter$/m);
  });

  it.each([
    ['no span', `00-${newTrace()}-0000000000000000-01`],
    ['no trace', `00-${'0'.repeat(32)}-${CLIENT_SPAN}-01`],
    ['too long', `00-${newTrace()}-${CLIENT_SPAN}-01-more`],
    ['a version that is none', `ff-${newTrace()}-${CLIENT_SPAN}-01`],
    ['capital letters', traceparent(newTrace().toUpperCase().replace(/^./, 'A'))],
    ['anything', '"; DROP TABLE loans'],
  ])('takes a malformed traceparent (%s) for none', async (_what, malformed) => {
    const id = randomUUID();
    const { status } = await get(service, '/api/v1/stats', { traceparent: malformed, 'x-request-id': id });
    expect(status).toBe(200);
    await until(() => service.logs().some(({ request_id }) => request_id === id));
    const [line] = service.logs().filter(({ request_id }) => request_id === id);
    expect(line?.trace_id).toMatch(/^[0-9a-f]{32}$/);
    expect(malformed).not.toContain(line?.trace_id);
  });
});

describe('sampling', () => {
  const decided = (trace: string) => servers(ofTrace(trace)).length === 1;

  it.each([
    ['0', [false, true, false]],
    ['1', [true, true, false]],
  ] as const)('at %s, without and with a decision of who calls', async (ratio, expected) => {
    const service = await traced({ OTEL_TRACES_SAMPLER_ARG: ratio });
    const [id, yes, no] = [randomUUID(), newTrace(), newTrace()];
    await get(service, '/api/v1/stats', { 'x-request-id': id });
    // Nobody stands before this service: what claims to come from a gateway does not.
    const claim = `${(Date.now() / 1_000).toFixed(3)} 0.060`;
    await get(service, '/api/v1/stats', { traceparent: traceparent(yes), 'x-gateway-span': claim });
    await get(service, '/api/v1/stats', { traceparent: traceparent(no, '00') });
    // Ended: what was to be sent has been sent.
    expect((await service.end('SIGTERM')).code).toBe(0);
    const own = String(service.logs().find(({ request_id }) => request_id === id)?.trace_id);
    expect([own, yes, no].map(decided)).toEqual(expected);
  });

  it('at 0.5, about every second, in log and exemplars too', async () => {
    const service = await traced({ OTEL_TRACES_SAMPLER_ARG: '0.5' });
    const ids = Array.from({ length: 60 }, () => randomUUID());
    for (const id of ids) await get(service, '/api/v1/stats', { 'x-request-id': id });
    await service.end('SIGTERM');
    const traces = ids.map((id) => String(service.logs().find(({ request_id }) => request_id === id)?.trace_id));
    expect(new Set(traces).size).toBe(60);
    // Outside of this once in a million runs.
    expect(traces.filter(decided).length).toBeGreaterThan(10);
    expect(traces.filter(decided).length).toBeLessThan(50);
  });
});

describe('a collector', () => {
  const said = (service: RunningProcess, message: string) =>
    service.logs().filter((line) => line.message === message).length;

  it('that is away, fails or says nothing harms no request and no shutdown; it is told of once', async () => {
    const own = await startReceiver();
    own.answer(500);
    const service = await traced({ OTEL_TRACES_SAMPLER_ARG: '1' }, own);
    const burst = async () => {
      const answers = await Promise.all(Array.from({ length: 50 }, () => get(service, '/api/v1/stats')));
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    };
    await burst();
    await until(() => said(service, 'traces are not delivered') === 1);
    own.answer(undefined);
    for (let turn = 0; turn < 3; turn++) {
      await burst();
      await sleep(1_000);
    }
    own.answer(200);
    await burst();
    await until(() => said(service, 'traces are delivered again') === 1);
    expect(said(service, 'traces are not delivered')).toBe(1);
    await own.close();
    await burst();
    const { code, stderr } = await service.end('SIGTERM');
    expect([code, stderr]).toEqual([0, '']);
  }, 60_000);

  it('is not needed: without one the log still names the trace that a request came with', async () => {
    const service = await serve({ ...environmentOf(database.connection), LOG_LEVEL: 'info' });
    const [trace, id, without] = [newTrace(), randomUUID(), randomUUID()];
    await get(service, '/api/v1/stats', { traceparent: traceparent(trace), 'x-request-id': id });
    await get(service, '/api/v1/stats', { 'x-request-id': without });
    await service.end('SIGTERM');
    const line = (wanted: string) => service.logs().find(({ request_id }) => request_id === wanted);
    expect(line(id)).toMatchObject({ trace_id: trace });
    expect(line(without)).not.toHaveProperty('trace_id');
  });
});

describe('an error tracker', () => {
  let tracker: Receiver;
  let service: RunningProcess;
  beforeAll(async () => {
    tracker = await startReceiver();
    const directory = mkdtempSync(join(tmpdir(), 'branchloans-dsn-'));
    const file = join(directory, 'dsn');
    writeFileSync(file, `http://${'a'.repeat(32)}@127.0.0.1:${tracker.port}/7\n`);
    const fault = join(directory, 'fault.mjs');
    writeFileSync(fault, 'process.on("SIGUSR2", () => { throw new TypeError("boom"); });');
    service = await serve({
      ...environmentOf(database.connection),
      ENVIRONMENT: 'staging',
      ERROR_TRACKING_DSN_FILE: file,
      NODE_OPTIONS: `--import ${fault}`,
    });
  });
  afterAll(() => tracker.close());

  it('hears of a request that failed unexpectedly, and of no other; without what the client sent', async () => {
    const [trace, id] = [newTrace(), randomUUID()];
    const headers = { traceparent: traceparent(trace), 'x-request-id': id, authorization: 'Bearer canary-key' };
    expect((await get(service, '/nowhere')).status).toBe(404);
    await database.sql('ALTER TABLE loans RENAME COLUMN amount TO other');
    try {
      expect((await post(service, headers, 'canary-borrower')).status).toBe(401);
      delete (headers as { authorization?: string }).authorization;
      expect((await post(service, headers, 'canary-borrower')).status).toBe(500);
    } finally {
      await database.sql('ALTER TABLE loans RENAME COLUMN other TO amount');
    }
    await until(() => tracker.bodies().length > 0);
    const [envelope, ...others] = tracker.bodies();
    expect(others).toEqual([]);
    expect(envelope).not.toMatch(/canary|12500/);
    expect(JSON.parse(envelope!.split('\n')[2]!)).toMatchObject({
      environment: 'staging',
      transaction: expect.stringMatching(/^POST \/api\/(v1\/)?loans$/),
      tags: { request_id: id },
      contexts: { trace: { trace_id: trace } },
      exception: { values: [{ type: 'error', value: '42703' }] },
    });
  });

  it('hears of what nobody handled before the process ends', async () => {
    const before = tracker.bodies().length;
    const { code, stderr } = await service.end('SIGUSR2');
    expect(code).toBe(1);
    expect(stderr).toContain('TypeError: boom');
    const [envelope = ''] = tracker.bodies().slice(before);
    expect(JSON.parse(envelope.split('\n')[2]!)).toMatchObject({
      exception: { values: [{ type: 'TypeError', mechanism: { handled: false } }] },
    });
    // Words may be a client's; the log has them.
    expect(envelope).not.toContain('boom');
  });
});
