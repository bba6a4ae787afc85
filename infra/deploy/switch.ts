import { renderHandover, serversOf } from '../ops/nginx';
import { docker, indent, lastLog, sleep, StepError, tryDocker } from './engine';
import { append, type Attempt, LEDGER_MOUNT, namesToDrop, read, type Release, RolledBack, withLedger } from './ledger';
import { type FileVolume, isRunning, type PublishInput, type Reload, withFiles } from './publish';
import {
  askByEntrance,
  type Entrance,
  faultAfterPatience,
  type PassingKey,
  passingKey,
  type Smoke,
  smokeFault,
} from './smoke';
import type { Helper } from './volume';

/**
 * Gives the gateway new files, and with them a release its traffic; takes it back when users could not use it.
 * What has to be found out is read from the gateway's volume and the engine, so that a step that was cut off anywhere
 * is done right when it runs again.
 */
export interface SwitchInput extends PublishInput, Way {
  readonly reload: Reload;
  /**
   * Name of the file with the upstream. The gateway first gets the servers of the old and the new file together for a
   * moment: nginx knows a new server's address only a little after the reload that names it.
   */
  readonly upstream: string;
  /** Label (`key=value`) of the environment's containers, and their names' beginning: for those that were left behind. */
  readonly candidates: { readonly label: string; readonly prefix: string };
}

/** Through the public entrance. */
interface Way {
  readonly entrance: Entrance;
  readonly smoke: Smoke;
  /** One of the containers that are to serve; keys are made there. */
  readonly server: string;
  readonly attempt: Attempt;
}

export interface SwitchOutput {
  readonly release: Release;
  /** The version of the files, where the gateway did not run: whoever starts it is to open it. */
  readonly unopened?: string;
}

/** How long nginx may take to look up the addresses of servers that it did not know. */
const HANDOVER_MS = 1_500;
/**
 * For how long a release keeps the traffic while its answers are late or say "later". Wrong answers take it back after
 * three in a row, in a second or two. The release before is no measure: it has no traffic any more, so that on a busy
 * host it answers well where the new one is late, and a good release would be taken back.
 */
const PATIENCE_MS = 30_000;
/** So many images of releases that were active are kept on the engine. */
const KEPT_IMAGES = 10;

export async function switchOver(input: SwitchInput): Promise<SwitchOutput> {
  const { version, files, attempt, reload, smoke } = input;
  const mounts = { [attempt.ledger.volume]: LEDGER_MOUNT };
  return withFiles(input, mounts, async (volume, helper) => {
    if (!(await isRunning(reload.container))) {
      await volume.add(version, files);
      await volume.switchTo(version);
      await volume.end(version);
      return { release: attempt.release, unopened: version };
    }
    const before = await volume.begin(input.upstream);
    const after = serversOf(files[input.upstream] ?? '');
    const known = before === undefined ? [] : serversOf(before.text);
    const key = passingKey(input.server, smoke.keyCommand);
    try {
      const handover = before && (await beginHandover(volume, input, before.text));
      // While nginx looks the new servers up.
      await volume.add(version, files);
      await makeKeyIfWanted(input, key);
      await handover?.known;
      await volume.switchTo(version);
      await requireEntrance(input, key, PATIENCE_MS);
    } catch (error) {
      const fault = before === undefined ? error : await goBack(volume, input, before.version, error as Error);
      await key.revoke();
      throw fault;
    }
    await volume.end(version);
    await recordActive(helper, attempt);
    await Promise.all([removeStrays(input.candidates, [...known, ...after]), key.revoke()]);
    return { release: attempt.release };
  });
}

/** @returns when all servers are known to nginx: at once, if none is new */
async function beginHandover(
  volume: FileVolume,
  { upstream, files, version }: SwitchInput,
  before: string,
): Promise<{ readonly known: Promise<void> }> {
  const both = renderHandover(before, files[upstream] ?? '');
  if (both === undefined) return { known: Promise.resolve() };
  const handover = `${version}-handover`;
  await volume.add(handover, { ...files, [upstream]: both });
  await volume.switchTo(handover);
  return { known: sleep(HANDOVER_MS) };
}

