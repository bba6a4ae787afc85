import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { z } from 'zod';
import {
  alertsSchema,
  capacitySchema,
  circuitBreakersSchema,
  dashboardSchema,
  historySchema,
  sreHealthSchema,
  sreMetricsSchema,
} from '../../app/http/contract/sre';
import { directExpressions } from '../../app/sre/objectives';
import { expressions } from '../../app/sre/figures';
import { freePort } from '../../infra/embedded/ports';
import { describeUnless } from '../skip';
import { type Answer, ask, CONFIG, LOAN, newKey, startService, type TestService, until } from './harness';
import { addressOf, noPrometheus, Past, startPrometheus, type TestPrometheus } from './prometheus';

/** /sre/ and the history of /status: without a Prometheus, with one that is silent, and with a real one. */

const SCHEMAS = {
  '/sre/dashboard': dashboardSchema,
  '/sre/health': sreHealthSchema,
  '/sre/metrics': sreMetricsSchema,
  '/sre/capacity': capacitySchema,
  '/sre/circuit-breakers': circuitBreakersSchema,
  '/sre/alerts': alertsSchema,
  '/api/status/history': historySchema,
} as const satisfies Record<string, z.ZodType>;
type Path = keyof typeof SCHEMAS;
const PATHS = Object.keys(SCHEMAS) as Path[];

/** What is answered, held to its description. */
async function figuresOf<P extends Path>(port: number, path: P): Promise<z.infer<(typeof SCHEMAS)[P]>> {
  const { status, text } = await ask(port, 'GET', path);
  expect([path, status]).toEqual([path, 200]);
  return SCHEMAS[path].parse(JSON.parse(text)) as z.infer<(typeof SCHEMAS)[P]>;
}

async function expectSource(port: number, source: 'prometheus' | 'process'): Promise<Record<string, Answer>> {
  const answers: Record<string, Answer> = {};
  for (const path of PATHS) {
    const answer = await ask(port, 'GET', path);
    expect([path, answer.status, SCHEMAS[path].safeParse(answer.json()).error]).toEqual([path, 200, undefined]);
    expect([path, answer.json().source]).toEqual([path, source]);
    expect(Math.abs(Date.parse(answer.json().as_of as string) - Date.now())).toBeLessThan(120_000);
    answers[path] = answer;
  }
  return answers;
}

