import * as units from '@grafana/grafana-foundation-sdk/units';
import { CONTAINER_METRICS as container, HOST_METRICS as host, JOBS } from '../exporters';
import type { DashboardSpec, PanelSpec } from './builder';
import { max, min, onlyAboveZero, ratio, rounded, seriesOf, sum } from './query';
import * as variables from './variables';

export const RESOURCES_UID = 'loans-resources';

const machine = seriesOf(JOBS.host);
const containers = seriesOf(JOBS.containers);
/** Where the engine keeps its files, and where the database does. */
const DISKS = 'mountpoint=~"engine|database"';
/** The host's own devices: what containers send passes them too. */
const DEVICES = 'device!~"lo|veth.*|br-.*|docker.*"';
const DAY = 86_400;
/** Days; more are of no use. */
const A_YEAR = 365;

/** What the names of all containers of the stack begin with: legends leave it out. */
export const containerName = (prefix: string) => `${prefix}-`;

/** The containers of the stack that are chosen. The engine has others: helpers of deploys, with names of its choice. */
const chosen = (prefix: string) => [`name=~"${containerName(prefix)}.+"`, 'name=~"$container"'];

/** What the overview shows too. The limits are those that the engine applies. */
export const shared = (prefix: string) => {
  const of = chosen(prefix);
  return {
    cpu: {
      title: 'CPU, share of limit',
      description: 'Cores in use of those that the stack allows each container. Near 100 % it is throttled.',
      unit: units.PercentUnit,
      width: 12,
      queries: {
        '{{name}}': ratio(
          sum(containers.rate(container.cpuSeconds, ...of), 'name'),
          ratio(
            max(containers.select(container.cpuQuota, ...of), 'name'),
            max(containers.select(container.cpuPeriod, ...of), 'name'),
          ),
        ),
      },
      leaveOut: containerName(prefix),
      thresholds: { warning: 0.8, critical: 0.95 },
      alerts: ['ContainerCpuThrottled'],
    },
    memory: {
      title: 'Memory, share of limit',
      description: 'Working set of the memory that the stack allows each container. At 100 % the kernel kills it.',
      unit: units.PercentUnit,
      width: 12,
      queries: {
        '{{name}}': ratio(
          sum(containers.select(container.workingSet, ...of), 'name'),
          sum(containers.select(container.memoryLimit, ...of), 'name'),
        ),
      },
      leaveOut: containerName(prefix),
      thresholds: { warning: 0.8, critical: 0.9 },
      alerts: ['ContainerMemoryNearLimit'],
    },
  } satisfies Record<string, PanelSpec>;
};

