import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, totalmem, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createSystemReader } from './system';

const roots: string[] = [];
afterAll(() => roots.forEach((root) => rmSync(root, { recursive: true })));

/** A directory in which these files are `proc` and `sys`. */
function rootWith(files: Readonly<Record<string, string>>): { root: string; write: (files: object) => void } {
  const root = mkdtempSync(join(tmpdir(), 'system-'));
  roots.push(root);
  const write = (more: object) => {
    for (const [name, text] of Object.entries(more) as [string, string][]) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), `${text}\n`);
    }
  };
  write(files);
  return { root, write };
}

const MEGABYTE = 1_048_576;
const HOST = { 'proc/meminfo': 'MemTotal:        8388608 kB\nMemFree:  1 kB\nMemAvailable:    2097152 kB' };
const V2 = {
  ...HOST,
  'proc/self/cgroup': '0::/',
  'sys/fs/cgroup/cgroup.procs': '1',
  'sys/fs/cgroup/cpu.max': '50000 100000',
  'sys/fs/cgroup/cpu.stat': 'usage_usec 1000000\nuser_usec 1\nsystem_usec 1',
  'sys/fs/cgroup/memory.max': String(512 * MEGABYTE),
  'sys/fs/cgroup/memory.current': String(200 * MEGABYTE),
  'sys/fs/cgroup/memory.stat': `anon 1\ninactive_file ${72 * MEGABYTE}\nactive_file 5`,
};
const V1 = {
  ...HOST,
  // The host's paths, which a container does not see.
  'proc/self/cgroup': '4:memory:/docker/0a\n2:cpu,cpuacct:/docker/0a\n1:name=systemd:/docker/0a\n0::/docker/0a',
  'sys/fs/cgroup/memory/memory.limit_in_bytes': String(512 * MEGABYTE),
  'sys/fs/cgroup/memory/memory.usage_in_bytes': String(200 * MEGABYTE),
  'sys/fs/cgroup/memory/memory.stat': `inactive_file 1\ntotal_inactive_file ${72 * MEGABYTE}`,
  'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '50000',
  'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': '100000',
  'sys/fs/cgroup/cpu,cpuacct/cpuacct.usage': '1000000000',
};

const quarterOf512 = { total: 512 * MEGABYTE, available: 384 * MEGABYTE, used: 128 * MEGABYTE, percent: 25 };

it.each([
  ['cgroup-v2', V2, { 'sys/fs/cgroup/cpu.stat': 'usage_usec 1250000' }],
  ['cgroup-v1', V1, { 'sys/fs/cgroup/cpu,cpuacct/cpuacct.usage': '1250000000' }],
] as const)('%s: the limits and the use of the container', async (source, files, later) => {
  let seconds = 100;
  const { root, write } = rootWith(files);
  const reader = createSystemReader(root, () => seconds);
  await reader.read();
  seconds += 2;
  write(later);
  const { cpu, memory } = await reader.read();
  // A quarter of a second in two seconds, of half a CPU.
  expect(cpu).toEqual({ source, percent: 25, count: 0.5, interval_seconds: 2 });
  expect(memory).toEqual({ source, ...quarterOf512 });
});

it('takes the own group where it is visible, as on a host', async () => {
  const deeper = Object.entries(V2).map(([name, text]) => [
    name.replace('sys/fs/cgroup', 'sys/fs/cgroup/a.slice'),
    text,
  ]);
  const { root } = rootWith({ ...Object.fromEntries(deeper), 'proc/self/cgroup': '0::/a.slice' } as Record<
    string,
    string
  >);
  expect((await createSystemReader(root).read()).memory).toEqual({ source: 'cgroup-v2', ...quarterOf512 });
});

it.each([
  ['without control groups', {}],
  ['without limits, v2', { ...V2, 'sys/fs/cgroup/cpu.max': 'max 100000', 'sys/fs/cgroup/memory.max': 'max' }],
  [
    'without limits, v1',
    {
      ...V1,
      'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712',
      'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': '-1',
    },
  ],
])('%s: the figures of the host', async (_name, files) => {
  const { root } = rootWith({ ...files, ...HOST });
  const { cpu, memory } = await createSystemReader(root).read();
  expect(memory).toEqual({ source: 'host', total: 2 ** 33, available: 2 ** 31, used: 2 ** 33 - 2 ** 31, percent: 75 });
  expect(cpu).toMatchObject({ source: 'host', count: expect.any(Number) });
});

it('never names more CPUs than there are, nor more than all of them', async () => {
  let seconds = 0;
  const { root, write } = rootWith({ ...V2, 'sys/fs/cgroup/cpu.max': '6400000 100000' });
  const reader = createSystemReader(root, () => seconds);
  await reader.read();
  seconds += 1;
  write({ 'sys/fs/cgroup/cpu.stat': 'usage_usec 999000000000' });
  expect((await reader.read()).cpu).toMatchObject({ count: availableParallelism(), percent: 100 });
});

it('gives readers of one moment the same interval, instead of none to the second', async () => {
  let seconds = 0;
  const { root, write } = rootWith(V2);
  const reader = createSystemReader(root, () => seconds);
  await reader.read();
  seconds += 10;
  write({ 'sys/fs/cgroup/cpu.stat': 'usage_usec 2000000' });
  const [first, second] = await Promise.all([reader.read(), reader.read()]);
  expect([first.cpu, second.cpu]).toEqual([first.cpu, first.cpu]);
  expect(first.cpu).toMatchObject({ percent: 20, interval_seconds: 10 });
  seconds += 0.1;
  expect((await reader.read()).cpu).toEqual(first.cpu);
});

it('reads this machine', async () => {
  const { cpu, memory, disk } = await createSystemReader().read();
  expect(cpu.count).toBeGreaterThan(0);
  expect(cpu.percent).toBeGreaterThanOrEqual(0);
  expect(memory.total).toBeLessThanOrEqual(totalmem());
  expect(memory.used + memory.available).toBe(memory.total);
  expect(disk.used + disk.free).toBeLessThanOrEqual(disk.total);
  expect(disk.percent).toBeGreaterThan(0);
});
