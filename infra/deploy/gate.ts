import { indent, lastLog, reasonOfFailure, sleep, StepError, tryDocker } from './engine';

/**
 * Stands between new API containers and the gateway's switch: waits until each answers for itself, without
 * waiting for Docker's own health check (its first result comes after a whole interval), and ends at once
 * when one crashed. It fails before anything old is touched.
 */
export interface GateInput {
  readonly containers: readonly { readonly id: string; readonly name: string }[];
  /** The image's own probe: `<probe> <path>` exits with 0 when the path answers 200. */
  readonly probe: string;
  readonly readyPath: string;
  /** Asked once each after that; they read from the real database. */
  readonly smokePaths: readonly string[];
  readonly readyWithinSeconds: number;
  /** What this release is called; handed on when the gate opens. */
  readonly release: Readonly<Record<string, string>>;
}

/** What the gate lets through. */
export interface GateOutput {
  readonly release: Readonly<Record<string, string>>;
  readonly containers: readonly string[];
}

const POLL_MS = 250;

export async function gate(input: GateInput): Promise<GateOutput> {
  await Promise.all(input.containers.map(({ id, name }) => pass(id, name, input)));
  return { release: input.release, containers: input.containers.map(({ name }) => name) };
}

async function pass(id: string, name: string, input: GateInput): Promise<void> {
  const ask = (path: string) => tryDocker(['exec', id, input.probe, path]);
  const deadline = Date.now() + input.readyWithinSeconds * 1000;
  let answer = '(no answer)';
  for (;;) {
    const { code, stdout, stderr } = await ask(input.readyPath);
    if (code === 0) break;
    answer = stdout + stderr || answer;
    const reason = await reasonOfFailure(id);
    if (reason !== undefined) await refuse(id, `${name} ${reason}`, answer);
    if (Date.now() > deadline) await refuse(id, `${name} was not ready after ${input.readyWithinSeconds} s`, answer);
    await sleep(POLL_MS);
  }
  for (const path of input.smokePaths) {
    const { code, stdout, stderr } = await ask(path);
    if (code !== 0) await refuse(id, `${name} is ready but ${path} fails`, stdout + stderr);
  }
}

async function refuse(id: string, what: string, answer: string): Promise<never> {
  throw new StepError(
    `${what}. The release was not let through: the old containers go on serving.\n` +
      `  its last answer on its own port:\n${indent(answer)}\n  its last log lines:\n${await lastLog(id)}`,
  );
}
