import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client } from 'pg';
import type { Config, Secrets } from '../config';
import { codeOf } from './faults';
import { connectionOptions } from './pool';

/** Beside this file in the sources, and beside the bundle in the image. */
const DIRECTORY = join(__dirname, 'migrations');
const FILE_NAME = /^(\d{4})_[a-z0-9_]+\.sql$/;
/** Any number that nothing else in this database uses for an advisory lock. */
const LOCK_KEY = 7_214_402;

/** A migration that cannot be run; the message says what to do. */
export class MigrationError extends Error {}

interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
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
}

/**
 * Brings the schema to the newest version, each file in a transaction of its own. Several runners may start at once:
 * one works, the others wait and then find nothing to do.
 * @throws MigrationError when a file was edited, is missing or fails. What a failing file did is rolled back.
 */
export async function migrate(
  database: Config['database'],
  secrets: Secrets,
  { directory = DIRECTORY, runnerTimeoutMs = 60_000, lockTimeoutMs = 5_000 }: Options = {},
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
    for (const migration of pending) await apply(client, migration);
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
    return { version, name, sql, checksum: createHash('sha256').update(sql).digest('hex') };
  });
}

async function takeTurn(client: Client, timeoutMs: number): Promise<void> {
  try {
    await client.query(`SET lock_timeout = ${timeoutMs}`);
    await client.query(`SELECT pg_advisory_lock(${LOCK_KEY})`);
  } catch (error) {
    if (codeOf(error) !== '55P03') throw error;
    throw new MigrationError(
      `another migration has been running for more than ${timeoutMs} ms. Wait for it, or end its database session.`,
      { cause: error },
    );
  }
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

async function apply(client: Client, { version, name, sql, checksum }: Migration): Promise<void> {
  try {
    await client.query('BEGIN');
    await client.query(sql);
    await client.query('INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)', [
      version,
      name,
      checksum,
    ]);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    const reason = error instanceof Error ? error.message : String(error);
    throw new MigrationError(`${name} failed and was rolled back: ${reason} (${codeOf(error) ?? 'no code'})`, {
      cause: error,
    });
  }
}
