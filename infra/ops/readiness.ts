import type { Sample } from '../deploy/prometheus';
import type { EnvironmentSpec } from '../environment';
import { isHeard } from './alertmanager';
import { certificateDaysCritical } from './alerts';

/** Is a stack ready for other people's money? Verdicts and words; what they are about is found by verbs/readiness.ts. */

/** `fail`: users or data are at risk as it is. `warn`: it works, and somebody should have decided that it is so. */
export interface Check {
  readonly name: string;
  readonly verdict: 'ok' | 'warn' | 'fail';
  readonly says: string;
  /** What puts it right; none for what is right. */
  readonly remedy?: string;
}

const ok = (name: string, says: string): Check => ({ name, verdict: 'ok', says });
const when = (isRight: boolean, right: string, wrong: Check): Check => (isRight ? ok(wrong.name, right) : wrong);

/** What the settings alone tell. */
export function checkSettings(spec: EnvironmentSpec): Check[] {
  const { stack, api, alerts } = spec;
  const file = `Pulumi.${stack}.yaml`;
  const of = (setting: string) => `${setting} in ${file}, then make up STACK=${stack}`;
  return [
    when(api.keys === 'required', 'every request of the API shows a key', {
      name: 'keys',
      verdict: 'fail',
      says: 'whoever reaches the entrance may read and write loans',
      remedy: of('api.keys: required'),
    }),
    when(api.rateLimit !== undefined, `${api.rateLimit ?? ''} (requests of one caller / seconds)`, {
      name: 'rate limit',
      verdict: 'fail',
      says: 'one caller may take all there is',
      remedy: of('api.rateLimit: "10000/10"'),
    }),
    when(api.replicas >= 2, `${api.replicas} API containers`, {
      name: 'replicas',
      verdict: 'fail',
      says: 'one API container: when it crashes there is none',
      remedy: `make scale STACK=${stack} REPLICAS=2`,
    }),
    when(!spec.sampleLoans, 'no sample loans are loaded', {
      name: 'sample loans',
      verdict: stack === 'production' ? 'fail' : 'warn',
      says: 'made-up loans are loaded with every deploy',
      remedy: of('sampleLoans: false'),
    }),
    when(alerts.receivers.watchdog, 'somebody else notices when alerts stop working', {
      name: 'watchdog',
      verdict: 'warn',
      says: 'when host or monitoring die, nobody is told',
      remedy: `pulumi config set --secret alertWatchdog https://… -s ${stack} (README, Alerts)`,
    }),
    when(api.image !== undefined, 'the image is a built one, named by the settings', {
      name: 'release',
      verdict: 'warn',
      says: 'the image is built by whoever deploys, and was scanned by nobody',
      remedy: `make publish, then branchloans:image in ${file}`,
    }),
  ];
}

export function checkReceivers({ stack, alerts }: Pick<EnvironmentSpec, 'stack' | 'alerts'>): Check {
  return when(isHeard(alerts.receivers), 'alerts reach people', {
    name: 'alert receivers',
    verdict: 'fail',
    says: 'nobody is told of alerts',
    remedy: `pulumi config set --secret alertWebhook https://… -s ${stack}, or alerts.mail, alerts.pager (README, Alerts)`,
  });
}

/** @param images references of all that the stack runs */
export function checkImages(images: readonly string[]): Check {
  const loose = images.filter((image) => !/^sha256:|@sha256:/.test(image));
  return when(loose.length === 0, 'every image is named by its digest', {
    name: 'images',
    verdict: 'warn',
    says: `named by a tag, which its registry may give to another image: ${loose.join(', ')}`,
    remedy: 'make pin-images; the API by the digest that make publish says',
  });
}

/**
 * @param settings text of Pulumi.<stack>.yaml
 * @param isKept whether the backend of Pulumi has a key of its own
 */
export function checkSecrets(stack: string, settings: string, isKept: boolean): Check {
  return when(
    isKept || /^(encryptionsalt|secretsprovider):/m.test(settings),
    'secrets are encrypted with a key of this stack',
    {
      name: 'secrets',
      verdict: 'fail',
      says: `Pulumi.${stack}.yaml has neither encryptionsalt nor secretsprovider: another clone could not read its secrets`,
      remedy: `make up STACK=${stack} once, and commit the line that it writes`,
    },
  );
}

const DAY_MS = 86_400_000;

