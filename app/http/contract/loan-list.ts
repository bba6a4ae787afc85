import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Listing, LOAN_SORTS, type LoanFilters, type Position } from '../../db/loan-pages';
import { LOAN_STATUSES } from '../../domain/loan';
import { parseAmount } from '../../domain/money';
import { currencyCode, decimal, fractionPattern, readId, text } from './values';

export const EXPORT_FORMATS = ['csv', 'ndjson'] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

const MAX_TEXT = 255;
const DEFAULT_LIMIT = 50;
const DEFAULT_SORT = '-created_at';
/** All that the column can hold. */
const AMOUNT_RULE = {
  fractionDigits: 4,
  min: parseAmount('0'),
  max: parseAmount('999999999999999.9999'),
  aboveMin: false,
};

const amount = (description: string) =>
  decimal(AMOUNT_RULE, 'invalid-parameter')
    .optional()
    .meta({
      description,
      type: 'string',
      format: 'decimal',
      pattern: `^(0|[1-9]\\d{0,14})(\\.${fractionPattern(4)})?$`,
      anyOf: undefined,
    });

const moment = (description: string) =>
  z
    .string()
    .transform((value, context) => {
      const read = readMoment(value);
      if (read !== undefined) return read;
      context.addIssue({
        code: 'custom',
        message:
          'must be a date such as 2026-01-31, or a time such as 2026-01-31T12:00:00Z or 2026-01-31T15:00:00%2B03:00',
      });
      return z.NEVER;
    })
    .optional()
    .meta({ description, anyOf: [{ format: 'date' }, { format: 'date-time' }] });

/** Which loans: the same parameters for the list and for the export. All of them must hold. */
export const loanFilterShape = {
  status: z
    .enum(LOAN_STATUSES, { error: `must be one of ${LOAN_STATUSES.join(', ')}` })
    .optional()
    .meta({ description: 'Loans in this status' }),
  currency: currencyCode.optional().meta({
    description: 'Loans in this currency, also one that ISO 4217 withdrew; lower case is taken for upper case',
    pattern: '^[A-Za-z]{3}$',
  }),
  borrower_id: text(MAX_TEXT).optional().meta({ description: 'Loans of this borrower' }),
  min_amount: amount('Loans of this amount or more, in whatever currency'),
  max_amount: amount('Loans of this amount or less, in whatever currency'),
  created_from: moment('Loans created at this time or later; a date means its start in UTC'),
  created_to: moment('Loans created before this time; a date means its start in UTC, so that day is left out'),
};

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
    .meta({ type: 'integer', minimum: 1, maximum: 100, default: DEFAULT_LIMIT, description: 'Most loans on a page' }),
  sort: z
    .enum(LOAN_SORTS, { error: `must be one of ${LOAN_SORTS.join(', ')}` })
    .default(DEFAULT_SORT)
    .meta({ description: 'A minus stands for the largest, or newest, first. Loans that are equal are sorted by id' }),
  ...loanFilterShape,
  cursor: z.string().optional().meta({
    description: 'Where the page starts: taken from the Link header (rel="next") of another, with its parameters',
  }),
});

/** Takes back what `defuse` adds: what it matches begins with the apostrophe to be taken away. */
export const UNDO_PATTERN =
  "(?<=^|[^\\p{L}\\p{M}\\p{N}_'=+\\-@＝＋－＠﹦﹢﹣﹫])'+(?=[=+\\-@＝＋－＠﹦﹢﹣﹫])|^'+(?=[\\t\\r\\n])";

export const loanExportQuery = z.strictObject({
  format: z
    .enum(EXPORT_FORMATS, { error: `must be one of ${EXPORT_FORMATS.join(', ')}` })
    .default('csv')
    .meta({
      description:
        'csv: RFC 4180 with a header line; a text that a spreadsheet could take for a formula, at its start or where a ' +
        'program may split it, has an apostrophe there. To undo that, take one apostrophe away at each match of ' +
        UNDO_PATTERN +
        ' (with Unicode properties). ndjson: a loan a line, exactly as it is stored',
    }),
  ...loanFilterShape,
});

