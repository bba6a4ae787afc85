import { CurrencyFault, isLendable, minorUnits, requireMinorUnits } from './currency';

const LETTERS = Array.from('ABCDEFGHIJKLMNOPQRSTUVWXYZ');
const EVERY_CODE = LETTERS.flatMap((a) => LETTERS.flatMap((b) => LETTERS.map((c) => a + b + c)));
const withDigits = (digits: number) => EVERY_CODE.filter((code) => minorUnits(code) === digits).join(' ');

it('has as many currencies as the list of 2026-01-01, by their digits', () => {
  expect(withDigits(0)).toBe('BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF');
  expect(withDigits(3)).toBe('BHD IQD JOD KWD LYD OMR TND');
  expect(withDigits(4)).toBe('CLF UYW');
  expect(withDigits(2).split(' ')).toHaveLength(139);
  expect(EVERY_CODE.filter(isLendable)).toHaveLength(165);
});

it.each([
  ['KES', 2],
  ['VND', 0],
  ['KWD', 3],
  ['AFN', 2],
  ['IQD', 3],
  ['HUF', 2],
  ['IDR', 2],
  ['COP', 2],
  ['ZWG', 2],
  ['XCG', 2],
])('%s has %i digits, also where Intl says otherwise', (code, digits) => {
  expect(minorUnits(code)).toBe(digits);
  expect(requireMinorUnits(code)).toBe(digits);
  expect(isLendable(code)).toBe(true);
});

it.each([
  ['of no minor unit', 'XAU'],
  ['of no minor unit', 'XDR'],
  ['for tests', 'XTS'],
  ['of no currency', 'XXX'],
  ['withdrawn: the euro since 2026', 'BGN'],
  ['withdrawn: the euro since 2023', 'HRK'],
  ['withdrawn: ZWG since 2024', 'ZWL'],
  ['withdrawn: XCG since 2025', 'ANG'],
  ['not upper case', 'kes'],
  ['none', 'ZZZ'],
  ['none', ''],
  ['a name of every object', 'constructor'],
  ['a name of every object', '__proto__'],
])('a code %s is not lendable: %s', (_why, code) => {
  expect(minorUnits(code)).toBeUndefined();
  expect(isLendable(code)).toBe(false);
  expect(() => requireMinorUnits(code)).toThrow(CurrencyFault);
});
