import type { LoanStatus } from '../domain/loan';
import type { Database, Statement } from './pool';

/** By how much the statistics were wrong about the loans of one currency in one status. */
export interface Correction {
  readonly currency: string;
  readonly status: LoanStatus;
  /** To be added. */
  readonly loans: number;
  /** A decimal. */
  readonly amount: string;
}

interface MissingRow {
  readonly currency: string;
  readonly status: LoanStatus;
  readonly loans: string;
  readonly amount: string;
}

const MISSING: Statement<MissingRow> = {
  name: 'totals_missing',
  text: 'SELECT currency, status, loans, amount FROM loan_totals_missing ORDER BY currency, status',
};
/** Two corrections at once would both add the same difference. */
const TAKE_TURN: Statement<never> = { name: 'totals_turn', text: 'SELECT FROM pg_advisory_xact_lock(7214403, -1)' };
const CORRECT: Statement<MissingRow> = {
  name: 'totals_correct',
  text: `WITH missing AS MATERIALIZED (${MISSING.text}), corrected AS (
      INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount)
      SELECT -1, currency, status, loans, amount FROM missing
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount)
    SELECT * FROM missing`,
};

/**
 * Counts all loans, compares the statistics with that, and corrects them unless told not to. Loans can be read and
 * written meanwhile. The triggers that keep the totals (migration 0010) leave nothing to correct; whoever switched
 * them off, as a restore may, runs this afterwards.
 */
export async function recount(database: Database, dryRun: boolean): Promise<Correction[]> {
  const rows = await (dryRun
    ? database.query(MISSING)
    : database.transaction(async (connection) => {
        await connection.query(TAKE_TURN);
        return connection.query(CORRECT);
      }));
  return rows.map(({ currency, status, loans, amount }) => ({ currency, status, loans: Number(loans), amount }));
}
