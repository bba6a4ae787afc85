import { z } from 'zod';
import { DATABASE_ROLES, isDsn, isOrigin, maxAmountFault } from '../app/config';
import { METRICS } from '../app/telemetry/names';
import defaultImages from './images.json';
import type { Receivers } from './ops/alertmanager';
import { DEFAULT_THRESHOLDS, type Thresholds } from './ops/alerts';
import { DEFAULT_OBJECTIVES, objectiveFault, type Objectives, type Period, SLO_NAMES } from './ops/slo';

/**
 * What an environment is: the settings of Pulumi.<stack>.yaml, checked as a whole before the first resource,
 * with defaults filled in and units made explicit. Nothing else in infra/ reads configuration.
 */

export interface Limits {
  /** Cores; fractions allowed. Changing it replaces the container. */
  readonly cpus: number;
  /** Mebibytes; swap is off. Changing it is applied to the running container. */
  readonly memoryMib: number;
  /**
   * Mebibytes that the kernel leaves the container when the host's memory runs short: at most the limit; undefined
   * reserves none. A value is applied to the running container; taking it away replaces the container.
   */
  readonly memoryReservationMib?: number | undefined;
  /**
   * Its weight against others that have one, when all cores of the host are busy; what none weighs is the kernel's affair
   * (1024 with cgroup v1, about 2600 with v2). Applied and taken away as the reservation.
   */
  readonly cpuShares?: number | undefined;
}

export interface Healthcheck {
  readonly intervalSeconds: number;
  readonly timeoutSeconds: number;
  readonly retries: number;
}

export interface Service {
  readonly limits: Limits;
  readonly healthcheck: Healthcheck;
}

/** Where the database's files lie. Changing it starts an empty database; the old files stay where they are. */
export type DataVolume =
  { readonly kind: 'volume'; readonly name: string } | { readonly kind: 'directory'; readonly path: string };

/** Between which numbers of API containers `make autoscale` chooses, and by what. Changing it changes no container. */
export interface AutoscaleSpec {
  readonly min: number;
  readonly max: number;
  /** Share of the containers' CPU limit that is aimed at, in percent. */
  readonly cpuPercent: number | undefined;
  /** The same of their memory. Only what load takes falls as containers are added: the aim must leave room above idle. */
  readonly memoryPercent: number | undefined;
  /** 95th percentile that is aimed at. */
  readonly latencySeconds: number | undefined;
  /** PromQL that gives one series, which falls as containers are added, and the value that is aimed at. */
  readonly custom: { readonly query: string; readonly target: number } | undefined;
}

/** Where the traces of requests go, and how many. A change rolls the API; that of the share reloads the gateway too. */
export interface TracingSpec {
  /** Base URL of a collector that takes OTLP over HTTP. The API's containers reach it by the network `front`. */
  readonly endpoint: string;
  /** Share of the requests that are traced, 0 to 1, in steps of 0.0001. */
  readonly sampleRatio: number;
  /** Whether a client that comes with a trace of its own decides that for its requests. Not where clients are strangers. */
  readonly clientsDecide: boolean;
}

