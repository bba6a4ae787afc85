import { spawnSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { Agent } from 'node:http';
import fc from 'fast-check';
import { CODES } from '../../app/domain/currency';
import { OPERATIONS } from '../../app/http/contract';
import { METRICS } from '../../app/telemetry/names';
import { image, missingForContainers, run } from '../ops/binaries';
import { describeUnless } from '../skip';
import { type Answer, ask, LOAN, newKey, raw, startService, type TestService } from './harness';

/** Whatever clients send, the number of time series stays bounded. */

const REQUESTS = 10_000;
const MOST_SERIES = 2_000;

const JSON_BODY = { 'content-type': 'application/json' };
const METHODS = ['GET', 'POST', 'HEAD', 'OPTIONS', 'PUT', 'PATCH', 'DELETE', 'TRACE', 'PROPFIND', 'M-SEARCH'];
const STATUSES = ['approved', 'rejected', 'disbursed', 'repaid', 'defaulted', 'pending', 'x'];
const CURRENCIES = [...CODES.values()].flat();

let api: TestService;
/** One that may do all, one that may only read, and what is none. */
let keys: string[];
let text: string;
/** So that requests get further than to a loan that is not there. */
const loans: string[] = [];

jest.setTimeout(300_000);

beforeAll(async () => {
  api = await startService({
    apiKeys: 'required',
    logLevel: 'error',
    rateLimit: { requests: 9_000, windowSeconds: 60 },
  });
  keys = [await newKey(api, ['loans:read', 'loans:write']), await newKey(api, ['loans:read'])];
  await throwRequests();
  text = (await ask(api.port, 'GET', '/metrics')).text;
});
afterAll(() => api.stop());

type Send = (agent: Agent) => Promise<Answer | string>;

function arbitrary(): fc.Arbitrary<Send> {
  const junk = fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 20 }).map(encodeURIComponent);
  const id = fc.oneof(
    fc.nat().map((n) => loans[n % Math.max(1, loans.length)] ?? randomUUID()),
    fc.uuid(),
    junk,
  );
  const known = fc.constantFrom(...OPERATIONS.flatMap(({ paths }) => paths));
  const path = fc.oneof(
    { weight: 3, arbitrary: fc.tuple(known, id).map(([pattern, value]) => pattern.replace(/:\w+/g, value)) },
    { weight: 1, arbitrary: fc.array(junk, { maxLength: 4 }).map((parts) => `/${parts.join('/')}`) },
  );
  const query = fc.oneof(
    fc.constant(''),
    fc
      .tuple(fc.constantFrom('limit', 'cursor', 'status', 'currency', 'x'), junk)
      .map(([name, value]) => `?${name}=${value}`),
  );
  const loan = fc
    .record({
      amount: fc.oneof(fc.nat(60_000).map(String), junk),
      currency: fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...CURRENCIES) }, { weight: 1, arbitrary: junk }),
    })
    .map((some) => ({ ...LOAN, ...some }));
  const body = fc.oneof(
    fc.constant(undefined),
    loan,
    loan,
    fc.record({ loans: fc.array(loan, { maxLength: 3 }) }),
    fc.record({ to: fc.constantFrom(...STATUSES), reason: junk }),
    fc.record({ amount: fc.nat(100).map(String) }),
    fc.record({ reason: junk }),
    fc.json().map((json) => json.slice(0, 200)),
    junk,
  );
  const headers = fc.record(
    {
      'content-type': fc.constantFrom('application/json', 'application/json', 'application/json', 'text/plain', 'x/y'),
      'idempotency-key': fc.oneof(fc.uuid(), fc.constantFrom('a', 'b'), junk),
      'x-request-id': junk,
      'if-match': fc.oneof(fc.constant('"1"'), fc.constant('*'), junk),
      'if-none-match': fc.oneof(fc.constant('*'), junk),
      accept: fc.constantFrom('text/html', '*/*', 'x/y'),
      traceparent: junk,
      'user-agent': junk,
    },
    { requiredKeys: ['content-type'] },
  );
  const method = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom('GET', 'POST') },
    { weight: 1, arbitrary: fc.constantFrom(...METHODS) },
  );
  const authorization = fc.oneof(
    { weight: 6, arbitrary: fc.constant(() => keys[0]) },
    { weight: 1, arbitrary: fc.constant(() => keys[1]) },
    { weight: 1, arbitrary: junk.map((value) => () => value) },
    { weight: 1, arbitrary: fc.constant(() => undefined) },
  );
  return fc
    .tuple(method, path, query, headers, body, authorization)
    .map(([verb, where, what, given, content, key]): Send => {
      return (agent) => {
        const shown = key();
        const sent = shown === undefined ? given : { ...given, authorization: `Bearer ${shown}` };
        return ask(api.port, verb, `${where}${what}`, {
          agent,
          headers: sent,
          ...(content === undefined || verb === 'GET' || verb === 'HEAD'
            ? {}
            : { body: typeof content === 'string' ? content : JSON.stringify(content) }),
        });
      };
    });
}

/** The seed is in the failure's message. */
const seed = Number(process.env.SERIES_SEED ?? 4_217);