describe('without a Prometheus', () => {
  let api: TestService;
  beforeAll(async () => {
    api = await startService({ capacityRps: 50 }, { keepFigures: 0 });
  });
  afterAll(() => api.stop());

  it('every answer is as it is described, and says that it is of this process alone', async () => {
    const answers = await expectSource(api.port, 'process');
    for (const answer of Object.values(answers)) expect(answer.json().note).toContain('PROMETHEUS_URL');
    const history = answers['/api/status/history']!.json();
    expect([history.days.length, history.hours.length]).toEqual([30, 48]);
    for (const period of [...history.days, ...history.hours])
      expect(period).toMatchObject({ availability: null, known: 0 });
  });

  it('figures are those that the process counts', async () => {
    for (let request = 0; request < 20; request++) await api.ask('GET', request % 4 === 0 ? '/nowhere' : '/api/loans');
    const { traffic, objectives, resources } = await figuresOf(api.port, '/sre/dashboard');
    const text = (await api.ask('GET', '/metrics')).text;
    const counted = [...text.matchAll(/^http_request_duration_seconds_count\{([^}]*)\} (\d+)/gm)]
      .filter(([, labels]) => !/route="\/(health|metrics|sre)/.test(labels!))
      .reduce((sum, [, , count]) => sum + Number(count), 0);
    expect(counted).toBeGreaterThanOrEqual(20);
    expect(traffic.requests_per_second! * traffic.window_seconds).toBeCloseTo(counted, 3);
    expect(traffic).toMatchObject({ error_ratio: 0 });
    expect(traffic.p95_seconds).toBeGreaterThan(0);
    expect(resources).toMatchObject({
      containers_answering: 1,
      database_connections_limit: api.database.connection.poolSize - 1,
    });
    const success = objectives.find(({ name }) => name === 'success');
    expect(success).toMatchObject({ measured: 1, error_budget_remaining: 1, burn_rate: 0, measured_by: 'process' });
    const { routes } = await figuresOf(api.port, '/sre/metrics');
    expect(routes[0]).toMatchObject({ method: 'GET', route: '/api/loans', error_ratio: 0 });
    expect(routes).toContainEqual(expect.objectContaining({ method: 'any', route: 'unmatched', p95_seconds: null }));
    expect(routes.map(({ route }) => route)).not.toContain('refused');
    const [requests] = (await figuresOf(api.port, '/sre/capacity')).resources;
    expect(requests).toMatchObject({ name: 'requests', limit: 50 });
    expect(requests!.utilisation).toBeCloseTo(requests!.used! / 50, 6);
  });

  it('says what is wrong when the database is away, and that its breaker is open', async () => {
    const alone = await startService({ database: { ...CONFIG.database, port: 1 } }, { keepFigures: 0 });
    for (let request = 0; request < 5; request++) await ask(alone.port, 'GET', '/api/loans');
    const get = <P extends Path>(path: P) => figuresOf(alone.port, path);
    await until(async () => (await get('/sre/circuit-breakers')).circuit_breakers[0]?.state === 'open');
    const [database, prometheus] = (await get('/sre/circuit-breakers')).circuit_breakers;
    expect(database).toMatchObject({ name: 'database', processes_open: 1, failures_to_open: 3, retry_every_ms: 250 });
    expect(database!.refused).toBeGreaterThan(0);
    expect(prometheus).toMatchObject({ name: 'prometheus', state: 'not-configured' });
    expect(await get('/sre/dashboard')).toMatchObject({ status: 'critical', alerts: { firing: 1 } });
    expect(await get('/sre/alerts')).toMatchObject({
      alerts: [{ name: 'DatabaseUnavailable', severity: 'critical', state: 'firing' }],
    });
    expect(await get('/sre/health')).toMatchObject({
      status: 'degraded',
      checks: [
        { status: 'up' },
        { name: 'database', status: 'down' },
        { status: 'unknown' },
        { status: 'not-configured' },
      ],
    });
    await alone.stop();
  });

  it('takes no parameter', async () => {
    for (const path of PATHS) expect((await api.ask('GET', `${path}?x=1`)).status).toBe(422);
  });
});

