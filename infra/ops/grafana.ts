import { stringify } from 'yaml';
import { JOBS } from './exporters';
import { SCRAPE_INTERVAL_SECONDS } from './prometheus';
import { runbookAnnotation } from './rules';

/** Fixed, so that links to them survive a new Grafana. */
const DATA_SOURCE_UID = 'prometheus';
const ALERTMANAGER_UID = 'alertmanager';
/** Of the data source: addresses of Grafana's pages about alerts name it. */
export const ALERTMANAGER_NAME = 'Alertmanager';
const ALERTMANAGER_URL = 'http://alertmanager:9093/alertmanager';

/**
 * Grafana makes the folder of the rules by its title before it makes that of the dashboards, with a uid of its own
 * choice: one title for both would leave the dashboards in it without theirs.
 */
const FOLDERS = { dashboards: { title: 'Loans', uid: 'loans' }, rules: { title: 'Loans alerts' } } as const;

export interface ProvisioningOptions {
  /** The directory inside the container that holds what `renderDashboards` returned. */
  readonly dashboardsPath: string;
  /** Where people read the alerts' pages, with a slash at the end. */
  readonly runbooks: string;
  /** Value of the label `env` of the rule. */
  readonly environment: string;
}

/**
 * Grafana's provisioning directory: relative path -> text. Each of its four directories holds a file, since Grafana
 * logs an error for one that is missing. Dashboards are read again every half minute; the rest when it starts.
 */
export function renderProvisioning({ dashboardsPath, ...options }: ProvisioningOptions): Record<string, string> {
  const prometheus = {
    name: 'Prometheus',
    uid: DATA_SOURCE_UID,
    type: 'prometheus',
    access: 'proxy',
    url: 'http://prometheus:9090/prometheus',
    isDefault: true,
    editable: false,
    // timeInterval is the scrape interval: `$__rate_interval` is computed from it.
    // Grafana lists Prometheus' rules beside its own; it cannot change them.
    jsonData: {
      httpMethod: 'POST',
      timeInterval: `${SCRAPE_INTERVAL_SECONDS}s`,
      prometheusType: 'Prometheus',
      manageAlerts: true,
      alertmanagerUid: ALERTMANAGER_UID,
    },
  };
  const alertmanager = {
    name: ALERTMANAGER_NAME,
    uid: ALERTMANAGER_UID,
    type: 'alertmanager',
    access: 'proxy',
    url: ALERTMANAGER_URL,
    editable: false,
    // Its own rule reaches it through the contact point below.
    jsonData: { implementation: 'prometheus', handleGrafanaManagedAlerts: false },
  };
  const provider = {
    name: 'loans',
    folder: FOLDERS.dashboards.title,
    folderUid: FOLDERS.dashboards.uid,
    type: 'file',
    allowUiUpdates: false,
    disableDeletion: true,
    updateIntervalSeconds: 30,
    options: { path: dashboardsPath, foldersFromFilesStructure: false },
  };
  return {
    'datasources/prometheus.yaml': stringify({ apiVersion: 1, prune: true, datasources: [prometheus, alertmanager] }),
    'dashboards/loans.yaml': stringify({ apiVersion: 1, providers: [provider] }),
    'alerting/loans.yaml': stringify({ apiVersion: 1, ...alerting(options) }),
    'plugins/none.yaml': stringify({ apiVersion: 1, apps: [] }),
  };
}

/**
 * All rules are Prometheus', where they can be tested and outlive Grafana, but the one that it cannot evaluate: that it
 * does not answer. It goes the way of all others, through Alertmanager.
 */
