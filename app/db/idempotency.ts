import { createHash } from 'node:crypto';
import { isNativeError } from 'node:util/types';
import { codeOf } from './faults';
import type { Database, Queryable, Statement, Value } from './pool';

/** One request that is done at most once: a key of the client's, within what it may be used for. */
export interface Claim {
  /**
   * The names of the client, the one to prefer first. An answer is kept under each of them and found under any: the
   * release before decision 45 knows a client whose API key was rotated by several names.
   */
  readonly principals: readonly string[];
  readonly operation: string;
  readonly key: string;
  /** Of what is asked for: the same key with another one is a mistake of the client. */
  readonly fingerprint: string;
}

/** An answer as it leaves, and leaves again for a repeated request. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** An answer that is to be kept under its claim. */
export interface Recorded extends Claim {
  readonly answer: Answer;
}

export interface Keys {
  /** What the same key was answered with, if that was not too long ago. */
  find(claim: Claim): Promise<Recorded | undefined>;
  /** Keeps the answer to a request that changed nothing; false if the key is taken or in use. */
  store(recorded: Recorded): Promise<boolean>;
  /** Deletes answers that are too old, a bounded number of them. Resolves to whether there may be more. */
  prune(): Promise<boolean>;
}

/**
 * Why a change was not made, and nothing written. `twin`: a request with the same key is being done, or was done.
 * `rival`: another request changed first what this one was to change.
 */
export type Conflict = 'twin' | 'rival';

/** A change of the database, alone and together with the answer to the request that asked for it. */
export interface Change {
  readonly plain: Statement<ChangeRow>;
  readonly keyed: Statement<ChangeRow>;
}

/** Whether something was changed, and whether the key was free. */
interface ChangeRow {
  readonly changed: string;
  readonly free: string;
}

const RETENTION = "interval '24 hours'";
const PRUNE_BATCH = 1_000;
const RECORDED_COLUMNS = 'principal, operation, key, fingerprint, status, headers, body';

interface AnswerRow {
  readonly fingerprint: string;
  readonly status: string;
  readonly headers: string;
  readonly body: string;
  readonly expired: string;
}

const FIND: Statement<AnswerRow> = {
  name: 'key_find',
  text: `SELECT fingerprint, status, headers, body, created_at < now() - ${RETENTION} AS expired
    FROM idempotency_keys WHERE principal = ANY ($1::text[]) AND operation = $2 AND key = $3
    ORDER BY expired, array_position($1::text[], principal) LIMIT 1`,
};
const FORGET: Statement<never> = {
  name: 'key_forget',
  text: `DELETE FROM idempotency_keys
    WHERE principal = ANY ($1::text[]) AND operation = $2 AND key = $3 AND created_at < now() - ${RETENTION}`,
};
const STORE: Statement<{ key: string }> = {
  name: 'key_store',
  text: `WITH ${freeIf(0)} INSERT INTO idempotency_keys (${RECORDED_COLUMNS}) SELECT ${recordedFrom(0)} FROM free RETURNING key`,
};
/** Several processes may prune at once: each takes what no other has taken. */
const PRUNE: Statement<{ pruned: string }> = {
  name: 'key_prune',
  text: `DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM idempotency_keys WHERE created_at < now() - ${RETENTION}
      ORDER BY created_at LIMIT ${PRUNE_BATCH} FOR UPDATE SKIP LOCKED))
    RETURNING 't' AS pruned`,
};

/**
 * A key is claimed, the change made and the answer stored by one statement: one round trip, and no moment at which
 * one is there without the others. The claim never waits for a twin inside the database, where it would hold a
 * connection: an advisory lock on the key is taken at once or not at all.
 *
 * @param change SQL of the parts of a WITH clause, the first of which, `changed`, changes something only
 * `WHERE EXISTS (SELECT FROM free)` and returns the changed rows
 * @param parameters how many it has; those of the key follow.
 */
