import type { Loan, LoanGroup, LoanStatus } from '../domain/loan';
import { type Amount, formatAmount, parseAmount } from '../domain/money';
import { batched } from './batch';
import { eventValues, HISTORY, type LoanEvent, type Origin, toEvent, withEvent } from './audit';
import { createDryRun, createInsert } from './insert';
import { apply, type Conflict, type Recorded } from './idempotency';
import { createPages, type Listing, type Page, type Position } from './loan-pages';
import { type Database, type Statement, toTimestamp } from './pool';

export interface Loans {
  /**
   * Writes the loan, that it was created, and the answer to be kept, if its key is free.
   * @returns why nothing was written, if nothing was; the same holds for insertAll and move
   */
  insert(loan: Loan, origin: Origin, answer?: Recorded): Promise<Conflict | undefined>;
  /** Writes the loan as insert does, and takes all of it back. Rejects where it could not be written. */
  dryRun(loan: Loan, origin: Origin): Promise<void>;
  /** The same as insert for many loans, one of them at least: all or none. */
  insertAll(loans: readonly Loan[], origin: Origin, answer?: Recorded): Promise<Conflict | undefined>;
  /**
   * Writes a loan's next status, that it came to it, and the answer to be kept, if the loan is still as it was when it
   * was read, and the key of the answer is free.
   */
  move(
    before: Loan,
    after: Loan,
    reason: string | null,
    origin: Origin,
    answer?: Recorded,
  ): Promise<Conflict | undefined>;
  /** All that happened to a loan, in order; nothing only where there never was such a loan. */
  history(id: string): Promise<LoanEvent[]>;
  find(id: string): Promise<Loan | undefined>;
  /**
   * A page of loans. Walking from page to page shows each loan once, those of meanwhile once or not at all; one that is
   * moved out of the filters, or into them, is shown as it is when the walk comes by.
   * @param limit at most so many
   * @throws Problem invalid-parameter for one borrower's loans by amount, where they are too many to be sorted
   */
  list(listing: Listing, limit: number, after: Position | undefined): Promise<Page<Loan>>;
  /** Exact; takes as long for ten million loans as for none. */
  groups(): Promise<LoanGroup[]>;
}

export interface LoanRow {
  readonly id: string;
  readonly borrower_id: string;
  readonly amount: string;
  readonly currency: string;
  readonly term_months: string | null;
  readonly interest_rate_apr: string | null;
  readonly status: LoanStatus;
  readonly created_at: string;
  readonly updated_at: string;
  readonly version: string;
}

interface GroupRow {
  readonly currency: string;
  readonly status: LoanStatus;
  readonly loans: string;
  readonly total: string;
}

export const COLUMNS =
  'id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at, version' as const;

const INSERT_ALL = withEvent(
  'loan_insert_all',
  `INSERT INTO loans (${COLUMNS})
   SELECT * FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::text[], $5::int[], $6::numeric[], $7::text[],
     $8::timestamptz[], $9::timestamptz[], $10::int[])
   WHERE EXISTS (SELECT FROM free) RETURNING *`,
  10,
);
const MOVE = withEvent(
  'loan_move',
  `UPDATE loans SET status = $3, updated_at = $4, version = $5
   WHERE id = $1 AND version = $2 AND EXISTS (SELECT FROM free) RETURNING *`,
  5,
);
const BY_ID: Statement<LoanRow> = {
  name: 'loan_by_id',
  text: `SELECT ${COLUMNS} FROM loans WHERE id = ANY ($1::uuid[])`,
};
const pagesOf = createPages<LoanRow>(COLUMNS);
const GROUPS: Statement<GroupRow> = {
  name: 'loan_groups',
  // From what is kept with every change (see migration 0010): no loan is read.
  text: `SELECT currency, status, sum(loans) AS loans, sum(amount) AS total FROM loan_totals
    GROUP BY currency, status HAVING sum(loans) <> 0`,
};

const MOST_AT_ONCE = 50;

export function createLoans(database: Database): Loans {
  const find = batched<string, Loan | undefined>(
    { size: MOST_AT_ONCE, inFlight: database.connections, queue: database.queueBefore },
    async (ids) => {
      const rows = await database.query(BY_ID, [[...new Set(ids)]]);
      const found = new Map(rows.map((row) => [row.id, toLoan(row)]));
      return ids.map((id) => found.get(id));
    },
  );
  const readPage = pagesOf(database, { inFlight: database.connections, queue: database.queueBefore });
  const insert = createInsert(database);
  return {
    insert: async (loan, origin, recorded) => ((await insert({ loan, origin, recorded })) ? undefined : 'twin'),
    dryRun: createDryRun(database),
    insertAll(many, origin, answer) {
      const rows = many.map(toValues);
      const columns = COLUMNS.split(', ').map((_name, column) => rows.map((row) => row[column] ?? null));
      const event = eventValues({ action: 'created', from: null, reason: null }, origin);
      return apply(database, INSERT_ALL, [...columns, ...event], answer);
    },
    move(before, after, reason, origin, answer) {
      const values = [before.id, before.version, after.status, after.updatedAt, after.version];
      const event = eventValues({ action: 'transitioned', from: before.status, reason }, origin);
      return apply(database, MOVE, [...values, ...event], answer);
    },
    async history(id) {
      return (await database.query(HISTORY, [id])).map(toEvent);
    },
    find,
    async list(listing, limit, after) {
      const { rows, next } = await readPage(listing, limit, after);
      return { rows: rows.map(toLoan), next };
    },
    async groups() {
      const rows = await database.query(GROUPS);
      return rows.map(({ currency, status, loans, total }) => {
        return { currency, status, loans: BigInt(loans), total: parseAmount(total) };
      });
    },
  };
}

/** The columns of a loan in the order of COLUMNS, each as text. */
export function toValues(loan: Loan): (string | null)[] {
  return [
    loan.id,
    loan.borrowerId,
    formatAmount(loan.amount),
    loan.currency,
    loan.termMonths === null ? null : String(loan.termMonths),
    loan.interestRateApr === null ? null : formatAmount(loan.interestRateApr),
    loan.status,
    loan.createdAt,
    loan.updatedAt,
    String(loan.version),
  ];
}

export function toLoan(row: LoanRow): Loan {
  return {
    id: row.id,
    borrowerId: row.borrower_id,
    amount: parseAmount(row.amount),
    currency: row.currency,
    termMonths: row.term_months === null ? null : Number(row.term_months),
    interestRateApr: row.interest_rate_apr === null ? null : (parseAmount(row.interest_rate_apr) satisfies Amount),
    status: row.status,
    createdAt: toTimestamp(row.created_at),
    updatedAt: toTimestamp(row.updated_at),
    version: Number(row.version),
  };
}
