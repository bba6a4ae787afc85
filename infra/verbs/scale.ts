import { StepError } from '../deploy/engine';
import { environmentOf, list, missingFor, pulumiUp, requirePassphrase, stackExists } from '../operator';
import { inTurnOf, withSettings } from '../settings';

/** `make scale`: another number of API containers, by the setting and an ordinary `up`. Those that stay are not touched. */
export async function scale(stack: string, args: readonly string[]): Promise<void> {
  const replicas = Number(args[0] || NaN);
  if (!Number.isInteger(replicas)) {
    throw new StepError(`Say how many API containers there shall be: make scale STACK=${stack} REPLICAS=3`);
  }
  await scaleTo(stack, replicas);
}

/** @throws StepError when it does not succeed; the setting is then what it was before */
export async function scaleTo(stack: string, replicas: number): Promise<void> {
  const missing = await missingFor(stack);
  if (missing.length > 0)
    throw new StepError(`${stack} cannot be scaled from here, nothing was changed:\n${list(missing)}`);
  requirePassphrase(stack);
  if (!stackExists(stack)) throw new StepError(`${stack} was never up here: make up STACK=${stack}`);
  await inTurnOf(stack, async () => {
    const before = environmentOf(stack).api.replicas;
    await withSettings(stack, [[['api', 'replicas'], replicas]], async () => {
      environmentOf(stack);
      await pulumiUp(stack);
    });
    console.log(
      `${stack}: ${replicas} API containers (before: ${before}). Pulumi.${stack}.yaml says so too: commit it.`,
    );
  });
}
