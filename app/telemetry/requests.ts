import { AsyncLocalStorage } from 'node:async_hooks';
import type { RequestTrace } from './tracing';

/** A request, as far as what is far below it has to know. */
export interface ServedRequest {
  /** Its X-Request-ID. */
  readonly id: string;
  readonly trace: RequestTrace;
}

/**
 * On whose behalf something is done, for the log and for the traces: a statement may be that of many requests, or of
 * none.
 */
const current = new AsyncLocalStorage<readonly ServedRequest[]>();

/** Does the work, and all that it sets off, on behalf of these requests. */
export function onBehalfOf<T>(requests: readonly ServedRequest[], work: () => T): T {
  return current.run(requests, work);
}

/** None for what the service does by itself. */
export function requestsServed(): readonly ServedRequest[] {
  return current.getStore() ?? [];
}

/** For a log line: the trace of the one request that it is about, while that is being answered. */
export function traceFields(): { readonly trace_id?: string; readonly span_id?: string } {
  const [request, ...others] = requestsServed();
  return request === undefined || others.length > 0 ? {} : request.trace.logFields();
}

/** For a request to somebody else: W3C Trace Context of the one request that it is made for, while that is being answered. */
export function traceHeaders(): Readonly<Record<string, string>> {
  const [request, ...others] = requestsServed();
  return request === undefined || others.length > 0 ? {} : request.trace.headers();
}

/** A line must not grow with the load. */
const MOST_NAMED = 50;

/** For a log line: `request_id`, and `request_ids` as well where there are several; of very many, the first ones. */
export function requestFields(): { readonly request_id?: string; readonly request_ids?: readonly string[] } {
  const [first, ...others] = new Set(requestsServed().map(({ id }) => id));
  if (first === undefined) return {};
  return others.length === 0
    ? { request_id: first }
    : { request_id: first, request_ids: [first, ...others].slice(0, MOST_NAMED) };
}
