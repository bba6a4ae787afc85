import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { migrate } from '../../app/db/migrate';
import { createDatabase, type TestDatabase } from '../postgres/database';

/** The folder of them. */
export const ALL_MIGRATIONS = join(__dirname, '..', '..', 'app', 'db', 'migrations');

/** File names, in order. */
export const MIGRATIONS: readonly string[] = readdirSync(ALL_MIGRATIONS).sort();

/** What the release before migration 0002 runs to insert a loan. */
export const OLD_INSERT = `INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at)
  VALUES (gen_random_uuid(), 'b', 12500, 'KES', 6, 28, 'disbursed', '2026-01-01T00:00:00Z', now()) RETURNING id`;

/** A database whose schema grows step by step, as it does with one release after the other. */
export async function withReleases(
  work: (database: TestDatabase, upTo: (migration: number) => Promise<void>) => Promise<void>,
): Promise<void> {
  const database = await createDatabase({ migrated: false });
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-releases-'));
  try {
    await work(database, async (migration) => {
      for (const name of MIGRATIONS.slice(0, migration)) cpSync(join(ALL_MIGRATIONS, name), join(directory, name));
      await migrate(database.owner, database.secrets, { directory });
    });
  } finally {
    await database.drop();
    rmSync(directory, { recursive: true });
  }
}
