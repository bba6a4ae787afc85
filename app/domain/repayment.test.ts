import fc from 'fast-check';
import { DateFault, type Instalment, schedule } from './amortization';
import type { Amount, MinorAmount } from './money';
import { type Repayment, RepaymentFault, type RepaymentFaultKind, type Standing, standing } from './repayment';

const RUNS = { numRuns: Number(process.env.PROPERTY_RUNS ?? 1_000) };
jest.setTimeout(20 * Math.max(1_000, RUNS.numRuns));
const DAY = '2026-03-15';

const loan = (principal: bigint, rate: bigint, termMonths: number) =>
  schedule({
    principalMinor: principal as MinorAmount,
    interestRateApr: rate as Amount,
    termMonths,
    startDate: '2026-01-31',
  });
const pay = (id: string, amount: bigint): Repayment => {
  return { id, date: DAY, amountMinor: amount as MinorAmount, reverses: null, settlement: false };
};
const settle = (id: string, amount: bigint): Repayment => ({ ...pay(id, amount), settlement: true });
const reverse = (id: string, of: Repayment): Repayment => ({ ...pay(id, of.amountMinor), reverses: of.id });
const owed = (instalments: readonly Instalment[]) => instalments.reduce((sum, { payment }) => sum + payment, 0n);
const figures = ({ principal, interest, total }: Standing['paid']) => [principal, interest, total];

const anyLoan = fc
  .record({
    principal: fc.oneof(fc.bigInt({ min: 1n, max: 20n }), fc.bigInt({ min: 1n, max: 500_000_000n })),
    rate: fc.oneof(fc.constant(0n), fc.bigInt({ min: 0n, max: 1_000_000n })),
    months: fc.integer({ min: 1, max: 24 }),
  })
  .map(({ principal, rate, months }) => loan(principal, rate, months));

/** Splits the whole debt, or the first part of it, at some cuts. */
const partsOf = (total: bigint, cuts: readonly bigint[]): bigint[] => {
  const sorted = [0n, ...cuts.map((cut) => cut % (total + 1n))].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
  return sorted.slice(1).flatMap((cut, index) => (cut > sorted[index]! ? [cut - sorted[index]!] : []));
};
const anyCuts = fc.array(fc.bigInt({ min: 0n, max: 10n ** 12n }), { maxLength: 8 });

/** The model of an allocation: interest and principal of all instalments in one line, filled up from the left. */
function poured(instalments: readonly Instalment[], paid: bigint): bigint[] {
  const buckets = instalments.flatMap(({ interest, principal }) => [interest, principal]);
  return buckets.map((size, index) => {
    const level = paid - buckets.slice(0, index).reduce((sum, each) => sum + each, 0n);
    return level <= 0n ? 0n : level >= size ? size : level;
  });
}

function expectStanding(actual: Standing, instalments: readonly Instalment[], paid: bigint, settled: bigint): void {
  const covered = paid + settled;
  const pours = poured(instalments, covered);
  expect(actual.instalments.flatMap((each) => [each.covered.interest, each.covered.principal])).toEqual(pours);
  const left = actual.instalments.flatMap((each) => [each.outstanding.interest, each.outstanding.principal]);
  expect(left.every((amount) => amount >= 0n)).toBe(true);
  const byPayments = poured(instalments, paid);
  const interest = byPayments.reduce((sum, each, index) => (index % 2 === 0 ? sum + each : sum), 0n);
  expect(figures(actual.paid)).toEqual([paid - interest, interest, paid]);
  expect(actual.settled.total).toBe(settled);
  expect(actual.settled.principal + actual.settled.interest).toBe(settled);
  expect([actual.settled.principal < 0n, actual.settled.interest < 0n]).toEqual([false, false]);
  expect(actual.outstanding.total).toBe(owed(instalments) - covered);
  expect(actual.outstanding.total).toBe(left.reduce((sum, each) => sum + each, 0n));
  expect(actual.outstanding.principal + actual.outstanding.interest).toBe(actual.outstanding.total);
  expect(actual.repaid).toBe(covered === owed(instalments));
  expect(actual.nextDue?.number).toBe(
    instalments.find((_, index) => left[2 * index]! + left[2 * index + 1]! > 0n)?.number,
  );
}

