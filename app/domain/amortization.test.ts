import fc from 'fast-check';
import {
  addMonths,
  DateFault,
  daysBetween,
  type Instalment,
  isCalendarDate,
  MAX_TERM_MONTHS,
  schedule,
  type Terms,
  TermsFault,
} from './amortization';
import { type Amount, type MinorAmount, parseAmount, toMinor } from './money';

const RUNS = { numRuns: Number(process.env.PROPERTY_RUNS ?? 1_000) };
jest.setTimeout(20 * Math.max(1_000, RUNS.numRuns));
const JANUARY_31 = '2026-01-31';

const terms = (amount: bigint, apr: string, termMonths: number): Terms => ({
  principalMinor: amount as MinorAmount,
  interestRateApr: parseAmount(apr),
  termMonths,
  startDate: JANUARY_31,
});
const payments = (instalments: readonly Instalment[]) => instalments.map(({ payment }) => payment);

/** 50000 of a currency with 0, 2, 3 and 4 digits, the edge of numeric(19,4), and the smallest of all. */
const anyPrincipal = fc
  .oneof(
    ...[50_000n, 5_000_000n, 50_000_000n, 500_000_000n, 9_999_999_999_999_999_999n, 20n].map((max) =>
      fc.bigInt({ min: 1n, max }),
    ),
  )
  .map((value) => value as MinorAmount);
/** Up to 100 %, in hundredths as the API takes it and in ten-thousandths, zero often. */
const anyRate = fc
  .oneof(
    fc.constant(0n),
    fc.bigInt({ min: 0n, max: 10_000n }).map((value) => value * 100n),
    fc.bigInt({ min: 0n, max: 1_000_000n }),
  )
  .map((value) => value as Amount);
const anyTerm = fc.oneof(
  { weight: 1, arbitrary: fc.constant(1) },
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 60 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: MAX_TERM_MONTHS }) },
);
const anyDate = fc
  .integer({ min: 0, max: 100_000 })
  .map((day) => new Date(Date.UTC(1900, 0, 1) + day * 86_400_000).toISOString().slice(0, 10));
const anyTerms: fc.Arbitrary<Terms> = fc.record({
  principalMinor: anyPrincipal,
  interestRateApr: anyRate,
  termMonths: anyTerm,
  startDate: anyDate,
});

/** A second way to the same figures: fractions in lowest terms, and the payment by discounting each instalment. */
class Fraction {
  readonly top: bigint;
  readonly bottom: bigint;
  constructor(top: bigint, bottom = 1n) {
    let [a, b] = [top < 0n ? -top : top, bottom];
    while (b !== 0n) [a, b] = [b, a % b];
    this.top = top / a;
    this.bottom = bottom / a;
  }
  plus = (that: Fraction) => new Fraction(this.top * that.bottom + that.top * this.bottom, this.bottom * that.bottom);
  minus = (that: Fraction) => this.plus(new Fraction(-that.top, that.bottom));
  times = (that: Fraction) => new Fraction(this.top * that.top, this.bottom * that.bottom);
  over = (that: Fraction) => new Fraction(this.top * that.bottom, this.bottom * that.top);
  abs = () => (this.top < 0n ? new Fraction(-this.top, this.bottom) : this);
  atMost = (that: Fraction) => this.top * that.bottom <= that.top * this.bottom;
  /** Half to even, of what is not negative: to the nearest, and to the one that is even where two are. */
  rounded(): bigint {
    const up = (2n * this.top + this.bottom) / (2n * this.bottom);
    const isTie = (2n * this.top) % this.bottom === 0n && ((2n * this.top) / this.bottom) % 2n === 1n;
    return isTie && up % 2n === 1n ? up - 1n : up;
  }
}
const ONE = new Fraction(1n);
const monthlyRate = ({ interestRateApr }: Terms) =>
  new Fraction(interestRateApr, 10_000n).over(new Fraction(100n)).over(new Fraction(12n));

/** The sum of ratio^first, ratio^(first + 1), ... of so many terms. */
function geometricSum(ratio: Fraction, first: number, count: number): Fraction {
  let power = ONE;
  let total = new Fraction(0n);
  for (let k = 0; k < first + count; k++) {
    if (k >= first) total = total.plus(power);
    power = power.times(ratio);
  }
  return total;
}
const exactPayment = (of: Terms) =>
  new Fraction(of.principalMinor).over(geometricSum(ONE.over(ONE.plus(monthlyRate(of))), 1, of.termMonths));