export interface EnvironmentSpec {
  readonly stack: string;
  /** Prefix of the names of all containers, networks and volumes but the database's. */
  readonly prefix: string;
  readonly domain: string;
  /** What users open in a browser, without a slash at the end. */
  readonly url: string;
  readonly sampleLoans: boolean;
  /** Of the stack's own release; empty where only its image knows it. */
  readonly commit: string;
  readonly images: Readonly<Record<ImageName, string>>;
  readonly api: Service & {
    /** Image reference to run; undefined builds it from app/. */
    readonly image: string | undefined;
    /** Network of the image build; `host` also works where the engine's own network has no way out. */
    readonly buildNetwork: 'default' | 'host';
    readonly replicas: number;
    readonly autoscale: AutoscaleSpec | undefined;
    /** How long an old container goes on serving after SIGTERM. A change rolls the API, and counts from the deploy after. */
    readonly drainSeconds: number;
    /**
     * How long its requests in flight may take after that, long downloads among them. The gateway's old workers give
     * theirs both times together, and 30 s at least. A change rolls the API and reloads the gateway, and counts from the
     * deploy after: whoever goes keeps to the settings that it came with.
     */
    readonly shutdownSeconds: number;
    /** How long the gate waits for a new container. */
    readonly readyWithinSeconds: number;
    /** Database connections of one process. A change rolls the API. */
    readonly poolSize: number;
    /**
     * Largest amount of one loan: "50000" for every currency, "50000,KES=5000000" with exceptions. A change rolls the
     * API and leaves stored loans alone.
     */
    readonly maxAmount: string;
    /** Requests of one caller over all containers, in a window of seconds: "10000/10". A change rolls the API. */
    readonly rateLimit: string | undefined;
    /**
     * Whole years for which borrowers of closed loans are kept, 0 for ever. What a shorter time replaces by pseudonyms
     * does not come back with a longer one. A change rolls the API.
     */
    readonly retentionYears: number;
    /**
     * Requests per second that one container is known to bear, as `make load` found; /sre/capacity measures against it.
     * A change rolls the API.
     */
    readonly capacity: number | undefined;
    readonly logLevel: 'error' | 'warn' | 'info' | 'debug';
    /** A statement of the database that takes so long is logged and counted as slow. A change rolls the API. */
    readonly slowQueryMs: number;
    /** Whether a request must show an API key (make api-key). A change rolls the API. */
    readonly keys: 'required' | 'optional';
    /** Web sites whose pages may call the API. A change rolls the API. */
    readonly corsOrigins: readonly string[];
    /** The names that it answers to, as the gateway does. */
    readonly hosts: readonly string[];
  };
  /** A release on trial beside the one that serves; undefined where there is none. It shares all settings of `api`. */
  readonly canary:
    | {
        /** Its migrations run before its containers start, and stay when it goes: they may only expand. */
        readonly image: string;
        /** Of all requests. A change reaches the gateway by a reload. */
        readonly percent: number;
        readonly replicas: number;
      }
    | undefined;
  readonly database: Service & {
    readonly volume: DataVolume;
    /** Changing it makes a new, empty database beside the old one. */
    readonly name: string;
    /** Role that the service logs in as. Refused for a database that belongs to another role than the owner's. */
    readonly user: string;
    /** Changing it restarts the database: some seconds without it. The same holds for its limits and health check. */
    readonly maxConnections: number;
  };
  readonly gateway: Service & {
    /** Address of the Docker host that https and http are published on. */
    readonly address: string;
    readonly ports: { readonly https: number; readonly http: number | undefined; readonly api: number | undefined };
    /** The user's own certificate; undefined makes one from the project's own CA. Paths of PEM files. */
    readonly certificate: { readonly certificateFile: string; readonly keyFile: string } | undefined;
  };
  readonly prometheus: Service & { readonly retentionDays: number; readonly retentionMib: number };
  readonly grafana: Service;
  /**
   * What Prometheus asks besides the API, Prometheus itself and the gateway. Each that is true has a container of its own
   * with these limits; switched off, its container goes and its metrics end, while those collected stay. No request waits
   * for any of them.
   */
  readonly exporters: Service & {
    /** Of the database. Has a role of its own, which reads statistics and no data. */
    readonly database: boolean;
    /** Checks through the public entrance. */
    readonly probes: boolean;
    /** Of the machine under the engine: one stack on a machine is enough. It sees the machine's network counters. */
    readonly host: boolean;
    /** Of this environment's containers. It reads the engine's socket, and whoever gets into it has the engine. */
    readonly containers: boolean;
    /** Path of that socket on the Docker host. */
    readonly socket: string;
  };
  /**
   * What is promised to users, over which time. A change is taken over by a reload, and rolls the API, which shows it at
   * /sre/; what was recorded stays.
   */
  readonly objectives: Objectives;
  readonly alertmanager: Service;
  readonly alerts: {
    /** A change is taken over by a reload. */
    readonly thresholds: Thresholds;
    /** Where people read docs/runbooks, with a slash at the end: a path of the repository, or an address. */
    readonly runbooks: string;
    readonly receivers: Receivers;
  };
  /** Undefined where nothing collects traces. */
  readonly tracing: TracingSpec | undefined;
}

export type ImageName = keyof typeof defaultImages;

/** Role of the database's exporter. */
export const MONITOR = 'branchloans_monitor';
const OTHER_ROLES: readonly string[] = Object.values(DATABASE_ROLES);

/**
 * Secrets that a stack may set itself. A password that is not set is generated and kept encrypted in the state; without
 * `errorTracking`, the DSN of a project of Sentry or of what speaks its protocol, nothing is reported.
 */
export const SECRET_KEYS = [
  ...(['databasePassword', 'prometheusPassword', 'grafanaPassword', 'errorTracking'] as const),
  ...(['alertWebhook', 'alertPager', 'alertMailPassword', 'alertWatchdog'] as const),
] as const;

type SecretKey = (typeof SECRET_KEYS)[number];

