import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../app/telemetry/names';
import { RUNTIME_METRICS } from './exporters';
import { USER_ROUTES } from './prometheus';

interface PanelSpec {
  readonly kind?: 'timeseries' | 'stacked' | 'stat' | 'heatmap' | 'table';
  readonly title: string;
  /** What it shows and when to worry: the first thing that is read on call. */
  readonly description: string;
  readonly unit: string;
  /** Width of 24. The widths of a row's lines must add up to 24 each. */
  readonly width: number;
  /** Legend (a template such as {{route}}) -> PromQL. */
  readonly queries: Readonly<Record<string, string>>;
}

interface DashboardSpec {
  readonly uid: string;
  readonly title: string;
  readonly description: string;
  readonly rows: Readonly<Record<string, readonly PanelSpec[]>>;
}

/** All dashboards: file name -> JSON text. Same program, same bytes. */
export function renderDashboards(): Record<string, string> {
  return Object.fromEntries(
    [apiDashboard()].map((spec) => [`${spec.uid}.json`, `${JSON.stringify(build(spec), null, 2)}\n`]),
  );
}

/** Every query selects by the dashboard's variables, so that one replica can be looked at alone. */
const SELECTOR = 'job=~"$job",instance=~"$instance",env=~"$env"';

const USERS = `${SELECTOR},${USER_ROUTES}`;

const select = (name: string, selector = SELECTOR) => `${name}{${selector}}`;
const rate = (name: string, selector = SELECTOR) => `rate(${select(name, selector)}[$__rate_interval])`;

const quantile = (q: number, histogram: string, selector: string, by = '') =>
  `histogram_quantile(${q}, sum by (${by}le) (${rate(`${histogram}_bucket`, selector)}))`;

function apiDashboard(): DashboardSpec {
  return {
    uid: 'loans-api',
    title: 'Loans / API',
    description: 'What users get from the API, what its processes need for it, and how the database looks from there.',
    rows: { RED: requestPanels(), 'Node.js runtime': runtimePanels(), 'Database as the API sees it': databasePanels() },
  };
}

function requestPanels(): PanelSpec[] {
  const duration = METRICS.httpRequestDuration.name;
  const requests = rate(`${duration}_count`, USERS);
  const failures = rate(`${duration}_count`, `${USERS},status_code=~"5.."`);
  return [
    {
      title: 'Request rate by route',
      description: 'Requests per second by route pattern and method, without probes and scrapes.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{method}} {{route}}': `sum by (route, method) (${requests})` },
    },
    {
      title: 'Error ratio by route',
      description: 'Share of answers with status 5xx. Zero is normal; the objective is below 1 % over all routes.',
      unit: units.PercentUnit,
      width: 8,
      // A route without a failure shows 0, a route without a request shows nothing.
      queries: {
        '{{route}}': `(sum by (route) (${failures}) or 0 * sum by (route) (${requests})) / (sum by (route) (${requests}) > 0)`,
      },
    },
    {
      title: 'Latency',
      description: 'Time from request to finished response over all routes. The objective is 95 % within 200 ms.',
      unit: units.Seconds,
      width: 8,
      queries: {
        p50: quantile(0.5, duration, USERS),
        p95: quantile(0.95, duration, USERS),
        p99: quantile(0.99, duration, USERS),
      },
    },
    {
      title: 'Latency p95 by route',
      description: 'The route that is slow when the panel beside it rises.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{route}}': quantile(0.95, duration, USERS, 'route, ') },
    },
    {
      kind: 'heatmap',
      title: 'Latency distribution',
      description: 'Number of requests by duration. Two bands mean two kinds of requests, or two kinds of replicas.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{le}}': `sum by (le) (increase(${select(`${duration}_bucket`, USERS)}[$__rate_interval]))` },
    },
    {
      kind: 'stacked',
      title: 'Responses by status',
      description: 'Answers per second by status code. 4xx are the clients, 5xx are ours.',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{status_code}}': `sum by (status_code) (${requests})` },
    },
    {
      title: 'Requests in flight',
      description: 'Requests being served now, by replica. Rising without more requests: something behind is slow.',
      unit: units.Short,
      width: 8,
      queries: { '{{instance}}': `sum by (instance) (${select(METRICS.httpRequestsInFlight.name)})` },
    },
    {
      title: 'Loans created',
      description: 'Loans created in each step of the graph, by currency.',
      unit: units.Short,
      width: 8,
      queries: {
        '{{currency}}': `sum by (currency) (increase(${select(METRICS.loansCreated.name)}[$__rate_interval]))`,
      },
    },
    {
      title: 'Repayments',
      description: 'Repayments recorded, and taken back, in each step of the graph, by currency.',
      unit: units.Short,
      width: 8,
      queries: {
        '{{currency}}': `sum by (currency) (increase(${select(METRICS.repayments.name)}[$__rate_interval]))`,
        '{{currency}} taken back': `sum by (currency) (increase(${select(METRICS.repaymentReversals.name)}[$__rate_interval]))`,
      },
    },
  ];
}

