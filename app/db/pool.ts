import { setTimeout as sleep } from 'node:timers/promises';
import { Pool, type PoolClient } from 'pg';
import type { Config, Secrets } from '../config';
import type { Logger } from '../telemetry/logger';
import { type Metrics, sqlstateClass } from '../telemetry/metrics';
import { beginStatement } from '../telemetry/tracing';
import { createBreaker } from './breaker';
import { asProblem, breaksConnection, codeOf, isLostRace } from './faults';
import { createQueryLog, type QueryLog } from './query-log';
import { createQueue, type PoolState, type Queue } from './queue';

/** One operation on the database. The name is that of the prepared statement, and its label on the metrics. */
export interface Statement<Row> {
  readonly name: string;
  readonly text: string;
  /** Never set: it ties the type of the rows to the statement. */
  readonly row?: Row;
}

export type Value = string | number | null | readonly (string | number | null)[];

export interface Queryable {
  /** Every column of a row is text or null, as the database writes it, so that no decimal passes through a float. */
  query<Row>(statement: Statement<Row>, values?: readonly Value[]): Promise<Row[]>;
}

export interface Database extends Queryable {
  /**
   * Runs the work in one transaction: commits when it resolves, rolls back when it throws. Work that lost a race
   * (serialization failure, deadlock) runs again, up to three times, so it must have no other effect.
   */
  transaction<T>(work: (connection: Queryable) => Promise<T>): Promise<T>;
  /** Asks the database over a connection of its own, so that a full pool does not delay the answer. */
  ping(statement: Statement<{ ready: string }>): Promise<boolean>;
  /** Over that same connection: for who wants to know how the database is, while its pool is busy. */
  probe<Row>(statement: Statement<Row>): Promise<Row[]>;
  /** How many statements may run at a time. */
  readonly connections: number;
  /** Bounds how long is waited for something else than a connection, with the same limit. */
  readonly queueBefore: (state: PoolState, size: number) => Queue;
  /**
   * Opens the pool's connections. A new release gets its traffic all at once; without this its first requests would
   * wait for handshakes. A database that is away is no failure: connections are opened when they are needed.
   */
  warm(): Promise<void>;
  close(): Promise<void>;
}

type DatabaseConfig = Config['database'];

interface Telemetry {
  readonly metrics: Metrics;
  readonly logger: Logger;
}

interface Connections {
  readonly pool: Pool;
  readonly queue: Queue;
}

const MAX_ATTEMPTS = 4;
const BEGIN: Statement<never> = { name: 'begin', text: 'BEGIN' };
const COMMIT: Statement<never> = { name: 'commit', text: 'COMMIT' };
const ROLLBACK: Statement<never> = { name: 'rollback', text: 'ROLLBACK' };
const IS_THERE: Statement<never> = { name: 'is_there', text: 'SELECT' };

/** How to connect, for the pool and for whoever needs one plain connection. All values come as text. */
export function connectionOptions(config: DatabaseConfig, secrets: Secrets, applicationName: string) {
  return {
    host: config.host,
    port: config.port,
    database: config.name,
    user: config.user,
    password: secrets.databasePassword,
    application_name: applicationName,
    options: '-c TimeZone=UTC -c DateStyle=ISO',
    connectionTimeoutMillis: config.connectTimeoutMs,
    keepAlive: true,
    types: { getTypeParser: () => (text: string) => text },
  };
}

/**
 * The pool of one process. Nothing is connected before warm() or the first query.
 *
 * Four timeouts bound every wait: for a connection, for the server to finish a statement, for the client to hear of
 * it (500 ms more, so that the server's own error is the one seen), and for a transaction that its owner forgot.
 * A breaker (see createBreaker) and a queue of bounded length (see createQueue) stand before all but the probes.
 * @throws (from every method) a Problem when the database is away, full or too slow.
 */
