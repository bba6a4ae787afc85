import { existsSync, readdirSync, readFileSync } from 'node:fs';

/**
 * CPU time of a process with all below it, ended ones included, from /proc. Throughput on a machine that others use is
 * noisy; what a request costs is much less so.
 */
export interface CpuClock {
  /** Since the last reading, or the start; undefined where there is no /proc. */
  read(): number | undefined;
}

/** As Linux has it on every platform that Node runs on. */
const TICKS_PER_SECOND = 100;

interface Usage {
  readonly parent: number;
  readonly own: number;
  /** Of children that have ended and were waited for. */
  readonly ended: number;
}

export function cpuClock(root: number): CpuClock {
  if (!existsSync('/proc/self/stat')) return { read: () => undefined };
  let last = treeOf(root);
  return {
    read() {
      const now = treeOf(root);
      let ticks = 0;
      for (const [pid, { own, ended }] of now) {
        ticks += own + ended - (last.get(pid)?.own ?? 0) - (last.get(pid)?.ended ?? 0);
      }
      // What an ended process had used before is part of its parent's `ended`, and was counted when it was used.
      for (const [pid, { own, ended }] of last) if (!now.has(pid)) ticks -= own + ended;
      last = now;
      return ticks / TICKS_PER_SECOND;
    },
  };
}

function treeOf(root: number): Map<number, Usage> {
  const all = new Map<number, Usage>();
  for (const name of readdirSync('/proc')) {
    const usage = /^\d+$/.test(name) ? usageOf(Number(name)) : undefined;
    if (usage !== undefined) all.set(Number(name), usage);
  }
  const belongs = (pid: number): boolean =>
    pid === root || (all.has(pid) && pid > 1 && belongs(all.get(pid)?.parent ?? 0));
  return new Map([...all].filter(([pid]) => belongs(pid)));
}

function usageOf(pid: number): Usage | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may contain anything; the fields after it begin with the third.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const at = (index: number) => Number(fields[index - 3]);
    return { parent: at(4), own: at(14) + at(15), ended: at(16) + at(17) };
  } catch {
    return undefined; // It has ended since.
  }
}
