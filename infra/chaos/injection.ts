import { spawn } from 'node:child_process';
import { hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import { indent, sleep, StepError, tryDocker } from '../deploy/engine';
import { describe, type Owner, thisMachine, verdictOn } from '../lock';
import { CHAOS_LABEL, type Command, type Fault } from './experiments';

/**
 * Puts a fault into a stack, and takes it back in every case: here; by the guard, a process of its own, when this one is
 * killed; or by the next run, when the machine went away. For that the way back is written onto the engine before the
 * fault is made: as labels of a container that never runs.
 */

export interface Injection {
  /** When the first command of the fault was given, in milliseconds since 1970: some take a while to return. */
  readonly since: number;
  /** Takes the fault back; harmless when that was done. @throws StepError with what is left, and the remedy */
  withdraw(): Promise<void>;
}

/** How long somebody else's run may go on after the end of its fault. */
const PATIENCE_SECONDS = 60;

/**
 * @param seconds after which the fault is taken back even if this process hangs
 * @throws StepError when it cannot be made; what was made of it is taken back
 */
export async function inject(prefix: string, name: string, fault: Fault, seconds: number): Promise<Injection> {
  const limitSeconds = seconds + PATIENCE_SECONDS;
  const makingSeconds = fault.makingSeconds ?? 0;
  const marker = await writeMarker(prefix, name, fault.undo, makingSeconds + limitSeconds);
  const guard = startGuard();
  const order = { prefix, undo: fault.undo, marker };
  guard.tell({ ...order, limitSeconds: makingSeconds + limitSeconds });
  let repeating: NodeJS.Timeout | undefined;
  const withdraw = async () => {
    clearInterval(repeating);
    await takeBack(prefix, fault.undo);
    guard.dismiss();
  };
  const since = Date.now();
  try {
    for (const command of fault.inject) await run(command);
    // The fault lasts from now on, however long it took to make.
    guard.tell({ ...order, limitSeconds });
  } catch (error) {
    await withdraw();
    throw error;
  }
  const { repeat } = fault;
  if (repeat !== undefined) {
    repeating = setInterval(() => void tryDocker(repeat.command).catch(() => undefined), repeat.everyMs);
  }
  return { since, withdraw };
}

/**
 * Takes back what an earlier run has left.
 * @param force also of one that may still be at work on another machine
 * @returns in words what it was
 * @throws StepError when somebody is at work
 */
export async function withdrawLeftovers(prefix: string, force = false): Promise<string[]> {
  const marker = await readMarker(prefix);
  const helpers = await helpersOf(prefix);
  if (marker === undefined && helpers.length === 0) return [];
  if (marker !== undefined && !force) {
    const verdict = verdictOn(marker.owner, thisMachine);
    const overdue = Date.now() > Date.parse(marker.until);
    if (verdict === 'alive' || (verdict === 'elsewhere' && !overdue)) {
      throw new StepError(
        `${describe(marker.owner)} has an experiment under way (${marker.name}), nothing was done: wait for its end, ` +
          'at the latest ' +
          `${marker.until}; or, when it is certain that nothing runs there any more: make chaos STACK=… UNDO=1`,
      );
    }
  }
  await takeBack(prefix, marker?.undo ?? []);
  return [marker === undefined ? `${helpers.length} containers of an experiment` : `the fault of ${marker.name}`];
}

/** By the process that dies, its guard, or a later run: twice is as good as once. */
export async function takeBack(prefix: string, undo: readonly Command[]): Promise<void> {
  const faults: string[] = [];
  for (const command of undo) {
    const { code, stderr } = await tryDocker(command);
    if (code !== 0 && !isHarmless(command, stderr))
      faults.push(`docker ${command.map(quoted).join(' ')}\n${indent(stderr)}`);
  }
  const helpers = await helpersOf(prefix);
  if (helpers.length > 0) await tryDocker(['rm', '--force', '--volumes', ...helpers]);
  if (faults.length > 0) {
    throw new StepError(
      `A fault could not be taken back. It is tried again by the next make chaos, or by hand:\n${faults.join('\n')}`,
    );
  }
  // The database's image brings a volume of its own, which nobody would ever remove.
  await tryDocker(['rm', '--force', '--volumes', markerOf(prefix)]);
}

/** What there is to take back is gone already. */
const HARMLESS = /is not paused|no such container|is not running/i;
/** What is written into the database or beside its files outlasts the container: it is there when that is back. */
const OUTLASTS = (command: Command) =>
  command.includes('--volumes-from') || command.some((word) => word.startsWith('ALTER ROLE '));

const isHarmless = (command: Command, stderr: string) => HARMLESS.test(stderr) && !OUTLASTS(command);

const FIRST_PAUSE_MS = 2_000;
const LONGEST_PAUSE_MS = 60_000;
const INSIST_MS = 3_600_000;

/**
 * Takes a fault back, again and again where that fails: the database may be starting, the engine away. It ends when it is
 * done, when somebody else did it, or after an hour; the marker tells the next run.
 * @param wait of tests
 */
export async function insistOnTakingBack(
  { prefix, undo, marker }: Pick<GuardOrder, 'prefix' | 'undo' | 'marker'>,
  wait: (milliseconds: number) => Promise<void> = sleep,
): Promise<void> {
  const until = Date.now() + INSIST_MS;
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    const done = await takeBack(prefix, undo).then(
      () => true,
      () => false,
    );
    if (done || Date.now() + pause > until) return;
    await wait(pause);
    // Of a later experiment the fault is somebody else's.
    if (!(await isMarked(prefix, marker).catch(() => true))) return;
  }
}

