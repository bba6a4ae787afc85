import { DEFAULT_THRESHOLDS } from '../../infra/ops/alerts';
import { type DashboardOptions, renderDashboards } from '../../infra/ops/dashboards';

import { DEFAULT_OBJECTIVES } from '../../infra/ops/slo';

/** Dashboards as Grafana reads them, as far as tests look at them. */
export interface Target {
  expr: string;
  refId: string;
  legendFormat: string;
  instant?: boolean;
  exemplar?: boolean;
  datasource?: { uid: string };
}
export interface Step {
  value: number | null;
  color: string;
}
export interface Panel {
  id: number;
  type: string;
  title: string;
  description?: string;
  datasource?: { uid: string };
  gridPos: { x: number; y: number; w: number; h: number };
  fieldConfig?: {
    defaults: {
      unit?: string;
      decimals?: number;
      min?: number;
      max?: number;
      noValue?: string;
      mappings?: { type: string; options: { match?: string; result?: { text: string; color?: string } } }[];
      thresholds?: { steps: Step[] };
      custom?: {
        axisSoftMin?: number;
        axisSoftMax?: number;
        thresholdsStyle?: { mode: string };
        stacking?: { mode: string };
      };
    };
    overrides: { matcher: { id: string; options: string }; properties: { id: string; value: unknown }[] }[];
  };
  options?: {
    legend?: {
      showLegend: boolean;
      displayMode: string;
      placement: string;
      calcs: string[];
      sortBy?: string;
      sortDesc?: boolean;
    };
    textMode?: string;
    orientation?: string;
    yAxis?: { unit?: string };
    cellValues?: { unit?: string };
    content?: string;
  };
  transformations?: { id: string; options: Record<string, unknown> }[];
  links?: { url?: string }[];
  targets?: Target[];
}
export interface Variable {
  name: string;
  type: string;
  label: string;
  query: string | { query: string };
  datasource?: { uid: string };
  multi?: boolean;
  allValue?: string;
  regex?: string;
  refresh?: number;
}
export interface Dashboard {
  uid: string;
  title: string;
  description: string;
  editable: boolean;
  tags: string[];
  links: {
    title: string;
    type: string;
    tags: string[];
    url?: string;
    asDropdown: boolean;
    keepTime: boolean;
    includeVars: boolean;
  }[];
  panels: Panel[];
  templating: { list: Variable[] };
  annotations: { list: { name: string; expr?: string; datasource?: { uid: string } }[] };
}

export const OPTIONS: DashboardOptions = {
  url: 'https://loans.example/',
  prefix: 'branchloans-staging',
  runbooks: 'https://wiki.example/runbooks/',
  connectionsPerContainer: 10,
  thresholds: DEFAULT_THRESHOLDS,
  objectives: DEFAULT_OBJECTIVES,
};

export function loadDashboards(options = OPTIONS): Dashboard[] {
  return Object.values(renderDashboards(options)).map((text) => JSON.parse(text) as Dashboard);
}

/** A question that a dashboard asks Prometheus, with Grafana's variables in it. */
export interface Query {
  readonly dashboard: string;
  /** Of the panel; of a variable or an annotation what it is. */
  readonly panel: string;
  readonly refId: string;
  readonly expr: string;
  /** Asked for one moment, else for the range of the dashboard. */
  readonly instant: boolean;
}

/** All that they ask, for variables and annotations too. */
export function queriesOf(dashboards: readonly Dashboard[]): Query[] {
  return dashboards.flatMap(({ uid, panels, templating, annotations }) => [
    ...panels.flatMap(({ title, targets = [] }) =>
      targets.map(({ refId, expr, instant = false }) => ({ dashboard: uid, panel: title, refId, expr, instant })),
    ),
    ...templating.list.flatMap(({ name, query }) => {
      const series = typeof query === 'string' ? undefined : seriesOfVariable(query.query);
      return series === undefined
        ? []
        : [{ dashboard: uid, panel: `variable ${name}`, refId: name, expr: series, instant: true }];
    }),
    ...annotations.list.flatMap(({ name, expr }) =>
      expr === undefined ? [] : [{ dashboard: uid, panel: `annotation ${name}`, refId: name, expr, instant: false }],
    ),
  ]);
}

/** The series whose labels a drop-down offers; undefined of another form. */
export const seriesOfVariable = (query: string) =>
  (/^label_values\((.+), [a-z_]+\)$/.exec(query) ?? /^query_result\((.+)\)$/.exec(query))?.[1];

export interface Values {
  /** `$__rate_interval` and `$__range`, such as 1m. */
  readonly rateInterval: string;
  readonly range: string;
  /** `$__interval`, the step; if not given the same as `$__rate_interval`. */
  readonly interval?: string;
  /** What every variable of the dashboard stands for; `.+` is `All`. */
  readonly variable?: string;
}

/** What Grafana asks in the end. */
export function substitute(
  expr: string,
  { rateInterval, range, interval = rateInterval, variable = '.+' }: Values,
): string {
  return expr
    .replaceAll('$__rate_interval', rateInterval)
    .replaceAll('$__interval', interval)
    .replaceAll('$__range', range)
    .replace(/\$\{?\w+\}?/g, variable);
}
