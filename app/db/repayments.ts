import { createHash } from 'node:crypto';
import { type Account, type Booking, type Entry, missingSettlement, principalCovered } from '../domain/account';
import type { LoanStatus } from '../domain/loan';
import { formatAmount, parseAmount } from '../domain/money';
import { eventValues, type Happening, type Origin, withEvent } from './audit';
import { apply, type Conflict, type Recorded } from './idempotency';
import { COLUMNS, type LoanRow, toLoan } from './loans';
import { type Database, type Statement, toTimestamp } from './pool';

/** An entry of a loan's ledger as it was recorded. */
export interface Repayment extends Entry {
  /** Of a reversal; null for others. */
  readonly reason: string | null;
  readonly actor: string;
  readonly requestId: string | null;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
}

export interface LedgerAccount extends Account {
  readonly entries: readonly Repayment[];
  /**
   * Where the loan was settled by a release that wrote no entry for it: that entry, which is among the others already,
   * and the version of the loan that it belongs to. See writeSettlement.
   */
  readonly unwritten: { readonly entry: Repayment; readonly version: number } | undefined;
}

export interface Repayments {
  /** A loan and its ledger, as they were at one moment. */
  find(loanId: string): Promise<LedgerAccount | undefined>;
  /** What the schedule of a loan follows from: no ledger is read. */
  findTerms(loanId: string): Promise<Pick<Account, 'loan' | 'disbursedOn'> | undefined>;
  /**
   * Writes an entry of the ledger, the loan as it leaves it, what happened, and the answer to be kept, if the loan is
   * still as it was when it was read, and the key of the answer is free.
   * @param reason why it is taken back, or was settled
   * @returns why nothing was written, if nothing was
   */
  record(
    before: Account,
    booking: Booking,
    reason: string | null,
    origin: Origin,
    answer?: Recorded,
  ): Promise<Conflict | undefined>;
  /**
   * Writes down the settlement that the ledger lacks. The loan and its version stay as they are: the entry belongs to the
   * move that made the loan repaid. False, and nothing written, if the loan is no longer as it was when it was read.
   */
  writeSettlement(account: LedgerAccount): Promise<boolean>;
}

interface EntryRow {
  readonly entry_id: string;
  readonly entry_amount: string;
  readonly date: string;
  readonly reverses: string | null;
  readonly settlement: string;
  readonly reference: string | null;
  readonly reason: string | null;
  readonly actor: string;
  readonly request_id: string | null;
  readonly recorded_at: string;
}

/** Of the change that made a loan repaid, for one that is; all null for others. */
interface RepaidRow {
  readonly repaid_from: LoanStatus | null;
  readonly repaid_version: string | null;
  readonly repaid_at: string | null;
  readonly repaid_actor: string | null;
  readonly repaid_request: string | null;
}

/** The first row has no entry; the rows after it have nothing but one. */
type AccountRow = LoanRow & RepaidRow & EntryRow & { readonly disbursed_on: string | null };

/** The loan, and after it the entries of its ledger: a ledger may have thousands, and needs the loan only once. */
const ACCOUNT: Statement<AccountRow> = {
  name: 'loan_account',
  text: `WITH loan AS MATERIALIZED (
      SELECT ${COLUMNS}, loan_disbursed_on(loans) AS disbursed_on FROM loans WHERE id = $1),
    repaid AS MATERIALIZED (
      SELECT from_status AS repaid_from, version AS repaid_version, at AS repaid_at, actor AS repaid_actor,
        request_id AS repaid_request
      FROM loan_status_changes WHERE loan_id = $1 AND to_status = 'repaid' AND (SELECT status FROM loan) = 'repaid'
      ORDER BY version DESC LIMIT 1)
    SELECT loan.*, repaid.*, entry.id AS entry_id, entry.amount AS entry_amount, date, reverses, settlement, reference,
      reason, actor, request_id, entry.created_at AS recorded_at
    FROM (loan LEFT JOIN repaid ON true) FULL JOIN (
        SELECT * FROM repayments WHERE loan_id = (SELECT id FROM loan)) AS entry ON false
    ORDER BY entry.version NULLS FIRST`,
};
const TERMS: Statement<LoanRow & { readonly disbursed_on: string | null }> = {
  name: 'loan_terms',
  text: `SELECT ${COLUMNS}, loan_disbursed_on(loans) AS disbursed_on FROM loans WHERE id = $1`,
};

