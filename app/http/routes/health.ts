import type { Database, Statement } from '../../db/pool';
import { Problem } from '../../errors';
import { type Exposition, EXPOSITIONS } from '../../telemetry/exposition';
import type { Context } from '../context';
import { send, sendJson } from '../send';

interface Parts {
  readonly database: Database;
  readonly version: string;
  readonly now: () => Date;
  readonly isDraining: () => boolean;
  /** The metrics of the whole service. */
  readonly metricsText: (format: Exposition) => Promise<string>;
}

const SELECT_ONE: Statement<{ ready: string }> = { name: 'health_db', text: "SELECT 't' AS ready" };
/** A database without the schema answers, but can't serve a request yet. */
const HAS_SCHEMA: Statement<{ ready: string }> = {
  name: 'health_ready',
  text: "SELECT to_regclass('loans') IS NOT NULL AS ready",
};

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
      // Whoever does not ask for it by name, as Prometheus does, gets what everything reads.
      const format = /application\/openmetrics-text/i.test(ctx.get('accept')) ? 'openmetrics' : 'text';
      ctx.vary('Accept');
      send(ctx, 200, EXPOSITIONS[format], await metricsText(format));
    },
  };
}

function causeOf(error: unknown): unknown {
  return error instanceof Problem ? error.cause : error;
}