/** Every fault of a stack's settings in one message that names key, stack and remedy. */
export class EnvironmentError extends Error {
  constructor(
    stack: string,
    readonly faults: readonly string[],
  ) {
    super(
      `Pulumi.${stack}.yaml: ${faults.length} setting(s) are wrong, nothing was changed:\n` +
        faults.map((fault) => `  - ${fault}`).join('\n'),
    );
    this.name = 'EnvironmentError';
  }
}

const seconds = (fallback?: string) => {
  const schema = z
    .string()
    .regex(/^[1-9]\d*(s|m)$|^0s$/, 'must be a time such as 30s or 2m')
    .transform((text) => Number.parseInt(text, 10) * (text.endsWith('m') ? 60 : 1));
  return fallback === undefined ? schema : schema.prefault(fallback);
};
const mebibytes = z
  .string({ error: 'must be a size with a unit, such as 512m or 2g' })
  .regex(/^[1-9]\d*(m|g)$/, 'must be a size such as 512m or 2g')
  .transform((text) => Number.parseInt(text, 10) * (text.endsWith('g') ? 1024 : 1))
  .refine((mib) => mib >= 16, 'must be at least 16m');
const cpus = z
  .number({ error: 'must be a number of cores such as 1 or 0.5' })
  .min(0.1, 'must be at least 0.1 cores')
  .max(256)
  .refine((n) => Number.isInteger(Math.round(n * 1e6) / 1e4), 'must have at most two decimals');
// What the kernel takes.
const cpuShares = z
  .int('must be a whole number such as 2048')
  .min(2, 'must be at least 2')
  .max(262_144, 'must be at most 262144');
const port = z.int('must be a port number').min(1, 'must be 1 to 65535').max(65_535, 'must be 1 to 65535');
const identifier = z
  .string()
  .regex(/^[a-z_][a-z0-9_]{0,62}$/, 'must be a lower-case SQL name of at most 63 characters');

/** A tag must be exact, so that the same settings give the same containers next year. */
const imageReference = z.string().refine((reference) => imageFault(reference) === undefined, {
  error: (issue) => imageFault(String(issue.input)) ?? 'is not valid',
});

/** What is wrong with the name of an image; undefined when it names one image for good. */
export function imageFault(reference: string): string | undefined {
  // The id of an image that is on the engine already.
  if (/^sha256:[0-9a-f]{64}$/.test(reference)) return undefined;
  if (!/^[\w.\-/:]+(@sha256:[0-9a-f]{64})?$/.test(reference)) return 'must be an image such as nginx:1.30.5';
  if (reference.includes('@sha256:')) return undefined;
  const tag = /:([\w.-]+)$/.exec(reference)?.[1];
  if (tag === undefined || tag === 'latest') return 'must name an exact version or a digest, not "latest"';
  // A commit hash is as exact as a version.
  if (/^v?\d+\.\d+/.test(tag) || /^[0-9a-f]{7,40}$/.test(tag)) return undefined;
  return `"${tag}" moves: give an exact version such as 1.30.5, or a digest`;
}

const upToTenMinutes = (fallback: string) => seconds(fallback).refine((n) => n <= 600, 'must be at most 10m');
// Docker reads 0 as "not given" and would go on with another value.
const someSeconds = seconds().refine((n) => n >= 1, 'must be at least 1s');
const healthcheck = z.strictObject({
  interval: someSeconds,
  timeout: someSeconds,
  retries: z.int('must be a whole number').min(1, 'must be at least 1').max(100),
});

const service = (fallback?: { cpus: number; memory: string }) => {
  const shape = {
    cpus,
    memory: mebibytes,
    memoryReservation: mebibytes.optional(),
    cpuShares: cpuShares.optional(),
    healthcheck,
  };
  if (fallback === undefined) return shape;
  return {
    ...shape,
    cpus: cpus.prefault(fallback.cpus),
    memory: mebibytes.prefault(fallback.memory),
    healthcheck: healthcheck.prefault({ interval: '15s', timeout: '5s', retries: 3 }),
  };
};

const containers = z.int('must be a whole number').min(1, 'must be at least 1').max(64, 'must be at most 64');
const shareOfLimit = z
  .number('must be a percentage such as 70')
  .min(1, 'must be at least 1')
  .max(100, 'must be at most 100');
