import { Problem } from '../errors';
import type { Context, Step } from './context';

/**
 * Fields that hold one value and that the service, or the gateway before it, acts on. Of two lines one would have to be
 * chosen, and a proxy on the way may choose the other. Fields that hold a list (Accept, If-Match, If-None-Match,
 * tracestate, X-Forwarded-For) may have several lines. Node refuses a second Content-Length itself. With two lines of
 * traceparent a new trace begins, as W3C Trace Context has it: tracing stops no request.
 */
const SINGLE_FIELDS = [
  ...['Host', 'Authorization', 'Content-Type', 'Content-Encoding', 'Content-Length', 'Expect'],
  ...['Idempotency-Key', 'X-Request-ID', 'X-Operator-Token', 'Origin', 'Access-Control-Request-Method'],
];
const NAMES = new Map(SINGLE_FIELDS.map((name) => [name.toLowerCase(), name]));

/**
 * Refuses what two readers may understand in two ways, before anything is done: the version, the Host, the target, how
 * the body is framed, and fields that are given twice.
 * @throws Problem malformed-request or expectation-failed
 */
export const wellFormedRequest: Step = function wellFormedRequest(ctx, next) {
  const { headers, httpVersion } = ctx.req;
  if (httpVersion !== '1.1' && httpVersion !== '1.0') throw malformed('Speak HTTP/1.1.');
  const twice = fieldGivenTwice(ctx.req.rawHeaders);
  if (twice !== undefined) throw malformed(`Send ${twice} once.`);
  if (headers.host === undefined && httpVersion === '1.1') throw malformed('Send exactly one Host header field.');
  // One without a path was replaced, see requestContext.
  if (!ctx.originalUrl.startsWith('/') || ctx.url !== ctx.originalUrl) throw malformed('The target must be a path.');
  checkFraming(ctx);
  const { expect } = headers;
  if (expect !== undefined && httpVersion === '1.1' && expect.toLowerCase() !== '100-continue') {
    throw new Problem('expectation-failed', 'Expect nothing, or 100-continue.');
  }
  return next();
};

function fieldGivenTwice(rawHeaders: readonly string[]): string | undefined {
  const seen = new Set<string>();
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = NAMES.get((rawHeaders[index] ?? '').toLowerCase());
    if (name === undefined) continue;
    if (seen.has(name)) return name;
    seen.add(name);
  }
  return undefined;
}

/** Node takes every list of codings that ends with chunked, and hands over bytes that are still encoded. */
function checkFraming(ctx: Context): void {
  const coding = ctx.req.headers['transfer-encoding'];
  if (coding === undefined) return;
  if (coding.toLowerCase() === 'chunked' && ctx.req.httpVersion === '1.1') return;
  // Where the body ends is uncertain, and so is what follows it.
  throw new Problem('malformed-request', 'Send the body plain, or in HTTP/1.1 with Transfer-Encoding: chunked.', {
    headers: { Connection: 'close' },
  });
}

function malformed(detail: string): Problem {
  return new Problem('malformed-request', detail);
}
