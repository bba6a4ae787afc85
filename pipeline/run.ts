import { spawn } from 'node:child_process';

/** A fault that is told to whoever reads the job's log, with the remedy; no trace. */
export class PipelineError extends Error {
  override readonly name = 'PipelineError';
}

export interface Result {
  /** 127 where the program is not installed. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  /** Added to the environment; undefined removes. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string;
  /** Shows what the program writes, as it comes. */
  readonly show?: boolean;
}

/** Runs a program without a shell; whatever its exit code is. A signal to end goes on to it, and it is waited for. */
export type Run = (command: string, args: readonly string[], options?: RunOptions) => Promise<Result>;

export const run: Run = (command, args, { cwd, env, input, show = false } = {}) =>
  new Promise((done, fail) => {
    const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['pipe', 'pipe', 'pipe'] });
    // make hands SIGTERM on to what it runs; SIGINT it takes for a key that all of them have seen.
    const pass = () => child.kill('SIGTERM');
    process.on('SIGINT', pass).on('SIGTERM', pass);
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => {
      stdout.push(chunk);
      if (show) process.stdout.write(chunk);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr.push(chunk);
      if (show) process.stderr.write(chunk);
    });
    // A program that ends without reading its input is judged by its exit code.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input ?? '');
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') done({ code: 127, stdout: '', stderr: `${command}: not installed` });
      else fail(error);
    });
    child.on('close', (code) => {
      process.off('SIGINT', pass).off('SIGTERM', pass);
      done({
        code: code ?? 1,
        stdout: Buffer.concat(stdout).toString('utf8'),
        stderr: Buffer.concat(stderr).toString('utf8'),
      });
    });
  });

/** What the program prints. @throws PipelineError with its last words when it fails */
export async function output(
  runner: Run,
  command: string,
  args: readonly string[],
  options?: RunOptions,
): Promise<string> {
  const { code, stdout, stderr } = await runner(command, args, options);
  if (code === 127) throw new PipelineError(`${command} is not installed`);
  if (code !== 0) {
    const words = (stderr.trim() || stdout.trim()).split('\n').slice(-12).join('\n');
    throw new PipelineError(`${command} ${args[0] ?? ''} failed:\n${words}`);
  }
  return stdout;
}
