import type { LoanEvent } from '../db/audit';
import type { Repayment } from '../db/repayments';
import type { Balance } from '../domain/account';
import type { CalendarDate, Instalment } from '../domain/amortization';
import type { CurrencyStatistics, Loan, Statistics } from '../domain/loan';
import { formatAmount, fromMinor, type MinorAmount, parseAmount, sum } from '../domain/money';
import type { Share } from '../domain/repayment';

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

/**
 * The same as JSON text. Written out, since loans are most of what the service writes, and a page has many: only the
 * name of a borrower has characters to be escaped.
 */
export function loanText(loan: Loan): string {
  const rate = loan.interestRateApr === null ? 'null' : `"${formatAmount(loan.interestRateApr)}"`;
  return (
    `{"id":"${loan.id}","borrower_id":${JSON.stringify(loan.borrowerId)},"amount":"${formatAmount(loan.amount)}",` +
    `"currency":"${loan.currency}","term_months":${loan.termMonths},"interest_rate_apr":${rate},` +
    `"status":"${loan.status}","created_at":"${loan.createdAt}","updated_at":"${loan.updatedAt}"}`
  );
}

export function loansText(loans: readonly Loan[]): string {
  return `[${loans.map(loanText).join()}]`;
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
    repayment_id: event.repaymentId ?? undefined,
  };
}

export function presentSchedule(
  loan: Loan,
  start: CalendarDate,
  projected: boolean,
  instalments: readonly Instalment[],
) {
  const { currency } = loan;
  const total = (of: (instalment: Instalment) => MinorAmount) =>
    formatAmount(sum(instalments.map((instalment) => fromMinor(of(instalment), currency))));
  return {
    loan_id: loan.id,
    currency,
    projected,
    start_date: start,
    term_months: instalments.length,
    interest_rate_apr: formatAmount(loan.interestRateApr ?? parseAmount('0')),
    total: {
      principal: total(({ principal }) => principal),
      interest: total(({ interest }) => interest),
      total: total(({ payment }) => payment),
    },
    instalments: instalments.map(({ number, dueDate, principal, interest, payment, balance }) => ({
      number,
      due_date: dueDate,
      principal: presentMinor(principal, currency),
      interest: presentMinor(interest, currency),
      payment: presentMinor(payment, currency),
      balance: presentMinor(balance, currency),
    })),
  };
}

export function presentBalance({ id, status, currency }: Loan, balance: Balance, asOf: CalendarDate) {
  const { paid, settled, outstanding, nextDue, daysPastDue } = balance;
  return {
    loan_id: id,
    status,
    currency,
    as_of: asOf,
    paid: presentShare(paid, currency),
    settled: presentShare(settled, currency),
    outstanding: presentShare(outstanding, currency),
    next_due: nextDue && {
      number: nextDue.number,
      due_date: nextDue.dueDate,
      outstanding: presentShare(nextDue.outstanding, currency),
    },
    days_past_due: daysPastDue,
  };
}

/** @param reversedBy the id of the reversal that took it back */
export function presentRepayment(repayment: Repayment, currency: string, reversedBy: string | null) {
  return {
    id: repayment.id,
    amount: formatAmount(repayment.amount),
    currency,
    date: repayment.date,
    settlement: repayment.settlement || undefined,
    reference: repayment.reference,
    reverses: repayment.reverses,
    reversed_by: reversedBy,
    reason: repayment.reason,
    actor: repayment.actor,
    request_id: repayment.requestId,
    created_at: repayment.createdAt,
  };
}

function presentShare({ principal, interest, total }: Share, currency: string) {
  return {
    principal: presentMinor(principal, currency),
    interest: presentMinor(interest, currency),
    total: presentMinor(total, currency),
  };
}

function presentMinor(minor: MinorAmount, currency: string): string {
  // Nothing is the same in every currency, also in those of older loans in which nobody can owe anything.
  return formatAmount(minor === 0n ? parseAmount('0') : fromMinor(minor, currency));
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
