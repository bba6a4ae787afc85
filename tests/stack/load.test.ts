import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureCertificate } from '../../ssl/certificates';
import { failuresOf, figuresOf, type LoadOptions, lostWrites, type Outcome, startLoad, type Target } from './load';

/** Whether the load sees what it is there to see, against a server that errs as it is told. */

const RATE = 200;

let directory: string;
let server: Server;
let target: Target;
let connections: Set<object>;
const stored: string[] = [];
/** Every so-manieth request with this method is treated badly. */
let fault: ((turn: number, method: string) => 'status' | 'reset' | 'late' | undefined) | undefined;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'branchloans-load-'));
  const { certificateFile, keyFile, caFile } = await ensureCertificate({ directory, domain: 'example.org' });
  const [cert, key, authority] = [certificateFile, keyFile, caFile!].map((file) => readFileSync(file, 'utf8'));
  const seen = new Set<string>();
  connections = new Set();
  server = createServer({ cert, key }, (request, response) => {
    connections.add(request.socket);
    const name = String(request.headers['x-request-id']);
    const first = !seen.has(name);
    seen.add(name);
    const kind = first ? fault?.(Number(name.split('-')[2]), request.method ?? '') : undefined;
    if (kind === 'reset') request.socket.destroy();
    else
      request.resume().on('end', () => {
        if (kind === 'status') response.writeHead(503).end('{"title":"not now"}');
        else if (request.method === 'POST') {
          stored.push(`loan-of-${name} ${name}`);
          response.writeHead(201).end(JSON.stringify({ id: `loan-of-${name}` }));
        } else setTimeout(() => response.end('{}'), kind === 'late' ? 300 : 0);
      });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const url = `https://localhost:${(server.address() as AddressInfo).port}`;
  target = { url, authority: authority!, key: 'a key' };
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
  rmSync(directory, { recursive: true });
});
afterEach(() => (fault = undefined));

async function load(milliseconds: number, more: LoadOptions = {}): Promise<readonly Outcome[]> {
  connections.clear();
  const running = startLoad(target, { rate: RATE, connections: 60, ...more });
  while (running.outcomes.length === 0) await new Promise((done) => setTimeout(done, 20));
  await new Promise((done) => setTimeout(done, milliseconds));
  return running.stop();
}

it('keeps its rate, keeps four of five connections, and a third are writes', async () => {
  const outcomes = await load(2_000);
  expect(failuresOf(outcomes)).toEqual([]);
  const times = outcomes.map(({ dueAt }) => dueAt).sort((a, b) => a - b);
  const seconds = (times.at(-1)! - times[0]!) / 1_000;
  expect(outcomes.length / seconds).toBeCloseTo(RATE, -1);
  expect(new Set(outcomes.map(({ id }) => id)).size).toBe(outcomes.length);
  const { requests, acknowledged } = figuresOf(outcomes);
  expect(acknowledged / requests).toBeCloseTo(1 / 3, 1);
  const fresh = outcomes.filter((outcome) => outcome.fresh).length;
  expect(fresh / requests).toBeCloseTo(1 / 5, 1);
  expect(connections.size).toBe(48 + fresh);
  const reads = new Set(outcomes.map(({ what }) => what.replace(/loan-of-.*/, 'one')));
  expect([...reads].sort()).toEqual([
    ...['GET /api/v1/loans/one', 'GET /api/v1/loans?limit=5', 'GET /api/v1/stats', 'POST /api/v1/loans'],
  ]);
  expect(lostWrites(outcomes, stored.join('\n'))).toEqual([]);
});

