import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { migrate } from '../../app/db/migrate';
import { LOAN, startService, type TestService } from '../api/harness';
import { ALL_MIGRATIONS, MIGRATIONS } from '../api/migrations';

/** A migration that fails half-way, while the release before it serves. */

let api: TestService;
let directory: string;
beforeEach(async () => {
  api = await startService();
  directory = mkdtempSync(join(tmpdir(), 'branchloans-halfway-'));
  cpSync(ALL_MIGRATIONS, directory, { recursive: true });
});
afterEach(async () => {
  await api.stop();
  rmSync(directory, { recursive: true });
});

const next = `${String(MIGRATIONS.length + 1).padStart(4, '0')}_halfway.sql`;
const run = () => migrate(api.database.owner, api.database.secrets, { directory });

/** Everything in the catalogue that somebody could see a difference by, as text; and what is written. */
async function everything(): Promise<string> {
  const queries = [
    `SELECT c.oid, c.relfilenode, relname, relkind, relhastriggers, reloptions, attnum, attname, atttypid, atttypmod, attnotnull, attisdropped
      FROM pg_class AS c LEFT JOIN pg_attribute ON attrelid = c.oid WHERE relnamespace = 'public'::regnamespace ORDER BY c.oid, attnum`,
    `SELECT oid, pg_get_constraintdef(oid) AS definition, convalidated FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY oid`,
    `SELECT indexrelid, pg_get_indexdef(indexrelid) AS definition, indisvalid FROM pg_index WHERE indexrelid >= 16384 ORDER BY 1`,
    `SELECT oid, pg_get_triggerdef(oid) AS definition, tgenabled FROM pg_trigger ORDER BY oid`,
    `SELECT oid, pg_get_functiondef(oid) AS definition FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY oid`,
    `SELECT adrelid, adnum, pg_get_expr(adbin, adrelid) AS definition FROM pg_attrdef ORDER BY 1, 2`,
    `SELECT oid, typname FROM pg_type WHERE typnamespace = 'public'::regnamespace ORDER BY oid`,
    'SELECT * FROM schema_migrations ORDER BY version',
    'SELECT * FROM loans ORDER BY id',
    'SELECT * FROM loan_totals ORDER BY shard, currency, status',
  ];
  const found = [];
  for (const query of queries) found.push(await api.database.sql(query));
  return JSON.stringify(found, null, 1);
}

it('leaves schema, record and data as they were, says where it failed, and the API answers on', async () => {
  expect((await api.post(LOAN)).status).toBe(201);
  const before = await everything();
  writeFileSync(
    join(directory, next),
    `CREATE TABLE branches (id uuid PRIMARY KEY);
ALTER TABLE loans ADD COLUMN branch text;
CREATE FUNCTION branch_of(loan loans) RETURNS text LANGUAGE sql AS $$ SELECT ';' $$;
CREATE TRIGGER a_trigger BEFORE TRUNCATE ON loans FOR EACH STATEMENT EXECUTE FUNCTION loan_events_are_final();

UPDATE loans SET branch = 'none',
  borrower_id = '';
CREATE TABLE never (id int);
`,
  );

  const answers: number[] = [];
  let failed = false;
  const users = async () => {
    while (!failed) {
      answers.push((await api.ask('GET', '/api/v1/loans')).status, (await api.ask('GET', '/api/v1/stats')).status);
      answers.push((await api.ask('GET', '/health/ready')).status);
    }
  };
  const asking = users();
  const migrating = run().finally(() => (failed = true));
  await expect(migrating).rejects.toThrow(
    `${next}:6 failed and was rolled back: new row for relation "loans" violates check constraint "loans_borrower_id_check" (23514)`,
  );
  await asking;
  expect(await everything()).toBe(before);
  expect(answers.filter((status) => status !== 200)).toEqual([]);
  expect(answers.length).toBeGreaterThan(0);
  expect((await api.post(LOAN)).status).toBe(201);

  // And the next one, which is well, has nothing in its way.
  writeFileSync(join(directory, next), 'ALTER TABLE loans ADD COLUMN branch text;');
  expect((await run()).applied).toEqual([next]);
  expect((await api.post(LOAN)).status).toBe(201);
});

it('leaves an index half built, which nobody uses, and builds it anew', async () => {
  await Promise.all([api.post(LOAN), api.post(LOAN)]);
  writeFileSync(
    join(directory, next),
    `-- outside a transaction\nCREATE UNIQUE INDEX CONCURRENTLY one_each ON loans (borrower_id);\n`,
  );
  await expect(run()).rejects.toThrow(`${next}:2 failed; the next run goes on with it: could not create unique index`);
  const [{ valid }] = (await api.database.sql<{ valid: boolean }>(
    "SELECT indisvalid AS valid FROM pg_index WHERE indexrelid = 'one_each'::regclass",
  )) as [{ valid: boolean }];
  expect(valid).toBe(false);
  expect((await api.ask('GET', '/api/v1/loans')).status).toBe(200);

  // Nothing of it was recorded, so the file may still be corrected.
  writeFileSync(
    join(directory, next),
    `-- outside a transaction\nCREATE INDEX CONCURRENTLY one_each ON loans (borrower_id);\n`,
  );
  expect((await run()).applied).toEqual([next]);
  expect((await api.post(LOAN)).status).toBe(201);
});

it('waits for a lock without a failed request, while a long report has the table', async () => {
  writeFileSync(join(directory, next), 'ALTER TABLE loans ADD COLUMN branch text;\n');
  const { host, port, name, user } = api.database.connection;
  const report = new Client({ host, port, database: name, user });
  await report.connect();
  await report.query('BEGIN; SELECT count(*) FROM loans');
  let done = false;
  const statuses: number[] = [];
  const oneOfThem = async (_: unknown, index: number) => {
    while (!done) {
      const { status } = await (index % 2 === 0 ? api.ask('GET', '/api/v1/loans?limit=1') : api.post(LOAN));
      statuses.push(status);
    }
  };
  const users = Promise.all(Array.from({ length: 50 }, oneOfThem));
  const migrating = run();
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  await report.query('COMMIT');
  await report.end();
  expect((await migrating).applied).toEqual([next]);
  done = true;
  await users;
  expect(statuses.length).toBeGreaterThan(500);
  expect(statuses.filter((status) => status !== 200 && status !== 201)).toEqual([]);
});
