import { parse } from 'yaml';
import { grafanaEnvironment, renderProvisioning } from './grafana';

const environment = grafanaEnvironment({
  url: 'https://localhost:8443/',
  adminUser: 'admin',
  adminPasswordFile: '/run/admin',
  secretKeyFile: '/run/key',
  provisioningPath: '/etc/provisioning',
});

test('Grafana lives under /grafana/ of the public URL', () => {
  expect(environment).toMatchObject({
    GF_SERVER_ROOT_URL: 'https://localhost:8443/grafana/',
    GF_SERVER_SERVE_FROM_SUB_PATH: 'true',
    GF_PATHS_PROVISIONING: '/etc/provisioning',
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

test('every directory of the provisioning tree holds a valid file', () => {
  const files = renderProvisioning({ dashboardsPath: '/dashboards/current' });
  const directories = Object.keys(files).map((path) => path.split('/')[0]);
  expect(directories.sort()).toEqual(['alerting', 'dashboards', 'datasources', 'plugins']);
  for (const text of Object.values(files)) expect(parse(text)).toMatchObject({ apiVersion: 1 });
});

test('what is provisioned can be changed only by provisioning', () => {
  const files = renderProvisioning({ dashboardsPath: '/dashboards/current' });
  expect(parse(files['datasources/prometheus.yaml'] ?? '')).toMatchObject({
    prune: true,
    datasources: [{ uid: 'prometheus', url: 'http://prometheus:9090/prometheus', editable: false, isDefault: true }],
  });
  expect(parse(files['dashboards/loans.yaml'] ?? '')).toMatchObject({
    providers: [{ allowUiUpdates: false, disableDeletion: true, options: { path: '/dashboards/current' } }],
  });
});
