import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import type { Config, Secrets } from '../../app/config';
import { migrate } from '../../app/db/migrate';

type Connection = Config['database'];

export interface TestDatabase {
  readonly connection: Connection;
  readonly secrets: Secrets;
  /** Runs one statement as the superuser, outside of the service's own pool. */
  sql<Row extends object>(text: string, values?: unknown[]): Promise<Row[]>;
  drop(): Promise<void>;
}

/** A new database on the server of this test run, with the newest schema unless told otherwise. */
export async function createDatabase({ migrated = true } = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const port = Number(process.env.TEST_POSTGRES_PORT);
  await once(port, 'postgres', `CREATE DATABASE ${name}`);
  const connection = connectionTo(port, name);
  const secrets = { databasePassword: () => Promise.resolve('unused') };
  if (migrated) await migrate(connection, secrets);
  return {
    connection,
    secrets,
    sql: (text, values) => once(port, name, text, values),
    async drop() {
      await once(port, 'postgres', `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

export function connectionTo(port: number, name: string): Connection {
  const budgets = { poolSize: 10, connectTimeoutMs: 1_000, queueMs: 500, statementTimeoutMs: 1_500, slowQueryMs: 200 };
  return { host: '127.0.0.1', port, name, user: 'postgres', ...budgets };
}

async function once<Row extends object>(
  port: number,
  database: string,
  text: string,
  values?: unknown[],
): Promise<Row[]> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database });
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}
