import { StepError } from '../deploy/engine';
import { inTurn, placeOf } from '../lock';
import { list, missingTools, repairIn, requirePassphrase, ROOT, stackExists } from '../operator';

/**
 * After a deploy that was killed or cut off. The verbs that deploy do the same by themselves; this is for whoever uses
 * plain `pulumi`. Changes nothing where nothing is wrong.
 * @throws StepError when a deploy runs
 */
export async function repair(stack: string): Promise<void> {
  const missing = await missingTools(stack);
  if (missing.length > 0) {
    throw new StepError(`${stack} cannot be repaired from here, nothing was changed:\n${list(missing)}`);
  }
  if (!stackExists(stack)) {
    console.log(`${stack} was never up here.`);
    return;
  }
  requirePassphrase(stack);
  const done = await inTurn(placeOf(ROOT, stack), 0, (turn) => repairIn(turn, stack));
  if (done.length === 0) console.log(`Nothing is wrong with ${stack}; nothing was changed.`);
  else console.log(`Repaired ${stack}; bring it up to date with make up STACK=${stack} (or pulumi up):\n${list(done)}`);
}
