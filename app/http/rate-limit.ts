import type { Config } from '../config';
import type { Quota } from '../domain/quota';
import { Problem } from '../errors';
import { callerOf } from './caller';
import type { Context } from './context';
import type { Limiter } from './limiter';

/** What a request must get past before its handler sees it. */
export type Guard = (ctx: Context) => Promise<void>;

const POLICY = 'default';

/**
 * Counts a request against its caller's quota, and says in RateLimit what is left of it
 * (draft-ietf-httpapi-ratelimit-headers-10).
 * @throws Problem quota-exceeded
 */
export function rateLimit(
  { requests, windowSeconds }: Quota,
  limiter: Limiter,
  source: Config['clientAddress'],
): Guard {
  const policy = `"${POLICY}";q=${requests};w=${windowSeconds}`;
  return async function rateLimit(ctx) {
    const admitted = limiter.admit(callerOf(ctx, source));
    const { passes, remaining, resetSeconds } = 'then' in admitted ? await admitted : admitted;
    ctx.res.setHeader('RateLimit-Policy', policy);
    ctx.res.setHeader('RateLimit', `"${POLICY}";r=${remaining};t=${resetSeconds}`);
    if (!passes) throw quotaExceeded(resetSeconds);
  };
}

function quotaExceeded(resetSeconds: number): Problem {
  return new Problem('quota-exceeded', 'Too many requests. Wait for as long as Retry-After says.', {
    headers: { 'Retry-After': String(resetSeconds) },
    extensions: { 'violated-policies': [POLICY] },
  });
}
