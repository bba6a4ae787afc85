import { parse } from 'yaml';
import { alertmanagerArguments, CAUSES, isHeard, type Receivers, renderAlertmanager } from './alertmanager';
import { ruleGroups } from './alerts';
import { JOBS } from './exporters';
import { isAlert } from './rules';

const NONE: Receivers = { webhook: false, mail: undefined, pager: undefined, watchdog: false };
const MAIL = { to: 'a@example.com', from: 'b@example.com', server: 'smtp.example.com:587', user: 'b' };
const ALL: Receivers = { webhook: true, mail: MAIL, pager: 'pagerduty', watchdog: true };

interface Configuration {
  readonly receivers: readonly Readonly<Record<string, unknown>>[];
  readonly route: { readonly routes: readonly { readonly matchers: readonly string[]; readonly receiver: string }[] };
}
const read = (receivers: Receivers) => parse(renderAlertmanager(receivers, '/x')) as Configuration;
const ways = (receivers: Receivers): unknown =>
  Object.fromEntries(
    read(receivers).receivers.map((receiver) => [
      receiver['name'],
      Object.keys(receiver)
        .filter((key) => key !== 'name')
        .sort(),
    ]),
  );

it('tells more people of worse things', () => {
  expect(ways(ALL)).toEqual({
    nobody: [],
    critical: ['email_configs', 'pagerduty_configs', 'webhook_configs'],
    warning: ['email_configs', 'webhook_configs'],
    info: ['webhook_configs'],
    watchdog: ['webhook_configs'],
  });
  expect(ways(NONE)).toEqual({ nobody: [], critical: [], warning: [], info: [] });
});

it('sends a page by webhook beside the other one', () => {
  const { receivers } = read({ ...ALL, pager: 'webhook' });
  expect(receivers.find(({ name }) => name === 'critical')?.['webhook_configs']).toEqual([
    { url_file: '/x/secrets/webhook-url', send_resolved: true },
    { url_file: '/x/secrets/pager', send_resolved: true },
  ]);
});

it('asks a mail server for encryption, in the way of its port', () => {
  const tls = (server: string) =>
    (read({ ...NONE, mail: { ...MAIL, server } }).receivers[1]?.['email_configs'] as { require_tls: boolean }[])[0];
  expect(tls('smtp.example.com:587')).toMatchObject({
    require_tls: true,
    auth_password_file: '/x/secrets/mail-password',
  });
  expect(tls('smtp.example.com:465')).toMatchObject({ require_tls: false });
});

it('knows whether anybody hears', () => {
  expect([NONE, { ...NONE, watchdog: true }, { ...NONE, webhook: true }, ALL].map(isHeard)).toEqual([
    false,
    false,
    true,
    true,
  ]);
});

describe('causes', () => {
  const names = new Set(
    ruleGroups({
      environment: 'e',
      url: '',
      runbooks: '',
      prefix: 'p',
      jobs: new Set(Object.values(JOBS)),
      replicas: 1,
      busy: true,
    }).flatMap(({ rules }) => rules.flatMap((rule) => (isAlert(rule) ? [rule.alert] : []))),
  );
  const explained = ({ targets }: { targets: string }) =>
    [...names].filter((name) => new RegExp(`^(${targets})$`).test(name));

  it.each(CAUSES)('$source explains alerts that exist, and never itself', (cause) => {
    expect(names).toContain(cause.source);
    expect(explained(cause).length).toBeGreaterThan(0);
    expect(explained(cause)).not.toContain(cause.source);
    for (const part of cause.targets.split(/\|(?![^(]*\))/)) expect(explained({ targets: part })).not.toEqual([]);
  });

  it('leave what users feel of a gateway that tells nothing: its metrics alone may be away', () => {
    const held = CAUSES.filter(({ source }) => source === 'NginxDown').flatMap(explained);
    expect(held.filter((name) => /^(ProbeFailing|SLO)/.test(name))).toEqual([]);
  });

  it('explain only what is of the same one, where there are several', () => {
    const { inhibit_rules: rules } = parse(renderAlertmanager(NONE, '/x')) as {
      inhibit_rules: { source_matchers: string[]; equal: string[] }[];
    };
    const equal = (source: string) =>
      rules.filter(({ source_matchers: [matcher] }) => matcher === `alertname="${source}"`).map((rule) => rule.equal);
    expect(equal('HostFilesystemAlmostFull')).toEqual([['env', 'mountpoint']]);
    expect(equal('ApiErrorRateHigh')).toEqual([['env']]);
  });

  it('form no circle, in which all would be silent', () => {
    const reaches = (from: string, seen: readonly string[] = []): boolean =>
      CAUSES.filter(({ source, only }) => source === from && only === undefined).some((cause) =>
        explained(cause).some((next) => seen.includes(next) || reaches(next, [...seen, from])),
      );
    for (const { source } of CAUSES) expect(reaches(source, [source])).toBe(false);
  });
});

it('runs alone, under the path that users see', () => {
  expect(alertmanagerArguments({ configFile: '/c', url: 'https://h:1' })).toEqual(
    expect.arrayContaining(['--cluster.listen-address=', '--web.external-url=https://h:1/alertmanager/']),
  );
});