function runtimePanels(): PanelSpec[] {
  const runtime = RUNTIME_METRICS;
  return [
    {
      title: 'Event loop lag p99',
      description: 'How late timers fire. Above 0.1 s every request waits for some other one.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{instance}}': `max by (instance) (${select(runtime.eventLoopLagP99)})` },
    },
    {
      title: 'Heap',
      description: 'Memory of JavaScript objects, over all processes of a replica. Used that only rises is a leak.',
      unit: units.BytesIEC,
      width: 8,
      queries: {
        'used {{instance}}': `sum by (instance) (${select(runtime.heapUsed)})`,
        'total {{instance}}': `sum by (instance) (${select(runtime.heapTotal)})`,
      },
    },
    {
      title: 'Garbage collection',
      description: 'Share of time spent on garbage collection, by kind. Above 10 % the heap is too small.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{instance}} {{kind}}': `sum by (instance, kind) (${rate(runtime.garbageCollectionSum)})` },
    },
    {
      title: 'CPU',
      description: 'Cores in use by a replica; 100 % is one core. Compare with the limit of the environment.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{instance}}': `sum by (instance) (${rate(runtime.cpuSeconds)})` },
    },
    {
      title: 'Open files',
      description: 'File descriptors in use of those allowed. At 100 % no connection is accepted.',
      unit: units.PercentUnit,
      width: 8,
      queries: {
        '{{instance}}': `sum by (instance) (${select(runtime.openFiles)}) / (sum by (instance) (${select(runtime.maxFiles)}) > 0)`,
      },
    },
    {
      kind: 'stat',
      title: 'Process restarts',
      description:
        'How often a process of a replica began anew in the range of the dashboard. Zero between deployments.',
      unit: units.Short,
      width: 8,
      // CPU time starts at zero with each process; the start time itself is lost when processes are added up.
      queries: { '{{instance}}': `sum by (instance) (resets(${select(runtime.cpuSeconds)}[$__range]))` },
    },
  ];
}

function databasePanels(): PanelSpec[] {
  return [
    {
      title: 'Query time p95 by operation',
      description: 'Time of one query as the API measures it, with the network but without waiting for a connection.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{operation}}': quantile(0.95, METRICS.dbQueryDuration.name, SELECTOR, 'operation, ') },
    },
    {
      title: 'Connection pool',
      description:
        'Connections held and idle, and requests that wait for one. Waiting above zero: the pool is too small.',
      unit: units.Short,
      width: 12,
      queries: {
        'held {{instance}}': `sum by (instance) (${select(METRICS.dbPoolConnections.name)})`,
        'idle {{instance}}': `sum by (instance) (${select(METRICS.dbPoolIdle.name)})`,
        'waiting {{instance}}': `sum by (instance) (${select(METRICS.dbPoolWaiting.name)})`,
      },
    },
    {
      title: 'Query errors by SQLSTATE class',
      description: 'Failed queries per second. 08 and "connection": unreachable; 40: conflicts; 53: out of resources.',
      unit: units.OpsPerSecond,
      width: 8,
      queries: { '{{sqlstate_class}}': `sum by (sqlstate_class) (${rate(METRICS.dbQueryErrors.name)})` },
    },
    {
      title: 'Refused at once',
      description:
        'Work per second that was not begun, and processes to which the database is away. Zero when all is well.',
      unit: units.Short,
      width: 8,
      queries: {
        '{{reason}}': `sum by (reason) (${rate(METRICS.requestsShed.name)})`,
        'database away': `sum(${select(METRICS.dbCircuitOpen.name)})`,
      },
    },
    {
      kind: 'table',
      title: 'Version running',
      description: 'What each replica runs. Two versions outside a deployment mean that it did not finish.',
      unit: units.NoUnit,
      width: 8,
      queries: { '{{version}}': select(METRICS.appInfo.name) },
    },
  ];
}