describe('a ledger against its model', () => {
  type Action =
    | { do: 'pay'; part: bigint }
    | { do: 'pay all' | 'settle' }
    | { do: 'overpay'; by: bigint }
    | { do: 'pay nothing' }
    | { do: 'pay twice'; which: number }
    | { do: 'reverse'; which: number }
    | { do: 'reverse part'; which: number }
    | { do: 'reverse unknown' };
  const anyAction: fc.Arbitrary<Action> = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('pay'), part: fc.bigInt({ min: 0n, max: 10n ** 12n }) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('reverse'), which: fc.nat(20) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('pay all', 'settle') }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('overpay'), by: fc.bigInt({ min: 1n, max: 1_000n }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('pay nothing', 'reverse unknown') }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('pay twice', 'reverse part'), which: fc.nat(20) }) },
  );

  /** What is recorded, and which of it is still in force. */
  interface Model {
    readonly ledger: Repayment[];
    readonly inForce: Map<string, Repayment>;
  }
  const sumIn = (model: Model, which: (entry: Repayment) => boolean) =>
    [...model.inForce.values()].filter(which).reduce((sum, { amountMinor }) => sum + amountMinor, 0n);

  /** The entry that an action makes, and why it must be refused, if so. */
  function attempt(action: Action, { ledger, ...model }: Model, debt: bigint): [Repayment, RepaymentFaultKind?] {
    const id = `entry ${ledger.length}`;
    const left = debt - sumIn({ ledger, ...model }, () => true);
    const chosen = 'which' in action ? ledger[action.which % Math.max(1, ledger.length)] : undefined;
    if ('which' in action && chosen === undefined) return [pay(id, 0n), 'amount-not-positive'];
    switch (action.do) {
      case 'pay':
      case 'pay all': {
        const amount = action.do === 'pay' ? (action.part % (debt + 1n)) / 2n : left;
        if (amount === 0n) return [pay(id, amount), 'amount-not-positive'];
        return amount > left ? [pay(id, amount), 'overpayment'] : [pay(id, amount)];
      }
      case 'settle':
        return left === 0n ? [settle(id, left), 'amount-not-positive'] : [settle(id, left)];
      case 'overpay':
        return [pay(id, left + action.by), 'overpayment'];
      case 'pay nothing':
        return [pay(id, -1n), 'amount-not-positive'];
      case 'reverse unknown':
        return [reverse(id, pay('never recorded', 1n)), 'reversal-of-unknown'];
      case 'pay twice':
        return [chosen!, 'duplicate-id'];
      default: {
        const entry =
          action.do === 'reverse' ? reverse(id, chosen!) : reverse(id, { ...chosen!, amountMinor: 1n as MinorAmount });
        if (chosen!.reverses !== null) return [entry, 'reversal-of-reversal'];
        if (!model.inForce.has(chosen!.id)) return [entry, 'reversed-before'];
        return chosen!.amountMinor === entry.amountMinor ? [entry] : [entry, 'reversal-amount'];
      }
    }
  }

  it('accepts, refuses and allocates as the model does, whatever is done in whatever order', () => {
    const seen = new Set<RepaymentFaultKind | undefined>();
    fc.assert(
      fc.property(anyLoan, fc.array(anyAction, { maxLength: 15 }), (instalments, actions) => {
        const model: Model = { ledger: [], inForce: new Map() };
        for (const action of actions) {
          const [entry, fault] = attempt(action, model, owed(instalments));
          const record = () => standing(instalments, [...model.ledger, entry], DAY);
          seen.add(fault);
          if (fault !== undefined) {
            expect(record).toThrow(expect.objectContaining({ kind: fault, id: entry.id }) as RepaymentFault);
            continue;
          }
          const after = record();
          model.ledger.push(entry);
          if (entry.reverses === null) model.inForce.set(entry.id, entry);
          else model.inForce.delete(entry.reverses);
          const settled = sumIn(model, ({ settlement }) => settlement);
          expectStanding(after, instalments, sumIn(model, () => true) - settled, settled);
        }
      }),
      RUNS,
    );
    // Every way to be refused was tried, and being accepted.
    expect(seen.size).toBe(8);
  });
});

