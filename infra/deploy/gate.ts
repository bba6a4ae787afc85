import { indent, lastLog, reasonOfFailure, type Result, sleep, StepError, tryDocker } from './engine';

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
  /** In the container: makes and revokes API keys (`create`, `revoke`), for paths that want one. */
  readonly keyCommand: readonly string[];
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
  const key = passingKey(input.keyCommand);
  try {
    await Promise.all(input.containers.map(({ id, name }) => pass(id, name, input, key)));
  } finally {
    await key.revoke();
  }
  return { release: input.release, containers: input.containers.map(({ name }) => name) };
}

async function pass(id: string, name: string, input: GateInput, key: PassingKey): Promise<void> {
  const ask = (path: string) => tryDocker(['exec', id, input.probe, path]);
  const askWithKey = async (path: string) =>
    tryDocker(['exec', '--env', 'PROBE_KEY', id, input.probe, path], undefined, { PROBE_KEY: await key.text(id) });
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
    let result = await ask(path);
    // A release that is older than API keys, or does not require them, never gets here.
    if (wantsKey(result)) result = await askWithKey(path);
    const { code, stdout, stderr } = result;
    if (code !== 0) await refuse(id, `${name} is ready but ${path} fails`, stdout + stderr);
  }
}

const wantsKey = ({ code, stdout }: Result): boolean => code !== 0 && / 401 /.test(stdout);

interface PassingKey {
  /** Of a key that may read loans, made by the first container that asks. */
  text(container: string): Promise<string>;
  /** If there is one. One that could not be revoked expires within a day. */
  revoke(): Promise<void>;
}

function passingKey(command: readonly string[]): PassingKey {
  let made: Promise<{ container: string; text: string }> | undefined;
  const make = async (container: string) => {
    const args = ['create', '--name', 'deploy-gate', '--scopes', 'loans:read', '--expires-days', '1'];
    const { code, stdout, stderr } = await tryDocker(['exec', container, ...command, ...args]);
    if (code !== 0) throw new StepError(`No API key for the smoke test could be made:\n${indent(stderr)}`);
    return { container, text: stdout.trim() };
  };
  return {
    text: async (container) => (await (made ??= make(container))).text,
    async revoke() {
      const key = await made?.catch(() => undefined);
      if (key === undefined) return;
      const [, , id = ''] = key.text.split('_');
      await tryDocker(['exec', key.container, ...command, 'revoke', '--id', id]);
    },
  };
}

async function refuse(id: string, what: string, answer: string): Promise<never> {
  throw new StepError(
    `${what}. The release was not let through: the old containers go on serving.\n` +
      `  its last answer on its own port:\n${indent(answer)}\n  its last log lines:\n${await lastLog(id)}`,
  );
}
