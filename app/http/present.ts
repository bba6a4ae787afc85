import type { LoanEvent } from '../db/audit';
import type { CurrencyStatistics, Loan, Statistics } from '../domain/loan';
import { formatAmount } from '../domain/money';

/** Rows and results as they leave: decimals as strings, names in snake case. */
export function presentLoan(loan: Loan) {
  return {
    id: loan.id,
    borrower_id: loan.borrowerId,
    amount: formatAmount(loan.amount),
    currency: loan.currency,
    term_months: loan.termMonths,
    interest_rate_apr: loan.interestRateApr === null ? null : formatAmount(loan.interestRateApr),
    status: loan.status,
    created_at: loan.createdAt,
    updated_at: loan.updatedAt,
  };
}

export function presentEvent(event: LoanEvent) {
  return {
    sequence: Number(event.sequence),
    at: event.at,
    actor: event.actor,
    action: event.action,
    from: event.from,
    to: event.to,
    reason: event.reason,
    request_id: event.requestId,
    amount: formatAmount(event.amount),
    currency: event.currency,
  };
}

export function presentStatistics({ totalLoans, byStatus, byCurrency }: Statistics) {
  return {
    total_loans: Number(totalLoans),
    by_status: mapValues(byStatus, Number),
    by_currency: Object.fromEntries([...byCurrency].map(([currency, figures]) => [currency, presentCurrency(figures)])),
  };
}

function presentCurrency({ loans, total, average, byStatus }: CurrencyStatistics) {
  return {
    loans: Number(loans),
    total_amount: formatAmount(total),
    avg_amount: formatAmount(average),
    by_status: mapValues(byStatus, (figures) => ({
      loans: Number(figures.loans),
      total_amount: formatAmount(figures.total),
    })),
  };
}

function mapValues<From, To>(record: Readonly<Record<string, From>>, change: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, change(value)]));
}
