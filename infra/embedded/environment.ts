import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Client } from 'pg';
import { DATABASE_ROLES } from '../../app/config';
import { ensureCertificate } from '../../ssl/certificates';
import { isHealthy, ROOT, runCommand, runOnce, settingsFor, sizeOf, startApi, stopApi, untilHealthy } from './api';
import { EmbeddedError } from './fault';
import { freePort, portFault } from './ports';
import { POSTGRES_LOG } from '../ops/postgres';
import { createDatabase, makeRoles, ownDatabase } from '../ops/roles';
import { findPostgres, isOpenToAll, openDirectory, type PostgresServer, startPostgres } from './postgres';
import { isRunning, type ProcessReference } from './processes';

/**
 * The development environment where containers can't be had: the API, with TLS of its own, on a real Postgres, both as plain
 * processes of this machine. All it knows lies in one directory; whatever state a crash left there, `up` repairs it.
 */
export interface Place {
  /** Of everything but the certificates. */
  readonly directory: string;
  readonly certificates: string;
  readonly apiLog: string;
  readonly postgresLog: string;
}

export interface State {
  readonly ports: Ports;
  readonly dataDirectory: string;
  /** The authority that clients have to trust; absent with the user's own certificate. */
  readonly caFile?: string;
  readonly api?: ProcessReference & { readonly startedAt: string };
}

interface Ports {
  readonly https: number;
  readonly api: number;
  readonly postgres: number;
}

export const DOMAIN = 'branchloans.com';
/** Of the database and of the role that the API logs in as. */
const DATABASE = 'branchloans';
const DEFAULT_PORTS = { https: 8443, api: 8000 };

export function placeAt(chosen: string | undefined): Place {
  const directory = resolve(chosen ?? join(ROOT, '.local'));
  return {
    directory,
    certificates: join(chosen === undefined ? ROOT : directory, 'ssl'),
    apiLog: join(directory, 'api.log'),
    postgresLog: join(directory, 'postgres.log'),
  };
}

/**
 * Starts what does not run. Ports that are not given are those of the last time.
 * @throws EmbeddedError, after stopping whatever this call started
 */
export async function up(
  place: Place,
  wanted: { readonly https?: number; readonly api?: number },
): Promise<{ readonly state: State; readonly alreadyUp: boolean }> {
  const old = readState(place);
  const chosen = {
    https: wanted.https ?? old?.ports.https ?? DEFAULT_PORTS.https,
    api: wanted.api ?? old?.ports.api ?? DEFAULT_PORTS.api,
  };
  const running = old?.api !== undefined && isRunning(old.api) ? old : undefined;
  await refuseTakenPorts(chosen, running?.ports);

  const certificate = await ensureCertificate({ directory: place.certificates, domain: DOMAIN });
  const { caFile } = certificate;
  const samePorts = running?.ports.https === chosen.https && running.ports.api === chosen.api;
  // One of a release before the roles is stopped, and gets them.
  const hasRoles = existsSync(passwordFile(place, 'owner'));
  const stays = samePorts && !certificate.renewed && hasRoles;
  if (running !== undefined && stays && (await isHealthy(chosen.https, caFile)))
    return { state: running, alreadyUp: true };

  makePlace(place);
  const dataDirectory = old?.dataDirectory ?? dataDirectoryOf(place);
  if (running?.api !== undefined) await stopApi(running.api);
  const found = findPostgres(dataDirectory);
  const postgres = found ?? (await startDatabase(place, dataDirectory, old?.ports.postgres));
  let api: ProcessReference | undefined;
  try {
    const ports = { ...chosen, postgres: postgres.port };
    writeState(place, { ports, dataDirectory, caFile });
    await ensureDatabase(place, postgres);
    const settings = settingsFor({ domain: DOMAIN, ports, certificate, database: asService(place) });
    runOnce('migrate', settingsFor({ domain: DOMAIN, ports, certificate, database: asOwner(place) }));
    runOnce('seed', settings);
    const log = { file: place.apiLog, from: sizeOf(place.apiLog) };
    api = startApi(settings, place.apiLog);
    const state = { ports, dataDirectory, caFile, api: { ...api, startedAt: new Date().toISOString() } };
    writeState(place, state);
    await untilHealthy(api, ports.https, caFile, log);
    return { state, alreadyUp: false };
  } catch (error) {
    if (api !== undefined) await stopApi(api);
    if (found === undefined) await postgres.stop();
    throw error;
  }
}

