import type { Middleware, ParameterizedContext } from 'koa';
import type { RequestTrace } from '../telemetry/tracing';

/** What our middleware puts on `ctx.state`. */
export interface RequestState {
  requestId: string;
  trace: RequestTrace;
  /** Who asks, as the audit trail and the keys of idempotent requests have it. */
  principal: string;
  /** Milliseconds on a clock that never goes back. */
  startedAt: number;
  /** The pattern of the route that was found, such as /api/loans/:id; a bounded set. */
  route: string;
  /** Why the request failed, for the log. */
  failure?: unknown;
}

export type Context = ParameterizedContext<RequestState>;
export type Step = Middleware<RequestState>;
