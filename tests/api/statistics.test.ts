import { PassThrough } from 'node:stream';
import { Client } from 'pg';
import { openDatabase } from '../../app/db/pool';
import { recount } from '../../app/db/recount';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import type { TestDatabase } from '../postgres/database';
import { CONFIG, LOAN, startService, type TestService } from './harness';
import { MIGRATIONS, OLD_INSERT, withReleases } from './migrations';

let api: TestService;
let clients: Client[];
beforeEach(async () => {
  clients = [];
  api = await startService();
  await api.database.unguard();
});
afterEach(async () => {
  await Promise.all(clients.map((client) => client.end()));
  await api.stop();
});

async function connect({ connection }: TestDatabase = api.database): Promise<Client> {
  const client = new Client({ host: '127.0.0.1', port: connection.port, user: 'postgres', database: connection.name });
  await client.connect();
  clients.push(client);
  return client;
}

/** Of the given loans: a VALUES list of borrower, amount, currency and status. */
const insert = (values: string) =>
  `INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at)
   SELECT gen_random_uuid(), borrower, amount, currency, status, now(), now()
   FROM (VALUES ${values}) AS given (borrower, amount, currency, status)`;
const FULL_COUNT = `SELECT currency, status, count(*) AS loans, sum(amount)::text AS amount
  FROM loans GROUP BY currency, status ORDER BY currency, status`;
const TOTALS = `SELECT currency, status, sum(loans)::text AS loans, sum(amount)::numeric(30, 4)::text AS amount
  FROM loan_totals GROUP BY currency, status HAVING sum(loans) <> 0 OR sum(amount) <> 0 ORDER BY currency, status`;
const missing = (database: TestDatabase) => database.sql('SELECT * FROM loan_totals_missing');

describe('GET /api/stats', () => {
  it('tells number and amount by currency and status', async () => {
    await api.database.sql(
      insert(`('a', 0.1, 'KES', 'pending'), ('b', 0.2, 'KES', 'pending'), ('a', 3.125, 'KES', 'repaid'),
        ('c', 9, 'VND', 'rejected')`),
    );
    const none = { loans: 0, total_amount: '0.00' };
    const without = {
      pending: none,
      approved: none,
      rejected: none,
      withdrawn: none,
      disbursed: none,
      repaid: none,
      defaulted: none,
    };
    expect((await api.ask('GET', '/api/v1/stats')).json()).toEqual({
      total_loans: 4,
      by_status: { pending: 2, approved: 0, rejected: 1, withdrawn: 0, disbursed: 0, repaid: 1, defaulted: 0 },
      by_currency: {
        KES: {
          loans: 3,
          total_amount: '3.425',
          avg_amount: '1.14',
          by_status: {
            ...without,
            pending: { loans: 2, total_amount: '0.30' },
            repaid: { loans: 1, total_amount: '3.125' },
          },
        },
        VND: {
          loans: 1,
          total_amount: '9.00',
          avg_amount: '9.00',
          by_status: { ...without, rejected: { loans: 1, total_amount: '9.00' } },
        },
      },
    });
  });

  it('follows a loan through its statuses, and forgets a currency without loans', async () => {
    const { location } = (await api.post(LOAN)).headers;
    for (const to of ['approved', 'disbursed', 'repaid']) {
      const body = JSON.stringify({ to });
      await api.ask('POST', `${location!}/transitions`, { headers: { 'content-type': 'application/json' }, body });
      const { by_status } = (await api.ask('GET', '/api/stats')).json().by_currency.KES as {
        by_status: Record<string, { loans: number }>;
      };
      const taken = Object.entries(by_status).filter(([, { loans }]) => loans > 0);
      expect(taken).toEqual([[to, { loans: 1, total_amount: '12500.00' }]]);
    }
    await api.database.sql('DELETE FROM loans');
    expect((await api.ask('GET', '/api/stats')).json()).toMatchObject({ total_loans: 0, by_currency: {} });
  });

  it('reads no loan: it answers while nobody can', async () => {
    await api.post(LOAN);
    const owner = await connect();
    await owner.query('BEGIN; LOCK TABLE loans IN ACCESS EXCLUSIVE MODE');
    const answer = await api.ask('GET', '/api/stats');
    expect([answer.status, answer.json().total_loans]).toEqual([200, 1]);
    expect((await api.ask('GET', '/api/loans')).status).toBe(503);
  });
});