export function openDatabase(config: DatabaseConfig, secrets: Secrets, telemetry: Telemetry): Database {
  const budgets = {
    ...connectionOptions(config, secrets, 'branchloans'),
    statement_timeout: config.statementTimeoutMs,
    query_timeout: config.statementTimeoutMs === 0 ? 0 : config.statementTimeoutMs + 500,
    idle_in_transaction_session_timeout: 10_000,
    // What was opened stays open: the database has room for all of it, and on a busy host a new connection takes seconds.
    idleTimeoutMillis: 0,
  };
  // One connection of the size is kept aside for the probes.
  const max = Math.max(1, config.poolSize - 1);
  const pool = watched(new Pool({ ...budgets, max }), telemetry.logger);
  const probes = watched(
    new Pool({ ...budgets, max: 1, statement_timeout: 1_000, query_timeout: 1_000, connectionTimeoutMillis: 1_000 }),
    telemetry.logger,
  );
  telemetry.metrics.watchPool(pool);
  const queryLog = createQueryLog(telemetry, config.slowQueryMs);

  const run = async <T>(from: Connections, work: (connection: Queryable) => Promise<T>): Promise<T> => {
    for (let attempt = 1; ; attempt++) {
      try {
        return await withConnection(from, telemetry.metrics, queryLog, work);
      } catch (error) {
        if (!isLostRace(error) || attempt === MAX_ATTEMPTS) throw asProblem(error);
        await sleep(Math.random() * 10 * 2 ** attempt);
      }
    }
  };
  const main = { pool, queue: createQueue(pool, max, config.queueMs, telemetry.metrics) };
  const aside = { pool: probes, queue: createQueue(probes, 1, 0, telemetry.metrics) };
  const ask = <Row>(statement: Statement<Row>) => run(aside, (connection) => connection.query(statement));
  const breaker = createBreaker({ ask: () => ask(IS_THERE), ...telemetry });
  return {
    query: (statement, values) => breaker.guard(() => run(main, (connection) => connection.query(statement, values))),
    transaction: (work) => breaker.guard(() => run(main, (connection) => inTransaction(connection, work))),
    // Whatever the breaker believes.
    ping: async (statement) => (await ask(statement)).every((row) => row.ready === 't'),
    probe: ask,
    connections: max,
    queueBefore: (state, size) => createQueue(state, size, config.queueMs, telemetry.metrics),
    async warm() {
      const opened = await Promise.allSettled(Array.from({ length: max }, () => pool.connect()));
      for (const result of opened) if (result.status === 'fulfilled') result.value.release();
    },
    async close() {
      breaker.close();
      await Promise.all([pool.end(), probes.end()]);
    },
  };
}

async function withConnection<T>(
  { pool, queue }: Connections,
  metrics: Metrics,
  queryLog: QueryLog,
  work: (connection: Queryable) => Promise<T>,
): Promise<T> {
  queue.enter();
  const client = await connect(pool).catch((error: unknown) => {
    metrics.dbQueryErrors.inc({ sqlstate_class: sqlstateClass(codeOf(error)) });
    throw error;
  });
  const givenBack = queue.served();
  let broken = false;
  const connection: Queryable = {
    async query<Row>(statement: Statement<Row>, values: readonly Value[] = []): Promise<Row[]> {
      try {
        return await timedQuery<Row>(client, statement, values, queryLog);
      } catch (error) {
        broken ||= breaksConnection(error);
        throw error;
      }
    },
  };
  try {
    return await work(connection);
  } finally {
    client.release(broken);
    givenBack();
  }
}

/** Where a new connection cannot be had in time, but one that is there has come free meanwhile, that one serves. */
function connect(pool: Pool): Promise<PoolClient> {
  return pool.connect().catch((error: unknown) => {
    if (pool.idleCount === 0) throw error;
    return pool.connect();
  });
}

async function timedQuery<Row>(
  client: PoolClient,
  { name, text }: Statement<Row>,
  values: readonly Value[],
  queryLog: QueryLog,
): Promise<Row[]> {
  const startedAt = performance.now();
  const endSpans = beginStatement(name);
  try {
    const { rows } = await client.query({ name, text, values: values as unknown[] });
    endSpans?.();
    queryLog.done(name, performance.now() - startedAt);
    return rows as Row[];
  } catch (error) {
    endSpans?.(codeOf(error) ?? 'connection');
    queryLog.failed(name, performance.now() - startedAt, error);
    throw error;
  }
}

async function inTransaction<T>(connection: Queryable, work: (connection: Queryable) => Promise<T>): Promise<T> {
  await connection.query(BEGIN);
  let result: T;
  try {
    result = await work(connection);
  } catch (error) {
    // The first error is the one to report; a connection that can't even roll back is thrown away.
    await connection.query(ROLLBACK).catch(() => undefined);
    throw error;
  }
  await connection.query(COMMIT);
  return result;
}

/**
 * A client that is checked out reports a lost connection as an 'error' event of its own; without a listener that
 * ends the whole process. The query in flight fails as well, so the event only needs to be written down.
 */
function watched(pool: Pool, logger: Logger): Pool {
  const note = (error: Error) =>
    logger.log('warn', 'database connection lost', { code: codeOf(error), reason: error.message });
  pool.on('error', note);
  pool.on('connect', (client) => void client.on('error', note));
  return pool;
}

/** A timestamptz as ISO 8601: "2026-11-21 05:20:44.5+00" as "2026-11-21T05:20:44.500Z": at least milliseconds, and microseconds where stored. */
export function toTimestamp(text: string): string {
  const day = text.slice(0, 10);
  const time = text.slice(11, -'+00'.length);
  const fraction = time.length - 'hh:mm:ss.'.length;
  if (fraction < 0) return `${day}T${time}.000Z`;
  return `${day}T${time}${'00'.slice(Math.min(fraction - 1, 2))}Z`;
}
