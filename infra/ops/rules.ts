import { stringify } from 'yaml';

/** A file of Prometheus' rules as typed data: what every rule of ours has, whoever wrote it. */

export type Severity = 'critical' | 'warning' | 'info' | 'none';

export interface RecordingRule {
  /** Name of the new series. */
  readonly record: string;
  readonly expr: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface Alert {
  /** Also the name of its page in docs/runbooks. */
  readonly alert: string;
  /** True while it gives a series; each series is an alert of its own. */
  readonly expr: string;
  /** How long it must be true, such as 5m; left out it fires at once. */
  readonly for?: string;
  readonly severity: Severity;
  /** One line, may use Prometheus' templates. */
  readonly summary: string;
  /** What the number is and what it means; may use templates. */
  readonly description: string;
  /** Uid of the dashboard to look at first. */
  readonly dashboard?: string;
  /** Tell alerts of one name apart where their severity does not. */
  readonly labels?: Readonly<Record<string, string>>;
}

export interface RuleGroup {
  readonly name: string;
  /** Such as 30s; left out as often as Prometheus evaluates by itself. */
  readonly interval?: string;
  readonly rules: readonly (RecordingRule | Alert)[];
}

export interface RuleFileOptions {
  /** Value of the label `env` of all that the rules record or raise, since not every expression keeps the label of its series. */
  readonly environment: string;
  /** The public URL of the gateway, without a slash at the end. */
  readonly url: string;
  /** Where the pages of docs/runbooks are read, with a slash at the end. */
  readonly runbooks: string;
}

/**
 * The annotation that names the page of an alert. Grafana, Alertmanager and what they send to show `runbook_url` as a link, so
 * it is one only where the page has an address; else `runbook` names the file in the repository.
 * @param runbooks see RuleFileOptions
 */
export function runbookAnnotation(runbooks: string, alert: string): Readonly<Record<string, string>> {
  return { [/^https?:/.test(runbooks) ? 'runbook_url' : 'runbook']: `${runbooks}${alert}.md` };
}

export function isAlert(rule: RecordingRule | Alert): rule is Alert {
  return 'alert' in rule;
}

/** Text of a rule file for Prometheus 2.42 and later. */
export function renderRuleFile(groups: readonly RuleGroup[], options: RuleFileOptions): string {
  const rendered = groups.map(({ name, interval, rules }) => ({
    name,
    ...(interval === undefined ? {} : { interval }),
    rules: rules.map((rule) => (isAlert(rule) ? renderAlert(rule, options) : renderRecording(rule, options))),
  }));
  return stringify({ groups: rendered }, { lineWidth: 0 });
}

function renderRecording({ record, expr, labels }: RecordingRule, { environment }: RuleFileOptions) {
  return { record, expr, labels: { ...labels, env: environment } };
}

function renderAlert(rule: Alert, { environment, url, runbooks }: RuleFileOptions) {
  return {
    alert: rule.alert,
    expr: rule.expr,
    ...(rule.for === undefined ? {} : { for: rule.for }),
    labels: { ...rule.labels, env: environment, severity: rule.severity },
    annotations: {
      summary: rule.summary,
      description: rule.description,
      ...runbookAnnotation(runbooks, rule.alert),
      ...(rule.dashboard === undefined ? {} : { dashboard_url: `${url}/grafana/d/${rule.dashboard}` }),
    },
  };
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** 5m -> 300. @throws Error for anything but a whole number and one unit */
export function secondsOf(duration: string): number {
  const [, number, unit] = /^(\d+)([smhd])$/.exec(duration) ?? [];
  const factor = UNITS[unit ?? ''];
  if (factor === undefined) throw new Error(`${duration} is not a duration such as 30s, 5m, 6h or 3d`);
  return Number(number) * factor;
}

/**
 * Matcher of one bucket of a histogram. Prometheus 3 writes a whole bound as a number with a fraction ("2.0") when it
 * scrapes, Prometheus 2 as the service wrote it ("2").
 */
export function bucketUpTo(seconds: number): string {
  return Number.isInteger(seconds) ? `le=~"${seconds}([.]0)?"` : `le="${seconds}"`;
}
