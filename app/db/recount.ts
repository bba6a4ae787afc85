import { balanceOf, dateOf, principalCovered } from '../domain/account';
import type { LoanStatus } from '../domain/loan';
import { formatAmount, parseAmount } from '../domain/money';
import { isFaultOfOne } from './faults';
import type { Database, Statement } from './pool';
import { createRepayments } from './repayments';

/** By how much the statistics were wrong about the loans of one currency in one status. */
export interface Correction {
  readonly currency: string;
  readonly status: LoanStatus;
  /** To be added. */
  readonly loans: number;
  /** Decimals. */
  readonly amount: string;
  readonly principal_paid: string;
}

interface MissingRow {
  readonly currency: string;
  readonly status: LoanStatus;
  readonly loans: string;
  readonly amount: string;
  readonly principal_paid: string;
}

const MISSING: Statement<MissingRow> = {
  name: 'totals_missing',
  text: 'SELECT currency, status, loans, amount, principal_paid FROM loan_totals_missing ORDER BY currency, status',
};
/** A function of the owner: only it may write the totals (migration 0016). */
const CORRECT: Statement<MissingRow> = {
  name: 'totals_correct',
  text: 'SELECT currency, status, loans, amount, principal_paid FROM correct_loan_totals()',
};

/**
 * Counts all loans, compares the statistics with that, and corrects them unless told not to. Loans can be read and
 * written meanwhile. The triggers that keep the totals (migration 0010) leave nothing to correct; whoever switched
 * them off, as a restore may, runs this afterwards.
 */
export async function recount(database: Database, dryRun: boolean): Promise<Correction[]> {
  const rows = await database.query(dryRun ? MISSING : CORRECT);
  return rows.map((row) => ({ ...row, loans: Number(row.loans) }));
}

/** A loan that could not be counted, and why. The run went on without it. */
export interface LoanFault {
  readonly loan_id: string;
  readonly reason: string;
}

export interface LedgerCorrections {
  /** Loans of which the principal that is paid or settled was wrong. */
  readonly principalCorrected: number;
  /** Loans that were settled by a release that wrote no entry for it, and have one now. */
  readonly settlementsWritten: number;
  readonly failed: readonly LoanFault[];
}

interface BatchRow {
  readonly id: string;
  readonly principal_paid: string;
}

/**
 * Loans whose money is still with the borrower: what was paid back of others is not asked for. And those that SQL by hand
 * gave a figure that is no number.
 */
const PAID_BACK: Statement<BatchRow> = {
  name: 'principal_batch',
  text: `SELECT id, principal_paid FROM loans WHERE id > $1 AND (principal_paid = 'NaN' OR status IN ('disbursed', 'defaulted')
      AND (principal_paid <> 0 OR EXISTS (SELECT FROM repayments WHERE loan_id = loans.id)))
    ORDER BY id LIMIT 500`,
};
const CORRECT_PRINCIPAL: Statement<{ id: string }> = {
  name: 'principal_correct',
  text: 'UPDATE loans SET principal_paid = $3 WHERE id = $1 AND version = $2 RETURNING id',
};
/** Repaid loans with a schedule, and no entry of the ledger at the version of the change that made them repaid. */
const SETTLED: Statement<BatchRow> = {
  name: 'settlement_batch',
  text: `SELECT id, principal_paid FROM loans WHERE id > $1 AND status = 'repaid' AND term_months IS NOT NULL
      AND NOT EXISTS (SELECT FROM repayments WHERE loan_id = loans.id AND version = (
        SELECT max(version) FROM loan_status_changes WHERE loan_id = loans.id AND to_status = 'repaid'))
    ORDER BY id LIMIT 500`,
};

/**
 * Works out of the ledgers what releases before this one did not keep, and writes it down unless told not to: the
 * principal that is paid or settled (before 0012), and the entries of settlements (before 0013). A loan that changes at
 * the same time is left to its change, which does the same. A loan that cannot be counted is named, and the run goes
 * on without it.
 */
export async function recountLedgers(database: Database, dryRun: boolean, now: Date): Promise<LedgerCorrections> {
  const repayments = createRepayments(database);
  const principal = await forEachLoan(database, PAID_BACK, async ({ id, principal_paid }) => {
    const account = await repayments.find(id);
    if (account === undefined) return false;
    const { currency, version } = account.loan;
    const right = formatAmount(principalCovered(balanceOf(account, dateOf(now)), currency));
    if (principal_paid !== 'NaN' && formatAmount(parseAmount(principal_paid)) === right) return false;
    if (!dryRun) await database.query(CORRECT_PRINCIPAL, [id, version, right]);
    return true;
  });
  const settlements = await forEachLoan(database, SETTLED, async ({ id }) => {
    const account = await repayments.find(id);
    if (account === undefined) return false;
    balanceOf(account, dateOf(now)); // Says why there is no settlement, where none can be told.
    return account.unwritten !== undefined && (dryRun || (await repayments.writeSettlement(account)));
  });
  return {
    principalCorrected: principal.done,
    settlementsWritten: settlements.done,
    failed: [...principal.failed, ...settlements.failed],
  };
}

/**
 * Does something for each loan of a batch after the other, in the order of their ids.
 * @returns for how many it was done, and which failed by a fault of their own
 * @throws what is the fault of no loan, such as a lost connection
 */
async function forEachLoan(
  database: Database,
  batches: Statement<BatchRow>,
  work: (row: BatchRow) => Promise<boolean>,
): Promise<{ done: number; failed: LoanFault[] }> {
  const failed: LoanFault[] = [];
  let done = 0;
  for (let last = '00000000-0000-0000-0000-000000000000'; ;) {
    const batch = await database.query(batches, [last]);
    for (const row of batch) {
      try {
        if (await work(row)) done++;
      } catch (error) {
        if (!isFaultOfOne(error)) throw error;
        failed.push({ loan_id: row.id, reason: error.message });
      }
    }
    const next = batch.at(-1);
    if (next === undefined) return { done, failed };
    last = next.id;
  }
}
