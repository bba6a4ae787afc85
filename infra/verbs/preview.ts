import { list, missingTools, pulumiOutput, requirePassphrase, stackExists } from '../operator';
import { StepError } from '../deploy/engine';
import { inWords, type PlannedStep, type Words } from '../plan';

/** What the next `up` will change, in the words of the environment, and what that does to running data. */
export async function preview(stack: string): Promise<void> {
  const missing = await missingTools(stack);
  if (missing.length > 0) throw new StepError(`${stack} cannot be previewed from here:\n${list(missing)}`);
  if (!stackExists(stack)) {
    console.log(
      `${stack} was never up here: make up STACK=${stack} makes all of it, there is nothing that could change.`,
    );
    return;
  }
  requirePassphrase(stack);
  const { warnings, changes, interrupted } = await planned(stack);
  if (changes.length === 0) {
    console.log('Nothing changes.');
    return;
  }
  if (warnings.length > 0) console.log(`BEFORE YOU GO ON:\n${list(warnings)}\n`);
  console.log(`${stack} would change:\n${list(changes)}\n`);
  console.log(interrupted.length === 0 ? 'No part is interrupted.' : `Interrupted: ${interrupted.join(', ')}.`);
}

/** What the program would do. @throws StepError with what it says against settings, certificate, engine or guardrails */
export async function planned(stack: string): Promise<Words> {
  // Those that stay are needed to say how many there are.
  const { code, stdout, stderr } = await pulumiOutput(stack, ['preview', '--json', '--show-sames', '-s', stack]);
  const plan = read(stdout);
  if (code !== 0 || plan === undefined) throw new StepError(reasons(plan, stderr || stdout));
  return inWords(plan.steps ?? []);
}

interface Plan {
  readonly steps?: readonly PlannedStep[];
  readonly diagnostics?: readonly { readonly severity: string; readonly message: string }[];
}

function read(output: string): Plan | undefined {
  try {
    return JSON.parse(output) as Plan;
  } catch {
    return undefined;
  }
}

/** What the program itself says of its settings, without Pulumi's frame around it. */
function reasons(plan: Plan | undefined, output: string): string {
  const errors = (plan?.diagnostics ?? []).filter(({ severity }) => severity === 'error');
  return errors.map(({ message }) => message.replace(/^error: /, '').trim()).join('\n') || output.trim();
}
