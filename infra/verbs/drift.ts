import { StepError, tryDocker } from '../deploy/engine';
import {
  type Deployment,
  type Finding,
  findDrift,
  type Inspected,
  type Published,
  publishSteps,
  readDeployment,
  unfinished,
} from '../drift';
import { atWork, describe, placeOf } from '../lock';
import { list, missingTools, ourContainers, pulumiOutput, requirePassphrase, ROOT, stackExists } from '../operator';
import type { PlannedStep } from '../plan';

/**
 * Compares what runs with what was deployed and changes nothing. The program is not run: settings that wait for an
 * `up` are no drift. Exit code 1 when something is found.
 * @param args `--json` prints findings for machines: `{ stack, unfinished: string[], findings: Finding[] }`
 * @throws StepError when a deploy runs: what it is about to do would be taken for drift
 */
export async function drift(stack: string, args: readonly string[]): Promise<void> {
  const { unfinished: open, findings } = await compared(stack);
  if (args.includes('--json')) console.log(JSON.stringify({ stack, unfinished: open, findings }, null, 2));
  else console.log(open.length > 0 ? tellUnfinished(stack, open) : tell(stack, findings));
  if (open.length + findings.length > 0) process.exitCode = 1;
}

/** What of the last deploy is not over; where it is, what is not as it left it. @throws StepError as above */
export async function compared(stack: string): Promise<{ unfinished: string[]; findings: Finding[] }> {
  const missing = await missingTools(stack);
  if (missing.length > 0) throw new StepError(`${stack} cannot be examined from here:\n${list(missing)}`);
  if (!stackExists(stack)) throw new StepError(`${stack} was never up here: make up STACK=${stack}`);
  requirePassphrase(stack);
  requireQuiet(stack);
  // Opened in memory only: what was published can be compared, and is never printed.
  const deployment = readDeployment(await asked(stack, ['stack', 'export', '--show-secrets']));
  const open = [...unfinished(deployment), ...(await lastDeployFailed(stack))];
  const findings = open.length > 0 ? [] : await examine(stack, deployment);
  // One that began meanwhile has changed what was looked at.
  requireQuiet(stack);
  return { unfinished: open, findings };
}

function requireQuiet(stack: string): void {
  const owner = atWork(placeOf(ROOT, stack));
  if (owner === undefined) return;
  throw new StepError(
    `${stack} is being changed by ${describe(owner)}, so what runs was not compared with anything: ` +
      `make drift STACK=${stack} when that is over`,
  );
}

async function examine(stack: string, deployment: Deployment): Promise<Finding[]> {
  const plan = await asked(stack, ['refresh', '--preview-only', '--json']);
  const { steps } = JSON.parse(plan) as { steps?: PlannedStep[] };
  const labelled = (await ourContainers(stack, ['--all', '--no-trunc', '--quiet'])).split('\n').filter(Boolean);
  const known = (deployment.resources ?? [])
    .filter(({ type }) => type === 'docker:index/container:Container')
    .flatMap(({ id }) => id ?? []);
  const containers = await inspect([...new Set([...labelled, ...known])]);
  const published = await Promise.all(publishSteps(deployment).map(look));
  return findDrift({ deployment, refresh: steps ?? [], containers, published: published.flat() });
}

/** @throws StepError with what Pulumi says where it does not answer */
async function asked(stack: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await pulumiOutput(stack, [...args, '-s', stack]);
  if (code !== 0) throw new StepError(`pulumi ${args.join(' ')} failed:\n${stderr.trim() || stdout.trim()}`);
  return stdout;
}

/** A step that fails leaves no mark in the state. */
async function lastDeployFailed(stack: string): Promise<string[]> {
  const text = await asked(stack, ['stack', 'history', '--json', '--page-size', '1']);
  const [last] = (JSON.parse(text) ?? []) as { kind: string; result: string; startTime: string }[];
  return last?.result === 'failed' ? [`the last ${last.kind} (${last.startTime}) failed`] : [];
}

/** Those that are there; one that is gone is no error. */
async function inspect(ids: readonly string[]): Promise<Inspected[]> {
  if (ids.length === 0) return [];
  const { stdout } = await tryDocker(['inspect', '--type', 'container', ...ids]);
  return JSON.parse(stdout.trim() || '[]') as Inspected[];
}

const LOOK = `cd /files/current/ 2>/dev/null || exit 3
find . -type f -exec sha256sum {} +`;

/** Reads a volume by a helper container; nothing when the volume is gone: naming it would make it anew. */
async function look({ urn, input }: { urn: string; input: Published['input'] }): Promise<Published[]> {
  if ((await tryDocker(['volume', 'inspect', input.volume])).code !== 0) return [];
  const run = (script: string, ...args: string[]) =>
    tryDocker([
      ...['run', '--rm', '--network', 'none', '--read-only', '--user', '0:0', '--cap-drop', 'ALL'],
      ...['--cap-add', 'DAC_OVERRIDE', '--security-opt', 'no-new-privileges:true'],
      ...[
        '--volume',
        `${input.volume}:/files:ro`,
        '--entrypoint',
        'sh',
        input.helperImage,
        '-c',
        script,
        'sh',
        ...args,
      ],
    ]);
  const { code, stdout, stderr } = await run(LOOK);
  if (code === 3) return [{ urn, input, hashes: undefined }];
  if (code !== 0) throw new StepError(`The volume ${input.volume} cannot be read:\n${stderr}`);
  const hashes = Object.fromEntries(
    [...stdout.matchAll(/^([0-9a-f]{64}) [ *]\.\/(.*)$/gm)].map(([, hash, path]) => [path ?? '', hash ?? '']),
  );
  if (input.upstream === undefined) return [{ urn, input, hashes }];
  return [{ urn, input, hashes, upstream: (await run('cat "/files/current/$1"', input.upstream)).stdout }];
}

function tellUnfinished(stack: string, reasons: readonly string[]): string {
  return (
    `${stack}: the last deploy did not end well, so what runs is not compared with it:\n${list(reasons)}\n` +
    `Mend what it complained of and run make up STACK=${stack} again: it goes on from there and cleans up. ` +
    'No refresh before that: it forgets which containers never got healthy.'
  );
}

function tell(stack: string, findings: readonly Finding[]): string {
  if (findings.length === 0) return `${stack}: no drift.`;
  const { PULUMI_CONFIG_PASSPHRASE: phrase, PULUMI_CONFIG_PASSPHRASE_FILE: file } = process.env;
  const environment = stack === 'development' && phrase === undefined && file === undefined;
  const command = (remedy: string) => {
    if (remedy === 'make up') return `make up STACK=${stack}`;
    if (!remedy.startsWith('up ')) return remedy;
    return `${environment ? 'PULUMI_CONFIG_PASSPHRASE= ' : ''}pulumi ${remedy} -s ${stack}`;
  };
  const paragraphs = findings.map(({ what, up, remedy }) => `${what}\n    ${up}.\n    remedy: ${command(remedy)}`);
  return `${stack} is not as it was deployed:\n${list(paragraphs)}\nWhat runs is put right in this order; then make drift STACK=${stack} again.`;
}
