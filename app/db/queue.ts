import type { Metrics } from '../telemetry/metrics';
import { unavailable } from './faults';

/** What is queued for: connections, or turns of another kind. */
export interface Places {
  readonly count: number;
  isFree(): boolean;
  /** How many are before the one that asks, where none is free. */
  waiting(): number;
}

export interface Queue {
  /**
   * Before a place is asked for.
   * @throws a Problem `overloaded`, at once, where that would take longer than the limit
   */
  enter(): void;
  /** With the place in hand. @returns to be called when it is given back */
  served(): () => void;
}

/**
 * Keeps a queue as short as what it is for is quick: a request that would wait for too long is refused while
 * it has cost nothing. How long it would wait is how many wait before it, times the interval at which places come free;
 * and at least as long as none has come free by now, for where all are stuck there is nothing to average.
 *
 * @param limitMs longest wait; 0 for no limit
 */
export function createQueue(places: Places, limitMs: number, metrics: Metrics): Queue {
  /** Of the newest value in the average: one round of all places makes up most of it. */
  const weight = 1 / (places.count + 1);
  let lastServedAt = 0;
  /** For how long a place is held. */
  let averageMs = 0;
  return {
    enter() {
      const now = performance.now();
      if (places.isFree()) {
        lastServedAt = now;
        return;
      }
      const waitMs = ((places.waiting() + 1) * averageMs) / places.count;
      if (limitMs > 0 && Math.max(waitMs, now - lastServedAt) > limitMs) {
        metrics.requestsShed.inc({ reason: 'queue' });
        throw unavailable('overloaded');
      }
    },
    served() {
      const since = performance.now();
      lastServedAt = since;
      return () => {
        averageMs += (performance.now() - since - averageMs) * weight;
      };
    },
  };
}
