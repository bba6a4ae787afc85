import { randomInt } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { commandLineOf } from './processes';

/** Ports of the loopback address. */
const LOOPBACK = '127.0.0.1';

/** Below those that the system gives to whoever calls out, which takes one of them before it is listened on. */
const QUIET = { from: 20_000, to: 32_000 };
const ATTEMPTS = 100;

/** A port that nobody listened on a moment ago. */
export async function freePort(): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const port = await listen(randomInt(QUIET.from, QUIET.to));
    if (typeof port === 'number') return port;
    if (attempt === ATTEMPTS) throw port;
  }
}

/** Why this user cannot listen on the port, with the remedy; undefined when it is free. */
export async function portFault(port: number): Promise<string | undefined> {
  const result = await listen(port);
  if (typeof result === 'number') return undefined;
  if (result.code === 'EACCES') return `port ${port} is for privileged users: choose one above 1023`;
  if (result.code !== 'EADDRINUSE') return `port ${port}: ${result.message}`;
  const holder = holderOf(port);
  const who = holder ?? `another program (to see which: ss -ltnp 'sport = :${port}', or lsof -i :${port})`;
  return `port ${port} is in use by ${who}`;
}

function listen(port: number): Promise<number | NodeJS.ErrnoException> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', resolve);
    server.listen({ port, host: LOOPBACK, exclusive: true }, () => {
      const { port: chosen } = server.address() as AddressInfo;
      server.close(() => resolve(chosen));
    });
  });
}

/** The program that listens, where the system lets this user know. */
function holderOf(port: number): string | undefined {
  const sockets = ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((table) => listeningSockets(table, port));
  if (sockets.length === 0) return undefined;
  const pid = entries('/proc').find((name) => /^\d+$/.test(name) && holdsOneOf(name, sockets));
  if (pid === undefined) return undefined;
  const command = commandLineOf(Number(pid)) ?? '';
  return `process ${pid} (${command.slice(0, 120)})`;
}

function listeningSockets(table: string, port: number): string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  return read(table)
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => local?.endsWith(suffix) === true && state === '0A')
    .map((fields) => `socket:[${fields[9] ?? ''}]`);
}

function holdsOneOf(pid: string, sockets: readonly string[]): boolean {
  return entries(`/proc/${pid}/fd`).some((descriptor) => {
    try {
      return sockets.includes(readlinkSync(`/proc/${pid}/fd/${descriptor}`));
    } catch {
      return false;
    }
  });
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
