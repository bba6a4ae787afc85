import type { LoanStatus } from './loan';

/** Nothing is owed any more, or ever was. What is defaulted may still be repaid. */
export const CLOSED_STATUSES: readonly LoanStatus[] = ['rejected', 'withdrawn', 'repaid'];

/**
 * Loans that were closed before this moment have been kept for all of the years: the beginning, in UTC, of the same day
 * so many years ago. A loan is kept through the whole day of its anniversary; one that was closed on 29 February, in a
 * year without it, through 28 February.
 * @param years a whole number of at least 1
 */
export function retentionCutoff(now: Date, years: number): Date {
  return new Date(Date.UTC(now.getUTCFullYear() - years, now.getUTCMonth(), now.getUTCDate()));
}
