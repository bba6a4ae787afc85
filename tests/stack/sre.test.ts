import { request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
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
import { expressions } from '../../app/sre/figures';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';

/** /sre/ through the gateway of a real stack, with the figures of its own Prometheus; and without it. */

jest.setTimeout(300_000);

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

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'the pages of operations on a real engine', () => {
  let environment: TestEnvironment;
  let key: string;

  beforeAll(async () => {
    environment = await TestEnvironment.create('development', (settings) => {
      settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), keys: 'required', capacity: 200 };
    });
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    const make = ['api-key', 'create', '--name', 'on-call', '--scopes', 'sre:read'];
    key = docker(['exec', environment.apiContainers()[0]!, 'node', '/app/main.js', ...make]).trim();
  });
  afterAll(() => environment.remove());

  const get = (path: string, headers: Record<string, string> = {}): Promise<{ status: number; body: string }> =>
    new Promise((done, fail) => {
      const outgoing = request(
        environment.url + path,
        { agent: false, ca: environment.authority, headers, timeout: 20_000 },
        (incoming) => {
          let body = '';
          incoming.setEncoding('utf8').on('data', (text: string) => (body += text));
          incoming.on('end', () => done({ status: incoming.statusCode ?? 0, body }));
        },
      );
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 20 s')));
      outgoing.on('error', fail);
      outgoing.end();
    });
  const figures = async <P extends Path>(path: P): Promise<z.infer<(typeof SCHEMAS)[P]>> => {
    const { status, body } = await get(path, { Authorization: `Bearer ${key}` });
    if (status !== 200) throw new Error(`${path}: ${status} ${body}`);
    return SCHEMAS[path].parse(JSON.parse(body)) as z.infer<(typeof SCHEMAS)[P]>;
  };
  const untilSource = async (source: string, seconds = 90) => {
    const deadline = Date.now() + seconds * 1_000;
    for (;;) {
      const answer = await figures('/sre/dashboard');
      if (answer.source === source) return answer;
      if (Date.now() > deadline) throw new Error(`the source is still ${answer.source}: ${answer.note ?? ''}`);
      await sleep(1_000);
    }
  };
  const askPrometheus = async (query: string, at: number): Promise<number | undefined> => {
    const login = Buffer.from(`admin:${environment.output('prometheusPassword')}`).toString('base64');
    const parameters = new URLSearchParams({ query, time: String(at) });
    const answer = await get(`/prometheus/api/v1/query?${parameters.toString()}`, { Authorization: `Basic ${login}` });
    const { data } = JSON.parse(answer.body) as { data: { result: { value: [number, string] }[] } };
    return data.result[0] && Number(data.result[0].value[1]);
  };

  it('answers with the figures of the stack’s own Prometheus, to who has the scope, and its pages to everybody', async () => {
    for (let second = 0; second < 40; second++) {
      for (let asked = 0; asked < 5; asked++) await get('/api/loans', { Authorization: `Bearer ${environment.key}` });
      await sleep(1_000);
    }
    const dashboard = await untilSource('prometheus');
    expect(dashboard.traffic.requests_per_second).toBeGreaterThan(0);
    const all = expressions('development');
    const at = Date.parse(dashboard.as_of) / 1_000;
    for (const [figure, expression] of [
      [dashboard.traffic.requests_per_second, all.requests],
      [dashboard.traffic.p95_seconds, all.p95],
      [dashboard.resources.containers_answering, all.answering],
      [dashboard.resources.memory_bytes, all.memory],
    ] as [number, string][]) {
      expect(figure).toBeCloseTo((await askPrometheus(expression, at))!, 6);
    }
    for (const path of Object.keys(SCHEMAS) as Path[]) {
      const answer = await figures(path);
      expect([path, answer.source]).toEqual([path, 'prometheus']);
      if (path.startsWith('/sre/')) expect([path, (await get(path)).status]).toEqual([path, 401]);
    }
    const { resources } = await figures('/sre/capacity');
    expect(resources[0]).toMatchObject({ name: 'requests', limit: 200 });
    // It looks at whole minutes, and is kept for one.
    const until = Date.now() + 150_000;
    let history = await figures('/api/status/history');
    while (history.hours.at(-1)?.availability === null && Date.now() < until) {
      await sleep(5_000);
      history = await figures('/api/status/history');
    }
    // Of a day a minute is too little to be told.
    expect(history.hours.at(-1)?.availability).toBeGreaterThan(0);
    expect(history.days.at(-2)?.availability).toBeNull();
    for (const path of ['/sre/dashboard-ui', '/sre/dashboard.js', '/status'])
      expect((await get(path)).status).toBe(200);
  });

  it('goes on without Prometheus, whether it is stopped or silent, and loses no request for it', async () => {
    const prometheus = `${environment.prefix}-prometheus`;
    docker(['pause', prometheus]);
    const silent = await untilSource('process');
    expect(silent.note).toBe('Prometheus does not answer.');
    for (let asked = 0; asked < 50; asked++) {
      expect((await get('/api/loans', { Authorization: `Bearer ${environment.key}` })).status).toBe(200);
    }
    docker(['unpause', prometheus]);
    await untilSource('prometheus');
    // Its name is gone from the network, too.
    docker(['stop', prometheus]);
    await untilSource('process');
    const [, breaker] = (await figures('/sre/circuit-breakers')).circuit_breakers;
    expect(breaker).toMatchObject({ name: 'prometheus', state: 'open' });
    for (const path of ['/status', '/health/ready', '/health-db']) expect((await get(path)).status).toBe(200);
    docker(['start', prometheus]);
    await untilSource('prometheus');
  });

  it('a second up changes nothing', async () => {
    expect(await environment.changes()).toBe('');
  });
});