const isLevel = (instalments: readonly Instalment[]) => new Set(payments(instalments).slice(0, -1)).size <= 1;

describe('every schedule', () => {
  it('adds up to the amount exactly, ends at 0 and never owes more than before', () => {
    fc.assert(
      fc.property(anyTerms, (of) => {
        const instalments = schedule(of);
        let balance: bigint = of.principalMinor;
        for (const { principal, interest, payment, balance: left } of instalments) {
          balance -= principal;
          if (principal < 0n || interest < 0n || payment !== principal + interest || left !== balance) return false;
        }
        expect(instalments.map(({ number }) => number)).toEqual(instalments.map((_, index) => index + 1));
        expect(instalments).toHaveLength(of.termMonths);
        return balance === 0n;
      }),
      RUNS,
    );
  });

  it('bears the interest of each month on what was left, rounded half to even', () => {
    fc.assert(
      fc.property(anyTerms, (of) => {
        const rate = monthlyRate(of);
        const instalments = schedule(of);
        const before = [of.principalMinor, ...instalments.map(({ balance }) => balance)].slice(0, -1);
        expect(instalments.map(({ interest }) => interest)).toEqual(
          before.map((balance) => new Fraction(balance).times(rate).rounded()),
        );
      }),
      RUNS,
    );
  });

  it('is the same for the same terms, and its dates follow each other', () => {
    fc.assert(
      fc.property(anyTerms, (of) => {
        const instalments = schedule(of);
        expect(schedule({ ...of })).toEqual(instalments);
        const dates = [of.startDate, ...instalments.map(({ dueDate }) => dueDate)];
        expect(dates.every((date, index) => index === 0 || date > dates[index - 1]!)).toBe(true);
      }),
      RUNS,
    );
  });
});

describe('a schedule that was asked for before', () => {
  const of = (day: number) => ({ ...terms(5_000_000n, '28', MAX_TERM_MONTHS), startDate: `2026-01-${day}` });

  it('is the same one: nothing is worked out again', () => {
    const first = schedule(of(10));
    expect(schedule({ ...of(10) })).toBe(first);
    expect(schedule(of(11))).not.toBe(first);
    expect(schedule({ ...of(10), interestRateApr: parseAmount('28.01') })).not.toBe(first);
  });

  it('is kept while it is in use, and only so many are kept', () => {
    const used = schedule(of(10));
    const unused = schedule(of(11));
    for (let amount = 1n; amount <= 60n; amount++) {
      schedule(terms(5_000_000n + amount, '28', MAX_TERM_MONTHS));
      expect(schedule(of(10))).toBe(used);
    }
    expect(schedule(of(11))).not.toBe(unused);
    expect(schedule(of(11))).toEqual(unused);
  });
});

