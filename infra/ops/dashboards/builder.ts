import * as common from '@grafana/grafana-foundation-sdk/common';
import * as dashboard from '@grafana/grafana-foundation-sdk/dashboard';
import * as gauge from '@grafana/grafana-foundation-sdk/gauge';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import * as prometheus from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import { METRICS } from '../../../app/telemetry/names';
import type { Thresholds } from '../alerts';
import { JOBS, PROMETHEUS_METRICS, RUNTIME_METRICS } from '../exporters';
import { errorBudget, LATENCY_SECONDS, type Objectives } from '../slo';
import type { Job } from './query';

/** What a dashboard is, without what Grafana needs to draw it. */
export interface DashboardSpec {
  /** Stays for good: links and the file's name are made of it. */
  readonly uid: string;
  readonly title: string;
  /** Which questions it answers. */
  readonly description: string;
  /** Values of its variable `job`; none where it reads recorded series only, which have neither job nor instance. */
  readonly jobs: readonly Job[];
  /** Further variables: name -> PromQL and the label whose values are offered. */
  readonly variables?: Readonly<Record<string, { readonly series: string; readonly label: string }>>;
  readonly rows: Readonly<Record<string, readonly PanelSpec[]>>;
}

export interface PanelSpec {
  readonly kind?: 'timeseries' | 'stacked' | 'stat' | 'gauge' | 'heatmap' | 'table' | 'alerts';
  readonly title: string;
  /** What it shows and when to worry: the first thing that is read on call. */
  readonly description: string;
  readonly unit: string;
  /** Width of 24. The widths of a row's lines must add up to 24 each. */
  readonly width: number;
  /** Legend (a template such as {{route}}) -> PromQL. */
  readonly queries: Readonly<Record<string, string>>;
  /**
   * From where on it is yellow, and red; below where, if `low` values are the bad ones. Settings may put yellow behind
   * red: then there is none.
   */
  readonly thresholds?: { readonly warning?: number; readonly critical?: number; readonly low?: true };
  /** Words for values, such as 1 -> up. */
  readonly words?: Readonly<Record<number, string>>;
  /** Alerts whose runbooks say what to do. */
  readonly alerts?: readonly string[];
}

