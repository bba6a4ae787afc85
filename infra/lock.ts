import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, hostname, userInfo } from 'node:os';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';
import { sleep, StepError } from './deploy/engine';

/**
 * Who may change a stack now. Pulumi's own lock decides; it refuses whoever comes second. In front of it stands a
 * queue of tickets, files that say the same as Pulumi's lock files, so that our own verbs wait, in the order they came.
 */

/** Who holds a lock or a ticket, as Pulumi writes it. */
export interface Owner {
  readonly pid: number;
  readonly username: string;
  readonly hostname: string;
  /** RFC 3339. */
  readonly timestamp: string;
}

/** What this machine knows of its processes. */
export interface Machine {
  readonly hostname: string;
  /** When a process started, in ms since 1970, NaN if that cannot be known; undefined: there is no such process. */
  startedAt(pid: number): number | undefined;
}

/** `ps` counts in whole seconds. */
const CLOCK_MS = 2_000;

/**
 * Dead is only what is proven: its machine is this one, and its process is gone, or its number belongs to a process
 * that started after the lock was made.
 */
export function verdictOn(owner: Owner, machine: Machine): 'alive' | 'dead' | 'elsewhere' {
  if (owner.hostname !== machine.hostname) return 'elsewhere';
  const startedAt = machine.startedAt(owner.pid);
  if (startedAt === undefined) return 'dead';
  return startedAt > Date.parse(owner.timestamp) + CLOCK_MS ? 'dead' : 'alive';
}

export const thisMachine: Machine = {
  hostname: hostname(),
  startedAt(pid) {
    try {
      process.kill(pid, 0);
    } catch (error) {
      // Not allowed to: somebody else's, and alive.
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined;
    }
    const { status, stdout } = spawnSync('ps', ['-o', 'stat=', '-o', 'etime=', '-p', String(pid)], {
      encoding: 'utf8',
    });
    const [state = '', elapsed = ''] = status === 0 ? stdout.trim().split(/\s+/) : [];
    // Ended, and not yet noticed by whoever started it.
    if (state.startsWith('Z')) return undefined;
    return Date.now() - secondsOf(elapsed) * 1000;
  },
};

/** Of `[[days-]hours:]minutes:seconds`; NaN for anything else. */
export function secondsOf(elapsed: string): number {
  const match = /^(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)$/.exec(elapsed);
  if (match === null) return NaN;
  const [days = 0, hours = 0, minutes = 0, seconds = 0] = match
    .slice(1)
    .map((part: string | undefined) => Number(part ?? 0));
  return ((days * 24 + hours) * 60 + minutes) * 60 + seconds;
}

/** Where locks and tickets of a stack lie. */
export interface Place {
  readonly stack: string;
  readonly queue: string;
  /** Directories of Pulumi's lock files; empty where the backend is none of files, and only Pulumi knows. */
  readonly locks: readonly string[];
}

/** @param root directory of Pulumi.yaml */
export function placeOf(root: string, stack: string): Place {
  const project = parse(readFileSync(resolve(root, 'Pulumi.yaml'), 'utf8')) as {
    name: string;
    backend?: { url?: string };
  };
  const url = process.env['PULUMI_BACKEND_URL'] ?? project.backend?.url ?? '';
  const path = /^file:\/\/([^?]*)/.exec(url)?.[1]?.replace(/^~/, homedir());
  const state = join(path === undefined ? root : resolve(root, path), '.pulumi');
  return {
    stack,
    queue: join(state, 'queue', project.name, stack),
    // The second is that of a backend made before stacks belonged to projects.
    locks:
      path === undefined
        ? []
        : [join(state, 'locks', 'organization', project.name, stack), join(state, 'locks', stack)],
  };
}

interface Held extends Owner {
  readonly file: string;
}

/** Pulumi's locks and our tickets are replaced as a whole: a file that is there can be read, unless it goes meanwhile. */
function heldIn(directory: string): Held[] {
  let files: string[];
  try {
    files = readdirSync(directory).filter((file) => file.endsWith('.json'));
  } catch {
    return [];
  }
  return files.sort().flatMap((name) => {
    const file = join(directory, name);
    try {
      return [{ ...(JSON.parse(readFileSync(file, 'utf8')) as Owner), file }];
    } catch {
      return [];
    }
  });
}

export function locksOf({ locks }: Place): Owner[] {
  return locks.flatMap(heldIn);
}

/** Who changes the stack now, as far as Pulumi's lock files tell; undefined: nobody, or the locks are those of the dead. */
export function atWork(place: Place): Owner | undefined {
  return locksOf(place).find(isAtWork);
}

const isAtWork = (owner: Owner) => verdictOn(owner, thisMachine) !== 'dead';

