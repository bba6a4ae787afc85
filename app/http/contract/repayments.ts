import { z } from 'zod';
import { MAX_PAYMENTS } from '../../domain/account';
import { type CalendarDate, isCalendarDate, MAX_TERM_MONTHS } from '../../domain/amortization';
import { MAX_RECORDED } from '../../domain/limits';
import { formatAmount } from '../../domain/money';
import { api, BODY, type Components, DATABASE, ETAG, KEY, operations, REPLAYED } from './operation';
import { decimalText, keptRequestId, moneyAnyOf, status, text, timestamp, writtenMoney, TEXT_PATTERN } from './values';

const MAX_REFERENCE = 255;
const MAX_REASON = 1_000;

const calendarDate = z
  .string({ error: 'must be a string' })
  .refine(isCalendarDate, 'must be a date such as 2026-01-31')
  .meta({ format: 'date', examples: ['2026-01-31'] });

export interface PaymentRequest {
  /** As written: see readMoney. */
  readonly amount: string;
  readonly date: CalendarDate | null;
  readonly reference: string | null;
}

export const paymentSchema: z.ZodType<PaymentRequest> = z.strictObject(
  {
    amount: writtenMoney.meta({
      description:
        "Greater than 0, at most what is outstanding, in the loan's currency and its digits; zeros at the end do not count. " +
        'Never rounded.',
      anyOf: moneyAnyOf(4, formatAmount(MAX_RECORDED)),
      examples: ['2256.39'],
    }),
    date: calendarDate
      .nullish()
      .transform((value) => value ?? null)
      .meta({
        description: 'When it was paid, UTC: not after today, not before the loan was disbursed; today if not given',
        anyOf: [{ type: 'string', format: 'date' }, { type: 'null' }],
      }),
    reference: text(MAX_REFERENCE)
      .nullish()
      .transform((value) => value ?? null)
      .meta({
        description:
          'What the payer or the bank calls it: names one repayment of the loan. That of a repayment that was taken back may be ' +
          'used again. Kept for good: nothing personal belongs here',
        anyOf: [{ type: 'string', minLength: 1, maxLength: MAX_REFERENCE, pattern: TEXT_PATTERN }, { type: 'null' }],
      }),
  },
  { error: (issue) => (issue.code === 'invalid_type' ? 'must be an object' : undefined) },
);

export const reversalSchema = z.strictObject(
  {
    reason: text(MAX_REASON).meta({
      description: 'Why, such as a payment that bounced. Kept for good: nothing personal belongs here',
    }),
  },
  { error: (issue) => (issue.code === 'invalid_type' ? 'must be an object' : undefined) },
);

export const scheduleQuery = z.strictObject({
  start_date: calendarDate.optional().meta({
    description: 'The day to count from, for a loan that is not disbursed yet; today (UTC) if not given',
  }),
});

const currency = z.string().regex(/^[A-Z]{3}$/);
const share = z.strictObject({ principal: decimalText, interest: decimalText, total: decimalText });

export const scheduleSchema = z.strictObject({
  loan_id: z.uuid(),
  currency,
  projected: z.boolean().meta({
    description:
      'Whether the loan is not disbursed yet: then the schedule is what it would be, were it paid out on start_date',
  }),
  start_date: z.iso.date().meta({ description: 'The day the money is paid out, UTC' }),
  term_months: z.int().min(1).max(MAX_TERM_MONTHS),
  interest_rate_apr: decimalText.meta({ description: 'Percent a year; 0.00 for a loan without a rate' }),
  total: share.meta({ description: 'Of all instalments' }),
  instalments: z
    .array(
      z.strictObject({
        number: z.int().min(1),
        due_date: z.iso.date(),
        principal: decimalText,
        interest: decimalText,
        payment: decimalText.meta({ description: 'Principal and interest' }),
        balance: decimalText.meta({ description: 'Principal that is left once this instalment is paid' }),
      }),
    )
    .meta({ description: 'Equal payments on a reducing balance; the last one clears what rounding left' }),
});

