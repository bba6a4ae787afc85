import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Processes that outlive the command that started them. A number in a file is not proof: after a crash of the machine the
 * same number may belong to somebody else, so a process is known by its number, its start and its command line together.
 */
export interface ProcessReference {
  readonly pid: number;
  /** As `identityOf` gave it when the process was started. */
  readonly identity: string;
}

/** The full command line; undefined when no such process runs. */
export function commandLineOf(pid: number): string | undefined {
  if (!Number.isInteger(pid) || pid < 1) return undefined;
  if (!existsSync('/proc/self/stat')) return fromPs(pid, 'command=');
  const text = readProc(pid, 'cmdline')?.replaceAll('\0', ' ').trim();
  return text === '' ? undefined : text;
}

/** What tells this process from a later one with the same number; undefined when no such process runs. */
export function identityOf(pid: number): string | undefined {
  const command = commandLineOf(pid);
  const started = existsSync('/proc/self/stat') ? startInTicks(pid) : fromPs(pid, 'lstart=');
  return command === undefined || started === undefined ? undefined : `${started} ${command}`;
}

export const isRunning = ({ pid, identity }: ProcessReference): boolean => identityOf(pid) === identity;

/** Asks the process to end and, if it does not within the time, ends it. Does nothing to a process that is not ours. */
export async function stopProcess(process_: ProcessReference, timeoutMs: number): Promise<void> {
  for (const [signal, patience] of [
    ['SIGTERM', timeoutMs],
    ['SIGKILL', 5_000],
  ] as const) {
    if (!isRunning(process_)) return;
    process.kill(process_.pid, signal);
    const deadline = performance.now() + patience;
    while (isRunning(process_) && performance.now() < deadline) await sleep(25);
  }
}

/** The start since the boot of this machine: no change of the clock moves it. */
function startInTicks(pid: number): string | undefined {
  const stat = readProc(pid, 'stat');
  // The name in parentheses may contain anything; the fields after it begin with the third, and 22 is the start.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ');
  if (fields === undefined || fields[0] === 'Z') return undefined;
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return `${boot} ${fields[19] ?? ''}`;
}

function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return undefined;
  }
}

function fromPs(pid: number, field: string): string | undefined {
  const { status, stdout } = spawnSync('ps', ['-ww', '-o', field, '-p', String(pid)], { encoding: 'utf8' });
  return status === 0 && stdout.trim() !== '' ? stdout.trim() : undefined;
}
