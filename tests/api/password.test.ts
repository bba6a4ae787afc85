import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { Client } from 'pg';
import { readConfig } from '../../app/config';
import { migrate } from '../../app/db/migrate';
import { createService, type Service } from '../../app/service';
import { startPostgres, type PostgresServer } from '../../infra/embedded/postgres';
import { connectionTo } from '../postgres/database';
import { freePort } from '../../infra/embedded/ports';
import { ask, CONFIG, until } from './harness';
import { environmentOf } from './process';

/** A server of its own: that of the test run asks nobody for a password. */
const directory = mkdtempSync(join(tmpdir(), 'branchloans-password-'));
chmodSync(directory, 0o755);
const file = join(directory, 'password');
let postgres: PostgresServer;
let admin: Client;
let service: Service;
beforeAll(async () => {
  postgres = await startPostgres({
    directory: join(directory, 'data'),
    port: await freePort(),
    password: 'of the superuser',
    settings: { fsync: 'off' },
  });
  const superuser = { host: '127.0.0.1', port: postgres.port, user: 'postgres', password: 'of the superuser' };
  admin = new Client({ ...superuser, database: 'postgres' });
  await admin.connect();
  await admin.query("CREATE ROLE api LOGIN PASSWORD 'first'; GRANT ALL ON SCHEMA public TO api");
  writeFileSync(file, 'first\n');
  const connection = { ...connectionTo(postgres.port, 'postgres'), user: 'api' };
  const { config, secrets } = readConfig({ ...environmentOf(connection), DATABASE_PASSWORD_FILE: file });
  await migrate(config.database, secrets);
  service = createService({ ...CONFIG, database: config.database }, secrets, {
    logDestination: new PassThrough().resume(),
  });
  await service.start();
});
afterAll(async () => {
  await service.stop();
  await admin.end();
  await postgres.stop();
  rmSync(directory, { recursive: true, force: true });
});

it('a password that was changed is used by the next connections of a service that runs', async () => {
  const [port = 0] = service.ports();
  const status = async () => (await ask(port, 'GET', '/api/loans')).status;
  expect(await status()).toBe(200);
  await admin.query("ALTER ROLE api PASSWORD 'second'");
  await admin.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'api'");
  await until(async () => (await ask(port, 'GET', '/metrics')).text.includes('\ndb_pool_connections 0\n'));
  expect(await status()).toBe(503); // The server does ask for it.
  writeFileSync(file, 'second\n');
  expect(await status()).toBe(200);
});
