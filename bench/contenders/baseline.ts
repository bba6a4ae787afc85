import cluster from 'node:cluster';
import { Pool, type QueryConfig } from 'pg';

/**
 * What the contenders that are not ours have in common: as many processes, connections and settings as ours, and the
 * SQL of the same work, each a named prepared statement. See docs/decisions/0014: none of this may get slower.
 */
const COLUMNS =
  'id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at' as const;

const BY_ID = `SELECT ${COLUMNS} FROM loans WHERE id = $1`;
const FIRST_PAGE = `SELECT ${COLUMNS} FROM loans ORDER BY created_at DESC, id DESC LIMIT 50`;
const NEXT_PAGE = `SELECT ${COLUMNS} FROM loans WHERE (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT 50`;
/** From the totals that the schema's triggers keep, as ours: the faster way, and the same work. */
const GROUPS =
  'SELECT currency, status, sum(loans) AS loans, sum(amount) AS total FROM loan_totals GROUP BY currency, status';
/** Loan, event, and the answer under its key: all or nothing, in one round trip. A key that is taken fails it. */
const CREATE = `WITH loan AS (
    INSERT INTO loans (${COLUMNS}, version) VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $7, 1)), event AS (
    INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, request_id, amount, currency)
    VALUES ($1, 1, $7, 'bench', 'created', 'pending', $8, $3, $4))
  INSERT INTO idempotency_keys (principal, operation, key, fingerprint, status, headers, body)
  VALUES ('bench', 'createLoan', $8, $9, 201, '{}', $10)`;

export interface NewLoan {
  readonly borrower_id: string;
  readonly amount: string;
  readonly currency: string;
  readonly term_months: number | null;
  readonly interest_rate_apr: string | null;
}

export const byId = (id: string): QueryConfig => ({ name: 'by_id', text: BY_ID, values: [id] });
export const firstPage: QueryConfig = { name: 'first_page', text: FIRST_PAGE };
export const groups: QueryConfig = { name: 'groups', text: GROUPS };
export const nextPage = (createdAt: string, id: string): QueryConfig => {
  return { name: 'next_page', text: NEXT_PAGE, values: [createdAt, id] };
};
/** @param answer the body that is stored under the key. */
export function create(id: string, loan: NewLoan, at: string, key: string, hash: string, answer: string): QueryConfig {
  const { borrower_id, amount, currency, term_months, interest_rate_apr } = loan;
  const values = [id, borrower_id, amount, currency, term_months, interest_rate_apr, at, key, hash, answer];
  return { name: 'create', text: CREATE, values };
}

/** The rows of `groups` as ours answers them. */
export function statistics(rows: readonly Record<string, string>[]) {
  let total_loans = 0;
  const by_status: Record<string, number> = {};
  const by_currency: Record<string, { loans: number; total_amount: number }> = {};
  for (const { currency = '', status = '', loans, total } of rows) {
    const count = Number(loans);
    total_loans += count;
    by_status[status] = (by_status[status] ?? 0) + count;
    const sum = (by_currency[currency] ??= { loans: 0, total_amount: 0 });
    sum.loans += count;
    sum.total_amount += Number(total);
  }
  return { total_loans, by_status, by_currency };
}

export function openPool(): Pool {
  const { env } = process;
  return new Pool({
    host: '127.0.0.1',
    port: Number(env['DATABASE_PORT']),
    database: env['DATABASE_NAME'],
    user: env['DATABASE_USER'],
    max: Number(env['DATABASE_POOL_SIZE']),
  });
}

/** Runs the server in PROCESSES worker processes behind PORT, until SIGTERM. */
export function serve(listen: (port: number) => void): void {
  if (cluster.isPrimary) {
    for (let worker = 0; worker < Number(process.env['PROCESSES']); worker++) cluster.fork();
    return;
  }
  listen(Number(process.env['PORT']));
}
