import cluster, { type Worker } from 'node:cluster';
import { setTimeout as sleep } from 'node:timers/promises';
import { AggregatorRegistry, type Registry } from 'prom-client';
import { Problem } from './errors';
import { expose, type Exposition, type Measurements, PROCESS_START } from './telemetry/exposition';
import type { Logger } from './telemetry/logger';

/**
 * Several processes that serve one port. The primary only starts workers, replaces those that die, passes a shutdown
 * on, and adds up their metrics, so that a scrape that reaches any of them tells of all.
 */
type Message =
  /** A worker's first: what it was told before was lost. */
  | { readonly kind: 'hears' }
  | { readonly kind: 'stop' }
  | { readonly kind: 'your-metrics'; readonly id: number }
  | { readonly kind: 'my-metrics'; readonly id: number; readonly metrics: Measurements }
  | { readonly kind: 'all-metrics'; readonly id: number; readonly format: Exposition }
  | { readonly kind: 'sum'; readonly id: number; readonly text: string };

/** The metrics of the whole service. */
export type MetricsText = (format: Exposition) => Promise<string>;

const ANSWER_TIMEOUT_MS = 1_000;
const SUM_TIMEOUT_MS = 2_000;
const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 5_000;
/** A worker that lived this long did not die of its start. */
const STABLE_MS = 10_000;

/** Whether this process is one of the workers. */
export const isWorker = (): boolean => cluster.isWorker;

export interface Primary {
  /** Resolves when all workers are gone: true if every one of them ended by itself and well. */
  stop(timeoutMs: number): Promise<boolean>;
  /** Rejects when the workers can't start at all. */
  readonly failed: Promise<never>;
}

/**
 * Starts the workers, and keeps that many of them alive until it is stopped.
 * @param container see expose()
 */
export function runPrimary(count: number, logger: Logger, container?: Promise<string | undefined>): Primary {
  const collector = collectMetrics(container);
  let stopping = false;
  let everListened = false;
  let backoffMs = FIRST_BACKOFF_MS;
  let fail: (error: Error) => void;
  const failed = new Promise<never>((_resolve, reject) => (fail = reject));
  failed.catch(() => undefined); // Heard by whoever waits for it.

  const spawn = () => {
    const startedAt = performance.now();
    const worker = cluster.fork();
    worker.once('listening', () => (everListened = true));
    worker.on('message', (message: Message) => {
      if (message.kind === 'hears' && stopping) tell(worker, { kind: 'stop' });
      void collector.hear(worker, message);
    });
    worker.once('exit', (code, signal) => {
      collector.retire(worker);
      if (stopping) return;
      logger.log('error', 'worker died', { pid: worker.process.pid, code, signal });
      if (!everListened) {
        fail(new Error('The workers cannot start; their own message says why.'));
        return;
      }
      backoffMs =
        performance.now() - startedAt > STABLE_MS ? FIRST_BACKOFF_MS : Math.min(backoffMs * 2, MAX_BACKOFF_MS);
      setTimeout(() => (stopping ? undefined : spawn()), backoffMs);
    });
  };
  for (let started = 0; started < count; started++) spawn();

  return {
    failed,
    async stop(timeoutMs) {
      stopping = true;
      const workers = liveWorkers();
      const codes = await Promise.all(workers.map((worker) => stopWorker(worker, timeoutMs)));
      return codes.every((code) => code === 0);
    },
  };
}

async function stopWorker(worker: Worker, timeoutMs: number): Promise<number | null> {
  const exited = new Promise<number | null>((resolve) => worker.once('exit', (code) => resolve(code)));
  tell(worker, { kind: 'stop' });
  const patience = new AbortController();
  sleep(timeoutMs, undefined, { signal: patience.signal }).then(
    () => worker.process.kill('SIGKILL'),
    () => undefined,
  );
  const code = await exited;
  patience.abort();
  return code;
}

/**
 * The primary's side of the metrics. A worker that does not answer in time counts with its last answer, and the
 * counters of one that died stay in the sum: a sum that falls looks like a restart of everything.
 */
export function collectMetrics(container?: Promise<string | undefined>) {
  const last = new Map<number, Measurements>();
  const waiting = new Map<number, { missing: Set<number>; done: () => void }>();
  /** One after the other: two that die at once must not both add to the same sum. */
  let retired: Promise<Measurements> = Promise.resolve([]);
  let lastId = 0;

  const askAll = async (): Promise<void> => {
    const workers = liveWorkers();
    const id = ++lastId;
    const patience = new AbortController();
    const late = sleep(ANSWER_TIMEOUT_MS, undefined, { signal: patience.signal }).catch(() => undefined);
    const answered = new Promise<void>((done) => {
      waiting.set(id, { missing: new Set(workers.map((worker) => worker.id)), done });
      for (const worker of workers) tell(worker, { kind: 'your-metrics', id });
    });
    await Promise.race([answered, late]);
    patience.abort();
    waiting.delete(id);
  };

  return {
    async hear(worker: Worker, message: Message): Promise<void> {
      if (message.kind === 'my-metrics') {
        last.set(worker.id, message.metrics);
        const round = waiting.get(message.id);
        round?.missing.delete(worker.id);
        if (round?.missing.size === 0) round.done();
      } else if (message.kind === 'all-metrics') {
        await askAll();
        const dead = await retired;
        const text = await expose([...last.values(), dead], message.format, await container);
        tell(worker, { kind: 'sum', id: message.id, text });
      }
    },
    retire(worker: Worker): void {
      const gone = last.get(worker.id);
      last.delete(worker.id);
      if (gone === undefined) return;
      const kept = gone.filter(
        ({ type, name }) => /^(counter|histogram)$/.test(String(type)) || name === PROCESS_START,
      );
      retired = retired.then((sum) => AggregatorRegistry.aggregate([sum, kept]).getMetricsAsJSON());
    },
  };
}

function liveWorkers(): Worker[] {
  return Object.values(cluster.workers ?? {}).filter((worker): worker is Worker => worker?.isDead() === false);
}

/** A worker's side: hears of the shutdown, tells its own metrics, and can ask for those of all. */
export function joinCluster(registry: Registry, onStop: () => void): { metricsText: MetricsText } {
  const worker = cluster.worker;
  if (worker === undefined) throw new Error('joinCluster() is for workers');
  const asked = new Map<number, (text: string) => void>();
  let lastId = 0;
  worker.on('message', (message: Message) => {
    if (message.kind === 'stop') onStop();
    if (message.kind === 'sum') asked.get(message.id)?.(message.text);
    if (message.kind === 'your-metrics') {
      void registry.getMetricsAsJSON().then((metrics) => tell(worker, { kind: 'my-metrics', id: message.id, metrics }));
    }
  });
  tell(worker, { kind: 'hears' });
  return {
    async metricsText(format) {
      const id = ++lastId;
      const patience = new AbortController();
      const sum = new Promise<string>((resolve) => asked.set(id, resolve));
      tell(worker, { kind: 'all-metrics', id, format });
      const late = sleep(SUM_TIMEOUT_MS, undefined, { signal: patience.signal }).catch(() => undefined);
      const text = await Promise.race([sum, late]);
      patience.abort();
      asked.delete(id);
      if (text === undefined) throw new Problem('metrics-unavailable', 'The primary process did not answer.');
      return text;
    },
  };
}

/** Lets a worker that has stopped end by itself. */
export function leaveCluster(): void {
  cluster.worker?.disconnect();
}

function tell(worker: Worker, message: Message): void {
  if (worker.isConnected()) worker.send(message);
}
