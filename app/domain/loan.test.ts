import { openLoan, summarize } from './loan';
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
});