/** Who holds the lock that Pulumi could not get, from what it said; undefined when it said something else. */
export function refusedBy(message: string): { readonly owner: Owner | undefined } | undefined {
  const [, username = '', host = '', pid = '', timestamp = ''] =
    /created by (\S+)@(\S+) \(pid (\d+)\) at (\S+)/.exec(message) ?? [];
  if (/the stack is currently locked by/.test(message)) {
    return { owner: pid === '' ? undefined : { pid: Number(pid), username, hostname: host, timestamp } };
  }
  // Pulumi's own service.
  return /Another update is currently in progress/.test(message) ? { owner: undefined } : undefined;
}

/** What a piece of work may say about the lock while it has its turn. */
export interface Turn {
  /** Waits until no living process holds Pulumi's lock. @returns owners of locks that nobody will ever release */
  free(): Promise<readonly Owner[]>;
  /** To be called when Pulumi refused: waits for the one it named, or hands a dead one to the next `free`. */
  refused(by: Owner | undefined): Promise<void>;
}

const POLL_MS = 500;
/** Between two attempts where only Pulumi itself can tell whether the lock is free. */
const RETRY_MS = 10_000;

let held: Turn | undefined;

/**
 * Does `work` when everybody who came before has finished.
 * @param limitSeconds how long to wait; 0 refuses at once
 * @throws StepError that names who is in the way, when the time is over
 */
export async function inTurn<T>(place: Place, limitSeconds: number, work: (turn: Turn) => Promise<T>): Promise<T> {
  if (held !== undefined) return work(held);
  const ticket = draw(place.queue);
  const deadline = Date.now() + limitSeconds * 1000;
  let told = '';
  const wait = async (owner: Owner | undefined, milliseconds: number) => {
    const who = owner === undefined ? 'another update' : describe(owner);
    if (Date.now() + milliseconds > deadline) throw new StepError(tooLong(place.stack, who, owner, limitSeconds));
    if (told !== who) console.error(`Waiting for ${who}, for ${limitSeconds} s at most (WAIT=${limitSeconds}s).`);
    told = who;
    await sleep(milliseconds);
  };
  try {
    for (let owner = before(ticket, place.queue); owner !== undefined; owner = before(ticket, place.queue)) {
      await wait(owner, POLL_MS);
    }
    let named: Owner[] = [];
    held = {
      async free() {
        for (;;) {
          const owners = place.locks.length > 0 ? locksOf(place) : named;
          const living = owners.find(isAtWork);
          if (living === undefined) {
            named = [];
            return owners;
          }
          await wait(living, POLL_MS);
        }
      },
      async refused(owner) {
        if (owner !== undefined && verdictOn(owner, thisMachine) === 'dead') named = [owner];
        else await wait(owner, place.locks.length > 0 ? POLL_MS : RETRY_MS);
      },
    };
    return await work(held);
  } finally {
    held = undefined;
    rmSync(ticket, { force: true });
  }
}

function draw(queue: string): string {
  mkdirSync(queue, { recursive: true });
  const now = new Date();
  const owner: Owner = {
    pid: process.pid,
    username: userInfo().username,
    hostname: hostname(),
    timestamp: now.toISOString(),
  };
  const ticket = join(queue, `${now.getTime()}-${process.pid}.json`);
  writeFileSync(`${ticket}.new`, JSON.stringify(owner));
  renameSync(`${ticket}.new`, ticket);
  return ticket;
}

/** The living owner of the first ticket, if that is not ours. Tickets of other machines do not count: they may be dead. */
function before(ticket: string, queue: string): Owner | undefined {
  for (const { file, ...owner } of heldIn(queue)) {
    if (file === ticket) return undefined;
    const verdict = verdictOn(owner, thisMachine);
    if (verdict === 'alive') return owner;
    if (verdict === 'dead') rmSync(file, { force: true });
  }
  return undefined;
}

export function describe({ username, hostname: host, pid, timestamp }: Owner): string {
  return `${username}@${host} (pid ${pid}), at work since ${timestamp}`;
}

function tooLong(stack: string, who: string, owner: Owner | undefined, limitSeconds: number): string {
  const remedies =
    owner !== undefined && owner.hostname === hostname()
      ? [`wait longer: WAIT=1h make …`, `or end it: kill ${owner.pid}`]
      : [
          `wait longer: WAIT=1h make …`,
          `or, when it is certain that nothing runs there any more: pulumi cancel -s ${stack}, then make repair STACK=${stack}`,
        ];
  return (
    `${stack} is being changed by ${who}${limitSeconds > 0 ? `, and still was after ${limitSeconds} s` : ''}. ` +
    `Nothing was changed:\n${remedies.map((remedy) => `  - ${remedy}`).join('\n')}`
  );
}
