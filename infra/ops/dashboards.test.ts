import { METRICS, type MetricDefinition } from '../../app/telemetry/names';
import { renderDashboards } from './dashboards';
import { RUNTIME_METRICS } from './exporters';

// The rules of Grafana's dashboard linter and some that it lacks, over the JSON of every dashboard.
interface Target {
  readonly expr: string;
  readonly refId: string;
  readonly legendFormat: string;
  readonly datasource: { readonly uid: string };
}
interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly datasource?: { readonly uid: string };
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly fieldConfig: { readonly defaults: { readonly unit?: string } };
  readonly options: { readonly legend?: { readonly showLegend: boolean } };
  readonly targets: readonly Target[];
}
interface Variable {
  readonly name: string;
  readonly type: string;
  readonly label: string;
  readonly query: string | { readonly query: string };
  readonly datasource?: { readonly uid: string };
  readonly multi?: boolean;
  readonly allValue?: string;
  readonly refresh?: number;
}
interface Dashboard {
  readonly uid: string;
  readonly editable: boolean;
  readonly tags: readonly string[];
  readonly description: string;
  readonly panels: readonly Panel[];
  readonly templating: { readonly list: readonly Variable[] };
}

const UNITS = ['s', 'ms', 'reqps', 'ops', 'cps', 'percentunit', 'bytes', 'Bps', 'short', 'none', 'bool_yes_no'];
const files = renderDashboards();
const dashboards = Object.entries(files).map(([name, text]) => [name, JSON.parse(text) as Dashboard] as const);
const panels = dashboards.flatMap(([name, { panels }]) =>
  panels.filter(({ type }) => type !== 'row').map((panel) => [`${name}: ${panel.title}`, panel] as const),
);
const targets = panels.flatMap(([name, { targets }]) =>
  targets.map((target) => [`${name} ${target.refId}`, target] as const),
);
const duplicates = (values: readonly unknown[]) => values.filter((value, index) => values.indexOf(value) !== index);
/** `name{matchers}` of an expression. */
const selectors = (expr: string) =>
  [...expr.matchAll(/([a-z_][a-z0-9_]*)\{([^}]*)\}/g)].map(([, metric = '', matchers = '']) => ({ metric, matchers }));

test('the same program writes the same bytes', () => {
  expect(renderDashboards()).toEqual(files);
  for (const text of Object.values(files)) expect(`${JSON.stringify(JSON.parse(text), null, 2)}\n`).toBe(text);
});

test('dashboards have uids of their own, which are their file names', () => {
  expect(dashboards.map(([, { uid }]) => `${uid}.json`)).toEqual(Object.keys(files));
});

