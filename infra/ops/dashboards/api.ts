import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { JOBS, RUNTIME_METRICS as runtime } from '../exporters';
import { USER_ROUTES } from '../prometheus';
import { type Bounds, type DashboardSpec, failureBounds, type PanelSpec } from './builder';
import { max, ratio, seriesOf, shareOf, sum } from './query';

const api = seriesOf(JOBS.api);

/** @param connections database connections that one container may hold: pool size times processes */
export function apiDashboard(connections: number, bounds: Bounds): DashboardSpec {
  return {
    uid: 'loans-api',
    title: 'Loans / API',
    description: 'How the processes of the API do: load of each replica, event loop, memory, connections, releases.',
    jobs: [JOBS.api],
    rows: {
      Replicas: replicas(bounds),
      'Node.js runtime': runtimePanels(),
      'Way to the database': database(connections),
    },
  };
}

function replicas(bounds: Bounds): PanelSpec[] {
  const duration = METRICS.httpRequestDuration.name;
  const requests = (...matchers: readonly string[]) => api.rate(`${duration}_count`, USER_ROUTES, ...matchers);
  return [
    {
      title: 'Requests by replica',
      description: 'Requests per second of each replica. Shares that differ: one was taken out, or is slow.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{instance}}': sum(requests(), 'instance') },
      alerts: ['ApiDown', 'ApiReplicasMissing'],
    },
    {
      title: 'Requests in flight',
      description: 'Requests being served now, by replica. Rising without more requests: something behind is slow.',
      unit: units.Short,
      width: 8,
      queries: { '{{instance}}': sum(api.select(METRICS.httpRequestsInFlight.name), 'instance') },
    },
    {
      title: 'Latency p95 by replica',
      description: 'One replica that is slower than the others: compare its CPU and its event loop below.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{instance}}': api.quantile(0.95, duration, ['instance'], USER_ROUTES) },
    },
    {
      title: 'Error ratio by replica',
      description: 'Share of answers with status 5xx. One replica alone: stop it, the others serve on.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{instance}}': shareOf(sum(requests('status_code=~"5.."'), 'instance'), sum(requests(), 'instance')),
      },
      thresholds: failureBounds(bounds),
    },
    {
      kind: 'stat',
      title: 'Restarts',
      description:
        'How often the container of a replica began anew in the range of the dashboard. Zero between deployments.',
      unit: units.Short,
      width: 8,
      // Begins at zero with the container: what its processes that died have used stays in the sum.
      queries: { '{{instance}}': sum(`resets(${api.select(runtime.cpuSeconds)}[$__range])`, 'instance') },
      thresholds: { warning: 1, critical: 3 },
      alerts: ['ApiRestartLoop'],
    },
    {
      kind: 'table',
      title: 'Version running',
      description: 'What each replica runs. Two versions outside a deployment mean that it did not finish.',
      unit: units.NoUnit,
      width: 8,
      queries: { '{{version}}': api.select(METRICS.appInfo.name) },
    },
  ];
}

function runtimePanels(): PanelSpec[] {
  return [
    {
      title: 'Event loop lag p99',
      description: 'How late timers fire. Above 0.1 s every request waits for some other one.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{instance}}': max(api.select(runtime.eventLoopLagP99), 'instance') },
      thresholds: { warning: 0.1, critical: 0.25 },
      alerts: ['ApiEventLoopLag'],
    },
    {
      title: 'Heap',
      description: 'Memory of JavaScript objects, over all processes of a replica. Used that only rises is a leak.',
      unit: units.BytesIEC,
      width: 8,
      queries: {
        'used {{instance}}': sum(api.select(runtime.heapUsed), 'instance'),
        'total {{instance}}': sum(api.select(runtime.heapTotal), 'instance'),
      },
    },
    {
      title: 'Garbage collection',
      description: 'Share of time spent on garbage collection, by kind. Above 10 % the heap is too small.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{instance}} {{kind}}': sum(api.rate(runtime.garbageCollectionSum), 'instance', 'kind') },
      thresholds: { critical: 0.1 },
    },
    {
      title: 'CPU',
      description: 'Cores in use by a replica; 100 % is one core. Its limit is on the dashboard of the resources.',
      unit: units.PercentUnit,
      width: 12,
      queries: { '{{instance}}': sum(api.rate(runtime.cpuSeconds), 'instance') },
    },
    {
      title: 'Open files',
      description: 'File descriptors in use of those allowed. At 100 % no connection is accepted.',
      unit: units.PercentUnit,
      width: 12,
      queries: {
        '{{instance}}': ratio(
          sum(api.select(runtime.openFiles), 'instance'),
          sum(api.select(runtime.maxFiles), 'instance'),
        ),
      },
      thresholds: { warning: 0.7, critical: 0.9 },
    },
  ];
}

function database(connections: number): PanelSpec[] {
  return [
    {
      title: 'Connection pool',
      description: `Connections held by a replica, of ${connections} that its settings allow, and those of them that are idle. None idle for long: see who waits.`,
      unit: units.Short,
      width: 8,
      queries: {
        'held {{instance}}': sum(api.select(METRICS.dbPoolConnections.name), 'instance'),
        'idle {{instance}}': sum(api.select(METRICS.dbPoolIdle.name), 'instance'),
      },
      thresholds: { critical: connections },
      alerts: ['ApiDbPoolSaturated'],
    },
    {
      title: 'Waiting for a connection',
      description:
        'Requests that wait for a connection of the pool. Above zero for minutes: the database is slow, or the pool too small.',
      unit: units.Short,
      width: 8,
      queries: { '{{instance}}': sum(api.select(METRICS.dbPoolWaiting.name), 'instance') },
      thresholds: { warning: 1 },
      alerts: ['ApiDbPoolSaturated'],
    },
    {
      title: 'Refused at once',
      description:
        'Work per second that was not begun, by what said so, and processes to which the database is away. Zero when all is well.',
      unit: units.Short,
      width: 8,
      queries: {
        '{{reason}}': sum(api.rate(METRICS.requestsShed.name), 'reason'),
        'database away': sum(api.select(METRICS.dbCircuitOpen.name)),
      },
      alerts: ['ApiRequestsShed', 'ApiDatabaseAway'],
    },
  ];
}
