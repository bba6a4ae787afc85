import { own, roles, type OwnInput, type RolesInput } from './database';
import { StepError } from './engine';
import { gate, type GateInput } from './gate';
import { runOnce } from './oneshot';
import { publish, type PublishInput } from './publish';
import { rehearse, type RehearseInput } from './rehearse';
import type { OneShot } from '../container';

/**
 * The steps of a deploy that are not resources. The Pulumi program runs `main.ts <step>` with the step's input
 * as JSON on standard input, so that no secret stands in a command line. The result goes to standard output.
 */
export interface Steps {
  publish: PublishInput;
  own: OwnInput;
  roles: RolesInput;
  gate: GateInput;
  rehearse: RehearseInput;
  run: OneShot & { readonly purpose: string };
}

const steps: { [Name in keyof Steps]: (input: Steps[Name]) => Promise<unknown> } = {
  publish,
  own,
  roles,
  gate,
  rehearse,
  run: ({ purpose, ...job }) => runOnce(purpose, job),
};

async function main(): Promise<void> {
  const step = process.argv[2] as keyof Steps;
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const input = JSON.parse(Buffer.concat(chunks).toString('utf8')) as never;
  const result = await steps[step](input);
  process.stdout.write(typeof result === 'string' ? result : JSON.stringify(result ?? {}));
}

main().catch((error: unknown) => {
  console.error(error instanceof StepError ? error.message : error);
  process.exitCode = 1;
});
