import { spawnSync } from 'node:child_process';
import { docker, type Result, sleep, StepError, tryDocker } from './deploy/engine';
import { LABEL } from './labels';
import { describe, type Turn } from './lock';
import { diagnose, type Diagnosis, type Engine, type EngineContainer, type State, stepsAmong } from './ops/diagnosis';
import { serversOf } from './ops/nginx';

/** Makes a stack deployable again after a deploy that was killed or cut off. */
export interface Patient {
  readonly stack: string;
  readonly prefix: string;
  /** Runs `pulumi … -s <stack>`, without a terminal. */
  readonly pulumi: (args: readonly string[]) => Promise<Result>;
  /** How long to wait for steps of the dead deploy that still run. */
  readonly limitSeconds: number;
}

/**
 * Removes what the dead left: their lock, what the state says was begun, and containers and networks of this
 * environment that neither the state knows nor the gateway sends traffic to. Volumes are never removed. Where nothing is
 * wrong it changes nothing.
 * @returns what was done, in words
 * @throws StepError when something is in the way that nobody but the operator can judge
 */
export async function repair(patient: Patient, turn: Turn): Promise<string[]> {
  const done: string[] = [];
  const dead = await turn.free();
  await stepsEnded(patient);
  if (dead.length > 0) {
    await expect(patient, ['cancel', '--yes']);
    done.push(...dead.map((owner) => `removed the lock of a process that is gone: ${describe(owner)}`));
  }
  const found = await examine(patient, turn);
  if (found.foreign.length > 0) throw new StepError(anothersEnvironment(patient, found.foreign));

  // Strays first: what is read from the engine after that is what stays.
  await Promise.all(found.strays.map(remove));
  done.push(...found.strays.map(({ name, status }) => `removed ${name} (${status}), which the state does not know`));
  for (const { id, name } of found.networks) {
    await docker(`Removing the network ${name}`, ['network', 'rm', id]);
    done.push(`removed the network ${name} (${id.slice(0, 12)}), which the state does not know`);
  }
  if (found.stale.length > 0) {
    await expect(patient, ['refresh', '--yes', '--skip-preview', '--clear-pending-creates']);
    done.push(...found.stale.map((reason) => `read the state anew: ${reason}`));
  }
  if (found.halfDone.length > 0) {
    await expect(patient, ['state', 'taint', '--yes', ...found.halfDone]);
    done.push(...found.halfDone.map((urn) => `the next up runs ${urn.split('::').at(-1) ?? urn} again`));
  }
  for (const { name } of found.serving) {
    console.error(`${name} is unknown to the state but gets traffic: it was left alone.`);
  }
  return done;
}

/** A lock that appears meanwhile is a deploy whose containers are not strays. */
async function examine(patient: Patient, turn: Turn): Promise<Diagnosis> {
  const deadline = Date.now() + patient.limitSeconds * 1000;
  for (let told = false; ; told = true) {
    // In this order: what a deploy made that ended before the first look is in the state at the second.
    const engine = await lookAt(patient.prefix);
    const deployment = await stateOf(patient);
    await turn.free();
    const found = diagnose(deployment, engine, patient.prefix);
    const [first] = found.running;
    if (first === undefined) return found;
    if (!told) console.error(`Waiting for ${first.name}, a step of a deploy that was cut off.`);
    if (Date.now() > deadline) {
      throw new StepError(
        `${first.name}, a step of a deploy that was cut off, still runs after ${patient.limitSeconds} s; nothing was ` +
          `changed. Look at it (docker logs ${first.name}), and wait longer (WAIT=1h) or end it: docker stop ${first.name}`,
      );
    }
    await sleep(POLL_MS);
  }
}

const POLL_MS = 1_000;

