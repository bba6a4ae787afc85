import type { LoanStatus } from '../domain/loan';
import { type Amount, parseAmount } from '../domain/money';
import { type Change, changeOnce } from './idempotency';
import { type Statement, toTimestamp, type Value } from './pool';

/** Who changes something, and with which request. A request's state is one. */
export interface Origin {
  readonly principal: string;
  readonly requestId: string | null;
}

/** What happened to a loan, with its amount at that time. */
export interface LoanEvent {
  /** Rises with every event of any loan. */
  readonly sequence: string;
  /** ISO 8601, UTC. */
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  /** Null for the creation. */
  readonly from: LoanStatus | null;
  readonly to: LoanStatus;
  readonly reason: string | null;
  readonly requestId: string | null;
  readonly amount: Amount;
  readonly currency: string;
  /** The entry of the loan's ledger that it is about. */
  readonly repaymentId: string | null;
}

export interface EventRow {
  readonly sequence: string;
  readonly at: string;
  readonly actor: string;
  readonly action: string;
  readonly from_status: LoanStatus | null;
  readonly to_status: LoanStatus;
  readonly reason: string | null;
  readonly request_id: string | null;
  readonly amount: string;
  readonly currency: string;
  readonly repayment_id: string | null;
}

export const HISTORY: Statement<EventRow> = {
  name: 'loan_history',
  text: `SELECT sequence, at, event.actor, action, from_status, to_status, event.reason, event.request_id, event.amount,
      event.currency, repayments.id AS repayment_id
    FROM loan_events AS event LEFT JOIN repayments USING (loan_id, version) WHERE loan_id = $1 ORDER BY sequence`,
};

/** What an event says besides the loan itself. */
export interface Happening {
  readonly action: 'created' | 'transitioned' | 'paid' | 'repaid' | 'payment_reversed';
  readonly from: LoanStatus | null;
  readonly reason: string | null;
}

/**
 * A change and its event in one statement, both or neither.
 * @param change SQL that changes loans only `WHERE EXISTS (SELECT FROM free)` (see changeOnce), and returns them
 * @param parameters how many the change has; those of the event follow them (see eventValues).
 * @param also SQL that writes down more of the change, from the row of `event`.
 */
export function withEvent(name: string, change: string, parameters: number, also?: string): Change {
  const [actor, action, from, reason, request] = [1, 2, 3, 4, 5].map((n) => `$${parameters + n}::text`);
  const event = `INSERT INTO loan_events
    (loan_id, version, at, actor, action, from_status, to_status, reason, request_id, amount, currency)
    SELECT id, version, updated_at, ${actor}, ${action}, ${from}, status, ${reason}, ${request}, amount, currency FROM changed
    RETURNING *`;
  const parts = [`changed AS (${change})`, `event AS (${event})`, ...(also === undefined ? [] : [`also AS (${also})`])];
  return changeOnce(name, parts.join(', '), parameters + 5);
}

export function eventValues({ action, from, reason }: Happening, { principal, requestId }: Origin): Value[] {
  return [principal, action, from, reason, requestId];
}

export function toEvent(row: EventRow): LoanEvent {
  return {
    sequence: row.sequence,
    at: toTimestamp(row.at),
    actor: row.actor,
    action: row.action,
    from: row.from_status,
    to: row.to_status,
    reason: row.reason,
    requestId: row.request_id,
    amount: parseAmount(row.amount),
    currency: row.currency,
    repaymentId: row.repayment_id,
  };
}