describe('an annuity', () => {
  /** Terms of a loan that somebody would take: the roundings of all months together stay below one payment. */
  const ordinary = fc
    .record({
      principalMinor: fc.bigInt({ min: 100_000n, max: 5_000_000_000n }).map((value) => value as MinorAmount),
      interestRateApr: fc.bigInt({ min: 0n, max: 600_000n }).map((value) => value as Amount),
      termMonths: fc.integer({ min: 1, max: 36 }),
      startDate: anyDate,
    })
    .filter((of) => {
      const drift = geometricSum(ONE.plus(monthlyRate(of)), 0, of.termMonths);
      return drift.plus(ONE).atMost(exactPayment(of));
    });

  it('has equal payments, the exact one rounded, and a last one that differs by what roundings grow to', () => {
    fc.assert(
      fc.property(ordinary, (of) => {
        const all = payments(schedule(of));
        const last = all.pop()!;
        const payment = exactPayment(of).rounded();
        expect(all.every((each) => each === payment)).toBe(true);
        const drift = geometricSum(ONE.plus(monthlyRate(of)), 0, of.termMonths);
        expect(new Fraction(last - payment).abs().atMost(drift)).toBe(true);
      }),
      RUNS,
    );
  });

  it('without interest differs in the last payment by less than one unit a month', () => {
    fc.assert(
      fc.property(anyPrincipal, fc.integer({ min: 2, max: 120 }), (principal, months) => {
        const all = payments(schedule(terms(principal, '0', months)));
        const last = all.at(-1)!;
        expect(all.every((each) => (each > last ? each - last : last - each) < BigInt(months))).toBe(true);
      }),
      RUNS,
    );
  });

  it('follows the exact balance where equal payments cannot clear it', () => {
    const extreme = anyTerms.filter((of) => !isLevel(schedule(of)) && of.termMonths <= 120);
    fc.assert(
      fc.property(extreme, (of) => {
        const exact = exactPayment(of);
        const growth = ONE.plus(monthlyRate(of));
        const distance = new Fraction(3n, 2n).plus(monthlyRate(of).over(new Fraction(2n)));
        let balance = new Fraction(of.principalMinor);
        for (const { payment, balance: left } of schedule(of)) {
          expect(new Fraction(payment).minus(exact).abs().atMost(distance)).toBe(true);
          balance = balance.times(growth).minus(exact);
          expect(left).toBe(balance.rounded());
        }
      }),
      { numRuns: Math.ceil(RUNS.numRuns / 10) },
    );
  });

  it('of 12500.00 KES at 28 % over 6 months', () => {
    const instalments = schedule(terms(toMinor(parseAmount('12500.00'), 'KES'), '28', 6));
    expect(
      instalments.map(({ dueDate, principal, interest, payment, balance }) =>
        [dueDate, principal, interest, payment, balance].join(' '),
      ),
    ).toEqual([
      '2026-02-28 196507 29167 225674 1053493',
      '2026-03-31 201092 24582 225674 852401',
      '2026-04-30 205785 19889 225674 646616',
      '2026-05-31 210586 15088 225674 436030',
      '2026-06-30 215500 10174 225674 220530',
      '2026-07-31 220530 5146 225676 0',
    ]);
  });

  it.each([
    ['8400000 VND at 24 % over 4 months', 8_400_000n, '24', 4, 2_206_040n, 2_206_038n],
    ['1234.567 KWD at 18.25 % over 12 months', 1_234_567n, '18.25', 12, 113_332n, 113_333n],
    ['12500.00 KES without interest over 6 months', 1_250_000n, '0', 6, 208_333n, 208_335n],
    ['1.00 KES without interest over 12 months', 100n, '0', 12, 8n, 12n],
    ['50000.00 KES at 28 % over 60 months', 5_000_000n, '28', 60, 155_679n, 155_697n],
    ['50000.00 KES at 36 % over 60 months', 5_000_000n, '36', 60, 180_665n, 180_626n],
  ])('of %s', (_what, principal, apr, months, payment, last) => {
    const all = payments(schedule(terms(principal, apr, months)));
    expect(all).toEqual([...Array<bigint>(months - 1).fill(payment), last]);
  });

  it('of one month is the amount with its interest', () => {
    expect(payments(schedule(terms(1_250_000n, '28', 1)))).toEqual([1_279_167n]);
    expect(payments(schedule(terms(1n, '0', 1)))).toEqual([1n]);
  });

  it('of one cent falls due once, when less than half of it would be left', () => {
    expect(payments(schedule(terms(1n, '28', 5)))).toEqual([0n, 0n, 1n, 0n, 0n]);
    const long = schedule(terms(1n, '28', MAX_TERM_MONTHS));
    expect(long.filter(({ principal }) => principal > 0n)).toHaveLength(1);
    // At 0 % of 7 cents in 12 months, no payment is more than a cent.
    expect(new Set(payments(schedule(terms(7n, '0', 12))))).toEqual(new Set([0n, 1n]));
  });

  it('at 100 % over 50 years is paid in near-equal instalments, not by a last one of everything', () => {
    const all = payments(schedule(terms(5_000_000n, '100', MAX_TERM_MONTHS)));
    expect(all[0]).toBe(416_667n);
    expect(all.every((each) => each >= 416_665n && each <= 416_669n)).toBe(true);
  });

  it('takes the equal payment as long as the last is at most twice that', () => {
    expect(payments(schedule(terms(4n, '0', 3)))).toEqual([1n, 1n, 2n]);
    expect(payments(schedule(terms(5n, '0', 3)))).toEqual([2n, 2n, 1n]);
    // 1 a month would leave nothing for the last month, or 5 of 13.
    expect(payments(schedule(terms(2n, '0', 3)))).toEqual([1n, 0n, 1n]);
    expect(payments(schedule(terms(3n, '0', 4)))).toEqual([1n, 0n, 1n, 1n]);
    expect(payments(schedule(terms(13n, '0', 9)))).toEqual([1n, 2n, 1n, 2n, 1n, 2n, 1n, 2n, 1n]);
  });
});

