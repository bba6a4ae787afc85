import type { LoanEvent } from '../db/audit';
import type { Loan, Statistics } from '../domain/loan';
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
    by_status: Object.fromEntries(Object.entries(byStatus).map(([status, loans]) => [status, Number(loans)])),
    by_currency: Object.fromEntries(
      [...byCurrency].map(([currency, { loans, total, average }]) => [
        currency,
        { loans: Number(loans), total_amount: formatAmount(total), avg_amount: formatAmount(average) },
      ]),
    ),
  };
}
