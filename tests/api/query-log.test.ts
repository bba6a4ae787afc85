import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { METRICS } from '../../app/telemetry/names';
import { CONFIG, LOAN, startService, type TestService, until } from './harness';
import { createDatabase, type TestDatabase } from '../postgres/database';

/** Slow and failed statements in the log: what, how long, for whom, and nothing of what was in them. */

let behind: TestDatabase;
let api: TestService;
beforeAll(async () => {
  behind = await createDatabase();
  api = await startService({ database: { ...behind.connection, slowQueryMs: 150, statementTimeoutMs: 600 } });
});
afterAll(async () => {
  await api.stop();
  await behind.drop();
});

type Line = Record<string, unknown>;
const lines = (message: string, operation: string): Line[] =>
  api.logs().filter((line) => line.message === message && line.operation === operation);

/** Nobody else gets at the loans until a statement of the work has waited for so many milliseconds. */
async function whileLocked<T>(milliseconds: number, work: () => Promise<T>): Promise<T> {
  const client = new Client({ ...behind.connection, database: behind.connection.name, user: 'postgres' });
  await client.connect();
  await client.query('BEGIN; LOCK TABLE loans');
  const result = work();
  await until(async () => (await behind.sql(`SELECT FROM pg_locks WHERE NOT granted`)).length > 0);
  await sleep(milliseconds);
  await client.query('COMMIT');
  await client.end();
  return result;
}

it('a slow statement is a line with the id of its request, and a count', async () => {
  const answer = await whileLocked(200, () => api.post(LOAN, { 'x-request-id': 'a-slow-one' }));
  expect(answer.status).toBe(201);
  await until(() => lines('slow query', 'loan_insert').length === 1);
  const [line] = lines('slow query', 'loan_insert');
  expect(line).toEqual({
    timestamp: expect.any(String),
    level: 'warn',
    message: 'slow query',
    request_id: 'a-slow-one',
    operation: 'loan_insert',
    duration_ms: expect.any(Number),
  });
  expect(line!.duration_ms).toBeGreaterThanOrEqual(150);
  const { text } = await api.ask('GET', '/metrics');
  expect(text).toContain(`${METRICS.dbSlowQueries.name}{operation="loan_insert"} 1\n`);
  expect(text).toContain(`${METRICS.dbSlowQueries.name}{operation="loan_book"} 0\n`);
});

it('one that is for many requests names them all, those too that only share its answer', async () => {
  const path = (await api.post(LOAN)).headers.location!;
  const own = await startService({ database: { ...behind.connection, slowQueryMs: 0 } });
  const ids = Array.from({ length: 6 }, (_, index) => `together-${index}`);
  // The first ones wait for the lock, and the others for them.
  await whileLocked(50, () =>
    Promise.all([
      ...ids.map((id) => own.ask('GET', path, { headers: { 'x-request-id': id } })),
      ...ids.map((id) => own.ask('GET', '/api/v1/loans?limit=3', { headers: { 'x-request-id': `list-${id}` } })),
    ]),
  );
  await own.stop();
  const served = (operation: string) =>
    own
      .logs()
      .filter((line) => line.message === 'slow query' && line.operation === operation)
      .map((line) => (line.request_ids as string[] | undefined) ?? [line.request_id]);
  for (const [operation, wanted] of [
    ['loan_by_id', ids],
    ['loan_list', ids.map((id) => `list-${id}`)],
  ] as const) {
    const statements = served(operation);
    expect(statements.flat().sort()).toEqual(wanted);
    expect(statements.length).toBeLessThan(wanted.length);
  }
});

it('a failed statement is a line with its SQLSTATE', async () => {
  const answer = await whileLocked(800, () => api.post(LOAN, { 'x-request-id': 'a-failed-one' }));
  expect(answer.status).toBe(503);
  const [line] = lines('query failed', 'loan_insert');
  expect(line).toMatchObject({ level: 'warn', request_id: 'a-failed-one', code: '57014' });
  expect(line!.duration_ms).toBeGreaterThanOrEqual(500);
});

it('what the service does by itself names no request', async () => {
  const own = await startService({ database: { ...behind.connection, slowQueryMs: 0 } }, { readBookEveryMs: 30 });
  await until(() => own.logs().some((line) => line.operation === 'loan_book'));
  expect(own.logs().find((line) => line.operation === 'loan_book')).not.toHaveProperty('request_id');
  await own.stop();
});

it('no line, and no metric, has what was sent', async () => {
  const canaries = {
    borrower: `borrower-canary-${randomUUID()}`,
    amount: '31415.92',
    key: `idempotency-canary-${randomUUID()}`,
    secret: `bl_test_0123456789ab_${randomUUID().replaceAll('-', '')}${randomUUID().replaceAll('-', '')}`,
    reference: `reference-canary-${randomUUID()}`,
    query: `query-canary-${randomUUID()}`,
    cookie: `cookie-canary-${randomUUID()}`,
  };
  const id = randomUUID();
  // Every statement is logged, the one that fails as well.
  const loud = await startService(
    { ...CONFIG, database: { ...behind.connection, slowQueryMs: 0 } },
    { newId: () => id },
  );
  const loan = { ...LOAN, borrower_id: canaries.borrower };
  const headers = { 'idempotency-key': canaries.key, cookie: `session=${canaries.cookie}` };
  expect((await loud.post(loan, headers)).status).toBe(201);
  expect((await loud.post(loan, headers)).status).toBe(201);
  expect((await loud.post(loan)).status).toBe(500); // Its id is taken.
  expect((await loud.post({ ...loan, amount: canaries.amount, currency: canaries.query })).status).toBe(422);
  const bearer = { authorization: `Bearer ${canaries.secret}` };
  expect((await loud.ask('GET', `/api/v1/loans?borrower_id=${canaries.query}`, { headers: bearer })).status).toBe(401);
  expect((await loud.ask('GET', `/api/v1/loans?borrower_id=${canaries.borrower}`)).status).toBe(200);
  await loud.ask('POST', `/api/v1/loans/${id}/repayments`, {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ amount: '1.00', reference: canaries.reference }),
  });
  const { text } = await loud.ask('GET', '/metrics');
  await loud.stop();
  const written = JSON.stringify(loud.logs());
  expect(loud.logs()).toContainEqual(expect.objectContaining({ message: 'query failed', code: '23505' }));
  const leaked = Object.entries(canaries).filter(([, canary]) => `${written}${text}`.includes(canary));
  expect(leaked).toEqual([]);
});