const autoscale = z.strictObject({
  min: containers,
  max: containers,
  cpu: shareOfLimit.optional(),
  memory: shareOfLimit.optional(),
  latency: z
    .string({ error: 'must be a time such as 200ms' })
    .regex(/^[1-9]\d*(ms|s)$/, 'must be a time such as 200ms or 1s')
    .transform((text) => Number.parseInt(text, 10) / (text.endsWith('ms') ? 1000 : 1))
    .optional(),
  custom: z
    .strictObject({
      query: z.string().min(1, 'must be PromQL'),
      target: z.number('must be a number').positive('must be more than 0'),
    })
    .optional(),
});

const hostName = z.string().regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'must be a host name such as branchloans.com');

const origin = z
  .string()
  .refine(
    isOrigin,
    'must be an origin such as https://desk.example: scheme, host and port, lower case, nothing after them',
  );

const percent = (fallback: number) =>
  z
    .number('must be a percentage such as 5')
    .positive('must be more than 0')
    .max(100, 'must be at most 100')
    .default(fallback);
/** Where the histogram ends: no percentile is ever more. */
const longestSeconds = Math.max(...METRICS.httpRequestDuration.buckets);
const mailAddress = z.email('must be a mail address');

const alerts = z.strictObject({
  mail: z
    .strictObject({
      to: mailAddress,
      from: mailAddress,
      server: z
        .string()
        .regex(
          /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?:\d{1,5}$/,
          'must be host and port of a mail server, such as smtp.example.com:587',
        ),
      user: z.string().min(1).optional(),
    })
    .optional(),
  pager: z.enum(['pagerduty', 'webhook']).optional(),
  runbooks: z
    .string()
    .regex(
      /^[\w.:/~-]+\/$/,
      'must be a path or an address with a slash at the end, such as https://wiki.example/runbooks/',
    )
    .default('docs/runbooks/'),
  thresholds: z
    .strictObject({
      errorPercent: percent(DEFAULT_THRESHOLDS.errorPercent).refine(
        (n) => n < 100,
        'must be less than 100: no more than all requests can fail, so its alert could never fire',
      ),
      errorsPerMinute: z.number().positive('must be more than 0').default(DEFAULT_THRESHOLDS.errorsPerMinute),
      p95: z
        .string({ error: 'must be a time such as 500ms' })
        .regex(/^[1-9]\d*(ms|s)$/, 'must be a time such as 500ms or 1s')
        .transform((text) => Number.parseInt(text, 10) / (text.endsWith('ms') ? 1000 : 1))
        .refine(
          (n) => n < longestSeconds,
          `must be less than ${longestSeconds}s: longer times are not told apart, so its alert could never fire`,
        )
        .prefault(`${DEFAULT_THRESHOLDS.p95Seconds}s`),
      healthPercent: percent(DEFAULT_THRESHOLDS.healthPercent),
      connectionsPercent: percent(DEFAULT_THRESHOLDS.connectionsPercent),
      certificateDays: z
        .int('must be a whole number of days')
        .min(1, 'must be at least 1')
        .max(365, 'must be at most 365')
        .default(DEFAULT_THRESHOLDS.certificateDays),
    })
    .prefault({}),
});

const objectivePercent = (fallback: number) =>
  z.number('must be a percentage such as 99.9').default(Number((fallback * 100).toPrecision(10)));
const slo = z.strictObject({
  period: z
    .enum(['30d', '28d', '7d'], 'must be 30d, 28d or 7d')
    .transform((text) => Number.parseInt(text, 10) as Period)
    .prefault(`${DEFAULT_OBJECTIVES.periodDays}d`),
  availability: objectivePercent(DEFAULT_OBJECTIVES.objectives.availability),
  success: objectivePercent(DEFAULT_OBJECTIVES.objectives.success),
  latency: objectivePercent(DEFAULT_OBJECTIVES.objectives.latency),
  freshness: objectivePercent(DEFAULT_OBJECTIVES.objectives.freshness),
});

