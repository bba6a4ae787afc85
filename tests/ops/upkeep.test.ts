import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { DATABASE_FACTS, type DatabaseFacts, VACUUM_PROGRESS, vacuumStatements } from '../../infra/ops/upkeep';
import { createDatabase, type TestDatabase } from '../postgres/database';

/** What `make upkeep` asks, on a real Postgres. */

let database: TestDatabase;
let client: Client;
beforeAll(async () => {
  database = await createDatabase();
  const { host, port, name } = database.connection;
  client = new Client({ host, port, database: name, user: 'postgres' });
  await client.connect();
});
afterAll(async () => {
  await client.end();
  await database.drop();
});

async function facts(): Promise<DatabaseFacts> {
  const [row] = await database.sql<{ json_build_object: DatabaseFacts }>(DATABASE_FACTS);
  return row!.json_build_object;
}
const loans = async () => (await facts()).tables.find(({ name }) => name === 'loans')!;

it('finds dead rows, who keeps them, and that a vacuum takes them', async () => {
  await database.sql('CREATE SCHEMA flask');
  await database.sql('CREATE TABLE flask."Old loans" (id int)');
  await database.sql(`INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at)
    SELECT gen_random_uuid(), 'b', 1, 'KES', 'pending', now(), now() FROM generate_series(1, 2000)`);
  await database.unguard();
  await database.sql("UPDATE loans SET status = 'approved'");
  await client.query("SET application_name = 'forgotten'");
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
  await client.query('SELECT FROM loans');

  // The server counts a moment later.
  for (let tries = 0; (await loans()).dead < 2_000 && tries < 50; tries++) await sleep(100);
  const before = await facts();
  expect(before).toMatchObject({ name: database.connection.name, frozenPercent: expect.any(Number), violated: [] });
  expect(before.bytes).toBeGreaterThan(1_000_000);
  expect(before.tables.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['loans', 'loan_events', 'flask."Old loans"']),
  );
  expect(before.tables[0]!.bytes).toBeGreaterThanOrEqual(before.tables[1]!.bytes);
  expect(await loans()).toMatchObject({ rows: 2_000, dead: 2_000, vacuumed: null, analyzed: null });
  expect(before.oldest).toMatchObject({ who: 'forgotten, postgres, idle in transaction' });
  expect(before.oldest!.seconds).toBeGreaterThanOrEqual(0);
  await client.query('COMMIT');
  expect((await facts()).oldest).toBeNull();

  await client.query(VACUUM_PROGRESS);
  for (const { name } of before.tables) for (const statement of vacuumStatements(name)) await client.query(statement);
  for (let tries = 0; (await loans()).dead > 0 && tries < 50; tries++) await sleep(100);
  const after = await loans();
  expect(after).toMatchObject({ rows: 2_000, dead: 0 });
  expect(Date.parse(after.vacuumed!)).toBeGreaterThan(Date.now() - 60_000);
  expect(Date.parse(after.analyzed!)).toBeGreaterThan(Date.now() - 60_000);
});

it('makes no reader and no writer wait', async () => {
  const [set, vacuum] = vacuumStatements('loans');
  await client.query('BEGIN');
  await client.query("UPDATE loans SET status = 'disbursed' WHERE id = (SELECT id FROM loans LIMIT 1)");
  // It goes beside a transaction that has the table, and would not if it wanted it for itself.
  await database.sql(set!);
  await database.sql(vacuum!);
  await client.query('ROLLBACK');
});
