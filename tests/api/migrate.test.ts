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
const run = (options: object = {}) => migrate(database.owner, database.secrets, { directory, ...options });
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
  await expect(run()).rejects.toThrow('0002_b.sql:1 failed and was rolled back: division by zero (22012)');
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

it.each([
  ['where the statement failed', 'CREATE TABLE b (id int);\n-- Why;\nINSERT INTO b VALUES (1);\n\nSELECT\n  1/0', 5],
  ['where in the statement, if the server says so', "CREATE TABLE b (id int);\nSELECT ';' AS a,\n  no_such_column", 3],
  ['the first line of one that is no SQL', 'CREATE TABLE b (id int);\n\nthis is none', 3],
])('says %s', async (_name, sql, line) => {
  write('0001_a.sql', sql);
  await expect(run()).rejects.toThrow(`0001_a.sql:${line} failed and was rolled back: `);
  expect(await tables()).toEqual([]);
});

describe('a lock that somebody holds', () => {
  let holder: Client;
  const others = { stop: false, asked: 0, longestMs: 0 };
  /** Reads and writes as the service does, with its patience. */
  const goOn = async () => {
    const { host, port, name } = database.connection;
    const client = new Client({ host, port, database: name, user: 'postgres', statement_timeout: 1_500 });
    await client.connect();
    try {
      while (!others.stop) {
        const startedAt = performance.now();
        await client.query(others.asked++ % 2 === 0 ? 'SELECT * FROM a' : 'INSERT INTO a VALUES (1)');
        others.longestMs = Math.max(others.longestMs, performance.now() - startedAt);
      }
    } finally {
      await client.end();
    }
  };
  beforeEach(async () => {
    write('0001_a.sql', 'CREATE TABLE a (id int)');
    await run();
    write('0002_b.sql', 'CREATE TABLE b (id int);\nALTER TABLE a ADD COLUMN b int');
    const { host, port, name } = database.connection;
    holder = new Client({ host, port, database: name, user: 'postgres', application_name: 'a-long-report' });
    await holder.connect();
    await holder.query('BEGIN; SELECT * FROM a');
    Object.assign(others, { stop: false, asked: 0, longestMs: 0 });
  });
  afterEach(() => holder.end());

  it('holds nobody else up, and is given up in the end, with who holds it', async () => {
    const going = Promise.all([goOn(), goOn()]);
    const migrating = run({ lockPatienceMs: 2_500 }).finally(() => (others.stop = true));
    await expect(migrating).rejects.toThrow(
      /0002_b\.sql:2 failed and was rolled back: for 2500 ms it did not get a lock .* process \d+ \(a-long-report, postgres, idle in transaction, \d+ s\).* try again: canceling statement due to lock timeout \(55P03\)/,
    );
    await going;
    expect(others.asked).toBeGreaterThan(100);
    expect(others.longestMs).toBeLessThan(1_000);
    expect(await tables()).toEqual(['a']);
    await holder.query('COMMIT');
    expect((await run()).applied).toEqual(['0002_b.sql']);
  });

  it('is taken once it is free', async () => {
    const migrating = run();
    await new Promise((resolve) => setTimeout(resolve, 300));
    await holder.query('COMMIT');
    expect((await migrating).applied).toEqual(['0002_b.sql']);
  });
});

it('leaves nothing when the runner is killed halfway', async () => {
  write('0001_a.sql', 'CREATE TABLE a (id int); SELECT pg_sleep(5);');
  const running = run();
  running.catch(() => undefined);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await database.sql(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'branchloans-migrate'",
  );
  await expect(running).rejects.toThrow(/0001_a\.sql:1 failed/);
  expect(await tables()).toEqual([]);
  write('0001_a.sql', 'CREATE TABLE a (id int)');
  expect((await run()).applied).toHaveLength(1);
});