it('counts a failed status and a broken connection, and says what a repetition gets', async () => {
  fault = (turn) => (turn % 20 === 7 ? 'status' : turn % 20 === 9 ? 'reset' : undefined);
  const outcomes = await load(1_000);
  const failures = failuresOf(outcomes);
  const figures = figuresOf(outcomes);
  expect(figures.failed).toBe(failures.length);
  expect(figures.failed / figures.requests).toBeCloseTo(0.1, 1);
  expect(figures.failedTwice).toBe(0);
  expect(failures.filter((line) => line.includes('503 {"title":"not now"}')).length).toBeGreaterThan(2);
  expect(failures.filter((line) => /POST .*socket hang up|POST .*ECONNRESET/.test(line)).length).toBeGreaterThan(0);
  expect(lostWrites(outcomes, stored.join('\n'))).toEqual([]);
});

it('counts latency from when a request was due, not from when there was a connection for it', async () => {
  // Ninety in a second, each 300 ms: twice as many as the connections can carry, were they all treated so.
  fault = (_turn, method) => (method === 'GET' ? 'late' : undefined);
  const { p50Ms, maxMs } = figuresOf(await load(1_000));
  expect(p50Ms).toBeGreaterThan(290);
  expect(maxMs).toBeLessThan(5_000);
});

it('keeps the mix that it is told, and leaves no loan where it only asks', async () => {
  const outcomes = await load(1_000, { mix: { reads: 1, writes: 3 }, dryRun: true });
  expect(failuresOf(outcomes)).toEqual([]);
  const writes = outcomes.filter(({ what }) => what === 'POST /api/v1/loans/dry-run');
  expect(writes.length / outcomes.length).toBeCloseTo(3 / 4, 1);
  expect(outcomes.filter(({ what }) => what.startsWith('POST')).length).toBe(writes.length);
  expect(figuresOf(outcomes).acknowledged).toBe(0);
});

it('changes its rate when it is told', async () => {
  const running = startLoad(target, { rate: 20, connections: 60 });
  while (running.outcomes.length === 0) await new Promise((done) => setTimeout(done, 20));
  running.setRate(RATE);
  const from = Date.now();
  await new Promise((done) => setTimeout(done, 2_000));
  const outcomes = await running.stop();
  const { requests } = figuresOf(outcomes, [from + 500, from + 1_500]);
  expect(requests).toBeGreaterThan(RATE * 0.8);
  expect(requests).toBeLessThan(RATE * 1.2);
  expect(Math.max(...outcomes.map(({ lagMs }) => lagMs))).toBeGreaterThan(0);
});

it('finds a write that was lost, and one that was made twice', () => {
  const outcome = (id: string, loan?: string): Outcome => ({
    ...{ id, what: 'POST', dueAt: 0, latencyMs: 1, lagMs: 0, status: 201, fresh: false },
    ...(loan !== undefined && { loan }),
  });
  const outcomes = [outcome('load-1-0', 'a'), outcome('load-1-3', 'b'), outcome('load-1-6')];
  expect(lostWrites(outcomes, 'a load-1-0\nb load-1-3\nc load-1-6\n')).toEqual([]);
  expect(lostWrites(outcomes, 'a load-1-0\nx load-1-3\n')).toEqual([
    'loan b of load-1-3 was acknowledged and is not there',
  ]);
  expect(lostWrites(outcomes, 'a load-1-0\nb load-1-3\ny load-1-3\n')).toEqual([
    'load-1-3 asked for one loan and has 2',
  ]);
});

it('gives figures of a span of time', () => {
  const outcomes = [0, 1, 2, 3, 4].map((second): Outcome => {
    const failure = second === 3 ? { failure: '502', repeated: false } : {};
    return {
      ...{
        id: `load-1-${second}`,
        what: 'GET',
        dueAt: second * 1_000,
        latencyMs: second,
        lagMs: 0,
        status: 200,
        fresh: true,
      },
      ...failure,
    };
  });
  expect(figuresOf(outcomes, [1_000, 3_500])).toEqual({
    ...{ requests: 3, failed: 1, failedTwice: 1, acknowledged: 0, p50Ms: 1.5, maxMs: 2 },
    ...{ p95Ms: expect.closeTo(1.95), p99Ms: expect.closeTo(1.99), anyP95Ms: expect.closeTo(2.9) },
  });
  expect(figuresOf([]).p99Ms).toBeNaN();
});
