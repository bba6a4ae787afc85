import type { Entry } from '../domain/account';
import { DECISIONS, type Loan } from '../domain/loan';
import { formatAmount } from '../domain/money';
import type { Logger } from './logger';
import type { AuthFailure, Metrics } from './metrics';

/**
 * What happened in the business: one helper for each event, so that its metric and its log line cannot drift apart.
 * Call them after the commit, never before.
 */
export interface Events {
  loanCreated(loan: Loan, requestId: string): void;
  /** With one request; one line for all of them. */
  loansCreated(loans: readonly Loan[], requestId: string): void;
  loanMoved(before: Loan, after: Loan, requestId: string): void;
  /** A payment, or a reversal, and what it made of the loan. */
  repaymentRecorded(before: Loan, after: Loan, entry: Entry, requestId: string): void;
  answerReplayed(operation: string, requestId: string): void;
  /** @param keyId of the key that was shown, where it could be read. Not the key. */
  authFailed(reason: AuthFailure, keyId: string | undefined, requestId: string): void;
}

export function createEvents(metrics: Metrics, logger: Logger): Events {
  function loanMoved(before: Loan, after: Loan, requestId: string): void {
    metrics.countTransition(before.status, after.status);
    // Both as they are in the database.
    if (DECISIONS.includes(after.status)) {
      metrics.observeDecision((Date.parse(after.updatedAt) - Date.parse(before.createdAt)) / 1_000);
    }
    logger.log('info', 'loan moved', {
      request_id: requestId,
      loan_id: after.id,
      from: before.status,
      to: after.status,
    });
  }

  return {
    loanCreated(loan, requestId) {
      metrics.countLoan(loan);
      logger.log('info', 'loan created', {
        request_id: requestId,
        loan_id: loan.id,
        amount: formatAmount(loan.amount),
        currency: loan.currency,
      });
    },
    loansCreated(loans, requestId) {
      for (const loan of loans) metrics.countLoan(loan);
      logger.log('info', 'loans created', { request_id: requestId, loans: loans.length });
    },
    loanMoved,
    repaymentRecorded(before, after, { id, amount, reverses }, requestId) {
      if (reverses === null) metrics.countRepayment(after.currency);
      else metrics.countReversal(after.currency);
      logger.log('info', reverses === null ? 'repayment recorded' : 'repayment reversed', {
        request_id: requestId,
        loan_id: after.id,
        repayment_id: reverses ?? id,
        amount: formatAmount(amount),
        currency: after.currency,
      });
      if (before.status !== after.status) loanMoved(before, after, requestId);
    },
    answerReplayed(operation, requestId) {
      metrics.idempotencyReplays.inc();
      logger.log('info', 'answer replayed', { request_id: requestId, operation });
    },
    authFailed(reason, keyId, requestId) {
      metrics.countAuthFailure(reason);
      logger.log('info', 'access refused', { request_id: requestId, reason, key_id: keyId });
    },
  };
}
