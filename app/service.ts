import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { RequestListener, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config, Secrets } from './config';
import { createApiKeys } from './db/api-keys';
import { readBook } from './db/book';
import { createKeys, type Keys } from './db/idempotency';
import { createLoans } from './db/loans';
import { newestMigration } from './db/migrate';
import { type Database, openDatabase } from './db/pool';
import { createLedger } from './db/quotas';
import { createRepayments } from './db/repayments';
import { createApp, FAILURES } from './http/app';
import { createAuthorize } from './http/authorize';
import { createOnce } from './http/idempotency';
import { createKnownKeys, type KnownKeys } from './http/known-keys';
import { createLimiter } from './http/limiter';
import { UNMATCHED } from './http/observe';
import { rateLimit } from './http/rate-limit';
import { docsHandlers } from './http/routes/docs';
import { healthHandlers } from './http/routes/health';
import { loanListHandlers } from './http/routes/loan-lists';
import { loanHandlers } from './http/routes/loans';
import { sreHandlers } from './http/routes/sre';
import { systemHandlers } from './http/routes/system';
import { repaymentHandlers } from './http/routes/repayments';
import { createServer, type HttpServer } from './http/server';
import { createStatus } from './http/status';
import { createDailyRetention } from './retention';
import { createSre } from './sre/sre';
import { createEvents } from './telemetry/events';
import { expose, type Exposition } from './telemetry/exposition';
import { createLogger, type Logger } from './telemetry/logger';
import { createMetrics, type Metrics } from './telemetry/metrics';
import { createSystemReader } from './telemetry/system';
import { createTracing, type Tracing } from './telemetry/tracing';

export interface Service {
  readonly logger: Logger;
  readonly metrics: Metrics;
  readonly tracing: Tracing;
  /**
   * Resolves when every listener accepts connections; the database may still be away.
   * @throws the system's error when an address is taken.
   */
  start(): Promise<void>;
  /** Ports that are listened on, the clear-text one first. */
  ports(): number[];
  /**
   * Not ready from now on, but serving, for DRAIN_MS (unless it never listened); then accepts nothing more, finishes
   * what is in flight within SHUTDOWN_TIMEOUT_MS, closes the database and sends what it has of traces, for a second at
   * most. May be called more than once.
   */
  stop(): Promise<void>;
}

type AppCallback = ReturnType<ReturnType<typeof createApp>['callback']>;

/** The only seam for tests and for a cluster: parts that come from outside. */
export interface Overrides {
  readonly now?: () => Date;
  readonly newId?: () => string;
  readonly logDestination: Writable;
  /** Name of the container, a label of this process's metrics; see containerName(). */
  readonly container?: Promise<string | undefined>;
  /** The metrics of all processes, where there are several; else this one's. */
  readonly metricsText?: (format: Exposition) => Promise<string>;
  readonly pruneEveryMs?: number;
  /** How often to look whether today's retention run is still to be done. */
  readonly retentionEveryMs?: number;
  /** How long an API key is believed to be what it was when it was read. */
  readonly keyCacheMs?: number;
  readonly recordKeyUseEveryMs?: number;
  /** How often the figures of the book are read for the metrics. */
  readonly readBookEveryMs?: number;
  /** How many times as long as usually figures of Prometheus are kept. */
  readonly keepFigures?: number;
}

/** Often enough that what has to go is a few batches, in whichever process is first. */
const PRUNE_EVERY_MS = 60_000;
const RECORD_KEY_USE_EVERY_MS = 60_000;
/** As often as they are usually scraped. */
const READ_BOOK_EVERY_MS = 15_000;
/** Soon after the day begins, and after a start, but not while a release is being rolled out. */
const RETENTION_EVERY_MS = 15 * 60_000;

