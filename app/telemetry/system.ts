import { readFile, statfs } from 'node:fs/promises';
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import { join } from 'node:path';

/** Whose limit and use a figure is: the container's where it has a limit, else the host's. */
export type Source = 'cgroup-v2' | 'cgroup-v1' | 'host';

/** Sizes in bytes, percentages of the total or the limit with one digit after the point. */
export interface SystemFigures {
  readonly cpu: {
    readonly source: Source;
    /** Of what `count` CPUs can do, since the last sample. */
    readonly percent: number;
    /** A container's share may be a fraction. */
    readonly count: number;
    /** Seconds that `percent` is an average of. */
    readonly interval_seconds: number;
  };
  readonly memory: {
    readonly source: Source;
    readonly total: number;
    readonly available: number;
    readonly used: number;
    readonly percent: number;
  };
  /** The file system of the process's root; `free` is what may still be written by anybody but root. */
  readonly disk: { readonly total: number; readonly used: number; readonly free: number; readonly percent: number };
}

interface CpuSample {
  readonly source: Source;
  readonly count: number;
  /** CPU time used by everybody in the container or on the host, ever. */
  readonly usedSeconds: number;
  readonly atSeconds: number;
}

/** Asked again within this time, the last percentage still holds: two readers must not leave each other no interval. */
const MIN_INTERVAL_SECONDS = 0.5;

export interface SystemReader {
  /** Reads a few small files; waits for no interval. */
  read(): Promise<SystemFigures>;
}

/**
 * @param root where `proc` and `sys` are.
 * @param clock seconds, never going back.
 */
export function createSystemReader(root = '/', clock = () => performance.now() / 1_000): SystemReader {
  let last = sampleCpu(root, clock);
  let measuredAt = -Infinity;
  let cpu: Promise<SystemFigures['cpu']> | undefined;

  const measureCpu = async () => {
    const [before, after] = [await last, await sampleCpu(root, clock)];
    const interval = after.atSeconds - before.atSeconds;
    const used = after.source === before.source ? after.usedSeconds - before.usedSeconds : 0;
    last = Promise.resolve(after);
    const percent = interval > 0 ? Math.min(100, Math.max(0, (100 * used) / (interval * after.count))) : 0;
    const { source, count } = after;
    return { source, percent: tenths(percent), count, interval_seconds: Math.round(interval * 1_000) / 1_000 };
  };
  return {
    async read() {
      if (cpu === undefined || clock() - measuredAt >= MIN_INTERVAL_SECONDS) {
        measuredAt = clock();
        cpu = measureCpu();
      }
      const [cpuFigures, memory, disk] = await Promise.all([cpu, readMemory(root), readDisk(root)]);
      return { cpu: cpuFigures, memory, disk };
    },
  };
}

async function sampleCpu(root: string, clock: () => number): Promise<CpuSample> {
  const host = availableParallelism();
  const { v1, v2 } = await ownGroups(root);
  const [quota, period] = (await readText(v2, 'cpu.max'))?.split(' ').map(Number) ?? [];
  const usedMicroseconds = field(await readText(v2, 'cpu.stat'), 'usage_usec');
  if (isLimit(quota) && isLimit(period) && usedMicroseconds !== undefined) {
    const count = Math.min(quota / period, host);
    return { source: 'cgroup-v2', count, usedSeconds: usedMicroseconds / 1e6, atSeconds: clock() };
  }
  const quotaV1 = await readNumber(v1('cpu'), 'cpu.cfs_quota_us');
  const periodV1 = await readNumber(v1('cpu'), 'cpu.cfs_period_us');
  const usedNanoseconds = await readNumber(v1('cpuacct'), 'cpuacct.usage');
  if (isLimit(quotaV1) && isLimit(periodV1) && usedNanoseconds !== undefined) {
    const count = Math.min(quotaV1 / periodV1, host);
    return { source: 'cgroup-v1', count, usedSeconds: usedNanoseconds / 1e9, atSeconds: clock() };
  }
  const all = cpus();
  const usedMilliseconds = all.reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
  return { source: 'host', count: all.length || host, usedSeconds: usedMilliseconds / 1e3, atSeconds: clock() };
}