it('strangers see the past of the service and an empty page, but no figures: those want the scope sre:read', async () => {
  const guarded = await startService({ apiKeys: 'required' });
  const status = async (path: string, key?: string) =>
    (await ask(guarded.port, 'GET', path, { headers: key === undefined ? {} : { authorization: `Bearer ${key}` } }))
      .status;
  const figures = PATHS.filter((path) => path.startsWith('/sre/'));
  const [viewer, desk] = [await newKey(guarded, ['sre:read']), await newKey(guarded, ['loans:read', 'loans:write'])];
  for (const path of figures) {
    expect([path, await status(path), await status(path, desk), await status(path, viewer)]).toEqual([
      path,
      401,
      403,
      200,
    ]);
  }
  expect(await status('/api/loans', viewer)).toBe(403);
  for (const path of ['/api/status/history', '/status', '/sre/dashboard-ui', '/sre/dashboard.js']) {
    expect([path, await status(path)]).toEqual([path, 200]);
  }
  const page = await ask(guarded.port, 'GET', '/sre/dashboard-ui');
  expect(page.headers['content-security-policy']).toMatch(/^default-src 'self';.*require-trusted-types-for 'script'/);
  expect(page.text).not.toMatch(/<style|style=| on\w+=|https?:|undefined|\[object/);
  expect((await ask(guarded.port, 'GET', '/status')).text).not.toMatch(
    /<style|style=| on\w+=|https?:|undefined|\[object/,
  );
  await guarded.stop();
});

describe('a Prometheus that takes connections and is silent', () => {
  let blackHole: Server;
  let connections: Socket[];
  let url: string;
  beforeEach(async () => {
    connections = [];
    blackHole = createServer((socket) => connections.push(socket.on('error', () => undefined)));
    blackHole.listen(0, '127.0.0.1');
    await once(blackHole, 'listening');
    url = `http://127.0.0.1:${(blackHole.address() as AddressInfo).port}/prometheus`;
  });
  afterEach(() => {
    for (const socket of connections) socket.destroy();
    blackHole.close();
  });

  it('slows nobody: one wait, then answers of the process; loans never wait, and few connections are tried', async () => {
    const api = await startService({ prometheusUrl: url }, { keepFigures: 0 });
    const first = ask(api.port, 'GET', '/sre/dashboard');
    // While the first is waiting, everything else is served.
    for (let request = 0; request < 20; request++) expect((await api.ask('GET', '/api/loans')).status).toBe(200);
    expect((await first).json()).toMatchObject({ source: 'process', note: 'Prometheus does not answer.' });
    const tried = connections.length;
    const startedAt = performance.now();
    const pages = ['/status', '/api/status/history', '/sre/dashboard', '/sre/capacity', '/sre/metrics'];
    for (let round = 0; round < 20; round++) {
      await Promise.all(pages.map(async (path) => expect((await ask(api.port, 'GET', path)).status).toBe(200)));
    }
    // Had each round waited it would be 30 s.
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    expect(connections.length - tried).toBeLessThanOrEqual(12);
    const [, breaker] = (await api.ask('GET', '/sre/circuit-breakers')).json().circuit_breakers;
    expect(breaker).toMatchObject({ name: 'prometheus', state: 'open' });
    expect(api.logs().filter(({ message }) => message === 'prometheus circuit opened')).toHaveLength(1);
    await api.stop();
  }, 60_000);

  it('does not hold up a stop', async () => {
    const api = await startService({ prometheusUrl: url, shutdownTimeoutMs: 5_000 });
    const asked = ask(api.port, 'GET', '/sre/dashboard').catch(() => undefined);
    await until(() => connections.length > 0);
    await api.stop();
    await asked;
  });

  it('is asked again, and used again, once it answers', async () => {
    const api = await startService({ prometheusUrl: url }, { keepFigures: 0 });
    expect((await api.ask('GET', '/sre/alerts')).json().source).toBe('process');
    for (const socket of connections) socket.destroy();
    blackHole.removeAllListeners('connection');
    blackHole.on('connection', (socket) => {
      connections.push(socket.on('error', () => undefined));
      socket.on('data', () => {
        const body = JSON.stringify({
          status: 'success',
          data: { resultType: 'scalar', result: [1, '1'], alerts: [] },
        });
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
      });
    });
    await until(async () => (await api.ask('GET', '/sre/alerts')).json().source === 'prometheus');
    expect(api.logs().filter(({ message }) => message === 'prometheus circuit closed')).toHaveLength(1);
    await api.stop();
  });

  it.each([
    ['503', 'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n'],
    ['no JSON', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n<ht>'],
    ['no HTTP', 'SSH-2.0-x\r\n'],
    ['half an answer', 'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{'],
  ])('and one that answers with %s is none', async (_name, bytes) => {
    blackHole.on('connection', (socket) => socket.once('data', () => socket.end(bytes)));
    const api = await startService({ prometheusUrl: url }, { keepFigures: 0 });
    expect((await api.ask('GET', '/sre/dashboard')).json()).toMatchObject({ source: 'process' });
    expect((await api.ask('GET', '/sre/health')).json()).toMatchObject({ status: 'degraded' });
    await api.stop();
  });
});

const DAY = 86_400;
const HOUR = 3_600;
const MIDNIGHT = Math.floor(Date.now() / 1_000 / DAY) * DAY;

/** Six days: four hours without data, a day without any, a fault of 36 minutes, and disks that fill up. */
function past(): Past {
  const made = new Past();
  const probe = { job: 'probe', probe: 'api', env: 'test' };
  const fault = (at: number) => at >= MIDNIGHT - 4 * DAY + 10 * HOUR && at < MIDNIGHT - 4 * DAY + 10.6 * HOUR;
  for (let at = MIDNIGHT - 6 * DAY; at < Date.now() / 1_000 - 60; at += 120) {
    const silent =
      (at >= MIDNIGHT - 3 * DAY && at < MIDNIGHT - 2 * DAY) || (at >= MIDNIGHT - DAY && at < MIDNIGHT - DAY + 4 * HOUR);
    if (silent) continue;
    made.add('probe_success', probe, fault(at) ? 0 : 1, at);
    if (fault(at)) {
      const labels = {
        alertname: 'ApiDown',
        alertstate: 'firing',
        severity: 'critical',
        env: 'test',
        instance: 'secret-host:1',
      };
      made.add('ALERTS', labels, 1, at);
    }
    if (at >= MIDNIGHT - 5 * DAY && at < MIDNIGHT - 5 * DAY + HOUR) {
      const failing = { alertname: 'ProbeFailing', alertstate: 'firing', env: 'test' };
      made.add('ALERTS', { ...failing, severity: 'warning', probe: 'grafana' }, 1, at);
      made.add('ALERTS', { ...failing, severity: 'critical', probe: 'database' }, 1, at);
    }
    const host = { job: 'host', env: 'test', instance: 'host' };
    const disk = { ...host, mountpoint: 'engine', device: '/dev/vda1' };
    made.add('node_filesystem_size_bytes', disk, 1e12, at);
    // Smaller, emptier, and full before the other.
    const own = { ...host, mountpoint: 'database', device: '/dev/vdb1' };
    made.add('node_filesystem_size_bytes', own, 2e11, at);
    made.add('node_filesystem_avail_bytes', own, 1.6e11 - (1e10 * (at - MIDNIGHT)) / DAY, at);
    // 10 GB a day, 300 GB left at midnight.
    made.add('node_filesystem_avail_bytes', disk, 3e11 - (1e10 * (at - MIDNIGHT)) / DAY, at);
  }
  return made;
}

describeUnless(noPrometheus, 'with a real Prometheus', () => {
  jest.setTimeout(120_000);
  let api: TestService;
  let other: TestService;
  let prometheus: TestPrometheus;
  const slo = (record: string, name: string, value: number) => ({
    record,
    expr: `vector(${value})`,
    labels: { slo: name, ...(record !== 'slo:objective:ratio' && { env: 'test' }) },
  });
  const rules = [
    { alert: 'Watchdog', expr: 'vector(1)', labels: { severity: 'none' } },
    {
      alert: 'LoansTooFew',
      expr: 'vector(1)',
      labels: { severity: 'warning' },
      annotations: {
        summary: 'Too few',
        description: 'Far too few',
        runbook_url: 'https://example.org/LoansTooFew.md',
      },
    },
    { alert: 'NotYet', expr: 'vector(1)', for: '1h', labels: { severity: 'critical' } },
    { alert: 'Elsewhere', expr: 'vector(1)', labels: { severity: 'critical', env: 'production' } },
    slo('slo:objective:ratio', 'success', 0.98),
    slo('slo:period_error:ratio', 'success', 0.005),
    slo('slo:current_burn_rate:ratio', 'success', 2),
  ];

  const get = <P extends Path>(path: P) => figuresOf(api.port, path);
  const closeTo = (value: number | null, expected: number | undefined) => {
    if (expected === undefined || !Number.isFinite(expected)) expect(value).toBeNull();
    else expect(Math.abs(value! - expected)).toBeLessThanOrEqual(1e-6 * (1 + Math.abs(expected)));
  };
  /** A scrape that was under way may have become part of that second since: then once more. */
  const again = async (check: () => Promise<void>) => {
    for (let attempt = 1; attempt < 5; attempt++) {
      const failed = await check().then(
        () => false,
        () => true,
      );
      if (!failed) return;
    }
    await check();
  };

  beforeAll(async () => {
    const port = await freePort();
    other = await startService();
    api = await startService({ prometheusUrl: addressOf(port), capacityRps: 100 }, { keepFigures: 0 });
    prometheus = await startPrometheus({ port, api: [api.port, other.port], environment: 'test', rules, past: past() });
    // Counters have to be seen before they rise.
    for (let second = 0; second < 4; second++) {
      for (const service of [api, other]) {
        for (let request = 0; request < 20; request++)
          await service.ask('GET', request % 5 === 0 ? '/nowhere' : '/api/loans');
        await service.post(LOAN);
      }
      await new Promise((done) => setTimeout(done, 1_000));
    }
  });
  afterAll(async () => {
    await prometheus.stop();
    await Promise.all([api.stop(), other.stop()]);
  });

  it('every answer is as it is described, and from Prometheus', async () => {
    await expectSource(api.port, 'prometheus');
  });

  it('the figures of /sre/dashboard are those of Prometheus at that time', async () => {
    const all = expressions('test');
    await again(async () => {
      const { traffic, resources, as_of } = await get('/sre/dashboard');
      const at = Date.parse(as_of) / 1_000;
      const valueOf = async (expression: string) => (await prometheus.query(expression, at))[0]?.value;
      expect(traffic.requests_per_second).toBeGreaterThan(0);
      for (const [figure, name] of [
        ...[
          ['requests_per_second', 'requests'],
          ['error_ratio', 'errors'],
          ['p50_seconds', 'p50'],
        ],
        ...[
          ['p95_seconds', 'p95'],
          ['p99_seconds', 'p99'],
          ['in_flight', 'inFlight'],
        ],
      ] as [keyof typeof traffic, keyof typeof all][]) {
        closeTo(traffic[figure], await valueOf(all[name]));
      }
      for (const [figure, name] of [
        ...[
          ['containers_answering', 'answering'],
          ['containers_known', 'known'],
          ['cpu_cores', 'cpu'],
        ],
        ...[
          ['memory_bytes', 'memory'],
          ['event_loop_lag_p99_seconds', 'lag'],
        ],
        ...[
          ['database_connections', 'connections'],
          ['database_waiting', 'waiting'],
        ],
      ] as [keyof typeof resources, keyof typeof all][]) {
        closeTo(resources[figure], await valueOf(all[name]));
      }
      expect(resources).toMatchObject({ containers_answering: 2, containers_known: 2, database_connections_limit: 18 });
    });
  });

  it('of both containers together, and by route', async () => {
    const { recent } = await get('/sre/dashboard');
    expect([recent!.requests_per_second.length, recent!.step_seconds]).toEqual([61, 60]);
    const { routes, database } = await get('/sre/metrics');
    const loans = routes.find(({ method, route }) => method === 'GET' && route === '/api/loans');
    expect(loans!.requests_per_second).toBeGreaterThan(0);
    expect(loans!.error_ratio).toBe(0);
    const refused = routes.find(({ method, route }) => method === 'any' && route === 'unmatched');
    expect(refused!.requests_per_second).toBeGreaterThan(0);
    expect(routes.map(({ route }) => route)).not.toContain('refused');
    expect(database.map(({ operation }) => operation)).toContain('loan_insert');
  });

  it('objectives come from recorded series, and directly where none are recorded', async () => {
    await until(async () => (await get('/sre/dashboard')).objectives[1]!.measured_by === 'recorded');
    const { objectives, as_of } = await get('/sre/dashboard');
    expect(objectives[1]).toMatchObject({
      ...{ name: 'success', objective: 0.98, window_days: 30, measured: 0.995, error_budget_remaining: 0.75 },
      ...{ burn_rate: 2, measured_by: 'recorded' },
    });
    expect(objectives[1]!.budget_gone_in_hours).toBeCloseTo((0.75 * 720) / 2, 6);
    const at = Date.parse(as_of) / 1_000;
    for (const [index, name] of [
      [0, 'availability'],
      [2, 'latency'],
    ] as const) {
      expect(objectives[index]).toMatchObject({ name, measured_by: 'direct', window_days: 1 });
      const [bad] = await prometheus.query(directExpressions('test')[name]('1d'), at);
      expect(objectives[index]!.measured).toBeCloseTo(1 - bad!.value, 2);
    }
  });

  it('alerts are those of this environment, the firing ones first, the watchdog apart', async () => {
    await until(async () => (await get('/sre/alerts')).alerts.length === 2);
    const { alerts, watchdog, firing, pending } = await get('/sre/alerts');
    expect([watchdog, firing, pending]).toEqual([true, 1, 1]);
    expect(alerts).toMatchObject([
      {
        ...{ name: 'LoansTooFew', severity: 'warning', state: 'firing', summary: 'Too few' },
        ...{ description: 'Far too few', runbook_url: 'https://example.org/LoansTooFew.md' },
      },
      { name: 'NotYet', severity: 'critical', state: 'pending' },
    ]);
    expect(await get('/sre/dashboard')).toMatchObject({ status: 'attention', reasons: ['LoansTooFew: Too few'] });
  });

  it('the growth of each disk is found, and when it is full', async () => {
    const { resources, containers, recommendation } = await get('/sre/capacity');
    const [requests, , , , disk, own] = resources;
    expect(containers).toBe(2);
    expect(disk).toMatchObject({ name: 'disk', limit: 1e12, growth: { method: 'theil-sen', confidence: 0.95 } });
    expect(disk!.growth!.per_day / 1e10).toBeCloseTo(1, 1);
    const left = 30 - (Date.now() / 1_000 - MIDNIGHT) / DAY;
    expect(Math.abs(disk!.days_until_limit! - left)).toBeLessThan(2);
    expect(own).toMatchObject({ name: 'database_disk', limit: 2e11 });
    expect(Math.abs(own!.days_until_limit! - (left - 14))).toBeLessThan(1);
    expect(requests).toMatchObject({ limit: 200, note: expect.stringContaining('too short') });
    expect(['keep', 'add', 'remove']).toContain(recommendation.action);
  });

  it('the past is told by day and by hour, what is not known as not known, what went wrong in plain words', async () => {
    const history = await get('/api/status/history');
    const day = (before: number) => history.days.at(-1 - before)!;
    expect(day(0).from).toBe(new Date(MIDNIGHT * 1_000).toISOString());
    for (const before of [2, 5, 6]) expect(day(before)).toMatchObject({ availability: 1 });
    expect(day(4).availability).toBeCloseTo(1 - 36 / 1_440, 2);
    // Prometheus remembers a sample for five minutes.
    expect(day(3).known).toBeLessThan(0.01);
    expect(day(1).known).toBeCloseTo(20 / 24, 1);
    expect(day(20)).toEqual({ from: expect.anything(), availability: null, known: 0 });
    expect(history.incidents).toEqual([
      { what: 'The service could not be reached', from: expect.anything(), to: expect.anything() },
      { what: 'Loans could not be read or changed', from: expect.anything(), to: expect.anything() },
    ]);
    const { from, to } = history.incidents[0]!;
    expect(Math.abs(Date.parse(from) / 1_000 - (MIDNIGHT - 4 * DAY + 10 * HOUR))).toBeLessThan(300);
    expect((Date.parse(to!) - Date.parse(from)) / 60_000).toBeGreaterThan(30);
    const page = (await api.ask('GET', '/status')).text;
    expect(page).toContain('<li>The service could not be reached: ');
    expect(page).toContain('>no data</td>');
    expect(JSON.stringify(history) + page).not.toContain('secret-host');
  });

  it('killed, it is missed by nobody: the same questions, answered by the process', async () => {
    await prometheus.kill();
    const answers = await expectSource(api.port, 'process');
    expect(answers['/sre/dashboard']!.json().note).toBe('Prometheus does not answer.');
    expect((await api.ask('GET', '/api/loans')).status).toBe(200);
  });
});
