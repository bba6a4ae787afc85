import { StepError, tryDocker } from '../deploy/engine';
import type { Entry } from '../deploy/ledger';
import { inTurnOf, withSettings } from '../settings';
import { activeOf, ledgerOf, table } from './releases';
import { up } from './up';

/**
 * Deploys an earlier release's image through the same gate and switch, from the engine's own copy of it. The settings
 * stay as they are: they are in version control, an image is not. Nothing is taken back in the database: a schema
 * only ever grows while an older release may need it.
 */
export function rollback(stack: string, [to]: readonly string[]): Promise<void> {
  return inTurnOf(stack, () => goBack(stack, to));
}

async function goBack(stack: string, to: string | undefined): Promise<void> {
  const entries = await ledgerOf(stack);
  const target = targetOf(stack, entries, to);
  if ((await tryDocker(['image', 'inspect', target.localImage])).code !== 0) {
    throw new StepError(
      `The engine no longer has the image of release ${target.id} (${target.localImage}), nothing was changed: ` +
        `set branchloans:image to ${target.image} and run make up STACK=${stack}`,
    );
  }
  const active = activeOf(entries);
  console.log(
    `${stack} goes back from release ${active?.id ?? '(none)'} to ${target.id} of ${target.at}: ${target.image}`,
  );
  if (active !== undefined && active.configuration !== target.configuration) {
    console.log(
      'Its settings were others than today; those of today are kept. To go back to them, use version control.',
    );
  }
  const changes = [
    [['image'], target.localImage],
    // It would be that of the release that goes. Where the target's is not known, its image may know it.
    [['commit'], ['', 'unknown'].includes(target.commit) ? undefined : target.commit],
  ] as const;
  await withSettings(
    stack,
    changes,
    () => up(stack),
    () => whyKept(stack, target),
  );
  console.log(
    `Pulumi.${stack}.yaml now names this image (branchloans:image): the next make up keeps it until you change that.`,
  );
}

/** After the switch the target has the traffic, whatever failed then: the next `up` must not bring back the other one. */
async function whyKept(stack: string, target: Entry): Promise<string | undefined> {
  const finish = `make up STACK=${stack} finishes it`;
  try {
    const active = activeOf(await ledgerOf(stack));
    if (active?.imageId !== target.imageId) return undefined;
    return `${target.id} has the traffic, only what comes after that failed; ${finish}.`;
  } catch (error) {
    return `whether ${target.id} has the traffic is not known (${(error as Error).message}); ${finish}, or does it anew.`;
  }
}

/**
 * Releases of the active one's image differ from it in their settings only, which a rollback keeps.
 * @throws StepError when there is no such release, or nothing to go back to
 */
export function targetOf(stack: string, entries: readonly Entry[], to: string | undefined): Entry {
  const active = activeOf(entries);
  const named = ({ id }: Entry) => to === undefined || (to !== '' && id.startsWith(to));
  const were = entries.filter((entry) => entry.outcome === 'active' && named(entry));
  const target = were.findLast(({ imageId }) => imageId !== active?.imageId);
  if (target !== undefined) return target;
  const same = were.at(-1);
  const why =
    to === undefined
      ? 'no release of another image was active before'
      : same === undefined
        ? `${to} is no release that was active`
        : same.id === active?.id
          ? `${to} has the traffic already`
          : `${to} is of the image that runs already, only its settings were others: those are in version control`;
  throw new StepError(`${stack} cannot go back: ${why}. Nothing was changed. Known releases:\n${table(entries)}`);
}
