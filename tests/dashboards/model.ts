import { DEFAULT_THRESHOLDS } from '../../infra/ops/alerts';
import { type DashboardOptions, renderDashboards } from '../../infra/ops/dashboards';

import { DEFAULT_OBJECTIVES } from '../../infra/ops/slo';

/** Dashboards as Grafana reads them, as far as tests look at them. */
export interface Target {
  expr: string;
  refId: string;
  legendFormat: string;
  instant?: boolean;
  datasource?: { uid: string };
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
      mappings?: unknown[];
      thresholds?: { steps: { value: number | null; color: string }[] };
    };
  };
  options?: { legend?: { showLegend: boolean } };
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
  refresh?: number;
}
export interface Dashboard {
  uid: string;
  title: string;
  description: string;
  editable: boolean;
  tags: string[];
  links: { type: string; tags: string[]; url?: string }[];
  panels: Panel[];
  templating: { list: Variable[] };
  annotations: { list: { name: string; expr?: string; datasource?: { uid: string } }[] };
}

export const OPTIONS: DashboardOptions = {
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
      const series = typeof query === 'string' ? undefined : /^label_values\((.*), \w+\)$/.exec(query.query)?.[1];
      return series === undefined
        ? []
        : [{ dashboard: uid, panel: `variable ${name}`, refId: name, expr: series, instant: true }];
    }),
    ...annotations.list.flatMap(({ name, expr }) =>
      expr === undefined ? [] : [{ dashboard: uid, panel: `annotation ${name}`, refId: name, expr, instant: false }],
    ),
  ]);
}

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