describe('a migration outside a transaction', () => {
  const HEAD = '-- outside a transaction\n';
  const build = (name: string, on = 'a (n)') => `CREATE INDEX CONCURRENTLY ${name} ON ${on};\n`;
  const indexes = () =>
    database.sql<{ name: string; valid: boolean }>(
      "SELECT indexrelid::regclass::text AS name, indisvalid AS valid FROM pg_index WHERE indrelid = 'a'::regclass ORDER BY 1",
    );
  const client = async () => {
    const { host, port, name } = database.connection;
    const connection = new Client({ host, port, database: name, user: 'postgres' });
    await connection.connect();
    return connection;
  };
  beforeEach(async () => {
    write('0001_a.sql', 'CREATE TABLE a (n int); INSERT INTO a SELECT generate_series(1, 1000)');
    await run();
  });

  it('builds its indexes while others write', async () => {
    write(
      '0002_b.sql',
      `${HEAD}-- Why; and what for.\n${build('a_n')}\n${build('a_more', 'a (n DESC)\n  WHERE n > 5')}`,
    );
    const writer = await client();
    await writer.query('BEGIN; INSERT INTO a VALUES (0)');
    const running = run();
    await new Promise((resolve) => setTimeout(resolve, 300));
    // It waits for the writer, and makes nobody else wait.
    await database.sql('SET lock_timeout = 200; INSERT INTO a VALUES (1)');
    expect(await indexes()).toEqual([{ name: 'a_n', valid: false }]);
    await writer.query('COMMIT');
    await writer.end();
    expect((await running).applied).toEqual(['0002_b.sql']);
    expect(await indexes()).toEqual([
      { name: 'a_more', valid: true },
      { name: 'a_n', valid: true },
    ]);
  });

  it('lets ten runners start at once, none of which waits for another inside the database', async () => {
    write('0002_b.sql', HEAD + build('a_n'));
    const results = await Promise.all(Array.from({ length: 10 }, () => run()));
    expect(results.map(({ applied }) => applied.length).sort()).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
  });

  it('goes on after a failure: what is built stays, what is half built is built anew', async () => {
    await database.sql('INSERT INTO a VALUES (7)');
    write('0002_b.sql', HEAD + build('a_first') + build('a_unique').replace('INDEX', 'UNIQUE INDEX'));
    await expect(run()).rejects.toThrow(/0002_b\.sql:3 failed; the next run goes on with it: could not create unique/);
    expect(await indexes()).toEqual([
      { name: 'a_first', valid: true },
      { name: 'a_unique', valid: false },
    ]);
    const [before] = await database.sql<{ oid: string }>("SELECT 'a_first'::regclass::oid AS oid");
    await expect(run()).rejects.toThrow(/could not create unique/);
    await database.sql('DELETE FROM a WHERE n = 7');
    expect(await run()).toEqual({ applied: ['0002_b.sql'], version: 2, ahead: [] });
    expect((await indexes()).map(({ valid }) => valid)).toEqual([true, true]);
    expect(await database.sql("SELECT 'a_first'::regclass::oid AS oid")).toEqual([before]);
  });

  it('waits only so long for a transaction that does not end', async () => {
    write('0002_b.sql', HEAD + build('a_n'));
    const writer = await client();
    await writer.query('BEGIN; INSERT INTO a VALUES (0)');
    await expect(run({ indexTimeoutMs: 200 })).rejects.toThrow(/lock timeout \(55P03\)/);
    await writer.end();
    expect((await run()).applied).toEqual(['0002_b.sql']);
  });

  it('drops an index, and does not mind that it is gone', async () => {
    write('0002_b.sql', HEAD + build('a_n') + build('a_more'));
    await run();
    await database.sql('DROP INDEX a_n');
    write('0003_c.sql', `${HEAD}DROP INDEX CONCURRENTLY a_n;\nDROP INDEX CONCURRENTLY a_more;\n`);
    expect((await run()).applied).toEqual(['0003_c.sql']);
    expect(await indexes()).toEqual([]);
  });

  it.each([
    ['anything else', 'ALTER TABLE a ADD COLUMN b int;'],
    ['two statements in one', 'CREATE INDEX CONCURRENTLY a_n ON a (n); DROP TABLE a;'],
    ['an index that locks', 'CREATE INDEX a_n ON a (n);'],
    ['an index without a name', 'CREATE INDEX CONCURRENTLY ON a (n);'],
    ['one that may be half built', 'CREATE INDEX CONCURRENTLY IF NOT EXISTS a_n ON a (n);'],
  ])('holds no %s', async (_name, sql) => {
    write('0002_b.sql', `${HEAD}${sql}\n`);
    await expect(run()).rejects.toThrow(/0002_b\.sql:2: outside a transaction there can only be/);
    expect(await tables()).toEqual(['a']);
  });
});
