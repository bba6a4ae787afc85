import type { Logger } from '../telemetry/logger';
import { type Metrics, sqlstateClass } from '../telemetry/metrics';
import { requestFields } from '../telemetry/requests';
import { codeOf } from './faults';

/** What became of one statement. */
export interface QueryLog {
  /** @param operation name of the statement */
  done(operation: string, milliseconds: number): void;
  failed(operation: string, milliseconds: number, error: unknown): void;
}

/**
 * Part of the day's work, and not a fault of the database: a constraint or a value that it refused (22, 23), and a race
 * that is run again (40). Whoever asked is told, or tries again.
 */
const EXPECTED = /^(22|23|40)...$/;

/**
 * Counts and times all statements, and writes a line for those that failed or took `slowMs` milliseconds or longer: what,
 * how long, for which requests, and SQLSTATE. Never text, values or the database's message, which may repeat values.
 */
export function createQueryLog(
  { metrics, logger }: { readonly metrics: Metrics; readonly logger: Logger },
  slowMs: number,
): QueryLog {
  const observe = (operation: string, milliseconds: number): boolean => {
    const slow = milliseconds >= slowMs;
    metrics.observeQuery(operation, milliseconds / 1_000, slow);
    return slow;
  };
  const fields = (operation: string, milliseconds: number) => {
    return { ...requestFields(), operation, duration_ms: Math.round(milliseconds * 1_000) / 1_000 };
  };
  return {
    done(operation, milliseconds) {
      if (observe(operation, milliseconds)) logger.log('warn', 'slow query', fields(operation, milliseconds));
    },
    failed(operation, milliseconds, error) {
      const code = codeOf(error);
      const slow = observe(operation, milliseconds);
      metrics.dbQueryErrors.inc({ sqlstate_class: sqlstateClass(code) });
      const level = EXPECTED.test(code ?? '') && !slow ? 'info' : 'warn';
      logger.log(level, 'query failed', { ...fields(operation, milliseconds), code });
    },
  };
}
