import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import { createContainer } from '../container';
import { HOME_PATH, renderDashboards } from '../ops/dashboards';
import { grafanaEnvironment, renderProvisioning } from '../ops/grafana';
import { renderRules } from '../ops/alerts';
import { jobsOf, prometheusArguments, renderPrometheus, RULES_FILE } from '../ops/prometheus';
import { createSecret } from '../step';
import type { Context } from './context';
import { Files } from './files';
import type { Images } from './images';
import type { Network } from './network';

export const PROMETHEUS_USER = 'admin';
export const GRAFANA_USER = 'admin';

interface Args {
  readonly images: Images;
  readonly network: Network;
}

/** Prometheus and Grafana, reached through the gateway only. What they have collected goes with the stack. */
export class Monitoring extends pulumi.ComponentResource {
  readonly prometheusUser = PROMETHEUS_USER;
  /** Asked for by the gateway; Prometheus itself is reached by nobody else. */
  readonly prometheusPassword: pulumi.Output<string>;
  readonly grafanaUser = GRAFANA_USER;
  readonly grafanaPassword: pulumi.Output<string>;

  constructor(name: string, context: Context, args: Args, opts: pulumi.ComponentResourceOptions) {
    super('branchloans:infra:Monitoring', name, {}, opts);
    const { prefix } = context.spec;
    this.prometheusPassword = createSecret(
      `${prefix}-prometheus-password`,
      context.configuredSecret('prometheusPassword'),
      { parent: this },
    );
    this.grafanaPassword = createSecret(`${prefix}-grafana-password`, context.configuredSecret('grafanaPassword'), {
      parent: this,
    });
    createPrometheus(`${prefix}-prometheus`, context, args, { parent: this });
    createGrafana(`${prefix}-grafana`, context, args, this.grafanaPassword, { parent: this });
    this.registerOutputs({});
  }
}

function createPrometheus(
  name: string,
  context: Context,
  { images, network }: Args,
  opts: { parent: pulumi.Resource },
) {
  const { spec } = context;
  const mount = '/etc/branchloans';
  const configFile = `${mount}/current/prometheus.yml`;
  const configuration = renderPrometheus({
    environment: spec.stack,
    url: spec.url,
    exporters: spec.exporters,
    canary: spec.canary !== undefined,
  });
  const rules = renderRules({
    environment: spec.stack,
    url: spec.url,
    prefix: spec.prefix,
    runbooks: spec.alerts.runbooks,
    jobs: jobsOf(configuration),
    replicas: spec.api.replicas,
    thresholds: spec.alerts.thresholds,
    objectives: spec.objectives,
    busy: spec.stack === 'production',
  });
  const files = new Files(
    `${name}-files`,
    context,
    {
      files: { 'prometheus.yml': configuration, [RULES_FILE]: rules },
      owner: { uid: 65_534, gid: 65_534 },
      helperImage: images.nginx,
      check: images.prometheus.apply((image) => ({
        image,
        user: '65534:65534',
        mountedAt: mount,
        command: ['promtool', 'check', 'config', configFile],
      })),
      reload: { container: name, signal: 'HUP' },
    },
    opts,
  );
  const data = new docker.Volume(`${name}-data`, { name: `${name}-data` }, opts);
  createContainer(
    name,
    spec,
    {
      component: 'prometheus',
      replacement: { engine: context.engine },
      image: images.prometheus,
      user: '65534:65534',
      entrypoint: ['/bin/prometheus'],
      command: prometheusArguments({
        configFile,
        url: spec.url,
        retentionDays: spec.prometheus.retentionDays,
        retentionMib: spec.prometheus.retentionMib,
      }),
      limits: spec.prometheus.limits,
      healthcheck: {
        ...spec.prometheus.healthcheck,
        test: ['promtool', 'check', 'ready', '--url=http://127.0.0.1:9090/prometheus'],
        startPeriodSeconds: 60,
      },
      networks: [{ name: network.front, alias: 'prometheus' }],
      mounts: [
        { source: files.volume, target: mount, readOnly: true },
        { source: data.name, target: '/prometheus', readOnly: false },
      ],
      stopGraceSeconds: 30,
    },
    { ...opts, dependsOn: [files] },
  );
}

function createGrafana(
  name: string,
  context: Context,
  { images, network }: Args,
  password: pulumi.Output<string>,
  opts: { parent: pulumi.Resource },
) {
  const { spec } = context;
  const owner = { uid: 472, gid: 0 };
  const mounts = { provisioning: '/etc/branchloans/provisioning', dashboards: '/etc/branchloans/dashboards' };
  const secretKey = createSecret(`${name}-key`, undefined, opts);
  const provisioning = new Files(
    `${name}-provisioning`,
    context,
    {
      files: {
        ...renderProvisioning({
          dashboardsPath: `${mounts.dashboards}/current`,
          runbooks: spec.alerts.runbooks,
          environment: spec.stack,
        }),
        'secrets/admin-password': password,
        'secrets/secret-key': secretKey,
      },
      owner,
      helperImage: images.nginx,
    },
    opts,
  );
  // Apart from the rest, because Grafana reads dashboards again by itself, everything else only when it starts.
  const dashboards = new Files(
    `${name}-dashboards`,
    context,
    {
      files: renderDashboards({
        url: spec.url,
        prefix: spec.prefix,
        runbooks: spec.alerts.runbooks,
        connectionsPerContainer: Math.ceil(spec.api.limits.cpus) * spec.api.poolSize,
        thresholds: spec.alerts.thresholds,
        objectives: spec.objectives,
      }),
      owner,
      helperImage: images.nginx,
    },
    opts,
  );
  createContainer(
    name,
    spec,
    {
      component: 'grafana',
      replacement: { engine: context.engine },
      image: images.grafana,
      user: `${owner.uid}:${owner.gid}`,
      entrypoint: ['/run.sh'],
      environment: grafanaEnvironment({
        url: spec.url,
        adminUser: GRAFANA_USER,
        adminPasswordFile: `${mounts.provisioning}/current/secrets/admin-password`,
        secretKeyFile: `${mounts.provisioning}/current/secrets/secret-key`,
        provisioningPath: `${mounts.provisioning}/current`,
        homePath: HOME_PATH,
      }),
      limits: spec.grafana.limits,
      healthcheck: {
        ...spec.grafana.healthcheck,
        test: ['curl', '--silent', '--fail', '--output', '/dev/null', 'http://127.0.0.1:3000/grafana/api/health'],
        startPeriodSeconds: 60,
      },
      networks: [{ name: network.front, alias: 'grafana' }],
      mounts: [
        { source: provisioning.volume, target: mounts.provisioning, readOnly: true },
        { source: dashboards.volume, target: mounts.dashboards, readOnly: true },
      ],
      // Its database lives in memory: all that matters is provisioned, and a kept one would ignore a new password.
      tmpfs: { '/tmp': 32, '/var/lib/grafana': 128 },
      stopGraceSeconds: 30,
      restartOn: provisioning.version,
    },
    { ...opts, dependsOn: [dashboards] },
  );
}
