import fc from 'fast-check';
import { type Loan, LOAN_STATUSES } from '../domain/loan';
import type { Amount } from '../domain/money';
import { loansText, presentLoan } from './present';

const amount = fc.bigInt({ min: 0n, max: 10n ** 19n }).map((units) => units as Amount);
const moment = fc
  .date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true })
  .map((date) => date.toISOString());
const loan: fc.Arbitrary<Loan> = fc.record({
  id: fc.uuid(),
  borrowerId: fc.string({ unit: 'binary' }),
  amount,
  currency: fc.constantFrom('KES', 'VND', 'KWD'),
  termMonths: fc.option(fc.integer({ min: 1, max: 600 })),
  interestRateApr: fc.option(amount),
  status: fc.constantFrom(...LOAN_STATUSES),
  createdAt: moment,
  updatedAt: moment,
  version: fc.nat(),
});

it('loans as text are what JSON.stringify would write', () => {
  fc.assert(
    fc.property(fc.array(loan, { maxLength: 3 }), (loans) => {
      expect(loansText(loans)).toBe(JSON.stringify(loans.map(presentLoan)));
    }),
  );
});
