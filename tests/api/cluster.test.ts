import { readFile } from 'node:fs/promises';
import { Agent } from 'node:http';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { ask, LOAN, until } from './harness';
import { environmentOf, type RunningProcess, serve } from './process';

let database: TestDatabase;
let service: RunningProcess;
beforeAll(async () => {
  database = await createDatabase();
  service = await serve({
    ...environmentOf(database.connection),
    PROCESSES: '2',
    LOG_LEVEL: 'debug',
    // Nobody is there, which is to harm nothing.
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
    OTEL_TRACES_SAMPLER: 'parentbased_always_off',
  });
});
afterAll(async () => {
  const { code } = await service.end('SIGTERM');
  await database.drop();
  expect(code).toBe(0);
});

/** One connection each, so that the requests spread over the workers. */
const fresh = () => ({ agent: new Agent({ maxSockets: 1 }) });
const post = () =>
  ask(service.port, 'POST', '/api/loans', {
    ...fresh(),
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(LOAN),
  });
const metrics = async () => (await ask(service.port, 'GET', '/metrics', fresh())).text;
const created = (text: string) => Number(/^loans_created_total\{currency="KES"\} (\d+)$/m.exec(text)?.[1]);
/** A gauge that is the same in every process: its sum tells of how many. */
const descriptors = (text: string) => Number(/^process_max_fds (\d+)$/m.exec(text)?.[1]);
const started = (text: string) => Number(/^process_start_time_seconds (\d+)$/m.exec(text)?.[1]);
const listening = () => service.logs().filter(({ message }) => message === 'listening').length;

it('adds the metrics of all workers up, whichever is asked', async () => {
  await until(() => listening() === 2);
  for (let n = 0; n < 10; n++) expect((await post()).status).toBe(201);
  const texts = [await metrics(), await metrics(), await metrics(), await metrics()];
  expect(texts.map(created)).toEqual([10, 10, 10, 10]);
  expect(texts[0]).toMatch(
    /http_request_duration_seconds_count\{method="POST",route="\/api\/loans",status_code="201"\} 10/,
  );
  expect(texts[0]).toContain('app_info{version="0.0.0",commit="unknown",environment="development",release=""} 1');
});

it('finds the exemplars of all workers, whichever is asked', async () => {
  const headers = { traceparent: `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01` };
  await ask(service.port, 'GET', '/api/stats', { ...fresh(), headers });
  for (let turn = 0; turn < 4; turn++) {
    const accept = { accept: 'application/openmetrics-text' };
    const { text } = await ask(service.port, 'GET', '/metrics', { ...fresh(), headers: accept });
    expect(text).toMatch(/^http_request_duration_seconds_bucket\{.*\} 1 # \{trace_id="(ab){16}"\} /m);
    expect(created(text)).toBe(10);
  }
});

it('replaces workers that die, serves meanwhile, and forgets no count, nor since when it counts', async () => {
  const before = await metrics();
  expect(created(before)).toBe(10);
  expect(Math.abs(started(before) - Date.now() / 1_000)).toBeLessThan(120);
  for (const [place, pid] of (await workerPids(service)).entries()) {
    await metrics();
    process.kill(pid, 'SIGKILL');
    await until(() => listening() === 3 + place);
    expect(service.logs()).toContainEqual(
      expect.objectContaining({ level: 'error', message: 'worker died', pid, signal: 'SIGKILL' }),
    );
  }
  for (let n = 0; n < 6; n++) expect((await post()).status).toBe(201);
  const after = await metrics();
  expect(created(after)).toBe(16);
  expect(started(after)).toBe(started(before));
  expect(descriptors(after)).toBe(descriptors(before)); // A dead worker's counts stay in the sum, its state does not.
});

it('is stopped while a worker still starts: that one ends by itself too', async () => {
  const other = await serve({ ...environmentOf(database.connection), PROCESSES: '2', SHUTDOWN_TIMEOUT_MS: '5000' });
  await until(() => other.logs().filter(({ message }) => message === 'listening').length === 2);
  const before = await workerPids(other);
  process.kill(before[0]!, 'SIGKILL');
  await until(async () => (await workerPids(other)).some((pid) => !before.includes(pid)));
  const startedAt = performance.now();
  const { code, stderr } = await other.end('SIGTERM');
  expect([code, stderr]).toEqual([0, '']);
  expect(performance.now() - startedAt).toBeLessThan(5_000);
});

/** The process ids of those workers that run now. */
async function workerPids({ child }: RunningProcess): Promise<number[]> {
  const children = await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8');
  const pids = children.trim().split(' ').map(Number);
  const environments = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '')));
  return pids.filter((_, index) => environments[index]?.includes('NODE_UNIQUE_ID='));
}
