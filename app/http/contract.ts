import { z } from 'zod';
import { LOAN_STATUSES, type LoanRequest, type LoanStatus, NEEDS_REASON } from '../domain/loan';
import { AmountFault, type Amount, type DecimalRule, parseAmount, readDecimal, withoutExponent } from '../domain/money';
import type { ProblemSlug } from '../errors';
import type { Position } from '../db/loans';
import { JsonNumber } from './json';

/**
 * What the API takes and gives: every schema validates a request or describes an answer, and all of it becomes the
 * OpenAPI document. The operations below are the only routes there are.
 */
const MAX_TEXT = 255;
const MAX_REASON = 1_000;
const MAX_INTEGER = 2_147_483_647;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** Postgres cannot store NUL, and half of a surrogate pair is no character. */
const UNSTORABLE = /[\0\p{Surrogate}]/u;

const decimalText = z.string().meta({ format: 'decimal', pattern: '^-?\\d+\\.\\d{2,4}$', examples: ['12500.00'] });

/** A decimal that is read exactly, from a JSON number or a string; its faults have the given problem type. */
function decimal(rule: DecimalRule, problem: ProblemSlug) {
  return z
    .union([z.instanceof(JsonNumber), z.string()], { error: 'must be a number or a decimal string' })
    .transform((value, context): Amount => {
      try {
        return readDecimal(typeof value === 'string' ? value : withoutExponent(value.source), rule);
      } catch (error) {
        if (!(error instanceof AmountFault)) throw error;
        context.addIssue({ code: 'custom', message: error.message, params: { problem } });
        return z.NEVER;
      }
    });
}

const integer = (min: number, max: number) =>
  z.instanceof(JsonNumber, { error: 'must be a number' }).transform((value, context) => {
    const number = /^-?\d{1,12}$/.test(value.source) ? Number(value.source) : NaN;
    if (number >= min && number <= max) return number;
    context.addIssue({ code: 'custom', message: `must be a whole number from ${min} to ${max}` });
    return z.NEVER;
  });

const text = (maxLength: number) =>
  z
    .string({ error: 'must be a string' })
    .check((context) => {
      if (UNSTORABLE.test(context.value)) {
        context.issues.push({
          code: 'custom',
          input: context.value,
          message: 'has a character that cannot be stored (NUL or half of a surrogate pair)',
          params: { problem: 'invalid-text' },
        });
      }
    })
    .refine((value) => /\S/.test(value), 'must not be empty')
    .refine((value) => Array.from(value).length <= maxLength, `must have at most ${maxLength} characters`)
    .meta({ minLength: 1, maxLength, pattern: '\\S' });

const currency = z
  .string({ error: 'must be a string' })
  .regex(/^[A-Za-z]{3}$/, 'must be three letters such as KES')
  .transform((value) => value.toUpperCase());

/** @param maxAmount a decimal string: the largest amount of one loan. */
export function newLoanSchema(maxAmount: string): z.ZodType<LoanRequest> {
  const amountRule = { fractionDigits: 2, min: parseAmount('0'), max: parseAmount(maxAmount), aboveMin: true };
  const rateRule = { fractionDigits: 2, min: parseAmount('0'), max: parseAmount('100'), aboveMin: false };
  return z
    .strictObject(
      {
        borrower_id: text(MAX_TEXT).meta({ description: 'Who borrows', examples: ['usr_kenya_001'] }),
        amount: decimal(amountRule, 'invalid-amount').meta({
          description: `Greater than 0, at most ${maxAmount}, at most two digits after the point. Read exactly, never rounded.`,
          anyOf: [
            { type: 'number', exclusiveMinimum: 0, maximum: Number(maxAmount), multipleOf: 0.01 },
            { type: 'string', format: 'decimal', pattern: '^\\d+(\\.\\d{1,2})?$' },
          ],
          examples: ['12500.00', 12500],
        }),
        currency: currency.meta({
          description: 'Three letters; stored in upper case',
          pattern: '^[A-Za-z]{3}$',
          examples: ['KES'],
        }),
        term_months: integer(1, MAX_INTEGER)
          .nullish()
          .transform((value) => value ?? null)
          .meta({ anyOf: [{ type: 'integer', minimum: 1, maximum: MAX_INTEGER }, { type: 'null' }], examples: [6] }),
        interest_rate_apr: decimal(rateRule, 'validation-error')
          .nullish()
          .transform((value) => value ?? null)
          .meta({
            description: 'Percent a year, 0 to 100, at most two digits after the point',
            anyOf: [
              { type: 'number', minimum: 0, maximum: 100, multipleOf: 0.01 },
              { type: 'string', format: 'decimal', pattern: '^\\d+(\\.\\d{1,2})?$' },
              { type: 'null' },
            ],
            examples: ['28.00'],
          }),
      },
      { error: (issue) => (issue.code === 'invalid_type' ? 'must be an object' : undefined) },
    )
    .transform((loan) => ({
      borrowerId: loan.borrower_id,
      amount: loan.amount,
      currency: loan.currency,
      termMonths: loan.term_months,
      interestRateApr: loan.interest_rate_apr,
    }));
}

