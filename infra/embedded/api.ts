import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, statSync } from 'node:fs';
import { request } from 'node:https';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SettingName } from '../../app/config';
import { EmbeddedError } from './fault';
import { identityOf, isRunning, type ProcessReference, stopProcess } from './processes';

/** The API as a process of this machine, started from its sources. */
export const ROOT = resolve(__dirname, '../..');

const HEALTH_TIMEOUT_MS = 20_000;
const SHUTDOWN_TIMEOUT_MS = 5_000;
const PROGRAM = ['--import', 'tsx', 'app/main.ts'];

export type Settings = Readonly<Record<SettingName, string>>;

export function settingsFor(options: {
  readonly domain: string;
  readonly ports: { readonly https: number; readonly api: number; readonly postgres: number };
  readonly certificate: { readonly certificateFile: string; readonly keyFile: string };
  readonly database: { readonly name: string; readonly user: string; readonly passwordFile: string };
}): Settings {
  const { domain, ports, certificate, database } = options;
  return {
    ENVIRONMENT: 'development',
    HOST: '127.0.0.1',
    PORT: String(ports.api),
    TLS_PORT: String(ports.https),
    TLS_CERTIFICATE_FILE: certificate.certificateFile,
    TLS_KEY_FILE: certificate.keyFile,
    DATABASE_HOST: '127.0.0.1',
    DATABASE_PORT: String(ports.postgres),
    DATABASE_NAME: database.name,
    DATABASE_USER: database.user,
    DATABASE_PASSWORD_FILE: database.passwordFile,
    DATABASE_POOL_SIZE: '10',
    DATABASE_CONNECT_TIMEOUT_MS: '',
    DATABASE_QUEUE_MS: '',
    DATABASE_STATEMENT_TIMEOUT_MS: '',
    SLOW_QUERY_MS: '',
    PROCESSES: '1',
    DRAIN_MS: '0',
    SHUTDOWN_TIMEOUT_MS: String(SHUTDOWN_TIMEOUT_MS),
    LOG_LEVEL: 'info',
    MAX_AMOUNT: '',
    RETENTION_YEARS: '',
    API_KEYS: 'optional',
    CORS_ORIGINS: '',
    ALLOWED_HOSTS: [domain, 'localhost', '127.0.0.1'].join(),
    RATE_LIMIT: '',
    CLIENT_ADDRESS: '',
    // No Prometheus runs here: /sre/ shows what the process counts itself.
    PROMETHEUS_URL: '',
    CAPACITY_RPS: '',
    SLO: '',
    OTEL_EXPORTER_OTLP_ENDPOINT: '',
    OTEL_SERVICE_NAME: '',
    OTEL_RESOURCE_ATTRIBUTES: '',
    OTEL_TRACES_SAMPLER: '',
    OTEL_TRACES_SAMPLER_ARG: '',
    ERROR_TRACKING_DSN_FILE: '',
    ...release(),
  } satisfies Record<SettingName, string>;
}

/** Runs a command of the API that ends. @throws EmbeddedError with what it wrote when it fails */
export function runOnce(command: 'migrate' | 'seed', settings: Settings): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...PROGRAM, command], {
    cwd: ROOT,
    env: { ...process.env, ...settings },
    encoding: 'utf8',
  });
  if (status !== 0) throw new EmbeddedError(`The API's command "${command}" failed:\n${lastLines(stdout + stderr)}`);
}

/** Runs a command of the API that ends, with the terminal of the caller. Returns its exit code. */
export function runCommand(args: readonly string[], settings: Settings): number {
  const { status } = spawnSync(process.execPath, [...PROGRAM, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...settings },
    stdio: 'inherit',
  });
  return status ?? 1;
}

/** Starts to serve, in a process that outlives this one and appends to the log. */
export function startApi(settings: Settings, logFile: string): ProcessReference {
  const log = openSync(logFile, 'a');
  const child = spawn(process.execPath, [...PROGRAM, 'serve'], {
    cwd: ROOT,
    env: { ...process.env, ...settings },
    stdio: ['ignore', log, log],
    detached: true,
  });
  closeSync(log);
  child.unref();
  const pid = child.pid ?? 0;
  return { pid, identity: identityOf(pid) ?? 'gone' };
}

/** Lets requests in flight finish. */
export const stopApi = (api: ProcessReference): Promise<void> => stopProcess(api, SHUTDOWN_TIMEOUT_MS + 2_000);

/** @throws EmbeddedError with the last lines that this process wrote when it does not get healthy in time */
export async function untilHealthy(
  api: ProcessReference,
  port: number,
  caFile: string | undefined,
  log: { readonly file: string; readonly from: number },
): Promise<void> {
  const deadline = performance.now() + HEALTH_TIMEOUT_MS;
  while (isRunning(api) && performance.now() < deadline) {
    if (await isHealthy(port, caFile)) return;
    await sleep(50);
  }
  const what = isRunning(api) ? `did not answer within ${HEALTH_TIMEOUT_MS / 1_000} s` : 'ended';
  const words = readFileSync(log.file).subarray(log.from).toString('utf8');
  throw new EmbeddedError(`The API ${what}. The last lines of ${log.file}:\n${lastLines(words)}`);
}

/** Whether the API and the database behind it answer over TLS to a client that trusts the authority. */
export async function isHealthy(port: number, caFile: string | undefined): Promise<boolean> {
  const statuses = await Promise.all(['/health', '/health-db'].map((path) => statusOf(port, path, caFile)));
  return statuses.every((status) => status === 200);
}

function statusOf(port: number, path: string, caFile: string | undefined): Promise<number | undefined> {
  return new Promise((resolve) => {
    // The user's own certificate does not cover localhost, and was checked when it was read.
    const trust = caFile === undefined ? { rejectUnauthorized: false } : { ca: readFileSync(caFile) };
    const sent = request({ host: 'localhost', port, path, agent: false, timeout: 2_000, ...trust }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.once('timeout', () => sent.destroy());
    sent.once('error', () => resolve(undefined));
    sent.end();
  });
}

export const sizeOf = (file: string): number => (existsSync(file) ? statSync(file).size : 0);

const lastLines = (text: string): string =>
  text
    .trimEnd()
    .split('\n')
    .slice(-15)
    .map((line) => `  ${line}`)
    .join('\n');

function release(): { VERSION: string; COMMIT: string; RELEASE: string } {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const { status, stdout } = spawnSync('git', ['rev-parse', '--short=12', 'HEAD'], { cwd: ROOT, encoding: 'utf8' });
  return { VERSION: version, COMMIT: status === 0 ? stdout.trim() : 'unknown', RELEASE: '' };
}
