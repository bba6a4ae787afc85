import * as units from '@grafana/grafana-foundation-sdk/units';
import { CONTAINER_METRICS as container, HOST_METRICS as host, JOBS } from '../exporters';
import type { DashboardSpec, PanelSpec } from './builder';
import { max, ratio, seriesOf, sum } from './query';

const machine = seriesOf(JOBS.host);
const containers = seriesOf(JOBS.containers);
const CHOSEN = 'name=~"$container"';
/** Where the engine keeps its files, and where the database does. */
const DISKS = 'mountpoint=~"engine|database"';
/** The host's own devices: what containers send passes them too. */
const DEVICES = 'device!~"lo|veth.*|br-.*|docker.*"';

/** What the overview shows too. The limits are those that the engine applies. */
export const shared = {
  cpu: {
    title: 'CPU of its limit',
    description: 'Cores in use of those that the stack allows each container. Near 100 % it is slowed down.',
    unit: units.PercentUnit,
    width: 12,
    queries: {
      '{{name}}': ratio(
        sum(containers.rate(container.cpuSeconds, CHOSEN), 'name'),
        ratio(
          max(containers.select(container.cpuQuota, CHOSEN), 'name'),
          max(containers.select(container.cpuPeriod, CHOSEN), 'name'),
        ),
      ),
    },
    thresholds: { warning: 0.8, critical: 0.95 },
    alerts: ['ContainerCpuThrottled'],
  },
  memory: {
    title: 'Memory of its limit',
    description: 'Working set of the memory that the stack allows each container. At 100 % the kernel kills it.',
    unit: units.PercentUnit,
    width: 12,
    queries: {
      '{{name}}': ratio(
        sum(containers.select(container.workingSet, CHOSEN), 'name'),
        sum(containers.select(container.memoryLimit, CHOSEN), 'name'),
      ),
    },
    thresholds: { warning: 0.8, critical: 0.9 },
    alerts: ['ContainerMemoryNearLimit'],
  },
} satisfies Record<string, PanelSpec>;

export const containerVariable = {
  container: { series: `${container.startTime}{env=~"$env",job="${JOBS.containers}",name!=""}`, label: 'name' },
};

export const resourcesDashboard: DashboardSpec = {
  uid: 'loans-resources',
  title: 'Loans / Resources',
  description: 'What the containers use of the limits of their stack, and how much of the host is left.',
  jobs: [JOBS.containers, JOBS.host],
  variables: containerVariable,
  rows: { 'Containers against their limits': limits(), Containers: usage(), Host: hostPanels() },
};

function limits(): PanelSpec[] {
  return [
    shared.cpu,
    shared.memory,
    {
      title: 'Slowed down',
      description:
        'Share of scheduler periods in which a container had used up its CPU. Above 25 % it needs more, or less to do.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{name}}': ratio(
          sum(containers.rate(container.throttledPeriods, CHOSEN), 'name'),
          sum(containers.rate(container.periods, CHOSEN), 'name'),
        ),
      },
      thresholds: { warning: 0.25 },
      alerts: ['ContainerCpuThrottled'],
    },
    {
      kind: 'stat',
      title: 'Killed for want of memory',
      description:
        'Processes that the kernel killed in the range of the dashboard. Any one: raise the limit, or find the leak.',
      unit: units.Short,
      width: 8,
      queries: { '{{name}}': sum(containers.total(container.oomEvents, CHOSEN), 'name') },
      thresholds: { critical: 1 },
      alerts: ['ContainerOomKilled'],
    },
    {
      kind: 'stat',
      title: 'Restarted by the engine',
      description:
        'How often the engine started a container again by itself in the range of the dashboard. Any one: it crashed, see its log.',
      unit: units.Short,
      width: 8,
      queries: { '{{name}}': sum(containers.total(container.restarts, CHOSEN), 'name') },
      thresholds: { warning: 1, critical: 3 },
      alerts: ['ContainerRestartLoop'],
    },
  ];
}