const schema = z.strictObject({
  domain: hostName,
  sampleLoans: z.boolean().default(false),
  prefix: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]*$/, 'must be lower-case letters, digits and hyphens')
    .optional(),
  image: imageReference.optional(),
  canary: z
    .strictObject({
      image: imageReference,
      percent: z
        .int('must be a whole number of percent')
        .min(1, 'must be at least 1')
        .max(50, "must be at most 50: more is a deploy, make the image the stack's own"),
      replicas: z.int('must be a whole number').min(1, 'must be at least 1').max(64).default(1),
    })
    .optional(),
  buildNetwork: z.enum(['default', 'host']).default('host'),
  commit: z.string().default(''),
  images: z
    .strictObject(
      Object.fromEntries(Object.keys(defaultImages).map((name) => [name, imageReference.optional()])) as Record<
        ImageName,
        z.ZodOptional<typeof imageReference>
      >,
    )
    .prefault({}),
  api: z.strictObject({
    ...service(),
    replicas: containers,
    autoscale: autoscale.optional(),
    drain: upToTenMinutes('5s'),
    shutdown: upToTenMinutes('30s'),
    readyWithin: seconds('60s'),
    poolSize: z.int().min(1).max(200).default(10),
    maxAmount: z
      .string({ error: 'must be a decimal in quotes such as "50000"' })
      .superRefine((text, context) => {
        const fault = maxAmountFault(text);
        if (fault !== undefined) context.addIssue(fault);
      })
      .default('50000'),
    rateLimit: z
      .string({ error: 'must be requests and seconds such as 10000/10, or none' })
      .regex(/^([1-9]\d{0,7}\/[1-9]\d{0,4}|none)$/, 'must be requests and seconds such as 10000/10, or none')
      .default('10000/10'),
    retentionYears: z
      .int('must be a whole number of years, or 0 for ever')
      .min(0, 'must be at least 0')
      .max(100, 'must be at most 100')
      .default(7),
    capacity: z
      .number('must be requests per second of one container, such as 450')
      .positive('must be more than 0')
      .max(1_000_000, 'must be at most 1000000')
      .optional(),
    logLevel: z.enum(['error', 'warn', 'info', 'debug']).default('info'),
    slowQuery: z
      .string()
      .regex(/^\d{1,5}ms$/, 'must be milliseconds such as 200ms')
      .default('200ms'),
    keys: z.enum(['required', 'optional']).default('required'),
    corsOrigins: z.array(origin).default([]),
  }),
  database: z.strictObject({
    ...service(),
    volume: z
      .string()
      .regex(
        /^(\.\/[a-zA-Z0-9][\w.-]*|(\/(?!\.{1,2}(\/|$))[\w.-]+)+)$/,
        'must be ./name (a Docker volume) or an absolute path (a directory of the Docker host)',
      ),
    name: identifier,
    user: identifier
      .refine((name) => name !== 'postgres', 'must not be the superuser')
      .refine((name) => name !== MONITOR, 'is the role that reads statistics: choose another name')
      .refine((name) => !OTHER_ROLES.includes(name), 'is a role of the program itself: choose another name'),
    maxConnections: z.int().min(10).max(2_000).default(200),
  }),
  gateway: z.strictObject({
    ...service({ cpus: 1, memory: '128m' }),
    host: hostName.optional(),
    address: z.ipv4('must be an IPv4 address of the Docker host').default('0.0.0.0'),
    ports: z.strictObject({ https: port, http: port.optional(), api: port.optional() }),
    certificate: z.strictObject({ certificateFile: z.string(), keyFile: z.string() }).optional(),
  }),
  prometheus: z
    .strictObject({
      ...service({ cpus: 0.5, memory: '512m' }),
      retentionDays: z.int().min(1).max(3_650).default(35),
      retentionSize: mebibytes.prefault('4g'),
    })
    .prefault({}),
  grafana: z.strictObject({ ...service({ cpus: 0.5, memory: '512m' }) }).prefault({}),
  exporters: z
    .strictObject({
      ...service({ cpus: 0.25, memory: '96m' }),
      healthcheck: healthcheck.prefault({ interval: '30s', timeout: '5s', retries: 3 }),
      database: z.boolean().default(true),
      probes: z.boolean().default(true),
      host: z.boolean().default(true),
      containers: z.boolean().default(true),
      socket: z
        .string()
        .regex(/^(\/[\w.-]+)+$/, 'must be an absolute path on the Docker host')
        .default('/var/run/docker.sock'),
    })
    .prefault({}),
  slo: slo.prefault({}),
  alertmanager: z.strictObject({ ...service({ cpus: 0.25, memory: '128m' }) }).prefault({}),
  alerts: alerts.prefault({}),
  tracing: z
    .strictObject({
      endpoint: z
        .string({ error: 'must be a URL such as http://collector:4318' })
        .regex(/^https?:\/\/[^/?#@\s]+[^?#@\s]*$/, 'must be a URL such as http://collector:4318')
        .refine((text) => URL.canParse(text), 'must be a URL such as http://collector:4318')
        .refine((text) => !text.endsWith('/v1/traces'), 'must be the base URL: /v1/traces is added to it'),
      sampleRatio: z
        .number({ error: 'must be a share such as 0.01' })
        .min(0, 'must be at least 0')
        .max(1, 'must be at most 1')
        .refine((n) => Number.isInteger(Math.round(n * 1e10) / 1e6), 'must have at most four decimals'),
      clientsDecide: z.boolean().default(true),
    })
    .optional(),
});

