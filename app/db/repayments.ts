import type { Account, Booking, Entry } from '../domain/account';
import type { LoanStatus } from '../domain/loan';
import { formatAmount, fromMinor, parseAmount } from '../domain/money';
import { eventValues, type Happening, type Origin, withEvent } from './audit';
import { apply, type Conflict, type Recorded } from './idempotency';
import { COLUMNS, type LoanRow, toLoan } from './loans';
import { type Database, type Statement, toTimestamp } from './pool';

/** An entry of a loan's ledger as it was recorded. */
export interface Repayment extends Entry {
  /** Of the payer or the bank; null for a reversal. */
  readonly reference: string | null;
  /** Of a reversal; null for a payment. */
  readonly reason: string | null;
  readonly actor: string;
  readonly requestId: string | null;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

export interface LedgerAccount extends Account {
  readonly entries: readonly Repayment[];
}

export interface Repayments {
  /** A loan and its ledger, as they were at one moment. */
  find(loanId: string): Promise<LedgerAccount | undefined>;
  /**
   * Writes an entry of the ledger, the loan as it leaves it, what happened, and the answer to be kept, if the loan is
   * still as it was when it was read, and the key of the answer is free.
   * @returns why nothing was written, if nothing was
   */
  record(
    before: Account,
    booking: Booking,
    note: Note,
    origin: Origin,
    answer?: Recorded,
  ): Promise<Conflict | undefined>;
}

/** What is said of an entry besides its figures: the reference of a payment, or the reason of a reversal. */
export type Note = Pick<Repayment, 'reference' | 'reason'>;

interface EntryRow {
  readonly entry_id: string;
  readonly entry_amount: string;
  readonly date: string;
  readonly reverses: string | null;
  readonly reference: string | null;
  readonly reason: string | null;
  readonly actor: string;
  readonly request_id: string | null;
  readonly recorded_at: string;
}

type AccountRow = LoanRow & {
  readonly disbursed_on: string | null;
  readonly repaid_from: LoanStatus | null;
} & (EntryRow | Readonly<Record<keyof EntryRow, null>>);

/** The loan once for each entry of its ledger, and once if it has none. */
const ACCOUNT: Statement<AccountRow> = {
  name: 'loan_account',
  text: `WITH loan AS MATERIALIZED (
      SELECT ${COLUMNS}, loan_disbursed_on(loans) AS disbursed_on, CASE status WHEN 'repaid' THEN (
        SELECT from_status FROM loan_events WHERE loan_id = $1 AND to_status = 'repaid' ORDER BY version DESC LIMIT 1)
        END AS repaid_from
      FROM loans WHERE id = $1)
    SELECT loan.*, entry.id AS entry_id, entry.amount AS entry_amount, date, reverses, reference, reason, actor,
      request_id, entry.created_at AS recorded_at
    FROM loan LEFT JOIN repayments AS entry ON entry.loan_id = loan.id ORDER BY entry.version`,
};

const RECORD = withEvent(
  'repayment_record',
  `UPDATE loans SET status = $3, updated_at = $4, version = $5, principal_paid = $11
   WHERE id = $1 AND version = $2 AND EXISTS (SELECT FROM free) RETURNING *`,
  11,
  `INSERT INTO repayments (id, loan_id, version, amount, currency, date, reverses, reference, reason, actor, request_id, created_at)
   SELECT $6::uuid, loan_id, version, $7::numeric, currency, $8::date, $9::uuid, $10::text, reason, actor, request_id, at FROM event`,
);

export function createRepayments(database: Database): Repayments {
  return {
    async find(loanId) {
      const rows = await database.query(ACCOUNT, [loanId]);
      const [row] = rows;
      if (row === undefined) return undefined;
      const entries = rows.flatMap((each) => (each.entry_id === null ? [] : [toRepayment(each)]));
      return { loan: toLoan(row), disbursedOn: row.disbursed_on, repaidFrom: row.repaid_from, entries };
    },
    record({ loan }, { entry, after, balance }, { reference, reason }, origin, answer) {
      const values = [
        ...[loan.id, loan.version, after.status, after.updatedAt, after.version],
        ...[entry.id, formatAmount(entry.amount), entry.date, entry.reverses, reference],
        formatAmount(fromMinor(balance.paid.principal, loan.currency)),
      ];
      const event = eventValues({ action: actionOf(entry, after.status), from: loan.status, reason }, origin);
      return apply(database, RECORD, [...values, ...event], answer);
    },
  };
}

function actionOf({ reverses }: Entry, status: LoanStatus): Happening['action'] {
  if (reverses !== null) return 'payment_reversed';
  return status === 'repaid' ? 'repaid' : 'paid';
}

function toRepayment(row: EntryRow): Repayment {
  return {
    id: row.entry_id,
    date: row.date,
    amount: parseAmount(row.entry_amount),
    reverses: row.reverses,
    reference: row.reference,
    reason: row.reason,
    actor: row.actor,
    requestId: row.request_id,
    createdAt: toTimestamp(row.recorded_at),
  };
}