/** What a stack's alerts go by: panels that show the same are coloured by it. */
export interface Bounds {
  readonly thresholds: Thresholds;
  readonly objectives: Objectives;
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

const DATA_SOURCE = { type: 'prometheus', uid: '${datasource}' };
const PANEL_HEIGHT = 8;
const TAG = 'loans';

/* eslint-disable @typescript-eslint/no-deprecated --
   The classic model is what file provisioning reads in every version of Grafana; its successor is not. */
/**
 * A dashboard as Grafana reads it, with what the builders leave out: ids, refIds, legends.
 * @param runbooks where the alerts' pages are read, with a slash at the end. To an address there are links; a path of
 * the repository, which a browser cannot open, is named in the descriptions.
 */
export function build(spec: DashboardSpec, runbooks: string): dashboard.Dashboard {
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
    .link(
      new dashboard.DashboardLinkBuilder('Dashboards')
        .type(dashboard.DashboardLinkType.Dashboards)
        .tags([TAG])
        .asDropdown(true)
        .keepTime(true),
    )
    .withVariable(new dashboard.DatasourceVariableBuilder('datasource').label('Data source').type('prometheus'));
  if (isAddress(runbooks)) builder.link(link('Runbooks', runbooks));
  for (const variable of variablesOf(spec)) builder.withVariable(variable);
  let id = 0;
  for (const [row, panels] of Object.entries(spec.rows)) {
    builder.withRow(new dashboard.RowBuilder(row).id(++id));
    for (const panel of panels) builder.withPanel(buildPanel(panel, ++id, runbooks));
  }
  return builder.build();
}
/* eslint-enable @typescript-eslint/no-deprecated */

function variablesOf({ jobs, variables = {} }: DashboardSpec): dashboard.QueryVariableBuilder[] {
  const { up } = PROMETHEUS_METRICS;
  const own = `env=~"$env",job=~"${jobs.join('|')}"`;
  return [
    variable('env', 'Env', `label_values(${up}, env)`),
    ...(jobs.length === 0
      ? []
      : [
          variable('job', 'Job', `label_values(${up}{${own}}, job)`),
          variable('instance', 'Instance', `label_values(${up}{${own},job=~"$job"}, instance)`),
        ]),
    ...Object.entries(variables).map(([name, { series, label }]) =>
      variable(name, `${name.charAt(0).toUpperCase()}${name.slice(1)}`, `label_values(${series}, ${label})`),
    ),
  ];
}

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

function annotations(): dashboard.AnnotationQueryBuilder[] {
  return [
    new dashboard.AnnotationQueryBuilder()
      .name('Deploys')
      .datasource(DATA_SOURCE)
      .enable(true)
      .iconColor('blue')
      .expr(DEPLOYS)
      .useValueForTime(true)
      // As long as containers of one release take to start one after the other: what is nearer becomes one mark.
      .step('60s')
      .titleFormat('{{version}} {{release}} started')
      .textFormat('{{env}} {{track}} {{commit}}'),
  ];
}

const isAddress = (runbooks: string) => /^https?:/.test(runbooks);

const link = (title: string, url: string) =>
  new dashboard.DashboardLinkBuilder(title).type(dashboard.DashboardLinkType.Link).url(url).targetBlank(true);

function buildPanel(spec: PanelSpec, id: number, runbooks: string): { build: () => dashboard.Panel } {
  const pages = (spec.alerts ?? []).map((alert) => ({ alert, page: `${runbooks}${alert}.md` }));
  const what = isAddress(runbooks) ? [] : pages.map(({ page }) => page);
  const description = [spec.description, ...(what.length > 0 ? [`What to do: ${what.join(', ')}.`] : [])].join(' ');
  const builder = visualization(spec).id(id).title(spec.title).description(description);
  builder.unit(spec.unit).datasource(DATA_SOURCE).span(spec.width).height(PANEL_HEIGHT);
  if (spec.thresholds !== undefined) builder.thresholds(thresholds(spec.thresholds));
  if (spec.words !== undefined) builder.mappings([wordsFor(spec.words)]);
  if (isAddress(runbooks)) builder.links(pages.map(({ alert, page }) => link(`Runbook of ${alert}`, page)));
  Object.entries(spec.queries).forEach(([legend, expression], index) => {
    const query = new prometheus.DataqueryBuilder()
      .refId(String.fromCharCode('A'.charCodeAt(0) + index))
      .datasource(DATA_SOURCE)
      .expr(expression)
      .legendFormat(legend);
    const { kind = 'timeseries' } = spec;
    if (kind === 'heatmap') query.format(prometheus.PromQueryFormat.Heatmap);
    if (kind === 'table') query.format(prometheus.PromQueryFormat.Table);
    builder.withTarget(['stat', 'gauge', 'table'].includes(kind) ? query.instant() : query.range());
  });
  return builder;
}

function thresholds({
  warning: given,
  critical,
  low,
}: NonNullable<PanelSpec['thresholds']>): dashboard.ThresholdsConfigBuilder {
  const behind = given !== undefined && critical !== undefined && (low ? given <= critical : given >= critical);
  const warning = behind ? undefined : given;
  const at = (value: number | null | undefined, color: string) => (value === undefined ? [] : [{ value, color }]);
  // A step's colour holds from its value upwards.
  const steps = low
    ? [
        ...at(null, critical === undefined ? 'yellow' : 'red'),
        ...(warning === undefined ? [] : at(critical, 'yellow')),
        ...at(warning ?? critical, 'green'),
      ]
    : [...at(null, 'green'), ...at(warning, 'yellow'), ...at(critical, 'red')];
  return new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps);
}

function wordsFor(words: Readonly<Record<number, string>>): dashboard.ValueMapping {
  return {
    type: dashboard.MappingType.ValueToText,
    options: Object.fromEntries(Object.entries(words).map(([value, text], index) => [value, { text, index }])),
  };
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
  | AlertListBuilder;

function visualization({ kind = 'timeseries', thresholds }: PanelSpec): Visualization {
  switch (kind) {
    case 'stat':
      return new stat.PanelBuilder()
        .graphMode(common.BigValueGraphMode.None)
        .colorMode(thresholds === undefined ? common.BigValueColorMode.None : common.BigValueColorMode.Value)
        .textMode(common.BigValueTextMode.ValueAndName)
        .reduceOptions(lastValue());
    case 'gauge':
      return new gauge.PanelBuilder().min(0).max(1).reduceOptions(lastValue());
    case 'heatmap':
      return new heatmap.PanelBuilder().calculate(false);
    case 'table':
      return new table.PanelBuilder().withTransformation({
        id: 'organize',
        options: { excludeByName: { Time: true, __name__: true, job: true }, indexByName: {}, renameByName: {} },
      });
    case 'alerts':
      return new AlertListBuilder();
    case 'stacked':
      return graph().fillOpacity(60).stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal));
    case 'timeseries':
      return thresholds === undefined
        ? graph()
        : graph().thresholdsStyle(
            new common.GraphThresholdsStyleConfigBuilder().mode(common.GraphThresholdsStyleMode.Dashed),
          );
  }
}

const lastValue = () => new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']).fields('').values(false);

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