it('more writers than share a shard do not wait for each other', async () => {
  const writers = await Promise.all(Array.from({ length: 30 }, () => connect()));
  // None of them ends its transaction before all have written to the same group.
  for (const writer of writers) {
    await writer.query("SET statement_timeout = '2s'; BEGIN");
    await writer.query(insert("('a', 1, 'KES', 'pending')"));
  }
  expect((await api.ask('GET', '/api/stats')).json().total_loans).toBe(0);
  await Promise.all(writers.map((writer) => writer.query('COMMIT')));
  expect((await api.ask('GET', '/api/stats')).json().total_loans).toBe(30);
});

/** What a writer does to its own loans, some of it in several statements; all figures vary with the turn. */
const WRITES: readonly ((own: string, turn: number) => string[])[] = [
  (own, turn) => [insert(`('${own}', ${turn + 1}.25, 'KES', 'pending')`)],
  (own, turn) => [insert(`('${own}', ${turn + 1}, 'KES', 'pending'), ('${own}', 7.5, 'INR', 'repaid')`)],
  (own) => [`UPDATE loans SET status = 'approved' WHERE borrower_id = '${own}' AND status = 'pending'`],
  (own) => [`UPDATE loans SET amount = amount + 0.0001, currency = 'VND' WHERE borrower_id = '${own}'`],
  (own) => [`UPDATE loans SET amount = amount + 0.25 WHERE borrower_id = '${own}'`],
  (own) => [`UPDATE loans SET borrower_id = borrower_id WHERE borrower_id = '${own}'`],
  (own) => [`DELETE FROM loans WHERE borrower_id = '${own}' AND status = 'approved'`],
  (own) => [
    'BEGIN',
    insert(`('${own}', 99, 'USD', 'pending')`),
    `DELETE FROM loans WHERE borrower_id = '${own}'`,
    'ROLLBACK',
  ],
  (own) => [
    'BEGIN',
    insert(`('${own}', 1, 'NGN', 'pending')`),
    'SAVEPOINT here',
    insert(`('${own}', 2, 'KES', 'pending')`),
    'ROLLBACK TO here',
    `UPDATE loans SET status = 'rejected' WHERE borrower_id = '${own}' AND currency = 'NGN'`,
    'COMMIT',
  ],
  (own) => [
    `INSERT INTO loans SELECT * FROM loans WHERE borrower_id = '${own}'
     ON CONFLICT (id) DO UPDATE SET status = 'defaulted', amount = loans.amount + 1`,
  ],
  (own) => [
    `MERGE INTO loans USING (SELECT id FROM loans WHERE borrower_id = '${own}' ORDER BY id) AS mine ON loans.id = mine.id
     WHEN MATCHED AND status = 'defaulted' THEN DELETE WHEN MATCHED THEN UPDATE SET status = 'disbursed'`,
  ],
  (own) => [
    `WITH gone AS (DELETE FROM loans WHERE borrower_id = '${own}' AND currency = 'INR' RETURNING *),
       moved AS (UPDATE loans SET status = 'repaid' WHERE borrower_id = '${own}' AND currency <> 'INR')
     INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at)
     SELECT gen_random_uuid(), borrower_id, amount, 'PHP', status, created_at, now() FROM gone`,
  ],
];

/** Writes in turn until told to stop, with the writer's number as the start. */
async function keepWriting(client: Client, number: number, isDone: () => boolean): Promise<number> {
  let turn = number;
  for (; !isDone(); turn++) {
    const statements = WRITES[(turn * 7 + number) % WRITES.length]!(`writer ${number}`, turn % 50);
    for (const statement of statements) await client.query(statement);
  }
  return turn - number;
}

it('equals a full count at every moment, while many write in every way', async () => {
  const writers = await Promise.all(Array.from({ length: 8 }, () => connect()));
  const reader = await connect();
  let done = false;
  const writing = Promise.all(writers.map((writer, number) => keepWriting(writer, number, () => done)));
  const seen = new Set<string>();
  const deadline = performance.now() + 4_000;
  while (performance.now() < deadline) {
    await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    const totals = (await reader.query(TOTALS)).rows;
    const count = (await reader.query(FULL_COUNT)).rows;
    await reader.query('COMMIT');
    expect(totals).toEqual(count);
    seen.add(JSON.stringify(count));
  }
  done = true;
  const turns = await writing; // None of them failed: no deadlock, no lost race.
  expect(Math.min(...turns)).toBeGreaterThan(WRITES.length);
  expect(seen.size).toBeGreaterThan(10);
  expect((await reader.query(TOTALS)).rows).toEqual((await reader.query(FULL_COUNT)).rows);
  await api.database.sql('TRUNCATE loans');
  expect((await reader.query(TOTALS)).rows).toEqual([]);
});

