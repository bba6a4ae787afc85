import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isUnmodified } from './conditions';
import type { Context } from './context';
import { send } from './send';

/** Something that is the same for as long as this process runs. */
export interface Asset {
  readonly contentType: string;
  readonly body: string;
  /** An entity tag. */
  readonly tag: string;
}

/** Beside this file in the sources, and beside the bundle in the image. */
const DIRECTORY = join(__dirname, 'browser');

export function asset(contentType: string, body: string): Asset {
  return { contentType, body, tag: `"${createHash('sha256').update(body).digest('base64url')}"` };
}

/** A file of browser/, as it is. @throws the system's error when it is not there */
export function assetFile(contentType: string, name: string): Asset {
  return asset(contentType, readFileSync(join(DIRECTORY, name), 'utf8'));
}

/**
 * A browser keeps it, and asks every time whether it is still current. Names with a hash would save the question, but
 * during a deploy a page of one release gets its parts from another.
 */
export function sendAsset(ctx: Context, { contentType, body, tag }: Asset): void {
  ctx.set({ ETag: tag, 'Cache-Control': 'no-cache' });
  if (isUnmodified(ctx, tag)) {
    ctx.status = 304;
    return;
  }
  send(ctx, 200, contentType, body);
}