type Settings = z.output<typeof schema>;

/**
 * Reads the settings of one stack.
 * @param configuration all keys of the stack as Pulumi hands them out: `branchloans:api` -> JSON or plain text
 * @param isSecret whether a key is stored encrypted
 * @throws EnvironmentError with every fault
 */
export function readEnvironment(
  project: string,
  stack: string,
  configuration: Readonly<Record<string, string>>,
  isSecret: (key: string) => boolean,
): EnvironmentSpec {
  const faults: string[] = [];
  const settings: Record<string, unknown> = {};
  const secrets = new Map<SecretKey, string>();
  for (const [key, text] of Object.entries(configuration)) {
    const [namespace, name] = splitKey(key);
    if (namespace === project) {
      if (!isSecretKey(name)) settings[name] = parseValue(text, name);
      else if (!isSecret(key)) faults.push(`${name}: must be secret: pulumi config set --secret ${name} -s ${stack}`);
      else {
        secrets.set(name, text);
        faults.push(...secretFaults(name, text));
      }
    } else if (namespace !== 'pulumi' && key !== 'docker:host') {
      faults.push(
        `${key}: not used here; the settings of this program begin with "${project}:", and docker:host names the engine`,
      );
    }
  }

  const parsed = schema.safeParse(settings);
  if (!parsed.success) faults.push(...parsed.error.issues.flatMap((issue) => describe(issue, settings)));
  else faults.push(...crossFieldFaults(parsed.data), ...receiverFaults(parsed.data, secrets, stack));
  if (!parsed.success || faults.length > 0) throw new EnvironmentError(stack, faults);
  return toSpec(project, stack, parsed.data, secrets);
}

function isSecretKey(name: string): name is SecretKey {
  return (SECRET_KEYS as readonly string[]).includes(name);
}

/** Of secrets with a form. Where they are still encrypted there is nothing to check. Never shows the value. */
function secretFaults(name: SecretKey, text: string): string[] {
  if (['alertWebhook', 'alertWatchdog'].includes(name)) return addressFaults(name, text);
  // The API would refuse to start with it, in the middle of a deploy.
  if (name !== 'errorTracking' || isEncrypted(text) || isDsn(text.trim())) return [];
  return [`${name}: must be a DSN such as https://<key>@<host>/<project>`];
}

function addressFaults(name: SecretKey, text: string): string[] {
  if (isEncrypted(text) || /^https?:\/\/[^\s/]+/.test(text)) return [];
  return [`${name}: must be an address that begins with https:// or http://`];
}

const isEncrypted = (text: string) => text.startsWith('{');

/** A way to people that is half set up would be found out at the first alert. */
function receiverFaults(settings: Settings, secrets: ReadonlyMap<SecretKey, string>, stack: string): string[] {
  const { mail, pager } = settings.alerts;
  const set = (name: SecretKey) => `pulumi config set --secret ${name} -s ${stack}`;
  return [
    ...(pager !== undefined && !secrets.has('alertPager')
      ? [`alerts.pager: wants ${pager === 'pagerduty' ? 'a routing key' : 'an address'}: ${set('alertPager')}`]
      : []),
    // What it must be depends on who is to get it.
    ...(pager === 'webhook' ? addressFaults('alertPager', secrets.get('alertPager') ?? '{') : []),
    ...(pager === undefined && secrets.has('alertPager')
      ? ['alertPager: is used by nobody: set alerts.pager to pagerduty or webhook']
      : []),
    ...(mail?.user !== undefined && !secrets.has('alertMailPassword')
      ? [`alerts.mail.user: wants a password: ${set('alertMailPassword')}`]
      : []),
    ...(mail?.user === undefined && secrets.has('alertMailPassword')
      ? ['alertMailPassword: is used by nobody: set alerts.mail with a user']
      : []),
  ];
}

function splitKey(key: string): [string, string] {
  const colon = key.indexOf(':');
  return [key.slice(0, colon), key.slice(colon + 1)];
}

const TEXT_KEYS = ['domain', 'prefix', 'image', 'commit', 'buildNetwork'];