/**
 * Runs a command of the API that ends, with the settings of the one that serves and the terminal of the caller. Only
 * `migrate` logs in as the owner of the database.
 * @returns its exit code
 * @throws EmbeddedError where there is no database to run it on
 */
export function command(place: Place, args: readonly string[]): number {
  const { state, postgres } = running(place);
  const settings = settingsFor({
    domain: DOMAIN,
    ports: { ...state.ports, postgres: postgres.port },
    certificate: { certificateFile: '', keyFile: '' },
    database: args[0] === 'migrate' ? asOwner(place) : asService(place),
  });
  return runCommand(args, { ...settings, TLS_PORT: '' });
}

/** Whether a database is there to work on. */
export function isUp(place: Place): boolean {
  const state = readState(place);
  return state !== undefined && findPostgres(state.dataDirectory) !== undefined;
}

/**
 * Statements for the database, in one session, with the rights of its superuser.
 * @returns the rows of them all: one a line, with a blank between columns, as psql writes them
 * @throws EmbeddedError where there is no database
 */
export async function runSql(place: Place, statements: readonly string[]): Promise<string> {
  const { port } = running(place).postgres;
  const password = readSecret(passwordFile(place, 'postgres'));
  const types = { getTypeParser: () => (text: string) => text };
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: DATABASE, password, types });
  await client.connect();
  try {
    const lines: string[] = [];
    for (const text of statements) {
      const { rows } = await client.query<(string | null)[]>({ text, rowMode: 'array' });
      for (const row of rows) lines.push(row.join(' '));
    }
    return lines.join('\n');
  } finally {
    await client.end();
  }
}

function running(place: Place): { readonly state: State; readonly postgres: PostgresServer } {
  const state = readState(place);
  const postgres = state === undefined ? undefined : findPostgres(state.dataDirectory);
  if (state === undefined || postgres === undefined) throw new EmbeddedError('Development is not up: make up');
  return { state, postgres };
}

/** Stops what runs, and nothing that is not ours; with `purge` its data goes too, but never the certificates. */
export async function down(place: Place, options: { readonly purge: boolean }): Promise<readonly string[]> {
  const state = readState(place);
  const stopped: string[] = [];
  if (state?.api !== undefined && isRunning(state.api)) {
    await stopApi(state.api);
    stopped.push('the API');
  }
  const dataDirectory = state?.dataDirectory ?? dataDirectoryOf(place);
  const postgres = findPostgres(dataDirectory);
  if (postgres !== undefined) {
    await postgres.stop();
    stopped.push('Postgres');
  }
  if (options.purge) purge(place, dataDirectory);
  else if (state !== undefined) writeState(place, { ...state, api: undefined });
  return stopped;
}

export interface Status {
  readonly state: State | undefined;
  readonly apiSince: Date | undefined;
  readonly postgresSince: Date | undefined;
  /** The API and the database behind it answer over TLS. */
  readonly healthy: boolean;
}

export async function status(place: Place): Promise<Status> {
  const state = readState(place);
  const api = state?.api !== undefined && isRunning(state.api) ? state.api : undefined;
  return {
    state,
    apiSince: api === undefined ? undefined : new Date(api.startedAt),
    postgresSince: state === undefined ? undefined : findPostgres(state.dataDirectory)?.startedAt,
    healthy: state !== undefined && api !== undefined && (await isHealthy(state.ports.https, state.caFile)),
  };
}

async function refuseTakenPorts(chosen: Omit<Ports, 'postgres'>, ours: Ports | undefined): Promise<void> {
  if (chosen.https === chosen.api) throw new EmbeddedError(`HTTPS and the API cannot share port ${chosen.api}`);
  const free = [ours?.https, ours?.api];
  const faults = await Promise.all(
    (['https', 'api'] as const).map(async (name) => {
      const fault = free.includes(chosen[name]) ? undefined : await portFault(chosen[name]);
      return fault === undefined ? [] : [`  - ${fault}: stop it, or choose another port (--${name}-port)`];
    }),
  );
  if (faults.flat().length === 0) return;
  throw new EmbeddedError(`Development cannot start, nothing was changed:\n${faults.flat().join('\n')}`);
}

// ---- The database

