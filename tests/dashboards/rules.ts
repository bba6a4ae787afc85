import { METRICS, type MetricDefinition } from '../../app/telemetry/names';
import * as exporters from '../../infra/ops/exporters';
import type { Dashboard, Panel, Target } from './model';
import { type Expression, parseExpression, type Selector } from './promql';

/**
 * What a dashboard must be: the rules of Grafana's dashboard-linter, and some that it lacks. A rule gives a line for
 * each fault; it begins with the title of the panel where the fault is in one.
 */
type Rule = (dashboard: Dashboard) => readonly string[];

const DATA_SOURCE = '${datasource}';

/** Of Grafana's list, those that are used here. */
const UNITS = [
  ...['s', 'ms', 'reqps', 'ops', 'cps', 'percentunit', 'bytes', 'Bps', 'short', 'none', 'bool_yes_no'],
  'dateTimeFromNow',
];

/** Metrics that are no counters although their names end so. */
const GAUGES_IN_TOTAL: readonly string[] = [];

const duplicates = <T>(values: readonly T[]) => values.filter((value, index) => values.indexOf(value) !== index);

const data = ({ panels }: Dashboard) => panels.filter(({ type }) => type !== 'row');
/** Panels that ask by themselves. */
const WITHOUT_QUERY = ['alertlist'];
const targetsOf = (dashboard: Dashboard) =>
  data(dashboard).flatMap((panel) =>
    (panel.targets ?? []).map((target) => ({ panel, target, expression: parseExpression(target.expr) })),
  );

const ofPanels = (fault: (panel: Panel) => string | undefined | false): Rule => {
  return (dashboard) =>
    data(dashboard).flatMap((panel) => {
      const text = fault(panel);
      return text ? [`${panel.title}: ${text}`] : [];
    });
};

const ofTargets = (faults: (expression: Expression, target: Target, panel: Panel) => readonly string[]): Rule => {
  return (dashboard) =>
    targetsOf(dashboard).flatMap(({ panel, target, expression }) =>
      faults(expression, target, panel).map((text) => `${panel.title}: ${target.refId} ${text}`),
    );
};

const ofSelectors = (faults: (selector: Selector) => readonly string[]): Rule =>
  ofTargets(({ selectors }) => selectors.flatMap((selector) => faults(selector)));

export const seriesNames = (definition: MetricDefinition) =>
  definition.type === 'histogram'
    ? ['_bucket', '_count', '_sum'].map((end) => definition.name + end)
    : [definition.name];

/** Series of the API -> what they are. */
const OWN = new Map<string, MetricDefinition>(
  Object.values(METRICS).flatMap((metric: MetricDefinition) => seriesNames(metric).map((name) => [name, metric])),
);

const namesIn = (metrics: Readonly<Record<string, string>>) => Object.values(metrics);
const { JOBS } = exporters;
/** Job -> what its targets export. What every scrape has by itself is in the list of Prometheus. */
const SEAM: Readonly<Record<string, readonly string[]>> = {
  [JOBS.api]: [...OWN.keys(), ...namesIn(exporters.RUNTIME_METRICS)],
  [JOBS.prometheus]: namesIn(exporters.PROMETHEUS_METRICS),
  [JOBS.alertmanager]: namesIn(exporters.ALERTMANAGER_METRICS),
  [JOBS.postgres]: namesIn(exporters.POSTGRES_METRICS),
  [JOBS.nginx]: namesIn(exporters.NGINX_METRICS),
  [JOBS.accessLog]: namesIn(exporters.ACCESS_LOG_METRICS).flatMap((name) => [name, `${name}_bucket`]),
  [JOBS.host]: namesIn(exporters.HOST_METRICS),
  [JOBS.containers]: namesIn(exporters.CONTAINER_METRICS),
  [JOBS.probe]: namesIn(exporters.PROBE_METRICS),
};
const { up, alerts, scrapeDuration, scrapeSamples } = exporters.PROMETHEUS_METRICS;
/** Series that are of no job, or of any. */
const OF_ANY_JOB: readonly string[] = [up, alerts, scrapeDuration, scrapeSamples];
const isRecorded = (metric: string) => metric.startsWith('slo:');

/** Amounts, which are in units of a currency. */
const AMOUNTS: readonly string[] = [METRICS.loansAmount, METRICS.loansOutstanding, METRICS.loanAmountRequested].flatMap(
  seriesNames,
);

