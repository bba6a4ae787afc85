import { StepError, tryDocker } from '../deploy/engine';
import type { Entry } from '../deploy/ledger';
import { ROOT } from '../operator';
import { changeSettings } from '../settings';
import { activeOf, ledgerOf, table } from './releases';
import { up } from './up';

/**
 * Deploys an earlier release's image through the same gate and switch, from the engine's own copy of it. The settings
 * stay as they are: they are in version control, an image is not. Nothing is taken back in the database: a schema
 * only ever grows while an older release may need it.
 */
export async function rollback(stack: string, [to]: readonly string[]): Promise<void> {
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
  const undo = changeSettings(ROOT, stack, [[['image'], target.localImage]]);
  try {
    await up(stack);
  } catch (error) {
    undo();
    throw error;
  }
  console.log(
    `Pulumi.${stack}.yaml now names this image (branchloans:image): the next make up keeps it until you change that.`,
  );
}

/** @throws StepError when there is no such release, or nothing to go back to */
export function targetOf(stack: string, entries: readonly Entry[], to: string | undefined): Entry {
  const active = activeOf(entries);
  const good = entries.filter(({ outcome, id }) => outcome === 'active' && id !== active?.id);
  const target = to === undefined ? good.at(-1) : good.findLast(({ id }) => id.startsWith(to));
  if (target !== undefined) return target;
  const why =
    to === undefined
      ? 'no other release was active before'
      : to !== '' && active?.id.startsWith(to)
        ? `${to} has the traffic already`
        : `${to} is no release that was active`;
  throw new StepError(`${stack} cannot go back: ${why}. Nothing was changed. Known releases:\n${table(entries)}`);
}