/** @returns the fault to end with, which says what users have now */
async function goBack(volume: FileVolume, input: SwitchInput, version: string, fault: Error): Promise<StepError> {
  try {
    const reached = await volume.look(input.upstream);
    if (reached === undefined || reached.version === version) {
      // Read again: a change that was cut off may have come further with nginx than with the files.
      if (reached !== undefined) await volume.switchTo(version);
      await volume.end(version);
      return new StepError(`${fault.message}\nThe gateway goes on with what it had.`);
    }
    // The other way round, and for the same reason: the old servers are new to nginx by now.
    const handover = `${input.version}-handover`;
    if (reached.version === input.version && (await volume.has(handover))) {
      await volume.switchTo(handover);
      await sleep(HANDOVER_MS);
    }
    await volume.switchTo(version);
    await volume.end(version);
  } catch (error) {
    return new RolledBack(
      `${fault.message}\nThe way back to the release before failed too, the next up finds it: ${String(error)}`,
    );
  }
  return new RolledBack(`${fault.message}\nThe traffic was given back to the release before: it serves again.`);
}

/** After the gateway's container was made: there is nothing to go back to, so this only tells. */
export interface OpenInput extends Way {
  readonly withinSeconds: number;
}

export async function open(input: OpenInput): Promise<void> {
  const key = passingKey(input.server, input.smoke.keyCommand);
  try {
    await requireEntrance(input, key, input.withinSeconds * 1_000);
  } finally {
    await key.revoke();
  }
  await withLedger(input.attempt.ledger, (helper) => recordActive(helper, input.attempt));
}

/** Takes a moment; users would wait for it between the switch and the end of the smoke test. */
async function makeKeyIfWanted({ entrance, smoke }: Way, key: PassingKey): Promise<void> {
  const ask = askByEntrance(entrance);
  for (const path of smoke.reads) {
    if ((await ask(path, undefined, undefined)).status !== 401) continue;
    await key.text();
    return;
  }
}

async function requireEntrance({ entrance, smoke, server }: Way, key: PassingKey, withinMs: number): Promise<void> {
  const done = new Set<string>();
  const ask = () => smokeFault(smoke, askByEntrance(entrance), key, done);
  const fault = await faultAfterPatience(ask, { withinMs });
  if (fault === undefined) return;
  throw new StepError(
    `${fault.path} fails through the public entrance (https://${entrance.domain}):\n${indent(fault.words)}\n` +
      `  last log lines of ${server}:\n${await lastLog(server)}`,
  );
}

/** The same release again, with other containers or gateway settings, is no news. */
async function recordActive(helper: Helper, { release }: Attempt): Promise<void> {
  const entries = await read(helper);
  const latest = entries.findLast(({ outcome }) => outcome !== 'refused');
  if (latest?.outcome !== 'active' || latest.id !== release.id) {
    await append(helper, { ...release, at: new Date().toISOString(), outcome: 'active' });
  }
  await docker(`Keeping the image of release ${release.id}`, ['tag', release.imageId, release.localImage]);
  for (const name of namesToDrop(entries, release, KEPT_IMAGES)) await tryDocker(['rmi', name]);
}

/**
 * Containers of a deploy that was cut off: the gateway sends them nothing any more, and Pulumi's state may not know
 * them. One that had traffic finishes what it has.
 */
async function removeStrays({ label, prefix }: SwitchInput['candidates'], inUse: readonly string[]): Promise<void> {
  const found = await docker('Looking for containers that were left behind', [
    ...['ps', '--all', '--format', '{{.Names}}', '--filter', `label=${label}`, '--filter', `name=^/?${prefix}`],
  ]);
  const strays = found.split('\n').filter((name) => name !== '' && !inUse.includes(name));
  if (strays.length === 0) return;
  await tryDocker(['stop', ...strays]);
  await tryDocker(['rm', '--force', '--volumes', ...strays]);
}