const quoted = (word: string) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

async function run(command: Command): Promise<void> {
  const { code, stdout, stderr } = await tryDocker(command);
  if (code !== 0) {
    throw new StepError(
      `The fault could not be made (docker ${command.slice(0, 2).join(' ')} …):\n${indent(stderr + stdout)}`,
    );
  }
}

interface Marker {
  readonly name: string;
  readonly owner: Owner;
  readonly until: string;
  readonly undo: readonly Command[];
}

const markerOf = (prefix: string) => `${prefix}-chaos`;
const MARK = `${CHAOS_LABEL}.marker`;

/** @returns what is written on it, which no other marker says */
async function writeMarker(prefix: string, name: string, undo: readonly Command[], seconds: number): Promise<string> {
  const now = Date.now();
  const owner: Owner = {
    ...{ pid: process.pid, username: userInfo().username, hostname: hostname() },
    timestamp: new Date(now).toISOString(),
  };
  const marker: Marker = { name, owner, until: new Date(now + seconds * 1_000).toISOString(), undo };
  const text = JSON.stringify(marker);
  const { code, stdout } = await tryDocker(['inspect', '--format', '{{.Image}}', `${prefix}-database`]);
  if (code !== 0) throw new StepError(`There is no container ${prefix}-database, nothing was done`);
  // Any image that is there: it never starts. Of two that come at the same time the engine lets one have the name.
  const create = ['create', '--name', markerOf(prefix), '--network', 'none', '--label', `${MARK}=${text}`];
  await run([...create, '--entrypoint', 'true', stdout.trim()]);
  return text;
}

const askForMarker = (prefix: string) =>
  tryDocker([
    ...['inspect', '--type', 'container', '--format', `{{index .Config.Labels "${MARK}"}}`, markerOf(prefix)],
  ]);

async function readMarker(prefix: string): Promise<Marker | undefined> {
  const { code, stdout } = await askForMarker(prefix);
  return code === 0 ? (JSON.parse(stdout) as Marker) : undefined;
}

/** An engine that cannot be asked has it still, for all that is known. */
async function isMarked(prefix: string, text: string): Promise<boolean> {
  const { code, stdout, stderr } = await askForMarker(prefix);
  return code === 0 ? stdout.trim() === text : !/no such/i.test(stderr);
}

async function helpersOf(prefix: string): Promise<string[]> {
  const { stdout } = await tryDocker(['ps', '--all', '--quiet', '--filter', `label=${CHAOS_LABEL}=${prefix}`]);
  return stdout.split('\n').filter(Boolean);
}

/** What the guard is told, a line of JSON. */
export interface GuardOrder {
  readonly prefix: string;
  readonly undo: readonly Command[];
  /** What the marker says while the fault is this one. */
  readonly marker: string;
  readonly limitSeconds: number;
}

/** It sees the end of this process by the end of its input, and is in no group that a Ctrl-C or a hangup reaches. */
function startGuard() {
  const guard = spawn(process.execPath, ['--import', 'tsx', join(__dirname, 'guard.ts')], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  guard.stdin.on('error', () => undefined);
  guard.unref();
  return {
    tell: (order: GuardOrder) => guard.stdin.write(`${JSON.stringify(order)}\n`),
    dismiss: () => guard.stdin.end('done\n'),
  };
}
