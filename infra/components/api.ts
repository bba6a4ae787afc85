import { createHash } from 'node:crypto';
import * as pulumi from '@pulumi/pulumi';
import type { SettingName } from '../../app/config';
import { createContainer } from '../container';
import type { GateOutput } from '../deploy/gate';
import type { Attempt, Ledger, Release } from '../deploy/ledger';
import type { Smoke } from '../deploy/smoke';
import type { EnvironmentSpec } from '../environment';
import { labelsOf } from '../labels';
import { PROMETHEUS_ADDRESS, type Track, TRACK_NAMES } from '../ops/prometheus';
import { promisesOf } from '../ops/slo';
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
const PASSWORD_FILE = 'database-password';
/** Empty where the stack has none. */
const DSN_FILE = 'error-tracking-dsn';

/**
 * The loans API: migrated by its own image, started beside the running release, and let through by a gate.
 * Its containers have no name, port or state of their own, so any number can run at the same time; so can a second
 * release, the canary, which goes the same way under a name of its own and differs in its image only.
 */
export class Api extends pulumi.ComponentResource {
  /** What the gate let through: the containers that may get traffic. */
  readonly active: pulumi.Output<GateOutput>;
  /** The release that this update is about, and where its fate is written down. */
  readonly attempt: pulumi.Output<Attempt>;
  /** What users must be able to do with it. */
  readonly smoke: Smoke = {
    reads: ['/health-db', '/api/v1/loans?limit=1', '/api/v1/stats'],
    dryRun: {
      path: '/api/v1/loans/dry-run',
      body: JSON.stringify({ borrower_id: 'deploy-smoke', amount: '1.00', currency: 'USD', term_months: 1 }),
    },
    keyCommand: [...MAIN, 'api-key'],
  };

  constructor(
    name: string,
    context: Context,
    args: {
      images: Images;
      network: Network;
      database: Connection;
      ledger: pulumi.Output<Ledger>;
      track?: Track;
    },
    opts: pulumi.ComponentResourceOptions,
  ) {
    super('branchloans:infra:Api', name, {}, opts);
    const { images, network, database, track = 'stable' } = args;
    const { spec, engine } = context;
    const { image, reference, commit, replicas } = trackOf(track, spec, images);
    const user = `${USER.uid}:${USER.gid}`;
    const environment = { ...settings(spec, database), COMMIT: commit };

    const secrets = new Files(
      `${name}-secrets`,
      context,
      {
        files: { [PASSWORD_FILE]: database.password, [DSN_FILE]: context.configuredSecret('errorTracking') ?? '' },
        owner: USER,
        helperImage: images.nginx,
      },
      { parent: this },
    );

    // Apart from the others: no container that serves can read it.
    const ownerSecrets = new Files(
      `${name}-owner-secrets`,
      context,
      { files: { [PASSWORD_FILE]: database.owner.password }, owner: USER, helperImage: images.nginx },
      { parent: this },
    );

    const release = releaseOf(spec, { image, reference, commit }, environment);
    const attempt = (schema?: pulumi.Output<number | undefined>): pulumi.Output<Attempt> =>
      pulumi.all([release, args.ledger, schema]).apply(([given, ledger, version]) => ({
        ledger,
        release: version === undefined ? given : { ...given, schema: version },
      }));

    const once = (step: string, changes: Partial<typeof environment>, files: Files, after: pulumi.Resource[]) =>
      createStep(
        `${name}-${step}`,
        'run',
        {
          purpose: `The ${step} step`,
          image,
          user,
          entrypoint: MAIN[0],
          command: [...MAIN.slice(1), step],
          environment: { ...environment, PROCESSES: '1', ...changes },
          network: network.data,
          mounts: [{ source: files.volume, target: SECRETS }],
          memoryMib: 256,
          labels: labelsOf(spec, step),
          attempt: attempt(),
        },
        { parent: this, engine, triggers: [image, files.version, database.files], dependsOn: after },
      );
    const asOwner = { DATABASE_USER: database.owner.user, ERROR_TRACKING_DSN_FILE: '' };
    const migrated = once('migrate', asOwner, ownerSecrets, [database.ready]);
    const seeded = spec.sampleLoans && track === 'stable' ? [once('seed', {}, secrets, [migrated])] : [];

    const containers = Array.from({ length: replicas }, (_, index) =>
      createContainer(
        `${name}-${index + 1}`,
        spec,
        {
          component: TRACK_NAMES[track],
          replacement: 'beside',
          image,
          user,
          entrypoint: [...MAIN],
          // The probe gives up by itself: without this it would do so at the number of whoever built the image.
          environment: {
            ...environment,
            RELEASE: release.apply(({ id }) => id),
            HEALTHCHECK_TIMEOUT: `${spec.api.healthcheck.timeoutSeconds}s`,
          },
          limits: spec.api.limits,
          healthcheck: { ...spec.api.healthcheck, test: [PROBE], startPeriodSeconds: 10 },
          networks: [{ name: network.front, alias: TRACK_NAMES[track] }, { name: network.data }],
          mounts: [{ source: secrets.volume, target: SECRETS, readOnly: true }],
          tmpfs: { '/tmp': 16 },
          stopGraceSeconds: spec.api.drainSeconds + spec.api.shutdownSeconds + 5,
          restartOn: secrets.version,
        },
        { parent: this, dependsOn: [migrated] },
      ),
    );

    this.attempt = attempt(migrated.stdout.apply(schemaVersion));
    const gate = createStep(
      `${name}-gate`,
      'gate',
      {
        containers: containers.map(({ id, name: containerName }) => ({ id, name: containerName })),
        probe: PROBE,
        readyPath: '/health/ready',
        smoke: this.smoke,
        readyWithinSeconds: spec.api.readyWithinSeconds,
        attempt: this.attempt,
      },
      { parent: this, engine, triggers: containers.map(({ id }) => id), dependsOn: seeded },
    );
    this.active = gate.stdout.apply((text) => JSON.parse(text) as GateOutput);
    this.registerOutputs({ active: this.active });
  }
}