/** What the overview shows too. */
export const disks = {
  used: {
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
  fullIn: {
    kind: 'stat',
    title: 'Days until disk is full',
    description: `Days until nothing is left of a file system, if it goes on to fill as in the last 6 hours; ${A_YEAR} for a year or more, or where it does not fill. Red from a day on, as the alert. A stack of some minutes says too little.`,
    unit: units.Short,
    decimals: 0,
    width: 8,
    // At least a byte a second, so that there is a number where nothing is written.
    queries: {
      '{{mountpoint}}': `clamp_max(${min(machine.select(host.filesystemAvailable, DISKS), 'mountpoint')} / (clamp_min(-${min(`deriv(${machine.select(host.filesystemAvailable, DISKS)}[6h])`, 'mountpoint')}, 1) > 0) / ${DAY}, ${A_YEAR})`,
    },
    thresholds: { warning: 7, critical: 1, low: true },
    alerts: ['HostFilesystemFillingUp'],
  },
} satisfies Record<string, PanelSpec>;

export const resourcesDashboard = (prefix: string): DashboardSpec => ({
  uid: RESOURCES_UID,
  title: 'Resources',
  description: 'What the containers use of the limits of their stack, and how much of the host is left.',
  variables: [variables.container(prefix)],
  rows: { 'Containers against their limits': limits(prefix), Containers: usage(prefix), Host: hostPanels() },
});

function limits(prefix: string): PanelSpec[] {
  const of = chosen(prefix);
  return [
    shared(prefix).cpu,
    shared(prefix).memory,
    {
      title: 'CPU throttling',
      description:
        'Share of scheduler periods in which a container had used up its CPU. Above 25 % it needs more, or less to do.',
      unit: units.PercentUnit,
      width: 12,
      queries: {
        '{{name}}': ratio(
          sum(containers.rate(container.throttledPeriods, ...of), 'name'),
          sum(containers.rate(container.periods, ...of), 'name'),
        ),
      },
      leaveOut: containerName(prefix),
      thresholds: { warning: 0.25 },
      empty: 'no limits in use',
      alerts: ['ContainerCpuThrottled'],
    },
    {
      kind: 'stat',
      title: 'OOM kills',
      description:
        'Processes that the kernel killed for want of memory in the range of the dashboard: containers that had some, or one 0 for all. Any one: raise the limit, or find the leak.',
      unit: units.Short,
      width: 6,
      queries: {
        '{{name}}': onlyAboveZero(rounded(sum(containers.total(container.oomEvents, ...of), 'name')), 'name'),
      },
      leaveOut: containerName(prefix),
      thresholds: { critical: 1 },
      alerts: ['ContainerOomKilled'],
    },
    {
      kind: 'stat',
      title: 'Container restarts',
      description:
        'How often the engine started a container again by itself in the range of the dashboard: those that it did, or one 0 for all. Any one: it crashed, see its log.',
      unit: units.Short,
      width: 6,
      queries: { '{{name}}': onlyAboveZero(rounded(sum(containers.total(container.restarts, ...of), 'name')), 'name') },
      leaveOut: containerName(prefix),
      thresholds: { warning: 1, critical: 3 },
      alerts: ['ContainerRestartLoop'],
    },
  ];
}

function usage(prefix: string): PanelSpec[] {
  const of = chosen(prefix);
  return [
    {
      kind: 'stacked',
      title: 'CPU by container',
      description: 'Cores in use; 100 % is one core. Who takes the host when it is full.',
      unit: units.PercentUnit,
      width: 12,
      queries: { '{{name}}': sum(containers.rate(container.cpuSeconds, ...of), 'name') },
      leaveOut: containerName(prefix),
    },
    {
      kind: 'stacked',
      title: 'Working set by container',
      description: 'Memory that the kernel cannot take back. A line that only rises is a leak.',
      unit: units.BytesIEC,
      width: 12,
      queries: { '{{name}}': sum(containers.select(container.workingSet, ...of), 'name') },
      leaveOut: containerName(prefix),
    },
    {
      title: 'Network by container',
      description: 'Bytes per second in and out. An export is a long plateau; a peak without requests is not ours.',
      unit: units.BytesPerSecondSI,
      width: 12,
      queries: {
        'in {{name}}': sum(containers.rate(container.networkReceived, ...of), 'name'),
        'out {{name}}': sum(containers.rate(container.networkSent, ...of), 'name'),
      },
      leaveOut: containerName(prefix),
    },
    {
      title: 'Disk IO by container',
      description: 'Bytes per second that a container read from disks and wrote to them. Who keeps the disk busy.',
      unit: units.BytesPerSecondSI,
      width: 12,
      queries: {
        'read {{name}}': sum(containers.rate(container.diskRead, ...of), 'name'),
        'written {{name}}': sum(containers.rate(container.diskWritten, ...of), 'name'),
      },
      leaveOut: containerName(prefix),
    },
    {
      title: 'Threads by container',
      description:
        'Threads of all processes of a container. A line that only rises: processes that are started and never end.',
      unit: units.Short,
      width: 12,
      queries: { '{{name}}': sum(containers.select(container.threads, ...of), 'name') },
      leaveOut: containerName(prefix),
    },
    {
      kind: 'table',
      title: 'Container uptime',
      description:
        'When each container began, the youngest first. A young one that no one deployed: it crashed, or was killed.',
      width: 12,
      queries: { Started: `${max(containers.select(container.startTime, ...of), 'name', 'component')} * 1000` },
      columns: [
        { heading: 'Container', label: 'name', leaveOut: containerName(prefix) },
        { heading: 'Component', label: 'component' },
        { heading: 'Started', unit: 'dateTimeFromNow', sort: 'down' },
      ],
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
      max: 1,
      alerts: ['HostCpuSaturated'],
    },
    {
      title: 'Load per core',
      description: 'Processes that run or want to, by core. Above 1 they wait for each other.',
      unit: units.NoUnit,
      decimals: 2,
      width: 8,
      queries: { load: ratio(sum(machine.select(host.load1)), `count(${idle})`) },
      thresholds: { warning: 1, critical: 2 },
      alerts: ['HostCpuSaturated'],
    },
    {
      title: 'Memory used',
      description: 'Share of the memory that is not available. Above 90 %: fewer replicas, or a larger host.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        used: `1 - ${ratio(sum(machine.select(host.memoryAvailable)), sum(machine.select(host.memoryTotal)))}`,
      },
      thresholds: { warning: 0.8, critical: 0.9 },
      alerts: ['HostMemoryHigh'],
    },
    disks.used,
    {
      title: 'Disk space free',
      description: 'Bytes left of each file system. Compare with the growth of the database.',
      unit: units.BytesIEC,
      width: 8,
      queries: { '{{mountpoint}}': min(machine.select(host.filesystemAvailable, DISKS), 'mountpoint') },
      alerts: ['HostFilesystemFillingUp', 'HostFilesystemAlmostFull'],
    },
    disks.fullIn,
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
      width: 8,
      queries: {
        in: sum(machine.rate(host.networkReceived, DEVICES)),
        out: sum(machine.rate(host.networkSent, DEVICES)),
      },
    },
    {
      kind: 'stat',
      title: 'NTP',
      description:
        'Whether the clock of the host is kept right by a server. If not, times in logs and certificates drift.',
      unit: units.BoolYesNo,
      width: 8,
      queries: { clock: min(machine.select(host.timeSynced)) },
      words: { 0: 'not synchronised', 1: 'synchronised' },
      thresholds: { critical: 1, low: true },
      alerts: ['HostClockSkew'],
    },
  ];
}