export interface TransitionRequest {
  readonly to: LoanStatus;
  readonly reason: string | null;
}

export const transitionSchema: z.ZodType<TransitionRequest> = z
  .strictObject(
    {
      to: z.enum(LOAN_STATUSES, { error: `must be one of ${LOAN_STATUSES.join(', ')}` }),
      reason: text(MAX_REASON)
        .nullish()
        .transform((value) => value ?? null)
        .meta({
          description: `Why; required for ${NEEDS_REASON.join(' and ')}`,
          anyOf: [{ type: 'string', minLength: 1, maxLength: MAX_REASON, pattern: '\\S' }, { type: 'null' }],
        }),
    },
    { error: (issue) => (issue.code === 'invalid_type' ? 'must be an object' : undefined) },
  )
  .refine(({ to, reason }) => reason !== null || !NEEDS_REASON.includes(to), {
    path: ['reason'],
    message: `is required for ${NEEDS_REASON.join(' and ')}`,
  })
  .meta({
    if: { properties: { to: { enum: [...NEEDS_REASON] } } },
    then: { properties: { reason: { type: 'string' } }, required: ['reason'] },
  });

/** A UUID as it is stored, or undefined. */
export function readId(value: string | undefined): string | undefined {
  return value !== undefined && UUID.test(value) ? value.toLowerCase() : undefined;
}

