import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { JOBS, RUNTIME_METRICS as runtime } from '../exporters';
import { USER_ROUTES } from '../prometheus';
import { type Bounds, type DashboardSpec, type Drill, failureBounds, latencyBounds, type PanelSpec } from './builder';
import { FAILED, max, onlyAboveZero, ratio, REPLICA, requestsOf, seriesOf, shareOf, sum } from './query';
import { containerName, RESOURCES_UID } from './resources';
import * as variables from './variables';

const api = seriesOf(JOBS.api);
const duration = METRICS.httpRequestDuration.name;
const NO_REQUESTS = 'no requests';

interface Options extends Bounds {
  /** What the names of the stack's containers begin with. */
  readonly prefix: string;
  /** Database connections that one container may hold: pool size times processes. */
  readonly connectionsPerContainer: number;
}

/** From a replica to what its container uses of its limits. */
const OF_CONTAINER: Drill = {
  title: 'Its container',
  dashboard: RESOURCES_UID,
  variables: { container: `\${__field.labels.${REPLICA}}` },
};

export function apiDashboard(options: Options): DashboardSpec {
  /** Of every replica: names without what all of them begin with, and the way to their containers. */
  const byReplica = (panels: readonly PanelSpec[]) =>
    panels.map((panel) =>
      panel.kind === 'table' || !Object.keys(panel.queries).some((legend) => legend.includes(`{{${REPLICA}}}`))
        ? panel
        : { ...panel, leaveOut: containerName(options.prefix), drill: OF_CONTAINER },
    );
  return {
    uid: 'loans-api',
    title: 'API',
    description: 'How the processes of the API do: load of each replica, event loop, memory, connections, releases.',
    variables: [variables.track, variables.replica],
    rows: {
      Replicas: byReplica(replicas(options)),
      'Stable and canary': tracks(options),
      'Node.js runtime': byReplica(runtimePanels()),
      'Database pool': byReplica(database(options.connectionsPerContainer)),
    },
  };
}

const requests = (...matchers: readonly string[]) => requestsOf(api.rate, USER_ROUTES, ...matchers);
const errorsBy = (label: string) => shareOf(sum(requests(FAILED), label), sum(requests(), label));

/** What the overview shows too. */
export const versions = (prefix: string): PanelSpec => ({
  kind: 'table',
  title: 'Version running',
  description: 'What each replica runs. Two versions outside a deployment mean that it did not finish.',
  width: 12,
  queries: { running: max(api.select(METRICS.appInfo.name), 'version', 'commit', 'release', 'track', REPLICA) },
  columns: [
    { heading: 'Version', label: 'version', sort: 'down' },
    { heading: 'Commit', label: 'commit' },
    { heading: 'Release', label: 'release' },
    { heading: 'Track', label: 'track' },
    { heading: 'Replica', label: REPLICA, leaveOut: containerName(prefix) },
  ],
});

function replicas({ prefix, ...bounds }: Options): PanelSpec[] {
  return [
    {
      title: 'Requests by replica',
      description: 'Requests per second of each replica. Shares that differ: one was taken out, or is slow.',
      unit: units.RequestsPerSecond,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: sum(requests(), REPLICA) },
      empty: NO_REQUESTS,
      alerts: ['ApiDown', 'ApiReplicasMissing'],
    },
    {
      title: 'Latency p95 by replica',
      description: 'One replica that is slower than the others: compare its CPU and its event loop below.',
      unit: units.Seconds,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: api.quantile(0.95, duration, [REPLICA], USER_ROUTES) },
      thresholds: latencyBounds(bounds),
      exemplars: true,
      empty: NO_REQUESTS,
    },
    {
      title: 'Error ratio by replica',
      description: 'Share of answers with status 5xx. One replica alone: stop it, the others serve on.',
      unit: units.PercentUnit,
      decimals: 2,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: errorsBy(REPLICA) },
      thresholds: failureBounds(bounds),
      empty: NO_REQUESTS,
    },
    {
      kind: 'stat',
      title: 'Restarts',
      description:
        'How often the container of a replica began anew in the range of the dashboard: those that did, or one 0 for all. Zero between deployments.',
      unit: units.Short,
      width: 4,
      queries: {
        [`{{${REPLICA}}}`]: onlyAboveZero(sum(`changes(${api.select(runtime.startTime)}[$__range])`, REPLICA), REPLICA),
      },
      thresholds: { warning: 1, critical: 3 },
      alerts: ['ApiRestartLoop'],
    },
    { ...versions(prefix), width: 8 },
  ];
}

