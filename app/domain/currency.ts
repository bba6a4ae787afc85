/**
 * The active codes of ISO 4217 by their number of minor digits: list one of the maintenance agency (SIX), as published
 * on 2026-01-01. Not Intl: its digits are those of CLDR, which differ (IQD 0 instead of 3, HUF 0 instead of 2).
 *
 * The 13 codes of that list that have no minor unit are left out on purpose, so that nothing is lent in them: metals
 * (XAG, XAU, XPD, XPT), units of account (XBA to XBD, XDR, XSU, XUA), testing (XTS) and no currency (XXX).
 */
const CODES_BY_DIGITS = {
  0: `
    BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF`,
  2: `
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE
    CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD
    HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK
    MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD
    RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH
    USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG`,
  3: `
    BHD IQD JOD KWD LYD OMR TND`,
  4: `
    CLF UYW`,
};

const DIGITS_BY_CODE: ReadonlyMap<string, number> = new Map(
  Object.entries(CODES_BY_DIGITS).flatMap(([digits, codes]) =>
    codes
      .trim()
      .split(/\s+/)
      .map((code) => [code, Number(digits)] as const),
  ),
);

/** All lendable codes by their number of digits after the point, in alphabetical order. */
export const CODES: ReadonlyMap<number, readonly string[]> = new Map(
  [...new Set(DIGITS_BY_CODE.values())].map((digits) => [
    digits,
    [...DIGITS_BY_CODE.keys()].filter((code) => DIGITS_BY_CODE.get(code) === digits),
  ]),
);

/** A code that no money can be counted in, in words that a client may read. */
export class CurrencyFault extends RangeError {}

/** Digits after the point that an amount of this currency may have, 0 to 4; undefined if the code isn't lendable. */
export function minorUnits(code: string): number | undefined {
  return DIGITS_BY_CODE.get(code);
}

/** Whether the code, in upper case, is an active one whose amounts can be counted in a smallest unit. */
export function isLendable(code: string): boolean {
  return DIGITS_BY_CODE.has(code);
}

/**
 * The same as minorUnits, for where a code was checked before.
 * @throws CurrencyFault if the code isn't lendable.
 */
export function requireMinorUnits(code: string): number {
  const digits = minorUnits(code);
  if (digits === undefined) throw new CurrencyFault('must be an active ISO 4217 currency that has a minor unit');
  return digits;
}