export const balanceSchema = z.strictObject({
  loan_id: z.uuid(),
  status,
  currency,
  as_of: z.iso.date().meta({ description: 'Today, UTC' }),
  paid: share.meta({
    description: 'Repayments less reversals; the oldest instalment first, interest before principal',
  }),
  settled: share.meta({
    description:
      'What was outstanding when the loan was moved to repaid by hand, less reversals: it was settled outside of these records',
  }),
  outstanding: share.meta({ description: 'All that is left to pay, due or not' }),
  next_due: z
    .strictObject({ number: z.int().min(1), due_date: z.iso.date(), outstanding: share })
    .nullable()
    .meta({ description: 'The oldest instalment of which something is left' }),
  days_past_due: z.int().min(0).meta({ description: 'Since next_due fell due' }),
});

export const repaymentSchema = z.strictObject({
  id: z.uuid(),
  amount: decimalText,
  currency,
  date: z.iso.date(),
  settlement: z.literal(true).optional().meta({
    description:
      'Of a settlement: what was outstanding when the loan was moved to repaid by hand. Not there for repayments and reversals',
  }),
  reference: z.string().nullable(),
  reverses: z.uuid().nullable().meta({ description: 'Of a reversal: the entry that it takes back, all of it' }),
  reversed_by: z.uuid().nullable().meta({ description: 'Of an entry that was taken back: the reversal' }),
  reason: z.string().nullable().meta({ description: 'Of a reversal' }),
  actor: z.string().meta({
    description: 'The client that recorded it: key:<id of its first API key>, which a rotation does not change',
  }),
  request_id: keptRequestId,
  created_at: timestamp,
});

export const bookingSchema = z.strictObject({ repayment: repaymentSchema, balance: balanceSchema });

export const REPAYMENT_COMPONENTS: Components = {
  Schedule: scheduleSchema,
  Balance: balanceSchema,
  Repayment: repaymentSchema,
  RepaymentList: { listOf: 'Repayment' },
  NewRepayment: paymentSchema,
  Reversal: reversalSchema,
  Booking: bookingSchema,
};

const CHANGE = [...BODY, ...KEY, 'malformed-request', 'invalid-id', 'not-found', 'version-mismatch'] as const;

export const REPAYMENT_OPERATIONS = operations([
  {
    id: 'loanSchedule',
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans/:id/schedule'),
    summary: 'The instalments of a loan; of one that is not disbursed yet, what they would be',
    answer: { status: 200, schema: 'Schedule' },
    query: scheduleQuery,
    problems: ['invalid-id', 'not-found', 'no-schedule', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'loanBalance',
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans/:id/balance'),
    summary: 'What is paid, outstanding and past due today; nothing of a loan that is not disbursed yet',
    answer: { status: 200, schema: 'Balance' },
    problems: ['invalid-id', 'not-found', 'no-schedule', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'listRepayments',
    access: 'loans:read',
    method: 'GET',
    paths: api('/loans/:id/repayments'),
    summary: `Repayments, settlements and reversals of a loan, the newest last; a loan takes up to ${MAX_PAYMENTS} repayments`,
    answer: { status: 200, schema: 'RepaymentList' },
    problems: ['invalid-id', 'not-found', 'invalid-parameter', ...DATABASE],
  },
  {
    id: 'repayLoan',
    access: 'loans:write',
    method: 'POST',
    paths: api('/loans/:id/repayments'),
    summary: 'Record a repayment; with the last of what is outstanding the loan becomes repaid',
    answer: { status: 201, schema: 'Booking', headers: { ...ETAG, ...REPLAYED } },
    headers: ['Idempotency-Key', 'If-Match'],
    body: 'NewRepayment',
    problems: [
      ...CHANGE,
      'not-payable',
      'duplicate-reference',
      'no-schedule',
      'ledger-full',
      'invalid-amount',
      'overpayment',
      'invalid-parameter',
      ...DATABASE,
    ],
  },
  {
    id: 'reverseRepayment',
    access: 'loans:write',
    method: 'POST',
    paths: api('/loans/:id/repayments/:repaymentId/reversal'),
    summary: 'Take a repayment or a settlement back, all of it; a loan that was repaid becomes what it was before',
    answer: { status: 201, schema: 'Booking', headers: { ...ETAG, ...REPLAYED } },
    headers: ['Idempotency-Key', 'If-Match'],
    body: 'Reversal',
    problems: [...CHANGE, 'not-reversible', 'no-schedule', 'invalid-parameter', ...DATABASE],
  },
]);
