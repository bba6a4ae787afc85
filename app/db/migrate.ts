import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import type { Config, Secrets } from '../config';
import { codeOf } from './faults';
import { connectionOptions } from './pool';

/** Beside this file in the sources, and beside the bundle in the image. */
const DIRECTORY = join(__dirname, 'migrations');
const FILE_NAME = /^(\d{4})_[a-z0-9_]+\.sql$/;
/** Any number that nothing else in this database uses for an advisory lock. */
const LOCK_KEY = 7_214_402;
const TURN_POLL_MS = 100;

/**
 * First line of a migration that builds indexes while others write: `CREATE INDEX CONCURRENTLY` statements and nothing
 * else, each with a name, and none in a transaction. They are built one after the other; a run that was cut off goes on
 * with the next run, and builds anew what it left half done.
 */
const OUTSIDE_A_TRANSACTION = '-- outside a transaction\n';
const BUILD_INDEX = /^CREATE (?:UNIQUE )?INDEX CONCURRENTLY ([a-z][a-z0-9_]*) ON [^;]+$/;

/** A migration that cannot be run; the message says what to do. */
export class MigrationError extends Error {}

interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
  /** Where it is one that builds indexes outside a transaction. */
  readonly indexes: readonly Index[] | undefined;
}

interface Index {
  readonly name: string;
  readonly statement: string;
}

export interface MigrationResult {
  /** File names, in the order in which they were applied now. */
  readonly applied: readonly string[];
  /** Of the database, afterwards. */
  readonly version: number;
  /** Names that a newer release has applied: normal after a roll-back, since migrations only ever expand first. */
  readonly ahead: readonly string[];
}

interface Options {
  readonly directory?: string;
  /** How long to wait for another runner to finish. */
  readonly runnerTimeoutMs?: number;
  /** How long one statement may wait for a lock, with everyone else queued behind it. */
  readonly lockTimeoutMs?: number;
  /** How long an index may wait for transactions that began before it, with nobody queued behind it. */
  readonly indexTimeoutMs?: number;
}

/**
 * Brings the schema to the newest version, each file in a transaction of its own (see OUTSIDE_A_TRANSACTION for the
 * exception). Several runners may start at once: one works, the others wait and then find nothing to do.
 * @throws MigrationError when a file was edited, is missing or fails. What a failing file did is rolled back.
 */
export async function migrate(
  database: Config['database'],
  secrets: Secrets,
  { directory = DIRECTORY, runnerTimeoutMs = 60_000, lockTimeoutMs = 5_000, indexTimeoutMs = 600_000 }: Options = {},
): Promise<MigrationResult> {
  const migrations = readMigrations(directory);
  const client = new Client(connectionOptions(database, secrets, 'branchloans-migrate'));
  client.on('error', () => undefined); // The query in flight reports it.
  await client.connect();
  try {
    await takeTurn(client, runnerTimeoutMs);
    await client.query(`SET lock_timeout = ${lockTimeoutMs}`);
    await client.query(`CREATE TABLE IF NOT EXISTS schema_migrations (
      version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`);
    const { rows } = await client.query<AppliedRow>(
      'SELECT version, name, checksum FROM schema_migrations ORDER BY version',
    );
    const pending = compare(migrations, rows);
    for (const migration of pending) {
      await (migration.indexes === undefined
        ? apply(client, migration)
        : buildIndexes(client, migration, migration.indexes, indexTimeoutMs, lockTimeoutMs));
    }
    const newest = migrations.at(-1)?.version ?? 0;
    const ahead = rows.filter((row) => Number(row.version) > newest);
    return {
      applied: pending.map(({ name }) => name),
      version: Math.max(newest, ...ahead.map((row) => Number(row.version))),
      ahead: ahead.map(({ name }) => name),
    };
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The schema version that this release brings. @throws MigrationError when its files are not in order */
export function newestMigration(): number {
  return readMigrations(DIRECTORY).at(-1)?.version ?? 0;
}

function readMigrations(directory: string): Migration[] {
  const names = readdirSync(directory).sort();
  return names.map((name, index) => {
    const version = Number(FILE_NAME.exec(name)?.[1]);
    if (version !== index + 1) {
      throw new MigrationError(
        `${name}: expected migration number ${index + 1} here. Name the files 0001_what_it_does.sql and on, without gaps or doubles.`,
      );
    }
    const sql = readFileSync(join(directory, name), 'utf8');
    const checksum = createHash('sha256').update(sql).digest('hex');
    return { version, name, sql, checksum, indexes: readIndexes(name, sql) };
  });
}

function readIndexes(name: string, sql: string): Index[] | undefined {
  if (!sql.startsWith(OUTSIDE_A_TRANSACTION)) return undefined;
  const statements = sql.replace(/^--.*$/gm, '').split(/;\s*$/m);
  return statements
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '')
    .map((statement) => {
      const [, index] = BUILD_INDEX.exec(statement) ?? [];
      if (index !== undefined) return { name: index, statement };
      throw new MigrationError(
        `${name}: outside a transaction there can only be CREATE INDEX CONCURRENTLY name ON …, each ended by a semicolon at the end of a line. Put anything else into a migration of its own.`,
      );
    });
}

/** Asks again and again: a session that waited inside the database would itself be waited for by an index that is built. */
async function takeTurn(client: Client, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isTurn(client))) {
    if (performance.now() > deadline) {
      throw new MigrationError(
        `another migration has been running for more than ${timeoutMs} ms. Wait for it, or end its database session.`,
      );
    }
    await sleep(TURN_POLL_MS);
  }
}

