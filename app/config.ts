import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { z } from 'zod';
import type { Quota } from './domain/quota';
import { LimitFault, parseLimits } from './domain/limits';

/**
 * Seam between an environment and the service: the names of all settings, how each is read, and what it means.
 * Whoever starts the service writes its environment as an object that `satisfies Record<SettingName, …>`,
 * so that a forgotten or misspelt setting does not compile. An empty value means "not set".
 *
 * A secret may come as a file: `<NAME>_FILE` names it and wins over `<NAME>`.
 */

/** Largest bodies of requests in bytes, for the service and for the gateway before it: they refuse the same. */
export const BODY_LIMIT_BYTES = 64 * 1024;
export const BULK_LOANS = 1_000;
/** So many of the largest loans there can be, which take less each when written as UTF-8 without spaces. */
export const BULK_BODY_LIMIT_BYTES = BULK_LOANS * 1_200;

/**
 * Roles of the database. An environment makes them (infra/ops/roles.ts), and `migrate` gives them their privileges
 * (app/db/privileges.ts). The service logs in as a member of `app`; `migrate` as `owner`.
 */
export const DATABASE_ROLES = {
  /** Owns the database and all that is in it. */
  owner: 'branchloans_owner',
  /** What the service may do. A group: no one logs in as it. */
  app: 'branchloans_app',
  /** Reads all but secrets. It cannot log in until it gets a password. */
  readonly: 'branchloans_readonly',
  /** Copies the server, or dumps a database. It cannot log in until it gets a password. */
  backup: 'branchloans_backup',
} as const;

const port = z.coerce.number().int().min(1).max(65_535);
const milliseconds = (fallback: number, max = 600_000) => z.coerce.number().int().min(0).max(max).default(fallback);

/** Values between commas. */
const list = (isValid: (text: string) => boolean, fault: string) =>
  z
    .string()
    .transform((text) => text.split(',').map((one) => one.trim()))
    .refine((values) => values.every(isValid), fault)
    .default([]);
function decodes(text: string): boolean {
  try {
    return decodeURIComponent(text) !== '';
  } catch {
    return false;
  }
}
const HOST_NAME = /^(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])$/;

const OBJECTIVE_NAMES = ['availability', 'success', 'latency', 'freshness'] as const;
export type ObjectiveName = (typeof OBJECTIVE_NAMES)[number];
/** Shares of what must be good, between 0 and 1. */
export type Promises = Readonly<Partial<Record<ObjectiveName, number>>>;
const OBJECTIVE = new RegExp(`^(${OBJECTIVE_NAMES.join('|')})=(\\d{1,2}(?:\\.\\d+)?)$`);
/** Without the noise of binary fractions. */
const shareOf = (percent: number) => Number((percent / 100).toPrecision(10));

/** Those of OpenTelemetry that need nothing further. */
const SAMPLERS = [
  ...(['always_on', 'always_off', 'traceidratio'] as const),
  ...(['parentbased_always_on', 'parentbased_always_off', 'parentbased_traceidratio'] as const),
] as const;
/** As Sentry's own client reads one, which prints what it does not take, and would throw at the start. */
export const isDsn = (text: string) => /^https?:\/\/\w+(:\w*)?@(\[[:.%\w]+\]|[\w.-]+)(:\d+)?\/(\S+\/)?\d+$/.test(text);

