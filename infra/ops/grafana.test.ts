import type { ContactPoint, NotificationPolicy, RuleGroup } from '@grafana/grafana-foundation-sdk/alerting';
import { parse } from 'yaml';
import { grafanaEnvironment, renderProvisioning } from './grafana';

const environment = grafanaEnvironment({
  url: 'https://localhost:8443/',
  adminUser: 'admin',
  adminPasswordFile: '/run/admin',
  secretKeyFile: '/run/key',
  provisioningPath: '/etc/provisioning',
  homePath: '/d/loans-overview',
});

test('Grafana lives under /grafana/ of the public URL', () => {
  expect(environment).toMatchObject({
    GF_SERVER_ROOT_URL: 'https://localhost:8443/grafana/',
    GF_SERVER_SERVE_FROM_SUB_PATH: 'true',
    GF_PATHS_PROVISIONING: '/etc/provisioning',
    GF_USERS_HOME_PAGE: '/d/loans-overview',
    GF_SERVER_ENABLE_GZIP: 'true',
  });
});

test('secrets are named by files, never given, and never left at their defaults', () => {
  expect(environment.GF_SECURITY_ADMIN_PASSWORD).toBe('$__file{/run/admin}');
  expect(environment.GF_SECURITY_SECRET_KEY).toBe('$__file{/run/key}');
  expect(Object.keys(environment).filter((name) => name.endsWith('__FILE'))).toEqual([]);
});

test('nobody gets in without an account, and nothing calls out', () => {
  expect(environment).toMatchObject({
    GF_AUTH_ANONYMOUS_ENABLED: 'false',
    GF_USERS_ALLOW_SIGN_UP: 'false',
    GF_SECURITY_COOKIE_SECURE: 'true',
    GF_SECURITY_CONTENT_SECURITY_POLICY: 'true',
    GF_ANALYTICS_REPORTING_ENABLED: 'false',
    GF_ANALYTICS_CHECK_FOR_UPDATES: 'false',
    GF_PLUGINS_PREINSTALL_DISABLED: 'true',
  });
});

test('a browser gets nothing from other origins, and no one learns the version before signing in', () => {
  const policy = environment.GF_SECURITY_CONTENT_SECURITY_POLICY_TEMPLATE ?? '';
  const directive = (name: string) => policy.split(';').find((it) => it.startsWith(`${name} `));
  expect(directive('connect-src')).toBe("connect-src 'self' ws://$ROOT_PATH wss://$ROOT_PATH");
  expect(directive('img-src')).toBe("img-src 'self' data:");
  expect(directive('script-src')).toContain('$NONCE');
  expect(policy).not.toMatch(/\*|https?:|grafana\.com/);
  expect(environment.GF_AUTH_ANONYMOUS_HIDE_VERSION).toBe('true');
});

const OPTIONS = {
  dashboardsPath: '/dashboards/current',
  runbooks: 'https://wiki.example/runbooks/',
  environment: 'staging',
};
const files = renderProvisioning(OPTIONS);
const provisioned = (path: string): unknown => parse(files[path] ?? '');

test('every directory of the provisioning tree holds a valid file', () => {
  const directories = Object.keys(files).map((path) => path.split('/')[0]);
  expect(directories.sort()).toEqual(['alerting', 'dashboards', 'datasources', 'plugins']);
  for (const text of Object.values(files)) expect(parse(text)).toMatchObject({ apiVersion: 1 });
});

test('what is provisioned can be changed only by provisioning', () => {
  expect(provisioned('datasources/prometheus.yaml')).toMatchObject({
    prune: true,
    datasources: [
      {
        uid: 'prometheus',
        url: 'http://prometheus:9090/prometheus',
        editable: false,
        isDefault: true,
        jsonData: { timeInterval: '15s', alertmanagerUid: 'alertmanager' },
      },
      {
        uid: 'alertmanager',
        url: 'http://alertmanager:9093/alertmanager',
        editable: false,
        jsonData: { implementation: 'prometheus' },
      },
    ],
  });
  expect(provisioned('dashboards/loans.yaml')).toMatchObject({
    providers: [{ allowUiUpdates: false, disableDeletion: true, options: { path: '/dashboards/current' } }],
  });
});

describe("Grafana's own rule", () => {
  const { groups, contactPoints, policies } = provisioned('alerting/loans.yaml') as {
    groups: (Omit<RuleGroup, 'folderUid'> & { folder: string })[];
    contactPoints: { name: string; receivers: ContactPoint[] }[];
    policies: NotificationPolicy[];
  };
  const rule = groups[0]?.rules?.[0];

  test('alerts when Prometheus does not answer, and when it knows nothing of itself', () => {
    expect(rule).toMatchObject({
      title: 'PrometheusUnreachable',
      noDataState: 'Alerting',
      execErrState: 'Alerting',
      labels: { severity: 'critical', env: 'staging' },
      annotations: { runbook_url: 'https://wiki.example/runbooks/PrometheusUnreachable.md' },
    });
  });

  test('has no link to its page where that has no address', () => {
    const local = renderProvisioning({ ...OPTIONS, runbooks: 'docs/runbooks/' });
    const { groups } = parse(local['alerting/loans.yaml'] ?? '') as { groups: RuleGroup[] };
    expect(groups[0]?.rules?.[0]?.annotations).toEqual({
      summary: expect.any(String),
      runbook: 'docs/runbooks/PrometheusUnreachable.md',
    });
  });

  test('its condition is one of its queries, and every query is to a data source that is there', () => {
    const letters = rule?.data.map(({ refId, model }) => [refId, model]);
    expect(letters).toEqual([
      ['A', expect.objectContaining({ refId: 'A', expr: 'max(up{job="prometheus"})' })],
      ['B', expect.objectContaining({ refId: 'B', expression: 'A' })],
    ]);
    expect(rule?.condition).toBe('B');
    expect(rule?.data.map(({ datasourceUid }) => datasourceUid)).toEqual(['prometheus', '__expr__']);
  });

  test("goes through the stack's Alertmanager, which hears of it again before it takes it for resolved", () => {
    expect(policies).toMatchObject([{ receiver: contactPoints[0]?.name, group_interval: '1m', repeat_interval: '1m' }]);
    expect(contactPoints[0]?.receivers).toMatchObject([
      { type: 'prometheus-alertmanager', settings: { url: 'http://alertmanager:9093/alertmanager' } },
    ]);
  });

  test('lies in another folder than the dashboards, by title', () => {
    const { providers } = provisioned('dashboards/loans.yaml') as {
      providers: { folder: string; folderUid: string }[];
    };
    expect(providers[0]).toMatchObject({ folder: 'Loans', folderUid: 'loans' });
    expect(groups.map(({ folder }) => folder)).not.toContain(providers[0]?.folder);
  });
});
