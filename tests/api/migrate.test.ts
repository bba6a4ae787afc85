import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { migrate, MigrationError } from '../../app/db/migrate';
import { createDatabase, type TestDatabase } from '../postgres/database';

let database: TestDatabase;
let directory: string;
beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  directory = mkdtempSync(join(tmpdir(), 'branchloans-migrations-'));
});
afterEach(async () => {
  await database.drop();
  rmSync(directory, { recursive: true });
});

const write = (name: string, sql: string) => writeFileSync(join(directory, name), sql);
const run = (options: object = {}) => migrate(database.connection, database.secrets, { directory, ...options });
const tables = async () =>
  (
    await database.sql<{ name: string }>(
      "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> 'schema_migrations' ORDER BY 1",
    )
  ).map(({ name }) => name);

it('applies what is new, in order, once', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  expect(await run()).toEqual({ applied: ['0001_a.sql'], version: 1, ahead: [] });
  write('0002_b.sql', 'CREATE TABLE b AS SELECT * FROM a; CREATE INDEX ON b (id);');
  write('0003_c.sql', 'ALTER TABLE b RENAME TO c');
  expect(await run()).toEqual({ applied: ['0002_b.sql', '0003_c.sql'], version: 3, ahead: [] });
  expect(await run()).toEqual({ applied: [], version: 3, ahead: [] });
  expect(await tables()).toEqual(['a', 'c']);
});

it('lets ten runners start at once: one works, the others find nothing to do', async () => {
  write('0001_a.sql', 'SELECT pg_sleep(0.3); CREATE TABLE a (id int)');
  write('0002_b.sql', 'CREATE TABLE b (id int)');
  const results = await Promise.all(Array.from({ length: 10 }, () => run()));
  expect(results.map(({ applied }) => applied.length).sort()).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
});

it('waits for another runner only so long', async () => {
  write('0001_a.sql', 'SELECT pg_sleep(1); CREATE TABLE a (id int)');
  const first = run();
  await new Promise((resolve) => setTimeout(resolve, 200));
  const startedAt = performance.now();
  await expect(run({ runnerTimeoutMs: 200 })).rejects.toThrow(
    /another migration has been running for more than 200 ms/,
  );
  expect(performance.now() - startedAt).toBeLessThan(700);
  expect((await first).applied).toHaveLength(1);
});

it('leaves nothing of a migration that fails, and keeps those before it', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  write('0002_b.sql', 'CREATE TABLE b (id int); INSERT INTO b VALUES (1); SELECT 1/0;');
  write('0003_c.sql', 'CREATE TABLE c (id int)');
  await expect(run()).rejects.toThrow('0002_b.sql failed and was rolled back: division by zero (22012)');
  expect(await tables()).toEqual(['a']);
  write('0002_b.sql', 'CREATE TABLE b (id int)');
  expect((await run()).applied).toEqual(['0002_b.sql', '0003_c.sql']);
});

it('leaves nothing of a migration that cannot be recorded', async () => {
  write('0001_a.sql', "CREATE TABLE a (id int); INSERT INTO schema_migrations VALUES (1, 'itself', '')");
  await expect(run()).rejects.toThrow(/duplicate key/);
  expect(await tables()).toEqual([]);
});

it('refuses a file that was edited, and changes nothing', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  await run();
  write('0001_a.sql', 'CREATE TABLE a (id bigint)');
  write('0002_b.sql', 'CREATE TABLE b (id int)');
  await expect(run()).rejects.toThrow(/0001_a\.sql was edited after it was applied/);
  expect(await tables()).toEqual(['a']);
});

it.each([
  ['a gap', { '0001_a.sql': '', '0003_c.sql': '' }],
  ['a double', { '0001_a.sql': '', '0001_b.sql': '' }],
  ['another name', { '0001_a.sql': '', 'notes.txt': '' }],
  ['a bad number', { '1_a.sql': '' }],
])('refuses %s in the folder, before it connects', async (_name, files) => {
  for (const [name, sql] of Object.entries(files)) write(name, sql);
  await expect(run()).rejects.toThrow(MigrationError);
  expect(await database.sql("SELECT to_regclass('schema_migrations') AS name")).toEqual([{ name: null }]);
});

it('refuses a release that lacks a file between two that are applied', async () => {
  for (const name of ['0001_a.sql', '0002_b.sql', '0003_c.sql'])
    write(name, `CREATE TABLE ${name.slice(5, 6)} (id int)`);
  await run();
  await database.sql('DELETE FROM schema_migrations WHERE version = 2');
  await expect(run()).rejects.toThrow(/already has 0003_c\.sql, but not 0002_b\.sql/);
});

it('lets an older release run on a newer schema, and says so', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  write('0002_b.sql', 'CREATE TABLE b (id int)');
  await run();
  rmSync(join(directory, '0002_b.sql'));
  expect(await run()).toEqual({ applied: [], version: 2, ahead: ['0002_b.sql'] });
});

it('does not queue everyone behind it for a lock that it does not get', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  await run();
  write('0002_b.sql', 'ALTER TABLE a ADD COLUMN b int');
  const { host, port, name, user } = database.connection;
  const reader = new Client({ host, port, database: name, user });
  await reader.connect();
  await reader.query('BEGIN; SELECT * FROM a');
  await expect(run({ lockTimeoutMs: 100 })).rejects.toThrow(/lock timeout \(55P03\)/);
  await reader.query('COMMIT');
  await reader.end();
  expect((await run()).applied).toEqual(['0002_b.sql']);
});

it('leaves nothing when the runner is killed halfway', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int); SELECT pg_sleep(5);');
  const running = run();
  running.catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await database.sql(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'branchloans-migrate'",
  );
  await expect(running).rejects.toThrow(/0001_a\.sql failed/);
  expect(await tables()).toEqual([]);
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  expect((await run()).applied).toHaveLength(1);
});