describe('terms that make no schedule', () => {
  const sound = terms(1_250_000n, '28', 6);
  it.each([
    ['principalMinor', { principalMinor: 0n as MinorAmount }],
    ['principalMinor', { principalMinor: -1n as MinorAmount }],
    ['interestRateApr', { interestRateApr: -1n as Amount }],
    ['termMonths', { termMonths: 0 }],
    ['termMonths', { termMonths: 1.5 }],
    ['termMonths', { termMonths: NaN }],
    ['termMonths', { termMonths: MAX_TERM_MONTHS + 1 }],
    ['startDate', { startDate: '2026-02-30' }],
  ])('are refused by %s', (field, change) => {
    const make = () => schedule({ ...sound, ...change });
    expect(make).toThrow(TermsFault);
    expect(make).toThrow(expect.objectContaining({ field, message: expect.stringMatching(/^must be /) }) as TermsFault);
  });

  it('would last beyond the calendar', () => {
    expect(() => schedule({ ...sound, startDate: '9999-12-31' })).toThrow(DateFault);
    expect(schedule({ ...sound, startDate: '9999-06-30' }).at(-1)?.dueDate).toBe('9999-12-30');
  });
});

describe('dates', () => {
  it.each([
    ['2026-01-31', 1, '2026-02-28'],
    ['2028-01-31', 1, '2028-02-29'],
    ['2026-01-31', 2, '2026-03-31'],
    ['2026-01-31', 3, '2026-04-30'],
    ['2026-01-30', 1, '2026-02-28'],
    ['2028-02-29', 12, '2029-02-28'],
    ['2028-02-29', 48, '2032-02-29'],
    ['2000-01-31', 1, '2000-02-29'],
    ['2100-01-31', 1, '2100-02-28'],
    ['2026-12-15', 1, '2027-01-15'],
    ['2026-11-30', 13, '2027-12-30'],
    ['0050-12-31', 2, '0051-02-28'],
    ['2026-01-31', 0, '2026-01-31'],
  ])('%s and %i months is %s', (date, months, later) => {
    expect(addMonths(date, months)).toBe(later);
  });

  it('keep their day, or the last of a shorter month', () => {
    fc.assert(
      fc.property(anyDate, fc.integer({ min: 0, max: MAX_TERM_MONTHS }), (date, months) => {
        const later = addMonths(date, months);
        const dayAfter = new Date(Date.parse(later) + 86_400_000).toISOString().slice(0, 10);
        expect(isCalendarDate(later)).toBe(true);
        if (later.slice(8) !== date.slice(8)) {
          expect(later.slice(8) < date.slice(8)).toBe(true);
          expect(dayAfter.slice(8)).toBe('01');
        }
        const month = (text: string) => Number(text.slice(0, 4)) * 12 + Number(text.slice(5, 7));
        expect(month(later) - month(date)).toBe(months);
      }),
      RUNS,
    );
  });

  it.each([
    '',
    '2026-1-31',
    '2026-00-10',
    '2026-13-01',
    '2026-01-00',
    '2026-01-32',
    '2026-04-31',
    '2026-02-29',
    '2100-02-29',
    '2026-01-31T00:00:00Z',
    ' 2026-01-31',
    '2026-01-31\n',
    '+002026-01-31',
  ])('are not "%s"', (text) => {
    expect(isCalendarDate(text)).toBe(false);
    expect(() => addMonths(text, 1)).toThrow(DateFault);
    expect(() => daysBetween(text, JANUARY_31)).toThrow(DateFault);
    expect(() => daysBetween(JANUARY_31, text)).toThrow(DateFault);
  });

  it.each([
    ['2026-01-31', '2026-01-31', 0],
    ['2026-02-28', '2026-03-01', 1],
    ['2028-02-28', '2028-03-01', 2],
    ['2026-03-01', '2026-02-28', -1],
    ['2026-03-28', '2026-03-30', 2],
    ['2000-01-01', '2100-01-01', 36_525],
  ])('from %s to %s are %i days', (from, to, days) => {
    expect(daysBetween(from, to)).toBe(days);
  });
});
