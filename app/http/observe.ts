import { randomUUID } from 'node:crypto';
import { Problem } from '../errors';
import type { Logger, LogLevel } from '../telemetry/logger';
import type { Metrics } from '../telemetry/metrics';
import { onBehalfOf } from '../telemetry/requests';
import { hasSecret, pathWithoutSecrets } from '../telemetry/secrets';
import type { Tracing } from '../telemetry/tracing';
import type { Context, Step } from './context';
import { logFailure } from './problem';

/** The route label of a request that no route matches. */
export const UNMATCHED = 'unmatched';

/** A name that anybody could claim would be worth nothing in an audit trail. */
export const UNAUTHENTICATED = 'unauthenticated';
const REQUEST_ID = /^[A-Za-z0-9._-]{1,128}$/;
const METHODS = new Set(['GET', 'POST', 'OPTIONS', 'PUT', 'PATCH', 'DELETE']);
/** Asked every few seconds by machines: their success is no news. */
export const PROBE_ROUTES: ReadonlySet<string> = new Set([
  '/health',
  '/health/live',
  '/health/ready',
  '/health-db',
  '/metrics',
]);
/** What other servers log for a client that went away before the answer. */
const CLIENT_CLOSED = 499;
const MAX_LOGGED_PATH = 256;

/**
 * Names the request: by its X-Request-ID where that is safe to repeat, else by a new UUID. The answer carries it. And
 * begins its part of a trace.
 */
export function requestContext(tracing: Tracing): Step {
  return function requestContext(ctx, next) {
    // All that follows reads the path, the log as well. `wellFormedRequest` refuses the request.
    if (!hasPath(ctx)) ctx.req.url = '/';
    const given = ctx.req.headers['x-request-id'];
    ctx.state.requestId = isRequestId(given) ? given : randomUUID();
    ctx.state.trace = tracing.begin(ctx.req.headers, PROBE_ROUTES.has(ctx.path));
    ctx.state.principal = UNAUTHENTICATED;
    ctx.state.principals = [UNAUTHENTICATED];
    ctx.state.startedAt = performance.now();
    ctx.state.route = UNMATCHED;
    ctx.res.setHeader('X-Request-ID', ctx.state.requestId);
    return onBehalfOf([served(ctx)], next);
  };
}

/** It is repeated in answers, logs, traces and the audit trail. */
function isRequestId(given: string | string[] | undefined): given is string {
  return typeof given === 'string' && REQUEST_ID.test(given) && !hasSecret(given);
}

/** Node takes targets that nobody can take apart, such as http://a[b/, and some without a path, such as foo://a. */
function hasPath(ctx: Context): boolean {
  try {
    return typeof ctx.path === 'string';
  } catch {
    return false;
  }
}

const served = ({ state: { requestId, trace } }: Context) => ({ id: requestId, trace });

/** Counts, times and logs every request once its answer has left, or its client has, and ends its part of a trace. */
export function observe(metrics: Metrics, logger: Logger): Step {
  return function observe(ctx, next) {
    metrics.httpRequestsInFlight.inc();
    const closed = () => {
      metrics.httpRequestsInFlight.dec();
      const { startedAt, requestId, trace, route } = ctx.state;
      const milliseconds = performance.now() - startedAt;
      const failure = brokenOff(ctx);
      if (failure !== undefined) logFailure(logger, requestId, failure);
      const status = ctx.res.writableFinished ? ctx.res.statusCode : (failure?.status ?? CLIENT_CLOSED);
      const method = ctx.method === 'HEAD' ? 'GET' : METHODS.has(ctx.method) ? ctx.method : 'other';
      metrics.observeRequest(method, route, status, milliseconds / 1_000, trace.sampled ? trace.traceId : undefined);
      logAccess(logger, ctx, status, milliseconds);
      const { problem, error } = failureOf(ctx);
      trace.end({ requestId, method, route, status, problem, error });
    };
    // The event comes from the connection, which knows of no request.
    ctx.res.once('close', () => onBehalfOf([served(ctx)], closed));
    return next();
  };
}

/** Why an answer that had begun did not come to its end; what is answered with a problem document is logged there. */
function brokenOff({ state: { failure }, res }: Context): Problem | undefined {
  return failure instanceof Problem && res.statusCode < failure.status ? failure : undefined;
}

/** The problem that was answered with, and what caused one that nobody expected. */
function failureOf({ state: { failure } }: Context): { readonly problem?: string; readonly error?: unknown } {
  if (!(failure instanceof Problem)) return {};
  return { problem: failure.slug, ...(failure.slug === 'internal' && { error: failure.cause ?? failure }) };
}

function logAccess(logger: Logger, ctx: Context, status: number, milliseconds: number): void {
  const { requestId, route, failure } = ctx.state;
  const level: LogLevel = PROBE_ROUTES.has(route) && failure === undefined ? 'debug' : 'info';
  if (logger.writes(level)) {
    logger.log(level, 'request', {
      request_id: requestId,
      method: ctx.method,
      path: pathWithoutSecrets(ctx.path).slice(0, MAX_LOGGED_PATH),
      principal: ctx.state.principal === UNAUTHENTICATED ? undefined : ctx.state.principal,
      key_id: ctx.state.keyId,
      route,
      status,
      duration_ms: Math.round(milliseconds * 1_000) / 1_000,
      problem: failureOf(ctx).problem,
    });
  }
}
