import fc from 'fast-check';
import { allowedMoves, type Loan, LOAN_STATUSES, type LoanStatus, moveLoan, openLoan, summarize } from './loan';
import { formatAmount, parseAmount } from './money';

it('opens a loan as pending, at the given moment, under the given id', () => {
  const request = {
    borrowerId: 'b',
    amount: parseAmount('10'),
    currency: 'KES',
    termMonths: null,
    interestRateApr: null,
  };
  const loan = openLoan(request, 'the-id', new Date('2026-03-29T01:30:00.250Z'));
  expect(loan).toEqual({
    ...request,
    id: 'the-id',
    status: 'pending',
    createdAt: '2026-03-29T01:30:00.250Z',
    updatedAt: '2026-03-29T01:30:00.250Z',
    version: 1,
  });
});

it('never adds amounts of different currencies up', () => {
  const group = (currency: string, status: 'pending' | 'repaid', loans: bigint, total: string) => ({
    currency,
    status,
    loans,
    total: parseAmount(total),
  });
  const { totalLoans, byStatus, byCurrency } = summarize([
    group('VND', 'repaid', 1n, '8400'),
    group('KES', 'pending', 2n, '0.30'),
    group('KES', 'repaid', 1n, '0.01'),
  ]);
  expect(totalLoans).toBe(4n);
  expect(byStatus).toMatchObject({ pending: 2n, repaid: 2n, defaulted: 0n });
  expect(
    [...byCurrency].map(([currency, { loans, total, average }]) => [
      currency,
      loans,
      formatAmount(total),
      formatAmount(average),
    ]),
  ).toEqual([
    ['KES', 3n, '0.31', '0.10'],
    ['VND', 1n, '8400.00', '8400.00'],
  ]);
  expect(byCurrency.get('KES')?.byStatus).toEqual({
    ...Object.fromEntries(LOAN_STATUSES.map((status) => [status, { loans: 0n, total: 0n }])),
    pending: { loans: 2n, total: parseAmount('0.3') },
    repaid: { loans: 1n, total: parseAmount('0.01') },
  });
});

describe('the status machine', () => {
  const pending = openLoan(
    { borrowerId: 'b', amount: parseAmount('10'), currency: 'KES', termMonths: null, interestRateApr: null },
    'the-id',
    new Date('2026-03-01T00:00:00Z'),
  );
  /** Every path that there is, written out: not the table under test in other words. */
  const PATHS = [
    'pending rejected',
    'pending withdrawn',
    'pending approved withdrawn',
    'pending approved disbursed repaid',
    'pending approved disbursed defaulted repaid',
  ].map((path) => path.split(' ') as LoanStatus[]);
  const isPrefix = (taken: readonly LoanStatus[]) =>
    PATHS.some((path) => taken.every((status, index) => path[index] === status));

  it('follows the paths of the model and no other, whatever is tried in whatever order', () => {
    const attempt = fc.record({ to: fc.constantFrom(...LOAN_STATUSES), minutes: fc.integer({ min: -600, max: 600 }) });
    fc.assert(
      fc.property(fc.array(attempt, { maxLength: 40 }), (attempts) => {
        let loan: Loan = pending;
        let taken: LoanStatus[] = ['pending'];
        for (const { to, minutes } of attempts) {
          const now = new Date(Date.parse('2026-03-01T00:00:00Z') + minutes * 60_000);
          const next = moveLoan(loan, to, now);
          expect(next !== undefined).toBe(isPrefix([...taken, to]));
          expect(allowedMoves(loan.status).includes(to)).toBe(next !== undefined);
          if (next === undefined) continue;
          expect(next).toEqual({ ...loan, status: to, updatedAt: next.updatedAt, version: taken.length + 1 });
          expect(next.updatedAt >= loan.updatedAt).toBe(true);
          taken = [...taken, to];
          loan = next;
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it('can go to the end of every path', () => {
    for (const path of PATHS) {
      const end = path.slice(1).reduce<Loan>((loan, to) => moveLoan(loan, to, new Date())!, pending);
      expect([end.status, allowedMoves(end.status)]).toEqual([path.at(-1), []]);
    }
  });
});
