import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createServer, type Server, type ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONTAINER_METRICS } from '../../infra/ops/exporters';
import { freePort } from '../stack/environment';

/** The exporter of the containers, as it runs in its container, with an engine that is played. */

const PROGRAM = resolve(__dirname, '../../infra/exporters/containers.mjs');
const LABEL = 'org.branchloans.environment=env';

const inspected = (name: string, changes: object = {}) => ({
  Name: `/${name}`,
  RestartCount: 2,
  State: { StartedAt: '2026-11-21T10:00:00.5Z' },
  Config: { Labels: { 'org.branchloans.component': 'api', 'org.branchloans.environment': 'env' } },
  HostConfig: { Memory: 512 * 1024 * 1024, CpuQuota: 50_000, CpuPeriod: 100_000 },
  ...changes,
});
const stats = (changes: object = {}) => ({
  cpu_stats: { cpu_usage: { total_usage: 1_500_000_000 }, throttling_data: { periods: 9, throttled_periods: 4 } },
  memory_stats: { usage: 5000, stats: { total_inactive_file: 1000, inactive_file: 1 } },
  networks: { eth0: { rx_bytes: 10, tx_bytes: 20 }, eth1: { rx_bytes: 1, tx_bytes: 2 } },
  pids_stats: { current: 12 },
  blkio_stats: {
    io_service_bytes_recursive: [
      { major: 8, minor: 0, op: 'read', value: 300 },
      { major: 8, minor: 0, op: 'write', value: 70 },
      { major: 8, minor: 16, op: 'Read', value: 4 },
      { major: 8, minor: 16, op: 'Sync', value: 1000 },
    ],
  },
  ...changes,
});

type Answer = object | number | 'hang';

/** Answers by the path's beginning, and keeps the stream of events open. */
class PlayedEngine {
  readonly asked: string[] = [];
  readonly answers = new Map<string, Answer>();
  /** Whether it lets nobody listen. */
  refusing = false;
  #events: ServerResponse[] = [];
  readonly #server: Server;

