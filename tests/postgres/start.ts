import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chmodSync } from 'node:fs';
import { freePort } from '../../infra/embedded/ports';
import { createRoles } from './database';
import { type PostgresServer, startPostgres } from '../../infra/embedded/postgres';

declare global {
  var testPostgres: { readonly server: PostgresServer; readonly directory: string } | undefined;
}

/** Jest's global setup: one server for all suites, each of which has databases of its own (see database.ts). */
export default async function start(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-postgres-'));
  chmodSync(directory, 0o755);
  const server = await startPostgres({
    directory: join(directory, 'data'),
    port: await freePort(),
    // What is written need not survive this run.
    settings: { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off', max_connections: '200' },
  });
  await createRoles(server.port);
  globalThis.testPostgres = { server, directory };
  process.env.TEST_POSTGRES_PORT = String(server.port);
}
