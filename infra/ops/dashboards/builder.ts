import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as gauge from '@grafana/grafana-foundation-sdk/gauge';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as text from '@grafana/grafana-foundation-sdk/text';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import type { Thresholds } from '../alerts';
import { CONTAINER_METRICS, JOBS, PROMETHEUS_METRICS, RUNTIME_METRICS } from '../exporters';
import { ALERTMANAGER_NAME } from '../grafana';
import { errorBudget, LATENCY_SECONDS, type Objectives } from '../slo';

/** What a dashboard is, without what Grafana needs to draw it. */
export interface DashboardSpec {
  /** Never changes: links and the file's name are made of it. */
  readonly uid: string;
  readonly title: string;
  /** Which questions it answers. */
  readonly description: string;
  /** Drop-downs beside `env`. */
  readonly variables?: readonly VariableSpec[];
  readonly rows: Readonly<Record<string, readonly PanelSpec[]>>;
}

/** A drop-down that offers the values of a label. */
export interface VariableSpec {
  readonly name: string;
  /** The name with a capital, if not given. */
  readonly label?: string;
  /** PromQL of the series that have the label. */
  readonly series: string;
  readonly of: string;
  /** Offer what is there at the end of the range alone, without what was there before. */
  readonly present?: true;
}

export interface PanelSpec {
  readonly kind?: 'timeseries' | 'stacked' | 'stat' | 'gauge' | 'heatmap' | 'table' | 'alerts' | 'text';
  readonly title: string;
  /** What it shows and when to worry: the first thing that is read on call. */
  readonly description: string;
  /** Of all values. A table's columns have their own. */
  readonly unit?: string;
  /** Digits after the point; Grafana's choice, which rounds 99.951 % to 100.0 %, if not given. */
  readonly decimals?: number;
  /** Width of 24. The widths of a row's lines must add up to 24 each. */
  readonly width: number;
  /** Legend (a template such as {{route}}), or heading of a table's column -> PromQL. */
  readonly queries: Readonly<Record<string, string>>;
  /** What is shown where the source is well and has nothing to show, such as "no requests". Else it says "No data". */
  readonly empty?: string;
  /**
   * From where on it is yellow, and red; below where, if `low` values are the bad ones. Settings may put yellow behind
   * red: then there is none.
   */
  readonly thresholds?: Bad;
  /** Other bounds for some of the queries, by their legend. */
  readonly thresholdsOf?: Readonly<Record<string, Bad>>;
  /** Words for values, such as 1 -> up. */
  readonly words?: Readonly<Record<number, string>>;
  /** Where the axis of a graph begins, unless values are below: for shares that happen at the top. */
  readonly softMin?: number;
  /** Where the axis of a graph ends, unless values are beyond: else a line of zeros has an axis up to 100. */
  readonly softMax?: number;
  /** Where it ends whatever the values. */
  readonly max?: number;
  /** Pattern of names of series -> their colour. */
  readonly colours?: Readonly<Record<string, string>>;
  /** What is left out of the names of series, such as the prefix of all containers. */
  readonly leaveOut?: string;
  /** Columns of a table from left to right; it is sorted by the first that says so. */
  readonly columns?: readonly Column[];
  /** Dashboard that tells more: uid. */
  readonly more?: string;
  /** Page of one series, with its labels as ${__field.labels.…}. */
  readonly drill?: Drill;
  /** Show requests that were traced. */
  readonly exemplars?: true;
  /** Alerts whose runbooks say what to do. */
  readonly alerts?: readonly string[];
  /** Markdown of a text. */
  readonly content?: string;
  readonly height?: number;
}

/** From where on values are bad. */
export interface Bad {
  readonly warning?: number;
  readonly critical?: number;
  readonly low?: true;
}

/** Shows the text of a label, or else the values of the query that is named as its heading. */
export interface Column {
  readonly heading: string;
  readonly label?: string;
  readonly unit?: string;
  readonly decimals?: number;
  readonly thresholds?: Bad;
  /** Pixels; as wide as there is room, if not given. */
  readonly width?: number;
  readonly drill?: Drill;
  /** What is left out at the start of its texts. */
  readonly leaveOut?: string;
  /** Sort by it: up from the smallest value, or down from the largest. */
  readonly sort?: 'up' | 'down';
}

