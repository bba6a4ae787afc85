import { spawn } from 'node:child_process';

/** The Docker command line, the one thing that reaches a local and a remote engine alike. */

export interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs `docker` and returns whatever it says.
 * @param input what it reads on standard input
 * @param environment added to its own: `--env NAME` takes a value from there, which no list of processes shows
 */
export function tryDocker(
  args: readonly string[],
  input?: string | Buffer,
  environment: Readonly<Record<string, string>> = {},
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, ...environment };
    const child = spawn('docker', args, { stdio: ['pipe', 'pipe', 'pipe'], env });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.on('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'ENOENT'
          ? new StepError('The docker command is not on the PATH: install the Docker command line')
          : error,
      ),
    );
    child.on('close', (code) => {
      const text = (chunks: Buffer[]) => Buffer.concat(chunks).toString('utf8');
      resolve({ code: code ?? 1, stdout: text(stdout), stderr: text(stderr) });
    });
    // The command may end without reading all of its input; its exit code tells.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}

/** Runs `docker`; returns its output. @throws StepError with what it wrote, under the title `purpose` */
export async function docker(purpose: string, args: readonly string[], input?: string | Buffer): Promise<string> {
  const { code, stdout, stderr } = await tryDocker(args, input);
  if (code !== 0) throw new StepError(`${purpose} failed (exit code ${code}):\n${indent(stderr + stdout)}`);
  return stdout;
}

/** A failure that the operator can read: no stack trace. */
export class StepError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'StepError';
  }
}

export function indent(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n');
}

export interface ContainerState {
  readonly status: string;
  readonly health: string | undefined;
  readonly exitCode: number;
  readonly restarts: number;
}

/**
 * What the engine says of a container; undefined when there is none.
 * @throws StepError when the engine does not say
 */
export async function inspectState(container: string): Promise<ContainerState | undefined> {
  const format = '{{json .State}} {{.RestartCount}}';
  const { code, stdout, stderr } = await tryDocker(['inspect', '--format', format, container]);
  if (code !== 0 && /no such/i.test(stderr)) return undefined;
  if (code !== 0) throw new StepError(`The engine does not say how ${container} is:\n${indent(stderr)}`);
  const end = stdout.lastIndexOf('}') + 1;
  const state = JSON.parse(stdout.slice(0, end)) as { Status: string; ExitCode: number; Health?: { Status: string } };
  return {
    status: state.Status,
    health: state.Health?.Status,
    exitCode: state.ExitCode,
    restarts: Number.parseInt(stdout.slice(end), 10),
  };
}

/** The last lines of a container's log, indented; for messages. */
export async function lastLog(container: string, lines = 20): Promise<string> {
  const { stdout, stderr } = await tryDocker(['logs', '--tail', String(lines), container]);
  return indent(stdout + stderr || '(no log)');
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Of a container that runs, but whose health checks failed several times in a row. */
export const UNHEALTHY = 'is unhealthy';

/** Why a container is not going to run: it ended, restarts, or its health check gave up. Undefined: it may yet. */
export async function reasonOfFailure(container: string): Promise<string | undefined> {
  const state = await inspectState(container);
  if (state === undefined) return 'is gone';
  if (state.status === 'exited' || state.status === 'dead') return `ended with exit code ${state.exitCode}`;
  // While it runs again the engine reports no exit code.
  if (state.restarts > 0 || state.status === 'restarting') return 'crashed and was restarted';
  return state.health === 'unhealthy' ? UNHEALTHY : undefined;
}
