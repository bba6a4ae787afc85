import { z } from 'zod';
import { BULK_LOANS } from '../../config';
import { MAX_TERM_MONTHS } from '../../domain/amortization';
import { CODES, isLendable } from '../../domain/currency';
import { type AmountLimits, limitOf, MAX_RECORDED, parseLimits } from '../../domain/limits';
import { LOAN_STATUSES, type LoanRequest, type LoanStatus, NEEDS_REASON } from '../../domain/loan';
import {
  type Amount,
  AmountFault,
  formatAmount,
  MAX_WRITTEN_DIGITS,
  parseAmount,
  readDecimal,
  readMoney,
} from '../../domain/money';
import { loanExportQuery, loanListQuery } from './loan-list';
import { api, BODY, type Components, DATABASE, ETAG, KEY, operations, REPLAYED } from './operation';
import {
  count,
  decimal,
  decimalText,
  fractionPattern,
  integer,
  keptRequestId,
  lendableCurrency,
  moneyAnyOf,
  status,
  text,
  TEXT_PATTERN,
  timestamp,
  writtenMoney,
} from './values';

const MAX_TEXT = 255;
const MAX_REASON = 1_000;
const RATE_PATTERN = `^(100(\\.${fractionPattern(0)})?|(0|[1-9]\\d?)(\\.${fractionPattern(2)})?)$`;

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
            `currency has; zeros at the end do not count, up to ${MAX_WRITTEN_DIGITS} digits. Read exactly, never rounded.`,
          anyOf: moneyAnyOf(4, formatAmount([...limits.byCurrency.values(), limits.fallback].reduce(larger))),
          examples: ['12500.00', 12500],
        }),
        currency: lendableCurrency.meta({
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
              'Percent a year, 0 to 100, at most two digits after the point besides zeros at the end; without one no interest is owed',
            anyOf: [
              { type: 'number', minimum: 0, maximum: 100, multipleOf: 0.01 },
              { type: 'string', format: 'decimal', pattern: RATE_PATTERN },
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
      amount: readMoney(loan.amount, loan.currency, MAX_RECORDED),
      currency: loan.currency,
      termMonths: loan.term_months,
      interestRateApr: loan.interest_rate_apr,
    }))
    .meta({ allOf: [...CODES].map(([digits, codes]) => amountsOf(digits, codes, limits)) });
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
          description:
            `Why; required for ${NEEDS_REASON.join(' and ')}. Kept for good, also when the borrower's data no longer are: ` +
            'nothing personal belongs here',
          anyOf: [{ type: 'string', minLength: 1, maxLength: MAX_REASON, pattern: TEXT_PATTERN }, { type: 'null' }],
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
  borrower_id: z.string().meta({
    description: 'Who borrows; a pseudonym some years after the loan was closed',
    examples: ['usr_kenya_001'],
  }),
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
  actor: z
    .string()
    .meta({ description: 'The client that did it: key:<id of its first API key>, which a rotation does not change' }),
  action: z
    .string()
    .meta({ examples: ['created', 'transitioned', 'paid', 'repaid', 'payment_reversed', 'pseudonymised'] }),
  from: status.nullable().meta({ description: 'Null for the creation' }),
  to: status,
  reason: z.string().nullable(),
  request_id: keptRequestId,
  amount: decimalText.meta({ description: 'Of the loan' }),
  currency: z.string().regex(/^[A-Z]{3}$/),
  repayment_id: z.uuid().optional().meta({ description: 'The repayment, settlement or reversal that it is about' }),
});

export const statisticsSchema = z.strictObject({
  total_loans: count,
  by_status: z.record(status, count),
  by_currency: z
    .record(
      z.string().regex(/^[A-Z]{3}$/),
      z.strictObject({
        loans: count,
        total_amount: decimalText,
        avg_amount: decimalText,
        by_status: z.record(status, z.strictObject({ loans: count, total_amount: decimalText })),
      }),
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
    id: 'dryRunLoan',
    access: 'loans:write',
    method: 'POST',
    paths: api('/loans/dry-run'),
    summary:
      'What asking for this loan would be answered, without creating it: the loan is written to the database, and taken ' +
      'back. The id leads nowhere, and an Idempotency-Key is of no account',
    answer: { status: 201, schema: 'Loan' },
    body: 'NewLoan',
    problems: [...BODY, 'invalid-amount', 'invalid-parameter', ...DATABASE],
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
    summary:
      'Move a loan to its next status; what is not possible is refused with what is. With a move to repaid, what is ' +
      'outstanding is settled: an entry of its own among the repayments',
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
      'ledger-full',
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
    summary: 'How many loans there are, and their amounts by currency and status; exact at the moment of the answer',
    answer: { status: 200, schema: 'Statistics' },
    problems: ['invalid-parameter', ...DATABASE],
  },
]);