describe('repayments', () => {
  it('lead to the same standing in any order and in any parts', () => {
    fc.assert(
      fc.property(anyLoan, anyCuts, fc.nat(), fc.boolean(), (instalments, cuts, shift, backwards) => {
        const parts = partsOf(owed(instalments), cuts).map((amount, index) => pay(`p${index}`, amount));
        const at = shift % Math.max(1, parts.length);
        const turned = [...parts.slice(at), ...parts.slice(0, at)];
        const sum = parts.reduce((total, { amountMinor }) => total + amountMinor, 0n);
        const expected = standing(instalments, sum === 0n ? [] : [pay('one', sum)], DAY);
        expect(standing(instalments, parts, DAY)).toEqual(expected);
        expect(standing(instalments, backwards ? turned.reverse() : turned, DAY)).toEqual(expected);
      }),
      RUNS,
    );
  });

  it('that are all reversed, in any order, leave the loan as it was', () => {
    fc.assert(
      fc.property(anyLoan, anyCuts, fc.boolean(), (instalments, cuts, backwards) => {
        const parts = partsOf(owed(instalments), cuts).map((amount, index) => pay(`p${index}`, amount));
        const reversals = parts.map((each) => reverse(`r${each.id}`, each));
        const ledger = [...parts, ...(backwards ? reversals.reverse() : reversals)];
        expect(standing(instalments, ledger, DAY)).toEqual(standing(instalments, [], DAY));
      }),
      RUNS,
    );
  });

  it('of every instalment close the loan, each one its own, with nothing left', () => {
    fc.assert(
      fc.property(anyLoan, (instalments) => {
        const due = instalments.filter(({ payment }) => payment > 0n);
        const ledger = due.map(({ number, payment }) => pay(`p${number}`, payment));
        due.forEach(({ balance }, index) => {
          const { outstanding, repaid, nextDue } = standing(instalments, ledger.slice(0, index + 1), DAY);
          expect(outstanding.principal).toBe(balance);
          expect(nextDue?.number).toBe(due[index + 1]?.number);
          expect(repaid).toBe(index === due.length - 1);
        });
        expect(figures(standing(instalments, ledger, DAY).outstanding)).toEqual([0n, 0n, 0n]);
      }),
      RUNS,
    );
  });
});

