import { isNativeError } from 'node:util/types';
import type { Loan } from '../domain/loan';
import { formatAmount } from '../domain/money';
import type { Origin } from './audit';
import { batched } from './batch';
import { codeOf, isFaultOfOne } from './faults';
import { locksOf, type Recorded } from './idempotency';
import type { Database, Queryable, Statement } from './pool';

/** One loan to be written, who asks for it, and the answer to keep under the request's key, if it has one. */
interface Opening {
  readonly loan: Loan;
  readonly origin: Origin;
  readonly recorded: Recorded | undefined;
}

/** With the locks of its key. */
interface Asked extends Opening {
  readonly locks: readonly string[] | undefined;
}

/**
 * The loans of several requests in one statement, and so in one round trip and one flush to disk: each with its event
 * and its answer, or not at all. A request whose key is in use or taken is left out; see changeOnce for the locks.
 * The look for a taken key is a scalar subquery, which is an index probe for each row whatever the planner believes
 * about the size of the table.
 */
const INSERT: Statement<{ id: string }> = {
  name: 'loan_insert',
  text: `WITH asked AS MATERIALIZED (
      SELECT * FROM json_to_recordset($1::json) AS asked (
        id uuid, borrower_id text, amount numeric, currency text, term_months int, interest_rate_apr numeric,
        status text, created_at timestamptz, version int, actor text, request_id text,
        locks bigint[], principals text[], operation text, key text, fingerprint text,
        answer_status smallint, answer_headers jsonb, answer_body text)
      WHERE locks IS NULL OR (SELECT bool_and(pg_try_advisory_xact_lock(lock)) FROM unnest(locks) AS lock)),
    free AS MATERIALIZED (
      SELECT * FROM asked WHERE key IS NULL OR (
        SELECT true FROM idempotency_keys k
        WHERE k.principal = ANY (asked.principals) AND k.operation = asked.operation AND k.key = asked.key LIMIT 1) IS NULL),
    event AS (
      INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, request_id, amount, currency)
      SELECT id, version, created_at, actor, 'created', status, request_id, amount, currency FROM free),
    kept AS (
      INSERT INTO idempotency_keys (principal, operation, key, fingerprint, status, headers, body)
      SELECT unnest(principals), operation, key, fingerprint, answer_status, answer_headers, answer_body
      FROM free WHERE key IS NOT NULL)
    INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at, version)
    SELECT id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, created_at, version FROM free
    RETURNING id`,
};

/** What would else be looked at by the COMMIT that does not come. */
const CHECK_AS_COMMIT: Statement<never> = { name: 'check_as_commit', text: 'SET CONSTRAINTS ALL IMMEDIATE' };

const MOST_AT_ONCE = 50;

/** What became of one opening: gives whether it was written, or throws why it could not be. */
type Outcome = () => boolean;

/** @returns false, and nothing written, if the key of the answer is taken or in use. */
export function createInsert(database: Database): (opening: Opening) => Promise<boolean> {
  const insert = batched(
    { size: MOST_AT_ONCE, inFlight: database.connections, queue: database.queueBefore },
    async (openings: readonly Asked[]) => {
      const outcomes = await insertAll(database, withoutTwins(openings));
      return openings.map((opening) => outcomes.get(opening) ?? notWritten);
    },
  );
  return async (opening) => {
    const outcome = await insert({ ...opening, locks: opening.recorded && locksOf(opening.recorded) });
    return outcome();
  };
}

/**
 * The same with all that it sets off in the database, and then all of it is taken back. Only numbers are used up, such
 * as that of the event.
 * @returns a function that rejects where the loan could not be written
 */
export function createDryRun(database: Database): (loan: Loan, origin: Origin) => Promise<void> {
  return async (loan, origin) => {
    const takenBack = new Error('All of it is taken back');
    try {
      await database.transaction(async (connection) => {
        const written = await insertRows(connection, [{ loan, origin, recorded: undefined, locks: undefined }]);
        if (!written.has(loan.id)) throw new Error('The database took the loan and did not write it');
        await connection.query(CHECK_AS_COMMIT);
        throw takenBack;
      });
    } catch (error) {
      if (error !== takenBack) throw error;
    }
  };
}

const notWritten: Outcome = () => false;

function failure(error: unknown): Outcome {
  return () => {
    throw error;
  };
}

/** @throws what is the fault of no opening, such as a lost connection */
async function insertAll(database: Database, openings: readonly Asked[]): Promise<ReadonlyMap<Asked, Outcome>> {
  try {
    const written = await insertRows(database, openings);
    return new Map(openings.map((opening) => [opening, () => written.has(opening.loan.id)]));
  } catch (error) {
    if (!isFaultOfOne(error)) throw error;
    // One of them spoils it for all: apart, it hurts nobody but itself.
    if (openings.length > 1) return insertEach(database, openings);
    // The twin was done between the moment the statement looked and the moment it had the lock.
    const outcome = isKeyTaken(error) ? notWritten : failure(error);
    return new Map(openings.map((opening) => [opening, outcome]));
  }
}

/**
 * One after the other, so that they take one connection and not the pool. When the database fails meanwhile, those who
 * were done keep their outcome, and those not tried yet share the failure.
 */
async function insertEach(database: Database, openings: readonly Asked[]): Promise<ReadonlyMap<Asked, Outcome>> {
  const outcomes = new Map<Asked, Outcome>();
  try {
    for (const opening of openings) {
      for (const [one, outcome] of await insertAll(database, [opening])) outcomes.set(one, outcome);
    }
  } catch (error) {
    for (const opening of openings) if (!outcomes.has(opening)) outcomes.set(opening, failure(error));
  }
  return outcomes;
}

async function insertRows(connection: Queryable, openings: readonly Asked[]): Promise<ReadonlySet<string>> {
  const rows = await connection.query(INSERT, [JSON.stringify(openings.map(toRow))]);
  return new Set(rows.map(({ id }) => id));
}

/** A lock is one for a whole session, so it does not tell two requests of one statement apart. */
function withoutTwins(openings: readonly Asked[]): Asked[] {
  const seen = new Set<string>();
  return openings.filter(({ locks = [] }) => {
    const isFirst = !locks.some((lock) => seen.has(lock));
    for (const lock of locks) seen.add(lock);
    return isFirst;
  });
}

function toRow({ loan, origin, recorded, locks }: Asked) {
  return {
    id: loan.id,
    borrower_id: loan.borrowerId,
    amount: formatAmount(loan.amount),
    currency: loan.currency,
    term_months: loan.termMonths,
    interest_rate_apr: loan.interestRateApr === null ? null : formatAmount(loan.interestRateApr),
    status: loan.status,
    created_at: loan.createdAt,
    version: loan.version,
    actor: origin.principal,
    request_id: origin.requestId,
    ...(recorded !== undefined && {
      locks,
      principals: recorded.principals,
      operation: recorded.operation,
      key: recorded.key,
      fingerprint: recorded.fingerprint,
      answer_status: recorded.answer.status,
      answer_headers: recorded.answer.headers,
      answer_body: recorded.answer.body,
    }),
  };
}

function isKeyTaken(error: unknown): boolean {
  const constraint: unknown = isNativeError(error) && 'constraint' in error ? error.constraint : undefined;
  return codeOf(error) === '23505' && constraint === 'idempotency_keys_pkey';
}
