import { stringify } from 'yaml';
import { type AlertOptions, ruleGroups } from '../../infra/ops/alerts';
import { JOBS } from '../../infra/ops/exporters';
import { type Alert, isAlert, renderRuleFile, type RuleGroup } from '../../infra/ops/rules';
import { type Case, INTERVALS } from './cases';

/** Rules of an environment in which everything is measured, and promtool's tests of them, as text. */

export const OPTIONS: AlertOptions = {
  environment: 'staging',
  url: 'https://branchloans.example',
  runbooks: 'docs/runbooks/',
  prefix: 'bl',
  jobs: new Set(Object.values(JOBS)),
  replicas: 2,
  busy: true,
};

export const GROUPS: readonly RuleGroup[] = ruleGroups(OPTIONS);

export const alertsOf = (groups: readonly RuleGroup[]): Alert[] =>
  groups.flatMap(({ rules }) => rules.filter((rule) => isAlert(rule)));

export const ruleFileOf = (groups: readonly RuleGroup[]): string => renderRuleFile(groups, OPTIONS);

interface AlertTest {
  readonly eval_time: string;
  readonly alertname: string;
  readonly exp_alerts: readonly object[];
}

export interface TestFile {
  readonly rule_files: readonly string[];
  readonly evaluation_interval: string;
  /** Without it promtool evaluates groups in any order, and figures differ from run to run. */
  readonly group_eval_order: readonly string[];
  readonly tests: readonly {
    readonly name: string;
    readonly interval: string;
    readonly input_series: readonly { readonly series: string; readonly values: string }[];
    readonly alert_rule_test: readonly AlertTest[];
  }[];
}

/** promtool's tests of the cases of one group. */
export function testFileOf(group: string, cases: readonly Case[]): TestFile {
  const interval = INTERVALS[group];
  if (interval === undefined) throw new Error(`no interval for the group ${group}`);
  return {
    rule_files: [`${group}.rules.yml`],
    evaluation_interval: interval,
    group_eval_order: [group],
    tests: cases.map((each) => ({
      name: `${each.alert}: ${each.name ?? 'fires after its time'}`,
      interval,
      input_series: Object.entries(each.series).map(([series, values]) => ({ series, values })),
      alert_rule_test: [
        ...(each.silentAt === undefined ? [] : [{ eval_time: each.silentAt, alertname: each.alert, exp_alerts: [] }]),
        ...(each.firesAt === undefined
          ? []
          : [{ eval_time: each.firesAt, alertname: each.alert, exp_alerts: expected(each) }]),
      ],
    })),
  };
}

export const textOf = (file: TestFile): string => stringify(file, { lineWidth: 0 });

function expected({ alert, labels = [{}], says = '' }: Case): object[] {
  return labels.map((further) => {
    const rules = alertsOf(GROUPS).filter((rule) => rule.alert === alert);
    const rule = rules.find(({ severity }) => rules.length === 1 || severity === further['severity']);
    if (rule === undefined) throw new Error(`no rule ${alert}`);
    const fill = (template: string) =>
      template
        .replace(/\{\{ \$value[^}]*\}\}/g, says)
        .replace(/\{\{ \$labels\.(\w+) \}\}/g, (_, label: string) => further[label] ?? '');
    return {
      exp_labels: { ...rule.labels, env: OPTIONS.environment, severity: rule.severity, ...further },
      exp_annotations: {
        summary: fill(rule.summary),
        description: fill(rule.description),
        runbook: `${OPTIONS.runbooks}${alert}.md`,
        ...(rule.dashboard === undefined ? {} : { dashboard_url: `${OPTIONS.url}/grafana/d/${rule.dashboard}` }),
      },
    };
  });
}