/** One worker per core of the limit; the service itself starts no more than the host has cores. */
export function processes(spec: EnvironmentSpec): number {
  return Math.max(1, Math.ceil(spec.api.limits.cpus));
}

/** In what the tracks differ. */
function trackOf(track: Track, spec: EnvironmentSpec, images: Images) {
  if (track === 'stable') {
    return { image: images.api, reference: images.apiReference, commit: spec.commit, replicas: spec.api.replicas };
  }
  if (spec.canary === undefined || images.canary === undefined) throw new Error('this stack has no canary');
  const { id: image, reference } = images.canary;
  // Its image knows which commit it is of; the stack's setting tells of the stack's own release.
  return { image, reference, commit: '', replicas: spec.canary.replicas };
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
    DATABASE_PASSWORD_FILE: `${SECRETS}/current/${PASSWORD_FILE}`,
    DATABASE_POOL_SIZE: String(spec.api.poolSize),
    DATABASE_CONNECT_TIMEOUT_MS: '2000',
    DATABASE_QUEUE_MS: '500',
    DATABASE_STATEMENT_TIMEOUT_MS: '1500',
    SLOW_QUERY_MS: String(spec.api.slowQueryMs),
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
    PROMETHEUS_URL: PROMETHEUS_ADDRESS,
    CAPACITY_RPS: spec.api.capacity === undefined ? '' : String(spec.api.capacity),
    SLO: promisesOf(spec.objectives),
    OTEL_EXPORTER_OTLP_ENDPOINT: spec.tracing?.endpoint ?? '',
    OTEL_SERVICE_NAME: 'branchloans-api',
    OTEL_RESOURCE_ATTRIBUTES: `service.namespace=${spec.prefix}`,
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: String(spec.tracing?.sampleRatio ?? 0),
    ERROR_TRACKING_DSN_FILE: `${SECRETS}/current/${DSN_FILE}`,
    VERSION: '',
    COMMIT: '',
    RELEASE: '',
  } satisfies Record<SettingName, string>;
}

/** @param given id and name of its image, and the commit that it is of */
function releaseOf(
  spec: EnvironmentSpec,
  { image, reference, commit }: { image: pulumi.Output<string>; reference: pulumi.Output<string>; commit: string },
  environment: object,
): pulumi.Output<Release> {
  const { limits, healthcheck, drainSeconds, shutdownSeconds } = spec.api;
  // The commit is left out: the same settings make the same release, whatever else a commit changed. Limits of memory and
  // shares of the CPU are left out too: they are applied to running containers, which keep the release that they have.
  const { cpus } = limits;
  const settings = { ...environment, COMMIT: '', cpus, healthcheck, drainSeconds, shutdownSeconds };
  const configuration = hash(JSON.stringify(settings));
  return pulumi.all([reference, image]).apply(([known, imageId]) => {
    const id = hash(`${imageId}\n${configuration}`);
    return { id, image: known, imageId, localImage: `${spec.prefix}-api:${id}`, commit, configuration };
  });
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}

/** From the log of the migrations; undefined where the log level hides it. */
function schemaVersion(log: string): number | undefined {
  const version = /"version":(\d+)/.exec(log)?.[1];
  return version === undefined ? undefined : Number(version);
}
