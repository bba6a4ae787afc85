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
  runsEmbedded,
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
const verbs = {
  up,
  preview,
  down,
  repair,
  status,
  smoke: smokeAny,
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
} satisfies Record<string, (stack: string, args: readonly string[]) => Promise<void>>;

type Verb = keyof typeof verbs;

/** What each verb does on development that is up without containers: its work, or what it lacks for it there. */
const EMBEDDED: Record<Verb, 'works' | { readonly lacks: string }> = {
  up: 'works',
  // These are about the stack in containers, which may be there as well, and say what they lack.
  preview: 'works',
  repair: 'works',
  down: 'works',
  status: 'works',
  smoke: 'works',
  logs: 'works',
  seed: 'works',
  retention: 'works',
  upkeep: 'works',
  'api-key': 'works',
  'pin-images': 'works',
  alerts: { lacks: 'no Prometheus runs, so nothing evaluates alerts' },
  silence: { lacks: 'no Alertmanager runs, so there is nothing to silence' },
  drift: { lacks: 'Pulumi deployed nothing that could differ' },
  readiness: { lacks: 'most of what is checked (gateway, monitoring, limits, releases) does not run' },
  canary: { lacks: 'no gateway runs that could share requests between two releases' },
  scale: { lacks: 'the API is one process of this machine' },
  autoscale: { lacks: 'the API is one process of this machine, and no Prometheus measures its load' },
  keep: { lacks: 'there are no containers to start again; make up starts what was killed' },
  load: { lacks: 'no gateway runs that the load could come through' },
  chaos: { lacks: 'its faults are made in containers and their networks' },
  maintenance: { lacks: 'no gateway runs that could close the entrance; make down stops the API' },
  releases: { lacks: 'the API runs from the working copy; git log has its releases' },
  rollback: { lacks: 'the API runs from the working copy; git checkout another commit, then make down up' },
  rotate: { lacks: 'nothing but the passwords in .local/ was generated' },
};

/** What can be said without anything that runs. */
const isQuestion = (verb: Verb, args: readonly string[]) => verb === 'chaos' && args.includes('--list');

async function requireSomethingToWorkOn(verb: Verb, stack: string, args: readonly string[]): Promise<void> {
  const does = EMBEDDED[verb];
  if (does === 'works' || isQuestion(verb, args) || !(await runsEmbedded(stack))) return;
  throw new StepError(
    `make ${verb} cannot work here: development runs without containers, where ${does.lacks}.\n` +
      'In containers it can: make up brings them up on a machine with Docker and Pulumi, and says what is missing.',
  );
}

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
  await inApi(stack, 'Loading the sample loans', ['seed']);
}

/** The service does it daily by itself; this says what it would do, or does it at once. */
async function retention(stack: string, args: readonly string[]): Promise<void> {
  await inApi(stack, 'Applying the retention of borrowers', ['retention', ...args]);
}

/** Runs a command of the service beside one that serves, with its settings, and prints what it says. */
async function inApi(stack: string, purpose: string, command: readonly string[]): Promise<void> {
  const api = await apiContainer(stack);
  if (api !== undefined) {
    console.log(await docker(purpose, ['exec', api, 'node', '/app/main.js', ...command]));
    return;
  }
  if (!(await runsEmbedded(stack))) throw new StepError(`${stack} does not run here: make up STACK=${stack}`);
  const [name = '', ...rest] = command;
  await embedded(name, '--', ...rest);
}

async function smokeAny(stack: string): Promise<void> {
  await ((await runsEmbedded(stack)) ? embedded('smoke') : smoke(stack));
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

function isVerb(text: string): text is Verb {
  return Object.hasOwn(verbs, text);
}

async function main(): Promise<void> {
  const [verb = '', stack, ...args] = process.argv.slice(2);
  if (!isVerb(verb)) throw new StepError(`usage: main.ts ${Object.keys(verbs).join('|')} [stack]`);
  const name = stackNamed(stack);
  const given = args.filter((argument) => argument !== '');
  await requireSomethingToWorkOn(verb, name, given);
  await verbs[verb](name, given);
}

main().catch((error: unknown) => {
  console.error(error instanceof StepError ? error.message : error);
  process.exitCode = 1;
});