export const RULES = {
  'template-datasource': ({ templating }) => {
    const sources = templating.list.filter(({ type }) => type === 'datasource');
    const [source] = sources;
    const good =
      sources.length === 1 &&
      source?.name === 'datasource' &&
      source.label === 'Data source' &&
      source.query === 'prometheus';
    return good ? [] : ['there must be one variable "datasource" of Prometheus, labelled "Data source"'];
  },

  'template-variables': ({ templating }) =>
    ['env', 'job', 'instance']
      .filter((name) => !templating.list.some((variable) => variable.name === name))
      .map((name) => `no variable ${name}`),

  'template-form': ({ templating }) =>
    templating.list
      .filter(({ type }) => type === 'query')
      .flatMap(({ name, label, datasource, multi, allValue, query }) => {
        const text = typeof query === 'string' ? query : query.query;
        const series = /^label_values\((.+), [a-z_]+\)$/.exec(text)?.[1];
        return [
          ...(label === name.charAt(0).toUpperCase() + name.slice(1) ? [] : [`${name}: label ${label}`]),
          ...(datasource?.uid === DATA_SOURCE ? [] : [`${name}: another data source`]),
          ...(multi === true && allValue === '.+' ? [] : [`${name}: not multi with All as .+`]),
          ...(series === undefined || parseExpression(series).fault !== undefined ? [`${name}: ${text}`] : []),
        ];
      }),

  'template-on-time-change-reload': ({ templating }) =>
    templating.list.filter(({ type, refresh }) => type === 'query' && refresh !== 2).map(({ name }) => name),

  'panel-datasource': ofPanels(({ datasource, targets = [] }) => {
    const others = [datasource, ...targets.map((target) => target.datasource)].filter((it) => it?.uid !== DATA_SOURCE);
    return others.length > 0 && 'another data source';
  }),

  'panel-title-description': ofPanels(
    ({ title, description = '' }) => (title.trim() === '' || description.trim() === '') && 'no title or description',
  ),

  'panel-units': ofPanels(({ fieldConfig }) => {
    const unit = fieldConfig?.defaults.unit ?? '';
    return !UNITS.includes(unit) && `unit "${unit}"`;
  }),

  'panel-no-targets': ofPanels(
    ({ type, targets = [] }) => !WITHOUT_QUERY.includes(type) && targets.length === 0 && 'no query',
  ),

  'target-promql': ofTargets(({ fault }) => (fault === undefined ? [] : [`does not parse ${fault}`])),

  'target-rate-interval': ofSelectors(({ metric, within, range }) => {
    if (range === undefined) return [];
    const allowed = ['rate[$__rate_interval]', 'increase[$__rate_interval]', 'increase[$__range]', 'resets[$__range]'];
    const found = `${within ?? ''}[${range}]`;
    return allowed.includes(found) ? [] : [`${found} of ${metric}`];
  }),

  'target-job-instance-env': ofSelectors(({ metric, matchers }) =>
    ['job', 'instance', 'env']
      .filter((name) => !matchers.some((it) => it.label === name && it.operator === '=~' && it.value === `$${name}`))
      .map((name) => `${metric} without ${name}=~"$${name}"`),
  ),

  'target-counter-agg': ofSelectors(({ metric, within = '' }) =>
    metric.endsWith('_total') &&
    !GAUGES_IN_TOTAL.includes(metric) &&
    !['rate', 'irate', 'increase', 'resets', 'count'].includes(within)
      ? [`${metric} without rate or increase`]
      : [],
  ),

  uneditable: ({ editable }) => (editable ? ['can be edited, and the change is lost'] : []),

  'ids-and-letters': (dashboard) => [
    ...duplicates(dashboard.panels.map(({ id }) => id)).map((id) => `id ${id} twice`),
    ...data(dashboard).flatMap(({ title, targets = [] }) =>
      targets
        .filter(({ refId }, index) => refId !== String.fromCharCode('A'.charCodeAt(0) + index))
        .map(({ refId }) => `${title}: query ${refId}`),
    ),
  ],

  grid: ({ panels }) => {
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)},${y + Math.floor(cell / w)}`),
    );
    const lines = new Map<number, number>();
    for (const { gridPos } of panels) lines.set(gridPos.y, (lines.get(gridPos.y) ?? 0) + gridPos.w);
    return [
      ...duplicates(cells).map((cell) => `two panels at ${cell}`),
      ...panels.filter(({ gridPos: { x, w } }) => x + w > 24).map(({ title }) => `${title}: beyond the grid`),
      ...[...lines].filter(([, width]) => width !== 24).map(([y]) => `a line that is not full at ${y}`),
    ];
  },

  'titles-in-a-row': ({ panels }) => {
    let row = '';
    return duplicates(panels.map(({ type, title }) => `${(row = type === 'row' ? title : row)}: ${title}`));
  },

  legend: ofPanels(({ type, targets = [], options }) => {
    const legends = targets.map(({ legendFormat }) => legendFormat);
    if (legends.includes('') || duplicates(legends).length > 0) return 'queries without a legend of their own';
    return type === 'timeseries' && options?.legend?.showLegend !== true && 'hides its legend';
  }),

  'known-metrics': ofSelectors(({ metric, matchers }) => {
    if (OF_ANY_JOB.includes(metric) || isRecorded(metric)) return [];
    const job = matchers.find(({ label, operator }) => label === 'job' && operator === '=')?.value ?? '';
    return SEAM[job]?.includes(metric) ? [] : [`the job "${job}" exports no ${metric}`];
  }),

  'known-labels': ofTargets(({ selectors, grouped }, { legendFormat }) => {
    const metrics = selectors.map(({ metric }) => OWN.get(metric));
    // Whose labels are not ours to know.
    if (metrics.includes(undefined)) return [];
    const known = new Set(['job', 'instance', 'env', 'le', ...metrics.flatMap((metric) => metric?.labels ?? [])]);
    const matched = selectors.flatMap(({ matchers }) => matchers.map(({ label }) => label));
    const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, name = '']) => name);
    return [...matched, ...grouped, ...shown].filter((name) => !known.has(name)).map((name) => `no label ${name}`);
  }),

  // A legend that names a label which the expression has dropped shows nothing.
  'legend-labels': ofTargets(({ aggregations: [outermost] }, { expr, legendFormat }) => {
    if (outermost === undefined || !expr.includes(' by (')) return [];
    const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, name = '']) => name);
    const kept = new Set(parseExpression(expr).grouped);
    return shown.filter((name) => !kept.has(name)).map((name) => `{{${name}}} is not there any more`);
  }),

  divisor: ofTargets(({ divisors }) =>
    divisors
      .filter((divisor) => !/^(\(.* > 0\)|on \(\) .*)$/s.test(divisor))
      .map((divisor) => `may divide by 0: ${divisor}`),
  ),

  // A sum over several is of no currency.
  'amounts-by-currency': ofTargets(({ selectors, aggregations }) =>
    selectors.some(({ metric }) => AMOUNTS.includes(metric))
      ? aggregations.filter(({ by }) => !by.includes('currency')).map(({ text }) => `adds up currencies: ${text}`)
      : [],
  ),

  'links-and-deploys': ({ links, annotations }) => [
    ...(links.some(({ type, tags }) => type === 'dashboards' && tags.includes('loans')) ? [] : ['no other dashboards']),
    ...annotations.list.flatMap(({ name, expr, datasource }) =>
      expr === undefined || parseExpression(expr).fault !== undefined || datasource?.uid !== DATA_SOURCE
        ? [`annotation ${name}`]
        : [],
    ),
    ...(annotations.list.some(({ name }) => name === 'Deploys') ? [] : ['no deploys']),
  ],

  identity: ({ uid, description, tags }) =>
    /^loans-[a-z]+$/.test(uid) && description !== '' && tags.includes('loans') && tags.includes('generated')
      ? []
      : ['wants a uid of its own, a description and its tags'],

  // 30 days of raw series take seconds, and a lot of memory.
  'slo-reads-recorded-series': (dashboard) =>
    dashboard.uid === 'loans-slo'
      ? ofSelectors(({ metric }) => (isRecorded(metric) || metric === alerts ? [] : [metric]))(dashboard)
      : [],
} as const satisfies Record<string, Rule>;

export type RuleName = keyof typeof RULES;

export interface Exception {
  readonly rule: RuleName;
  readonly dashboard: string;
  /** Titles of panels; undefined where the fault is in none. */
  readonly panels?: readonly string[];
  readonly reason: string;
}

const RECORDED = 'recorded series and alerts have no job and no instance';

export const EXCEPTIONS: readonly Exception[] = [
  { rule: 'template-variables', dashboard: 'loans-slo', reason: RECORDED },
  {
    rule: 'target-job-instance-env',
    dashboard: 'loans-slo',
    panels: [
      ...['Objective', 'Reached over the period', 'Error budget remaining', 'Burn rate over an hour'],
      ...['Firing alerts of the objectives', 'Error ratio by window against the budget'],
      ...['Budget remaining over time', 'Requests behind the objective'],
    ],
    reason: RECORDED,
  },
  {
    rule: 'target-job-instance-env',
    dashboard: 'loans-overview',
    panels: ['Error budget remaining', 'Alerts', 'Firing alerts'],
    reason: RECORDED,
  },
  { rule: 'target-job-instance-env', dashboard: 'loans-monitoring', panels: ['Firing alerts'], reason: RECORDED },
];

/** Metrics of the service that no panel shows and no rule watches -> why they are measured all the same. */
export const UNUSED_METRICS: Readonly<Record<string, string>> = {};

export interface Fault {
  readonly rule: RuleName;
  readonly text: string;
  /** The exception that covers it. */
  readonly exception: Exception | undefined;
}

export function faultsOf(dashboard: Dashboard): Fault[] {
  return (Object.keys(RULES) as RuleName[]).flatMap((rule) =>
    RULES[rule](dashboard).map((text) => ({
      rule,
      text,
      exception: EXCEPTIONS.find(
        (it) =>
          it.rule === rule &&
          it.dashboard === dashboard.uid &&
          (it.panels === undefined || it.panels.some((panel) => text.startsWith(`${panel}: `))),
      ),
    })),
  );
}
