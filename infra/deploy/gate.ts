import { indent, lastLog, reasonOfFailure, StepError, tryDocker, UNHEALTHY } from './engine';
import { type Attempt, read, type Release, withLedger } from './ledger';
import { askByProbe, type Fault, faultAfterPatience, passingKey, type Smoke, smokeFault } from './smoke';

/**
 * Stands between new API containers and the gateway's switch: waits until each answers for itself, without
 * waiting for Docker's own health check (its first result comes after a whole interval). It fails before anything old is
 * touched: at once when a container cannot recover (it crashed, the database refuses its credentials), soon when it gives
 * wrong answers, and only when time is up for what a busy host causes too.
 */
export interface GateInput {
  readonly containers: readonly { readonly id: string; readonly name: string }[];
  /** The image's own probe: `<probe> <path>` exits with 0 when the path answers 200. */
  readonly probe: string;
  readonly readyPath: string;
  /** Asked of each after that. */
  readonly smoke: Smoke;
  /** For all of them together. A release that served before gets more: see PROVEN. */
  readonly readyWithinSeconds: number;
  readonly attempt: Attempt;
}

/** What the gate lets through. */
export interface GateOutput {
  readonly release: Release;
  readonly containers: readonly string[];
}

/**
 * The image of a release that has served is known to be good: where it is slow, the host is in trouble, and going back
 * to it may be the way out. It gets so many times as long, and at least so many seconds.
 */
export const PROVEN = { times: 4, leastSeconds: 240 } as const;

export async function gate(input: GateInput): Promise<GateOutput> {
  const { containers, smoke, readyPath, readyWithinSeconds, attempt } = input;
  const key = passingKey(containers[0]?.id ?? '', smoke.keyCommand);
  const all: Smoke = { ...smoke, reads: [readyPath, ...smoke.reads] };
  const asked = containers.map((container) => ({ ...container, done: new Set<string>() }));
  // One after the other, so that questions take no more of a busy host than they must. They start at the same time.
  const ask = async () => {
    for (const { id, name, done } of asked) {
      const fault = await smokeFault(all, askByProbe(id, input.probe), key, done);
      if (fault !== undefined) return { id, name, ...((await finalFault(id, fault)) ?? fault) };
    }
    return undefined;
  };
  try {
    const moreMs = async () => (await moreSeconds(attempt, readyWithinSeconds)) * 1_000;
    const fault = await faultAfterPatience(ask, { withinMs: readyWithinSeconds * 1_000, moreMs });
    if (fault !== undefined) await refuse(fault, readyPath);
  } finally {
    await key.revoke();
  }
  return { release: attempt.release, containers: containers.map(({ name }) => name) };
}

/** What the API logs when the database refuses its user, its password or the database's name (SQLSTATE). */
const REFUSED_BY_DATABASE = /"code":"(?:28P01|28000|3D000)"/;
/** Longer than a question takes. A container that runs for long may have been refused before, while a password changed. */
const NOW = '15s';

/** Why the container cannot recover; undefined while it may. */
async function finalFault(id: string, { path, words }: Fault): Promise<Fault | undefined> {
  // An engine that does not say has too much to do: asked again, it will.
  const reason = await reasonOfFailure(id).catch(() => undefined);
  // That is Docker's word for a few late answers, which a busy host causes too.
  if (reason !== undefined && reason !== UNHEALTHY) return { path, words: `${reason}\n${words}`, kind: 'final' };
  const { stdout, stderr } = await tryDocker(['logs', '--since', NOW, id]);
  if (!REFUSED_BY_DATABASE.test(stdout + stderr)) return undefined;
  return { path, words: `is refused by the database\n${words}`, kind: 'final' };
}

/** How much longer a release gets that served before; 0 for any other, and where the ledger cannot be read. */
async function moreSeconds({ ledger, release }: Attempt, seconds: number): Promise<number> {
  const entries = await withLedger(ledger, read).catch(() => []);
  const served = entries.some(({ outcome, imageId }) => outcome === 'active' && imageId === release.imageId);
  return served ? Math.max(PROVEN.times * seconds, PROVEN.leastSeconds) - seconds : 0;
}

async function refuse(
  { id, name, path, words, kind, afterMs }: Fault & { id: string; name: string; afterMs: number },
  readyPath: string,
): Promise<never> {
  const [reason = '', ...answer] = words.split('\n');
  const late = `was not ready after ${Math.round(afterMs / 1_000)} s`;
  const what = kind === 'final' ? reason : path === readyPath ? late : `is ready but ${path} fails`;
  const said = (kind === 'final' ? answer.join('\n') : words) || '(no answer)';
  throw new StepError(
    `${name} ${what}. The release was not let through: the old containers go on serving.\n` +
      `  its last answer on its own port:\n${indent(said)}\n  its last log lines:\n${await lastLog(id)}`,
  );
}
