import type { Middleware, ParameterizedContext } from 'koa';
import type { RequestTrace } from '../telemetry/tracing';

/** What our middleware puts on `ctx.state`. */
export interface RequestState {
  requestId: string;
  trace: RequestTrace;
  /**
   * The client that asks, as the audit trail, the log and the rate limits name it: `key:` and the id of the client's
   * first API key, which a rotation does not change, or `unauthenticated`.
   */
  principal: string;
  /** All names that answers to this client are kept under; that of the key it shows comes first. */
  principals: readonly string[];
  /** Id of the API key that the request shows, once it is known to be valid. */
  keyId?: string;
  /** Milliseconds on a clock that never goes back. */
  startedAt: number;
  /** The pattern of the route that was found, such as /api/loans/:id; a bounded set. */
  route: string;
  /** Why the request failed, for the log. */
  failure?: unknown;
}

export type Context = ParameterizedContext<RequestState>;
export type Step = Middleware<RequestState>;
