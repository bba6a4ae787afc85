import { docker, lastLog, reasonOfFailure, sleep, StepError, tryDocker } from './engine';

/** Gives the data directory to the database's user; creates it where the engine has none. */
export interface OwnInput {
  /** Name of a volume or an absolute path of the Docker host. */
  readonly source: string;
  readonly target: string;
  readonly owner: string;
  readonly helperImage: string;
}

export async function own({ source, target, owner, helperImage }: OwnInput): Promise<void> {
  await docker(
    `Preparing the database's directory ${source}`,
    ['run', '--rm', '--network', 'none', '--read-only', '--user', '0:0', '--cap-drop', 'ALL', '--cap-add', 'CHOWN']
      .concat(['--security-opt', 'no-new-privileges:true', '--volume', `${source}:${target}`])
      .concat(['--entrypoint', 'chown', helperImage, owner, target]),
  );
}

/**
 * Makes role, password and database what the stack says, over the database's local socket: it works on a kept
 * volume whose passwords are from another life, and again and again.
 */
export interface RolesInput {
  readonly container: string;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  readonly readyWithinSeconds: number;
}

export async function roles(input: RolesInput): Promise<void> {
  await waitForDatabase(input.container, input.readyWithinSeconds);
  await refuseForeignOwner(input);
  const user = quoteIdentifier(input.user);
  const sql = [
    QUIETLY,
    `SELECT 'CREATE ROLE ${user} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${quote(input.user)}) \\gexec`,
    `ALTER ROLE ${user} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD ${quote(input.password)};`,
    `SELECT 'CREATE DATABASE ${quoteIdentifier(input.database)} OWNER ${user}'`,
    `  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = ${quote(input.database)}) \\gexec`,
    `REVOKE ALL ON DATABASE ${quoteIdentifier(input.database)} FROM PUBLIC;`,
  ].join('\n');
  await psql(`Setting up the role ${input.user} and the database ${input.database}`, input.container, sql);
}

/** A failing statement is logged by the server with its text, and a text that follows holds a password. */
const QUIETLY = 'SET log_min_error_statement = panic; SET log_min_duration_statement = -1; SET log_statement = none;';

async function psql(purpose: string, container: string, sql: string): Promise<void> {
  const command = ['psql', '--no-psqlrc', '--quiet', '--set', 'ON_ERROR_STOP=1', '--dbname', 'postgres', '--file', '-'];
  await docker(purpose, ['exec', '--interactive', container, ...command], sql);
}

/** Makes a role that reads the server's statistics, and what it reads of statements; no data of the service. */
export interface MonitorInput {
  readonly container: string;
  readonly user: string;
  readonly password: string;
}

/** Its own connections and one that hangs; more would be taken from the service. */
const MONITOR_CONNECTIONS = 5;

export async function monitor({ container, user, password }: MonitorInput): Promise<void> {
  const role = quoteIdentifier(user);
  const sql = [
    QUIETLY,
    `SELECT 'CREATE ROLE ${role} LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${quote(user)}) \\gexec`,
    `ALTER ROLE ${role} WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT ${MONITOR_CONNECTIONS} PASSWORD ${quote(password)};`,
    `GRANT pg_monitor TO ${role};`,
    // In the database that holds nothing else: what it shows is of the whole server.
    'CREATE EXTENSION IF NOT EXISTS pg_stat_statements;',
  ].join('\n');
  await psql(`Setting up the role ${user}`, container, sql);
}

/** Tables belong to the role that made them: another role would find a database that it cannot use. */
async function refuseForeignOwner({ container, database, user }: RolesInput): Promise<void> {
  const owner = await docker('Asking for the owner of the database', [
    ...['exec', container, 'psql', '--no-psqlrc', '--tuples-only', '--no-align', '--dbname', 'postgres', '--command'],
    `SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = ${quote(database)}`,
  ]);
  if (owner.trim() === '' || owner.trim() === user) return;
  throw new StepError(
    `The database ${database} belongs to the role ${owner.trim()}, the settings name ${user}; nothing was changed. ` +
      `Set database.user back, or rename the role while the API is down: ALTER ROLE ${owner.trim()} RENAME TO ${user}`,
  );
}

async function waitForDatabase(container: string, seconds: number): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    // A socket that answers while the server is still starting up is not ready; pg_isready knows the difference.
    const { code, stdout } = await tryDocker(['exec', container, 'pg_isready', '--dbname', 'postgres']);
    if (code === 0) return;
    const reason = await reasonOfFailure(container);
    if (reason !== undefined || Date.now() > deadline) {
      throw new StepError(
        `The database ${container} ${reason ?? `did not accept connections within ${seconds} s (${stdout.trim()})`}. ` +
          `Its last log lines:\n${await lastLog(container)}`,
      );
    }
    await sleep(250);
  }
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
