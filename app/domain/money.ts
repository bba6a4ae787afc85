import { requireMinorUnits } from './currency';

/**
 * Exact decimals. An amount is a whole number of ten-thousandths of its unit, which holds every value of the
 * database's numeric(19,4), and more for totals. No floating point anywhere: a float can't hold 0.1.
 */
export type Amount = bigint & { readonly unit: 'ten-thousandth' };

/** A whole number of the smallest unit of its currency: cents of KES, whole VND, thousandths of KWD. What is owed and paid. */
export type MinorAmount = bigint & { readonly unit: 'minor' };

/** What is wrong with an amount, in words that a client may read. */
export class AmountFault extends RangeError {}

const SCALE = 4;
const UNITS = 10n ** BigInt(SCALE);
const PLAIN_DECIMAL = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?$/;
const JSON_NUMBER = /^(-?)(0|[1-9]\d*)(?:\.(\d+))?[eE]([+-]?\d+)$/;
/**
 * Characters of a decimal as it is written; the longest that any rule takes has less than half of them. Looked at before
 * anything else, since a pattern, and BigInt even more, takes time for every digit.
 */
export const MAX_WRITTEN = 60;
/** Longer exponents only describe values far outside every range, and would cost memory to write out. */
const MAX_EXPONENT = 30;
/** Digits after the point that a client may write, with zeros at the end. */
export const MAX_WRITTEN_DIGITS = 30;

/** The outward rule for one value: digits after the point that it may have, and the range it must lie in. */
export interface DecimalRule {
  readonly fractionDigits: number;
  readonly min: Amount;
  readonly max: Amount;
  /** Whether the lower bound itself is refused. */
  readonly aboveMin: boolean;
}

/**
 * Reads a plain decimal such as "12500", "-0.5" or "12500.0000": no exponent, no sign "+", no spaces, no leading zeros.
 * @throws AmountFault if it is none, or has more than four digits after the point.
 */
export function parseAmount(text: string): Amount {
  checkLength(text);
  const match = PLAIN_DECIMAL.exec(text);
  if (match === null) throw new AmountFault('must be a decimal number such as 12500.00');
  const [, sign, whole = '', fraction = ''] = match;
  if (fraction.length > SCALE) throw new AmountFault(`must have at most ${SCALE} digits after the point`);
  const units = BigInt(whole + fraction.padEnd(SCALE, '0'));
  return (sign === '-' ? -units : units) as Amount;
}

/**
 * Reads a value that a client sent, and holds it to the rule. Zeros at the end say nothing, so they may be written:
 * "12500.000" is 12500, up to MAX_WRITTEN_DIGITS digits after the point. Other digits beyond those of the rule are
 * refused; nothing is ever rounded.
 * @throws AmountFault that names the broken part of the rule.
 */
export function readDecimal(text: string, rule: DecimalRule): Amount {
  return readWritten(text, rule, '');
}

/**
 * Reads an amount of money that a client sent, above 0, with as many digits after the point as its currency has. Zeros
 * at the end may be written as for readDecimal: "8400.00" VND is 8400, so what formatAmount writes can come back.
 * @throws AmountFault that names the broken part of the rule; CurrencyFault if the digits of the currency are unknown.
 */
export function readMoney(text: string, currency: string, max: Amount): Amount {
  const rule = { fractionDigits: requireMinorUnits(currency), min: 0n as Amount, max, aboveMin: true };
  return readWritten(text, rule, ` in ${currency}`);
}

function readWritten(text: string, { fractionDigits, min, max, aboveMin }: DecimalRule, where: string): Amount {
  checkLength(text);
  const [, sign, whole = '', fraction = ''] = PLAIN_DECIMAL.exec(text) ?? [];
  if (sign === undefined) throw new AmountFault('must be a decimal number such as 12500.00');
  if (fraction.length > MAX_WRITTEN_DIGITS) {
    throw new AmountFault(`must have at most ${MAX_WRITTEN_DIGITS} digits after the point, zeros included`);
  }
  const exact = fraction.replace(/0+$/, '');
  if (exact.length > fractionDigits) {
    throw new AmountFault(`must have at most ${fractionDigits} digits after the point${where}`);
  }
  const amount = parseAmount(`${sign}${whole}${exact === '' ? '' : `.${exact}`}`);
  if (amount < min || (aboveMin && amount === min)) {
    throw new AmountFault(`must be ${aboveMin ? 'greater than' : 'at least'} ${formatPlain(min)}`);
  }
  if (amount > max) throw new AmountFault(`must be at most ${formatPlain(max)}`);
  return amount;
}