const DATA_SOURCE = { type: 'prometheus', uid: '${datasource}' };
const PANEL_HEIGHT = 8;

/* eslint-disable @typescript-eslint/no-deprecated --
   The classic model is what file provisioning reads in every version of Grafana; its successor is not. */
/** A dashboard as Grafana reads it, with what the builders leave out: ids, refIds, legends. */
function build({ uid, title, description, rows }: DashboardSpec): dashboard.Dashboard {
  const builder = new dashboard.DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['loans', 'generated'])
    .readonly()
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .time({ from: 'now-1h', to: 'now' })
    .refresh('30s')
    .timezone('browser')
    .withVariable(new dashboard.DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'))
    .withVariable(variable('env', 'Env', `label_values(${METRICS.appInfo.name}, env)`))
    .withVariable(variable('job', 'Job', `label_values(${select(METRICS.appInfo.name, 'env=~"$env"')}, job)`))
    .withVariable(
      variable(
        'instance',
        'Instance',
        `label_values(${select(METRICS.appInfo.name, 'env=~"$env",job=~"$job"')}, instance)`,
      ),
    );
  let id = 0;
  for (const [row, panels] of Object.entries(rows)) {
    builder.withRow(new dashboard.RowBuilder(row).id(++id));
    for (const panel of panels) builder.withPanel(buildPanel(panel, ++id));
  }
  return builder.build();
}
/* eslint-enable @typescript-eslint/no-deprecated */

function variable(name: string, label: string, query: string): dashboard.QueryVariableBuilder {
  return new dashboard.QueryVariableBuilder(name)
    .label(label)
    .query({ query, refId: name })
    .datasource(DATA_SOURCE)
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.+')
    .current({ selected: true, text: ['All'], value: ['$__all'] });
}

function buildPanel(spec: PanelSpec, id: number): { build: () => dashboard.Panel } {
  const builder = visualization(spec)
    .id(id)
    .title(spec.title)
    .description(spec.description)
    .unit(spec.unit)
    .datasource(DATA_SOURCE)
    .span(spec.width)
    .height(PANEL_HEIGHT);
  Object.entries(spec.queries).forEach(([legend, expression], index) => {
    const query = new prometheus.DataqueryBuilder()
      .refId(String.fromCharCode('A'.charCodeAt(0) + index))
      .datasource(DATA_SOURCE)
      .expr(expression)
      .legendFormat(legend);
    const format = { heatmap: prometheus.PromQueryFormat.Heatmap, table: prometheus.PromQueryFormat.Table };
    const kind = spec.kind ?? 'timeseries';
    if (kind === 'heatmap' || kind === 'table') query.format(format[kind]);
    builder.withTarget(kind === 'stat' || kind === 'table' ? query.instant() : query.range());
  });
  return builder;
}

type Visualization = timeseries.PanelBuilder | stat.PanelBuilder | heatmap.PanelBuilder | table.PanelBuilder;

function visualization({ kind = 'timeseries' }: PanelSpec): Visualization {
  switch (kind) {
    case 'stat':
      return new stat.PanelBuilder().graphMode(common.BigValueGraphMode.None);
    case 'heatmap':
      return new heatmap.PanelBuilder().calculate(false);
    case 'table':
      return new table.PanelBuilder();
    case 'stacked':
      return graph().fillOpacity(60).stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));
    case 'timeseries':
      return graph();
  }
}

function graph(): timeseries.PanelBuilder {
  return new timeseries.PanelBuilder()
    .min(0)
    .lineWidth(1)
    .fillOpacity(10)
    .showPoints(common.VisibilityMode.Never)
    .legend(
      new common.VizLegendOptionsBuilder()
        .showLegend(true)
        .displayMode(common.LegendDisplayMode.List)
        .placement(common.LegendPlacement.Bottom),
    )
    .tooltip(
      new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending),
    );
}
