import { spawnSync } from 'node:child_process';
import { docker, StepError } from './deploy/engine';
import {
  apiContainer,
  embedded,
  list,
  missingTools,
  ourContainers,
  pulumi,
  requirePassphrase,
  runEmbedded,
  stackExists,
  stackNamed,
} from './operator';
import { alerts } from './verbs/alerts';
import { autoscale } from './verbs/autoscale';
import { canary } from './verbs/canary';
import { chaos } from './verbs/chaos';
import { drift } from './verbs/drift';
import { keep } from './verbs/keep';
import { load } from './verbs/load';
import { logs } from './verbs/logs';
import { maintenance, remindOfMaintenance } from './verbs/maintenance';
import { pinImages } from './verbs/pin-images';
import { preview } from './verbs/preview';
import { readiness } from './verbs/readiness';
import { releases } from './verbs/releases';
import { repair } from './verbs/repair';
import { rollback } from './verbs/rollback';
import { rotate } from './verbs/rotate';
import { scale } from './verbs/scale';
import { silence } from './verbs/silence';
import { smoke } from './verbs/smoke';
import { printAccess, up } from './verbs/up';
import { upkeep } from './verbs/upkeep';

/** The operator's commands behind the Makefile: `main.ts <verb> [stack] [argument]...`. */
const verbs: Record<string, (stack: string, args: readonly string[]) => Promise<void>> = {
  up,
  preview,
  down,
  repair,
  status,
  smoke,
  alerts,
  silence,
  drift,
  logs,
  seed,
  retention,
  upkeep,
  readiness,
  canary,
  scale,
  autoscale,
  keep,
  load,
  chaos,
  maintenance,
  'api-key': apiKey,
  releases,
  rollback,
  rotate,
  'pin-images': () => pinImages(),
};

async function down(stack: string): Promise<void> {
  if (stack === 'development') await embedded('down');
  const missing = await missingTools(stack);
  if (missing.length > 0) {
    if (stack === 'development') return;
    throw new StepError(`${stack} cannot be taken down from here, nothing was changed:\n${list(missing)}`);
  }
  if (!stackExists(stack)) {
    console.log(`${stack} was never up here.`);
    return;
  }
  requirePassphrase(stack);
  await pulumi(stack, ['destroy', '-s', stack, ...(stack === 'development' ? ['--yes', '--skip-preview'] : [])]);
  console.log(`${stack} is down. Its database is kept.`);
}

async function status(stack: string): Promise<void> {
  const containers = await ourContainers(stack, ['--all', '--format', 'table {{.Names}}\t{{.Status}}\t{{.Ports}}']);
  if (containers.split('\n').length > 1) {
    console.log(containers);
    printAccess(stack);
    await remindOfMaintenance(stack);
  } else if (stack === 'development') {
    await embedded('status');
  } else {
    throw new StepError(`${stack} is not running here`);
  }
}

async function seed(stack: string): Promise<void> {
  const hint = stack === 'development' ? ' (without containers, make up loads them itself)' : '';
  console.log(await inApi(stack, 'Loading the sample loans', ['seed'], hint));
}

/** The service does it daily by itself; this says what it would do, or does it at once. */
async function retention(stack: string, args: readonly string[]): Promise<void> {
  console.log(await inApi(stack, 'Applying the retention of borrowers', ['retention', ...args]));
}

/** Runs a command of the service in one of the containers that serve, with their settings. */
async function inApi(stack: string, purpose: string, command: readonly string[], hint = ''): Promise<string> {
  const api = await apiContainer(stack);
  if (api === undefined) throw new StepError(`${stack} does not run in containers here: make up STACK=${stack}${hint}`);
  return docker(purpose, ['exec', api, 'node', '/app/main.js', ...command]);
}

/** The API's own command, in its container, with the terminal of the caller: a new key passes through no log. */
async function apiKey(stack: string, args: readonly string[]): Promise<void> {
  if (args.length === 0) throw new StepError(API_KEY_HELP);
  const api = await apiContainer(stack);
  if (api === undefined && stack !== 'development') {
    throw new StepError(`${stack} does not run here: make up STACK=${stack}`);
  }
  const code =
    api === undefined
      ? runEmbedded('api-key', '--', ...args)
      : spawnSync('docker', ['exec', api, 'node', '/app/main.js', 'api-key', ...args], { stdio: 'inherit' }).status;
  if (code !== 0) throw new StepError(`Nothing was changed. ${API_KEY_HELP}`);
}

const API_KEY_HELP = `Say what to do with API keys:
  make api-key NAME=desk SCOPES=loans:read,loans:write [DAYS=90]   make one
  make api-key LIST=1                                              show all
  make api-key ROTATE=<id> [HOURS=24]                              make the next one of the same kind
  make api-key REVOKE=<id>                                         end one`;

async function main(): Promise<void> {
  const [verb = '', stack, ...args] = process.argv.slice(2);
  const run = verbs[verb];
  if (run === undefined) throw new StepError(`usage: main.ts ${Object.keys(verbs).join('|')} [stack]`);
  await run(
    stackNamed(stack),
    args.filter((argument) => argument !== ''),
  );
}

main().catch((error: unknown) => {
  console.error(error instanceof StepError ? error.message : error);
  process.exitCode = 1;
});