/**
 * Writes the source text of a JSON number without its exponent: "1.25e4" becomes "12500". Other text comes back as it is.
 * @throws AmountFault if the exponent, or the number of its digits, is beyond any amount.
 */
export function withoutExponent(source: string): string {
  checkLength(source);
  const match = JSON_NUMBER.exec(source);
  if (match === null) return source;
  const [, sign = '', whole = '', fraction = '', exponentText = ''] = match;
  const exponent = Number(exponentText);
  if (Math.abs(exponent) > MAX_EXPONENT) throw new AmountFault('is out of range');
  const point = whole.length + exponent;
  const digits = (whole + fraction).padStart(whole.length + fraction.length + Math.max(0, 1 - point), '0');
  const at = Math.max(1, point);
  const wholePart = digits
    .slice(0, at)
    .padEnd(at, '0')
    .replace(/^0+(?=\d)/, '');
  const fractionPart = digits.slice(at);
  return sign + wholePart + (fractionPart === '' ? '' : `.${fractionPart}`);
}

/** "12500.00": two digits after the point, and more only where the value has them. */
export function formatAmount(amount: Amount): string {
  const sign = amount < 0n ? '-' : '';
  const digits = (amount < 0n ? 0n - amount : amount).toString().padStart(SCALE + 1, '0');
  const point = digits.length - SCALE;
  return `${sign}${digits.slice(0, point)}.${digits.slice(point, point + 2)}${digits.slice(point + 2).replace(/0+$/, '')}`;
}

export function sum(amounts: Iterable<Amount>): Amount {
  let total = 0n;
  for (const amount of amounts) total += amount;
  return total as Amount;
}

/**
 * The mean of `count` non-negative amounts, rounded half up to two digits; zero of none. Only ever shown: what is owed
 * is rounded in amortization.ts, and nothing else rounds.
 */
export function average(total: Amount, count: bigint): Amount {
  if (count === 0n) return 0n as Amount;
  const hundredths = 10n ** BigInt(SCALE - 2);
  const divisor = count * hundredths;
  return (((total + divisor / 2n) / divisor) * hundredths) as Amount;
}

/**
 * The amount in the smallest unit of its currency. Never rounds.
 * @throws AmountFault if it has more digits after the point than the currency; CurrencyFault if those are unknown.
 */
export function toMinor(amount: Amount, currency: string): MinorAmount {
  const digits = requireMinorUnits(currency);
  const unit = unitsPerMinor(digits);
  if (amount % unit !== 0n) throw tooManyDigits(digits, currency);
  return (amount / unit) as MinorAmount;
}

/** @throws CurrencyFault if the digits of the currency are unknown. */
export function fromMinor(minor: MinorAmount, currency: string): Amount {
  return (minor * unitsPerMinor(requireMinorUnits(currency))) as Amount;
}

/** @throws AmountFault */
function checkLength(text: string): void {
  if (text.length > MAX_WRITTEN) throw new AmountFault(`must be written with at most ${MAX_WRITTEN} characters`);
}

function tooManyDigits(digits: number, currency: string): AmountFault {
  return new AmountFault(`must have at most ${digits} digits after the point in ${currency}`);
}

/** By the number of digits after the point. */
const UNITS_PER_MINOR = [0, 1, 2, 3, 4].map((digits) => 10n ** BigInt(SCALE - digits));

function unitsPerMinor(fractionDigits: number): bigint {
  return UNITS_PER_MINOR[fractionDigits] ?? 1n;
}

/** 50000 rather than 50000.00: the way a bound is written in a sentence. */
function formatPlain(amount: Amount): string {
  return amount % UNITS === 0n ? (amount / UNITS).toString() : formatAmount(amount);
}