/** A link from a value to a page that tells more about it. */
export interface Drill {
  readonly title: string;
  readonly dashboard: string;
  /** Variable of that dashboard -> what it is set to, with Grafana's ${…}. */
  readonly variables: Readonly<Record<string, string>>;
}

/** What a stack's alerts go by: panels that show the same are coloured by it. */
export interface Bounds {
  readonly thresholds: Thresholds;
  readonly objectives: Objectives;
}

/** Where people find what dashboards link to. */
export interface Places {
  /** The public URL of the gateway, such as https://localhost:8443. */
  readonly url: string;
  /** Where the alerts' pages are read, with a slash at the end: an address, or a path of the repository. */
  readonly runbooks: string;
}

/** Share of failures: yellow from the objective on, red from the alert. */
export const failureBounds = ({ thresholds, objectives }: Bounds) => ({
  warning: errorBudget(objectives.objectives.success),
  critical: shareFrom(thresholds.errorPercent),
});

/** Seconds: yellow from the objective's on, red from the alert about the 95th percentile. */
export const latencyBounds = ({ thresholds }: Bounds) => ({
  warning: LATENCY_SECONDS,
  critical: thresholds.p95Seconds,
});

/** Without the noise of binary fractions. */
export const shareFrom = (percent: number) => Number((percent / 100).toPrecision(10));
export const percentFrom = (share: number) => `${Number((100 * share).toPrecision(10))} %`;

/** Codes of the same class have shades of one colour, whatever else there is. */
export const STATUS_COLOURS = { '^1': 'purple', '^2': 'green', '^3': 'blue', '^4': 'yellow', '^5': 'red' };

/** Unit of rises in a minute. */
export const PER_MINUTE = 'suffix:/min';

const DATA_SOURCE = { type: 'prometheus', uid: '${datasource}' };
const PANEL_HEIGHT = 8;
const TAG = 'loans';
/** Uid of the first page. */
export const OVERVIEW = 'loans-overview';

/* eslint-disable @typescript-eslint/no-deprecated --
   The classic model is what file provisioning reads in every version of Grafana; its successor is not. */
