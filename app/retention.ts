import type { Keys } from './db/idempotency';
import type { Database } from './db/pool';
import { pseudonymise } from './db/retention';
import { retentionCutoff } from './domain/retention';
import type { Logger } from './telemetry/logger';

/**
 * Replaces the borrowers of loans that were closed more than `years` ago, and says what it did, or what it would do.
 * With 0 years it does nothing. Loans that could not be changed are named as `failed`, if there are any.
 * @throws Problem when the database fails; what was done until then stays, and the next run does the rest.
 */
export async function applyRetention(
  database: Database,
  years: number,
  options: { readonly now: Date; readonly dryRun: boolean; readonly signal?: AbortSignal },
): Promise<object> {
  const common = { dry_run: options.dryRun, years };
  if (years === 0) return { ...common, closed_before: null, loans: 0, borrowers: 0, oldest_closed_at: null };
  const cutoff = retentionCutoff(options.now, years);
  const { loans, borrowers, oldestClosedAt, failed } = await pseudonymise(database, cutoff, options);
  const result = { ...common, closed_before: cutoff.toISOString(), loans, borrowers, oldest_closed_at: oldestClosedAt };
  return failed.length === 0 ? result : { ...result, failed };
}

interface Parts {
  readonly database: Database;
  readonly keys: Keys;
  readonly logger: Logger;
  readonly now: () => Date;
  readonly years: number;
}

/**
 * One retention run a day (UTC), in whichever process of all replicas is first; call it every now and then. The day is
 * an idempotency key like any other. A run that failed or was stopped is gone on with on the next day.
 */
export function createDailyRetention({ database, keys, logger, now, years }: Parts) {
  let lastDay = '';
  return async (signal: AbortSignal): Promise<void> => {
    const moment = now();
    const day = moment.toISOString().slice(0, 10);
    if (years === 0 || day === lastDay) return;
    try {
      const claim = { principals: ['retention'], operation: 'retention', key: day, fingerprint: '' };
      const isFirst = await keys.store({ ...claim, answer: { status: 200, headers: {}, body: '' } });
      lastDay = day;
      if (!isFirst) return;
      logger.log('info', 'retention done', {
        ...(await applyRetention(database, years, { now: moment, dryRun: false, signal })),
        stopped_early: signal.aborted,
      });
    } catch (error) {
      logger.log('error', 'retention failed', { reason: error instanceof Error ? error.message : String(error) });
    }
  };
}
