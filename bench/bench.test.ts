import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createDatabase } from '../tests/postgres/database';
import { compare, type Measured } from './compare';
import { cpuClock } from './cpu';
import { loanId, prepareLoans, sql } from './data';
import { switchIn } from './deploys';
import { get, keepRate, saturate } from './load';
import { trendOf } from './memory';
import { quantile } from '../infra/load/quantile';
import { failuresOf, goalsOf, ratiosOf } from './report';
import { WORKLOADS } from './workloads';

const port = Number(process.env.TEST_POSTGRES_PORT);
const ROWS = 1_000;

describe('the data', () => {
  it('has the schema that the migrations make, and as many loans and events as it says', async () => {
    const { database } = await prepareLoans(port, ROWS, true);
    const fresh = await createDatabase();
    const schemaOf = (name: string) =>
      sql(port, name, [
        `SELECT 'index' AS kind, indexdef AS what FROM pg_indexes WHERE schemaname = 'public'
         UNION SELECT 'constraint', conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
           FROM pg_constraint WHERE connamespace = 'public'::regnamespace
         UNION SELECT 'trigger', tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
         UNION SELECT 'column', table_name || ' ' || column_name || ' ' || data_type
           FROM information_schema.columns WHERE table_schema = 'public'
         ORDER BY 1, 2`,
      ]);
    expect(await schemaOf(database)).toEqual(await schemaOf(fresh.connection.name));
    const counts = await sql(port, database, [
      `SELECT (SELECT count(*) FROM loans)::int AS loans, (SELECT count(*) FROM loan_events)::int AS events,
        (SELECT count(*) FROM loans WHERE id = '${loanId(ROWS)}')::int AS last`,
    ]);
    expect(counts).toEqual([{ loans: ROWS, events: ROWS, last: 1 }]);
    await fresh.drop();
  });
});

describe('the load generator', () => {
  let server: Server;
  afterEach(() => server.close());

  async function listen(handler: RequestListener): Promise<number> {
    server = createServer(handler);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return (server.address() as AddressInfo).port;
  }

  it('counts what was answered with 2xx, and says what was not', async () => {
    let turn = 0;
    const target = await listen((_request, response) => {
      turn += 1;
      const refused = turn % 4 === 0;
      const body = refused ? '{"type":"urn:problem:overloaded"}' : 'x'.repeat(100_000);
      response.writeHead(refused ? 503 : 200, { 'Content-Length': body.length }).end(body);
    });
    const { requests, failures, latenciesMs } = await saturate(target, () => get('/'), { connections: 1, total: 40 });
    expect([requests, latenciesMs.length, [...failures]]).toEqual([
      30,
      30,
      [['status 503 urn:problem:overloaded', 10]],
    ]);
  });

  it('opens a connection anew after a server that closes it, and reports one that closes it without an answer', async () => {
    let turn = 0;
    const target = await listen((request, response) => {
      turn += 1;
      if (turn === 5) request.socket.destroy();
      else response.writeHead(200, { 'Content-Length': 2, Connection: 'close' }).end('ok');
    });
    const { requests, failures } = await saturate(target, () => get('/'), { connections: 1, total: 10 });
    expect([requests, [...failures.values()]]).toEqual([9, [1]]);
  });

  it('counts the wait for a server that stands still, at a constant rate, from when a request was due', async () => {
    const standsUntil = performance.now() + 500;
    const target = await listen((_request, response) => {
      const answer = () => response.writeHead(200, { 'Content-Length': 2 }).end('ok');
      setTimeout(answer, Math.max(0, standsUntil - performance.now()));
    });
    const result = await keepRate(target, () => get('/'), { rate: 100, seconds: 1, connections: 2 });
    expect(result.requests).toBe(100);
    // Two connections were stuck; those that came due meanwhile were late too.
    expect(result.latenciesMs.filter((latency) => latency > 100).length).toBeGreaterThan(20);
  });
});