export function filtersOf(query: z.output<z.ZodObject<typeof loanFilterShape>>): LoanFilters {
  return {
    status: query.status,
    currency: query.currency,
    borrowerId: query.borrower_id,
    minAmount: query.min_amount,
    maxAmount: query.max_amount,
    createdFrom: query.created_from,
    createdTo: query.created_to,
  };
}

export function writeCursor({ value, id }: Position, listing: Listing): string {
  return Buffer.from([value, id, ...scopeOf(listing)].join('|')).toString('base64url');
}

/** What is wrong with a cursor, in words that a client may read. */
export class CursorFault extends Error {}

/**
 * Not signed: whoever makes a cursor up only sees what the filters let through anyway.
 * @throws CursorFault
 */
export function readCursor(cursor: string, listing: Listing): Position {
  const [value = '', id, ...scope] = Buffer.from(cursor, 'base64url').toString('latin1').split('|');
  const position = readId(id);
  const known = isMoment(value) || isStoredAmount(value);
  if (position === undefined || !known || scope.length > 1) {
    throw new CursorFault('must be taken from the Link header of a page');
  }
  const byAmount = listing.sort === 'amount' || listing.sort === '-amount';
  if (scope[0] !== scopeOf(listing)[0] || byAmount !== isStoredAmount(value)) {
    throw new CursorFault(
      'belongs to a page with other filters or another sort; give the same ones with it, or start without a cursor',
    );
  }
  return { value, id: position };
}

/**
 * What a cursor may be used with. Nothing for all loans, newest first: those cursors are understood by the release
 * before this one too, which may serve the next page while this one is rolled out.
 */
function scopeOf({ sort, filters }: Listing): [] | [string] {
  const { status, currency, borrowerId, minAmount, maxAmount, createdFrom, createdTo } = filters;
  const given = [status, currency, borrowerId, minAmount?.toString(), maxAmount?.toString(), createdFrom, createdTo];
  if (sort === DEFAULT_SORT && given.every((value) => value === undefined)) return [];
  return [
    createHash('sha256')
      .update(JSON.stringify([sort, ...given]))
      .digest('base64url')
      .slice(0, 16),
  ];
}

/** Years from 0001 on: the calendar of Postgres has no year 0. */
const MOMENT = /^(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z$/;

/** As it stands in a cursor. */
function isMoment(value: string): boolean {
  // A date such as 30 February parses, as another day.
  const moment = MOMENT.test(value) ? new Date(value) : undefined;
  return (
    moment !== undefined && !Number.isNaN(moment.getTime()) && moment.toISOString().slice(0, 23) === value.slice(0, 23)
  );
}

function isStoredAmount(value: string): boolean {
  return /^\d{1,15}\.\d{4}$/.test(value);
}

const WRITTEN_MOMENT = /^(\d{4}-\d\d-\d\d)(?:[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(?:[Zz]|([+-])(\d\d):(\d\d)))?$/;

/** A date, or a date-time of RFC 3339, as ISO 8601 in UTC to the microsecond; undefined if it is neither. */
function readMoment(value: string): string | undefined {
  const match = WRITTEN_MOMENT.exec(value);
  if (match === null) return undefined;
  const [, date = '', time = '00:00:00', fraction = '', sign, hours = '0', minutes = '0'] = match;
  if (!isMoment(`${date}T${time}.000Z`) || Number(hours) > 23 || Number(minutes) > 59) return undefined;
  const offsetMs = (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * 60_000;
  const utc = new Date(Date.parse(`${date}T${time}Z`) - offsetMs).toISOString();
  const read = `${utc.slice(0, -'.000Z'.length)}.${fraction.padEnd(6, '0')}Z`;
  return isMoment(read) ? read : undefined;
}