/** Puts the service together. Nothing runs before start(). */
export function createService(config: Config, secrets: Secrets, overrides: Overrides): Service {
  const { now = () => new Date(), newId = randomUUID, logDestination } = overrides;
  const logger = createLogger(config.logLevel, logDestination);
  const metrics = createMetrics(config, FAILURES);
  const tracing = createTracing(config, secrets.errorTrackingDsn, logger);
  const ownMetrics = async (format: Exposition) =>
    expose([await metrics.registry.getMetricsAsJSON()], format, await overrides.container);
  const metricsText = overrides.metricsText ?? ownMetrics;
  const database = openDatabase(config.database, secrets, { metrics, logger });
  const loans = createLoans(database);
  const repayments = createRepayments(database);
  const events = createEvents(metrics, logger);
  const keys = createKeys(database);
  const retention = createDailyRetention({ database, keys, logger, now, years: config.retentionYears });
  const doOnce = createOnce(keys, events);
  const apiKeys = createKnownKeys(createApiKeys(database, config.environment), overrides.keyCacheMs);
  const chores = new AbortController();
  const ledger = createLedger(database);
  const { maxAmount, version, rateLimit: quota } = config;
  const limiter = quota && createLimiter({ quota, ledger, metrics, logger });
  let draining = false;
  let listened = false;
  const isDraining = () => draining;
  const status = createStatus({ database, release: config, newestMigration: newestMigration(), now, isDraining });
  const system = createSystemReader();
  const databaseIsUp = async () => (await status()).database.status === 'up';
  const sre = createSre({
    config,
    metricsText: () => metricsText('text'),
    system,
    databaseIsUp,
    logger,
    now,
    keep: overrides.keepFigures,
  });

  const app = createApp({
    metrics,
    logger,
    tracing,
    isDraining,
    authorize: createAuthorize({ ...config, keys: apiKeys, events, now }),
    corsOrigins: config.corsOrigins,
    allowedHosts: config.allowedHosts,
    limit: limiter && rateLimit(quota, limiter, config.clientAddress),
    handlers: {
      ...loanHandlers({ loans, repayments, events, once: doOnce, maxAmount, now, newId }),
      ...loanListHandlers({ loans, events, once: doOnce, maxAmount, now, newId }),
      ...repaymentHandlers({ repayments, events, once: doOnce, now, newId }),
      ...healthHandlers({ database, version, now, isDraining, metricsText }),
      ...systemHandlers({ status, history: sre.history, system, now }),
      ...sreHandlers(sre),
      ...docsHandlers(maxAmount),
    },
  });
  const handler = app.callback();
  const inFlight = { count: 0 };
  const listeners = [
    { port: config.port, tls: undefined },
    ...(config.tls === undefined ? [] : [{ port: config.tls.port, tls: config.tls }]),
  ].map(({ port, tls }) => {
    const http = createServer(counted(inFlight, handler), tls, (problem, requestId) => {
      metrics.observeRequest('other', UNMATCHED, problem.status, 0);
      logger.log('info', 'request refused', { request_id: requestId, status: problem.status, problem: problem.slug });
    });
    return { ...http, port };
  });

  let stopping: Promise<void> | undefined;
  const stop = async () => {
    draining = true;
    // After a start that failed there is nobody to wait for.
    const drainMs = listened ? config.drainMs : 0;
    logger.log('info', 'shutting down', { drain_ms: drainMs, in_flight: inFlight.count });
    await Promise.all([sleep(drainMs), tracing.flush()]);
    chores.abort();
    limiter?.stop();
    const cutOff = await closeServers(listeners, inFlight, config.shutdownTimeoutMs);
    await writeKeyUses(apiKeys, logger);
    sre.close();
    await Promise.all([database.close(), tracing.flush()]);
    logger.log(cutOff === 0 ? 'info' : 'warn', 'stopped', { cut_off: cutOff });
  };
  return {
    logger,
    metrics,
    tracing,
    async start() {
      const refreshBook = createBookRefresh({ database, metrics, logger, now });
      // A new release has its figures from its first scrape on.
      await Promise.all([database.warm(), refreshBook()]);
      for (const { server, port } of listeners) {
        server.listen(port, config.host);
        await once(server, 'listening');
        listened = true;
      }
      const {
        pruneEveryMs = PRUNE_EVERY_MS,
        retentionEveryMs = RETENTION_EVERY_MS,
        recordKeyUseEveryMs = RECORD_KEY_USE_EVERY_MS,
        readBookEveryMs = READ_BOOK_EVERY_MS,
      } = overrides;
      void repeat(() => retention(chores.signal), retentionEveryMs, chores.signal);
      void repeat(() => writeKeyUses(apiKeys, logger), recordKeyUseEveryMs, chores.signal);
      void repeat(refreshBook, readBookEveryMs, chores.signal);
      const pruneAll = async () => {
        limiter?.prune();
        await prune('idempotency keys', keys, logger, chores.signal);
        await prune('request quotas', ledger, logger, chores.signal);
      };
      void repeat(pruneAll, pruneEveryMs, chores.signal);
      logger.log('info', 'listening', { ports: listeners.map(({ server }) => portOf(server)), version });
    },
    ports: () => listeners.map(({ server }) => portOf(server)),
    stop: () => (stopping ??= stop()),
  };
}

/** With the given pause before each time, until it is aborted. Keeps no process alive. */
async function repeat(work: () => Promise<void>, pauseMs: number, signal: AbortSignal): Promise<void> {
  while (await sleep(pauseMs, true, { signal, ref: false }).catch(() => false)) await work();
}

async function prune(what: string, from: Pick<Keys, 'prune'>, logger: Logger, signal: AbortSignal): Promise<void> {
  try {
    while (!signal.aborted && (await from.prune()));
  } catch (error) {
    logger.log('warn', `${what} not pruned`, {
      reason: error instanceof Error ? error.message : String(error),
    });
  }
}

interface BookParts {
  readonly database: Pick<Database, 'probe'>;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly now: () => Date;
}

/** Never rejects: what cannot be read stays as it is, and so does the time it is from. Says so once, not every time. */
function createBookRefresh({ database, metrics, logger, now }: BookParts): () => Promise<void> {
  let failing = false;
  return async () => {
    try {
      metrics.showBook(await readBook(database), now());
      if (failing) logger.log('info', 'metrics of the book are fresh again');
      failing = false;
    } catch (error) {
      if (!failing) {
        logger.log('warn', 'metrics of the book not refreshed', {
          reason: error instanceof Error ? error.message : String(error),
        });
      }
      failing = true;
    }
  };
}

async function writeKeyUses(apiKeys: KnownKeys, logger: Logger): Promise<void> {
  try {
    await apiKeys.writeUses();
  } catch (error) {
    logger.log('warn', 'last use of API keys not written', {
      reason: error instanceof Error ? error.message : String(error),
    });
  }
}

function counted(inFlight: { count: number }, handler: AppCallback): RequestListener {
  return (request, response) => {
    inFlight.count++;
    response.once('close', () => inFlight.count--);
    void handler(request, response); // Its failures end in a problem document.
  };
}

/** Accepts nothing more, and resolves to how many requests were not answered in time and had to be cut off. */
async function closeServers(
  listeners: readonly HttpServer[],
  inFlight: { count: number },
  timeoutMs: number,
): Promise<number> {
  const closed = Promise.all(listeners.map((listener) => listener.close()));
  const patience = new AbortController();
  const late = sleep(timeoutMs, false, { signal: patience.signal }).catch(() => false);
  const finished = await Promise.race([closed.then(() => true), late]);
  patience.abort();
  const cutOff = finished ? 0 : inFlight.count;
  for (const { server } of listeners) server.closeAllConnections();
  await closed;
  return cutOff;
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