async function startDatabase(place: Place, directory: string, lastPort: number | undefined): Promise<PostgresServer> {
  const file = passwordFile(place, 'postgres');
  if (isOutside(place, directory)) openDirectory(dirname(directory));
  // A new database takes a new password; an old one knows only the one that it was made with.
  if (!existsSync(directory)) writeSecret(file, newPassword());
  const isFree = lastPort !== undefined && (await portFault(lastPort)) === undefined;
  return startPostgres({
    directory,
    port: isFree ? lastPort : await freePort(),
    password: readSecret(file),
    settings: POSTGRES_LOG,
    detachedLogFile: place.postgresLog,
  });
}

const asService = (place: Place) => ({
  ...{ name: DATABASE, user: DATABASE, passwordFile: passwordFile(place, 'database') },
});
const asOwner = (place: Place) => ({
  ...{ name: DATABASE, user: DATABASE_ROLES.owner, passwordFile: passwordFile(place, 'owner') },
});

/** Roles get their passwords anew each time, so that a lost file of one is no trouble. */
async function ensureDatabase(place: Place, { port }: PostgresServer): Promise<void> {
  const [password, ownerPassword] = (['database', 'owner'] as const).map((of) => {
    const file = passwordFile(place, of);
    if (!existsSync(file)) writeSecret(file, newPassword());
    return readSecret(file);
  }) as [string, string];
  await asSuperuser(place, port, 'postgres', async (client) => {
    await client.query(makeRoles({ user: DATABASE, password, ownerPassword }));
    const database = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [DATABASE]);
    if (database.rowCount === 0) await client.query(createDatabase(DATABASE));
  });
  await asSuperuser(place, port, DATABASE, (client) => client.query(ownDatabase(DATABASE, DATABASE)));
}

async function asSuperuser(
  place: Place,
  port: number,
  database: string,
  work: (client: Client) => Promise<unknown>,
): Promise<void> {
  const password = readSecret(passwordFile(place, 'postgres'));
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database, password });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

/** Beside the rest, unless this is root's and Postgres, which must not be root, could not get there. */
export function dataDirectoryOf(place: Place): string {
  if (isOpenToAll(place.directory)) return join(place.directory, 'postgres');
  const mark = createHash('sha256').update(place.directory).digest('hex').slice(0, 12);
  return join(tmpdir(), `branchloans-${mark}`, 'postgres');
}

export const isOutside = (place: Place, dataDirectory: string): boolean => dirname(dataDirectory) !== place.directory;

// ---- Files

function makePlace(place: Place): void {
  if (existsSync(place.directory)) return;
  mkdirSync(place.directory, { recursive: true });
  // Whatever the umask: Postgres has to get to its data. The secrets in here have modes of their own.
  chmodSync(place.directory, 0o755);
}

function purge(place: Place, dataDirectory: string): void {
  const own = [stateFile(place), ...PASSWORDS.map((of) => passwordFile(place, of))];
  for (const path of [dataDirectory, place.apiLog, place.postgresLog, ...own]) {
    rmSync(path, { recursive: true, force: true });
  }
  if (isOutside(place, dataDirectory)) rmSync(dirname(dataDirectory), { recursive: true, force: true });
}

const stateFile = (place: Place): string => join(place.directory, 'state.json');
/** Of the superuser, the role that the API logs in as, and the owner. */
const PASSWORDS = ['postgres', 'database', 'owner'] as const;
const passwordFile = (place: Place, of: (typeof PASSWORDS)[number]): string => join(place.directory, `${of}.password`);
const newPassword = (): string => randomBytes(24).toString('base64url');

function readState(place: Place): State | undefined {
  try {
    return JSON.parse(readFileSync(stateFile(place), 'utf8')) as State;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new EmbeddedError(
      `${stateFile(place)} cannot be read (${(error as Error).message}): remove it and run up again`,
    );
  }
}

const writeState = (place: Place, state: State): void =>
  writeWhole(stateFile(place), `${JSON.stringify(state, null, 2)}\n`, 0o644);

const writeSecret = (file: string, secret: string): void => writeWhole(file, `${secret}\n`, 0o600);

function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    throw new EmbeddedError(
      `The password of the database cannot be read from ${file}: put it back, or start over with down --purge`,
    );
  }
}

function writeWhole(file: string, text: string, mode: number): void {
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, text, { mode, flush: true });
  renameSync(temporary, file);
}
