import type { z } from 'zod';
import type { Scope } from '../../domain/api-key';
import type { ProblemSlug } from '../../errors';

/** Header fields that an operation may take. */
export const REQUEST_HEADERS = {
  'Idempotency-Key':
    'A name of the client for this request, 1 to 255 visible ASCII characters, with or without quotes. The same request ' +
    'with the same key is done once; for 24 hours it gets the same answer',
  'If-None-Match': 'Entity tags that the client has; if one of them is current, the answer is 304 without a body',
  'If-Match': 'The entity tag of the version that the client has seen; if it is no longer current, nothing is changed',
} as const;

/** What their values look like, where others are refused (see readClaim, readPrecondition). */
export const HEADER_PATTERNS: Partial<Record<keyof typeof REQUEST_HEADERS, string>> = {
  'Idempotency-Key': '^(?:[!#-~][!-~]{0,254}|"(?:[!#-\\[\\]-~]|\\\\["\\\\]){1,255}")$',
  'If-Match': '^(?:\\*|(?:W/)?"[!#-~]*"(?:, ?(?:W/)?"[!#-~]*")*)$',
};
export type Access = Scope | 'public';

export interface Operation<Id extends string = string> {
  readonly id: Id;
  readonly method: 'GET' | 'POST';
  /** What a key must be allowed to do; public needs no key. */
  readonly access: Access;
  /** In the router's notation, as in /api/loans/:id. */
  readonly paths: readonly string[];
  readonly summary: string;
  /** Name of the answer's schema among the components, or media types for anything but JSON. */
  readonly answer: {
    readonly status: number;
    readonly schema?: string;
    readonly mediaType?: string | readonly string[];
    /** Header fields, by name and meaning. */
    readonly headers?: Readonly<Record<string, string>>;
  };
  readonly headers?: readonly (keyof typeof REQUEST_HEADERS)[];
  readonly query?: z.ZodObject;
  readonly body?: string;
  /** What it may answer with, besides `internal` and what comes with its access (see problemsOf). */
  readonly problems: readonly ProblemSlug[];
}

/** Schemas by their names in the OpenAPI document. */
export type Components = Readonly<Record<string, z.ZodType | { readonly listOf: string }>>;

export const DATABASE = ['db-unavailable', 'overloaded', 'storage-full'] as const;
export const ETAG = { ETag: 'Names this version of the loan' } as const;
export const CONTENT_TAG = { ETag: 'Names this content' } as const;
export const REPLAYED = { 'Idempotent-Replayed': 'true, if this is the stored answer of an earlier request' } as const;
export const KEY = ['idempotency-key-invalid', 'idempotency-in-progress', 'idempotency-key-reused'] as const;
export const BODY = [
  'malformed-json',
  'invalid-utf8',
  'payload-too-large',
  'unsupported-media-type',
  'validation-error',
  'unknown-property',
  'invalid-text',
] as const;

/**
 * All problems that an operation may answer with. To check a key the database may have to be asked. How a request is
 * framed is checked before anything else (see wellFormedRequest).
 */
export function problemsOf({ access, problems }: Operation): readonly ProblemSlug[] {
  const ofKey = access === 'public' ? [] : (['unauthorized', 'forbidden', ...DATABASE] as const);
  return [...new Set<ProblemSlug>([...problems, ...ofKey, 'malformed-request', 'expectation-failed', 'internal'])];
}

/** On every answer of an operation that is not public, in a stack with rate limits. */
const RATE_LIMIT = {
  'RateLimit-Policy': 'How many requests (q) a caller may make in how many seconds (w), where that is limited',
  RateLimit: 'How many requests the caller has left (r), and in how many seconds there will be more (t)',
} as const;

/** Header fields of the problems that have some, by name and meaning. */
export const PROBLEM_HEADERS: Partial<Record<ProblemSlug, Readonly<Record<string, string>>>> = {
  'quota-exceeded': { ...RATE_LIMIT, 'Retry-After': 'In how many seconds another request may pass' },
};

/** The same operation under both prefixes. */
export const api = (path: string) => [`/api${path}`, `/api/v1${path}`];

/** What only depends on an operation's access is added here. */
export function operations<const Id extends string>(list: readonly Operation<Id>[]): readonly Operation<Id>[] {
  return list.map((operation) => (operation.access === 'public' ? operation : limited(operation)));
}

function limited<Id extends string>(operation: Operation<Id>): Operation<Id> {
  const { answer, problems } = operation;
  return {
    ...operation,
    answer: { ...answer, headers: { ...answer.headers, ...RATE_LIMIT } },
    problems: [...problems, 'quota-exceeded'],
  };
}
