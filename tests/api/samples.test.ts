import { PassThrough } from 'node:stream';
import { type Database, openDatabase } from '../../app/db/pool';
import { generate, seed } from '../../app/db/samples';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { CONFIG } from './harness';

const NOW = new Date('2026-03-01T12:00:00.000Z');
const CHECKSUM = 'SELECT count(*), md5(string_agg(md5(loans::text), $$$$ ORDER BY id)) AS sum FROM loans';
let test: TestDatabase;
let database: Database;
beforeEach(async () => {
  test = await createDatabase();
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
  database = openDatabase(test.connection, test.secrets, telemetry);
});
afterEach(async () => {
  await database.close();
  await test.drop();
});

it('makes the same loans of the same seed and moment, field by field, whatever the batches', async () => {
  expect(await generate(database, 6_000, 42, NOW)).toBe(6_000);
  const [first] = await test.sql<{ count: string; sum: string }>(CHECKSUM);
  expect(await generate(database, 6_000, 42, NOW)).toBe(0);
  await test.sql('DELETE FROM loans');
  await generate(database, 6_000, 42, NOW);
  expect(await test.sql(CHECKSUM)).toEqual([first]);
  expect(first?.count).toBe('6000');
});

it('makes loans of every status and currency within the rules of the API', async () => {
  await generate(database, 3_000, 1, NOW);
  const [row] = await test.sql<object>(
    `SELECT count(DISTINCT status)::int AS statuses, count(DISTINCT currency)::int AS currencies,
            bool_and(amount = round(amount, 2) AND amount <= 50000 AND updated_at BETWEEN created_at AND $1) AS good FROM loans`,
    [NOW],
  );
  expect(row).toEqual({ statuses: 6, currencies: 5, good: true });
});

it('adds the five samples once', async () => {
  expect([await seed(database, NOW), await seed(database, NOW)]).toEqual([5, 0]);
});
