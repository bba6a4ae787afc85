import { Client } from 'pg';
import { allowedMoves, type LoanStatus } from '../../app/domain/loan';
import type { Acknowledged } from './load';

/** How many writes are not as they were acknowledged; all zero where the service kept its word. */
export interface Verdict {
  /** Acknowledged, and not there. */
  readonly lost: number;
  /** There more than once. */
  readonly duplicated: number;
  /** There, and never acknowledged to anybody although everybody waited for an answer. */
  readonly unknown: number;
  /** Of which the stored answer is not the one that was given. */
  readonly otherAnswer: number;
  /** Loans whose events do not lead from nothing to their status by legal moves, one for each version. */
  readonly wrongHistory: number;
}

interface EventRow {
  readonly loan_id: string;
  readonly version: number;
  readonly from_status: LoanStatus | null;
  readonly to_status: LoanStatus;
}

interface LoanRow {
  readonly id: string;
  readonly borrower_id: string;
  readonly status: LoanStatus;
  readonly version: number;
}

/** Compares what is stored with what was acknowledged. */
export async function verify(port: number, acknowledged: readonly Acknowledged[]): Promise<Verdict> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
  await client.connect();
  const { rows: loans } = await client.query<LoanRow>('SELECT id, borrower_id, status, version FROM loans');
  const { rows: events } = await client.query<EventRow>(
    'SELECT loan_id, version, from_status, to_status FROM loan_events ORDER BY sequence',
  );
  const { rows: answers } = await client.query<{ key: string; body: string }>('SELECT key, body FROM idempotency_keys');
  await client.end();

  const byBorrower = grouped(loans, (loan) => loan.borrower_id);
  const byChange = grouped(events, (event) => `${event.loan_id} ${event.to_status}`);
  const byLoan = grouped(events, (event) => event.loan_id);
  const byKey = new Map(answers.map(({ key, body }) => [key, body]));
  let lost = 0;
  let duplicated = 0;
  let otherAnswer = 0;
  for (const { key, loan, borrower, status, body } of acknowledged) {
    const stored = borrower === null ? 1 : (byBorrower.get(borrower)?.length ?? 0);
    const recorded = byChange.get(`${loan} ${status}`)?.length ?? 0;
    if (stored === 0 || recorded === 0) lost++;
    else if (stored > 1 || recorded > 1) duplicated++;
    else if (byKey.get(key) !== body) otherAnswer++;
  }
  const known = new Set(acknowledged.map(({ loan, status }) => `${loan} ${status}`));
  const unknown = [...byChange.keys()].filter((change) => !known.has(change)).length;
  const wrongHistory = loans.filter((loan) => !isLegal(loan, byLoan.get(loan.id) ?? [])).length;
  return { lost, duplicated, unknown, otherAnswer, wrongHistory };
}

function isLegal(loan: LoanRow, events: readonly EventRow[]): boolean {
  let status: LoanStatus | null = null;
  for (const [index, event] of events.entries()) {
    const legal = status === null ? event.to_status === 'pending' : allowedMoves(status).includes(event.to_status);
    if (!legal || event.from_status !== status || event.version !== index + 1) return false;
    status = event.to_status;
  }
  return status === loan.status && events.length === loan.version;
}

function grouped<T>(rows: readonly T[], key: (row: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const row of rows) {
    const group = groups.get(key(row));
    if (group === undefined) groups.set(key(row), [row]);
    else group.push(row);
  }
  return groups;
}
