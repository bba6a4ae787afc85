import type { Amount, MinorAmount } from './money';

/** A day of the calendar, ISO 8601, years 0000 to 9999: "2026-01-31". */
export type CalendarDate = string;

export interface Terms {
  /** Above 0. */
  readonly principalMinor: MinorAmount;
  /** Percent a year, 0 or more. A month bears a twelfth of it, however many days it has. */
  readonly interestRateApr: Amount;
  /** 1 to MAX_TERM_MONTHS. */
  readonly termMonths: number;
  /** The day the money is paid out. Instalments fall due on the same day of the months that follow. */
  readonly startDate: CalendarDate;
}

export interface Instalment {
  /** From 1. */
  readonly number: number;
  readonly dueDate: CalendarDate;
  readonly principal: MinorAmount;
  readonly interest: MinorAmount;
  /** Principal and interest. */
  readonly payment: MinorAmount;
  /** Principal that is left once this instalment is paid. */
  readonly balance: MinorAmount;
}

/** Terms that no schedule can be made of, in words that a client may read. */
export class TermsFault extends RangeError {
  constructor(
    readonly field: keyof Terms,
    message: string,
  ) {
    super(message);
  }
}

/** A text that is no day of the calendar, or a day outside of it. */
export class DateFault extends RangeError {}

export const MAX_TERM_MONTHS = 600;

/** A rate of 100 % a month: twelve months, a hundred percent, ten-thousandths. */
const WHOLE = 12n * 100n * 10_000n;

/** Of all schedules that are kept together; some 6 MB. */
const KEPT_INSTALMENTS = 30_000;
/** By their terms, which never change: the one that was asked for last is the last. */
const kept = new Map<string, readonly Instalment[]>();
let keptInstalments = 0;

/**
 * The instalments of a loan, termMonths of them. Always: the principal adds up to the amount, the last balance is 0, no
 * balance is above the one before it, and each interest is the balance before it times the rate, rounded half to even.
 *
 * Every instalment but the last has the same payment, the exact one of an annuity rounded half to even. The last clears
 * what is left; it differs from the others by at most ((1 + i)^months - 1) / i minor units with i the rate of a month,
 * which is what roundings of half a unit can grow to: 6 at 28 % over 6 months, the number of months at 0 %.
 * Where that outweighs the payment itself (1 cent over 600 months; 100 % a year over decades), equal instalments would
 * clear the loan early or leave a last one more than twice as large. Then each balance is the exact one, rounded half to
 * even: every instalment is within 1.5 + i / 2 minor units of the exact payment, and may be 0. 1 cent over 5 months falls
 * due once, in the month in which the exact balance gets below half a cent.
 *
 * The schedules that were asked for last are kept, so the second time costs nothing: the result is shared, do not change it.
 *
 * @throws TermsFault that names the field; DateFault if a due date would be after the year 9999.
 */
export function schedule(terms: Terms): readonly Instalment[] {
  check(terms);
  const { principalMinor, interestRateApr, termMonths, startDate } = terms;
  const key = `${principalMinor} ${interestRateApr} ${termMonths} ${startDate}`;
  const instalments = kept.get(key) ?? instalmentsOf(terms);
  if (!kept.delete(key)) keptInstalments += instalments.length;
  kept.set(key, instalments);
  for (const [oldest, { length }] of kept) {
    if (keptInstalments <= KEPT_INSTALMENTS) break;
    kept.delete(oldest);
    keptInstalments -= length;
  }
  return instalments;
}

function instalmentsOf({ principalMinor, interestRateApr, termMonths, startDate }: Terms): Instalment[] {
  let before: bigint = principalMinor;
  return annuityBalances(principalMinor, interestRateApr, termMonths).map((balance, index) => {
    const principal = before - balance;
    const interest = interestOfMonth(before, interestRateApr);
    before = balance;
    return {
      number: index + 1,
      dueDate: addMonths(startDate, index + 1),
      principal: principal as MinorAmount,
      interest: interest as MinorAmount,
      payment: (principal + interest) as MinorAmount,
      balance: balance as MinorAmount,
    };
  });
}

/** The same day, so many months (0 or more) later; or the last day of that month, if it is shorter. */
export function addMonths(date: CalendarDate, months: number): CalendarDate {
  requireDate(date);
  const [year = 0, month = 0, day = 0] = date.split('-').map(Number);
  const sinceYear0 = year * 12 + (month - 1) + months;
  const newYear = Math.floor(sinceYear0 / 12);
  const newMonth = (sinceYear0 % 12) + 1;
  if (newYear > 9999) throw new DateFault('must be before the year 10000');
  const newDay = Math.min(day, daysInMonth(newYear, newMonth));
  return [String(newYear).padStart(4, '0'), twoDigits(newMonth), twoDigits(newDay)].join('-');
}

