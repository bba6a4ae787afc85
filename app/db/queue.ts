import type { Problem } from '../errors';
import type { Metrics } from '../telemetry/metrics';
import { unavailable } from './faults';

export interface PoolState {
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
}

export interface Queue {
  /**
   * Before a connection is asked for.
   * @throws a Problem `overloaded`, at once, where that would take longer than the limit
   */
  enter(): void;
  /** When it would be served. @returns whether it waited longer than the limit, and was refused for that */
  refuseLate(askedAt: number, refuse: (problem: Problem) => void): boolean;
  /** With the connection in hand. @returns to be called when it is given back */
  served(): () => void;
}

/** How much of the average is the newest value. */
const WEIGHT = 1 / 4;

/**
 * Keeps the queue before a pool as short as the pool is quick: a request that would wait for too long is refused while
 * it has cost nothing. How long it would wait is how many wait before it, times the interval at which connections come
 * free; and at least as long as none has come free by now, for where all are stuck there is nothing to average.
 *
 * @param size of the pool
 * @param limitMs longest wait; 0 for no limit
 */
export function createQueue(pool: PoolState, size: number, limitMs: number, metrics: Metrics): Queue {
  let lastServedAt = 0;
  /** For how long a connection is held. */
  let averageMs = 0;
  return {
    enter() {
      const now = performance.now();
      if (pool.totalCount < size || pool.idleCount > pool.waitingCount) {
        lastServedAt = now;
        return;
      }
      const waitMs = ((pool.waitingCount + 1) * averageMs) / size;
      if (limitMs > 0 && Math.max(waitMs, now - lastServedAt) > limitMs) {
        metrics.requestsShed.inc({ reason: 'queue' });
        throw unavailable('overloaded');
      }
    },
    refuseLate(askedAt, refuse) {
      if (limitMs === 0 || performance.now() - askedAt <= limitMs) return false;
      metrics.requestsShed.inc({ reason: 'queue' });
      refuse(unavailable('overloaded'));
      return true;
    },
    served() {
      const since = performance.now();
      lastServedAt = since;
      return () => {
        averageMs += (performance.now() - since - averageMs) * WEIGHT;
      };
    },
  };
}