async function readMemory(root: string): Promise<SystemFigures['memory']> {
  const { v1, v2 } = await ownGroups(root);
  const host = await hostMemory(root);
  const groups = [
    ['cgroup-v2', v2, 'memory.max', 'memory.current', 'inactive_file'],
    ['cgroup-v1', v1('memory'), 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'],
  ] as const;
  for (const [source, directory, limitFile, usedFile, inactiveField] of groups) {
    const limit = await readNumber(directory, limitFile);
    const charged = await readNumber(directory, usedFile);
    // "No limit" is `max`, or with v1 a number that no machine has.
    if (!isLimit(limit) || limit >= host.total || charged === undefined) continue;
    // As the engine counts: files that were read once are given back when memory gets short.
    const used = Math.max(0, charged - (field(await readText(directory, 'memory.stat'), inactiveField) ?? 0));
    return { source, ...parts(limit, Math.max(0, limit - used)) };
  }
  return { source: 'host', ...parts(host.total, host.available) };
}

async function hostMemory(root: string): Promise<{ total: number; available: number }> {
  const text = await readText(join(root, 'proc'), 'meminfo');
  const [total, available] = ['MemTotal:', 'MemAvailable:'].map((name) => field(text, name));
  if (total === undefined || available === undefined) return { total: totalmem(), available: freemem() };
  return { total: total * 1_024, available: available * 1_024 };
}

async function readDisk(root: string): Promise<SystemFigures['disk']> {
  const { bsize, blocks, bfree, bavail } = await statfs(root);
  const [total, used, free] = [blocks * bsize, (blocks - bfree) * bsize, bavail * bsize];
  return { total, used, free, percent: percentOf(used, used + free) };
}

function parts(total: number, available: number) {
  const used = total - available;
  return { total, available, used, percent: percentOf(used, total) };
}

/**
 * The directories of this process's control groups. In a container the path that the kernel names is the host's, and
 * what is mounted is the container's own group.
 */
async function ownGroups(
  root: string,
): Promise<{ v2: string | undefined; v1: (controller: string) => string | undefined }> {
  const mount = join(root, 'sys/fs/cgroup');
  const groups = new Map<string, string>();
  for (const line of ((await readText(join(root, 'proc/self'), 'cgroup')) ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const own = join(mount, controllers, path);
    const directory = (await readText(own, 'cgroup.procs')) === undefined ? join(mount, controllers) : own;
    for (const controller of controllers.split(',')) groups.set(controller, directory);
  }
  return { v2: groups.get(''), v1: (controller) => groups.get(controller) };
}

async function readText(directory: string | undefined, name: string): Promise<string | undefined> {
  if (directory === undefined) return undefined;
  return readFile(join(directory, name), 'utf8').then(
    (text) => text.trim(),
    () => undefined, // Not there, or not for us: another source is asked.
  );
}

async function readNumber(directory: string | undefined, name: string): Promise<number | undefined> {
  const text = await readText(directory, name);
  return text !== undefined && /^-?\d+$/.test(text) ? Number(text) : undefined;
}

/** The number after a name, in a text of lines such as `usage_usec 1234`. */
function field(text: string | undefined, name: string): number | undefined {
  const line = text?.split('\n').find((one) => one.startsWith(`${name} `));
  const number = Number(line?.slice(name.length).replace(/kB$/, ''));
  return line === undefined || Number.isNaN(number) ? undefined : number;
}

function isLimit(number: number | undefined): number is number {
  return number !== undefined && number > 0 && Number.isFinite(number);
}

function percentOf(part: number, whole: number): number {
  return whole > 0 ? tenths((100 * part) / whole) : 0;
}

function tenths(percent: number): number {
  return Math.round(percent * 10) / 10;
}