/** A dashboard as Grafana reads it, with what the builders leave out: ids, refIds, legends. */
export function build(spec: DashboardSpec, places: Places): dashboard.Dashboard {
  const builder = new dashboard.DashboardBuilder(spec.title)
    .uid(spec.uid)
    .description(spec.description)
    .tags([TAG, 'generated'])
    .readonly()
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .time({ from: 'now-1h', to: 'now' })
    .refresh('30s')
    .timezone('browser')
    .annotations(annotations())
    .links(links(places))
    .withVariable(new dashboard.DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'));
  for (const each of variablesOf(spec)) builder.withVariable(variable(each));
  const known = new Set(variablesOf(spec).map(({ name }) => name));
  let id = 0;
  for (const [row, panels] of Object.entries(spec.rows)) {
    builder.withRow(new dashboard.RowBuilder(row).id(++id));
    for (const panel of panels) builder.withPanel(buildPanel(withoutMissing(panel, known), ++id, places.runbooks));
  }
  return withoutPlacement(builder.build());
}
/* eslint-enable @typescript-eslint/no-deprecated */

/** The SDK asks for links and annotations in a menu that is closed; above the panels they are seen. */
function withoutPlacement<T>(built: T): T {
  return JSON.parse(
    JSON.stringify(built, (key, value: unknown) =>
      key === 'placement' && value === 'inControlsMenu' ? undefined : value,
    ),
  ) as T;
}

const variablesOf = ({ variables = [] }: DashboardSpec): readonly VariableSpec[] => [
  { name: 'env', series: PROMETHEUS_METRICS.up, of: 'env' },
  ...variables,
];

function variable({ name, label, series, of, present }: VariableSpec): dashboard.QueryVariableBuilder {
  const builder = new dashboard.QueryVariableBuilder(name)
    .label(label ?? `${name.charAt(0).toUpperCase()}${name.slice(1)}`)
    .query({ query: present ? `query_result(${series})` : `label_values(${series}, ${of})`, refId: name })
    .datasource(DATA_SOURCE)
    .refresh(dashboard.VariableRefresh.OnTimeRangeChanged)
    .sort(dashboard.VariableSort.AlphabeticalAsc)
    .multi(true)
    .includeAll(true)
    .allValue('.+')
    .current({ selected: true, text: ['All'], value: ['$__all'] });
  return present ? builder.regex(`/\\b${of}="([^"]+)"/`) : builder;
}

/** The panel as a dashboard with these variables asks it: what it has no variable for is not filtered. */
function withoutMissing(panel: PanelSpec, variables: ReadonlySet<string>): PanelSpec {
  const queries = Object.entries(panel.queries).map(([legend, expression]) => [
    legend,
    expression.replace(/,\w+=~"\$(\w+)"/g, (matcher, name: string) => (variables.has(name) ? matcher : '')),
  ]);
  return { ...panel, queries: Object.fromEntries(queries) as Record<string, string> };
}

/**
 * When each release began, in milliseconds since 1970: the start of its oldest container. A mark at a value and not at
 * the moment of a change is the same at every step that Grafana asks with, for a container more, and after a gap.
 */
export const DEPLOYS = (() => {
  // `$__interval` is the step: a release that came and went between two steps, as one that failed, is seen too.
  const select = (metric: string) => `last_over_time(${metric}{job="${JOBS.api}",env=~"$env"}[$__interval])`;
  const starts = `max by (env, instance) (${select(RUNTIME_METRICS.startTime)})`;
  const begun = `${select(METRICS.appInfo.name)} * on (env, instance) group_left () ${starts}`;
  // By track too: a canary that is promoted is the same release, deployed once more.
  return `1000 * min by (env, track, version, commit, release) (${begun})`;
})();

/** When the containers began that are replaced in place, or restarted: the seconds without them explain a gap. */
const RESTARTS = `1000 * max by (component) (${CONTAINER_METRICS.startTime}{job="${JOBS.containers}",env=~"$env",component=~"gateway|database"})`;

/** Alerts that page people, and alerts that only inform them. */
const FIRING = `max by (alertname, severity) (${PROMETHEUS_METRICS.alerts}{alertstate="firing",severity=~"critical|warning",env=~"$env|"})`;

function annotations(): dashboard.AnnotationQueryBuilder[] {
  const annotation = (name: string, colour: string, expression: string) =>
    new dashboard.AnnotationQueryBuilder()
      .name(name)
      .datasource(DATA_SOURCE)
      .enable(true)
      .iconColor(colour)
      .expr(expression)
      // As long as containers of one release take to start one after the other: what is nearer becomes one mark.
      .step('60s');
  return [
    annotation('Deploys', 'blue', DEPLOYS)
      .useValueForTime(true)
      .titleFormat('{{version}} {{release}} started')
      .textFormat('{{env}} {{track}} {{commit}}'),
    annotation('Restarts', 'purple', RESTARTS).useValueForTime(true).titleFormat('{{component}} started'),
    annotation('Alerts', 'red', FIRING).titleFormat('{{alertname}} fires').textFormat('{{severity}}'),
  ];
}

const isAddress = (runbooks: string) => /^https?:/.test(runbooks);

const link = (title: string, url: string) =>
  new dashboard.DashboardLinkBuilder(title).type(dashboard.DashboardLinkType.Link).url(url).targetBlank(true);

/** What stays chosen on the way to another dashboard. */
const KEPT = '${__url_time_range}&${env:queryparam}';

/** Above every dashboard: the first page, the others, and what is outside of Grafana. */
function links({ url, runbooks }: Places): dashboard.DashboardLinkBuilder[] {
  const base = url.replace(/\/+$/, '');
  const inside = (title: string, path: string) => link(title, path).targetBlank(false).keepTime(true).includeVars(true);
  return [
    inside('Overview', `/d/${OVERVIEW}`),
    new dashboard.DashboardLinkBuilder('Dashboards')
      .type(dashboard.DashboardLinkType.Dashboards)
      .tags([TAG])
      .asDropdown(true)
      .keepTime(true)
      .includeVars(true),
    // Grafana's own page of alerts begins with its own Alertmanager, which gets none.
    link('Alert groups', `/alerting/groups?alertmanager=${ALERTMANAGER_NAME}`).targetBlank(false),
    link('Prometheus', `${base}/prometheus/`),
    link('Alertmanager', `${base}/alertmanager/`),
    link('Status page', `${base}/status`),
    link('SRE figures', `${base}/sre/dashboard-ui`),
    ...(isAddress(runbooks) ? [link('Runbooks', runbooks)] : []),
  ];
}

function buildPanel(spec: PanelSpec, id: number, runbooks: string): { build: () => dashboard.Panel } {
  const pages = (spec.alerts ?? []).map((alert) => ({ alert, page: `${runbooks}${alert}.md` }));
  const what = isAddress(runbooks) ? [] : pages.map(({ page }) => page);
  const description = [spec.description, ...(what.length > 0 ? [`What to do: ${what.join(', ')}.`] : [])].join(' ');
  const builder = visualization(spec).id(id).title(spec.title).description(description);
  builder
    .datasource(DATA_SOURCE)
    .span(spec.width)
    .height(spec.height ?? PANEL_HEIGHT);
  if (spec.unit !== undefined) builder.unit(spec.unit);
  if (spec.decimals !== undefined) builder.decimals(spec.decimals);
  if (spec.empty !== undefined) builder.noValue(spec.empty);
  if (spec.thresholds !== undefined) builder.thresholds(thresholds(spec.thresholds, isGraph(spec)));
  for (const [legend, bad] of Object.entries(spec.thresholdsOf ?? {}))
    builder.overrideByName(legend, [{ id: 'thresholds', value: { mode: 'absolute', steps: stepsOf(bad, false) } }]);
  const mappings = mappingsOf(spec);
  if (mappings.length > 0) builder.mappings(mappings);
  for (const [pattern, fixedColor] of Object.entries(spec.colours ?? {}))
    builder.overrideByRegexp(`/${pattern}/`, [{ id: 'color', value: { mode: 'shades', fixedColor } }]);
  if (spec.leaveOut !== undefined)
    builder.withTransformation({
      id: 'renameByRegex',
      options: { regex: `^(.*?)${spec.leaveOut}(.*)$`, renamePattern: '$1$2' },
    });
  builder.links([
    ...(spec.more === undefined ? [] : [link('More of this', `/d/${spec.more}?${KEPT}`).targetBlank(false)]),
    ...(isAddress(runbooks) ? pages.map(({ alert, page }) => link(`Runbook of ${alert}`, page)) : []),
  ]);
  if (spec.drill !== undefined) builder.dataLinks([link(spec.drill.title, addressOf(spec.drill)).targetBlank(false)]);
  Object.entries(spec.queries).forEach(([legend, expression], index) => {
    const query = new prometheus.DataqueryBuilder()
      .refId(letter(index))
      .datasource(DATA_SOURCE)
      .expr(expression)
      .legendFormat(legend);
    const { kind = 'timeseries' } = spec;
    if (kind === 'heatmap') query.format(prometheus.PromQueryFormat.Heatmap);
    if (kind === 'table') query.format(prometheus.PromQueryFormat.Table);
    // All queries of a panel are of one histogram: its requests are asked for once.
    if (spec.exemplars && index === Object.keys(spec.queries).length - 1) query.exemplar(true);
    builder.withTarget(['stat', 'gauge', 'table'].includes(kind) ? query.instant() : query.range());
  });
  return builder;
}

const letter = (index: number) => String.fromCharCode('A'.charCodeAt(0) + index);

const isGraph = ({ kind = 'timeseries' }: PanelSpec) => kind === 'timeseries' || kind === 'stacked';

const addressOf = ({ dashboard: uid, variables }: Drill) =>
  `/d/${uid}?${[KEPT, ...Object.entries(variables).map(([name, value]) => `var-${name}=${value}`)].join('&')}`;

function thresholds(bad: Bad, graph = false): dashboard.ThresholdsConfigBuilder {
  return new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(stepsOf(bad, graph));
}

/** @param graph where colours are areas behind the lines: the good one is none */
function stepsOf({ warning: given, critical, low }: Bad, graph: boolean): dashboard.Threshold[] {
  const behind = given !== undefined && critical !== undefined && (low ? given <= critical : given >= critical);
  const warning = behind ? undefined : given;
  const good = graph ? 'transparent' : 'green';
  const at = (value: number | null | undefined, color: string) => (value === undefined ? [] : [{ value, color }]);
  // A step's colour holds from its value upwards.
  return low
    ? [
        ...at(null, critical === undefined ? 'yellow' : 'red'),
        ...(warning === undefined ? [] : at(critical, 'yellow')),
        ...at(warning ?? critical, good),
      ]
    : [...at(null, good), ...at(warning, 'yellow'), ...at(critical, 'red')];
}

/** Words for values, and a grey one for no value: without it Grafana writes it in the colour of the lowest values. */
function mappingsOf({ kind, words = {}, empty = 'No data', thresholds: bad }: PanelSpec): dashboard.ValueMapping[] {
  const entries = Object.entries(words).map(([value, word], index) => [value, { text: word, index }]);
  const coloured = (kind === 'stat' || kind === 'gauge') && bad !== undefined;
  return [
    ...(entries.length === 0
      ? []
      : [
          {
            type: dashboard.MappingType.ValueToText as const,
            options: Object.fromEntries(entries) as Record<string, { text: string; index: number }>,
          },
        ]),
    ...(coloured
      ? [
          {
            type: dashboard.MappingType.SpecialValue as const,
            options: {
              match: dashboard.SpecialValueMatch.NullAndNan,
              result: { text: empty, color: 'text', index: entries.length },
            },
          },
        ]
      : []),
  ];
}

/** Grafana's list of what fires now, of the rules in Prometheus and its own; it asks by itself. */
class AlertListBuilder extends dashboard.PanelBuilder {
  constructor() {
    super();
    this.type('alertlist').options({
      viewMode: 'list',
      groupMode: 'default',
      maxItems: 20,
      sortOrder: 1,
      stateFilter: { firing: true, pending: true, noData: true, error: true, normal: false, recovering: true },
      alertInstanceLabelFilter: '{severity!="none"}',
    });
  }
}

type Visualization =
  | timeseries.PanelBuilder
  | stat.PanelBuilder
  | gauge.PanelBuilder
  | heatmap.PanelBuilder
  | table.PanelBuilder
  | text.PanelBuilder
  | AlertListBuilder;

function visualization(spec: PanelSpec): Visualization {
  switch (spec.kind ?? 'timeseries') {
    case 'stat':
      return buildStat(spec);
    case 'gauge':
      return new gauge.PanelBuilder().min(0).max(1).reduceOptions(lastValue());
    case 'heatmap':
      return buildHeatmap(spec);
    case 'table':
      return buildTable(spec);
    case 'text':
      return new text.PanelBuilder().mode(text.TextMode.Markdown).content(spec.content ?? '');
    case 'alerts':
      return new AlertListBuilder();
    case 'stacked':
      return graph(spec).fillOpacity(60).stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));
    case 'timeseries':
      return graph(spec);
  }
}

