import { indent, lastLog, reasonOfFailure, sleep, StepError, tryDocker } from './engine';
import type { Attempt, Release } from './ledger';
import { askByProbe, type PassingKey, passingKey, type Smoke, smokeFault } from './smoke';

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
  /** Asked of each after that. */
  readonly smoke: Smoke;
  readonly readyWithinSeconds: number;
  readonly attempt: Attempt;
}

/** What the gate lets through. */
export interface GateOutput {
  readonly release: Release;
  readonly containers: readonly string[];
}

const POLL_MS = 250;

export async function gate(input: GateInput): Promise<GateOutput> {
  const key = passingKey(input.containers[0]?.id ?? '', input.smoke.keyCommand);
  try {
    await Promise.all(input.containers.map(({ id, name }) => pass(id, name, input, key)));
  } finally {
    await key.revoke();
  }
  return { release: input.attempt.release, containers: input.containers.map(({ name }) => name) };
}

async function pass(id: string, name: string, input: GateInput, key: PassingKey): Promise<void> {
  const deadline = Date.now() + input.readyWithinSeconds * 1000;
  let answer = '(no answer)';
  for (;;) {
    const { code, stdout, stderr } = await tryDocker(['exec', id, input.probe, input.readyPath]);
    if (code === 0) break;
    answer = stdout + stderr || answer;
    const reason = await reasonOfFailure(id);
    if (reason !== undefined) await refuse(id, `${name} ${reason}`, answer);
    if (Date.now() > deadline) await refuse(id, `${name} was not ready after ${input.readyWithinSeconds} s`, answer);
    await sleep(POLL_MS);
  }
  const fault = await smokeFault(input.smoke, askByProbe(id, input.probe), key);
  if (fault !== undefined) await refuse(id, `${name} is ready but ${fault.path} fails`, fault.words);
}

async function refuse(id: string, what: string, answer: string): Promise<never> {
  throw new StepError(
    `${what}. The release was not let through: the old containers go on serving.\n` +
      `  its last answer on its own port:\n${indent(answer)}\n  its last log lines:\n${await lastLog(id)}`,
  );
}
