import { createHash, randomInt } from 'node:crypto';
import { formatApiKey, ID, isScope, type Scope, SECRET } from '../domain/api-key';
import { type Database, type Queryable, type Statement, toTimestamp, type Value } from './pool';

/** A key as it is kept. Times are ISO 8601, UTC; null where it did not happen, or never will. */
export interface StoredKey {
  readonly id: string;
  /** SHA-256 of the whole key. */
  readonly digest: Buffer;
  readonly name: string;
  readonly scopes: readonly Scope[];
  readonly createdAt: string;
  readonly expiresAt: string | null;
  readonly revokedAt: string | null;
  readonly lastUsedAt: string | null;
  readonly replacedBy: string | null;
}

/** A key and the client that it belongs to: a client is the chain of keys that rotations made, one after the other. */
export interface ClientKey extends StoredKey {
  /** The id of the chain's first key. It names the client, and no rotation changes it. */
  readonly client: string;
  /** The ids of the chain's keys that were in force within the last day, or will be. */
  readonly recent: readonly string[];
}

/** A new key. Its text is known here and now, and never again. */
export interface NewKey {
  readonly text: string;
  readonly stored: StoredKey;
}

/** What was asked for cannot be done to this key; the message says why. */
export class ApiKeyError extends Error {}

export interface ApiKeys {
  /** Those that exist, by id. */
  find(ids: readonly string[]): Promise<Map<string, ClientKey>>;
  /** The newest last. */
  list(): Promise<ClientKey[]>;
  create(key: { name: string; scopes: readonly Scope[]; expiresAt: Date | null }, now: Date): Promise<NewKey>;
  /** From now on it is refused. A key that was revoked already stays as it is. @throws ApiKeyError */
  revoke(id: string, now: Date): Promise<StoredKey>;
  /**
   * Makes a key with the same name, scopes and lifetime, and lets the old one expire after the overlap, or when it
   * would have anyhow. @throws ApiKeyError for a key that is no longer in force or was rotated before
   */
  rotate(id: string, overlapMs: number, now: Date): Promise<NewKey>;
  /** Notes when keys were used last, in milliseconds since 1970; never sets a time back. */
  recordUse(uses: ReadonlyMap<string, number>): Promise<void>;
}

interface KeyRow {
  readonly id: string;
  readonly digest: string;
  readonly name: string;
  readonly scopes: string;
  readonly created_at: string;
  readonly expires_at: string | null;
  readonly revoked_at: string | null;
  readonly last_used_at: string | null;
  readonly replaced_by: string | null;
}

interface ClientKeyRow extends KeyRow {
  readonly client: string;
  readonly recent: string | null;
}

const COLUMNS =
  "id, digest, name, array_to_string(scopes, ',') AS scopes, created_at, expires_at, revoked_at, last_used_at, replaced_by";
const FIND: Statement<ClientKeyRow> = {
  name: 'api_key_find',
  text: withClients('id = ANY ($1::text[])'),
};
const LIST: Statement<ClientKeyRow> = {
  name: 'api_key_list',
  text: `${withClients('true')} ORDER BY created_at, id`,
};
const LOCK: Statement<KeyRow> = {
  name: 'api_key_lock',
  text: `SELECT ${COLUMNS} FROM api_keys WHERE id = $1 FOR UPDATE`,
};
const INSERT: Statement<KeyRow> = {
  name: 'api_key_insert',
  text: `INSERT INTO api_keys (id, digest, name, scopes, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6) RETURNING ${COLUMNS}`,
};
const REVOKE: Statement<KeyRow> = {
  name: 'api_key_revoke',
  text: `UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING ${COLUMNS}`,
};
const REPLACE: Statement<never> = {
  name: 'api_key_replace',
  text: 'UPDATE api_keys SET replaced_by = $2, expires_at = least(expires_at, $3::timestamptz) WHERE id = $1',
};
const RECORD_USE: Statement<never> = {
  name: 'api_key_use',
  text: `UPDATE api_keys SET last_used_at = used.at FROM unnest($1::text[], $2::timestamptz[]) AS used (id, at)
    WHERE api_keys.id = used.id AND (last_used_at IS NULL OR last_used_at < used.at)`,
};

/**
 * The keys that a condition chooses, each with its client. The chain is read from `replaced_by` in both directions, and
 * not stored a second time: a release that knows nothing of clients rotates keys as well.
 *
 * Idempotent answers are kept for a day; the hour more is for clocks that differ.
 */