const lastValue = () => new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false);

/** Narrow panels put their values below each other; the name of the only one is the title. */
function buildStat({ thresholds: bad, queries, width }: PanelSpec): stat.PanelBuilder {
  const [legend = '', ...others] = Object.keys(queries);
  const single = others.length === 0 && !legend.includes('{{');
  return new stat.PanelBuilder()
    .graphMode(common.BigValueGraphMode.None)
    .colorMode(bad === undefined ? common.BigValueColorMode.None : common.BigValueColorMode.Value)
    .textMode(single ? common.BigValueTextMode.Value : common.BigValueTextMode.ValueAndName)
    .orientation(width <= 8 ? common.VizOrientation.Horizontal : common.VizOrientation.Auto)
    .reduceOptions(lastValue());
}

/** Rows are durations, cells requests. */
function buildHeatmap({ unit = '' }: PanelSpec): heatmap.PanelBuilder {
  return new heatmap.PanelBuilder()
    .calculate(false)
    .yAxis(new heatmap.YAxisConfigBuilder().unit(units.Seconds))
    .cellValues(new heatmap.CellValuesBuilder().unit(unit));
}

function buildTable({ columns = [], queries }: PanelSpec): table.PanelBuilder {
  const headings = Object.keys(queries);
  /** Grafana's names of a column: with one query `Value`, with several the letter too. */
  const fields = ({ heading, label }: Column) => {
    if (label !== undefined) return [label];
    const index = headings.indexOf(heading);
    return [...(headings.length > 1 ? [`Value #${letter(index)}`] : []), ...(index === 0 ? ['Value'] : [])];
  };
  const named = columns.flatMap((column) => fields(column).map((field) => [field, column.heading] as const));
  const builder = new table.PanelBuilder();
  if (headings.length > 1) builder.withTransformation({ id: 'merge', options: {} });
  builder
    .withTransformation({ id: 'filterFieldsByName', options: { include: { names: named.map(([field]) => field) } } })
    .withTransformation({
      id: 'organize',
      options: {
        excludeByName: {},
        indexByName: Object.fromEntries(named.map(([field], index) => [field, index])),
        renameByName: Object.fromEntries(named),
      },
    });
  for (const column of columns) builder.overrideByName(column.heading, propertiesOf(column));
  const sorted = columns.find(({ sort }) => sort !== undefined);
  if (sorted !== undefined)
    builder.sortBy([
      new common.TableSortByFieldStateBuilder().displayName(sorted.heading).desc(sorted.sort === 'down'),
    ]);
  return builder;
}