it('counts the loans from before, while the older release goes on to write', async () => {
  await withReleases(async (database, upTo) => {
    const totals = MIGRATIONS.findIndex((name) => name.endsWith('_loan_totals.sql')) + 1;
    await upTo(totals - 1);
    const writers = await Promise.all(Array.from({ length: 4 }, () => connect(database)));
    for (let earlier = 0; earlier < 50; earlier++) await writers[0]!.query(OLD_INSERT);
    let done = false;
    const writing = Promise.all(
      writers.map(async (writer) => {
        while (!done) {
          await writer.query(OLD_INSERT);
          await writer.query("UPDATE loans SET status = 'repaid' WHERE id = (SELECT id FROM loans LIMIT 1)");
        }
      }),
    );
    await upTo(totals);
    // As long as the next release may take, and longer.
    await new Promise((resolve) => setTimeout(resolve, 200));
    await upTo(totals + 1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    done = true;
    await writing;
    expect(await missing(database)).toEqual([]);
    const [row] = await database.sql<{ counted: string; before: string }>(
      `SELECT sum(loans) AS counted, sum(loans) FILTER (WHERE shard = -1) AS before FROM loan_totals`,
    );
    expect(Number(row!.before)).toBeGreaterThanOrEqual(50);
    expect(Number(row!.counted)).toBeGreaterThan(Number(row!.before));
    await Promise.all(clients.splice(0).map((client) => client.end()));
  });
});

describe('recount', () => {
  const withDatabase = async <T>(work: (database: ReturnType<typeof openDatabase>) => Promise<T>): Promise<T> => {
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
    const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
    return work(database).finally(() => database.close());
  };

  it('finds nothing to correct', async () => {
    await api.post(LOAN);
    expect(await withDatabase((database) => recount(database, false))).toEqual([]);
  });

  it('corrects what was written with the triggers off, once', async () => {
    await api.post(LOAN);
    await api.database.sql(`SET session_replication_role = replica;
      ${insert("('a', 2.5, 'KES', 'pending'), ('a', 1, 'VND', 'repaid')")}`);
    await api.database.sql(
      "SET session_replication_role = replica; UPDATE loans SET status = 'approved' WHERE amount = 12500",
    );
    const wrong = [
      { currency: 'KES', status: 'approved', loans: 1, amount: '12500.0000', principal_paid: '0.0000' },
      { currency: 'KES', status: 'pending', loans: 0, amount: '-12497.5000', principal_paid: '0.0000' },
      { currency: 'VND', status: 'repaid', loans: 1, amount: '1.0000', principal_paid: '0.0000' },
    ];
    await withDatabase(async (database) => {
      expect(await recount(database, true)).toEqual(wrong);
      expect(await recount(database, true)).toEqual(wrong);
      expect(await recount(database, false)).toEqual(wrong);
      expect(await recount(database, false)).toEqual([]);
    });
    expect((await api.ask('GET', '/api/stats')).json()).toMatchObject({ total_loans: 3, by_status: { approved: 1 } });
  });

  it('waits for another one, holding up nobody who writes, and does not add the same again', async () => {
    await api.post(LOAN);
    await api.database.sql('DELETE FROM loan_totals');
    const rival = await connect();
    await rival.query('BEGIN');
    await rival.query('SELECT pg_advisory_xact_lock(7214403, -1)');
    await rival.query(`INSERT INTO loan_totals (shard, currency, status, loans, amount)
      SELECT -1, currency, status, loans, amount FROM loan_totals_missing`);
    await withDatabase(async (database) => {
      const late = recount(database, false);
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect((await api.post(LOAN)).status).toBe(201);
      await rival.query('COMMIT');
      expect(await late).toEqual([]);
    });
    expect((await api.ask('GET', '/api/stats')).json()).toMatchObject({ total_loans: 2 });
    expect(await missing(api.database)).toEqual([]);
  });
});
