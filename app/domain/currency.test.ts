import { CurrencyFault, isLendable, minorUnits, requireMinorUnits } from './currency';

const LETTERS = Array.from('ABCDEFGHIJKLMNOPQRSTUVWXYZ');
const EVERY_CODE = LETTERS.flatMap((a) => LETTERS.flatMap((b) => LETTERS.map((c) => a + b + c)));
const lendable = (digits: number) =>
  EVERY_CODE.filter((code) => isLendable(code) && minorUnits(code) === digits).join(' ');

it('lends in as many currencies as the list of 2026-01-01 has, by their digits', () => {
  expect(lendable(0)).toBe('BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF');
  expect(lendable(3)).toBe('BHD IQD JOD KWD LYD OMR TND');
  expect(lendable(4)).toBe('CLF UYW');
  expect(lendable(2).split(' ')).toHaveLength(139);
  expect(EVERY_CODE.filter(isLendable)).toHaveLength(165);
  expect(EVERY_CODE.filter((code) => minorUnits(code) !== undefined)).toHaveLength(165 + 54);
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
  ['BGN', 2, 'the euro since 2026'],
  ['HRK', 2, 'the euro since 2023'],
  ['ZWL', 2, 'ZWG since 2024'],
  ['ANG', 2, 'XCG since 2025'],
  ['SLL', 2, 'SLE since 2024'],
  ['MRO', 2, 'MRU since 2018'],
  ['BYR', 0, 'BYN since 2016'],
  ['ITL', 0, 'the euro since 2002'],
])('%s, which ISO 4217 withdrew, is still counted with %i digits, and not lent any more: %s', (code, digits) => {
  expect(requireMinorUnits(code)).toBe(digits);
  expect(isLendable(code)).toBe(false);
});

it.each([
  ['of no minor unit', 'XAU'],
  ['of no minor unit', 'XDR'],
  ['for tests', 'XTS'],
  ['of no currency', 'XXX'],
  ['whose digits are not known any more', 'YUD'],
  ['not upper case', 'kes'],
  ['none', 'ZZZ'],
  ['none', ''],
  ['a name of every object', 'constructor'],
  ['a name of every object', '__proto__'],
])('a code %s is neither lent nor counted: %s', (_why, code) => {
  expect(minorUnits(code)).toBeUndefined();
  expect(isLendable(code)).toBe(false);
  expect(() => requireMinorUnits(code)).toThrow(CurrencyFault);
});