const RECORD = withEvent(
  'repayment_record',
  `UPDATE loans SET status = $3, updated_at = $4, version = $5, principal_paid = $12
   WHERE id = $1 AND version = $2 AND EXISTS (SELECT FROM free) RETURNING *`,
  12,
  // The reason of a settlement is that of the move, which its event has.
  `INSERT INTO repayments (id, loan_id, version, amount, currency, date, reverses, settlement, reference, reason, actor,
     request_id, created_at)
   SELECT $6::uuid, loan_id, version, $7::numeric, currency, $8::date, $9::uuid, $10::boolean, $11::text,
     CASE WHEN $10::boolean THEN NULL ELSE reason END, actor, request_id, at FROM event`,
);

/** Two writers of the same entry write the same id, so one of them does nothing. */
const WRITE_SETTLEMENT: Statement<{ id: string }> = {
  name: 'settlement_write',
  text: `WITH loan AS MATERIALIZED (SELECT id, currency FROM loans WHERE id = $1 AND version = $2 FOR NO KEY UPDATE),
    written AS (
      INSERT INTO repayments (id, loan_id, version, amount, currency, date, settlement, actor, request_id, created_at)
      SELECT $3::uuid, id, $4::int, $5::numeric, currency, $6::date, true, $7::text, $8::text, $9::timestamptz FROM loan
      ON CONFLICT (id) DO NOTHING)
    SELECT id FROM loan`,
};

export function createRepayments(database: Database): Repayments {
  return {
    async find(loanId) {
      const [row, ...ledger] = await database.query(ACCOUNT, [loanId]);
      if (row === undefined) return undefined;
      const entries = ledger.map(toRepayment);
      const account = { loan: toLoan(row), disbursedOn: row.disbursed_on, repaidFrom: row.repaid_from, entries };
      const unwritten = unwrittenOf(account, row);
      return { ...account, entries: unwritten === undefined ? entries : [...entries, unwritten.entry], unwritten };
    },
    record({ loan }, { entry, after, balance }, reason, origin, answer) {
      const values = [
        ...[loan.id, loan.version, after.status, after.updatedAt, after.version],
        ...[
          entry.id,
          formatAmount(entry.amount),
          entry.date,
          entry.reverses,
          String(entry.settlement),
          entry.reference,
        ],
        formatAmount(principalCovered(balance, loan.currency)),
      ];
      const event = eventValues({ action: actionOf(entry, after.status), from: loan.status, reason }, origin);
      return apply(database, RECORD, [...values, ...event], answer);
    },
    async findTerms(loanId) {
      const [row] = await database.query(TERMS, [loanId]);
      return row && { loan: toLoan(row), disbursedOn: row.disbursed_on };
    },
    async writeSettlement({ loan, unwritten }) {
      if (unwritten === undefined) return true;
      const { id, amount, date, actor, requestId, createdAt } = unwritten.entry;
      const entry = [id, unwritten.version, formatAmount(amount), date, actor, requestId, createdAt];
      return (await database.query(WRITE_SETTLEMENT, [loan.id, loan.version, ...entry])).length > 0;
    },
  };
}

function unwrittenOf(account: Account, row: AccountRow): LedgerAccount['unwritten'] {
  const { loan } = account;
  const version = Number(row.repaid_version ?? loan.version);
  const createdAt = row.repaid_at === null ? loan.updatedAt : toTimestamp(row.repaid_at);
  const entry = missingSettlement(account, settlementId(loan.id, version), createdAt.slice(0, 10));
  if (entry === undefined) return undefined;
  const origin = { actor: row.repaid_actor ?? 'unrecorded', requestId: row.repaid_request };
  return { entry: { ...entry, reason: null, ...origin, createdAt }, version };
}

/** A UUID (version 8, RFC 9562) that follows from the loan and the move, so that the entry can be named before it is written. */
function settlementId(loanId: string, version: number): string {
  const hash = createHash('sha256').update(`settlement ${loanId} ${version}`).digest('hex');
  return [
    hash.slice(0, 8),
    hash.slice(8, 12),
    `8${hash.slice(13, 16)}`,
    `8${hash.slice(17, 20)}`,
    hash.slice(20, 32),
  ].join('-');
}

function actionOf({ reverses, settlement }: Entry, status: LoanStatus): Happening['action'] {
  if (settlement) return 'transitioned';
  if (reverses !== null) return 'payment_reversed';
  return status === 'repaid' ? 'repaid' : 'paid';
}

function toRepayment(row: EntryRow): Repayment {
  return {
    id: row.entry_id,
    date: row.date,
    amount: parseAmount(row.entry_amount),
    reverses: row.reverses,
    settlement: row.settlement === 't',
    reference: row.reference,
    reason: row.reason,
    actor: row.actor,
    requestId: row.request_id,
    createdAt: toTimestamp(row.recorded_at),
  };
}