/** Days from one date to another; negative if that is earlier. */
export function daysBetween(from: CalendarDate, to: CalendarDate): number {
  requireDate(from);
  requireDate(to);
  return (Date.parse(to) - Date.parse(from)) / 86_400_000;
}

export function isCalendarDate(text: string): boolean {
  const match = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
  if (match === null) return false;
  const [year = 0, month = 0, day = 0] = match.slice(1).map(Number);
  return month >= 1 && month <= 12 && day >= 1 && day <= daysInMonth(year, month);
}

function check({ principalMinor, interestRateApr, termMonths, startDate }: Terms): void {
  if (principalMinor <= 0n) throw new TermsFault('principalMinor', 'must be greater than 0');
  if (interestRateApr < 0n) throw new TermsFault('interestRateApr', 'must be at least 0');
  if (!Number.isInteger(termMonths) || termMonths < 1 || termMonths > MAX_TERM_MONTHS) {
    throw new TermsFault('termMonths', `must be a whole number from 1 to ${MAX_TERM_MONTHS}`);
  }
  if (!isCalendarDate(startDate)) throw new TermsFault('startDate', 'must be a date such as 2026-01-31');
}

/**
 * With 1 + i = grown / base in lowest terms, the exact payment is principal * i / (1 - (1 + i)^-months), and the exact
 * balance after k months is principal * ((1 + i)^months - (1 + i)^k) / ((1 + i)^months - 1). Both are worked out in whole
 * numbers; nothing is approximated. At 600 months those have up to 15,000 bits.
 */
function annuityBalances(principal: bigint, rate: bigint, months: number): bigint[] {
  const n = BigInt(months);
  if (rate === 0n) {
    const left = (k: bigint) => roundHalfEven(principal * (n - k), n);
    const payment = roundHalfEven(principal, n);
    return levelBalances(principal, rate, months, payment) ?? monthsOf(months).map((k) => left(BigInt(k)));
  }
  const divisor = greatestCommonDivisor(WHOLE, rate);
  const base = WHOLE / divisor;
  const grown = (WHOLE + rate) / divisor;
  const [grownToTheEnd, baseToTheEnd] = [grown ** n, base ** n];
  const growth = grownToTheEnd - baseToTheEnd;
  const payment = roundHalfEven(principal * grownToTheEnd * (grown - base), base * growth);
  const level = levelBalances(principal, rate, months, payment);
  if (level !== undefined) return level;
  // (1 + i)^k, over the same denominator as the others: the division leaves no remainder.
  let power = baseToTheEnd;
  return monthsOf(months).map(() => {
    power = (power / base) * grown;
    return roundHalfEven(principal * (grownToTheEnd - power), growth);
  });
}

/** From 1. */
function monthsOf(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

/** Undefined if the last instalment would not lie above 0 and within twice the payment. */
function levelBalances(principal: bigint, rate: bigint, months: number, payment: bigint): bigint[] | undefined {
  const balances: bigint[] = [];
  let balance = principal;
  for (let k = 1; k < months; k++) {
    balance += interestOfMonth(balance, rate) - payment;
    if (balance <= 0n) return undefined;
    balances.push(balance);
  }
  const last = balance + interestOfMonth(balance, rate);
  return last <= 2n * payment ? [...balances, 0n] : undefined;
}

function interestOfMonth(balance: bigint, rate: bigint): bigint {
  return roundHalfEven(balance * rate, WHOLE);
}

/** The only place where money that is owed is rounded. The numerator is 0 or more, the denominator above 0. */
function roundHalfEven(numerator: bigint, denominator: bigint): bigint {
  const floor = numerator / denominator;
  const twiceRest = 2n * (numerator % denominator);
  const up = twiceRest > denominator || (twiceRest === denominator && floor % 2n === 1n);
  return up ? floor + 1n : floor;
}

function greatestCommonDivisor(a: bigint, b: bigint): bigint {
  return b === 0n ? a : greatestCommonDivisor(b, a % b);
}

function requireDate(date: CalendarDate): void {
  if (!isCalendarDate(date)) throw new DateFault('must be a date such as 2026-01-31');
}

function daysInMonth(year: number, month: number): number {
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  if (month === 2) return leap ? 29 : 28;
  return [4, 6, 9, 11].includes(month) ? 30 : 31;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}
