import { DATABASE_ROLES } from '../../app/config';
import { createDatabase, makeRoles, ownDatabase, QUIETLY, quote, quoteIdentifier } from '../ops/roles';
import { docker, indent, lastLog, reasonOfFailure, sleep, StepError, tryDocker } from './engine';

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
 * Makes roles, passwords and database what the stack says, over the database's local socket. It works on a kept volume
 * whose passwords are from another life, on the database of a release before the roles while that serves, and again
 * and again.
 */
export interface RolesInput {
  readonly container: string;
  readonly database: string;
  /** The role that the service logs in as. */
  readonly user: string;
  readonly password: string;
  readonly ownerPassword: string;
  readonly readyWithinSeconds: number;
}

/** For so long it tries to get the tables for itself. */
const OWN_WITHIN_MS = 60_000;
const OWN_PAUSE_MS = 500;
const LOCK_NOT_AVAILABLE = 'ERROR:  55P03';

export async function roles(input: RolesInput): Promise<void> {
  const { container, database, user } = input;
  await waitForDatabase(container, input.readyWithinSeconds);
  await refuseForeignOwner(input);
  await psql(`Setting up the roles of the database ${database}`, container, 'postgres', makeRoles(input));
  const isThere = `SELECT FROM pg_database WHERE datname = ${quote(database)}`;
  const create = `SELECT ${quote(createDatabase(database))} WHERE NOT EXISTS (${isThere}) \\gexec`;
  await psql(`Making the database ${database}`, container, 'postgres', create);
  await takeOver(container, database, ownDatabase(database, user));
}

async function takeOver(container: string, database: string, sql: string): Promise<void> {
  const deadline = Date.now() + OWN_WITHIN_MS;
  for (;;) {
    const { code, stderr } = await tryDocker(psqlIn(container, database), sql);
    if (code === 0) return;
    const waits = stderr.includes(LOCK_NOT_AVAILABLE);
    if (!waits || Date.now() > deadline) {
      throw new StepError(
        `Giving the database ${database} to ${DATABASE_ROLES.owner} failed, nothing of it was changed` +
          `${waits ? ': a long transaction holds its tables. `make upkeep` names it: wait for it, or end it' : ''}:\n${indent(stderr)}`,
      );
    }
    await sleep(OWN_PAUSE_MS);
  }
}

function psqlIn(container: string, database: string): string[] {
  const options = ['--no-psqlrc', '--quiet', '--set', 'ON_ERROR_STOP=1', '--set', 'VERBOSITY=verbose'];
  return ['exec', '--interactive', container, 'psql', ...options, '--dbname', database, '--file', '-'];
}

async function psql(purpose: string, container: string, database: string, sql: string): Promise<void> {
  await docker(purpose, psqlIn(container, database), sql);
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
    `ALTER ROLE ${role} SET statement_timeout = '10s'; ALTER ROLE ${role} SET lock_timeout = '1s';`,
    `GRANT pg_monitor TO ${role};`,
    // In the database that holds nothing else: what it shows is of the whole server.
    'CREATE EXTENSION IF NOT EXISTS pg_stat_statements;',
  ].join('\n');
  await psql(`Setting up the role ${user}`, container, 'postgres', sql);
}

/** The database of another service, or of this one under another role: what runs on it would lose it. */
async function refuseForeignOwner({ container, database, user }: RolesInput): Promise<void> {
  const answer = await docker('Asking for the owner of the database', [
    ...['exec', container, 'psql', '--no-psqlrc', '--tuples-only', '--no-align', '--dbname', 'postgres', '--command'],
    `SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = ${quote(database)}`,
  ]);
  const owner = answer.trim();
  if (['', user, DATABASE_ROLES.owner].includes(owner)) return;
  throw new StepError(
    `The database ${database} belongs to the role ${owner}, the settings name ${user}; nothing was changed. ` +
      `Set database.user back, or rename the role while the API is down: ALTER ROLE ${owner} RENAME TO ${user}`,
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