function usage(): PanelSpec[] {
  return [
    {
      kind: 'stacked',
      title: 'CPU by container',
      description: 'Cores in use; 100 % is one core. Who takes the host when it is full.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{name}}': sum(containers.rate(container.cpuSeconds, CHOSEN), 'name') },
    },
    {
      kind: 'stacked',
      title: 'Working set by container',
      description: 'Memory that the kernel cannot take back. A line that only rises is a leak.',
      unit: units.BytesIEC,
      width: 8,
      queries: { '{{name}}': sum(containers.select(container.workingSet, CHOSEN), 'name') },
    },
    {
      title: 'Network by container',
      description: 'Bytes per second in and out. An export is a long plateau; a peak without requests is not ours.',
      unit: units.BytesPerSecondSI,
      width: 8,
      queries: {
        'in {{name}}': sum(containers.rate(container.networkReceived, CHOSEN), 'name'),
        'out {{name}}': sum(containers.rate(container.networkSent, CHOSEN), 'name'),
      },
    },
    {
      kind: 'table',
      title: 'Started',
      description: 'When each container began. A young one that nobody deployed: it crashed, or was killed.',
      unit: 'dateTimeFromNow',
      width: 24,
      queries: { '{{name}}': `${max(containers.select(container.startTime, CHOSEN), 'name', 'component')} * 1000` },
      alerts: ['ContainerRestartLoop'],
    },
  ];
}

function hostPanels(): PanelSpec[] {
  const idle = machine.select(host.cpuSeconds, 'mode="idle"');
  return [
    {
      kind: 'stacked',
      title: 'CPU by mode',
      description: 'Share of all cores. Much iowait: the disk is the limit; much steal: the machine below is shared.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{mode}}': `${sum(machine.rate(host.cpuSeconds, 'mode!="idle"'), 'mode')} / on () group_left () (count(${idle}) > 0)`,
      },
      alerts: ['HostCpuSaturated'],
    },
    {
      title: 'Load per core',
      description: 'Processes that run or want to, by core. Above 1 they wait for each other.',
      unit: units.NoUnit,
      width: 8,
      queries: { '{{instance}}': ratio(sum(machine.select(host.load1), 'instance'), `count by (instance) (${idle})`) },
      thresholds: { warning: 1, critical: 2 },
      alerts: ['HostCpuSaturated'],
    },
    {
      title: 'Memory used',
      description: 'Share of the memory that is not available. Above 90 %: fewer replicas, or a larger host.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{instance}}': `1 - ${ratio(sum(machine.select(host.memoryAvailable), 'instance'), sum(machine.select(host.memoryTotal), 'instance'))}`,
      },
      thresholds: { warning: 0.8, critical: 0.9 },
      alerts: ['HostMemoryHigh'],
    },
    {
      title: 'Disk space used',
      description: 'Share of each file system. A full one stops the database; above 85 % plan for more.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{mountpoint}}': `1 - ${ratio(max(machine.select(host.filesystemAvailable, DISKS), 'mountpoint'), max(machine.select(host.filesystemSize, DISKS), 'mountpoint'))}`,
      },
      thresholds: { warning: 0.85, critical: 0.95 },
      alerts: ['HostFilesystemFillingUp', 'HostFilesystemAlmostFull'],
    },
    {
      title: 'Disk busy',
      description: 'Share of time in which a disk had something to do. At 100 % every write waits.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{device}}': max(machine.rate(host.diskBusySeconds), 'device') },
      thresholds: { warning: 0.8, critical: 0.95 },
    },
    {
      title: 'Network',
      description: 'Bytes per second of the devices of the host. Compare with what its line can do.',
      unit: units.BytesPerSecondSI,
      width: 4,
      queries: {
        in: sum(machine.rate(host.networkReceived, DEVICES)),
        out: sum(machine.rate(host.networkSent, DEVICES)),
      },
    },
    {
      kind: 'stat',
      title: 'Clock',
      description:
        'Whether the clock of the host is kept right by a server. If not, times in logs and certificates drift.',
      unit: units.BoolYesNo,
      width: 4,
      queries: { '{{instance}}': machine.select(host.timeSynced) },
      words: { 0: 'not kept', 1: 'kept' },
      thresholds: { critical: 1, low: true },
      alerts: ['HostClockSkew'],
    },
  ];
}
