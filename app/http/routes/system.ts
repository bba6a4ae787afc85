import type { Sre } from '../../sre/sre';
import type { SystemReader } from '../../telemetry/system';
import { assetFile, sendAsset } from '../assets';
import { readText } from '../body';
import type { Context } from '../context';
import { emptyQuery } from '../contract/values';
import { parseJson } from '../json';
import { sendPage, statusPage } from '../pages';
import { send, sendJson } from '../send';
import type { Status } from '../status';
import { validateQuery } from '../validate';

interface Parts {
  readonly status: Status;
  readonly history: Sre['history'];
  readonly system: SystemReader;
  readonly now: () => Date;
}

export function systemHandlers({ status, history, system, now }: Parts) {
  const script = assetFile('text/javascript; charset=utf-8', 'status.js');
  return {
    async applicationStatus(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      sendJson(ctx, 200, await status());
    },

    async statusPage(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const [state, past] = await Promise.all([status(), history()]);
      sendPage(ctx, 200, statusPage(state, past));
    },

    statusScript: (ctx: Context) => sendAsset(ctx, script),

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
