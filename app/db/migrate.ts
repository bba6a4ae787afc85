import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { type Config, DATABASE_ROLES, type Secrets } from '../config';
import { validateConstraints, type Violation } from './constraints';
import { codeOf } from './faults';
import { connectionOptions } from './pool';
import { grantPrivileges } from './privileges';
import { type Statement, statementsOf } from './statements';

/** Beside this file in the sources, and beside the bundle in the image. */
const DIRECTORY = join(__dirname, 'migrations');
const FILE_NAME = /^(\d{4})_[a-z0-9_]+\.sql$/;
/** Any number that nothing else in this database uses for an advisory lock. */
const LOCK_KEY = 7_214_402;
const TURN_POLL_MS = 100;
/** Between two attempts to get a lock, so that those who queued behind the first one are through. */
const LOCK_PAUSE_MS = 500;
const LOCK_NOT_AVAILABLE = '55P03';
const INSUFFICIENT_PRIVILEGE = '42501';

/**
 * First line of a migration that builds or drops indexes while others write: `CREATE INDEX CONCURRENTLY` and
 * `DROP INDEX CONCURRENTLY` statements and nothing else, each with a name, and none in a transaction. They run one after
 * the other; a run that was cut off goes on with the next run, and builds anew what it left half done.
 */
export const OUTSIDE_A_TRANSACTION = '-- outside a transaction\n';
const BUILD_INDEX = /^CREATE (?:UNIQUE )?INDEX CONCURRENTLY (?<name>[a-z][a-z0-9_]*) ON /;
const DROP_INDEX = /^DROP INDEX CONCURRENTLY (?<name>[a-z][a-z0-9_]*)$/;

/** A migration that cannot be run; the message says what to do. */
export class MigrationError extends Error {}

interface Migration {
  readonly version: number;
  readonly name: string;
  readonly checksum: string;
  readonly statements: readonly Statement[];
  /** Where it is one that is about indexes, outside a transaction. */
  readonly indexes: readonly IndexChange[] | undefined;
}

interface IndexChange {
  readonly statement: Statement;
  /** Of the index. */
  readonly name: string;
}

export interface MigrationResult {
  /** File names, in the order in which they were applied now. */
  readonly applied: readonly string[];
  /** Of the database, afterwards. */
  readonly version: number;
  /** Names that a newer release has applied: normal after a roll-back, since migrations only ever expand first. */
  readonly ahead: readonly string[];
  /** Constraints that old rows break, if there are any. */
  readonly violated?: readonly Violation[];
}

interface Options {
  readonly directory?: string;
  /** How long to wait for another runner to finish. */
  readonly runnerTimeoutMs?: number;
  /** How long one statement may wait for a lock, with everyone else queued behind it. Shorter than they wait for. */
  readonly lockTimeoutMs?: number;
  /** For how long a migration is tried again because it did not get a lock. */
  readonly lockPatienceMs?: number;
  /** How long an index may wait for transactions that began before it, with nobody queued behind it. */
  readonly indexTimeoutMs?: number;
}

type Patience = Required<Pick<Options, 'lockTimeoutMs' | 'lockPatienceMs' | 'indexTimeoutMs'>>;

/**
 * Brings the schema to the newest version, each file in a transaction of its own (see OUTSIDE_A_TRANSACTION for the
 * exception). Several runners may start at once: one works, the others wait and then find nothing to do.
 *
 * A statement that waits for a lock makes all wait that come after it. So it waits for a moment only; then the file is
 * rolled back and, when those have gone on, tried again.
 *
 * Afterwards the roles get their privileges (see privileges.ts), unless a newer release has given them its own, and
 * constraints that are not validated yet are (see constraints.ts).
 * @throws MigrationError when a file was edited, is missing or fails. What a failing file did is rolled back.
 */
export async function migrate(
  database: Config['database'],
  secrets: Secrets,
  { directory = DIRECTORY, runnerTimeoutMs = 60_000, ...options }: Options = {},
): Promise<MigrationResult> {
  const patience = { lockTimeoutMs: 100, lockPatienceMs: 60_000, indexTimeoutMs: 600_000, ...options };
  const migrations = readMigrations(directory);
  const client = new Client(connectionOptions(database, secrets, 'branchloans-migrate'));
  client.on('error', () => undefined); // The query in flight reports it.
  await client.connect();
  try {
    await takeTurn(client, runnerTimeoutMs);
    await client.query(`SET lock_timeout = ${patience.lockTimeoutMs}`);
    await makeRecord(client, database.user);
    const { rows } = await client.query<AppliedRow>(
      'SELECT version, name, checksum FROM schema_migrations ORDER BY version',
    );
    const pending = compare(migrations, rows);
    for (const migration of pending) {
      await (migration.indexes === undefined
        ? apply(client, migration, patience)
        : changeIndexes(client, migration, migration.indexes, patience));
    }
    const newest = migrations.at(-1)?.version ?? 0;
    const ahead = rows.filter((row) => Number(row.version) > newest);
    // The privileges are those of this release's own schema.
    if (ahead.length === 0 && directory === DIRECTORY)
      await patiently(
        client,
        patience,
        () => 'Granting privileges',
        () => grantPrivileges(client),
      );
    const violated = await validateConstraints(client);
    return {
      applied: pending.map(({ name }) => name),
      version: Math.max(newest, ...ahead.map((row) => Number(row.version))),
      ahead: ahead.map(({ name }) => name),
      ...(violated.length > 0 && { violated }),
    };
  } finally {
    await client.end().catch(() => undefined);
  }
}