async function throwRequests(): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 16 });
  for (const currency of CURRENCIES) {
    const created = await ask(api.port, 'POST', '/api/v1/loans', {
      agent,
      headers: { ...JSON_BODY, authorization: `Bearer ${keys[0]!}` },
      body: JSON.stringify({ ...LOAN, amount: '100', currency }),
    });
    if (created.status === 201) loans.push(created.json().id as string);
  }
  const requests = fc.sample(arbitrary(), { numRuns: REQUESTS, seed });
  const send = async () => {
    for (let next = requests.pop(); next !== undefined; next = requests.pop()) await next(agent).catch(() => undefined);
  };
  await Promise.all(Array.from({ length: 16 }, send));
  // What no client library sends.
  await Promise.all(
    Array.from({ length: 100 }, (_, n) =>
      raw(api.port, `${randomBytes(3).toString('hex')}${n} /${n} HTTP/1.1\r\n\r\n`),
    ),
  );
  const headers = { ...JSON_BODY, authorization: `Bearer ${keys[0]!}`, 'idempotency-key': randomUUID() };
  for (let n = 0; n < 2; n++) await ask(api.port, 'POST', '/api/loans', { agent, headers, body: JSON.stringify(LOAN) });
  // A move that is not allowed: whether chance makes one is chance.
  const others = { ...JSON_BODY, authorization: headers.authorization };
  const { id } = (
    await ask(api.port, 'POST', '/api/loans', { agent, headers: others, body: JSON.stringify(LOAN) })
  ).json();
  const to = JSON.stringify({ to: 'repaid' });
  await ask(api.port, 'POST', `/api/loans/${String(id)}/transitions`, { agent, headers: others, body: to });
  agent.destroy();
}

const seriesOf = (metrics: string) => metrics.split('\n').filter((line) => line !== '' && !line.startsWith('#'));

it(`has less than ${MOST_SERIES} series after ${REQUESTS} random requests`, () => {
  const series = seriesOf(text);
  const byMetric = new Map<string, number>();
  for (const line of series) {
    const name = /^\w+/.exec(line)![0].replace(/_(bucket|sum|count)$/, '');
    byMetric.set(name, (byMetric.get(name) ?? 0) + 1);
  }
  const largest = [...byMetric].sort(([, a], [, b]) => b - a).slice(0, 8);
  if (series.length >= MOST_SERIES) throw new Error(JSON.stringify({ seed, series: series.length, largest }));
  // They did get somewhere, or this proves nothing.
  const counted = (status: string) => text.includes(`status_code="${status}"`);
  expect(['200', '201', '400', '401', '403', '404', '405', '409', '422'].filter((each) => !counted(each))).toEqual([]);
  const rose = [/^loans_created_total\{currency="other"\} [1-9]/, /^idempotency_replays_total [1-9]/];
  expect(rose.map((one) => series.filter((line) => one.test(line)).length)).toEqual([1, 1]);
});

it('has every metric that the table names, and what Node tells of itself', () => {
  for (const { name, type } of Object.values(METRICS)) expect(text).toContain(`# TYPE ${name} ${type}\n`);
  for (const name of [
    'nodejs_eventloop_lag_p99_seconds',
    'nodejs_gc_duration_seconds_count',
    'nodejs_heap_size_used_bytes',
    'process_cpu_seconds_total',
    'process_resident_memory_bytes',
    'process_start_time_seconds',
    'process_open_fds',
  ]) {
    expect(text).toMatch(new RegExp(`^${name}[ {]`, 'm'));
  }
});

it('has no label value that a client chose', () => {
  const allowed = new Set([...OPERATIONS.flatMap(({ paths }) => paths), 'unmatched', 'refused', '/sre/refused']);
  const routes = [...text.matchAll(/route="([^"]*)"/g)].map(([, route]) => route!);
  expect([...new Set(routes)].filter((route) => !allowed.has(route))).toEqual([]);
  const methods = [...new Set([...text.matchAll(/method="([^"]*)"/g)].map(([, method]) => method!))];
  expect(methods.filter((method) => !['GET', 'POST', 'OPTIONS', 'any', 'other'].includes(method))).toEqual([]);
  const currencies = new Set([...text.matchAll(/currency="([^"]*)"/g)].map(([, currency]) => currency!));
  expect(currencies.size).toBeLessThanOrEqual(13);
});

/** From the stack's image, else from this machine. */
const inImage = ['docker', 'run', '--rm', '--interactive', '--network', 'none', '--entrypoint', 'promtool'];
const promtool =
  missingForContainers(['prometheus']) === undefined
    ? [...inImage, image('prometheus')]
    : run('promtool', ['--version']).status === 0
      ? ['promtool']
      : undefined;
const absent = promtool === undefined ? 'no image of Prometheus and no promtool' : undefined;

describeUnless(absent, 'promtool check metrics', () => {
  it('finds no fault with them', () => {
    const [command = '', ...args] = promtool ?? [];
    const { error, stdout, stderr } = spawnSync(command, [...args, 'check', 'metrics'], {
      input: text,
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(error).toBeUndefined();
    const said = `${stdout}${stderr}`.split('\n').filter((line) => line !== '');
    // It was read: these gauges of prom-client are named like counters.
    expect(said.filter((line) => NOT_OURS.test(line)).length).toBeGreaterThan(0);
    expect(said.filter((line) => !NOT_OURS.test(line))).toEqual([]);
  });
});

const NOT_OURS = /^nodejs_active_(handles|requests|resources)_total /;