/** A canary beside the release that it may replace. Without a canary there is one line. */
function tracks(bounds: Bounds): PanelSpec[] {
  return [
    {
      title: 'Requests by track',
      description:
        'Requests per second of the stable release and of the canary. Their shares are the weights of the gateway.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{track}}': sum(requests(), 'track') },
      empty: NO_REQUESTS,
    },
    {
      title: 'Error ratio by track',
      description: 'Share of answers with status 5xx. A canary above the stable release: take it back (make canary).',
      unit: units.PercentUnit,
      decimals: 2,
      width: 8,
      queries: { '{{track}}': errorsBy('track') },
      thresholds: failureBounds(bounds),
      empty: NO_REQUESTS,
    },
    {
      title: 'Latency p95 by track',
      description:
        'Time of 95 % of the answers. A canary that is slower with as many requests a replica has a slower release.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{track}}': api.quantile(0.95, duration, ['track'], USER_ROUTES) },
      thresholds: latencyBounds(bounds),
      empty: NO_REQUESTS,
    },
  ];
}

function runtimePanels(): PanelSpec[] {
  return [
    {
      title: 'Event loop lag p99',
      description: 'How late timers fire. Above 0.1 s every request waits for some other one.',
      unit: units.Seconds,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: max(api.select(runtime.eventLoopLagP99), REPLICA) },
      thresholds: { warning: 0.1, critical: 0.25 },
      alerts: ['ApiEventLoopLag'],
    },
    {
      title: 'CPU',
      description: 'Cores in use by a replica; 100 % is one core. Its limit is on the dashboard of the resources.',
      unit: units.PercentUnit,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: sum(api.rate(runtime.cpuSeconds), REPLICA) },
    },
    {
      title: 'Heap',
      description: 'Memory of JavaScript objects, over all processes of a replica. Used that only rises is a leak.',
      unit: units.BytesIEC,
      width: 12,
      queries: {
        [`used {{${REPLICA}}}`]: sum(api.select(runtime.heapUsed), REPLICA),
        [`total {{${REPLICA}}}`]: sum(api.select(runtime.heapTotal), REPLICA),
      },
    },
    {
      title: 'Garbage collection',
      description: 'Share of time spent on garbage collection, by kind. Above 10 % the heap is too small.',
      unit: units.PercentUnit,
      width: 12,
      queries: { [`{{${REPLICA}}} {{kind}}`]: sum(api.rate(runtime.garbageCollectionSum), REPLICA, 'kind') },
      thresholds: { critical: 0.1 },
    },
    {
      title: 'Requests in flight',
      description:
        'Requests being served now, by replica; at rest 1, which is the scrape that asks. Rising without more requests: something behind is slow.',
      unit: units.Short,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: sum(api.select(METRICS.httpRequestsInFlight.name), REPLICA) },
    },
    {
      title: 'Open files',
      description: 'File descriptors in use of those allowed. At 100 % no connection is accepted.',
      unit: units.PercentUnit,
      width: 12,
      queries: {
        [`{{${REPLICA}}}`]: ratio(
          sum(api.select(runtime.openFiles), REPLICA),
          sum(api.select(runtime.maxFiles), REPLICA),
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
      width: 12,
      queries: {
        [`held {{${REPLICA}}}`]: sum(api.select(METRICS.dbPoolConnections.name), REPLICA),
        [`idle {{${REPLICA}}}`]: sum(api.select(METRICS.dbPoolIdle.name), REPLICA),
      },
      thresholds: { critical: connections },
      softMax: connections,
      alerts: ['ApiDbPoolSaturated'],
    },
    {
      title: 'Waiting for a connection',
      description:
        'Requests that wait for a connection of the pool. Above zero for minutes: the database is slow, or the pool too small.',
      unit: units.Short,
      width: 12,
      queries: { [`{{${REPLICA}}}`]: sum(api.select(METRICS.dbPoolWaiting.name), REPLICA) },
      thresholds: { warning: 1 },
      alerts: ['ApiDbPoolSaturated'],
    },
    {
      title: 'Load shed',
      description:
        'Requests per second that were refused at once with 503, by what said so, and processes to which the database is away. Zero when all is well.',
      unit: units.Short,
      width: 24,
      queries: {
        '{{reason}}': sum(api.rate(METRICS.requestsShed.name), 'reason'),
        'database away': sum(api.select(METRICS.dbCircuitOpen.name)),
      },
      alerts: ['ApiRequestsShed', 'ApiDatabaseAway'],
    },
  ];
}
