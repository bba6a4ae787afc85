import { setTimeout as sleep } from 'node:timers/promises';
import { CircuitState, ConsecutiveBreaker, circuitBreaker, handleWhen } from 'cockatiel';
import { Problem } from '../errors';
import type { Logger } from '../telemetry/logger';
import type { Metrics } from '../telemetry/metrics';
import { onBehalfOf } from '../telemetry/requests';
import { isAway, unavailable } from './faults';

export const BREAKER = {
  /**
   * Failures in a row, in one process, after which the database counts as away. Each may be that of many requests,
   * since they share statements.
   */
  failures: 3,
  /** How often it is asked then; the first time at once. */
  askEveryMs: 250,
} as const;

interface Parts {
  /** Asks the database, in bounded time, over a connection of its own. */
  readonly ask: () => Promise<unknown>;
  readonly metrics: Metrics;
  readonly logger: Logger;
}

export interface Breaker {
  /**
   * Does the work, unless the database is known to be away.
   * @throws a Problem `db-unavailable`, at once, while it is
   */
  guard<T>(work: () => Promise<T>): Promise<T>;
  /** Asks no more. */
  close(): void;
}

class Away extends Error {}

/**
 * A circuit breaker. Without it every request waits for the timeouts of a database that will not answer, and takes a
 * connection from one that is coming back. What opens it is a database that cannot be reached or does not answer;
 * what the database itself refuses shows that it is there, and is neither a failure nor a success.
 *
 * No request is spent on finding out whether the database is back: that is asked for apart, so that nobody waits.
 */
export function createBreaker({ ask, metrics, logger }: Parts): Breaker {
  const policy = circuitBreaker(
    handleWhen((error) => error instanceof Away || (error instanceof Problem && isAway(error.cause))),
    // The library goes by the clock of the day, which may be set back. When to ask is for the loop below to say.
    { breaker: new ConsecutiveBreaker(BREAKER.failures), halfOpenAfter: -Infinity },
  );
  const asking = new AbortController();
  metrics.watchCircuit(() => policy.state !== CircuitState.Closed);

  let watching = false;
  const askUntilBack = async () => {
    watching = true;
    const openedAt = performance.now();
    logger.log('warn', 'database circuit opened', { failures: BREAKER.failures });
    while (policy.state !== CircuitState.Closed) {
      await policy
        .execute(test)
        .catch(() => sleep(BREAKER.askEveryMs, undefined, { signal: asking.signal, ref: false }));
    }
    watching = false;
    logger.log('info', 'database circuit closed', { open_ms: Math.round(performance.now() - openedAt) });
  };
  const test = () =>
    ask().catch((cause: unknown) => {
      throw new Away('The database does not answer', { cause });
    });
  policy.onBreak(() => {
    // Also when the test fails. It ends with an error when it is to ask no more. It is for all, not for the request that
    // failed last.
    if (!watching) onBehalfOf([], () => void askUntilBack().catch(() => undefined));
  });

  return {
    async guard(work) {
      if (policy.state === CircuitState.Closed) return policy.execute(work);
      metrics.requestsShed.inc({ reason: 'circuit_open' });
      throw unavailable('db-unavailable');
    },
    close: () => asking.abort(),
  };
}
