import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { docker, StepError } from './deploy/engine';
import {
  apiContainer,
  embedded,
  list,
  missingTools,
  ourContainers,
  pulumi,
  requirePassphrase,
  ROOT,
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
  'pin-images': pinImages,
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

/** Asks the registry for the digest of every default image and writes it beside the version. */
async function pinImages(): Promise<void> {
  const file = resolve(ROOT, 'infra/images.json');
  const images = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
  const pinned = await Promise.all(
    Object.entries(images).map(async ([name, reference]) => {
      const tag = reference.replace(/@sha256:.*/, '');
      await docker(`Asking the registry for ${tag}`, ['pull', '--quiet', tag]);
      const digests = await docker('Reading its digest', [
        'image',
        'inspect',
        '--format',
        '{{json .RepoDigests}}',
        tag,
      ]);
      // An image may be known by several names, each with a digest of its own.
      const repository = tag.replace(/:[^:/]*$/, '');
      const digest = (JSON.parse(digests) as string[]).find((each) => each.split('@')[0] === repository)?.split('@')[1];
      if (digest === undefined)
        throw new StepError(`${tag} came from no registry: it has no digest, nothing was written`);
      return [name, `${tag}@${digest}`];
    }),
  );
  writeFileSync(file, `${JSON.stringify(Object.fromEntries(pinned), null, 2)}\n`);
  console.log(list(pinned.map(([, reference]) => reference ?? '')));
}

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
