import { Problem } from '../errors';
import type { Loan } from '../domain/loan';
import type { Context } from './context';

/** Conditional requests (RFC 9110, 13) about a loan, whose entity tag is strong and changes with every version. */
const TAG = String.raw`(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"`;
const TAG_LIST = new RegExp(String.raw`^(?:[ \t]*,)*[ \t]*${TAG}(?:[ \t]*,(?:[ \t]*${TAG})?)*[ \t]*$`);
const TAGS = new RegExp(TAG, 'g');

export function entityTag({ id, version }: Loan): string {
  return `"${id}.${version}"`;
}

/** Whether If-None-Match says that the client has this very version. Weak tags count, as the RFC has it. */
export function isUnmodified(ctx: Context, tag: string): boolean {
  const known = readTags(ctx.req.headers['if-none-match']);
  return known === '*' || known?.some((one) => one.replace(/^W\//, '') === tag) === true;
}

/** Whether If-Match lets a change of this version through. */
export type Precondition = (tag: string) => boolean;

/**
 * Reads If-Match. Without one everything may be changed: the status machine refuses what is no longer possible, so
 * the condition is for clients that want to decide on nothing but what they have seen. A weak tag matches nothing.
 * @throws Problem malformed-request
 */
export function readPrecondition(ctx: Context): Precondition {
  const field = ctx.req.headers['if-match'];
  if (field === undefined) return () => true;
  const tags = readTags(field);
  if (tags === undefined) {
    throw new Problem('malformed-request', 'If-Match takes entity tags as ETag gives them, in quotes, or an asterisk.');
  }
  return (tag) => tags === '*' || tags.includes(tag);
}

/** The entity tags of a list, `*`, or undefined where the field is neither. */
function readTags(field: string | undefined): '*' | readonly string[] | undefined {
  if (field?.trim() === '*') return '*';
  return field !== undefined && TAG_LIST.test(field) ? (field.match(TAGS) ?? []) : undefined;
}
