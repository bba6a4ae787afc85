import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { METRICS } from '../../app/telemetry/names';
import { ruleGroups } from '../../infra/ops/alerts';
import { JOBS } from '../../infra/ops/exporters';
import { findProgram } from '../ops/binaries';
import { describeUnless } from '../skip';
import { CASES, INTERVALS, NEVER_SILENT } from './cases';
import { alertsOf, GROUPS, OPTIONS, ruleFileOf, testFileOf, textOf } from './promtool';

/** The rules as Prometheus reads and evaluates them; what is promised about every one of them. */

/** The one alert that Grafana raises itself (infra/ops/grafana.ts). */
const GRAFANAS_OWN = 'PrometheusUnreachable';
const RUNBOOKS = resolve(__dirname, '../../docs/runbooks');
const promtool = findProgram('prometheus', 'promtool', '--version', '2.42.0');
const NO_PROMTOOL = promtool === undefined ? 'no image and no promtool >= 2.42' : undefined;

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'alerts-'));
  chmodSync(directory, 0o755);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const write = (name: string, text: string) => writeFileSync(join(directory, name), text, { mode: 0o644 });

/** promtool's tests of a file, with the rules of some groups beside it. */
function runTests(groups: readonly string[], name: string, text: string): void {
  for (const group of groups) {
    write(`${group}.rules.yml`, ruleFileOf(GROUPS.filter((each) => each.name === group)));
  }
  write(name, text);
  const { status, output } = promtool!.run(directory, ['test', 'rules', join(directory, name)]);
  expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining('SUCCESS') });
}

