import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { Client, escapeIdentifier } from 'pg';
import type { Config } from '../app/config';
import { digestOf } from '../app/db/api-keys';
import { migrate, MigrationError } from '../app/db/migrate';
import { formatApiKey } from '../app/domain/api-key';

/** Made-up loans, numbered from 1. All that is known of a loan follows from its number, so nobody has to be asked for ids. */
export interface DataSet {
  readonly database: string;
  readonly rows: number;
}

const MIGRATIONS = join(__dirname, '..', 'app/db/migrations');
/**
 * The loans are written under the schema of this migration and everything later is applied over them, as in a database
 * that has been in use for long: whatever a migration derives from loans is there, and the schema is the shipped one.
 */
const FILL_AFTER = 2;

/** One loan a minute, the last one a moment ago. Percentages as in app/db/samples.ts. */
const LOANS = `
  SELECT ${idOf('n')} AS id, 'usr_' || n % 999983 AS borrower_id,
    (100 + hash % 49900)::numeric(12, 2) + (hash / 7 % 100) * 0.01 AS amount,
    (ARRAY['KES', 'INR', 'NGN', 'VND', 'PHP'])[1 + hash % 5] AS currency,
    CASE WHEN hash % 50 = 0 THEN NULL ELSE (ARRAY[3, 4, 6, 9, 12, 18, 24])[1 + hash % 7] END AS term_months,
    CASE WHEN hash % 53 = 0 THEN NULL ELSE 18 + hash % 18 + (hash / 11 % 2) * 0.5 END AS interest_rate_apr,
    (ARRAY['pending', 'pending', 'pending', 'approved', 'approved', 'rejected', 'rejected', 'rejected', 'disbursed',
      'disbursed', 'disbursed', 'disbursed', 'disbursed', 'disbursed', 'repaid', 'repaid', 'repaid', 'repaid', 'repaid',
      'defaulted'])[1 + hash / 13 % 20] AS status,
    at AS created_at, at + (hash % 86400) * interval '1 second' AS updated_at
  FROM generate_series(1, $rows) AS n,
    LATERAL (SELECT abs(hashint4(n)) AS hash, now() - ($rows - n) * interval '1 minute' AS at) AS derived`;

/** What our service runs as, and the API key that it knows: no secret, since it opens nothing but made-up loans on this machine. */
export const ENVIRONMENT = 'bench';
const KEY = { environment: ENVIRONMENT, id: 'b'.repeat(12) };
export const API_KEY = formatApiKey(KEY, 'b'.repeat(32));

/** The id of loan number n, here and (as SQL) in LOANS: the MD5 of the number, marked as a UUID of version 4. */
export function loanId(n: number): string {
  const hex = createHash('md5').update(String(n)).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
}

function idOf(n: string): string {
  return `overlay(overlay(md5(${n}::text) placing '4' from 13) placing '8' from 17)::uuid`;
}

/**
 * A database with this many loans and the newest schema; made once, and afterwards only migrated. Loans that were
 * written by earlier runs stay in it.
 */
export async function prepareLoans(port: number, rows: number, fresh: boolean): Promise<DataSet> {
  const data = await withLoans(port, rows, fresh);
  await sql(port, data.database, [
    `INSERT INTO api_keys (id, digest, name, scopes, created_at)
      VALUES ('${KEY.id}', '${digestOf(API_KEY).toString('hex')}', 'bench', '{admin}', now()) ON CONFLICT (id) DO NOTHING`,
  ]);
  return data;
}

async function withLoans(port: number, rows: number, fresh: boolean): Promise<DataSet> {
  const database = `bench_${rows}`;
  if (fresh) await drop(port, database);
  if (await exists(port, database)) {
    try {
      await migrate(connectionTo(port, database), NO_PASSWORD);
      return { database, rows };
    } catch (error) {
      // A migration of a branch that has changed since.
      if (!(error instanceof MigrationError)) throw error;
      await drop(port, database);
    }
  }
  await build(port, database, async (unfinished) => {
    const connection = connectionTo(port, unfinished);
    await migrateTo(connection, FILL_AFTER);
    await sql(port, unfinished, [
      'ALTER TABLE loans DROP CONSTRAINT loans_pkey',
      `INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at)
        ${LOANS.replaceAll('$rows', String(rows))}`,
      'ALTER TABLE loans ADD PRIMARY KEY (id)',
    ]);
    await migrate(connection, NO_PASSWORD);
  });
  return { database, rows };
}

/**
 * The same loans for a program with a schema of its own.
 * @param createSchema makes the table `loans` in the database of this name
 */
export async function prepareForeignLoans(
  port: number,
  { name, rows }: { readonly name: string; readonly rows: number },
  createSchema: (database: string) => void,
): Promise<DataSet> {
  const database = `bench_${name}_${rows}`;
  if (!(await exists(port, database))) {
    await build(port, database, async (unfinished) => {
      createSchema(unfinished);
      await sql(port, unfinished, [
        `INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at)
          ${LOANS.replaceAll('$rows', String(rows))}`,
      ]);
    });
  }
  return { database, rows };
}

function connectionTo(port: number, name: string): Config['database'] {
  const budgets = { poolSize: 1, connectTimeoutMs: 5_000, queueMs: 0, statementTimeoutMs: 0, slowQueryMs: 600_000 };
  return { host: '127.0.0.1', port, name, user: 'postgres', ...budgets };
}

const NO_PASSWORD = { databasePassword: () => Promise.resolve('unused') };

/** Under another name until it is complete: an interrupted run leaves no half of it. */
async function build(port: number, database: string, fill: (unfinished: string) => Promise<void>): Promise<void> {
  const unfinished = `${database}_unfinished`;
  await drop(port, unfinished);
  await sql(port, 'postgres', [`CREATE DATABASE ${escapeIdentifier(unfinished)}`]);
  await fill(unfinished);
  await sql(port, unfinished, ['VACUUM (FREEZE, ANALYZE)', 'CHECKPOINT']);
  await sql(port, 'postgres', [
    `ALTER DATABASE ${escapeIdentifier(unfinished)} RENAME TO ${escapeIdentifier(database)}`,
  ]);
}

async function migrateTo(connection: Config['database'], version: number): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-bench-'));
  try {
    for (const file of readdirSync(MIGRATIONS)) {
      if (Number(file.slice(0, 4)) <= version) cpSync(join(MIGRATIONS, file), join(directory, file));
    }
    await migrate(connection, NO_PASSWORD, { directory });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function exists(port: number, database: string): Promise<boolean> {
  const [row] = await sql(port, 'postgres', [`SELECT count(*) AS n FROM pg_database WHERE datname = '${database}'`]);
  return Number(row?.['n']) > 0;
}

async function drop(port: number, database: string): Promise<void> {
  await sql(port, 'postgres', [`DROP DATABASE IF EXISTS ${escapeIdentifier(database)} WITH (FORCE)`]);
}

/** Runs the statements one after the other; resolves to the rows of the last. */
export async function sql(
  port: number,
  database: string,
  texts: readonly string[],
): Promise<Record<string, unknown>[]> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database });
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const text of texts) ({ rows } = await client.query<Record<string, unknown>>(text));
    return rows;
  } finally {
    await client.end();
  }
}