const settings = {
  /**
   * Which environment this is: a label on metrics and logs, and part of every API key, so that one of another
   * environment is refused. Never a switch of behaviour.
   */
  ENVIRONMENT: z
    .string()
    .regex(/^[a-z][a-z0-9-]*$/, 'must be a name such as staging')
    .default('development'),
  /** Address and port of the clear-text listener. */
  HOST: z.string().default('0.0.0.0'),
  PORT: port.default(8000),
  /** Set all three to serve TLS as well, without a gateway in front. Paths of PEM files. */
  TLS_PORT: port.optional(),
  TLS_CERTIFICATE_FILE: z.string().optional(),
  TLS_KEY_FILE: z.string().optional(),
  DATABASE_HOST: z.string().default('127.0.0.1'),
  DATABASE_PORT: port.default(5432),
  DATABASE_NAME: z.string(),
  DATABASE_USER: z.string(),
  /**
   * Path of a file that holds the password; its last line break is dropped. It is read anew for every connection, so
   * that a changed password needs no restart.
   */
  DATABASE_PASSWORD_FILE: z.string().optional(),
  /** Connections of one process. Processes x replicas x this must stay below the database's max_connections. */
  DATABASE_POOL_SIZE: z.coerce.number().int().min(1).max(200).default(10),
  DATABASE_CONNECT_TIMEOUT_MS: milliseconds(1_000),
  /** A request that would wait longer than this for a connection is refused at once; 0 lets all wait, and time out. */
  DATABASE_QUEUE_MS: milliseconds(500),
  /** What the database itself enforces on a statement; the client waits 500 ms longer. */
  DATABASE_STATEMENT_TIMEOUT_MS: milliseconds(1_500),
  /** A statement that takes so long, or longer, is logged and counted as a slow one. */
  SLOW_QUERY_MS: milliseconds(200),
  /** Upper limit of worker processes; never more than the host has cores. */
  PROCESSES: z.coerce.number().int().min(1).max(64).default(1),
  /** How long the service goes on serving after SIGTERM, so that nobody sends to it any more when it stops. */
  DRAIN_MS: milliseconds(0),
  /** How long requests in flight may take to finish after that. */
  SHUTDOWN_TIMEOUT_MS: milliseconds(10_000),
  LOG_LEVEL: z.enum(['error', 'warn', 'info', 'debug']).default('info'),
  /**
   * Largest amount of one loan, in the loan's currency: "50000" for every currency, "50000,KES=5000000,VND=2000000000"
   * with exceptions.
   */
  MAX_AMOUNT: z
    .string()
    .superRefine((text, context) => {
      const fault = maxAmountFault(text);
      if (fault !== undefined) context.addIssue(fault);
    })
    .default('50000'),
  /**
   * Whole years for which borrowers of closed loans are kept; then each is replaced by a pseudonym, for good. 0 keeps
   * them for ever.
   */
  RETENTION_YEARS: z.coerce.number().int().min(0).max(100).default(7),
  /** Whether a request must show an API key. Where it need not, a key that is shown must still be a valid one. */
  API_KEYS: z.enum(['required', 'optional']).default('required'),
  /** Web sites whose pages may call the API: exact origins between commas, such as https://desk.example. None: none. */
  CORS_ORIGINS: list(isOrigin, 'must be origins such as https://desk.example, between commas'),
  /**
   * The names, without ports and between commas, that the service answers to; none: to any. What monitors ask (health
   * and metrics) is answered whatever the name, since they come by address.
   */
  ALLOWED_HOSTS: list((text) => HOST_NAME.test(text), 'must be lower-case host names without ports, between commas'),
  /**
   * How many requests one caller may make, over all processes, in any window of so many seconds: "6000/60". Empty: as
   * many as it likes. A caller is an API key, or for requests without one an address.
   */
  RATE_LIMIT: z
    .string()
    .regex(/^[1-9]\d{0,7}\/[1-9]\d{0,4}$/, 'must be requests and seconds such as 6000/60')
    .transform((text): Quota => {
      const [requests = 0, windowSeconds = 0] = text.split('/').map(Number);
      return Object.freeze({ requests, windowSeconds });
    })
    .optional(),
  /**
   * Where the address of a client is taken from. Take X-Forwarded-For only where nobody but a gateway that sets it can
   * connect: anybody else could write any address there.
   */
  CLIENT_ADDRESS: z.enum(['connection', 'x-forwarded-for']).default('connection'),
  /**
   * Where the stack's Prometheus answers, with the prefix of its paths: http://prometheus:9090/prometheus. Its figures are
   * shown at /sre/ and /status; none: those of the process, and no history. Never needed to serve a request.
   */
  PROMETHEUS_URL: z
    .string()
    .refine(isPlainUrl, 'must be an address such as http://prometheus:9090/prometheus, without a password or a query')
    .optional(),
  /** Requests per second that one container is known to bear (make load); /sre/capacity measures against it. */
  CAPACITY_RPS: z.coerce
    .number('must be requests per second such as 450')
    .positive('must be more than 0')
    .max(1_000_000)
    .optional(),
  /**
   * What is promised where it is not the default (app/sre/objectives.ts), in percent: "availability=99.95,latency=97".
   * /sre/ judges by it what no recorded series of Prometheus judges.
   */
  SLO: z
    .string()
    .transform((text) => text.split(',').map((part) => OBJECTIVE.exec(part)))
    .refine(
      (parts) => parts.every((part) => part !== null && Number(part[2]) > 0 && Number(part[2]) < 100),
      `must be percentages such as availability=99.95 between commas, of ${OBJECTIVE_NAMES.join(', ')}`,
    )
    .transform((parts) => Object.fromEntries(parts.map((part) => [part?.[1], shareOf(Number(part?.[2]))])) as Promises)
    .default({}),
  /**
   * The traces of requests, by the names and meanings of OpenTelemetry (what else it defines for its OTLP exporter, such
   * as headers and certificates, its library reads by itself). The base URL of a collector that takes OTLP over HTTP,
   * such as http://collector:4318. None: no spans are made, and log lines name the trace that a request came with.
   */
  OTEL_EXPORTER_OTLP_ENDPOINT: z
    .string()
    .regex(/^https?:\/\/[^/?#@\s]+[^?#@\s]*$/, 'must be a URL such as http://collector:4318')
    .transform((text) => text.replace(/\/+$/, ''))
    .optional(),
  OTEL_SERVICE_NAME: z.string().default('branchloans-api'),
  /** Further attributes of all spans: "key=value" between commas, percent-encoded where needed. */
  OTEL_RESOURCE_ATTRIBUTES: z
    .string()
    .regex(/^[^=,\s]+=[^=,]*(,[^=,\s]+=[^=,]*)*$/, 'must be key=value between commas')
    .refine(decodes, 'must be percent-encoded as in a URL')
    .transform((text) => {
      const pairs = text.split(',').map((pair) => pair.split('=').map(decodeURIComponent));
      return Object.fromEntries(pairs) as Readonly<Record<string, string>>;
    })
    .default({}),
  /** Which requests are traced: by the decision of whoever calls where it made one ("parentbased_"), else by this. */
  OTEL_TRACES_SAMPLER: z.enum(SAMPLERS).default('parentbased_always_on'),
  /** For those by ratio: the share of traces, 0 to 1. */
  OTEL_TRACES_SAMPLER_ARG: z.coerce.number().min(0).max(1).default(1),
  /**
   * Path of a file with the DSN of a project of Sentry, or of what speaks its protocol, to which unexpected errors are
   * reported; an empty file for none.
   */
  ERROR_TRACKING_DSN_FILE: z.string().optional(),
  VERSION: z.string().default('0.0.0'),
  COMMIT: z.string().default('unknown'),
  /** Id of the release in the stack's ledger (`make releases`): a label of app_info, by which deploys are marked in graphs. */
  RELEASE: z.string().default(''),
} satisfies Record<string, z.ZodType>;

/** What is wrong with a value of MAX_AMOUNT, in words; undefined if nothing is. */
export function maxAmountFault(text: string): string | undefined {
  try {
    parseLimits(text);
    return undefined;
  } catch (error) {
    if (error instanceof LimitFault) return error.message;
    throw error;
  }
}

export type SettingName = keyof typeof settings;

export const SETTING_NAMES = Object.keys(settings) as readonly SettingName[];

export interface Config {
  readonly environment: string;
  readonly version: string;
  readonly commit: string;
  /** See RELEASE; empty outside a stack. */
  readonly release: string;
  readonly host: string;
  readonly port: number;
  readonly tls: { readonly port: number; readonly certificate: string; readonly key: string } | undefined;
  readonly database: {
    readonly host: string;
    readonly port: number;
    readonly name: string;
    readonly user: string;
    readonly poolSize: number;
    readonly connectTimeoutMs: number;
    readonly queueMs: number;
    readonly statementTimeoutMs: number;
    readonly slowQueryMs: number;
  };
  readonly processes: number;
  readonly drainMs: number;
  readonly shutdownTimeoutMs: number;
  readonly logLevel: 'error' | 'warn' | 'info' | 'debug';
  /** See MAX_AMOUNT. */
  readonly maxAmount: string;
  /** 0 keeps borrowers for ever. */
  readonly retentionYears: number;
  readonly apiKeys: 'required' | 'optional';
  readonly corsOrigins: readonly string[];
  readonly allowedHosts: readonly string[];
  readonly rateLimit: Quota | undefined;
  readonly clientAddress: 'connection' | 'x-forwarded-for';
  readonly prometheusUrl: string | undefined;
  /** See CAPACITY_RPS. */
  readonly capacityRps: number | undefined;
  /** See SLO. */
  readonly promises: Promises;
  /** See OTEL_EXPORTER_OTLP_ENDPOINT; undefined without one. */
  readonly tracing:
    | {
        /** Without a slash at the end; spans go to its /v1/traces. */
        readonly endpoint: string;
        readonly serviceName: string;
        readonly attributes: Readonly<Record<string, string>>;
        readonly sampler: (typeof SAMPLERS)[number];
        /** 0 to 1. */
        readonly sampleRatio: number;
      }
    | undefined;
}

/** Kept apart from Config, so that a configuration can be printed. */
export interface Secrets {
  /** As it is now: asked for at every new connection. */
  readonly databasePassword: () => Promise<string>;
  /** See ERROR_TRACKING_DSN_FILE. */
  readonly errorTrackingDsn?: string | undefined;
}

/** All faults of the settings in one message that names each of them. */
export class ConfigError extends Error {
  constructor(readonly faults: readonly string[]) {
    super(
      `The service cannot start, ${faults.length} setting(s) are wrong:\n${faults.map((f) => `  - ${f}`).join('\n')}`,
    );
    this.name = 'ConfigError';
  }
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the settings once into a typed, frozen value; only the password is read again later.
 * @throws ConfigError that lists every fault.
 */
export function readConfig(environment: Environment): { config: Config; secrets: Secrets } {
  const present = Object.fromEntries(
    SETTING_NAMES.map((name) => [name, environment[name] === '' ? undefined : environment[name]]),
  );
  const parsed = z.object(settings).safeParse(present);
  const faults = parsed.success ? [] : parsed.error.issues.map((issue) => describe(issue, present));
  const file = (name: SettingName): string => {
    const path = present[name];
    if (path === undefined) return '';
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      faults.push(`${name}: cannot read the file ${path}: ${(error as NodeJS.ErrnoException).code ?? String(error)}`);
      return '';
    }
  };

  const databasePassword = passwordIn(present.DATABASE_PASSWORD_FILE, file('DATABASE_PASSWORD_FILE'));
  const errorTrackingDsn = file('ERROR_TRACKING_DSN_FILE').trim() || undefined;
  if (errorTrackingDsn !== undefined && !isDsn(errorTrackingDsn)) {
    faults.push('ERROR_TRACKING_DSN_FILE: the file holds no DSN such as https://<key>@<host>/<project>');
  }
  const tlsNames = ['TLS_PORT', 'TLS_CERTIFICATE_FILE', 'TLS_KEY_FILE'] as const;
  const missing = tlsNames.filter((name) => present[name] === undefined);
  if (missing.length === 1 || missing.length === 2) {
    faults.push(`${missing.join(', ')}: not set; set all of ${tlsNames.join(', ')} or none`);
  }
  const certificate = file('TLS_CERTIFICATE_FILE');
  const key = file('TLS_KEY_FILE');
  if (!parsed.success || faults.length > 0) throw new ConfigError(faults);

  const s = parsed.data;
  const config: Config = {
    environment: s.ENVIRONMENT,
    version: s.VERSION,
    commit: s.COMMIT,
    release: s.RELEASE,
    host: s.HOST,
    port: s.PORT,
    tls: s.TLS_PORT === undefined ? undefined : { port: s.TLS_PORT, certificate, key },
    database: Object.freeze({
      host: s.DATABASE_HOST,
      port: s.DATABASE_PORT,
      name: s.DATABASE_NAME,
      user: s.DATABASE_USER,
      poolSize: s.DATABASE_POOL_SIZE,
      connectTimeoutMs: s.DATABASE_CONNECT_TIMEOUT_MS,
      queueMs: s.DATABASE_QUEUE_MS,
      statementTimeoutMs: s.DATABASE_STATEMENT_TIMEOUT_MS,
      slowQueryMs: s.SLOW_QUERY_MS,
    }),
    processes: Math.min(s.PROCESSES, availableParallelism()),
    drainMs: s.DRAIN_MS,
    shutdownTimeoutMs: s.SHUTDOWN_TIMEOUT_MS,
    logLevel: s.LOG_LEVEL,
    maxAmount: s.MAX_AMOUNT,
    retentionYears: s.RETENTION_YEARS,
    apiKeys: s.API_KEYS,
    corsOrigins: s.CORS_ORIGINS,
    allowedHosts: s.ALLOWED_HOSTS,
    rateLimit: s.RATE_LIMIT,
    clientAddress: s.CLIENT_ADDRESS,
    prometheusUrl: s.PROMETHEUS_URL,
    capacityRps: s.CAPACITY_RPS,
    promises: Object.freeze(s.SLO),
    tracing:
      s.OTEL_EXPORTER_OTLP_ENDPOINT === undefined
        ? undefined
        : Object.freeze({
            endpoint: s.OTEL_EXPORTER_OTLP_ENDPOINT,
            serviceName: s.OTEL_SERVICE_NAME,
            attributes: Object.freeze(s.OTEL_RESOURCE_ATTRIBUTES),
            sampler: s.OTEL_TRACES_SAMPLER,
            sampleRatio: s.OTEL_TRACES_SAMPLER_ARG,
          }),
  };
  return { config: Object.freeze(config), secrets: Object.freeze({ databasePassword, errorTrackingDsn }) };
}

/**
 * A file that is gone or empty, as for a moment while it is rewritten, leaves the last password in force: the client
 * library does not close a connection for which it gets no password.
 */
function passwordIn(path: string | undefined, first: string): () => Promise<string> {
  let last = first;
  return async () => {
    if (path !== undefined) last = (await readFile(path, 'utf8').catch(() => '')) || last;
    return last.replace(/\r?\n$/, '');
  };
}

/** As a browser sends it: scheme, host and port, lower case, nothing after them. */
export function isOrigin(text: string): boolean {
  return /^https?:[^*]+$/.test(text) && URL.canParse(text) && new URL(text).origin === text;
}

/** Scheme, host and path: a password in it would be printed with the configuration. */
function isPlainUrl(text: string): boolean {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) return false;
  const { username, password, search, hash } = new URL(text);
  return username + password + search + hash === '';
}

function describe(issue: z.core.$ZodIssue, present: Record<string, string | undefined>): string {
  const name = String(issue.path[0]);
  const value = present[name];
  return value === undefined ? `${name}: not set` : `${name}: "${value}" is not valid: ${issue.message}`;
}
