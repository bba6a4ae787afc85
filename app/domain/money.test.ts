import fc from 'fast-check';
import { CurrencyFault, requireMinorUnits } from './currency';
import {
  type Amount,
  AmountFault,
  average,
  formatAmount,
  fromMinor,
  type MinorAmount,
  parseAmount,
  readDecimal,
  readMoney,
  sum,
  toMinor,
  withoutExponent,
} from './money';

/** Up to the edges of numeric(12,2) and numeric(19,4), in ten-thousandths, and beyond them. */
const EDGE_12_2 = 999_999_999_999n * 100n;
const EDGE_19_4 = 9_999_999_999_999_999_999n;
const units = (max: bigint) => fc.bigInt({ min: -max, max }).map((value) => value as Amount);
const anyAmount = fc.oneof(
  units(EDGE_12_2),
  units(EDGE_19_4),
  units(20n),
  fc.constantFrom(EDGE_12_2, EDGE_19_4, 0n).map((value) => value as Amount),
);
const RULE = { fractionDigits: 2, min: parseAmount('0'), max: parseAmount('50000'), aboveMin: true };

describe('an amount', () => {
  it('comes back from its text as it was', () => {
    fc.assert(
      fc.property(anyAmount, (amount) => parseAmount(formatAmount(amount)) === amount),
      { numRuns: 5_000 },
    );
  });

  it('is written with two digits, and more only where it has them', () => {
    fc.assert(
      fc.property(anyAmount, (amount) => {
        const text = formatAmount(amount);
        expect(text).toMatch(/^-?(0|[1-9]\d*)\.\d{2}(\d?[1-9])?$/);
        expect(/\.\d\d$/.test(text)).toBe(amount % 100n === 0n);
      }),
    );
  });

  it.each([
    ['0', '0.00'],
    ['12500', '12500.00'],
    ['12500.5', '12500.50'],
    ['0.0001', '0.0001'],
    ['0.1230', '0.123'],
    ['-0.05', '-0.05'],
    ['-1.5', '-1.50'],
    ['9999999999.99', '9999999999.99'],
    ['999999999999999.9999', '999999999999999.9999'],
    ['9007199254740993.00', '9007199254740993.00'],
  ])('reads %s and writes %s', (text, written) => {
    expect(formatAmount(parseAmount(text))).toBe(written);
  });

  it.each([
    '',
    ' ',
    '1 ',
    '+1',
    '01',
    '.5',
    '1.',
    '1,000',
    '1e3',
    'NaN',
    'Infinity',
    '0x10',
    '١',
    '--1',
    '1.00001',
    '1.2.3',
  ])('is not "%s"', (text) => {
    expect(() => parseAmount(text)).toThrow(AmountFault);
  });

  it('is never read from arbitrary text except when it is a plain decimal', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...Array.from('0123456789.-+eE ,x')) }), (text) => {
        let read = true;
        try {
          parseAmount(text);
        } catch {
          read = false;
        }
        return read === /^-?(0|[1-9]\d*)(\.\d{1,4})?$/.test(text);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('the outward rule', () => {
  it('takes every value of two digits within the range, and nothing else', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -10n, max: 60_000_000_000n }), (value) => {
        const amount = value as Amount;
        const acceptable = amount > 0n && amount <= RULE.max && amount % 100n === 0n;
        const read = () => readDecimal(formatAmount(amount), RULE);
        if (acceptable) expect(read()).toBe(amount);
        else expect(read).toThrow(AmountFault);
      }),
      { numRuns: 5_000 },
    );
  });

  it.each([
    ['0.001', 'must have at most 2 digits after the point'],
    ['1.0010', 'must have at most 2 digits after the point'],
    [`1.${'0'.repeat(31)}`, 'must have at most 30 digits after the point, zeros included'],
    ['1' + '0'.repeat(59), 'must be at most 50000'],
    ['-1' + '0'.repeat(58), 'must be greater than 0'],
    ['1' + '0'.repeat(60), 'must be written with at most 60 characters'],
    ['0', 'must be greater than 0'],
    ['50000.01', 'must be at most 50000'],
    ['x', 'must be a decimal number such as 12500.00'],
  ])('says what is wrong with %s', (text, message) => {
    expect(() => readDecimal(text, RULE)).toThrow(message);
    expect(() => readDecimal('-1', { ...RULE, min: parseAmount('0.5'), aboveMin: false })).toThrow(
      'must be at least 0.50',
    );
  });
});

describe('the source of a JSON number', () => {
  it.each([
    ['1', '1'],
    ['1.50', '1.50'],
    ['1.25e4', '12500'],
    ['1.25E+2', '125'],
    ['125e-2', '1.25'],
    ['5e-2', '0.05'],
    ['-5e-2', '-0.05'],
    ['0e5', '0'],
    ['0.001e3', '1'],
    ['12.345e1', '123.45'],
    ['1e0', '1'],
    ['1e30', '1' + '0'.repeat(30)],
  ])('%s is %s', (source, plain) => {
    expect(withoutExponent(source)).toBe(plain);
  });

  it.each(['1e31', '1e-31', '1e400', '1e999999999999999999'])('%s is out of range', (source) => {
    expect(() => withoutExponent(source)).toThrow(AmountFault);
  });

  it('has the value of its exponent form, exactly', () => {
    const digits = fc.bigInt({ min: 0n, max: EDGE_19_4 });
    fc.assert(
      fc.property(
        digits,
        fc.integer({ min: 0, max: 18 }),
        fc.integer({ min: -4, max: 8 }),
        (value, point, exponent) => {
          const text = value.toString().padStart(point + 1, '0');
          const mantissa = point === 0 ? text : `${text.slice(0, -point)}.${text.slice(-point)}`;
          const plain = withoutExponent(`${mantissa}e${exponent}`);
          const [whole = '', fraction = ''] = plain.split('.');
          // value * 10^(exponent - point), both sides as whole numbers of 10^-30
          expect(BigInt(whole + fraction) * 10n ** BigInt(30 - fraction.length)).toBe(
            value * 10n ** BigInt(30 + exponent - point),
          );
          expect(plain).toMatch(/^(0|[1-9]\d*)(\.\d+)?$/);
        },
      ),
      { numRuns: 2_000 },
    );
  });
});

