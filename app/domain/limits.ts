import { minorUnits } from './currency';
import { type Amount, AmountFault, parseAmount, toMinor } from './money';

/** The largest amount of one loan: of any currency, and of those that have one of their own. */
export interface AmountLimits {
  readonly fallback: Amount;
  readonly byCurrency: ReadonlyMap<string, Amount>;
}

/** What the database's numeric(19,4) holds at most: the largest amount that can be recorded at all. */
export const MAX_RECORDED = 9_999_999_999_999_999_999n as Amount;

/** A text that is no list of limits, in words for whoever wrote the setting. */
export class LimitFault extends RangeError {}

/**
 * Reads "50000", or "50000,KES=5000000,VND=2000000000": first what holds for every currency, then exceptions.
 * @throws LimitFault
 */
export function parseLimits(text: string): AmountLimits {
  const [fallback = '', ...exceptions] = text.split(',');
  const byCurrency = new Map<string, Amount>();
  for (const exception of exceptions) {
    const [code = '', limit = ''] = exception.split('=', 2);
    // A withdrawn currency does no harm: the setting of a running service must not fail with an update of ISO 4217.
    if (minorUnits(code) === undefined || exception !== `${code}=${limit}`) {
      throw new LimitFault(`"${exception}" must be a currency of ISO 4217 and its largest amount, such as KES=5000000`);
    }
    if (byCurrency.has(code)) throw new LimitFault(`${code} must occur once`);
    const amount = parseLimit(limit, `that of ${code} `);
    try {
      toMinor(amount, code);
    } catch (error) {
      if (error instanceof AmountFault) throw new LimitFault(`that of ${code} ${error.message}`);
      throw error;
    }
    byCurrency.set(code, amount);
  }
  return { fallback: parseLimit(fallback, ''), byCurrency };
}

export function limitOf({ fallback, byCurrency }: AmountLimits, currency: string): Amount {
  return byCurrency.get(currency) ?? fallback;
}

function parseLimit(text: string, subject: string): Amount {
  const fault = new LimitFault(`${subject}must be a decimal above 0 such as 50000`);
  if (!/^\d{1,15}(\.\d{1,4})?$/.test(text)) throw fault;
  try {
    const amount = parseAmount(text);
    if (amount > 0n) return amount;
  } catch (error) {
    if (!(error instanceof AmountFault)) throw error;
  }
  throw fault;
}
