import type { SystemReader } from '../../telemetry/system';
import { readText } from '../body';
import type { Context } from '../context';
import { emptyQuery } from '../contract/values';
import { parseJson } from '../json';
import { send, sendJson } from '../send';
import type { Status } from '../status';
import { validateQuery } from '../validate';

interface Parts {
  readonly status: Status;
  readonly system: SystemReader;
  readonly now: () => Date;
}

export function systemHandlers({ status, system, now }: Parts) {
  return {
    async applicationStatus(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      sendJson(ctx, 200, await status());
    },

    async systemMetrics(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      sendJson(ctx, 200, { timestamp: now().toISOString(), ...(await system.read()) });
    },

    /** Needs no idempotency: it changes nothing, and the same request has the same answer anyway. */
    async echo(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const text = await readText(ctx);
      parseJson(text);
      send(ctx, 200, 'application/json; charset=utf-8', text);
    },
  };
}
