import { indent, StepError } from './engine';
import { type Helper, withVolumes } from './volume';

/** What runs: an image and the settings it runs with. The same two are the same release. */
export interface Release {
  /** Twelve hexadecimal digits: of the image's id and the configuration's hash. */
  readonly id: string;
  /** What the image is called outside this engine: its digest, or its id where no registry gave one. */
  readonly image: string;
  /** The engine's own. */
  readonly imageId: string;
  /** Under this name the engine keeps the image, for going back to it without any registry. */
  readonly localImage: string;
  readonly commit: string;
  /** Hash of the settings that the API's containers are made with; secrets and what is applied to a running container are not in it. */
  readonly configuration: string;
}

export interface Entry extends Release {
  /** When it was decided, in UTC (ISO 8601). */
  readonly at: string;
  /**
   * - `active`: it took the traffic over and answered through the public entrance
   * - `refused`: it never got traffic
   * - `rolled back`: it had taken the traffic over and had to give it back
   */
  readonly outcome: 'active' | 'refused' | 'rolled back';
  /** Why, in one line; not for `active`. */
  readonly reason?: string;
  /** Version of the schema that the release found or made; undefined when it did not come to that. */
  readonly schema?: number;
}

/** Where the ledger lies. It needs neither the database nor Pulumi's state, so that it can tell of their faults. */
export interface Ledger {
  readonly volume: string;
  /** An image with `sh`. */
  readonly helperImage: string;
}

export const LEDGER_MOUNT = '/releases';
const FILE = `${LEDGER_MOUNT}/ledger.jsonl`;
/** Old entries go, so that the file stays small for ever. */
const KEPT = 500;

/** A line is written whole or not at all: to a new file, which then takes the place of the old one. */
const APPEND = `set -e
touch ${FILE}
{ tail -n ${KEPT - 1} ${FILE}; cat; } > ${FILE}.new
sync ${FILE}.new
mv ${FILE}.new ${FILE}`;

export async function append(helper: Helper, entry: Entry): Promise<void> {
  await helper.run(APPEND, [], `${JSON.stringify(entry)}\n`);
}

/** All entries, oldest first. */
export async function read(helper: Helper): Promise<Entry[]> {
  const text = await helper.run(`cat ${FILE} 2>/dev/null || true`);
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Entry);
}

/**
 * Names of images that nobody needs to go back to any more. An image has a name for each settings that it ran with, and
 * the stack's own settings may use any of them: they go together.
 * @param kept how many images stay, that of the release among them
 */
export function namesToDrop(entries: readonly Entry[], release: Release, kept: number): string[] {
  const active = entries.filter(({ outcome }) => outcome === 'active');
  const newestFirst = [release, ...active.toReversed()].map(({ imageId }) => imageId);
  const images = new Set([...new Set(newestFirst)].slice(0, kept));
  return [...new Set(active.filter(({ imageId }) => !images.has(imageId)).map(({ localImage }) => localImage))];
}

export function withLedger<T>({ volume, helperImage }: Ledger, work: (helper: Helper) => Promise<T>): Promise<T> {
  return withVolumes(
    { purpose: `The release ledger in the volume ${volume}`, image: helperImage, mounts: { [volume]: LEDGER_MOUNT } },
    work,
  );
}

/** What a step knows of the release that it works for, so that a failure can be written down. */
export interface Attempt {
  readonly ledger: Ledger;
  readonly release: Release & { readonly schema?: number };
}

/** Thrown by a step whose release had taken over: the fault is not that it was refused. */
export class RolledBack extends StepError {}

/** Writes down that a release failed, and why; a ledger that cannot be written does not hide the failure itself. */
export async function recordFailure({ ledger, release }: Attempt, error: StepError): Promise<void> {
  const outcome = error instanceof RolledBack ? 'rolled back' : 'refused';
  const reason = (error.message.split('\n')[0] ?? '').slice(0, 500);
  try {
    await withLedger(ledger, (helper) => append(helper, { ...release, at: new Date().toISOString(), outcome, reason }));
  } catch (fault) {
    console.error(`The failure could not be written into the release ledger:\n${indent(String(fault))}`);
  }
}