function withClients(condition: string): string {
  return `WITH RECURSIVE chain (asked, id, next) AS (
      SELECT id, id, replaced_by FROM api_keys WHERE ${condition}
      UNION
      SELECT asked, linked.id, linked.replaced_by
      FROM chain JOIN api_keys AS linked ON linked.id = chain.next OR linked.replaced_by = chain.id)
    SELECT ${COLUMNS},
      (SELECT id FROM chain WHERE asked = api_keys.id AND NOT EXISTS (
        SELECT FROM chain AS before WHERE before.asked = chain.asked AND before.next = chain.id)) AS client,
      (SELECT string_agg(linked.id, ',') FROM chain JOIN api_keys AS linked USING (id) WHERE asked = api_keys.id
        AND coalesce(least(linked.expires_at, linked.revoked_at), 'infinity') > now() - interval '25 hours') AS recent
    FROM api_keys WHERE ${condition}`;
}

/** What is kept of a key: over all of it, so that neither its environment nor its id can be exchanged. */
export function digestOf(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** @param environment that the keys are made for */
export function createApiKeys(database: Database, environment: string): ApiKeys {
  async function insert(
    connection: Queryable,
    { name, scopes, expiresAt }: { name: string; scopes: readonly Scope[]; expiresAt: Date | null },
    now: Date,
  ): Promise<NewKey> {
    const id = draw(ID);
    const text = formatApiKey({ environment, id }, draw(SECRET));
    const digest = digestOf(text).toString('hex');
    const values = [id, digest, name, scopes, now.toISOString(), expiresAt?.toISOString() ?? null];
    const [row] = await connection.query(INSERT, values);
    return { text, stored: toStoredKey(row as KeyRow) };
  }

  return {
    async find(ids) {
      const rows = await database.query(FIND, [ids]);
      return new Map(rows.map((row) => [row.id, toClientKey(row)]));
    },
    async list() {
      return (await database.query(LIST)).map(toClientKey);
    },
    create: (key, now) => insert(database, key, now),
    async revoke(id, now) {
      const [row] = await database.query(REVOKE, [id, now.toISOString()]);
      if (row === undefined) throw unknownKey(id);
      return toStoredKey(row);
    },
    rotate: (id, overlapMs, now) =>
      database.transaction(async (connection) => {
        const [row] = await connection.query(LOCK, [id]);
        if (row === undefined) throw unknownKey(id);
        const old = toStoredKey(row);
        refuseUnlessInForce(old, now);
        const lifetimeMs = old.expiresAt === null ? null : Date.parse(old.expiresAt) - Date.parse(old.createdAt);
        const expiresAt = lifetimeMs === null ? null : new Date(now.getTime() + lifetimeMs);
        const next = await insert(connection, { ...old, expiresAt }, now);
        const end = new Date(now.getTime() + overlapMs).toISOString();
        await connection.query(REPLACE, [id, next.stored.id, end]);
        return next;
      }),
    async recordUse(uses) {
      const values: Value[] = [[...uses.keys()], [...uses.values()].map((at) => new Date(at).toISOString())];
      await database.query(RECORD_USE, values);
    },
  };
}

function refuseUnlessInForce({ id, revokedAt, expiresAt, replacedBy }: StoredKey, now: Date): void {
  const instead = 'Create a new one instead.';
  if (revokedAt !== null) throw new ApiKeyError(`The key ${id} was revoked at ${revokedAt}. ${instead}`);
  if (replacedBy !== null) {
    throw new ApiKeyError(
      `The key ${id} was rotated already: ${replacedBy} follows it. Rotate that one, or ${instead.toLowerCase()}`,
    );
  }
  if (expiresAt !== null && Date.parse(expiresAt) <= now.getTime()) {
    throw new ApiKeyError(`The key ${id} expired at ${expiresAt}. ${instead}`);
  }
}

function unknownKey(id: string): ApiKeyError {
  return new ApiKeyError(`There is no key "${id}". The command "api-key list" shows the ids.`);
}

function draw({ alphabet, length }: { readonly alphabet: string; readonly length: number }): string {
  return Array.from({ length }, () => alphabet[randomInt(alphabet.length)] ?? '').join('');
}

function toClientKey(row: ClientKeyRow): ClientKey {
  return { ...toStoredKey(row), client: row.client, recent: row.recent?.split(',') ?? [] };
}

function toStoredKey(row: KeyRow): StoredKey {
  const time = (text: string | null) => (text === null ? null : toTimestamp(text));
  return {
    id: row.id,
    digest: Buffer.from(row.digest, 'hex'),
    name: row.name,
    // A scope of a newer release means nothing to this one.
    scopes: row.scopes.split(',').filter(isScope),
    createdAt: toTimestamp(row.created_at),
    expiresAt: time(row.expires_at),
    revokedAt: time(row.revoked_at),
    lastUsedAt: time(row.last_used_at),
    replacedBy: row.replaced_by,
  };
}
