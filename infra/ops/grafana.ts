import { stringify } from 'yaml';

/** Fixed, so that links to it survive a new Grafana. */
const DATA_SOURCE_UID = 'prometheus';

/**
 * Grafana's provisioning directory: relative path -> text. Each of its four directories holds a file, since Grafana
 * logs an error for one that is missing.
 * @param dashboardsPath the directory inside the container that holds what `renderDashboards` returned.
 */
export function renderProvisioning({ dashboardsPath }: { readonly dashboardsPath: string }): Record<string, string> {
  const dataSource = {
    name: 'Prometheus',
    uid: DATA_SOURCE_UID,
    type: 'prometheus',
    access: 'proxy',
    url: 'http://prometheus:9090/prometheus',
    isDefault: true,
    editable: false,
    // timeInterval is the scrape interval: `$__rate_interval` is computed from it.
    jsonData: { httpMethod: 'POST', timeInterval: '15s', prometheusType: 'Prometheus', manageAlerts: false },
  };
  const provider = {
    name: 'loans',
    folder: 'Loans',
    type: 'file',
    allowUiUpdates: false,
    disableDeletion: true,
    updateIntervalSeconds: 30,
    options: { path: dashboardsPath, foldersFromFilesStructure: false },
  };
  return {
    'datasources/prometheus.yaml': stringify({ apiVersion: 1, prune: true, datasources: [dataSource] }),
    'dashboards/loans.yaml': stringify({ apiVersion: 1, providers: [provider] }),
    'alerting/none.yaml': stringify({ apiVersion: 1 }),
    'plugins/none.yaml': stringify({ apiVersion: 1, apps: [] }),
  };
}

export interface GrafanaOptions {
  /** The public URL of the gateway, such as https://localhost:8443; Grafana is below it at /grafana/. */
  readonly url: string;
  readonly adminUser: string;
  /** Paths inside the container. Both values count only when Grafana makes its database. */
  readonly adminPasswordFile: string;
  readonly secretKeyFile: string;
  readonly provisioningPath: string;
}

/** Grafana's settings as environment variables. Secrets are named by their files, never given. */
export function grafanaEnvironment(options: GrafanaOptions): Record<string, string> {
  return {
    GF_SERVER_ROOT_URL: `${options.url.replace(/\/+$/, '')}/grafana/`,
    GF_SERVER_SERVE_FROM_SUB_PATH: 'true',
    GF_PATHS_PROVISIONING: options.provisioningPath,
    GF_SECURITY_ADMIN_USER: options.adminUser,
    // Read by Grafana itself; `…__FILE` would be silently ignored outside the official image: admin/admin.
    GF_SECURITY_ADMIN_PASSWORD: `$__file{${options.adminPasswordFile}}`,
    GF_SECURITY_SECRET_KEY: `$__file{${options.secretKeyFile}}`,
    GF_SECURITY_COOKIE_SECURE: 'true',
    GF_SECURITY_COOKIE_SAMESITE: 'lax',
    GF_SECURITY_CONTENT_SECURITY_POLICY: 'true',
    GF_SECURITY_DISABLE_GRAVATAR: 'true',
    GF_USERS_ALLOW_SIGN_UP: 'false',
    GF_USERS_ALLOW_ORG_CREATE: 'false',
    GF_AUTH_ANONYMOUS_ENABLED: 'false',
    GF_SNAPSHOTS_EXTERNAL_ENABLED: 'false',
    GF_ANALYTICS_REPORTING_ENABLED: 'false',
    GF_ANALYTICS_CHECK_FOR_UPDATES: 'false',
    GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES: 'false',
    GF_ANALYTICS_FEEDBACK_LINKS_ENABLED: 'false',
    GF_NEWS_NEWS_FEED_ENABLED: 'false',
    // Otherwise it downloads plugins when it starts.
    GF_PLUGINS_PREINSTALL_DISABLED: 'true',
    GF_PLUGINS_PLUGIN_ADMIN_ENABLED: 'false',
    GF_LOG_MODE: 'console',
    GF_LOG_CONSOLE_FORMAT: 'json',
  };
}