function propertiesOf({
  unit,
  decimals,
  thresholds: bad,
  width,
  drill,
  leaveOut,
}: Column): dashboard.DynamicConfigValue[] {
  const missing = { match: 'null+nan', result: { text: '-', color: 'text', index: 0 } };
  return [
    ...(unit === undefined ? [] : [{ id: 'unit', value: unit }]),
    ...(decimals === undefined ? [] : [{ id: 'decimals', value: decimals }]),
    ...(bad === undefined
      ? []
      : [
          { id: 'thresholds', value: { mode: 'absolute', steps: stepsOf(bad, false) } },
          { id: 'custom.cellOptions', value: { type: 'color-text' } },
          { id: 'mappings', value: [{ type: 'special', options: missing }] },
        ]),
    ...(leaveOut === undefined
      ? []
      : [
          {
            id: 'mappings',
            value: [{ type: 'regex', options: { pattern: `^${leaveOut}(.+)$`, result: { text: '$1', index: 0 } } }],
          },
        ]),
    ...(width === undefined ? [] : [{ id: 'custom.width', value: width }]),
    ...(drill === undefined
      ? []
      : [{ id: 'links', value: [{ title: drill.title, url: addressOf(drill), targetBlank: false }] }]),
  ];
}

/** Where the axis of zeros ends, by unit: else Grafana draws 0 on an axis to 100, which is 10000 % for a share. */
const SOFT_MAX: Readonly<Record<string, number>> = {
  [units.Seconds]: 0.01,
  [units.PercentUnit]: 0.1,
  [units.BytesIEC]: 1_024 ** 2,
  [units.BytesPerSecondSI]: 1_000,
  [units.Short]: 5,
};