export function changeOnce(name: string, change: string, parameters: number): Change {
  const outcome = 'SELECT EXISTS (SELECT FROM changed) AS changed, EXISTS (SELECT FROM free) AS free';
  return {
    plain: { name, text: `WITH free AS (SELECT), ${change} ${outcome}` },
    keyed: {
      name: `${name}_keyed`,
      text: `WITH ${freeIf(parameters)}, ${change}, kept AS (
          INSERT INTO idempotency_keys (${RECORDED_COLUMNS}) SELECT ${recordedFrom(parameters)} FROM (SELECT FROM changed LIMIT 1) AS one)
        ${outcome}`,
    },
  };
}

/** Makes the change, and resolves to why it was not made, if it was not. */
export async function apply(
  connection: Queryable,
  { plain, keyed }: Change,
  values: readonly Value[],
  recorded: Recorded | undefined,
): Promise<Conflict | undefined> {
  const rows =
    recorded === undefined
      ? await connection.query(plain, values)
      : await unlessTaken(() => connection.query(keyed, [...values, ...valuesOf(recorded)]));
  const [row] = rows;
  if (row?.changed === 't') return undefined;
  return row?.free === 't' ? 'rival' : 'twin';
}

export function createKeys(database: Database): Keys {
  return {
    async find(claim) {
      const values = [claim.principals, claim.operation, claim.key];
      const [row] = await database.query(FIND, values);
      if (row?.expired === 't') await database.query(FORGET, values);
      if (row === undefined || row.expired === 't') return undefined;
      const headers = JSON.parse(row.headers) as Record<string, string>;
      return {
        ...claim,
        fingerprint: row.fingerprint,
        answer: { status: Number(row.status), headers, body: row.body },
      };
    },
    async store(recorded) {
      return (await unlessTaken(() => database.query(STORE, valuesOf(recorded)))).length > 0;
    },
    async prune() {
      return (await database.query(PRUNE)).length === PRUNE_BATCH;
    },
  };
}

/** The locks that stand for a key while its request is being done, one for each name of the client. */
export function locksOf({ principals, operation, key }: Omit<Claim, 'fingerprint'>): string[] {
  return principals.map((principal) => lockOf(principal, operation, key));
}

function lockOf(principal: string, operation: string, key: string): string {
  return createHash('sha256').update([principal, operation, key].join('\0')).digest().readBigInt64BE().toString();
}

/** `free` has a row if the locks were to be had and the key is not taken. */
function freeIf(parameters: number): string {
  const [locks, principals, operation, key] = [1, 2, 3, 4].map((n) => `$${parameters + n}`);
  return `held AS MATERIALIZED (
      SELECT bool_and(pg_try_advisory_xact_lock(lock)) AS held FROM unnest(${locks}::bigint[]) AS lock),
    free AS MATERIALIZED (SELECT FROM held WHERE held AND NOT EXISTS (
      SELECT FROM idempotency_keys WHERE principal = ANY (${principals}::text[]) AND operation = ${operation} AND key = ${key}))`;
}

function recordedFrom(parameters: number): string {
  const types = ['text', 'text', 'text', 'smallint', 'jsonb', 'text'];
  const others = types.map((type, index) => `$${parameters + 3 + index}::${type}`);
  return [`unnest($${parameters + 2}::text[])`, ...others].join(', ');
}

/** In the order of freeIf and RECORDED_COLUMNS. */
function valuesOf(recorded: Recorded): Value[] {
  const { principals, operation, key, fingerprint, answer } = recorded;
  const { status, headers, body } = answer;
  return [locksOf(recorded), principals, operation, key, fingerprint, status, JSON.stringify(headers), body];
}

/**
 * A twin that was done between the moment the statement looked and the moment it had the lock is seen by the primary
 * key, which takes back all of the statement: no rows.
 */
async function unlessTaken<Row>(work: () => Promise<Row[]>): Promise<Row[]> {
  try {
    return await work();
  } catch (error) {
    const constraint: unknown = isNativeError(error) && 'constraint' in error ? error.constraint : undefined;
    if (codeOf(error) === '23505' && constraint === 'idempotency_keys_pkey') return [];
    throw error;
  }
}