/** @param certificate of the entrance, as it lies on this machine */
export function checkCertificate(
  { stack, alerts }: Pick<EnvironmentSpec, 'stack' | 'alerts'>,
  certificate: { readonly notAfter: Date; readonly isOwn: boolean },
  now: Date,
): Check[] {
  const days = Math.floor((certificate.notAfter.getTime() - now.getTime()) / DAY_MS);
  return [
    when(days >= alerts.thresholds.certificateDays, `valid for another ${days} days`, {
      name: 'certificate',
      // As its alerts.
      verdict: days < certificateDaysCritical(alerts.thresholds) ? 'fail' : 'warn',
      says: `ends in ${days} days`,
      remedy: certificate.isOwn ? `make up STACK=${stack} renews it` : 'put the next one in its place (ssl/README.md)',
    }),
    when(!certificate.isOwn, 'issued by an authority of others', {
      name: 'authority',
      verdict: stack === 'production' ? 'warn' : 'ok',
      says: 'of this project: only clients that were given ssl/ca.pem trust it',
      ...(stack === 'production' ? { remedy: 'a certificate of a public authority (ssl/README.md)' } : {}),
    }),
  ];
}

/** @param pending what an `up` would change */
export function checkPending(stack: string, pending: readonly string[]): Check {
  return when(pending.length === 0, 'the program accepts settings and guardrails; an up changes nothing', {
    name: 'deployed',
    verdict: 'warn',
    says: `the settings are not what runs: ${pending.length} change(s) wait`,
    remedy: `make preview STACK=${stack}, make up STACK=${stack}`,
  });
}

/** @param found what is not as it was deployed */
export function checkDrift(stack: string, found: readonly string[]): Check {
  return when(found.length === 0, 'all is as it was deployed', {
    name: 'drift',
    verdict: 'fail',
    says: found.join(' '),
    remedy: `make drift STACK=${stack}`,
  });
}

/** @param states series of ALERTS, of which one that always fires shows that rules are evaluated */
export function checkAlerts(stack: string, states: readonly Sample[]): Check[] {
  const firing = states.filter(({ labels }) => labels['alertstate'] === 'firing');
  const of = (severity: string) => [
    ...new Set(firing.filter(({ labels }) => labels['severity'] === severity).map(({ labels }) => labels['alertname'])),
  ];
  const remedy = `make alerts STACK=${stack}`;
  const [critical, warning] = [of('critical'), of('warning')];
  return [
    when(
      firing.some(({ labels }) => labels['alertname'] === 'Watchdog'),
      'rules are evaluated',
      { name: 'monitoring', verdict: 'fail', says: 'the Watchdog does not fire, so no alert would', remedy },
    ),
    when(critical.length + warning.length === 0, 'none fires', {
      name: 'alerts',
      verdict: critical.length > 0 ? 'fail' : 'warn',
      says: [...critical, ...warning].join(', '),
      remedy,
    }),
  ];
}

/** The clock is one of the alerts, where somebody looks at it. */
export function checkClock(exporters: Pick<EnvironmentSpec['exporters'], 'host'>, states: readonly Sample[]): Check {
  const isOff = states.some(
    ({ labels }) => labels['alertname'] === 'HostClockSkew' && labels['alertstate'] === 'firing',
  );
  if (isOff) {
    const says = "the host's clock is not synchronised";
    return { name: 'clock', verdict: 'fail', says, remedy: 'docs/runbooks/HostClockSkew.md' };
  }
  return when(exporters.host, "the host's clock is watched, and is right", {
    name: 'clock',
    verdict: 'warn',
    says: "nobody looks at the host's clock",
    remedy: 'exporters.host: true in one stack of this machine',
  });
}

const MARKS = { ok: 'ok  ', warn: 'WARN', fail: 'FAIL' } as const;

/** What fails first, then what should be decided, then what is right. */
export function describeReadiness(stack: string, checks: readonly Check[]): string {
  const of = (verdict: Check['verdict']) => checks.filter((check) => check.verdict === verdict);
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = (['fail', 'warn', 'ok'] as const).flatMap(of).map(({ name, verdict, says, remedy }) => {
    const line = `${MARKS[verdict]}  ${name.padEnd(width)}  ${says.replaceAll('\n', `\n${' '.repeat(width + 8)}`)}`;
    return remedy === undefined ? line : `${line}\n${' '.repeat(width + 8)}remedy: ${remedy}`;
  });
  const failed = of('fail').length;
  const verdict =
    failed > 0
      ? `${stack} is not ready: ${failed} of ${checks.length} checks fail.`
      : `${stack} is ready, as far as ${checks.length} checks can tell; ${of('warn').length} want a decision.`;
  return `${lines.join('\n')}\n\n${verdict}`;
}