describe('the loan of 12500.00 KES at 28 % over 6 months', () => {
  const instalments = loan(1_250_000n, 280_000n, 6);
  const INTEREST = 104_046n;

  it('owes all of its principal and interest at first', () => {
    const { outstanding, paid, nextDue, repaid } = standing(instalments, [], '2026-01-31');
    expect(figures(outstanding)).toEqual([1_250_000n, INTEREST, 1_250_000n + INTEREST]);
    expect(figures(paid)).toEqual([0n, 0n, 0n]);
    expect(nextDue).toMatchObject({ number: 1, dueDate: '2026-02-28', outstanding: { total: 225_674n } });
    expect(repaid).toBe(false);
  });

  it.each([
    ['part of the interest', 10_000n, [0n, 10_000n], 1, [196_507n, 19_167n]],
    ['all of the interest, no principal', 29_167n, [0n, 29_167n], 1, [196_507n, 0n]],
    ['interest and a part of the principal', 100_000n, [70_833n, 29_167n], 1, [125_674n, 0n]],
    ['one instalment', 225_674n, [196_507n, 29_167n], 2, [201_092n, 24_582n]],
    ['one instalment early, and a bit', 225_675n, [196_507n, 29_168n], 2, [201_092n, 24_581n]],
    ['three and a half', 792_110n, [703_384n, 88_726n], 4, [110_586n, 0n]],
  ])('with %s paid', (_what, amount, [principal, interest], number, [leftPrincipal, leftInterest]) => {
    const { paid, nextDue } = standing(instalments, [pay('p', amount)], DAY);
    expect(figures(paid)).toEqual([principal, interest, amount]);
    expect(nextDue).toMatchObject({ number, outstanding: { principal: leftPrincipal, interest: leftInterest } });
  });

  it('is repaid at once by all of it, interest as scheduled, and by no more', () => {
    const all = pay('p', 1_250_000n + INTEREST);
    expect(standing(instalments, [all], '2026-02-01')).toMatchObject({ repaid: true, nextDue: null, daysPastDue: 0 });
    expect(standing(instalments, [all], '2036-02-01').daysPastDue).toBe(0);
    const more = () => standing(instalments, [all, pay('q', 1n)], DAY);
    expect(more).toThrow(RepaymentFault);
    expect(more).toThrow('must be at most the outstanding total');
  });

  it('is open again after a reversal, at the same instalment', () => {
    const [first, second] = [pay('p', 225_674n), pay('q', 1_250_000n + INTEREST - 225_674n)];
    const { repaid, nextDue } = standing(instalments, [first, second, reverse('r', second)], '2026-04-10');
    expect(repaid).toBe(false);
    expect(nextDue?.number).toBe(2);
    // What was reversed can be paid again.
    expect(standing(instalments, [first, second, reverse('r', second), pay('s', second.amountMinor)], DAY).repaid).toBe(
      true,
    );
  });

  it.each([
    ['2026-01-31', 0n, 0],
    ['2026-02-28', 0n, 0],
    ['2026-03-01', 0n, 1],
    ['2026-04-10', 0n, 41],
    ['2026-04-10', 225_673n, 41],
    ['2026-04-10', 225_674n, 10],
    ['2026-04-10', 451_348n, 0],
    ['2027-07-31', 1_354_045n, 365],
  ])('on %s, with %s paid, is %i days past due', (asOf, amount, days) => {
    expect(standing(instalments, amount === 0n ? [] : [pay('p', amount)], asOf).daysPastDue).toBe(days);
  });

  it('stands nowhere on what is no date', () => {
    expect(() => standing(instalments, [], '2026-02-29')).toThrow(DateFault);
    expect(() => standing(instalments, [pay('p', owed(instalments))], '2026-02-29')).toThrow(DateFault);
  });
});

it('an instalment of nothing is never due', () => {
  // 0, 0, 1, 0 and 0 cents: only the third is ever owed.
  const cent = loan(1n, 280_000n, 5);
  expect(standing(cent, [], '2026-05-10')).toMatchObject({ nextDue: { number: 3 }, daysPastDue: 10 });
  expect(standing(cent, [pay('p', 1n)], '2026-02-01').repaid).toBe(true);
});

it.each([
  ['amount-not-positive', [pay('p', 0n)]],
  ['duplicate-id', [pay('p', 1n), pay('p', 2n)]],
  ['overpayment', [pay('p', 100n), pay('q', 1n)]],
  ['reversal-of-unknown', [reverse('r', pay('p', 1n)), pay('p', 1n)]],
  ['reversal-of-unknown', [reverse('r', pay('r', 1n))]],
  ['reversal-of-reversal', [pay('p', 1n), reverse('r', pay('p', 1n)), reverse('s', reverse('r', pay('p', 1n)))]],
  ['reversed-before', [pay('p', 1n), reverse('r', pay('p', 1n)), reverse('s', pay('p', 1n))]],
  ['reversal-amount', [pay('p', 2n), reverse('r', pay('p', 1n))]],
] as const)('%s is refused, by the id of its entry', (kind, ledger) => {
  const refused = () => standing(loan(100n, 0n, 3), ledger, DAY);
  expect(refused).toThrow(RepaymentFault);
  expect(refused).toThrow(
    expect.objectContaining({ kind, message: expect.stringMatching(/^(must|is) /) }) as RepaymentFault,
  );
});
