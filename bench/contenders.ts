import { buildSync } from 'esbuild';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SettingName } from '../app/config';
import { freePort } from '../infra/embedded/ports';
import { API_KEY, type DataSet, ENVIRONMENT, loanId } from './data';
import type { FlaskOriginal } from './flask';
import { askOnce, get } from './load';
import { databaseSettings, ROOT, type Stage } from './stage';

/**
 * Settings of our service beyond where it listens and its database: as it ships, with everything on, and a rate limit
 * that is kept but not reached. HEADERS go with
 * every request, to whichever contender.
 */
export const SERVICE = {
  LOG_LEVEL: 'info',
  ENVIRONMENT,
  API_KEYS: 'required',
  RATE_LIMIT: '99999999/10',
} satisfies Partial<Record<SettingName, string>>;
export const HEADERS = `Authorization: Bearer ${API_KEY}\r\n`;

export const CONTENDERS = ['ours', 'bare', 'fastify', 'flask'] as const;
export type ContenderName = (typeof CONTENDERS)[number];

/** For every contender. */
const PROCESSES = 2;
const POOL_SIZE = 10;
const START_TIMEOUT_MS = 20_000;

export interface Endpoint {
  readonly pid: number;
  readonly port: number;
}

export interface Contender {
  readonly name: ContenderName;
  readonly main: Endpoint;
  /** Where it is asked for lists; another one only for Flask. */
  readonly lists: Endpoint;
  stop(): Promise<void>;
}

export interface Started extends Endpoint {
  stop(): Promise<void>;
}

/** @throws Error with the name of its log when a contender does not get ready */
export async function startContender(
  name: ContenderName,
  stage: Stage,
  data: DataSet,
  flask: FlaskOriginal | undefined,
): Promise<Contender> {
  if (name === 'flask') {
    if (flask === undefined) throw new Error('The Flask original is not there');
    const server = await startFlask(flask, stage, flask.loans);
    const lists = await startFlask(flask, stage, flask.page);
    const stop = async () => {
      await Promise.all([server.stop(), lists.stop()]);
    };
    return { name, main: server, lists, stop };
  }
  const started = await (name === 'ours'
    ? startService(buildService(stage.directory), stage, data)
    : startNode(buildFile(stage.directory, `bench/contenders/${name}.ts`, name), stage, data, name));
  return { name, main: started, lists: started, stop: () => started.stop() };
}

/** Built by the very command of the image's Dockerfile. Returns the path of the program. */
export function buildService(directory: string): string {
  const command = /^RUN (node_modules\/\.bin\/esbuild app\/main\.ts(?:.*\\\n)+.*)$/m.exec(
    readFileSync(join(ROOT, 'app/Dockerfile'), 'utf8'),
  )?.[1];
  if (command === undefined)
    throw new Error('app/Dockerfile no longer builds with esbuild: teach bench/contenders.ts how');
  const place = join(directory, 'build', 'ours');
  rmSync(place, { recursive: true, force: true });
  mkdirSync(place, { recursive: true });
  for (const name of ['app', 'node_modules']) symlinkSync(join(ROOT, name), join(place, name));
  execFileSync('sh', ['-ec', command], { cwd: place, stdio: ['ignore', 'ignore', 'pipe'] });
  return join(place, 'out/main.js');
}

function buildFile(directory: string, entry: string, name: string): string {
  const outfile = join(directory, 'build', name, 'main.js');
  buildSync({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    external: ['pg-native'],
    sourcemap: true,
    sourcesContent: false,
  });
  return outfile;
}

/** @param overrides settings that differ from those of the comparison */
export async function startService(
  program: string,
  stage: Stage,
  data: DataSet,
  overrides: Partial<Record<SettingName, string>> = {},
): Promise<Started> {
  return startNode(program, stage, data, 'ours', { ...SERVICE, ...overrides });
}

async function startNode(
  program: string,
  stage: Stage,
  data: DataSet,
  name: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<Started> {
  const port = await freePort();
  const log = join(stage.directory, `${name}.log`);
  const environment = {
    PATH: process.env['PATH'] ?? '',
    NODE_ENV: 'production',
    HOST: '127.0.0.1',
    PORT: String(port),
    PROCESSES: String(PROCESSES),
    DATABASE_POOL_SIZE: String(POOL_SIZE),
    ...databaseSettings(stage, data),
    ...settings,
  };
  const output = openSync(log, 'w');
  const child = spawn(process.execPath, ['--enable-source-maps', program], {
    env: environment,
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  return untilReady(child, port, log);
}

async function startFlask(flask: FlaskOriginal, stage: Stage, data: DataSet): Promise<Started> {
  const port = await freePort();
  const log = join(stage.directory, `flask-${data.rows}.log`);
  const output = openSync(log, 'w');
  const flags = ['--workers', String(PROCESSES), '--bind', `127.0.0.1:${port}`, 'wsgi:app'];
  const child = spawn(flask.gunicorn, flags, {
    cwd: flask.directory,
    env: { ...flask.environment, DATABASE_URL: flask.databaseUrl(data.database) },
    stdio: ['ignore', output, output],
  });
  closeSync(output);
  return untilReady(child, port, log);
}

async function untilReady(child: ChildProcess, port: number, log: string): Promise<Started> {
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 15_000);
    await exited;
    clearTimeout(late);
  };
  try {
    await untilAnswers(port, START_TIMEOUT_MS, () => child.exitCode === null);
  } catch (error) {
    await stop();
    throw new Error(`${log} ends with\n${readFileSync(log, 'utf8').slice(-2_000)}`, { cause: error });
  }
  return { pid: child.pid ?? 0, port, stop };
}

/** Until the server at the port answers with a loan. @throws Error when it does not in time, or no longer runs */
export async function untilAnswers(port: number, timeoutMs: number, runs = () => true): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  do {
    const { status } = await askOnce(port, get(`/api/loans/${loanId(1)}`, HEADERS));
    if (status === 200) return;
    await sleep(5);
  } while (runs() && performance.now() < deadline);
  throw new Error('A contender does not get ready');
}
