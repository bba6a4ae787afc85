import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { METRICS } from '../../app/telemetry/names';
import { ruleGroups } from '../../infra/ops/alerts';
import { HOME_PATH, renderDashboards } from '../../infra/ops/dashboards';
import { JOBS } from '../../infra/ops/exporters';
import { describeUnless } from '../skip';
import { type Dashboard, loadDashboards, OPTIONS, type Panel, type Target } from './model';
import { parseExpression } from './promql';
import { EXCEPTIONS, faultsOf, type RuleName, RULES, seriesNames, UNUSED_METRICS } from './rules';

/** The rules hold for every dashboard, and each of them finds what it is for. */

const ROOT = resolve(__dirname, '../..');
const files = renderDashboards(OPTIONS);
const dashboards = loadDashboards();

test('the same program writes the same bytes', () => {
  expect(renderDashboards(OPTIONS)).toEqual(files);
  for (const text of Object.values(files)) expect(`${JSON.stringify(JSON.parse(text))}\n`).toBe(text);
});

test('dashboards have uids and titles of their own; files are named by the uid, and one of them is the home', () => {
  expect(dashboards.map(({ uid }) => `${uid}.json`)).toEqual(Object.keys(files));
  expect(new Set(dashboards.map(({ title }) => title)).size).toBe(dashboards.length);
  expect(dashboards[0]).toMatchObject({ title: 'Overview', uid: HOME_PATH.replace('/d/', '') });
});

test.each(dashboards.map((dashboard) => [dashboard.title, dashboard] as const))(
  '%s keeps the rules',
  (_, dashboard) => {
    const faults = faultsOf(dashboard).filter(({ exception }) => exception === undefined);
    expect(faults.map(({ rule, text }) => `${rule}: ${text}`)).toEqual([]);
  },
);

test('panels that the pages of alerts send people to are there', () => {
  const titles = new Set(dashboards.flatMap(({ panels }) => panels.map(({ title }) => title)));
  const pages = ['docs', 'docs/runbooks'].flatMap((folder) =>
    readdirSync(join(ROOT, folder))
      .filter((name) => name.endsWith('.md'))
      .map((name) => join(folder, name)),
  );
  const named = pages.flatMap((page) =>
    [...readFileSync(join(ROOT, page), 'utf8').matchAll(/\bpanels? ((?:_[^_\n]+_(?:, | and )?)+)/gi)].flatMap(
      ([, list = '']) => [...list.matchAll(/_([^_]+)_/g)].map(([, title = '']) => ({ page, title })),
    ),
  );
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter(({ title }) => !titles.has(title))).toEqual([]);
});