function parseValue(text: string, name: string): unknown {
  if (TEXT_KEYS.includes(name)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function describe(issue: z.core.$ZodIssue, settings: Record<string, unknown>): string[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const path = [...issue.path, key].join('.');
      return `${path}: unknown setting; known here: ${knownKeys(issue.path).join(', ')}`;
    });
  }
  const value = issue.path.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined),
    settings,
  );
  const path = issue.path.join('.');
  return [
    value === undefined ? `${path}: not set` : `${path}: ${JSON.stringify(value)} is not valid: ${issue.message}`,
  ];
}

function knownKeys(path: readonly PropertyKey[]): string[] {
  let at: unknown = schema;
  for (const key of path) at = unwrap((unwrap(at) as z.ZodObject).shape[String(key)]);
  const own = Object.keys((unwrap(at) as z.ZodObject).shape);
  return path.length === 0 ? [...own, ...SECRET_KEYS] : own;
}

function unwrap(at: unknown): unknown {
  let inner = at as { unwrap?: () => unknown };
  while (!(inner instanceof z.ZodObject) && typeof inner.unwrap === 'function') {
    inner = inner.unwrap() as { unwrap?: () => unknown };
  }
  return inner;
}

function crossFieldFaults(settings: Settings): string[] {
  const faults: string[] = [];
  for (const name of ['api', 'database', 'gateway', 'prometheus', 'grafana', 'alertmanager', 'exporters'] as const) {
    const { memory, memoryReservation = 0, healthcheck } = settings[name];
    const { interval, timeout } = healthcheck;
    if (timeout > interval)
      faults.push(`${name}.healthcheck.timeout: ${timeout}s is longer than the interval of ${interval}s`);
    if (memoryReservation > memory) {
      faults.push(
        `${name}.memoryReservation: ${memoryReservation}m is more than ${name}.memory, ${memory}m: reserve less, or allow more`,
      );
    }
  }
  for (const name of SLO_NAMES) {
    const fault = objectiveFault(settings.slo[name] / 100, settings.slo.period);
    if (fault !== undefined) faults.push(`slo.${name}: ${settings.slo[name]} ${fault}`);
  }
  const { retentionDays } = settings.prometheus;
  if (retentionDays < settings.slo.period) {
    faults.push(
      `prometheus.retentionDays: ${retentionDays} is less than slo.period, ${settings.slo.period}d: an error budget would ` +
        `never be counted as a whole. Keep metrics for ${settings.slo.period} days, or choose a shorter period`,
    );
  }
  const ports = Object.entries(settings.gateway.ports) as [string, number | undefined][];
  for (const [index, [name, value]] of ports.entries()) {
    const earlier = ports.slice(0, index).find(([, other]) => other === value && value !== undefined);
    if (earlier) faults.push(`gateway.ports.${name}: ${value} is taken by gateway.ports.${earlier[0]}`);
  }
  // The project's own authority signs for the domain and for this machine.
  const { host, certificate } = settings.gateway;
  if (host !== undefined && ![settings.domain, 'localhost', '127.0.0.1'].includes(host) && certificate === undefined) {
    faults.push(
      `gateway.host: "${host}" is not in the certificate: use ${settings.domain} or localhost, or set gateway.certificate`,
    );
  }
  const { autoscale: range } = settings.api;
  if (range !== undefined && range.min > range.max) {
    faults.push(`api.autoscale.min: ${range.min} is more than api.autoscale.max, ${range.max}`);
  } else if (range !== undefined && (settings.api.replicas < range.min || settings.api.replicas > range.max)) {
    faults.push(
      `api.replicas: ${settings.api.replicas} is not between api.autoscale.min and max, ${range.min} and ${range.max}`,
    );
  }
  if (range?.memory !== undefined && !settings.exporters.containers) {
    faults.push('api.autoscale.memory: nothing measures it without exporters.containers: set that, or take this away');
  }
  // During a deploy the old and the new containers hold their connections at the same time.
  const { poolSize, cpus: cores } = settings.api;
  const replicas = Math.max(settings.api.replicas, range?.max ?? 0);
  const canaries = settings.canary?.replicas ?? 0;
  const needed = 2 * (replicas + canaries) * Math.ceil(cores) * poolSize;
  const usable = settings.database.maxConnections - 10;
  if (needed > usable) {
    faults.push(
      `database.maxConnections: ${settings.database.maxConnections} is too few: a deploy needs ${needed} ` +
        `(2 x ${replicas} replicas${canaries > 0 ? ` and ${canaries} of the canary` : ''} x ${Math.ceil(cores)} processes x a pool of ${poolSize}) and 10 are kept free`,
    );
  }
  return faults;
}

