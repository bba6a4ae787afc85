import { z } from 'zod';
import { isLendable } from '../../domain/currency';
import { LOAN_STATUSES } from '../../domain/loan';
import {
  AmountFault,
  type Amount,
  type DecimalRule,
  MAX_WRITTEN_DIGITS,
  readDecimal,
  withoutExponent,
} from '../../domain/money';
import type { ProblemSlug } from '../../errors';
import { JsonNumber } from '../json';

/** The values that requests and answers are made of. */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** Postgres cannot store NUL, and half of a surrogate pair is no character. */
const UNSTORABLE = /[\0\p{Surrogate}]/u;

export const decimalText = z
  .string()
  .meta({ format: 'decimal', pattern: '^-?\\d+\\.\\d{2,4}$', examples: ['12500.00'] });

/** A decimal that is read exactly, from a JSON number or a string; its faults have the given problem type. */
export function decimal(rule: DecimalRule, problem: ProblemSlug) {
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

/**
 * Money as it was written, from a JSON number or a string. How many digits it may have depends on a currency: see
 * readMoney.
 */
export const writtenMoney = z
  .union([z.instanceof(JsonNumber), z.string()], { error: 'must be a number or a decimal string' })
  .transform((value, context): string => {
    try {
      return typeof value === 'string' ? value : withoutExponent(value.source);
    } catch (error) {
      if (!(error instanceof AmountFault)) throw error;
      context.addIssue({ code: 'custom', message: error.message, params: { problem: 'invalid-amount' } });
      return z.NEVER;
    }
  });

/** The part of a pattern after the point, for values of so many digits: zeros at the end may be written (readDecimal). */
export function fractionPattern(fractionDigits: number): string {
  if (fractionDigits === 0) return `0{1,${MAX_WRITTEN_DIGITS}}`;
  return `\\d{1,${fractionDigits}}0{0,${MAX_WRITTEN_DIGITS - fractionDigits}}`;
}

/** What a JSON schema says of such money: above 0, up to the given decimal, with at most so many digits. */
export function moneyAnyOf(fractionDigits: number, max: string) {
  const multipleOf = Number(`1e-${fractionDigits}`);
  return [
    { type: 'number', exclusiveMinimum: 0, maximum: Number(max), multipleOf },
    { type: 'string', format: 'decimal', pattern: `^(0|[1-9]\\d*)(\\.${fractionPattern(fractionDigits)})?$` },
  ];
}

export const integer = (min: number, max: number) =>
  z.instanceof(JsonNumber, { error: 'must be a number' }).transform((value, context) => {
    const number = wholeOf(value.source);
    if (number >= min && number <= max) return number;
    context.addIssue({ code: 'custom', message: `must be a whole number from ${min} to ${max}` });
    return z.NEVER;
  });

/** A whole number however JSON writes it, as 6, 6.0 or 60e-1, which JSON Schema calls integers all; else NaN. */
function wholeOf(source: string): number {
  const text = /^-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?[0-2]?\d)?$/i.test(source) ? withoutExponent(source) : '';
  return /^-?\d{1,12}(?:\.0+)?$/.test(text) ? Number(text) : NaN;
}

/** The same two rules for those who read the OpenAPI document. U+FEFF is a space for some languages only. */
export const TEXT_PATTERN = '^[^\\u0000]*[^\\s\\uFEFF\\u0000][^\\u0000]*$';

/** @param maxLength in characters, of which some take two places of a string */
export const text = (maxLength: number) =>
  z
    .string({ error: 'must be a string' })
    .check((context) => {
      const fault = faultOfText(context.value, maxLength);
      if (fault !== undefined) context.issues.push({ code: 'custom', input: context.value, ...fault });
    })
    .meta({ minLength: 1, maxLength, pattern: TEXT_PATTERN });

/** Its length is looked at first: what comes after that takes time for every character. */
function faultOfText(value: string, maxLength: number) {
  const tooLong = { message: `must have at most ${maxLength} characters` };
  if (value.length > 2 * maxLength) return tooLong;
  if (UNSTORABLE.test(value)) {
    return {
      message: 'has a character that cannot be stored (NUL or half of a surrogate pair)',
      params: { problem: 'invalid-text' },
    };
  }
  if (!/\S/.test(value)) return { message: 'must not be empty' };
  return Array.from(value).length > maxLength ? tooLong : undefined;
}

/** Any code that the book may hold: withdrawn ones, and what older releases took. Lower case is taken for upper case. */
export const currencyCode = z
  .string({ error: 'must be a string' })
  .regex(/^[A-Za-z]{3}$/, 'must be three letters such as KES')
  .transform((value) => value.toUpperCase());

/** The currency of a new loan. */
export const lendableCurrency = currencyCode.refine(
  isLendable,
  'must be an active ISO 4217 currency that has a minor unit',
);

/** Events and ledger cannot be changed, by retention neither. */
export const keptRequestId = z.string().nullable().meta({
  description: 'X-Request-ID of the request that did it. Kept for good: nothing personal belongs there',
});

export const status = z.enum(LOAN_STATUSES);
export const count = z.int().min(0);
export const timestamp = z.iso.datetime();

export const emptyQuery = z.strictObject({});

/** A UUID as it is stored, or undefined. */
export function readId(value: string | undefined): string | undefined {
  return value !== undefined && UUID.test(value) ? value.toLowerCase() : undefined;
}
