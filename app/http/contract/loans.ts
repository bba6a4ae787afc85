import { z } from 'zod';
import { BULK_LOANS } from '../../config';
import { LOAN_STATUSES, type LoanRequest, type LoanStatus, NEEDS_REASON } from '../../domain/loan';
import { parseAmount } from '../../domain/money';
import { loanExportQuery, loanListQuery } from './loan-list';
import { api, BODY, type Components, DATABASE, ETAG, KEY, operations, REPLAYED } from './operation';
import { count, currency, decimal, decimalText, integer, status, text, timestamp } from './values';

const MAX_TEXT = 255;
const MAX_REASON = 1_000;
const MAX_INTEGER = 2_147_483_647;

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

/** The list itself; each of its loans is held to newLoanSchema. */
export const newLoanListSchema = newLoanList(z.unknown());

function newLoanList<T extends z.ZodType>(loan: T) {
  const message = `must have 1 to ${BULK_LOANS} loans`;
  return z.strictObject(
    { loans: z.array(loan, { error: 'must be a list' }).min(1, message).max(BULK_LOANS, message) },
    { error: (issue) => (issue.code === 'invalid_type' ? 'must be an object' : undefined) },
  );
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

/** Under their names in the OpenAPI document. */
export function loanComponents(maxAmount: string): Components {
  return {
    NewLoan: newLoanSchema(maxAmount),
    NewLoanList: newLoanList(newLoanSchema(maxAmount)),
    Transition: transitionSchema,
    Loan: loanSchema,
    LoanList: { listOf: 'Loan' },
    LoanEvent: loanEventSchema,
    LoanEventList: { listOf: 'LoanEvent' },
    Statistics: statisticsSchema,
  };
}

const LINK = { Link: 'The next page (rel="next"), if there is one, and the first (rel="first"), on all others' };
const DISPOSITION = { 'Content-Disposition': 'A name for the file' };

export const LOAN_OPERATIONS = operations([
  {
    id: 'listLoans',
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans'),
    summary:
      'Loans, newest first unless asked otherwise; the Link header (rel="next") leads to the next page. A page for which ' +
      'many loans had to be passed over has fewer than asked for, or none: the last page is the one without rel="next"',
    answer: { status: 200, schema: 'LoanList', headers: LINK },
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
    id: 'createLoans',
    access: 'loans:write',
    method: 'POST',
    paths: api('/loans/bulk'),
    summary: `Ask for up to ${BULK_LOANS} loans: all of them are created, or none. The answer has them in the same order`,
    answer: { status: 201, schema: 'LoanList', headers: REPLAYED },
    headers: ['Idempotency-Key'],
    body: 'NewLoanList',
    problems: [...BODY, ...KEY, 'invalid-amount', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'exportLoans',
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans/export'),
    summary:
      'All loans that pass the filters, newest first, as a file. Each is in it once at most; those created or changed while ' +
      'it is sent may be missing or as they were. If it cannot be sent to its end, the connection breaks',
    answer: { status: 200, mediaType: ['text/csv', 'application/x-ndjson'], headers: DISPOSITION },
    query: loanExportQuery,
    problems: ['invalid-parameter', ...DATABASE],
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
