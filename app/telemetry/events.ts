import type { Loan } from '../domain/loan';
import { formatAmount } from '../domain/money';
import type { Logger } from './logger';
import type { Metrics } from './metrics';

/**
 * What happened in the business: one helper for each event, so that its metric and its log line cannot drift apart.
 * Call them after the commit, never before.
 */
export interface Events {
  loanCreated(loan: Loan, requestId: string): void;
  /** With one request; one line for all of them. */
  loansCreated(loans: readonly Loan[], requestId: string): void;
  loanMoved(before: Loan, after: Loan, requestId: string): void;
  answerReplayed(operation: string, requestId: string): void;
}

export function createEvents(metrics: Metrics, logger: Logger): Events {
  return {
    loanCreated(loan, requestId) {
      metrics.countLoan(loan.currency);
      logger.log('info', 'loan created', {
        request_id: requestId,
        loan_id: loan.id,
        amount: formatAmount(loan.amount),
        currency: loan.currency,
      });
    },
    loansCreated(loans, requestId) {
      for (const { currency } of loans) metrics.countLoan(currency);
      logger.log('info', 'loans created', { request_id: requestId, loans: loans.length });
    },
    loanMoved(before, after, requestId) {
      metrics.countTransition(before.status, after.status);
      logger.log('info', 'loan moved', {
        request_id: requestId,
        loan_id: after.id,
        from: before.status,
        to: after.status,
      });
    },
    answerReplayed(operation, requestId) {
      metrics.idempotencyReplays.inc();
      logger.log('info', 'answer replayed', { request_id: requestId, operation });
    },
  };
}
