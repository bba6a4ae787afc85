import { type Amount, average, sum } from './money';

/** A new loan is pending. */
export const LOAN_STATUSES = [
  'pending',
  'approved',
  'rejected',
  'withdrawn',
  'disbursed',
  'repaid',
  'defaulted',
] as const;
export type LoanStatus = (typeof LOAN_STATUSES)[number];

/** What a client says of a loan it asks for. */
export interface LoanRequest {
  readonly borrowerId: string;
  readonly amount: Amount;
  /** Three letters, upper case. */
  readonly currency: string;
  readonly termMonths: number | null;
  /** Percent a year. */
  readonly interestRateApr: Amount | null;
}

export interface Loan extends LoanRequest {
  /** A UUID. */
  readonly id: string;
  readonly status: LoanStatus;
  /** ISO 8601, UTC. */
  readonly createdAt: string;
  readonly updatedAt: string;
  /** Counts the changes; 1 for a new loan, 0 for one of a release that did not count. */
  readonly version: number;
}

/** Opens a loan at the given moment, under the given UUID. */
export function openLoan(request: LoanRequest, id: string, now: Date): Loan {
  const moment = now.toISOString();
  return { ...request, id, status: 'pending', createdAt: moment, updatedAt: moment, version: 1 };
}

const MOVES: Readonly<Record<LoanStatus, readonly LoanStatus[]>> = {
  pending: ['approved', 'rejected', 'withdrawn'],
  approved: ['disbursed', 'withdrawn'],
  rejected: [],
  withdrawn: [],
  disbursed: ['repaid', 'defaulted'],
  repaid: [],
  defaulted: ['repaid'],
};

/** What a lender decides about a pending loan. A loan that is withdrawn was not decided. */
export const DECISIONS: readonly LoanStatus[] = ['approved', 'rejected'];

/** Moves that have to be explained later: they are refused without a reason. */
export const NEEDS_REASON: readonly LoanStatus[] = ['rejected', 'defaulted'];

/** Where a loan of this status may go next. */
export function allowedMoves(status: LoanStatus): readonly LoanStatus[] {
  return MOVES[status];
}

/** The loan in its next status, or undefined where it may not go there. */
export function moveLoan(loan: Loan, to: LoanStatus, now: Date): Loan | undefined {
  return MOVES[loan.status].includes(to) ? changeLoan(loan, to, now) : undefined;
}

/**
 * The loan after a change, in the given status, which may be the same. Only an entry of its ledger brings a loan
 * where moveLoan does not: see account.ts.
 */
export function changeLoan(loan: Loan, status: LoanStatus, now: Date): Loan {
  const moment = now.toISOString();
  // A clock that was set back does not turn the history of a loan around.
  const updatedAt = moment > loan.updatedAt ? moment : loan.updatedAt;
  return { ...loan, status, updatedAt, version: loan.version + 1 };
}

/** The loans of one currency in one status. */
export interface LoanGroup {
  readonly currency: string;
  readonly status: LoanStatus;
  readonly loans: bigint;
  readonly total: Amount;
}

export interface StatusStatistics {
  readonly loans: bigint;
  readonly total: Amount;
}

export interface CurrencyStatistics {
  readonly loans: bigint;
  readonly total: Amount;
  readonly average: Amount;
  readonly byStatus: Readonly<Record<LoanStatus, StatusStatistics>>;
}

export interface Statistics {
  readonly totalLoans: bigint;
  readonly byStatus: Readonly<Record<LoanStatus, bigint>>;
  /** By currency, in alphabetical order. Amounts are only ever added up within one currency. */
  readonly byCurrency: ReadonlyMap<string, CurrencyStatistics>;
}

export function summarize(groups: readonly LoanGroup[]): Statistics {
  const currencies = [...new Set(groups.map((group) => group.currency))].sort();
  return {
    totalLoans: countLoans(groups),
    byStatus: ofStatuses(groups, countLoans),
    byCurrency: new Map(
      currencies.map((currency) => [currency, ofCurrency(groups.filter((group) => group.currency === currency))]),
    ),
  };
}

function ofCurrency(groups: readonly LoanGroup[]): CurrencyStatistics {
  const loans = countLoans(groups);
  const total = totalOf(groups);
  const byStatus = ofStatuses(groups, (inStatus) => ({ loans: countLoans(inStatus), total: totalOf(inStatus) }));
  return { loans, total, average: average(total, loans), byStatus };
}

/** Every status has its figures, those without loans too. */
function ofStatuses<T>(groups: readonly LoanGroup[], figures: (inStatus: LoanGroup[]) => T): Record<LoanStatus, T> {
  const entries = LOAN_STATUSES.map((status) => [status, figures(groups.filter((group) => group.status === status))]);
  return Object.fromEntries(entries) as Record<LoanStatus, T>;
}

function totalOf(groups: readonly LoanGroup[]): Amount {
  return sum(groups.map((group) => group.total));
}

function countLoans(groups: readonly LoanGroup[]): bigint {
  return groups.reduce((count, group) => count + group.loans, 0n);
}
