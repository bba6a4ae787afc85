import { balanceOf, dateOf } from '../domain/account';
import type { LoanStatus } from '../domain/loan';
import { formatAmount, fromMinor, parseAmount } from '../domain/money';
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

/** With their money still with the borrower: what was paid back of any other is asked for by nobody. */
const PAID_BACK: Statement<{ id: string; principal_paid: string }> = {
  name: 'principal_batch',
  text: `SELECT id, principal_paid FROM loans WHERE status IN ('disbursed', 'defaulted') AND id > $1
      AND EXISTS (SELECT FROM repayments WHERE loan_id = loans.id)
    ORDER BY id LIMIT 500`,
};
const CORRECT_PRINCIPAL: Statement<{ id: string }> = {
  name: 'principal_correct',
  text: 'UPDATE loans SET principal_paid = $3 WHERE id = $1 AND version = $2 RETURNING id',
};

/**
 * Works out of the ledgers what was paid back of each loan's principal, and corrects it where a release before 0012 wrote
 * the last entry. A loan that is paid at the same time is left to its payment, which does the same.
 * @returns how many were wrong
 */
export async function recountPrincipal(database: Database, dryRun: boolean, now: Date): Promise<number> {
  const repayments = createRepayments(database);
  let wrong = 0;
  for (let last = '00000000-0000-0000-0000-000000000000'; ;) {
    const batch = await database.query(PAID_BACK, [last]);
    for (const { id, principal_paid } of batch) {
      const account = await repayments.find(id);
      if (account === undefined) continue;
      const { paid } = balanceOf(account, dateOf(now));
      const right = fromMinor(paid.principal, account.loan.currency);
      if (parseAmount(principal_paid) === right) continue;
      wrong++;
      if (!dryRun) await database.query(CORRECT_PRINCIPAL, [id, account.loan.version, formatAmount(right)]);
    }
    const next = batch.at(-1);
    if (next === undefined) return wrong;
    last = next.id;
  }
}
