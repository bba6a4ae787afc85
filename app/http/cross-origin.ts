import cors from '@koa/cors';
import { OPERATIONS } from './contract';
import { type Operation, REQUEST_HEADERS } from './contract/operation';
import type { Step } from './context';

/** How long a browser may keep the answer to a preflight, in seconds. */
const MAX_AGE_SECONDS = 600;
/** What a page may read of an answer, besides what it always may. */
const EXPOSED = ['Retry-After', 'WWW-Authenticate', 'X-Request-ID', 'RateLimit', 'RateLimit-Policy'];

/**
 * Lets pages of these web sites call the API (the CORS protocol of fetch.spec.whatwg.org). Never with the browser's
 * own credentials: a page shows a key, as every client does. Other sites get the same answers, and their browsers
 * keep those from them.
 */
export function crossOrigin(origins: readonly string[]): Step {
  const allowed = new Set(origins);
  const operations: readonly Operation[] = OPERATIONS;
  const answered = operations.flatMap(({ answer }) => Object.keys(answer.headers ?? {}));
  return cors({
    origin: ({ req }) =>
      req.headers.origin !== undefined && allowed.has(req.headers.origin) ? req.headers.origin : '',
    allowMethods: [...new Set(['HEAD', ...operations.map(({ method }) => method)])],
    allowHeaders: ['Authorization', 'Content-Type', 'X-Request-ID', ...Object.keys(REQUEST_HEADERS)],
    exposeHeaders: [...new Set([...answered, 'Link', ...EXPOSED])],
    maxAge: MAX_AGE_SECONDS,
    keepHeadersOnError: false, // Problems become answers further out, where these fields are set already.
  });
}