test('docs/DASHBOARDS.md names dashboards, rows and panels that are there', () => {
  const text = readFileSync(join(ROOT, 'docs/DASHBOARDS.md'), 'utf8');
  const titles = dashboards.flatMap(({ title, panels }) => [title, ...panels.map((panel) => panel.title)]);
  const named = [...text.matchAll(/(?<![\w`])_([^_`]+)_(?![\w`])/g)].map(([, title = '']) =>
    title.replace(/\s+/g, ' '),
  );
  expect(named.length).toBeGreaterThan(8);
  expect(named.filter((title) => !titles.includes(title))).toEqual([]);
});

test('docs/DASHBOARDS.md says what panels say when their source is well and has nothing to show', () => {
  const [, section = ''] = readFileSync(join(ROOT, 'docs/DASHBOARDS.md'), 'utf8').split('## Empty panels');
  const texts = dashboards.flatMap(({ panels }) =>
    panels.flatMap((panel) => panel.fieldConfig?.defaults.noValue ?? []),
  );
  expect([...new Set(texts)].filter((text) => !section.includes(`"${text}"`))).toEqual([]);
});

test('every exception has a reason and is needed', () => {
  const used = new Set(dashboards.flatMap(faultsOf).map(({ exception }) => exception));
  expect(EXCEPTIONS.filter((exception) => !used.has(exception) || exception.reason === '')).toEqual([]);
  const texts = dashboards.flatMap((dashboard) => faultsOf(dashboard).map(({ text }) => `${dashboard.uid} ${text}`));
  const panels = EXCEPTIONS.flatMap(({ dashboard, panels = [] }) => panels.map((panel) => `${dashboard} ${panel}: `));
  expect(panels.filter((panel) => !texts.some((text) => text.startsWith(panel)))).toEqual([]);
});

test('every metric of the service is in a panel or a rule, or says why not', () => {
  const environment = { environment: 'staging', url: '', runbooks: '', prefix: 'bl', replicas: 2, busy: true };
  const rules = ruleGroups({ ...environment, jobs: new Set(Object.values(JOBS)) }).flatMap((group) => group.rules);
  const panels = dashboards.flatMap((dashboard) => dashboard.panels.flatMap(({ targets = [] }) => targets));
  const used = new Set(
    [...panels, ...rules].flatMap(({ expr }) => parseExpression(expr).selectors.map(({ metric }) => metric)),
  );
  const unused = Object.values(METRICS).filter((metric) => !seriesNames(metric).some((name) => used.has(name)));
  expect(unused.map(({ name }) => name)).toEqual(Object.keys(UNUSED_METRICS));
});

describe("colours are those of the stack's alerts and objectives", () => {
  const stepsOf = (options: typeof OPTIONS, uid: string, title: string) =>
    loadDashboards(options)
      .find((dashboard) => dashboard.uid === uid)!
      .panels.find((panel) => panel.title === title)!
      .fieldConfig?.defaults.thresholds?.steps.map(({ value, color }) => [value, color]);
  const strict: typeof OPTIONS = {
    ...OPTIONS,
    thresholds: {
      ...{ errorPercent: 2, errorsPerMinute: 1, p95Seconds: 0.5, healthPercent: 99, connectionsPercent: 60 },
      certificateDays: 5,
    },
    objectives: {
      periodDays: 7,
      objectives: { availability: 0.99, success: 0.97, latency: 0.96, freshness: 0.99 },
    },
  };

  test.each([
    ['loans-requests', 'Error ratio', [0.01, 0.05], [0.02]],
    ['loans-api', 'Error ratio by replica', [0.01, 0.05], [0.02]],
    ['loans-overview', 'Latency', [0.2, 1], [0.2, 0.5]],
    ['loans-requests', 'Share within 200 ms', [0.95, 0.975], [0.96, 0.98]],
    ['loans-overview', 'Connections used', [0.8, 0.97], [0.6, 0.97]],
    // A complaint that is no earlier than the page has no colour of its own.
    ['loans-edge', 'Certificate expires in', [7, 21], [5]],
    ['loans-slo', 'Burn rate over 1h', [1, 14.4], [1, 13.44]],
    ['loans-slo', 'Burn rate over 1d', [3], [1.4]],
  ])('%s, %s', (uid, title, usual, changed) => {
    const values = (options: typeof OPTIONS) =>
      stepsOf(options, uid, title)
        ?.map(([value]) => value)
        .filter((value) => value !== null);
    expect(values(OPTIONS)).toEqual(usual);
    expect(values(strict)).toEqual(changed);
  });
});

describe('a rule finds what it is for', () => {
  const panelOf = (dashboard: Dashboard, title: string): Panel => {
    const panel = dashboard.panels.find((it) => it.title === title);
    if (panel === undefined) throw new Error(`no panel ${title}`);
    return panel;
  };
  const targetOf = (dashboard: Dashboard, title: string): Target => panelOf(dashboard, title).targets![0]!;
  const replace = (title: string, from: string | RegExp, to: string) => (dashboard: Dashboard) => {
    const target = targetOf(dashboard, title);
    const changed = target.expr.replace(from, to);
    expect(changed).not.toBe(target.expr);
    target.expr = changed;
  };
  const override = (dashboard: Dashboard, title: string, name: string) =>
    panelOf(dashboard, title).fieldConfig!.overrides.find(({ matcher }) => matcher.options === name)!;
  const without = (title: string, name: string, property: string) => (dashboard: Dashboard) => {
    const found = override(dashboard, title, name);
    const left = found.properties.filter(({ id }) => id !== property);
    expect(left.length).toBeLessThan(found.properties.length);
    found.properties = left;
  };
  const defaults = (dashboard: Dashboard, title: string) => panelOf(dashboard, title).fieldConfig!.defaults;
  const variable = (dashboard: Dashboard, name: string) =>
    dashboard.templating.list.find((variable) => variable.name === name)!;

  const mutants: readonly (readonly [RuleName, string, string, (dashboard: Dashboard) => void])[] = [
    ['template-datasource', 'two', 'loans-api', ({ templating }) => templating.list.push(templating.list[0]!)],
    ['template-datasource', 'other', 'loans-api', (it) => (variable(it, 'datasource').query = 'loki')],
    ['template-variables', 'none', 'loans-api', (it) => void it.templating.list.pop()],
    ['template-variables', 'job', 'loans-api', (it) => (variable(it, 'track').name = 'job')],
    [
      'template-variables',
      'of other panels',
      'loans-overview',
      (it) => it.templating.list.push({ ...variable(it, 'env'), name: 'instance', label: 'Replica' }),
    ],
    ['template-form', 'All', 'loans-api', (it) => (variable(it, 'track').allValue = '.*')],
    [
      'template-form',
      'query',
      'loans-api',
      (it) => (variable(it, 'track').query = { query: 'label_values(x{, track)' }),
    ],
    ['template-form', 'label', 'loans-api', (it) => (variable(it, 'track').label = 'track')],
    ['template-form', 'lower case', 'loans-slo', (it) => (variable(it, 'slo').label = 'Slo')],
    ['template-form', 'no regex', 'loans-resources', (it) => delete variable(it, 'container').regex],
    [
      'template-form',
      'addresses',
      'loans-api',
      (it) => (variable(it, 'instance').query = { query: 'label_values(up{job="api",env=~"$env"}, instance)' }),
    ],
    ['template-on-time-change-reload', 'once', 'loans-api', (it) => (variable(it, 'track').refresh = 1)],
    ['panel-datasource', 'fixed', 'loans-api', (it) => (panelOf(it, 'Heap').datasource!.uid = 'prometheus')],
    ['panel-datasource', 'of a query', 'loans-api', (it) => (targetOf(it, 'Heap').datasource!.uid = 'prometheus')],
    ['panel-title-description', 'no text', 'loans-api', (it) => (panelOf(it, 'Heap').description = ' ')],
    ['panel-units', 'none', 'loans-api', (it) => delete panelOf(it, 'Heap').fieldConfig!.defaults.unit],
    ['panel-units', 'unknown', 'loans-api', (it) => (panelOf(it, 'Heap').fieldConfig!.defaults.unit = 'currencyKES')],
    ['table-units', 'of all columns', 'loans-resources', (it) => (defaults(it, 'Container uptime').unit = 'ops')],
    ['table-units', 'of none', 'loans-postgres', without('Statements', 'Calls', 'unit')],
    ['table-columns', 'all', 'loans-api', (it) => void panelOf(it, 'Version running').transformations!.shift()],
    [
      'table-columns',
      'no order',
      'loans-api',
      (it) => (panelOf(it, 'Version running').transformations!.at(-1)!.options['indexByName'] = {}),
    ],
    ['axis', 'open', 'loans-requests', (it) => delete defaults(it, 'Error ratio').custom!.axisSoftMax],
    ['axis', '10000 %', 'loans-requests', (it) => (defaults(it, 'Error ratio').custom!.axisSoftMax = 100)],
    ['axis', 'from 0', 'loans-postgres', (it) => (defaults(it, 'Cache hit ratio').custom!.axisSoftMin = 0)],
    ['stacked-shares', '120 %', 'loans-resources', (it) => delete defaults(it, 'CPU by mode').max],
    ['decimals', "Grafana's", 'loans-slo', (it) => delete defaults(it, 'Error budget remaining').decimals],
    ['decimals', 'of a column', 'loans-slo', without('Objectives', 'Reached', 'decimals')],
    ['decimals', 'of failures', 'loans-requests', (it) => delete defaults(it, 'Error ratio').decimals],
    ['no-value', 'ratio', 'loans-requests', (it) => delete defaults(it, 'Error ratio').noValue],
    ['no-value', 'quantile', 'loans-business', (it) => delete defaults(it, 'Time to decision').noValue],
    ['no-value', 'alerts', 'loans-slo', (it) => delete defaults(it, 'Firing alerts of the objectives').noValue],
    ['no-data-colour', 'green', 'loans-postgres', (it) => (defaults(it, 'Connections used').mappings = [])],
    ['no-data-colour', 'of a column', 'loans-requests', without('Routes', 'p95', 'mappings')],
    ['status-colours', 'by order', 'loans-requests', without('Responses by status', '/^5/', 'color')],
    ['severity-colours', 'yellow', 'loans-overview', without('Alerts', 'critical', 'thresholds')],
    [
      'threshold-areas',
      'line',
      'loans-api',
      (it) => (defaults(it, 'Garbage collection').custom!.thresholdsStyle!.mode = 'dashed'),
    ],
    [
      'threshold-areas',
      'green',
      'loans-api',
      (it) => (defaults(it, 'Garbage collection').thresholds!.steps[0]!.color = 'green'),
    ],
    [
      'threshold-areas',
      'all',
      'loans-requests',
      (it) => (defaults(it, 'Error ratio').thresholds!.steps[1]!.value = 0.001),
    ],
    [
      'threshold-areas',
      'below 1',
      'loans-postgres',
      (it) => (defaults(it, 'Cache hit ratio').thresholds!.steps[2]!.value = 1),
    ],
    ['heatmap', 'none', 'loans-requests', (it) => delete panelOf(it, 'Latency distribution').options!.yAxis!.unit],
    [
      'stat-layout',
      'title twice',
      'loans-edge',
      (it) => (panelOf(it, 'Certificate expires in').options!.textMode = 'value_and_name'),
    ],
    ['stat-layout', 'stretched', 'loans-edge', (it) => (panelOf(it, 'Reachable').options!.orientation = 'auto')],
    ['amount-units', 'none', 'loans-business', (it) => (defaults(it, 'Outstanding principal').unit = 'none')],
    ['panel-no-targets', 'none', 'loans-api', (it) => (panelOf(it, 'Heap').targets = [])],
    ['target-promql', 'bracket', 'loans-api', replace('Heap', /\)$/, '')],
    ['target-rate-interval', 'fixed', 'loans-api', replace('CPU', '$__rate_interval', '5m')],
    ['target-rate-interval', 'range', 'loans-api', replace('CPU', '$__rate_interval', '$__range')],
    ['target-rate-interval', 'in a step', 'loans-business', replace('Loans created', 'rate(', 'increase(')],
    [
      'target-rate-interval',
      'range of a graph',
      'loans-business',
      replace('Loans created', /rate\((.*)\[.*\]/, 'increase($1[$$__range]'),
    ],
    ['whole-counts', 'parts', 'loans-requests', replace('Routes', /^round/, '')],
    ['target-env', 'no matchers', 'loans-api', replace('Heap', /\{.*\}/, '')],
    ['target-replica', 'of all', 'loans-api', replace('Heap', ',instance=~"$instance"', '')],
    ['target-replica', 'another job', 'loans-postgres', replace('WAL size', 'env=', 'instance=~"$instance",env=')],
    ['own-containers', 'of any', 'loans-resources', replace('CPU throttling', ',name=~"branchloans-staging-.+"', '')],
    ['target-counter-agg', 'raw', 'loans-api', replace('CPU', /rate\((.*)\[.*\]\)/, '$1')],
    ['uneditable', 'open', 'loans-api', (it) => (it.editable = true)],
    ['ids-and-letters', 'id', 'loans-api', (it) => (it.panels[2]!.id = it.panels[1]!.id)],
    ['ids-and-letters', 'letter', 'loans-api', (it) => (targetOf(it, 'Heap').refId = 'B')],
    ['grid', 'overlap', 'loans-api', (it) => (it.panels[2]!.gridPos.x = 0)],
    ['grid', 'beyond', 'loans-api', (it) => (panelOf(it, 'Open files').gridPos.w = 13)],
    ['grid', 'not full', 'loans-api', (it) => (panelOf(it, 'Open files').gridPos.w = 11)],
    ['titles-in-a-row', 'twice', 'loans-api', (it) => (panelOf(it, 'Heap').title = 'CPU')],
    ['legend', 'hidden', 'loans-api', (it) => (panelOf(it, 'Heap').options!.legend!.showLegend = false)],
    ['legend', 'none', 'loans-api', (it) => (targetOf(it, 'Heap').legendFormat = '')],
    ['legend', 'list', 'loans-api', (it) => (panelOf(it, 'Heap').options!.legend!.displayMode = 'list')],
    ['legend', 'no figures', 'loans-api', (it) => (panelOf(it, 'Heap').options!.legend!.calcs = [])],
    ['legend', 'no order', 'loans-api', (it) => delete panelOf(it, 'Heap').options!.legend!.sortBy],
    ['legend', 'below', 'loans-api', (it) => (panelOf(it, 'Heap').options!.legend!.placement = 'bottom')],
    ['legend', 'no room', 'loans-api', (it) => (panelOf(it, 'Heap').gridPos.w = 8)],
    ['legend-prefix', 'repeated', 'loans-api', (it) => (panelOf(it, 'Heap').transformations = [])],
    ['legend-prefix', 'in a column', 'loans-resources', without('Container uptime', 'Container', 'mappings')],
    ['known-metrics', 'misspelt', 'loans-api', replace('Heap', 'nodejs_heap', 'nodejs_heaps')],
    ['known-metrics', "of another's job", 'loans-postgres', replace('Transactions', 'job="postgres"', 'job="api"')],
    ['known-labels', 'unknown', 'loans-requests', replace('Mean latency by method', /\(method\)/g, '(verb)')],
    ['legend-labels', 'dropped', 'loans-api', (it) => (targetOf(it, 'Requests by replica').legendFormat = '{{route}}')],
    ['divisor', 'zero', 'loans-api', replace('Open files', ' > 0', '')],
    ['amounts-by-currency', 'sum', 'loans-business', replace('Outstanding principal', 'max by (currency)', 'sum')],
    ['links-and-marks', 'no overview', 'loans-api', (it) => void it.links.shift()],
    ['links-and-marks', 'forgets', 'loans-api', (it) => (it.links[1]!.includeVars = false)],
    ['links-and-marks', 'no Prometheus', 'loans-api', (it) => void it.links.splice(3, 1)],
    ['links-and-marks', 'hidden', 'loans-api', (it) => Object.assign(it.links[1]!, { placement: 'inControlsMenu' })],
    ['links-and-marks', 'no marks', 'loans-api', (it) => void it.annotations.list.pop()],
    ['wording', 'strange', 'loans-api', (it) => (panelOf(it, 'Heap').description = 'Nobody waits.')],
    ['identity', 'folder twice', 'loans-api', (it) => (it.title = 'Loans / API')],
    ['identity', 'no tag', 'loans-api', (it) => (it.tags = [])],
    ['slo-reads-recorded-series', 'raw', 'loans-slo', replace('Objectives', /^.*$/, 'up')],
  ];

  test.each(mutants)('%s: %s', (rule, _name, uid, change) => {
    const mutant = structuredClone(dashboards.find((dashboard) => dashboard.uid === uid)!);
    expect(faultsOf(mutant).filter((fault) => fault.rule === rule && fault.exception === undefined)).toEqual([]);
    change(mutant);
    const found = faultsOf(mutant).filter(({ exception }) => exception === undefined);
    expect(found.map((fault) => fault.rule)).toContain(rule);
  });

  test('and all of them are shown to', () => {
    expect([...new Set(mutants.map(([rule]) => rule))].sort()).toEqual(Object.keys(RULES).sort());
  });
});

test('links to other dashboards lead to dashboards, and set variables that they have', () => {
  const urls = [...JSON.stringify(dashboards).matchAll(/"\/d\/([a-z-]+)(?:\?([^"]*))?"/g)];
  expect(urls.length).toBeGreaterThan(20);
  for (const [, uid, parameters = ''] of urls) {
    const found = dashboards.find((dashboard) => dashboard.uid === uid);
    const names = found?.templating.list.map(({ name }) => name);
    const set = [...parameters.matchAll(/var-(\w+)=/g)].map(([, name]) => name);
    expect([uid, found !== undefined, set.filter((name) => !names?.includes(name!))]).toEqual([uid, true, []]);
  }
});

describe('runbooks', () => {
  const links = (all: readonly Dashboard[]) =>
    all
      .flatMap(({ panels }) => panels.flatMap((panel) => panel.links ?? []))
      .map(({ url }) => url ?? '')
      // Others lead to dashboards.
      .filter((url) => !url.startsWith('/d/'));

  test('are links where they have an address', () => {
    expect(links(dashboards)).toContain('https://wiki.example/runbooks/ApiDown.md');
    expect(dashboards[0]!.links).toContainEqual(expect.objectContaining({ url: 'https://wiki.example/runbooks/' }));
  });

  test('are named in the descriptions where they are files of the repository, which no browser can open', () => {
    const local = loadDashboards({ ...OPTIONS, runbooks: 'docs/runbooks/' });
    expect(links(local)).toEqual([]);
    const descriptions = local.flatMap(({ panels }) => panels.map(({ description }) => description));
    expect(descriptions).toContainEqual(expect.stringMatching(/What to do: docs\/runbooks\/ApiDown\.md/));
  });

  const directory = join(ROOT, 'docs/runbooks');
  describeUnless(
    existsSync(join(directory, 'README.md')) ? undefined : 'there is no docs/runbooks',
    'in the repository',
    () => {
      test('are there for every link', () => {
        const names = links(dashboards)
          .map((url) => url.split('/').pop() ?? '')
          .filter((name) => name !== '');
        expect(names.filter((name) => !existsSync(join(directory, name)))).toEqual([]);
      });
    },
  );
});

test('docs/DASHBOARDS.md lists them all, with the question that each answers', () => {
  const rows = readFileSync(join(ROOT, 'docs/DASHBOARDS.md'), 'utf8')
    .split('\n')
    .filter((line) => /^\| .* `loans-/.test(line))
    .map((line) =>
      line
        .split('|')
        .map((cell) => cell.trim())
        .slice(1, 4),
    );
  expect(rows).toEqual(dashboards.map(({ title, uid, description }) => [title, `\`${uid}\``, description]));
});
