import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import type { Sample } from '../deploy/prometheus';
import { type EnvironmentSpec, readEnvironment } from '../environment';
import {
  type Check,
  checkAlerts,
  checkCertificate,
  checkClock,
  checkDrift,
  checkImages,
  checkPending,
  checkReceivers,
  checkSecrets,
  checkSettings,
  describeReadiness,
} from './readiness';

/** The stack's own settings, changed. */
function specOf(stack: string, changes: Partial<EnvironmentSpec> = {}, api: Partial<EnvironmentSpec['api']> = {}) {
  const { config } = parse(readFileSync(resolve(__dirname, `../../Pulumi.${stack}.yaml`), 'utf8')) as {
    config: Record<string, unknown>;
  };
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  const settings = Object.fromEntries(Object.entries(config).map(([key, value]) => [key, text(value)]));
  const spec = readEnvironment('branchloans', stack, settings, () => false);
  return { ...spec, ...changes, api: { ...spec.api, ...api } };
}
const verdicts = (checks: readonly Check[]) => Object.fromEntries(checks.map(({ name, verdict }) => [name, verdict]));

it('finds the settings of production good, but for who watches and builds', () => {
  expect(verdicts(checkSettings(specOf('production')))).toEqual({
    keys: 'ok',
    'rate limit': 'ok',
    replicas: 'ok',
    'sample loans': 'ok',
    watchdog: 'warn',
    release: 'warn',
  });
});

it.each<[string, Parameters<typeof specOf>, Check['verdict']]>([
  ['keys', ['production', {}, { keys: 'optional' }], 'fail'],
  ['rate limit', ['production', {}, { rateLimit: undefined }], 'fail'],
  ['replicas', ['production', {}, { replicas: 1 }], 'fail'],
  ['sample loans', ['production', { sampleLoans: true }], 'fail'],
  ['sample loans', ['staging'], 'warn'],
  ['release', ['production', {}, { image: 'me/loans@sha256:1' }], 'ok'],
])('settings: %s of %j', (name, given, verdict) => {
  const check = checkSettings(specOf(...given)).find((each) => each.name === name)!;
  expect(check.verdict).toBe(verdict);
  expect(check.remedy === undefined).toBe(verdict === 'ok');
});

const DAY = 86_400_000;
const NOW = new Date('2026-01-01T00:00:00Z');
const certificate = (days: number, isOwn: boolean, stack = 'production') =>
  verdicts(checkCertificate(specOf(stack), { notAfter: new Date(NOW.getTime() + days * DAY), isOwn }, NOW));

it('holds the certificate to the days of its alerts', () => {
  expect(certificate(21, false)).toEqual({ certificate: 'ok', authority: 'ok' });
  expect(certificate(20.9, false)).toEqual({ certificate: 'warn', authority: 'ok' });
  expect(certificate(6.9, false)).toEqual({ certificate: 'fail', authority: 'ok' });
  expect(certificate(60, true)).toEqual({ certificate: 'ok', authority: 'warn' });
  expect(certificate(60, true, 'staging')).toEqual({ certificate: 'ok', authority: 'ok' });
});

it('names images that a registry may exchange', () => {
  const digest = `sha256:${'0'.repeat(64)}`;
  expect(checkImages([digest, `nginx:1.30.5@${digest}`]).verdict).toBe('ok');
  expect(checkImages([digest, 'nginx:1.30.5'])).toMatchObject({
    verdict: 'warn',
    says: expect.stringMatching(/: nginx:1.30.5$/),
  });
});

it('wants secrets that another clone can read, people who are told, and nothing that waits', () => {
  expect(checkSecrets('staging', 'encryptionsalt: v1:x\nconfig: {}\n', false).verdict).toBe('ok');
  expect(checkSecrets('staging', 'secretsprovider: awskms://x\n', false).verdict).toBe('ok');
  expect(checkSecrets('staging', 'config: {}\n', false).verdict).toBe('fail');
  expect(checkSecrets('staging', 'config: {}\n', true).verdict).toBe('ok');
  const { alerts } = specOf('development');
  expect(checkReceivers({ stack: 'development', alerts }).verdict).toBe('fail');
  const heard = { ...alerts, receivers: { ...alerts.receivers, webhook: true } };
  expect(checkReceivers({ stack: 'development', alerts: heard }).verdict).toBe('ok');
  expect(checkPending('staging', []).verdict).toBe('ok');
  expect(checkPending('staging', ['API: …']).verdict).toBe('warn');
  expect(checkDrift('staging', []).verdict).toBe('ok');
  expect(checkDrift('staging', ['The gateway is stopped.'])).toMatchObject({
    verdict: 'fail',
    says: 'The gateway is stopped.',
  });
});

const alert = (alertname: string, severity: string, alertstate = 'firing'): Sample => ({
  labels: { alertname, severity, alertstate },
  value: 1,
});
const WATCHDOG = alert('Watchdog', 'none');

it.each<[string, Sample[], Record<string, Check['verdict']>]>([
  ['peace', [WATCHDOG, alert('ApiSlow', 'critical', 'pending')], { monitoring: 'ok', alerts: 'ok' }],
  ['a warning', [WATCHDOG, alert('ApiSlow', 'warning')], { monitoring: 'ok', alerts: 'warn' }],
  ['worse', [WATCHDOG, alert('A', 'warning'), alert('B', 'critical')], { monitoring: 'ok', alerts: 'fail' }],
  ['silence', [], { monitoring: 'fail', alerts: 'ok' }],
])('alerts: %s', (_, states, expected) => {
  expect(verdicts(checkAlerts('production', states))).toEqual(expected);
});

it('knows of the clock by its alert', () => {
  expect(checkClock({ host: true }, [WATCHDOG]).verdict).toBe('ok');
  expect(checkClock({ host: true }, [alert('HostClockSkew', 'warning')]).verdict).toBe('fail');
  expect(checkClock({ host: false }, []).verdict).toBe('warn');
});

it('tells the worst first, each with its remedy', () => {
  const checks: Check[] = [
    { name: 'a', verdict: 'ok', says: 'right' },
    { name: 'bc', verdict: 'fail', says: 'two\nlines', remedy: 'mend' },
    { name: 'd', verdict: 'warn', says: 'so so', remedy: 'decide' },
  ];
  expect(describeReadiness('staging', checks)).toBe(`FAIL  bc  two
          lines
          remedy: mend
WARN  d   so so
          remedy: decide
ok    a   right

staging is not ready: 1 of 3 checks fail.`);
  expect(describeReadiness('staging', [checks[0]!, checks[2]!])).toMatch(
    /^staging is ready, as far as 2 checks can tell; 1 /m,
  );
});