describe.each(dashboards)('%s', (_name, dashboard) => {
  const variables = Object.fromEntries(dashboard.templating.list.map((variable) => [variable.name, variable]));

  test('cannot be edited, and says what it is', () => {
    expect(dashboard).toMatchObject({ editable: false, tags: ['loans', 'generated'] });
    expect(dashboard.description).not.toBe('');
  });

  test('has one data source variable', () => {
    expect(dashboard.templating.list.filter(({ type }) => type === 'datasource')).toMatchObject([
      { name: 'datasource', label: 'Data source', query: 'prometheus' },
    ]);
  });

  test.each(['env', 'job', 'instance'])('has the variable %s', (name) => {
    expect(variables[name]).toMatchObject({
      type: 'query',
      label: `${name.charAt(0).toUpperCase()}${name.slice(1)}`,
      datasource: { uid: '${datasource}' },
      multi: true,
      allValue: '.+',
      refresh: 2,
    });
    expect(variables[name]?.query).toMatchObject({ query: expect.stringMatching(/^label_values\(.+, [a-z]+\)$/) });
  });

  test('has panels with ids of their own that do not overlap or leave the grid', () => {
    expect(duplicates(dashboard.panels.map(({ id }) => id))).toEqual([]);
    const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)},${y + Math.floor(cell / w)}`),
    );
    expect(duplicates(cells)).toEqual([]);
    expect(dashboard.panels.filter(({ gridPos: { x, w } }) => x + w > 24)).toEqual([]);
  });

  test('has rows whose panels fill their lines and have titles of their own', () => {
    const lines = new Map<number, number>();
    for (const { gridPos } of dashboard.panels) lines.set(gridPos.y, (lines.get(gridPos.y) ?? 0) + gridPos.w);
    expect([...lines.values()].filter((width) => width !== 24)).toEqual([]);
    let row = '';
    const titles = dashboard.panels.map(({ type, title }) => `${(row = type === 'row' ? title : row)}: ${title}`);
    expect(duplicates(titles)).toEqual([]);
  });
});

describe.each(panels)('%s', (_name, panel) => {
  test('has title, description, unit and the data source of the variable', () => {
    expect(panel.title.trim()).not.toBe('');
    expect(panel.description ?? '').not.toBe('');
    expect(UNITS).toContain(panel.fieldConfig.defaults.unit);
    expect([panel, ...panel.targets].map(({ datasource }) => datasource?.uid)).toEqual(
      Array(panel.targets.length + 1).fill('${datasource}'),
    );
  });

  test('has queries with letters of their own and a legend', () => {
    expect(panel.targets.map(({ refId }) => refId)).toEqual(
      ['A', 'B', 'C', 'D', 'E', 'F'].slice(0, Math.max(1, panel.targets.length)),
    );
    expect(panel.targets.filter(({ legendFormat }) => legendFormat === '')).toEqual([]);
    expect(duplicates(panel.targets.map(({ legendFormat }) => legendFormat))).toEqual([]);
    if (panel.type === 'timeseries') expect(panel.options.legend?.showLegend).toBe(true);
  });
});

describe.each(targets)('%s', (_name, { expr, legendFormat }) => {
  const metrics = new Map<string, MetricDefinition>(
    Object.values(METRICS).flatMap((metric: MetricDefinition) => {
      const names =
        metric.type === 'histogram' ? ['_bucket', '_count', '_sum'].map((end) => metric.name + end) : [metric.name];
      return names.map((name) => [name, metric] as const);
    }),
  );
  const runtime: readonly string[] = Object.values(RUNTIME_METRICS);

  test('selects by job, instance and env, and only what the API exports', () => {
    expect(selectors(expr)).not.toEqual([]);
    for (const { metric, matchers } of selectors(expr)) {
      for (const name of ['job', 'instance', 'env']) expect(matchers).toContain(`${name}=~"$${name}"`);
      expect(metrics.has(metric) || runtime.includes(metric)).toBe(true);
    }
  });

  test('uses only labels that its metrics have', () => {
    const own = selectors(expr).flatMap(({ metric }) => metrics.get(metric)?.labels ?? ['kind']);
    const known = new Set([...own, 'job', 'instance', 'env', 'le']);
    const matched = selectors(expr).flatMap(({ matchers }) => [...matchers.matchAll(/(\w+)(?:=~|!~|!=|=)/g)]);
    const grouped = [...expr.matchAll(/by \(([^)]*)\)/g)].map(([, labels = '']) => labels.split(', '));
    const shown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)];
    const used = [...matched.map(([, name = '']) => name), ...grouped.flat(), ...shown.map(([, name = '']) => name)];
    expect(used.filter((name) => !known.has(name))).toEqual([]);
  });

  test('uses intervals and counters as Grafana and Prometheus mean them', () => {
    const ranges = [...expr.matchAll(/(\w+)\([^()]*\[([^\]]+)\]/g)].map(([, call, range]) => `${call}[${range}]`);
    const allowed = ['rate[$__rate_interval]', 'increase[$__rate_interval]', 'resets[$__range]'];
    expect(ranges.filter((range) => !allowed.includes(range))).toEqual([]);
    expect(ranges).toHaveLength([...expr.matchAll(/\[/g)].length);
    for (const [position] of [...expr.matchAll(/\w+_total\{/g)].map(({ index }) => [index])) {
      expect(expr.slice(0, position)).toMatch(/(rate|increase|resets)\($/);
    }
  });

  test('divides by nothing that can be zero', () => {
    for (const [, divisor = ''] of expr.matchAll(/ \/ (.*)$/g)) expect(divisor).toMatch(/^\(.* > 0\)$/);
  });
});
