/**
 * What may be lent now: the active codes of ISO 4217 by their number of minor digits, from list one of the maintenance
 * agency (SIX), as published on 2026-01-01. Not Intl: its digits are those of CLDR, which differ (IQD 0 instead of 3,
 * HUF 0 instead of 2).
 *
 * The 13 codes of that list that have no minor unit are left out on purpose, so that nothing is lent in them: metals
 * (XAG, XAU, XPD, XPT), units of account (XBA to XBD, XDR, XSU, XUA), testing (XTS) and no currency (XXX).
 */
const ACTIVE = {
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

/**
 * What is still counted, because loans in it may run: codes of list three (withdrawn, published on 2026-01-01). That list
 * has no digits; these are those of the Java platform (java.util.Currency). A code that Java does not know is left out:
 * its digits would be a guess, and nearly all of those were withdrawn before 2001. When list one loses a code, it moves
 * here.
 */
const WITHDRAWN = {
  0: 'ADP BEF BYB BYR ESP GRD ITL LUF MGF PTE ROL TPE TRL',
  2: `
    AFA ANG ATS AYM AZM BGL BGN CSD CUC CYP DEM EEK FIM FRF GHC GWP HRK IEP LTL LVL MRO MTL MZM NLG RUR
    SDD SIT SKK SLL SRG STD TMM USS VEB VEF YUM ZMK ZWD ZWL ZWN ZWR`,
};

const LENDABLE = digitsByCode(ACTIVE);
const COUNTED: ReadonlyMap<string, number> = new Map([...LENDABLE, ...digitsByCode(WITHDRAWN)]);

function digitsByCode(table: Readonly<Record<number, string>>): ReadonlyMap<string, number> {
  return new Map(
    Object.entries(table).flatMap(([digits, codes]) =>
      codes
        .trim()
        .split(/\s+/)
        .map((code) => [code, Number(digits)] as const),
    ),
  );
}

/** All lendable codes by their number of digits after the point, in alphabetical order. */
export const CODES: ReadonlyMap<number, readonly string[]> = new Map(
  [...new Set(LENDABLE.values())].map((digits) => [
    digits,
    [...LENDABLE.keys()].filter((code) => LENDABLE.get(code) === digits),
  ]),
);

/** A code that no money can be counted in, in words that a client may read. */
export class CurrencyFault extends RangeError {}

/**
 * Digits after the point that an amount of this currency has, 0 to 4, also after ISO 4217 withdrew the code; undefined
 * for a code whose digits are not known.
 */
export function minorUnits(code: string): number | undefined {
  return COUNTED.get(code);
}

/** Whether a new loan may be in this currency: an active code, in upper case, that has a minor unit. */
export function isLendable(code: string): boolean {
  return LENDABLE.has(code);
}

/**
 * The same as minorUnits, for money that has to be counted.
 * @throws CurrencyFault if the digits of the code are not known.
 */
export function requireMinorUnits(code: string): number {
  const digits = minorUnits(code);
  if (digits === undefined) throw new CurrencyFault('must be an ISO 4217 currency whose minor unit is known');
  return digits;
}
