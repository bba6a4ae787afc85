import { createHash } from 'node:crypto';
import type * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import type { SettingName } from '../../app/config';
import { createContainer } from '../container';
import type { GateOutput } from '../deploy/gate';
import type { EnvironmentSpec } from '../environment';
import { labelsOf } from '../labels';
import { createStep } from '../step';
import type { Context } from './context';
import type { Connection } from './database';
import { Files } from './files';
import type { Images } from './images';
import type { Network } from './network';

const USER = { uid: 10_001, gid: 10_001 };
const PORT = 8000;
const PROBE = '/app/probe';
const MAIN = ['node', '--enable-source-maps', '/app/main.js'] as const;
const SECRETS = '/run/branchloans';

/**
 * The loans API: migrated by its own image, started beside the running release, and let through by a gate.
 * Its containers have no name, port or state of their own, so any number can run at the same time.
 */
export class Api extends pulumi.ComponentResource {
  /** What the gate let through: the containers that may get traffic. */
  readonly active: pulumi.Output<GateOutput>;

  constructor(
    name: string,
    context: Context,
    { images, network, database }: { images: Images; network: Network; database: Connection },
    opts: pulumi.ComponentResourceOptions,
  ) {
    super('branchloans:infra:Api', name, {}, opts);
    const { spec, engine } = context;
    const user = `${USER.uid}:${USER.gid}`;
    const environment = settings(spec, database);

    const secrets = new Files(
      `${name}-secrets`,
      context,
      { files: { 'database-password': database.password }, owner: USER, helperImage: images.nginx },
      { parent: this },
    );

    const once = (step: string, after: pulumi.Resource[]) =>
      createStep(
        `${name}-${step}`,
        'run',
        {
          purpose: `The ${step} step`,
          image: images.api,
          user,
          entrypoint: MAIN[0],
          command: [...MAIN.slice(1), step],
          environment: { ...environment, PROCESSES: '1' },
          network: network.data,
          mounts: [{ source: secrets.volume, target: SECRETS }],
          memoryMib: 256,
          labels: labelsOf(spec, step),
        },
        { parent: this, engine, triggers: [images.api, secrets.version, database.files], dependsOn: after },
      );
    const migrated = once('migrate', [database.ready]);
    const seeded = spec.sampleLoans ? [once('seed', [migrated])] : [];

    const containers = Array.from({ length: spec.api.replicas }, (_, index) =>
      createContainer(
        `${name}-${index + 1}`,
        spec,
        {
          component: 'api',
          replacement: 'beside',
          image: images.api,
          user,
          entrypoint: [...MAIN],
          environment,
          limits: spec.api.limits,
          healthcheck: { ...spec.api.healthcheck, test: [PROBE], startPeriodSeconds: 10 },
          networks: [{ name: network.front, alias: 'api' }, { name: network.data }],
          mounts: [{ source: secrets.volume, target: SECRETS, readOnly: true }],
          tmpfs: { '/tmp': 16 },
          stopGraceSeconds: spec.api.drainSeconds + spec.api.shutdownSeconds + 5,
          restartOn: secrets.version,
        },
        { parent: this, dependsOn: [migrated, ...seeded] },
      ),
    );

    const gate = createStep(
      `${name}-gate`,
      'gate',
      {
        containers: containers.map(({ id, name: containerName }) => ({ id, name: containerName })),
        probe: PROBE,
        readyPath: '/health/ready',
        smokePaths: ['/health-db', '/api/v1/loans?limit=1', '/api/v1/stats'],
        keyCommand: [...MAIN, 'api-key'],
        readyWithinSeconds: spec.api.readyWithinSeconds,
        release: release(spec, images.apiReference, containers),
      },
      { parent: this, engine, triggers: containers.map(({ id }) => id) },
    );
    this.active = gate.stdout.apply((text) => JSON.parse(text) as GateOutput);
    this.registerOutputs({ active: this.active });
  }
}

/** One worker per core of the limit; the service itself starts no more than the host has cores. */
export function processes(spec: EnvironmentSpec): number {
  return Math.max(1, Math.ceil(spec.api.limits.cpus));
}

function settings(spec: EnvironmentSpec, database: Connection) {
  return {
    ENVIRONMENT: spec.stack,
    HOST: '0.0.0.0',
    PORT: String(PORT),
    TLS_PORT: '',
    TLS_CERTIFICATE_FILE: '',
    TLS_KEY_FILE: '',
    DATABASE_HOST: database.host,
    DATABASE_PORT: String(database.port),
    DATABASE_NAME: database.name,
    DATABASE_USER: database.user,
    DATABASE_PASSWORD_FILE: `${SECRETS}/current/database-password`,
    DATABASE_POOL_SIZE: String(spec.api.poolSize),
    DATABASE_CONNECT_TIMEOUT_MS: '2000',
    DATABASE_QUEUE_MS: '500',
    DATABASE_STATEMENT_TIMEOUT_MS: '1500',
    PROCESSES: String(processes(spec)),
    DRAIN_MS: String(spec.api.drainSeconds * 1000),
    SHUTDOWN_TIMEOUT_MS: String(spec.api.shutdownSeconds * 1000),
    LOG_LEVEL: spec.api.logLevel,
    MAX_AMOUNT: spec.api.maxAmount,
    RETENTION_YEARS: String(spec.api.retentionYears),
    API_KEYS: spec.api.keys,
    CORS_ORIGINS: spec.api.corsOrigins.join(),
    ALLOWED_HOSTS: spec.api.hosts.join(),
    RATE_LIMIT: spec.api.rateLimit ?? '',
    // No port of these containers is published: whoever reaches them is the gateway, or one of our own.
    CLIENT_ADDRESS: 'x-forwarded-for',
    VERSION: '',
    COMMIT: spec.commit,
  } satisfies Record<SettingName, string>;
}

/** A release is its image and its containers: a short id, the image's digest and the commit it says it is from. */
function release(spec: EnvironmentSpec, image: pulumi.Output<string>, containers: docker.Container[]) {
  return pulumi.all([image, ...containers.map(({ id }) => id)]).apply(([reference, ...ids]) => ({
    id: createHash('sha256')
      .update([reference, ...ids].join())
      .digest('hex')
      .slice(0, 12),
    image: reference ?? '',
    commit: spec.commit,
  }));
}