describe('sums and means', () => {
  it('add up exactly, in any order and grouping', () => {
    fc.assert(
      fc.property(fc.array(anyAmount), fc.array(anyAmount), (left, right) => {
        expect(sum([...left, ...right])).toBe(sum([sum(right), sum(left)]));
      }),
    );
  });

  it('0.1 and 0.2 are 0.3', () => {
    expect(formatAmount(sum([parseAmount('0.1'), parseAmount('0.2')]))).toBe('0.30');
  });

  it('a mean is at most half a hundredth from the true one, and half is rounded up', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: EDGE_19_4 }), fc.bigInt({ min: 1n, max: 1_000_000n }), (total, count) => {
        const distance = average(total as Amount, count) * count - total;
        expect(2n * distance > -100n * count && 2n * distance <= 100n * count).toBe(true);
        expect(average(total as Amount, count) % 100n).toBe(0n);
      }),
    );
    expect(formatAmount(average(parseAmount('0.01'), 2n))).toBe('0.01');
    expect(formatAmount(average(parseAmount('0.01'), 3n))).toBe('0.00');
    expect(formatAmount(average(parseAmount('0'), 0n))).toBe('0.00');
  });
});

describe('minor units of a currency', () => {
  const currency = fc.constantFrom('VND', 'KES', 'KWD', 'CLF');

  it('hold an amount exactly, or refuse it for its digits', () => {
    fc.assert(
      fc.property(anyAmount, currency, (amount, code) => {
        const step = 10n ** BigInt(4 - requireMinorUnits(code));
        if (amount % step !== 0n) expect(() => toMinor(amount, code)).toThrow(AmountFault);
        else expect(toMinor(amount, code) * step).toBe(amount);
      }),
      { numRuns: 5_000 },
    );
  });

  it('come back from their amount and from their text as they were', () => {
    fc.assert(
      fc.property(units(EDGE_19_4), currency, (value, code) => {
        const minor = BigInt(value) as MinorAmount;
        const amount = fromMinor(minor, code);
        expect(toMinor(amount, code)).toBe(minor);
        // What goes out can come back in.
        if (amount > 0n) expect(readMoney(formatAmount(amount), code, amount)).toBe(amount);
      }),
      { numRuns: 5_000 },
    );
  });

  it.each([
    ['12500', 'KES'],
    ['12500.00', 'KES'],
    ['8400', 'VND'],
    ['8400.00', 'VND'],
    ['1.25', 'KWD'],
    ['1.250', 'KWD'],
    ['0.0001', 'CLF'],
  ])('are read from %s %s', (text, code) => {
    expect(readMoney(text, code, parseAmount('12500'))).toBe(parseAmount(text));
  });

  it('are read with any zeros at the end, up to 30 digits, as without them', () => {
    const zeros = fc.integer({ min: 0, max: 40 });
    const anyValue = fc.bigInt({ min: 1n, max: EDGE_19_4 });
    fc.assert(
      fc.property(anyValue, currency, zeros, (value, code, count) => {
        const exact = fromMinor(value as MinorAmount, code);
        const text = `${formatAmount(exact)}${'0'.repeat(count)}`;
        const read = () => [
          readMoney(text, code, exact),
          readDecimal(text, { ...RULE, fractionDigits: 4, max: exact }),
        ];
        if (text.length > 60) expect(read).toThrow('must be written with at most 60 characters');
        else if (text.length - text.indexOf('.') > 31)
          expect(read).toThrow('must have at most 30 digits after the point');
        else expect(read()).toEqual([exact, exact]);
      }),
      { numRuns: 2_000 },
    );
  });

  it.each([
    ['0.5', 'VND', 'must have at most 0 digits after the point in VND'],
    ['8400.010', 'VND', 'must have at most 0 digits after the point in VND'],
    ['10.001', 'KES', 'must have at most 2 digits after the point in KES'],
    ['10.0010', 'KES', 'must have at most 2 digits after the point in KES'],
    ['10.0001', 'KWD', 'must have at most 3 digits after the point in KWD'],
    ['0.00001', 'CLF', 'must have at most 4 digits after the point in CLF'],
    ['0', 'KES', 'must be greater than 0'],
    ['12500.01', 'KES', 'must be at most 12500'],
    ['1e3', 'KES', 'must be a decimal number such as 12500.00'],
  ])('are not read from %s %s: it %s', (text, code, message) => {
    expect(() => readMoney(text, code, parseAmount('12500'))).toThrow(new AmountFault(message));
  });

  it.each([
    ['0.5', 'VND', 'must have at most 0 digits after the point in VND'],
    ['10.001', 'KES', 'must have at most 2 digits after the point in KES'],
    ['10.0001', 'KWD', 'must have at most 3 digits after the point in KWD'],
  ])('refuse %s %s rather than round it', (text, code, message) => {
    expect(() => toMinor(parseAmount(text), code)).toThrow(new AmountFault(message));
  });

  it('do not exist in gold', () => {
    expect(() => toMinor(parseAmount('1'), 'XAU')).toThrow(CurrencyFault);
    expect(() => fromMinor(1n as MinorAmount, 'XAU')).toThrow(CurrencyFault);
    expect(() => readMoney('1', 'XAU', parseAmount('1'))).toThrow(CurrencyFault);
  });
});
