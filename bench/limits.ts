import type { DataSet } from './data';
import { type Image, withLimitedApi } from './docker';
import { keepRate, saturate } from './load';
import { median, quantile } from '../infra/load/quantile';
import type { Stage } from './stage';
import { mixedRequests } from './workloads';

/** Latency under the limits of development, at a constant rate well below what the service can do at most. */
export interface LimitsRun {
  readonly trials: readonly Trial[];
  readonly p95Ms: number;
  readonly failures: readonly string[];
}

export interface Trial {
  /** Requests per second, in a closed loop. */
  readonly saturation: number;
  readonly rate: number;
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
}

export const SHARE = 0.7;
export const BOUND_MS = 200;
const TRIALS = 3;
const CONNECTIONS = 64;

/** Each trial finds its own saturation first: what the machine gives changes from minute to minute. */
export async function measureLimits(image: Image, stage: Stage, data: DataSet, seconds: number): Promise<LimitsRun> {
  return withLimitedApi(image, stage, data, async (port) => {
    const next = mixedRequests(data.rows);
    await saturate(port, next, { connections: CONNECTIONS, seconds: 5 });
    const trials: Trial[] = [];
    const failures = new Set<string>();
    for (let trial = 0; trial < TRIALS; trial++) {
      const most = await saturate(port, next, { connections: CONNECTIONS, seconds: 5 });
      const saturation = most.requests / most.seconds;
      const rate = saturation * SHARE;
      const steady = await keepRate(port, next, { rate, seconds, connections: 4 * CONNECTIONS });
      for (const words of [...most.failures.keys(), ...steady.failures.keys()]) failures.add(words);
      const at = (share: number) => quantile(steady.latenciesMs, share);
      trials.push({ saturation, rate, p50Ms: at(0.5), p95Ms: at(0.95), p99Ms: at(0.99) });
    }
    return { trials, p95Ms: median(trials.map(({ p95Ms }) => p95Ms)), failures: [...failures] };
  });
}