async function isTurn(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ taken: string }>(`SELECT pg_try_advisory_lock(${LOCK_KEY}) AS taken`);
  return rows[0]?.taken === 't';
}

interface AppliedRow {
  readonly version: string;
  readonly name: string;
  readonly checksum: string;
}

/** Which migrations are still to be run. */
function compare(migrations: readonly Migration[], applied: readonly AppliedRow[]): Migration[] {
  const byVersion = new Map(applied.map((row) => [Number(row.version), row]));
  const pending = migrations.filter(({ version }) => !byVersion.has(version));
  const firstPending = pending[0]?.version ?? Infinity;
  for (const { version, name, checksum } of migrations) {
    const row = byVersion.get(version);
    if (row !== undefined && row.checksum !== checksum) {
      throw new MigrationError(
        `${name} was edited after it was applied (as ${row.name}). Restore the file, and put the change into a new migration.`,
      );
    }
  }
  const orphan = applied.find((row) => Number(row.version) > firstPending);
  if (orphan !== undefined) {
    throw new MigrationError(
      `the database already has ${orphan.name}, but not ${pending[0]?.name ?? ''}: a file is missing from this release or was renumbered.`,
    );
  }
  return pending;
}

async function apply(client: Client, migration: Migration): Promise<void> {
  try {
    await client.query('BEGIN');
    await client.query(migration.sql);
    await record(client, migration);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw failure(error, `${migration.name} failed and was rolled back`);
  }
}

/** An index that could not be finished stays behind, without use, and costs every insert until it is dropped. */
async function buildIndexes(
  client: Client,
  migration: Migration,
  indexes: readonly Index[],
  indexTimeoutMs: number,
  lockTimeoutMs: number,
): Promise<void> {
  try {
    await client.query(`SET lock_timeout = ${indexTimeoutMs}`);
    for (const { name, statement } of indexes) {
      const { rows } = await client.query<{ valid: string }>(
        'SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass($1)',
        [name],
      );
      if (rows[0]?.valid === 't') continue;
      if (rows[0] !== undefined) await client.query(`DROP INDEX CONCURRENTLY ${name}`);
      await client.query(statement);
    }
    await client.query(`SET lock_timeout = ${lockTimeoutMs}`);
    await record(client, migration);
  } catch (error) {
    throw failure(error, `${migration.name} failed; the next run goes on with it`);
  }
}

async function record(client: Client, { version, name, checksum }: Migration): Promise<void> {
  await client.query('INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)', [
    version,
    name,
    checksum,
  ]);
}

function failure(error: unknown, what: string): MigrationError {
  const reason = error instanceof Error ? error.message : String(error);
  return new MigrationError(`${what}: ${reason} (${codeOf(error) ?? 'no code'})`, { cause: error });
}