  constructor(readonly socket: string) {
    this.#server = createServer((request, response) => {
      const url = decodeURIComponent(request.url ?? '');
      this.asked.push(`${request.method} ${url}`);
      if (url.startsWith('/events')) {
        if (this.refusing) return void response.writeHead(500).end('{"message":"no","id":"a1"}\n');
        response.writeHead(200).flushHeaders();
        this.#events.push(response);
        return;
      }
      const answer = [...this.answers].find(([path]) => url.startsWith(path))?.[1] ?? 404;
      if (answer === 'hang') return;
      if (typeof answer === 'number') response.writeHead(answer).end('{"message":"no"}');
      else response.end(JSON.stringify(answer));
    }).listen(socket);
  }

  set(containers: Readonly<Record<string, readonly [Answer, Answer]>>): void {
    this.answers.clear();
    this.answers.set(
      '/containers/json',
      Object.keys(containers).map((Id) => ({ Id })),
    );
    for (const [id, [json, figures]] of Object.entries(containers)) {
      this.answers.set(`/containers/${id}/json`, typeof json === 'object' ? { Id: id, ...json } : json);
      this.answers.set(`/containers/${id}/stats`, figures);
    }
  }

  oom(id: string): void {
    for (const stream of this.#events) stream.write(`${JSON.stringify({ id, status: 'oom' })}\n`);
  }

  say(text: string): void {
    for (const stream of this.#events) stream.write(text);
  }

  get listeners(): number {
    return this.#events.length;
  }

  forgetListeners(): void {
    for (const stream of this.#events.splice(0)) stream.destroy();
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

let directory: string;
let engine: PlayedEngine;
let exporter: ChildProcess;
let base: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'containers-'));
  engine = new PlayedEngine(join(directory, 'engine.sock'));
  // As in its container: by a link.
  const program = join(directory, 'containers.mjs');
  symlinkSync(PROGRAM, program);
  const port = await freePort();
  base = `http://127.0.0.1:${port}`;
  exporter = spawn(process.execPath, [program, engine.socket, LABEL, String(port)], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  for (let attempt = 0; attempt < 100; attempt += 1) {
    if ((await fetch(`${base}/health`).catch(() => undefined))?.ok) return;
    await sleep(100);
  }
  throw new Error('the exporter does not answer');
}, 30_000);
afterAll(() => {
  exporter.kill('SIGKILL');
  engine.close();
  rmSync(directory, { recursive: true, force: true });
});

/** Samples: `name{labels}` -> value. */
async function scrape(): Promise<Record<string, number>> {
  const response = await fetch(`${base}/metrics`, { signal: AbortSignal.timeout(8_000) });
  expect(response.status).toBe(200);
  const lines = (await response.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return Object.fromEntries(lines.map((line) => [line.replace(/ \S+$/, ''), Number(line.replace(/^.* /, ''))]));
}

test('tells of each container what it uses and what it may use, under the names of the seam', async () => {
  engine.set({ a1: [inspected('env-api-1'), stats()] });
  const labels = 'name="env-api-1",component="api"';
  expect(await scrape()).toEqual({
    [`${CONTAINER_METRICS.cpuSeconds}{${labels}}`]: 1.5,
    [`${CONTAINER_METRICS.cpuQuota}{${labels}}`]: 50_000,
    [`${CONTAINER_METRICS.cpuPeriod}{${labels}}`]: 100_000,
    [`${CONTAINER_METRICS.periods}{${labels}}`]: 9,
    [`${CONTAINER_METRICS.throttledPeriods}{${labels}}`]: 4,
    [`${CONTAINER_METRICS.workingSet}{${labels}}`]: 4000,
    [`${CONTAINER_METRICS.memoryLimit}{${labels}}`]: 512 * 1024 * 1024,
    [`${CONTAINER_METRICS.oomEvents}{${labels}}`]: 0,
    [`${CONTAINER_METRICS.networkReceived}{${labels},interface="eth0"}`]: 10,
    [`${CONTAINER_METRICS.networkReceived}{${labels},interface="eth1"}`]: 1,
    [`${CONTAINER_METRICS.networkSent}{${labels},interface="eth0"}`]: 20,
    [`${CONTAINER_METRICS.networkSent}{${labels},interface="eth1"}`]: 2,
    [`${CONTAINER_METRICS.diskRead}{${labels}}`]: 304,
    [`${CONTAINER_METRICS.diskWritten}{${labels}}`]: 70,
    [`${CONTAINER_METRICS.threads}{${labels}}`]: 12,
    [`${CONTAINER_METRICS.startTime}{${labels},id="a1"}`]: Date.UTC(2026, 10, 21, 10) / 1000 + 0.5,
    [`${CONTAINER_METRICS.restarts}{${labels}}`]: 2,
  });
  expect(engine.asked).toContain(
    `GET /containers/json?filters=${JSON.stringify({ label: [LABEL], status: ['running', 'restarting'] })}`,
  );
});

test('tells of a container that waits for its next start how often it started, and of no use', async () => {
  const waiting = { StartedAt: '2026-11-21T10:00:00Z', Restarting: true };
  const nothing = stats({ cpu_stats: { cpu_usage: { total_usage: 0 } }, memory_stats: {}, networks: undefined });
  const id = '97fff87d0c6e'.padEnd(64, '0');
  engine.set({ [id]: [inspected('env-api-1', { RestartCount: 5, State: waiting }), nothing] });
  const labels = 'name="env-api-1",component="api"';
  const seen = await scrape();
  expect(seen).toMatchObject({
    [`${CONTAINER_METRICS.startTime}{${labels},id="97fff87d0c6e"}`]: Date.UTC(2026, 10, 21, 10) / 1000,
    [`${CONTAINER_METRICS.restarts}{${labels}}`]: 5,
    [`${CONTAINER_METRICS.oomEvents}{${labels}}`]: 0,
  });
  const used = [CONTAINER_METRICS.cpuSeconds, CONTAINER_METRICS.workingSet, CONTAINER_METRICS.networkSent];
  expect(Object.keys(seen).filter((series) => used.some((name) => series.startsWith(name)))).toEqual([]);
});

test('reads memory of cgroup v2, and a container without network, disk or limits', async () => {
  const host = { Memory: 1, CpuQuota: 0, CpuPeriod: 0 };
  const second = {
    cpu_stats: { cpu_usage: { total_usage: 0 } },
    memory_stats: { usage: 90, stats: { inactive_file: 40 } },
    blkio_stats: { io_service_bytes_recursive: null },
  };
  engine.set({ b2: [inspected('env-x', { HostConfig: host }), second] });
  const samples = await scrape();
  expect(samples[`${CONTAINER_METRICS.workingSet}{name="env-x",component="api"}`]).toBe(50);
  expect(samples[`${CONTAINER_METRICS.periods}{name="env-x",component="api"}`]).toBe(0);
  for (const name of [CONTAINER_METRICS.diskRead, CONTAINER_METRICS.threads])
    expect([name, samples[`${name}{name="env-x",component="api"}`]]).toEqual([name, 0]);
  expect(Object.keys(samples).filter((name) => name.includes('network'))).toEqual([]);
});

test.each<[string, readonly [Answer, Answer]]>([
  ['is gone before it is inspected', [404, 404]],
  ['is being removed', [inspected('env-b'), 409]],
  [
    'stops while it is measured',
    [inspected('env-b'), { cpu_stats: { cpu_usage: { total_usage: 0 } }, memory_stats: {} }],
  ],
])('leaves out a container that %s', async (_, answers) => {
  engine.set({ a1: [inspected('env-a'), stats()], b2: answers });
  const names = Object.keys(await scrape()).map((sample) => /name="([^"]*)"/.exec(sample)?.[1]);
  expect([...new Set(names)]).toEqual(['env-a']);
});

test('counts what the kernel ended for want of memory, over a connection that breaks', async () => {
  engine.set({ a1: [inspected('env-a'), stats()] });
  const count = async () => (await scrape())[`${CONTAINER_METRICS.oomEvents}{name="env-a",component="api"}`];
  const before = (await count())!;
  engine.oom('a1');
  engine.oom('another');
  await eventually(async () => (await count()) === before + 1);
  const listening = () => engine.asked.filter((path) => path.startsWith('GET /events')).length;
  const connected = listening();
  engine.forgetListeners();
  await eventually(() => Promise.resolve(listening() > connected));
  engine.oom('a1');
  await eventually(async () => (await count()) === before + 2);
  expect(engine.asked.find((path) => path.includes('/events'))).toContain('"event":["oom"]');
});

test('counts no half of an event and no refusal, and listens once', async () => {
  engine.set({ a1: [inspected('env-a'), stats()] });
  const count = async () => (await scrape())[`${CONTAINER_METRICS.oomEvents}{name="env-a",component="api"}`];
  const before = (await count())!;
  const listening = () => engine.asked.filter((path) => path.startsWith('GET /events')).length;
  engine.say('{"id":"a1"\n');
  await sleep(100);
  const connected = listening();
  engine.refusing = true;
  engine.forgetListeners();
  await eventually(() => Promise.resolve(listening() > connected));
  engine.refusing = false;
  await eventually(() => Promise.resolve(engine.listeners > 0));
  // As long as a second listener would take to come.
  await sleep(1_500);
  expect(engine.listeners).toBe(1);
  engine.oom('a1');
  await eventually(async () => (await count()) !== before);
  expect(await count()).toBe(before + 1);
}, 20_000);

test.each<[string, Answer]>([
  ['fails', 500],
  ['hangs', 'hang'],
])(
  'is a target that is down while the engine %s, and comes back',
  async (_, answer) => {
    engine.answers.clear();
    engine.answers.set('/containers/json', answer);
    expect((await fetch(`${base}/metrics`)).status).toBe(503);
    engine.set({ a1: [inspected('env-a'), stats()] });
    expect(Object.keys(await scrape()).length).toBeGreaterThan(0);
  },
  20_000,
);

test('asks the engine nothing but to read, whatever it is asked for', async () => {
  engine.set({});
  for (const path of ['/metrics/../containers', '/containers/a1/kill', '/metrics?x=/events']) {
    expect((await fetch(base + path, { method: 'POST' })).status).toBe(404);
  }
  expect(engine.asked.filter((path) => !/^GET \/(containers\/|events\?)/.test(path))).toEqual([]);
});

test('ends when it is told to', async () => {
  exporter.kill('SIGTERM');
  const [code] = (await once(exporter, 'exit')) as [number];
  expect(code).toBe(0);
});

async function eventually(condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error('it did not come');
    await sleep(50);
  }
}