/** Up to this share a bound is one of failures, and the axis ends at it. Others are shares of something used. */
const FAILURES = 0.5;

function softMaxOf({ unit = '', softMax, thresholds: bad }: PanelSpec): number {
  const bound = bad?.critical ?? bad?.warning;
  if (softMax !== undefined) return softMax;
  if (unit === units.PercentUnit && bound !== undefined) return bound <= FAILURES ? bound : 1;
  return SOFT_MAX[unit] ?? 1;
}

/** Shares whose low values are bad: what happens, happens at the top. */
const LOW_SHARES_FROM = 0.8;

function graph(spec: PanelSpec): timeseries.PanelBuilder {
  const { unit, thresholds: bad, max } = spec;
  const softMin = spec.softMin ?? (unit === units.PercentUnit && bad?.low ? LOW_SHARES_FROM : undefined);
  const builder = new timeseries.PanelBuilder()
    .lineWidth(1)
    .fillOpacity(10)
    .showPoints(common.VisibilityMode.Never)
    .legend(legend(spec))
    .tooltip(
      new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending),
    );
  if (softMin !== undefined) builder.axisSoftMin(softMin).max(1);
  else {
    builder.min(0).axisSoftMax(softMaxOf(spec));
    if (max !== undefined) builder.max(max);
  }
  return bad === undefined
    ? builder
    : builder.thresholdsStyle(
        new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.DashedAndArea),
      );
}

/** From this width on there is room beside the graph. */
const BESIDE_FROM = 12;

/** Names with their last and highest value, the highest first. */
function legend({ width }: PanelSpec): common.VizLegendOptionsBuilder {
  return new common.VizLegendOptionsBuilder()
    .showLegend(true)
    .displayMode(common.LegendDisplayMode.Table)
    .placement(width >= BESIDE_FROM ? common.LegendPlacement.Right : common.LegendPlacement.Bottom)
    .calcs(['lastNotNull', 'max'])
    .sortBy('Last *')
    .sortDesc(true);
}