it('the CPU clock sees what a process and its children use, also those that have ended', async () => {
  const busy = 'const end = Date.now() + 400; while (Date.now() < end);';
  const child = spawn('sh', ['-c', `node -e '${busy}'; node -e '${busy}'; echo done; sleep 9`]);
  const clock = cpuClock(child.pid ?? 0);
  await once(child.stdout, 'data');
  const used = clock.read();
  child.kill('SIGKILL');
  if (used !== undefined) expect(used).toBeGreaterThan(0.3);
});

it('a heap that grows has a slope, one that goes up and down has none', () => {
  const MIB = 2 ** 20;
  const samples = (leak: number) =>
    Array.from({ length: 200 }, (_, i) => [i * 1_000, (100 + (i % 7) + (i * leak) / 100) * MIB] as const);
  const leaking = trendOf(samples(2));
  expect(leaking.slopeMiB).toBeCloseTo(2, 0);
  expect(leaking.slopeMiB).toBeGreaterThan(leaking.plusMinusMiB);
  const flat = trendOf(samples(0));
  expect(Math.abs(flat.slopeMiB)).toBeLessThanOrEqual(flat.plusMinusMiB + 0.01);
});

it('goals are judged by the median of the ratios within a round', () => {
  const measured = (contender: Measured['contender'], rates: number[]): Measured => {
    const rest = { requests: 1, p50Ms: 1, p99Ms: 1, serviceCpu: 1, postgresCpu: 1, generatorCpu: 1, failures: {} };
    return { contender, workload: 'get', rates, ...rest };
  };
  // A slow moment of the machine in the second round hits both.
  const ratios = ratiosOf([measured('ours', [85, 8, 90]), measured('bare', [100, 10, 100])]);
  expect(ratios).toEqual([{ workload: 'get', against: 'bare', median: 0.85, min: 0.8, max: 0.9 }]);
  expect(goalsOf(ratios).map(({ kind, bound, reached }) => [kind, bound, reached])).toEqual([
    ['must', '>= 0.85', true],
    ['goal', '>= 1', false],
  ]);
  expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
});

it('a whole comparison: every contender answers every workload rightly, and nothing fails', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-bench-'));
  try {
    const data = await prepareLoans(port, ROWS, false);
    const plan = {
      contenders: ['ours', 'bare', 'fastify'],
      workloads: WORKLOADS,
      rounds: 1,
      seconds: 0.1,
      warmUpSeconds: 0.1,
      connections: 8,
    } as const;
    const stage = { directory, postgres: { pid: process.pid, port } };
    const measured = await compare(stage, data, undefined, plan, () => undefined);
    expect(failuresOf(measured)).toEqual([]);
    expect(measured.map(({ contender, workload }) => `${workload} ${contender}`)).toEqual(
      WORKLOADS.flatMap((workload) => plan.contenders.map((contender) => `${workload} ${contender}`)),
    );
    expect(measured.filter(({ requests }) => requests === 0)).toEqual([]);
    expect(goalsOf(ratiosOf(measured))).toHaveLength(3 * WORKLOADS.length);
  } finally {
    rmSync(directory, { recursive: true });
  }
}, 60_000);

describe('the switch of a deploy', () => {
  const line = (second: string, upstream: string) =>
    `2026-11-21T10:00:${second}.250000000Z {"method":"GET","upstream":"${upstream}","upstream_status":"200"}`;
  const log = [
    line('01', '172.18.0.4:8000'),
    '2026-11-21T10:00:02.000000000Z 2026/11/21 10:00:02 [warn] something else',
    line('03', ''),
    line('04', '172.18.0.7:8000'),
    line('05', '172.18.0.7:8000, 172.18.0.4:8000'),
    line('06', '172.18.0.8:8000'),
  ].join('\n');

  it('is from the first answer of a new server until the last of an old one', () => {
    const at = (second: string) => Date.parse(`2026-11-21T10:00:${second}.250Z`);
    expect(switchIn(log, ['172.18.0.4'], ['172.18.0.7', '172.18.0.8'])).toEqual({
      ...{ firstNew: at('04'), lastOld: at('05') },
    });
  });

  it('is not known where no new server answered', () => {
    expect(switchIn(log, ['172.18.0.4'], ['172.18.0.9'])).toBeUndefined();
  });
});
