import { setImmediate as othersFirst } from 'node:timers/promises';
import type { z } from 'zod';
import { Problem, type ProblemSlug, type RequestFault } from '../errors';
import type { Context } from './context';

const MAX_FAULTS = 20;
const MAX_NAME = 100;
export const MAX_PARAMETERS = 100;
/** Some milliseconds of work. */
const ITEMS_AT_ONCE = 100;

/**
 * Holds a body to its schema.
 * @throws Problem with a JSON pointer for every fault. Its type is that of the faults when they are all of one kind
 * (invalid-amount, unknown-property, invalid-text), else validation-error.
 */
export function validateBody<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw refusal(parsed.error.issues);
}

/**
 * Holds each item of a list to its schema, all of them or none, and lets other requests in between. What is found
 * wrong first is reported; after so many faults it looks no further.
 * @param name of the property of the body that is the list
 * @throws Problem as validateBody does
 */
export async function validateItems<T>(schema: z.ZodType<T>, items: readonly unknown[], name: string): Promise<T[]> {
  const valid: T[] = [];
  const issues: Issue[] = [];
  for (const [index, item] of items.entries()) {
    if (index > 0 && index % ITEMS_AT_ONCE === 0) await othersFirst();
    const parsed = schema.safeParse(item);
    if (parsed.success) valid.push(parsed.data);
    else issues.push(...parsed.error.issues.map((issue) => ({ ...issue, path: [name, index, ...issue.path] })));
    if (countOf(issues) >= MAX_FAULTS) break;
  }
  if (issues.length > 0) throw refusal(issues);
  return valid;
}

/** As many as bodyFaults makes of them. */
function countOf(issues: readonly Issue[]): number {
  return issues.reduce((sum, issue) => sum + (issue.code === 'unrecognized_keys' ? issue.keys.length : 1), 0);
}

function refusal(issues: readonly Issue[]): Problem {
  const kinds = new Set(issues.map(kindOf));
  const [kind = 'validation-error'] = kinds;
  const faults = issues.flatMap(bodyFaults).slice(0, MAX_FAULTS);
  return new Problem(kinds.size === 1 ? kind : 'validation-error', summaryOf(faults), { faults });
}

/**
 * Holds the query string to its schema; every parameter may occur once, in UTF-8 and percent-encoded where it must be.
 * @throws Problem invalid-parameter
 */
export function validateQuery<T>(schema: z.ZodType<T>, ctx: Context): T {
  const { values, faults } = readQuery(ctx.querystring);
  const parsed = schema.safeParse(values);
  if (parsed.success && faults.length === 0) return parsed.data;
  for (const issue of parsed.error?.issues ?? []) {
    const names = issue.code === 'unrecognized_keys' ? issue.keys : [String(issue.path[0])];
    const detail = issue.code === 'unrecognized_keys' ? 'is not a parameter of this resource' : issue.message;
    faults.push(...names.map((name) => ({ parameter: name.slice(0, MAX_NAME), detail })));
  }
  const reported = faults.slice(0, MAX_FAULTS);
  throw new Problem('invalid-parameter', summaryOf(reported), { faults: reported });
}

/** Not URLSearchParams, which replaces what it cannot decode: a search for another name would find nothing. */
function readQuery(querystring: string): { values: Record<string, string>; faults: RequestFault[] } {
  const values: Record<string, string> = {};
  const faults: RequestFault[] = [];
  const pairs = querystring === '' ? [] : querystring.split('&', MAX_PARAMETERS + 1);
  if (pairs.length > MAX_PARAMETERS) {
    throw new Problem('invalid-parameter', `The query has more than ${MAX_PARAMETERS} parameters.`);
  }
  for (const pair of pairs) {
    if (pair === '') continue;
    const end = pair.includes('=') ? pair.indexOf('=') : pair.length;
    const [name, value] = [decode(pair.slice(0, end)), decode(pair.slice(end + 1))];
    const parameter = (name ?? pair.slice(0, end)).slice(0, MAX_NAME);
    if (name === undefined || value === undefined) {
      faults.push({ parameter, detail: 'must be UTF-8 in percent-encoding, such as M%C3%BCller' });
    } else if (Object.hasOwn(values, name)) {
      faults.push({ parameter, detail: 'is given more than once' });
    } else {
      Object.defineProperty(values, name, { value, enumerable: true });
    }
  }
  return { values, faults };
}

/** A part of a query string, in which a plus stands for a space; undefined if it has other bytes, or is no UTF-8. */
function decode(text: string): string | undefined {
  if (/[^\x21-\x7e]/.test(text)) return undefined;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}

type Issue = z.core.$ZodIssue;

/** Schemas name the kind of a fault in `params.problem`. */
function kindOf(issue: Issue): ProblemSlug {
  if (issue.code === 'unrecognized_keys') return 'unknown-property';
  const named: unknown = issue.code === 'custom' ? issue.params?.['problem'] : undefined;
  return named === 'invalid-amount' || named === 'invalid-text' ? named : 'validation-error';
}

function bodyFaults(issue: Issue): RequestFault[] {
  if (issue.code !== 'unrecognized_keys') return [{ pointer: pointer(issue.path), detail: issue.message }];
  return issue.keys.map((key) => ({ pointer: pointer([...issue.path, key]), detail: 'is not a known property' }));
}

/** RFC 6901. */
function pointer(path: readonly PropertyKey[]): string {
  return path.map((part) => `/${String(part).slice(0, MAX_NAME).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}

function summaryOf(faults: readonly RequestFault[]): string {
  return faults.map(({ pointer, parameter, detail }) => `${pointer || parameter || 'The body'} ${detail}`).join('; ');
}