/** Years from 0001 on: the calendar of Postgres has no year 0. */
const CURSOR = /^((?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z)\|(.{36})$/;

export function writeCursor({ createdAt, id }: Position): string {
  return Buffer.from(`${createdAt}|${id}`).toString('base64url');
}

function readCursor(cursor: string): Position | undefined {
  const [, createdAt = '', id] = CURSOR.exec(Buffer.from(cursor, 'base64url').toString('latin1')) ?? [];
  const moment = new Date(createdAt);
  // A date such as 30 February parses, as another day.
  const real = !Number.isNaN(moment.getTime()) && moment.toISOString().slice(0, 23) === createdAt.slice(0, 23);
  const position = readId(id);
  return real && position !== undefined ? { createdAt, id: position } : undefined;
}

const DEFAULT_LIMIT = 50;

export const emptyQuery = z.strictObject({});

export const loanListQuery = z.strictObject({
  limit: z
    .string()
    .optional()
    .transform((value, context) => {
      if (value === undefined) return DEFAULT_LIMIT;
      if (/^[1-9]\d?$|^100$/.test(value)) return Number(value);
      context.addIssue({ code: 'custom', message: 'must be a whole number from 1 to 100' });
      return z.NEVER;
    })
    .meta({ type: 'integer', minimum: 1, maximum: 100, default: DEFAULT_LIMIT, description: 'Loans on a page' }),
  cursor: z
    .string()
    .transform((value, context) => {
      const position = readCursor(value);
      if (position !== undefined) return position;
      context.addIssue({ code: 'custom', message: 'must be taken from the Link header of a page' });
      return z.NEVER;
    })
    .optional()
    .meta({ type: 'string', description: 'Where the page starts: taken from the Link header (rel="next") of another' }),
});

const status = z.enum(LOAN_STATUSES);
const count = z.int().min(0);
const timestamp = z.iso.datetime();

export const loanSchema = z.strictObject({
  id: z.uuid(),
  borrower_id: z.string(),
  amount: decimalText,
  currency: z.string().regex(/^[A-Z]{3}$/),
  term_months: z.int().min(1).nullable(),
  interest_rate_apr: decimalText.nullable(),
  status,
  created_at: timestamp,
  updated_at: timestamp,
});

export const loanEventSchema = z.strictObject({
  sequence: z.int().min(1).meta({ description: 'Rises with every event of any loan' }),
  at: timestamp,
  actor: z.string().meta({ description: 'Who did it' }),
  action: z.string().meta({ examples: ['created', 'transitioned'] }),
  from: status.nullable().meta({ description: 'Null for the creation' }),
  to: status,
  reason: z.string().nullable(),
  request_id: z.string().nullable().meta({ description: 'X-Request-ID of the request that did it' }),
  amount: decimalText,
  currency: z.string().regex(/^[A-Z]{3}$/),
});

export const statisticsSchema = z.strictObject({
  total_loans: count,
  by_status: z.record(status, count),
  by_currency: z
    .record(
      z.string().regex(/^[A-Z]{3}$/),
      z.strictObject({ loans: count, total_amount: decimalText, avg_amount: decimalText }),
    )
    .meta({ description: 'Amounts are only ever added up within one currency' }),
});

export const healthSchema = z.strictObject({
  status: z.literal('ok'),
  timestamp,
  uptime_seconds: z.number().min(0),
  version: z.string(),
});
export const statusSchema = z.strictObject({ status: z.literal('ok') });
export const databaseHealthSchema = z.strictObject({ status: z.literal('ok'), database_ms: z.number().min(0) });

export const problemSchema = z
  .looseObject({
    type: z.string(),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    instance: z.string().optional(),
    request_id: z.string(),
    allowed: z.array(status).optional().meta({ description: 'Of illegal-transition: the statuses that are possible' }),
    errors: z
      .array(z.strictObject({ pointer: z.string().optional(), parameter: z.string().optional(), detail: z.string() }))
      .optional(),
  })
  .meta({ description: 'RFC 9457' });

/** Header fields that an operation may take. */
export const REQUEST_HEADERS = {
  'Idempotency-Key':
    'A name of the client for this request, 1 to 255 visible ASCII characters, with or without quotes. The same request ' +
    'with the same key is done once; for 24 hours it gets the same answer',
  'If-None-Match': 'Entity tags that the client has; if one of them is current, the answer is 304 without a body',
  'If-Match': 'The entity tag of the version that the client has seen; if it is no longer current, nothing is changed',
} as const;

export interface Operation<Id extends string = string> {
  readonly id: Id;
  readonly method: 'GET' | 'POST';
  /** In the router's notation, as in /api/loans/:id. */
  readonly paths: readonly string[];
  readonly summary: string;
  /** Name of the answer's schema among the components, or a media type for anything but JSON. */
  readonly answer: {
    readonly status: number;
    readonly schema?: string;
    readonly mediaType?: string;
    /** Header fields, by name and meaning. */
    readonly headers?: Readonly<Record<string, string>>;
  };
  readonly headers?: readonly (keyof typeof REQUEST_HEADERS)[];
  readonly query?: z.ZodObject;
  readonly body?: string;
  /** What it may answer with besides `internal`. */
  readonly problems: readonly ProblemSlug[];
}

const DATABASE = ['db-unavailable', 'overloaded', 'storage-full'] as const;
const ETAG = { ETag: 'Names this version of the loan' } as const;
const REPLAYED = { 'Idempotent-Replayed': 'true, if this is the stored answer of an earlier request' } as const;
const KEY = ['idempotency-key-invalid', 'idempotency-in-progress', 'idempotency-key-reused'] as const;
const BODY = [
  'malformed-json',
  'invalid-utf8',
  'payload-too-large',
  'unsupported-media-type',
  'validation-error',
  'unknown-property',
  'invalid-text',
] as const;
const api = (path: string) => [`/api${path}`, `/api/v1${path}`];

export const OPERATIONS = operations([
  {
    id: 'listLoans',
    method: 'GET',
    paths: api('/loans'),
    summary: 'Loans, newest first; the Link header (rel="next") leads to the next page',
    answer: { status: 200, schema: 'LoanList' },
    query: loanListQuery,
    problems: ['invalid-parameter', ...DATABASE],
  },
  {
    id: 'createLoan',
    method: 'POST',
    paths: api('/loans'),
    summary: 'Ask for a loan; Location says where it is',
    answer: { status: 201, schema: 'Loan', headers: { Location: 'Where the loan is', ...ETAG, ...REPLAYED } },
    headers: ['Idempotency-Key'],
    body: 'NewLoan',
    problems: [...BODY, ...KEY, 'invalid-amount', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'getLoan',
    method: 'GET',
    paths: api('/loans/:id'),
    summary: 'One loan',
    answer: { status: 200, schema: 'Loan', headers: ETAG },
    headers: ['If-None-Match'],
    problems: ['invalid-id', 'not-found', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'moveLoan',
    method: 'POST',
    paths: api('/loans/:id/transitions'),
    summary: 'Move a loan to its next status; what is not possible is refused with what is',
    answer: { status: 200, schema: 'Loan', headers: { ...ETAG, ...REPLAYED } },
    headers: ['Idempotency-Key', 'If-Match'],
    body: 'Transition',
    problems: [
      ...BODY,
      ...KEY,
      'malformed-request',
      'invalid-id',
      'not-found',
      'illegal-transition',
      'version-mismatch',
      'invalid-parameter',
      ...DATABASE,
    ],
  },
  {
    id: 'loanEvents',
    method: 'GET',
    paths: api('/loans/:id/events'),
    summary: 'All that happened to a loan, the newest last; nobody can change it',
    answer: { status: 200, schema: 'LoanEventList' },
    problems: ['invalid-id', 'not-found', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'statistics',
    method: 'GET',
    paths: api('/stats'),
    summary: 'How many loans there are, and their amounts by currency',
    answer: { status: 200, schema: 'Statistics' },
    problems: ['invalid-parameter', ...DATABASE],
  },
  {
    id: 'health',
    method: 'GET',
    paths: ['/health'],
    summary: 'The process runs',
    answer: { status: 200, schema: 'Health' },
    problems: [],
  },
  {
    id: 'live',
    method: 'GET',
    paths: ['/health/live'],
    summary: 'The process runs: restart it when this fails',
    answer: { status: 200, schema: 'Status' },
    problems: [],
  },
  {
    id: 'ready',
    method: 'GET',
    paths: ['/health/ready'],
    summary: 'The database answers and the process is not shutting down: send no requests here when this fails',
    answer: { status: 200, schema: 'Status' },
    problems: ['db-unavailable', 'overloaded', 'shutting-down'],
  },
  {
    id: 'databaseHealth',
    method: 'GET',
    paths: ['/health-db'],
    summary: 'Asks the database a question and says how long the answer took',
    answer: { status: 200, schema: 'DatabaseHealth' },
    problems: ['db-check-failed'],
  },
  {
    id: 'metrics',
    method: 'GET',
    paths: ['/metrics'],
    summary: 'Metrics in the text format of Prometheus',
    answer: { status: 200, mediaType: 'text/plain' },
    problems: ['metrics-unavailable'],
  },
  {
    id: 'openApi',
    method: 'GET',
    paths: ['/openapi.json'],
    summary: 'This document',
    answer: { status: 200, mediaType: 'application/json' },
    problems: [],
  },
  {
    id: 'docs',
    method: 'GET',
    paths: ['/docs'],
    summary: 'This document as a page',
    answer: { status: 200, mediaType: 'text/html' },
    problems: [],
  },
  {
    id: 'docsStyle',
    method: 'GET',
    paths: ['/docs/style.css'],
    summary: 'The style of the page',
    answer: { status: 200, mediaType: 'text/css' },
    problems: [],
  },
]);

/** Every operation has exactly one handler: see Record<OperationId, …>. */
export type OperationId = (typeof OPERATIONS)[number]['id'];

function operations<const Id extends string>(list: readonly Operation<Id>[]): readonly Operation<Id>[] {
  return list;
}
