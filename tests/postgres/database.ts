import { randomBytes } from 'node:crypto';
import { Client } from 'pg';
import { type Config, DATABASE_ROLES, type Secrets } from '../../app/config';
import { migrate } from '../../app/db/migrate';
import { createDatabase as createStatement, makeRoles, ownDatabase } from '../../infra/ops/roles';

type Connection = Config['database'];

export interface TestDatabase {
  /** As the role of the service, which owns nothing. */
  readonly connection: Connection;
  /** As the owner, for migrations. */
  readonly owner: Connection;
  readonly secrets: Secrets;
  /** Runs one statement as the superuser, outside of the service's own pool. */
  sql<Row extends object>(text: string, values?: unknown[]): Promise<Row[]>;
  /** Gives the database to the owner, as the step of a deploy does while the release before serves. */
  wall(): Promise<void>;
  /** Lets SQL change what the service and the schema never would, such as a loan's amount: to arrange a test. */
  unguard(): Promise<void>;
  drop(): Promise<void>;
}

const SERVICE = 'test_service';

/** Jest's global setup calls it once: roles are those of the whole server. */
export async function createRoles(port: number): Promise<void> {
  await once(port, 'postgres', makeRoles({ user: SERVICE, password: 'unused', ownerPassword: 'unused' }));
}

/**
 * A new database on the server of this test run, with the newest schema unless told otherwise. Without walls it belongs to
 * the role of the service, as in releases before the roles, until `wall` is called.
 */
export async function createDatabase({ migrated = true, walled = true } = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const port = Number(process.env.TEST_POSTGRES_PORT);
  const wall = () => once<never>(port, name, ownDatabase(name, SERVICE));
  if (walled) {
    await once(port, 'postgres', createStatement(name));
    await wall();
  } else {
    await once(port, 'postgres', `CREATE DATABASE ${name} OWNER ${SERVICE}`);
  }
  const connection = { ...connectionTo(port, name), user: SERVICE };
  const owner = { ...connection, user: DATABASE_ROLES.owner };
  const secrets = { databasePassword: () => Promise.resolve('unused') };
  if (migrated) await migrate(owner, secrets);
  const sql: TestDatabase['sql'] = (text, values) => once(port, name, text, values);
  return {
    connection,
    owner,
    secrets,
    sql,
    async wall() {
      await wall();
    },
    async unguard() {
      for (const trigger of GUARDS) await sql(`ALTER TABLE loans DISABLE TRIGGER ${trigger}`);
    },
    async drop() {
      await once(port, 'postgres', `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

const GUARDS = ['loan_is_sound', 'loan_facts_are_final', 'loan_moves_as_allowed', 'loan_becomes_a_pseudonym'];

/** As the superuser of a server that knows no roles. */
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