/** The schema version that this release brings. @throws MigrationError when its files are not in order */
export function newestMigration(directory = DIRECTORY): number {
  return readMigrations(directory).at(-1)?.version ?? 0;
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
    const statements = statementsOf(sql);
    const indexes = sql.startsWith(OUTSIDE_A_TRANSACTION) ? indexesOf(name, statements) : undefined;
    return { version, name, checksum, statements, indexes };
  });
}

function indexesOf(file: string, statements: readonly Statement[]): IndexChange[] {
  return statements.map((statement) => {
    const name = (BUILD_INDEX.exec(statement.text) ?? DROP_INDEX.exec(statement.text))?.groups?.['name'];
    if (name !== undefined) return { statement, name };
    throw new MigrationError(
      `${file}:${statement.line}: outside a transaction there can only be CREATE INDEX CONCURRENTLY name ON … and DROP INDEX CONCURRENTLY name. Put anything else into a migration of its own.`,
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

async function makeRecord(client: Client, user: string): Promise<void> {
  try {
    await client.query(`CREATE TABLE IF NOT EXISTS schema_migrations (
      version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`);
  } catch (error) {
    if (codeOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
    throw new MigrationError(
      `The role ${user} may not change the schema. Run migrate as the owner of the database: DATABASE_USER=${DATABASE_ROLES.owner}, with its password.`,
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

async function apply(client: Client, migration: Migration, patience: Patience): Promise<void> {
  let statement: Statement | undefined;
  await patiently(
    client,
    patience,
    (error) => placeOf(migration, statement, error),
    async () => {
      for (statement of migration.statements) await client.query(statement.text);
      statement = undefined;
      await record(client, migration);
    },
  );
}

/** Does the work in a transaction, and again while it gets no lock. @param placeOf what failed, for the message */
async function patiently(
  client: Client,
  { lockTimeoutMs, lockPatienceMs }: Patience,
  placeOf: (error: unknown) => string,
  work: () => Promise<void>,
): Promise<void> {
  const deadline = performance.now() + lockPatienceMs;
  for (;;) {
    try {
      await client.query('BEGIN');
      await work();
      await client.query('COMMIT');
      return;
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined);
      const what = `${placeOf(error)} failed and was rolled back`;
      if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw failure(error, what);
      if (performance.now() > deadline) {
        throw failure(
          error,
          `${what}: for ${lockPatienceMs} ms it did not get a lock within ${lockTimeoutMs} ms, and longer it may not wait, since all others wait behind it. ${await holdersOfLocks(client)}`,
        );
      }
      await sleep(LOCK_PAUSE_MS);
    }
  }
}

/** An index that could not be finished stays behind, without use, and costs every insert until it is dropped. */
async function changeIndexes(
  client: Client,
  migration: Migration,
  indexes: readonly IndexChange[],
  { lockTimeoutMs, indexTimeoutMs }: Patience,
): Promise<void> {
  let statement: Statement | undefined;
  try {
    // Nobody waits behind these. They wait for every transaction that began before them.
    await client.query(`SET lock_timeout = ${indexTimeoutMs}`);
    for (const index of indexes) {
      const { name } = index;
      ({ statement } = index);
      const { rows } = await client.query<{ valid: string }>(
        'SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = to_regclass($1)',
        [name],
      );
      const isThere = rows[0] !== undefined;
      if (DROP_INDEX.test(statement.text)) {
        if (isThere) await client.query(statement.text);
        continue;
      }
      if (rows[0]?.valid === 't') continue;
      if (isThere) await client.query(`DROP INDEX CONCURRENTLY ${name}`);
      await client.query(statement.text);
    }
    statement = undefined;
    await client.query(`SET lock_timeout = ${lockTimeoutMs}`);
    await record(client, migration);
  } catch (error) {
    throw failure(error, `${placeOf(migration, statement, error)} failed; the next run goes on with it`);
  }
}

/** File and line of what failed. */
function placeOf({ name }: Migration, statement: Statement | undefined, error: unknown): string {
  if (statement === undefined) return name;
  // Postgres counts the characters of the statement, from 1, where it knows more than that it was this one.
  const position = Number((error as { position?: string }).position ?? 1);
  return `${name}:${statement.line + statement.text.slice(0, position - 1).split('\n').length - 1}`;
}

/** For whoever has to decide what to do about them. */
async function holdersOfLocks(client: Client): Promise<string> {
  const { rows } = await client.query<{ process: string }>(
    `SELECT format('process %s (%s)', pid, concat_ws(', ', nullif(application_name, ''), usename, state,
        round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s')) AS process
      FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid IN (
        SELECT pid FROM pg_locks WHERE granted AND locktype = 'relation' AND relation >= 16384)
      ORDER BY xact_start LIMIT 3`,
  );
  if (rows.length === 0) return 'Nobody holds one now: try again';
  const processes = rows.map(({ process }) => process).join('; ');
  return `Locks are held by ${processes}. Wait until that has ended, or end it with SELECT pg_terminate_backend(process), and try again`;
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
