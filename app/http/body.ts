import type { IncomingMessage } from 'node:http';
import { BODY_LIMIT_BYTES } from '../config';
import { Problem } from '../errors';
import type { Context } from './context';
import { parseJson } from './json';

const JSON_TYPE = /^application\/json\s*(?:;\s*charset\s*=\s*(?:"utf-8"|utf-8)\s*)?;?\s*$/i;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads the request's body as JSON (see parseJson).
 * @throws Problem unsupported-media-type, payload-too-large, invalid-utf8 or malformed-json.
 */
export async function readJson(ctx: Context, maxBytes = BODY_LIMIT_BYTES): Promise<unknown> {
  return parseJson(await readText(ctx, maxBytes));
}

/**
 * The request's body, which says of itself that it is JSON.
 * @throws Problem unsupported-media-type, payload-too-large or invalid-utf8.
 */
export async function readText(ctx: Context, maxBytes = BODY_LIMIT_BYTES): Promise<string> {
  const { headers } = ctx.req;
  if (!JSON_TYPE.test(headers['content-type'] ?? '')) {
    throw new Problem('unsupported-media-type', 'Send the body as Content-Type: application/json, in UTF-8.');
  }
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw new Problem('unsupported-media-type', 'Send the body without a Content-Encoding.');
  }
  const bytes = await readBytes(ctx.req, maxBytes);
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw new Problem('invalid-utf8', 'The body has bytes that are not UTF-8.', { cause: error });
  }
}

/**
 * All bytes of the body, up to the limit. What a client sends beyond it is read and thrown away by Node, so that the
 * answer reaches a client that is still sending; the server's request timeout bounds that.
 */
function readBytes(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const tooLarge = () => reject(new Problem('payload-too-large', `The body is larger than ${maxBytes} bytes.`));
    if (Number(request.headers['content-length'] ?? 0) > maxBytes) {
      tooLarge();
      return;
    }
    const chunks: Buffer[] = [];
    let length = 0;
    const collect = (chunk: Buffer) => {
      length += chunk.length;
      if (length <= maxBytes) return void chunks.push(chunk);
      request.off('data', collect).resume();
      tooLarge();
    };
    request.on('data', collect);
    request.once('end', () => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)));
    request.once('error', (error) =>
      reject(new Problem('malformed-request', 'The body ended too early.', { cause: error })),
    );
  });
}
