import { stringify } from 'yaml';

/** Who is told of which alert, as text for Alertmanager 0.26 and later (secrets in files), and what explains what. */

/** The ways to people that a stack has set up. Addresses that are secret stand in files, never here. */
export interface Receivers {
  /** Every alert goes there, as Alertmanager's JSON. */
  readonly webhook: boolean;
  readonly mail: Mail | undefined;
  /** For what cannot wait until the morning. */
  readonly pager: 'pagerduty' | 'webhook' | undefined;
  /** A service that raises the alarm when nothing comes any more: a dead man's switch. */
  readonly watchdog: boolean;
}

export interface Mail {
  readonly to: string;
  readonly from: string;
  /** Host and port; the connection is encrypted (STARTTLS, or TLS at port 465). */
  readonly server: string;
  /** Undefined where the server asks for none. */
  readonly user: string | undefined;
}

/** Files beside the configuration, by what is in them. */
export const SECRET_FILES = {
  webhook: 'secrets/webhook-url',
  pager: 'secrets/pager',
  mailPassword: 'secrets/mail-password',
  watchdog: 'secrets/watchdog-url',
} as const;

/** Whether somebody is told of anything. */
export function isHeard({ webhook, mail, pager }: Receivers): boolean {
  return webhook || mail !== undefined || pager !== undefined;
}

const SLO = 'SLOErrorBudgetBurn|SLOErrorBudgetExhausted|SLOMetricAbsent';
const DATABASE_SYMPTOMS =
  'ApiDbPoolSaturated|ApiErrorRateHigh|ApiErrors|ApiRequestsShed|ApiSlow|ApiResponsesVerySlow|ApiHealthFailing|LoanMetricsStale';

interface Cause {
  readonly source: string;
  /** Patterns of the names of what it explains. Never its own: an alert would hold itself back. */
  readonly targets: string;
  /** A further matcher of the targets. */
  readonly only?: string;
  /** A label that both must have alike, since there are several of what they tell of. */
  readonly of?: string;
}

/** One fault raises many alerts; whoever is paged should read its name, not theirs. */
export const CAUSES: readonly Cause[] = [
  {
    source: 'PostgresDown',
    targets: `Postgres(Connections|Long|Deadlocks|Rollback|Cache|Mean|Exporter).*|ApiDatabaseAway|${DATABASE_SYMPTOMS}|${SLO}`,
  },
  { source: 'PostgresDown', targets: 'ProbeFailing', only: 'probe="database"' },
  { source: 'ApiDatabaseAway', targets: `${DATABASE_SYMPTOMS}|${SLO}` },
  { source: 'ApiDatabaseAway', targets: 'ProbeFailing', only: 'probe="database"' },
  { source: 'PostgresConnectionsExhausted', targets: 'PostgresConnectionsHigh' },
  {
    source: 'ApiDown',
    targets: `GatewayErrorRateHigh|ApiReplicasMissing|ApiRestartLoop|ApiDatabaseAway|${DATABASE_SYMPTOMS}|${SLO}`,
  },
  { source: 'ApiDown', targets: 'ProbeFailing', only: 'probe=~"api|database"' },
  { source: 'ApiDown', targets: 'TargetDown|TargetMissing', only: 'job="api"' },
  // Neither failing probes nor lost objectives: without probes it knows of its metrics alone, and those are what users feel.
  { source: 'NginxDown', targets: 'NginxDroppedConnections|ApiHealthFailing' },
  { source: 'ApiErrorRateHigh', targets: 'ApiErrors' },
  { source: 'TlsCertificateExpiresVerySoon', targets: 'TlsCertificateExpiresSoon' },
  { source: 'HostFilesystemAlmostFull', targets: 'HostFilesystemFillingUp', of: 'mountpoint' },
];

/** @param directory of the files of SECRET_FILES inside the container */
export function renderAlertmanager(receivers: Receivers, directory: string): string {
  return stringify(
    {
      global: { resolve_timeout: '5m' },
      route: routes(receivers),
      inhibit_rules: inhibitions(),
      receivers: receiverList(receivers, directory),
    },
    { lineWidth: 0 },
  );
}

function routes({ watchdog }: Receivers) {
  return {
    receiver: 'nobody',
    group_by: ['env', 'alertname', 'slo'],
    // What one fault raises comes within this time, and goes out in one message.
    group_wait: '30s',
    group_interval: '5m',
    repeat_interval: '12h',
    routes: [
      {
        matchers: ['alertname="Watchdog"'],
        receiver: watchdog ? 'watchdog' : 'nobody',
        group_wait: '0s',
        group_interval: '1m',
        repeat_interval: '50s',
      },
      { matchers: ['severity="none"'], receiver: 'nobody' },
      { matchers: ['severity="critical"'], receiver: 'critical', repeat_interval: '1h' },
      { matchers: ['severity="warning"'], receiver: 'warning' },
      { matchers: ['severity="info"'], receiver: 'info' },
    ],
  };
}

