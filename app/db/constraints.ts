import { type Client, escapeIdentifier } from 'pg';
import { codeOf } from './faults';

/** A constraint that rows from before it break. It holds for every row that is written from now on. */
export interface Violation {
  readonly table: string;
  readonly constraint: string;
  /** How many rows break it. */
  readonly rows: number;
  /** Primary keys of the first of them. */
  readonly keys: readonly string[];
}

interface Unvalidated {
  readonly table: string;
  readonly constraint: string;
  /** Its condition. */
  readonly holds: string;
  /** Columns of the primary key, between commas. */
  readonly key: string | null;
}

const SHOWN_KEYS = 5;
/** Others read and write meanwhile; only a vacuum or another change of the table is waited for. */
const LOCK_TIMEOUT_MS = 10_000;
const CHECK_VIOLATION = '23514';
const LOCK_NOT_AVAILABLE = '55P03';

/**
 * Validates the CHECK constraints that a migration added as NOT VALID: reads each table while others use it. One that
 * old rows break stays NOT VALID, so that they do not stop a deploy; the next run tries again.
 * @returns those
 */
export async function validateConstraints(client: Client): Promise<Violation[]> {
  const { rows } = await client.query<Unvalidated>(`SELECT conrelid::regclass AS table, conname AS constraint,
      pg_get_expr(conbin, conrelid) AS holds,
      (SELECT string_agg(quote_ident(attname), ', ' ORDER BY array_position(indkey::smallint[], attnum))
        FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
        WHERE indrelid = conrelid AND indisprimary) AS key
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE connamespace = 'public'::regnamespace AND contype = 'c' AND NOT convalidated
      AND pg_has_role(current_user, relowner, 'USAGE')
    ORDER BY conrelid::regclass::text, conname`);
  const violations = [];
  await client.query(`SET lock_timeout = ${LOCK_TIMEOUT_MS}`);
  for (const each of rows) {
    try {
      await client.query(`ALTER TABLE ${each.table} VALIDATE CONSTRAINT ${escapeIdentifier(each.constraint)}`);
    } catch (error) {
      if (codeOf(error) === LOCK_NOT_AVAILABLE) continue;
      if (codeOf(error) !== CHECK_VIOLATION) throw error;
      violations.push(await describe(client, each));
    }
  }
  return violations;
}

async function describe(client: Client, { table, constraint, holds, key }: Unvalidated): Promise<Violation> {
  const { rows } = await client.query<{ rows: string; keys: string }>(`SELECT count(*) AS rows,
      array_to_json((array_agg(concat_ws(', ', ${key ?? 'ctid'})))[:${SHOWN_KEYS}]) AS keys
    FROM ${table} WHERE NOT (${holds})`);
  const { rows: count = '0', keys = '[]' } = rows[0] ?? {};
  return { table, constraint, rows: Number(count), keys: (JSON.parse(keys) as string[] | null) ?? [] };
}
