import type { IncomingMessage } from 'node:http';
import { BODY_LIMIT_BYTES } from '../config';
import { Problem } from '../errors';
import type { Context } from './context';
import { parseJson } from './json';

const JSON_TYPE = /^application\/json\s*(?:;\s*charset\s*=\s*(?:"utf-8"|utf-8)\s*)?;?\s*$/i;
/** In characters. The pattern above takes quadratic time for a run of spaces. */
export const MAX_TYPE = 100;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads the request's body as JSON (see parseJson).
 * @throws Problem unsupported-media-type, payload-too-large, malformed-request, request-timeout, invalid-utf8 or
 * malformed-json.
 */
export async function readJson(ctx: Context, maxBytes = BODY_LIMIT_BYTES): Promise<unknown> {
  return parseJson(await readText(ctx, maxBytes));
}

/**
 * The request's body, which says of itself that it is JSON. What the header fields show to be unacceptable is refused
 * before the body is asked for.
 * @throws Problem unsupported-media-type, payload-too-large, malformed-request, request-timeout or invalid-utf8.
 */
export async function readText(ctx: Context, maxBytes = BODY_LIMIT_BYTES): Promise<string> {
  const { headers, httpVersion } = ctx.req;
  const type = headers['content-type'] ?? '';
  if (type.length > MAX_TYPE || !JSON_TYPE.test(type)) {
    throw new Problem('unsupported-media-type', 'Send the body as Content-Type: application/json, in UTF-8.');
  }
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw new Problem('unsupported-media-type', 'Send the body without a Content-Encoding.');
  }
  if (Number(headers['content-length'] ?? 0) > maxBytes) throw tooLarge(maxBytes);
  // `wellFormedRequest` let no other expectation through; HTTP/1.0 knows none.
  if (headers.expect !== undefined && httpVersion === '1.1') ctx.res.writeContinue();
  const bytes = await readBytes(ctx.req, maxBytes);
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw new Problem('invalid-utf8', 'The body has bytes that are not UTF-8.', { cause: error });
  }
}

/** Requests whose body cannot be read to its end, and why. */
const broken = new WeakMap<IncomingMessage, Problem>();
const BROKEN_OFF = Symbol('broken off');

/** Ends the body of a request with a problem, which its reader gets. */
export function breakOffBody(request: IncomingMessage, problem: Problem): void {
  broken.set(request, problem);
  request.emit(BROKEN_OFF);
}

/**
 * All bytes of the body, up to the limit. What a client sends beyond it is read and thrown away by Node, so that the
 * answer reaches a client that is still sending; the server's request timeout bounds that.
 */
function readBytes(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const collect = (chunk: Buffer) => {
      length += chunk.length;
      if (length <= maxBytes) return void chunks.push(chunk);
      request.off('data', collect).resume();
      reject(tooLarge(maxBytes));
    };
    const breakOff = () => reject(broken.get(request) ?? endedEarly());
    if (broken.has(request)) {
      breakOff();
      return;
    }
    request.on('data', collect);
    request.once('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)));
    request.once('error', (error) => reject(endedEarly(error)));
    request.once(BROKEN_OFF, breakOff);
  });
}

function tooLarge(maxBytes: number): Problem {
  return new Problem('payload-too-large', `The body is larger than ${maxBytes} bytes.`);
}

function endedEarly(cause?: Error): Problem {
  return new Problem('malformed-request', 'The body ended too early.', { cause });
}
