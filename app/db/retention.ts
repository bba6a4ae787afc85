import { createHmac, randomBytes } from 'node:crypto';
import { CLOSED_STATUSES } from '../domain/retention';
import { isFaultOfOne } from './faults';
import { type Database, type Statement, toTimestamp } from './pool';

export interface Pseudonymised {
  readonly loans: number;
  readonly borrowers: number;
  /** When the first of the loans was closed: ISO 8601, UTC. Null if there was none. */
  readonly oldestClosedAt: string | null;
  /** Loans that the database did not let change, and why: their borrowers are still there. */
  readonly failed: readonly { readonly loan_id: string; readonly reason: string }[];
}

interface PageRow {
  readonly id: string;
  readonly borrower_id: string;
  readonly created_at: string;
  readonly updated_at: string;
  readonly version: string;
  readonly due: string;
}

const PAGE_SIZE = 500;
/**
 * Walks along the index of the list, oldest first: a loan that was closed before a moment was created before it. What
 * changed a loan last is what closed it, or its pseudonym: that needs no index, and no column that tells it.
 */
const PAGE: Statement<PageRow> = {
  name: 'retention_page',
  text: `SELECT id, borrower_id, created_at, updated_at, version,
      status = ANY ($4) AND updated_at < $3 AND NOT EXISTS (
        SELECT FROM loan_events WHERE loan_id = loans.id AND action = 'pseudonymised') AS due
    FROM loans WHERE created_at < $3 AND (created_at, id) > ($1, $2) ORDER BY created_at, id LIMIT ${PAGE_SIZE}`,
};
/** A loan that somebody else changed since it was read is left as it is. */
const PSEUDONYMISE: Statement<{ id: string }> = {
  name: 'retention_pseudonymise',
  text: `WITH changed AS (
      UPDATE loans SET borrower_id = pseudonym, updated_at = greatest(updated_at, $4::timestamptz), version = loans.version + 1
      FROM unnest($1::uuid[], $2::int[], $3::text[]) AS due (id, version, pseudonym)
      WHERE loans.id = due.id AND loans.version = due.version RETURNING loans.*),
    event AS (
      INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, amount, currency)
      SELECT id, version, updated_at, 'retention', 'pseudonymised', status, status, amount, currency FROM changed)
    SELECT id FROM changed`,
};
const START = ['-infinity', '00000000-0000-0000-0000-000000000000'] as const;

/**
 * Replaces the borrowers of loans that were closed before the cutoff by pseudonyms, and says so in the history of each
 * loan. Figures and history stay. A borrower's loans share one pseudonym within a run; nothing leads back from it, nor
 * to the pseudonym of another run, since the key it is made with is kept nowhere.
 *
 * Small statements, each whole in itself: a run that ends early has left nothing half done, and the next one goes on.
 * Several runs at once do no harm: each loan gets its pseudonym from one of them.
 *
 * @param options.now the moment of the change; options.signal ends the run early; a dry run only tells what it would do
 */
export async function pseudonymise(
  database: Database,
  cutoff: Date,
  options: { readonly now: Date; readonly dryRun?: boolean; readonly signal?: AbortSignal },
): Promise<Pseudonymised> {
  const key = randomBytes(32);
  const tally = createTally();
  const failed: { loan_id: string; reason: string }[] = [];
  let [createdAt, id]: readonly [string, string] = START;
  while (options.signal?.aborted !== true) {
    const page = await database.query(PAGE, [createdAt, id, cutoff.toISOString(), CLOSED_STATUSES]);
    const due = page
      .filter((row) => row.due === 't')
      .map((row) => ({ ...row, pseudonym: pseudonymOf(key, row.borrower_id) }));
    if (options.dryRun === true) tally.add(due);
    else if (due.length > 0) {
      tally.add(await change(database, due, options.now, failed));
    }
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE_SIZE) break;
    [createdAt, id] = [last.created_at, last.id];
  }
  return { ...tally.result(), failed };
}

type Due = PageRow & { readonly pseudonym: string };

/**
 * All of them in one statement. Where one loan spoils it for all, each on its own: the rest must not wait for that one.
 * @returns those that were changed
 */
async function change(
  database: Database,
  due: readonly Due[],
  now: Date,
  failed: { loan_id: string; reason: string }[],
): Promise<Due[]> {
  const values = [due.map((row) => row.id), due.map((row) => row.version), due.map((row) => row.pseudonym)];
  try {
    const rows = await database.query(PSEUDONYMISE, [...values, now.toISOString()]);
    const changed = new Set(rows.map((row) => row.id));
    return due.filter((row) => changed.has(row.id));
  } catch (error) {
    if (!isFaultOfOne(error)) throw error;
    if (due.length > 1) {
      const changed: Due[] = [];
      for (const row of due) changed.push(...(await change(database, [row], now, failed)));
      return changed;
    }
    failed.push(...due.map(({ id }) => ({ loan_id: id, reason: error.message })));
    return [];
  }
}

/** Whoever has all ids of borrowers could compute a plain digest of each; without the key there is nothing to compare. */
function pseudonymOf(key: Buffer, borrowerId: string): string {
  return `pseudonym_${createHmac('sha256', key).update(borrowerId).digest('hex').slice(0, 32)}`;
}

function createTally() {
  // A number for each rather than the text, which would need too much memory for millions.
  const borrowers = new Set<number>();
  let loans = 0;
  let oldest: string | undefined;
  return {
    add(rows: readonly { readonly pseudonym: string; readonly updated_at: string }[]) {
      for (const { pseudonym, updated_at } of rows) {
        borrowers.add(Number.parseInt(pseudonym.slice(-12), 16));
        loans++;
        const closedAt = toTimestamp(updated_at);
        if (oldest === undefined || closedAt < oldest) oldest = closedAt;
      }
    },
    result: () => ({ loans, borrowers: borrowers.size, oldestClosedAt: oldest ?? null }),
  };
}
