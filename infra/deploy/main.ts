import { monitor, type MonitorInput, own, roles, type OwnInput, type RolesInput } from './database';
import { StepError } from './engine';
import { gate, type GateInput } from './gate';
import { type Attempt, recordFailure } from './ledger';
import { runOnce } from './oneshot';
import { publish, type PublishInput } from './publish';
import { rehearse, type RehearseInput } from './rehearse';
import { socket, type SocketInput } from './socket';
import { open, type OpenInput, switchOver, type SwitchInput } from './switch';
import type { OneShot } from '../container';

/**
 * The steps of a deploy that are not resources. The Pulumi program runs `main.ts <resource> <step>` with the step's input
 * as JSON on standard input, so that no secret stands in a command line. The result goes to standard output.
 */
export interface Steps {
  publish: PublishInput;
  own: OwnInput;
  roles: RolesInput;
  monitor: MonitorInput;
  socket: SocketInput;
  gate: GateInput;
  switch: SwitchInput;
  open: OpenInput;
  rehearse: RehearseInput;
  /** @param attempt whose failure a failure of the job is */
  run: OneShot & { readonly purpose: string; readonly attempt?: Attempt };
}

const steps: { [Name in keyof Steps]: (input: Steps[Name]) => Promise<unknown> } = {
  publish,
  own,
  roles,
  monitor,
  socket,
  gate,
  switch: switchOver,
  open,
  rehearse,
  run: ({ purpose, ...job }) => runOnce(purpose, job),
};

async function main(): Promise<void> {
  const step = process.argv.at(-1) as keyof Steps;
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  const input = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { attempt?: Attempt };
  const result = await steps[step](input as never).catch(async (error: unknown) => {
    if (input.attempt !== undefined && error instanceof StepError) await recordFailure(input.attempt, error);
    throw error;
  });
  process.stdout.write(typeof result === 'string' ? result : JSON.stringify(result ?? {}));
}

main().catch((error: unknown) => {
  console.error(error instanceof StepError ? error.message : error);
  process.exitCode = 1;
});
