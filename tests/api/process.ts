import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Config } from '../../app/config';
import { freePort } from '../../infra/embedded/ports';
import { until } from './harness';

const ROOT = join(__dirname, '..', '..');

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunningProcess {
  readonly child: ChildProcess;
  readonly port: number;
  /** Lines of the log so far, each parsed. */
  logs(): Record<string, unknown>[];
  /** Sends the signal, and waits for the end. */
  end(signal: NodeJS.Signals): Promise<Finished>;
}

/** Runs the program as users do, to its end. @param root of the release that is run */
export async function run(
  args: readonly string[],
  environment: Record<string, string>,
  root: string = ROOT,
): Promise<Finished> {
  return start(args, environment, root).finished;
}

/** Starts `serve`, and waits until it is ready. @param root of the release that is run */
export async function serve(
  environment: Record<string, string>,
  on?: number,
  root: string = ROOT,
): Promise<RunningProcess> {
  const port = on ?? (await freePort());
  const where = { HOST: '127.0.0.1', PORT: String(port) };
  const { child, finished, output } = start(['serve'], { ...where, ...environment }, root);
  const logs = () =>
    output()
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  await until(async () => {
    if (child.exitCode !== null) throw new Error(`ended: ${JSON.stringify(await finished)}`);
    return await fetch(`http://127.0.0.1:${port}/health/ready`).then(
      ({ ok }) => ok,
      () => false,
    );
  });
  return {
    child,
    port,
    logs,
    end(signal) {
      child.kill(signal);
      return finished;
    },
  };
}

export function environmentOf(connection: Config['database']): Record<string, string> {
  return {
    DATABASE_HOST: connection.host,
    DATABASE_PORT: String(connection.port),
    DATABASE_NAME: connection.name,
    DATABASE_USER: connection.user,
    API_KEYS: 'optional',
  };
}

/** A test that failed must not leave its process behind. */
const children = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

function start(args: readonly string[], environment: Record<string, string>, root: string) {
  const child = spawn(process.execPath, ['--import', 'tsx', 'app/main.ts', ...args], {
    cwd: root,
    env: { PATH: process.env.PATH, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  children.add(child);
  // Nor wait for it.
  child.unref();
  for (const stream of [child.stdout, child.stderr]) (stream as unknown as { unref(): void }).unref();
  child.once('close', () => children.delete(child));
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
  return { child, finished, output: () => stdout };
}
