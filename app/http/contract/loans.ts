import { z } from 'zod';
import type { Position } from '../../db/loans';
import { MAX_TERM_MONTHS } from '../../domain/amortization';
import { CODES, isLendable } from '../../domain/currency';
import { type AmountLimits, limitOf, MAX_RECORDED, parseLimits } from '../../domain/limits';
import { LOAN_STATUSES, type LoanRequest, type LoanStatus, NEEDS_REASON } from '../../domain/loan';
import { type Amount, AmountFault, formatAmount, parseAmount, readDecimal, readMoney } from '../../domain/money';
import { api, BODY, type Components, DATABASE, ETAG, KEY, operations, REPLAYED } from './operation';
import {
  count,
  currency,
  decimal,
  decimalText,
  integer,
  moneyAnyOf,
  readId,
  status,
  text,
  timestamp,
  writtenMoney,
} from './values';

const MAX_TEXT = 255;
const MAX_REASON = 1_000;

/** @param maxAmount the largest amount of one loan: see parseLimits. */
export function newLoanSchema(maxAmount: string): z.ZodType<LoanRequest> {
  const limits = parseLimits(maxAmount);
  const rateRule = { fractionDigits: 2, min: parseAmount('0'), max: parseAmount('100'), aboveMin: false };
  return z
    .strictObject(
      {
        borrower_id: text(MAX_TEXT).meta({ description: 'Who borrows', examples: ['usr_kenya_001'] }),
        amount: writtenMoney.meta({
          description:
            `Greater than 0, at most ${maxAmount.replaceAll(',', ', ')}. At most as many digits after the point as the ` +
            'currency has, of which two may be written in any case if they are 0. Read exactly, never rounded.',
          anyOf: moneyAnyOf(4, formatAmount([...limits.byCurrency.values(), limits.fallback].reduce(larger))),
          examples: ['12500.00', 12500],
        }),
        currency: currency.meta({
          description: 'An active code of ISO 4217 that has a minor unit; lower case is taken for upper case',
          enum: [...CODES.values()].flat().sort(),
          examples: ['KES'],
        }),
        term_months: integer(1, MAX_TERM_MONTHS)
          .nullish()
          .transform((value) => value ?? null)
          .meta({
            description: 'Without a term a loan has no schedule, and takes no repayments',
            anyOf: [{ type: 'integer', minimum: 1, maximum: MAX_TERM_MONTHS }, { type: 'null' }],
            examples: [6],
          }),
        interest_rate_apr: decimal(rateRule, 'validation-error')
          .nullish()
          .transform((value) => value ?? null)
          .meta({
            description:
              'Percent a year, 0 to 100, at most two digits after the point; without one no interest is owed',
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
    .superRefine(({ amount, currency }, context) => checkAmount(amount, currency, limits, context), {
      // Beside other faults as well, so that all of them are named.
      when: ({ value, issues }) => isWritten(value) && !issues.some(({ path }) => path?.[0] === 'amount'),
    })
    .transform((loan) => ({
      borrowerId: loan.borrower_id,
      amount: parseAmount(loan.amount),
      currency: loan.currency,
      termMonths: loan.term_months,
      interestRateApr: loan.interest_rate_apr,
    }))
    .meta({ allOf: [...CODES].map(([digits, codes]) => amountsOf(digits, codes, limits)) });
}

function isWritten(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'amount' in value && typeof value.amount === 'string';
}

/** By the rule of its currency; where that is at fault itself, by what holds for all. */
function checkAmount(amount: string, currency: string, limits: AmountLimits, context: z.RefinementCtx): void {
  try {
    if (isLendable(currency)) readMoney(amount, currency, limitOf(limits, currency));
    else readDecimal(amount, { fractionDigits: 4, min: parseAmount('0'), max: MAX_RECORDED, aboveMin: true });
  } catch (error) {
    if (!(error instanceof AmountFault)) throw error;
    const params = { problem: 'invalid-amount' };
    context.addIssue({ code: 'custom', path: ['amount'], message: error.message, params });
  }
}

/** What a JSON schema can say of the amounts of all currencies with so many digits. */
function amountsOf(digits: number, codes: readonly string[], limits: AmountLimits) {
  const max = formatAmount(codes.map((code) => limitOf(limits, code)).reduce(larger));
  return {
    if: { properties: { currency: { enum: codes } } },
    then: { properties: { amount: { anyOf: moneyAnyOf(digits, max) } } },
  };
}

const larger = (a: Amount, b: Amount) => (a > b ? a : b);

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
  action: z.string().meta({ examples: ['created', 'transitioned', 'paid', 'repaid', 'payment_reversed'] }),
  from: status.nullable().meta({ description: 'Null for the creation' }),
  to: status,
  reason: z.string().nullable(),
  request_id: z.string().nullable().meta({ description: 'X-Request-ID of the request that did it' }),
  amount: decimalText.meta({ description: 'Of the loan' }),
  currency: z.string().regex(/^[A-Z]{3}$/),
  repayment_id: z.uuid().optional().meta({ description: 'The repayment or reversal that it is about' }),
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

/**
 * Under their names in the OpenAPI document.
 * @param maxAmount see newLoanSchema
 */
export function loanComponents(maxAmount: string): Components {
  return {
    NewLoan: newLoanSchema(maxAmount),
    Transition: transitionSchema,
    Loan: loanSchema,
    LoanList: { listOf: 'Loan' },
    LoanEvent: loanEventSchema,
    LoanEventList: { listOf: 'LoanEvent' },
    Statistics: statisticsSchema,
  };
}

export const LOAN_OPERATIONS = operations([
  {
    id: 'listLoans',
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans'),
    summary: 'Loans, newest first; the Link header (rel="next") leads to the next page',
    answer: { status: 200, schema: 'LoanList' },
    query: loanListQuery,
    problems: ['invalid-parameter', ...DATABASE],
  },
  {
    id: 'createLoan',
    access: 'loans:write',
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
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans/:id'),
    summary: 'One loan',
    answer: { status: 200, schema: 'Loan', headers: ETAG },
    headers: ['If-None-Match'],
    problems: ['invalid-id', 'not-found', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'moveLoan',
    access: 'loans:write',
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
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans/:id/events'),
    summary: 'All that happened to a loan, the newest last; nobody can change it',
    answer: { status: 200, schema: 'LoanEventList' },
    problems: ['invalid-id', 'not-found', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'statistics',
    access: 'loans:read',
    method: 'GET',
    paths: api('/stats'),
    summary: 'How many loans there are, and their amounts by currency',
    answer: { status: 200, schema: 'Statistics' },
    problems: ['invalid-parameter', ...DATABASE],
  },
]);