/** Steps outlive a `pulumi` that was killed; one that goes on while the next deploy runs would undo its work. */
async function stepsEnded(patient: Patient): Promise<void> {
  const { limitSeconds } = patient;
  const deadline = Date.now() + limitSeconds * 1000;
  // Most of the time there are none of anybody's, and the state need not be asked for.
  if (stepsOfAll().length === 0) return;
  const state = await stateOf(patient);
  for (let told = false; ; told = true) {
    const [step] = stepsAmong(stepsOfAll(), state);
    if (step === undefined) return;
    if (!told) console.error(`Waiting for a step of a deploy that was cut off: ${step}`);
    if (Date.now() > deadline) {
      throw new StepError(
        `A step of a deploy that was cut off still runs after ${limitSeconds} s; nothing was changed:\n  ${step}`,
      );
    }
    await sleep(POLL_MS);
  }
}

/** Steps of any environment's deploys on this machine, `<pid> <command>`. */
function stepsOfAll(): string[] {
  const listing = spawnSync('ps', ['-axww', '-o', 'pid=', '-o', 'args='], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (listing.error) return [];
  return listing.stdout
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.includes(' deploy/main.ts '));
}

async function stateOf(patient: Patient): Promise<State> {
  return (JSON.parse(await expect(patient, ['stack', 'export'])) as { deployment: State }).deployment;
}

async function lookAt(prefix: string): Promise<Engine> {
  const format = ['{{.ID}}', '{{.Names}}', '{{.State}}', `{{.Label "${LABEL}.environment"}}`].join('\t');
  const text = await docker('Listing the containers', ['ps', '--all', '--no-trunc', '--format', format]);
  const containers = rows(text).map(([id = '', name = '', status = '', environment = '']) => ({
    id,
    name,
    status,
    environment,
  }));
  const ours = containers.filter(({ environment }) => environment === prefix).map(({ id }) => id);
  const oneShots = await idsOfOneShots(ours);
  const networks = await docker('Listing the networks', [
    ...['network', 'ls', '--no-trunc', '--filter', `name=${prefix}-`, '--format', '{{.ID}}\t{{.Name}}'],
  ]);
  const gateway = containers.find(({ name }) => name === `${prefix}-gateway`);
  return {
    containers: containers.map((container) => ({ ...container, oneShot: oneShots.includes(container.id) })),
    networks: rows(networks).map(([id = '', name = '']) => ({ id, name })),
    serving: gateway?.status === 'running' ? await serversIn(gateway.id) : [],
  };
}

const rows = (text: string) =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('\t'));

async function idsOfOneShots(ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return [];
  // One that went meanwhile is left out of the answer.
  const { stdout } = await tryDocker(['inspect', '--format', '{{.Id}}\t{{.HostConfig.AutoRemove}}', ...ids]);
  return rows(stdout).flatMap(([id = '', removesItself]) => (removesItself === 'true' ? [id] : []));
}

async function serversIn(gateway: string): Promise<string[] | undefined> {
  const { code, stdout } = await tryDocker(['exec', gateway, 'cat', '/etc/branchloans/current/upstream.conf']);
  return code === 0 ? serversOf(stdout) : undefined;
}

/** As the stack would: with the container's own signal and grace, and never with a volume. */
async function remove({ id, name, status }: EngineContainer): Promise<void> {
  if (status !== 'created') await tryDocker(['stop', id]);
  const { code, stderr } = await tryDocker(['rm', '--force', id]);
  if (code !== 0 && !/No such container|already in progress/.test(stderr)) {
    throw new StepError(`${name} cannot be removed: ${stderr.trim()}`);
  }
}

async function expect(patient: Patient, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await patient.pulumi(args);
  if (code === 0) return stdout;
  throw new StepError(`The repair of ${patient.stack} failed at pulumi ${args.join(' ')}:\n${stdout}${stderr}`);
}

function anothersEnvironment({ stack, prefix }: Patient, running: readonly EngineContainer[]): string {
  return (
    `Containers named ${prefix}-… run on this engine (${running.map(({ name }) => name).join(', ')}), and the state of ` +
    `${stack} knows nothing of them: they were deployed with another state. Nothing was changed:\n` +
    '  - deploy with that state: PULUMI_BACKEND_URL=… make up\n' +
    `  - or give this stack a name of its own: branchloans:prefix in Pulumi.${stack}.yaml\n` +
    '  - or, if that state is lost, remove them (docker rm --force …; the database stays in its volume) and run up again'
  );
}