function toSpec(project: string, stack: string, s: Settings, secrets: ReadonlyMap<SecretKey, string>): EnvironmentSpec {
  const { https, http, api: apiPort } = s.gateway.ports;
  const host = s.gateway.host ?? s.domain;
  return {
    stack,
    prefix: s.prefix ?? `${project}-${stack}`,
    domain: s.domain,
    url: `https://${host}${https === 443 ? '' : `:${https}`}`,
    sampleLoans: s.sampleLoans,
    commit: s.commit,
    images: { ...defaultImages, ...definedOnly(s.images) },
    api: {
      ...toService(s.api),
      image: s.image,
      buildNetwork: s.buildNetwork,
      replicas: s.api.replicas,
      autoscale: s.api.autoscale && toAutoscale(s.api.autoscale),
      drainSeconds: s.api.drain,
      shutdownSeconds: s.api.shutdown,
      readyWithinSeconds: s.api.readyWithin,
      poolSize: s.api.poolSize,
      maxAmount: s.api.maxAmount,
      rateLimit: s.api.rateLimit === 'none' ? undefined : s.api.rateLimit,
      retentionYears: s.api.retentionYears,
      capacity: s.api.capacity,
      logLevel: s.api.logLevel,
      slowQueryMs: Number.parseInt(s.api.slowQuery, 10),
      keys: s.api.keys,
      corsOrigins: s.api.corsOrigins,
      hosts: [...new Set([host, s.domain, 'localhost', '127.0.0.1'])],
    },
    canary: s.canary,
    database: {
      ...toService(s.database),
      volume: s.database.volume.startsWith('./')
        ? { kind: 'volume', name: s.database.volume.slice(2) }
        : { kind: 'directory', path: s.database.volume },
      name: s.database.name,
      user: s.database.user,
      maxConnections: s.database.maxConnections,
    },
    gateway: {
      ...toService(s.gateway),
      address: s.gateway.address,
      ports: { https, http, api: apiPort },
      certificate: s.gateway.certificate,
    },
    prometheus: {
      ...toService(s.prometheus),
      retentionDays: s.prometheus.retentionDays,
      retentionMib: s.prometheus.retentionSize,
    },
    grafana: toService(s.grafana),
    exporters: {
      ...toService(s.exporters),
      database: s.exporters.database,
      probes: s.exporters.probes,
      host: s.exporters.host,
      containers: s.exporters.containers,
      socket: s.exporters.socket,
    },
    objectives: {
      periodDays: s.slo.period,
      objectives: {
        availability: ratio(s.slo.availability),
        success: ratio(s.slo.success),
        latency: ratio(s.slo.latency),
        freshness: ratio(s.slo.freshness),
      },
    },
    alertmanager: toService(s.alertmanager),
    alerts: toAlerts(s.alerts, secrets),
    tracing: s.tracing,
  };
}

const ratio = (percentage: number) => Number((percentage / 100).toPrecision(10));

function toAlerts({ mail, pager, runbooks, thresholds }: Settings['alerts'], secrets: ReadonlyMap<SecretKey, string>) {
  const { p95: p95Seconds, ...others } = thresholds;
  return {
    thresholds: { ...others, p95Seconds },
    runbooks,
    receivers: {
      webhook: secrets.has('alertWebhook'),
      watchdog: secrets.has('alertWatchdog'),
      pager,
      mail: mail && { ...mail, user: mail.user },
    },
  };
}

const CPU_PERCENT = 70;

function toAutoscale({ min, max, cpu, memory, latency, custom }: z.output<typeof autoscale>): AutoscaleSpec {
  const others = [memory, latency, custom].some((signal) => signal !== undefined);
  const cpuPercent = cpu ?? (others ? undefined : CPU_PERCENT);
  return { min, max, cpuPercent, memoryPercent: memory, latencySeconds: latency, custom };
}

type ServiceSettings = Pick<Settings['api'], 'cpus' | 'memory' | 'memoryReservation' | 'cpuShares' | 'healthcheck'>;

function toService(s: ServiceSettings): Service {
  return {
    limits: {
      cpus: s.cpus,
      memoryMib: s.memory,
      memoryReservationMib: s.memoryReservation,
      cpuShares: s.cpuShares,
    },
    healthcheck: {
      intervalSeconds: s.healthcheck.interval,
      timeoutSeconds: s.healthcheck.timeout,
      retries: s.healthcheck.retries,
    },
  };
}

function definedOnly<T extends object>(values: T): Partial<{ [K in keyof T]: NonNullable<T[K]> }> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<{
    [K in keyof T]: NonNullable<T[K]>;
  }>;
}
