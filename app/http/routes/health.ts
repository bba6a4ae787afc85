import type { Database, Statement } from '../../db/pool';
import { Problem } from '../../errors';
import type { Context } from '../context';
import { send, sendJson } from '../send';

interface Parts {
  readonly database: Database;
  readonly version: string;
  readonly now: () => Date;
  readonly isDraining: () => boolean;
  /** The metrics of the whole service in the text format. */
  readonly metricsText: () => Promise<string>;
}

const SELECT_ONE: Statement<{ ready: string }> = { name: 'health_db', text: "SELECT 't' AS ready" };
/** A database without the schema answers, but can't serve a request yet. */
const HAS_SCHEMA: Statement<{ ready: string }> = {
  name: 'health_ready',
  text: "SELECT to_regclass('loans') IS NOT NULL AS ready",
};
const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export function healthHandlers({ database, version, now, isDraining, metricsText }: Parts) {
  const startedAt = performance.now();
  return {
    health(ctx: Context) {
      const uptime_seconds = Math.round(performance.now() - startedAt) / 1_000;
      sendJson(ctx, 200, { status: 'ok', timestamp: now().toISOString(), uptime_seconds, version });
    },

    live(ctx: Context) {
      sendJson(ctx, 200, { status: 'ok' });
    },

    async ready(ctx: Context) {
      if (isDraining()) throw new Problem('shutting-down', 'Send requests to another instance.');
      if (!(await database.ping(HAS_SCHEMA))) {
        throw new Problem('db-unavailable', 'The database has no schema yet: run the migrations.');
      }
      sendJson(ctx, 200, { status: 'ok' });
    },

    async databaseHealth(ctx: Context) {
      const askedAt = performance.now();
      await database.ping(SELECT_ONE).catch((error: unknown) => {
        throw new Problem('db-check-failed', 'The database did not answer.', { cause: causeOf(error) });
      });
      const database_ms = Math.round((performance.now() - askedAt) * 1_000) / 1_000;
      sendJson(ctx, 200, { status: 'ok', database_ms });
    },

    async metrics(ctx: Context) {
      send(ctx, 200, METRICS_TYPE, await metricsText());
    },
  };
}

function causeOf(error: unknown): unknown {
  return error instanceof Problem ? error.cause : error;
}