function inhibitions() {
  const same = ['env', 'alertname', 'instance', 'slo', 'name', 'job', 'probe', 'mountpoint'];
  const slower = (burn: string, slow: string) => ({
    source_matchers: ['alertname="SLOErrorBudgetBurn"', `burn="${burn}"`],
    target_matchers: ['alertname="SLOErrorBudgetBurn"', `burn=~"${slow}"`],
    equal: ['env', 'service', 'slo'],
  });
  return [
    { source_matchers: ['severity="critical"'], target_matchers: ['severity=~"warning|info"'], equal: same },
    { source_matchers: ['severity="warning"'], target_matchers: ['severity="info"'], equal: same },
    { source_matchers: ['alertname="InfoInhibitor"'], target_matchers: ['severity="info"'], equal: ['env'] },
    // While history is shorter than the long windows one incident is over the threshold in all of them.
    slower('fast', 'medium|slow|very-slow'),
    slower('medium', 'slow|very-slow'),
    slower('slow', 'very-slow'),
    ...CAUSES.map(({ source, targets, only, of }) => ({
      source_matchers: [`alertname="${source}"`],
      target_matchers: [`alertname=~"${targets}"`, ...(only === undefined ? [] : [only])],
      equal: ['env', ...(of === undefined ? [] : [of])],
    })),
  ];
}

function receiverList({ webhook, mail, pager, watchdog }: Receivers, directory: string) {
  const file = (secret: keyof typeof SECRET_FILES) => `${directory}/${SECRET_FILES[secret]}`;
  const byWebhook = webhook ? { webhook_configs: [{ url_file: file('webhook'), send_resolved: true }] } : {};
  const byMail = mail === undefined ? {} : { email_configs: [mailConfig(mail, file('mailPassword'))] };
  const page = pager === 'webhook' ? [{ url_file: file('pager'), send_resolved: true }] : [];
  const pagerduty =
    pager === 'pagerduty'
      ? {
          pagerduty_configs: [
            {
              routing_key_file: file('pager'),
              severity: '{{ .CommonLabels.severity }}',
              description: '{{ .CommonLabels.env }}: {{ .CommonAnnotations.summary }}',
              send_resolved: true,
            },
          ],
        }
      : {};
  const webhooks = [...(byWebhook.webhook_configs ?? []), ...page];
  return [
    { name: 'nobody' },
    {
      name: 'critical',
      ...(webhooks.length > 0 ? { webhook_configs: webhooks } : {}),
      ...byMail,
      ...pagerduty,
    },
    { name: 'warning', ...byWebhook, ...byMail },
    // Only together with others: see InfoInhibitor.
    { name: 'info', ...byWebhook },
    ...(watchdog
      ? [{ name: 'watchdog', webhook_configs: [{ url_file: file('watchdog'), send_resolved: false }] }]
      : []),
  ];
}

function mailConfig({ to, from, server, user }: Mail, passwordFile: string) {
  return {
    to,
    from,
    smarthost: server,
    ...(user === undefined ? {} : { auth_username: user, auth_password_file: passwordFile }),
    require_tls: !server.endsWith(':465'),
    headers: { Subject: '[{{ .Status }}] {{ .CommonLabels.env }}: {{ .CommonLabels.alertname }}' },
    send_resolved: true,
  };
}

/** Ways of its messages that the settings can choose; values of the label `integration`. */
export const INTEGRATIONS = ['webhook', 'email', 'pagerduty'] as const;

/** Where Alertmanager listens; inside the network it is asked under the path that users see. */
export const ALERTMANAGER_PATH = '/alertmanager';
export const ALERTMANAGER_PORT = 9093;

/** Command line of `alertmanager`: one of its kind, so it looks for no others. Silences and what was sent are kept. */
export function alertmanagerArguments({
  configFile,
  url,
}: {
  readonly configFile: string;
  readonly url: string;
}): string[] {
  return [
    `--config.file=${configFile}`,
    '--storage.path=/alertmanager',
    `--web.listen-address=0.0.0.0:${ALERTMANAGER_PORT}`,
    `--web.external-url=${url}${ALERTMANAGER_PATH}/`,
    `--web.route-prefix=${ALERTMANAGER_PATH}`,
    '--cluster.listen-address=',
    '--log.format=json',
  ];
}
