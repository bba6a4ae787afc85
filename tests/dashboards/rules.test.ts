import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { METRICS } from '../../app/telemetry/names';
import { ruleGroups } from '../../infra/ops/alerts';
import { HOME, renderDashboards } from '../../infra/ops/dashboards';
import { JOBS } from '../../infra/ops/exporters';
import { describeUnless } from '../skip';
import { type Dashboard, loadDashboards, OPTIONS, type Panel, queriesOf, type Target } from './model';
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
  expect(files[HOME]).toContain('Loans / Overview');
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
  const pages = join(ROOT, 'docs/runbooks');
  const named = readdirSync(pages).flatMap((page) =>
    [...readFileSync(join(pages, page), 'utf8').matchAll(/\bpanels? ((?:_[^_\n]+_(?:, | and )?)+)/gi)].flatMap(
      ([, list = '']) => [...list.matchAll(/_([^_]+)_/g)].map(([, title = '']) => ({ page, title })),
    ),
  );
  expect(named.length).toBeGreaterThan(20);
  expect(named.filter(({ title }) => !titles.has(title))).toEqual([]);
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
    ['loans-edge', 'Certificate expires in', [7 * 86_400, 21 * 86_400], [5 * 86_400]],
    ['loans-slo', 'Burn rate over an hour', [1, 14.4], [1, 13.44]],
  ])('%s, %s', (uid, title, usual, changed) => {
    const values = (options: typeof OPTIONS) =>
      stepsOf(options, uid, title)
        ?.map(([value]) => value)
        .filter((value) => value !== null);
    expect(values(OPTIONS)).toEqual(usual);
    expect(values(strict)).toEqual(changed);
  });

  test('and the line that pages follows the period', () => {
    const lines = (options: typeof OPTIONS) =>
      queriesOf(loadDashboards(options)).filter(({ expr }) => / \* slo:error_budget:ratio/.test(expr));
    expect(lines(OPTIONS).map(({ expr }) => expr)).toEqual([expect.stringMatching(/^14\.4 /)]);
    expect(lines(strict).map(({ expr }) => expr)).toEqual([expect.stringMatching(/^13\.44 /)]);
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
  const variable = (dashboard: Dashboard, name: string) =>
    dashboard.templating.list.find((variable) => variable.name === name)!;

  const mutants: readonly (readonly [RuleName, string, string, (dashboard: Dashboard) => void])[] = [
    ['template-datasource', 'two', 'loans-api', ({ templating }) => templating.list.push(templating.list[0]!)],
    ['template-datasource', 'other', 'loans-api', (it) => (variable(it, 'datasource').query = 'loki')],
    ['template-variables', 'none', 'loans-api', (it) => void it.templating.list.pop()],
    ['template-form', 'All', 'loans-api', (it) => (variable(it, 'job').allValue = '.*')],
    ['template-form', 'query', 'loans-api', (it) => (variable(it, 'job').query = { query: 'label_values(up{, job)' })],
    ['template-form', 'label', 'loans-api', (it) => (variable(it, 'job').label = 'job')],
    ['template-on-time-change-reload', 'once', 'loans-api', (it) => (variable(it, 'job').refresh = 1)],
    ['panel-datasource', 'fixed', 'loans-api', (it) => (panelOf(it, 'Heap').datasource!.uid = 'prometheus')],
    ['panel-datasource', 'of a query', 'loans-api', (it) => (targetOf(it, 'Heap').datasource!.uid = 'prometheus')],
    ['panel-title-description', 'no text', 'loans-api', (it) => (panelOf(it, 'Heap').description = ' ')],
    ['panel-units', 'none', 'loans-api', (it) => delete panelOf(it, 'Heap').fieldConfig!.defaults.unit],
    ['panel-units', 'unknown', 'loans-api', (it) => (panelOf(it, 'Heap').fieldConfig!.defaults.unit = 'currencyKES')],
    ['panel-no-targets', 'none', 'loans-api', (it) => (panelOf(it, 'Heap').targets = [])],
    ['target-promql', 'bracket', 'loans-api', replace('Heap', /\)$/, '')],
    ['target-rate-interval', 'fixed', 'loans-api', replace('CPU', '$__rate_interval', '5m')],
    ['target-rate-interval', 'range', 'loans-api', replace('CPU', '$__rate_interval', '$__range')],
    ['target-job-instance-env', 'no job', 'loans-api', replace('Heap', 'job=~"$job",', '')],
    ['target-job-instance-env', 'no matchers', 'loans-api', replace('Heap', /\{.*\}/, '')],
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
    ['known-metrics', 'misspelt', 'loans-api', replace('Heap', 'nodejs_heap', 'nodejs_heaps')],
    ['known-metrics', "of another's job", 'loans-postgres', replace('Transactions', 'job="postgres"', 'job="api"')],
    ['known-labels', 'unknown', 'loans-requests', replace('Mean latency by method', /\(method\)/g, '(verb)')],
    ['legend-labels', 'dropped', 'loans-api', (it) => (targetOf(it, 'Requests by replica').legendFormat = '{{route}}')],
    ['divisor', 'zero', 'loans-api', replace('Open files', ' > 0', '')],
    ['amounts-by-currency', 'sum', 'loans-business', replace('Outstanding principal', 'max by (currency)', 'sum')],
    ['links-and-deploys', 'alone', 'loans-api', (it) => void it.links.shift()],
    ['links-and-deploys', 'no deploys', 'loans-api', (it) => (it.annotations.list = [])],
    ['identity', 'no tag', 'loans-api', (it) => (it.tags = [])],
    ['slo-reads-recorded-series', 'raw', 'loans-slo', replace('Objective', /^.*$/, 'up')],
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

describe('runbooks', () => {
  const links = (all: readonly Dashboard[]) =>
    all.flatMap(({ panels }) => panels.flatMap((panel) => panel.links ?? [])).map(({ url }) => url ?? '');

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
    .filter((line) => line.startsWith('| Loans /'))
    .map((line) =>
      line
        .split('|')
        .map((cell) => cell.trim())
        .slice(1, 4),
    );
  expect(rows).toEqual(dashboards.map(({ title, uid, description }) => [title, `\`${uid}\``, description]));
});
