import { AsyncLocalStorage } from 'node:async_hooks';

/**
 * On whose behalf something is done, for the log of what is far below the request: a statement may be that of many
 * requests, or of none.
 */
const current = new AsyncLocalStorage<readonly string[]>();

/** Does the work, and all that it sets off, on behalf of these requests. */
export function onBehalfOf<T>(requestIds: readonly string[], work: () => T): T {
  return current.run(requestIds, work);
}

/** The ids of the requests; none for what the service does by itself. */
export function requestsServed(): readonly string[] {
  return current.getStore() ?? [];
}

/** A line must not grow with the load. */
const MOST_NAMED = 50;

/** For a log line: `request_id`, and `request_ids` as well where there are several; of very many, the first ones. */
export function requestFields(): { request_id?: string; request_ids?: readonly string[] } {
  const [first, ...others] = new Set(requestsServed());
  if (first === undefined) return {};
  return others.length === 0
    ? { request_id: first }
    : { request_id: first, request_ids: [first, ...others].slice(0, MOST_NAMED) };
}
