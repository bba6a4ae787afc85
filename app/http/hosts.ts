import { Problem } from '../errors';
import type { Step } from './context';
import { PROBE_ROUTES } from './observe';

/**
 * Answers only to these names, with any port. A page of another site whose name was made to lead here (DNS
 * rebinding) gets nothing. Monitors come by address, so what they ask is answered to any name.
 * @param names lower case; none allows all
 */
export function allowedHosts(names: readonly string[]): Step {
  const allowed = new Set(names);
  return function allowedHosts(ctx, next) {
    if (isAllowed(ctx.req.headers.host ?? '') || PROBE_ROUTES.has(ctx.path)) return next();
    throw new Problem('misdirected-request', 'Check the host name of the request: the service has others.');
  };

  function isAllowed(host: string): boolean {
    if (allowed.size === 0 || allowed.has(host)) return true;
    return allowed.has(host.replace(/:\d*$/, '').toLowerCase());
  }
}