describe('every alert', () => {
  const alerts = alertsOf(GROUPS);

  it('has a severity, a summary, a description, a page and a dashboard', () => {
    for (const alert of alerts) {
      expect(alert).toMatchObject({
        severity: expect.stringMatching(/^(critical|warning|info|none)$/),
        summary: expect.stringMatching(/^.{10,110}$/),
        description: expect.stringMatching(/^.{10,300}$/),
        dashboard: expect.stringMatching(/^loans-[a-z]+$/),
      });
    }
  });

  it('and each page belongs to an alert', () => {
    const names = [...new Set(alerts.map(({ alert }) => alert)), GRAFANAS_OWN].sort();
    const pages = readdirSync(RUNBOOKS).filter((file) => file !== 'README.md');
    expect(pages.map((file) => file.replace(/\.md$/, '')).sort()).toEqual(names);
  });

  it.each([...new Set(alerts.map(({ alert }) => alert))])(
    'the page of %s says what to do, with commands first',
    (name) => {
      const page = readFileSync(join(RUNBOOKS, `${name}.md`), 'utf8');
      expect(page.split('\n')[0]).toBe(`# ${name}`);
      const [, first = ''] = /^# \w+\n+```sh\n([^`]+)```/.exec(page) ?? [];
      expect(first).toMatch(/^(make|docker|curl|openssl) /);
      const headings = [...page.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading);
      expect(headings).toEqual(['Meaning', 'Impact', 'Diagnosis', 'Mitigation']);
      const makefile = readFileSync(resolve(RUNBOOKS, '../../Makefile'), 'utf8');
      const verbs = [...makefile.matchAll(/^([a-z-]+):/gm)].map(([, verb]) => verb);
      const named = [...page.matchAll(/\bmake ([a-z-]+)/g)].map(([, verb]) => verb);
      expect(named.filter((verb) => !verbs.includes(verb))).toEqual([]);
      const given = [...page.matchAll(/\bmake [a-z-]+((?: [A-Z_]+=[^\s`]+)+)/g)].flatMap(([, all = '']) =>
        [...all.matchAll(/([A-Z_]+)=/g)].map(([, variable = '']) => variable),
      );
      expect(given.filter((variable) => !new RegExp(`\\b${variable}\\b`).test(makefile))).toEqual([]);
    },
  );

  it('stands in a test in which it fires, and in one in which it does not', () => {
    const files = Object.keys(INTERVALS).map((group) =>
      testFileOf(
        group,
        CASES.filter((each) => each.group === group),
      ),
    );
    const tests = files.flatMap((file) => file.tests.flatMap((test) => test.alert_rule_test));
    const names = (fires: boolean) =>
      new Set(tests.filter(({ exp_alerts }) => exp_alerts.length > 0 === fires).map(({ alertname }) => alertname));
    const wanted = [...new Set(alerts.map(({ alert }) => alert))].filter((alert) => !alert.startsWith('SLO'));
    expect(wanted.filter((alert) => !names(true).has(alert))).toEqual([]);
    expect(wanted.filter((alert) => !names(false).has(alert))).toEqual(NEVER_SILENT);
    // Those of the objectives are in files of their own.
    const text = ['slo.test.yml', 'slo-success.test.yml']
      .map((file) => readFileSync(join(__dirname, file), 'utf8'))
      .join('');
    for (const alert of ['SLOErrorBudgetBurn', 'SLOErrorBudgetExhausted', 'SLOMetricAbsent']) {
      expect(text).toMatch(new RegExp(`alertname: ${alert}, exp_alerts: \\[\\]`));
      expect(text).toMatch(new RegExp(`alertname: ${alert}\\n +exp_alerts:\\n +- exp_labels`));
    }
  });
});

it('asks only for metrics that are exported, and about jobs that are scraped', () => {
  const only = new Set(['api', 'prometheus']);
  const text = ruleFileOf(ruleGroups({ ...OPTIONS, jobs: only }));
  expect([...text.matchAll(/job="([a-z-]+)"/g)].filter(([, job]) => !only.has(job ?? ''))).toEqual([]);
  expect(text).not.toContain('availability');
  const ours = Object.values(METRICS).map(({ name }) => name);
  const named = [...ruleFileOf(GROUPS).matchAll(/\b([a-z_]+?)(?:_bucket|_count|_sum)?\{job="api"/g)].map(
    ([, name]) => name ?? '',
  );
  const others = ['up', 'nodejs_eventloop_lag_p99_seconds', 'process_start_time_seconds'];
  expect(named.filter((name) => ![...ours, ...others].includes(name))).toEqual([]);
  expect(named.length).toBeGreaterThan(50);
});

it('has no rule for what nobody scrapes, and one for whatever job is missing', () => {
  for (const missing of Object.values(JOBS)) {
    const jobs = new Set(Object.values(JOBS).filter((job) => job !== missing));
    const names = ruleGroups({ ...OPTIONS, jobs }).map(({ name }) => name);
    expect(names).toContain('meta');
    if (missing === JOBS.postgres) expect(names).not.toContain('postgres');
    if (missing === JOBS.probe) expect(names).not.toContain('slo-availability');
  }
});

describeUnless(NO_PROMTOOL, `the rules, read by ${promtool?.label ?? 'promtool'}`, () => {
  it('have no fault and no duplicate', () => {
    write('rules.yml', ruleFileOf(GROUPS));
    const { status, output } = promtool!.run(directory, [
      ...['check', 'rules', '--lint=all', '--lint-fatal'],
      join(directory, 'rules.yml'),
    ]);
    const count = GROUPS.flatMap(({ rules }) => rules).length;
    expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining(`${count} rules found`) });
  });

  it.each(Object.keys(INTERVALS))(
    'of the group %s fire when they should',
    (group) => {
      const cases = CASES.filter((each) => each.group === group);
      runTests([group], 'test.yml', textOf(testFileOf(group, cases)));
    },
    60_000,
  );

  it('and a test that expects something else fails', () => {
    const wrong = CASES.filter(({ alert }) => alert === 'ApiErrorRateHigh').map((each) => ({ ...each, says: '11%' }));
    expect(() => runTests(['api'], 'test.yml', textOf(testFileOf('api', wrong)))).toThrow(/FAILED/);
  });

  it.each([
    ['slo.test.yml', /^slo-/],
    ['slo-success.test.yml', /^slo-success/],
  ])(
    'of the objectives record and fire what %s says',
    (file, groups) => {
      const names = GROUPS.map(({ name }) => name).filter((name) => groups.test(name));
      runTests(names, file, readFileSync(join(__dirname, file), 'utf8'));
    },
    120_000,
  );
});
