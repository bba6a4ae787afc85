import type { Sre } from '../../sre/sre';
import { asset, assetFile, sendAsset } from '../assets';
import type { Context } from '../context';
import { emptyQuery } from '../contract/values';
import { dashboardPage } from '../dashboard';
import { PAGE_POLICY } from '../html';
import { sendJson } from '../send';
import { validateQuery } from '../validate';

export function sreHandlers(sre: Sre) {
  const page = asset('text/html; charset=utf-8', dashboardPage());
  const script = assetFile('text/javascript; charset=utf-8', 'dashboard.js');
  const answers = (find: () => Promise<object>) => async (ctx: Context) => {
    validateQuery(emptyQuery, ctx);
    sendJson(ctx, 200, await find());
  };
  return {
    sreDashboard: answers(sre.dashboard),
    sreHealth: answers(sre.health),
    sreMetrics: answers(sre.metrics),
    sreCapacity: answers(sre.capacity),
    sreCircuitBreakers: answers(sre.circuitBreakers),
    sreAlerts: answers(sre.alerts),
    statusHistory: answers(sre.history),

    sreDashboardPage(ctx: Context) {
      ctx.set('Content-Security-Policy', PAGE_POLICY);
      sendAsset(ctx, page);
    },

    sreDashboardScript: (ctx: Context) => sendAsset(ctx, script),
  };
}
