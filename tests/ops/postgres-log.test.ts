import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { Client } from 'pg';
import { migrate } from '../../app/db/migrate';
import { createService, type Service } from '../../app/service';
import { freePort } from '../../infra/embedded/ports';
import { type PostgresServer, startPostgres } from '../../infra/embedded/postgres';
import { POSTGRES_LOG } from '../../infra/ops/postgres';
import { ask, CONFIG, LOAN } from '../api/harness';
import { connectionTo } from '../postgres/database';

/** A real Postgres with the stack's settings for its log, but for one: every statement is a slow one. */

let directory: string;
let server: PostgresServer;
let service: Service;
const id = randomUUID();
const logFile = () => join(directory, 'log');

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'branchloans-log-'));
  chmodSync(directory, 0o755);
  server = await startPostgres({
    directory: join(directory, 'data'),
    port: await freePort(),
    settings: { fsync: 'off', ...POSTGRES_LOG, log_min_duration_statement: '0' },
    detachedLogFile: logFile(),
  });
  const database = connectionTo(server.port, 'postgres');
  const secrets = { databasePassword: () => Promise.resolve('unused') };
  await migrate(database, secrets);
  const logDestination = new PassThrough().resume();
  service = createService({ ...CONFIG, database }, secrets, { logDestination, newId: () => id });
  await service.start();
});
afterAll(async () => {
  await service.stop();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
});

it('names slow and failed statements, and none of the values in them', async () => {
  const canaries = {
    borrower: `borrower-${randomUUID()}`,
    key: `key-${randomUUID()}`,
    reason: `reason-${randomUUID()}`,
    password: `password-${randomUUID()}`,
  };
  const [port = 0] = service.ports();
  const post = (path: string, body: object, headers = {}) =>
    ask(port, 'POST', path, {
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
  const loan = { ...LOAN, borrower_id: canaries.borrower };
  expect((await post('/api/loans', loan, { 'idempotency-key': canaries.key })).status).toBe(201);
  expect((await post('/api/loans', loan)).status).toBe(500); // Its id is taken.
  const moved = await post(`/api/loans/${id}/transitions`, { to: 'rejected', reason: canaries.reason });
  expect(moved.status).toBe(200);
  const person = new Client({ host: '127.0.0.1', port: server.port, user: 'postgres', database: 'postgres' });
  await person.connect();
  await expect(person.query(`ALTER ROLE nobody PASSWORD '${canaries.password}'`)).rejects.toThrow(/does not exist/);
  await expect(
    person.query(`INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at)
      VALUES (gen_random_uuid(), '${canaries.borrower}', -1, 'KES', 'pending', now(), now())`),
  ).rejects.toThrow(/violates check constraint/);
  await person.end();

  const log = readFileSync(logFile(), 'utf8');
  expect(log).toMatch(/LOG: {2}duration: [\d.]+ ms {2}execute loan_insert: WITH asked/);
  expect(log).toMatch(/ERROR: {2}duplicate key value violates unique constraint "loans_pkey"/);
  expect(log).toMatch(/ERROR: {2}role "nobody" does not exist/);
  expect(Object.entries(canaries).filter(([, canary]) => log.includes(canary))).toEqual([]);
});