function alerting({ runbooks, environment }: Omit<ProvisioningOptions, 'dashboardsPath'>) {
  const range = { from: 300, to: 0 };
  const rule = {
    uid: 'prometheus-unreachable',
    title: 'PrometheusUnreachable',
    condition: 'B',
    for: '2m',
    noDataState: 'Alerting',
    execErrState: 'Alerting',
    labels: { severity: 'critical', env: environment },
    annotations: {
      summary: 'Grafana cannot query Prometheus: no other alert can be trusted, nor the absence of one',
      ...runbookAnnotation(runbooks, 'PrometheusUnreachable'),
    },
    data: [
      {
        refId: 'A',
        relativeTimeRange: range,
        datasourceUid: DATA_SOURCE_UID,
        model: {
          refId: 'A',
          // Without labels: one of the series' own would be at odds with that of the rule.
          expr: `max(up{job="${JOBS.prometheus}"})`,
          instant: true,
          intervalMs: 1_000,
          maxDataPoints: 43_200,
        },
      },
      {
        refId: 'B',
        relativeTimeRange: range,
        datasourceUid: '__expr__',
        model: {
          refId: 'B',
          type: 'threshold',
          expression: 'A',
          conditions: [{ evaluator: { type: 'lt', params: [1] } }],
        },
      },
    ],
  };
  const receiver = {
    uid: ALERTMANAGER_UID,
    type: 'prometheus-alertmanager',
    disableResolveMessage: false,
    settings: { url: ALERTMANAGER_URL },
  };
  return {
    contactPoints: [{ orgId: 1, name: 'alertmanager', receivers: [receiver] }],
    policies: [
      {
        orgId: 1,
        receiver: 'alertmanager',
        group_by: ['grafana_folder', 'alertname'],
        // Grafana looks at a group only this often, and repeats no sooner; its own 5m would let Alertmanager forget it.
        group_interval: '1m',
        repeat_interval: '1m',
      },
    ],
    groups: [{ orgId: 1, name: 'monitoring', folder: FOLDERS.rules.title, interval: '1m', rules: [rule] }],
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
  /** Path below /grafana of what it opens with. */
  readonly homePath: string;
}

/**
 * Grafana's own policy, but images and connections from this origin alone: its own lets images come from anywhere, and
 * connects to grafana.com. $NONCE and $ROOT_PATH are filled in by Grafana.
 */
const CONTENT_SECURITY_POLICY = [
  "script-src 'self' 'unsafe-eval' 'unsafe-inline' 'strict-dynamic' $NONCE",
  "object-src 'none'",
  "font-src 'self'",
  "style-src 'self' 'unsafe-inline' blob:",
  "img-src 'self' data:",
  "base-uri 'self'",
  "connect-src 'self' ws://$ROOT_PATH wss://$ROOT_PATH",
  "manifest-src 'self'",
  "media-src 'none'",
  "form-action 'self'",
  '',
].join(';');

/** Grafana's settings as environment variables. Secrets are named by their files, never given. */
export function grafanaEnvironment(options: GrafanaOptions): Record<string, string> {
  return {
    GF_SERVER_ROOT_URL: `${options.url.replace(/\/+$/, '')}/grafana/`,
    GF_SERVER_SERVE_FROM_SUB_PATH: 'true',
    GF_PATHS_PROVISIONING: options.provisioningPath,
    // The first page is 27 MB of scripts, a fifth of it when compressed.
    GF_SERVER_ENABLE_GZIP: 'true',
    // The dashboard itself: a file as the home has no folder, no star and no link to share.
    GF_USERS_HOME_PAGE: options.homePath,
    GF_SECURITY_ADMIN_USER: options.adminUser,
    // Read by Grafana itself; `…__FILE` would be silently ignored outside the official image: admin/admin.
    GF_SECURITY_ADMIN_PASSWORD: `$__file{${options.adminPasswordFile}}`,
    GF_SECURITY_SECRET_KEY: `$__file{${options.secretKeyFile}}`,
    GF_SECURITY_COOKIE_SECURE: 'true',
    GF_SECURITY_COOKIE_SAMESITE: 'lax',
    GF_SECURITY_CONTENT_SECURITY_POLICY: 'true',
    GF_SECURITY_CONTENT_SECURITY_POLICY_TEMPLATE: CONTENT_SECURITY_POLICY,
    GF_SECURITY_DISABLE_GRAVATAR: 'true',
    GF_USERS_ALLOW_SIGN_UP: 'false',
    GF_USERS_ALLOW_ORG_CREATE: 'false',
    GF_AUTH_ANONYMOUS_ENABLED: 'false',
    // Counts for everyone who is not signed in: /api/health and the page of the login tell no version.
    GF_AUTH_ANONYMOUS_HIDE_VERSION: 'true',
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
