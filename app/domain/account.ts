import { type CalendarDate, DateFault, type Instalment, schedule, type Terms, TermsFault } from './amortization';
import { CurrencyFault } from './currency';
import { changeLoan, type Loan, type LoanStatus } from './loan';
import { type Amount, AmountFault, type MinorAmount, toMinor } from './money';
import {
  type InstalmentStanding,
  type Repayment,
  RepaymentFault,
  type Share,
  type Standing,
  standing,
} from './repayment';

/** A payment, or its reversal, as it is recorded. */
export interface Entry {
  /** A UUID. */
  readonly id: string;
  readonly date: CalendarDate;
  readonly amount: Amount;
  /** The id of the payment that this entry takes back. */
  readonly reverses: string | null;
}

/** A loan with all that its balance follows from. */
export interface Account {
  readonly loan: Loan;
  /** The day the money was paid out, UTC; null before that. */
  readonly disbursedOn: CalendarDate | null;
  /** What a loan was before it was repaid; null for one that isn't. */
  readonly repaidFrom: LoanStatus | null;
  /** In the order in which they were recorded. */
  readonly entries: readonly Entry[];
}

/** Where a loan stands: what was paid, settled and is outstanding adds up to what its schedule asks for. */
export interface Balance {
  /** Repayments less reversals. */
  readonly paid: Share;
  /** What was outstanding when the loan was moved to repaid by hand: it was settled outside of the ledger. */
  readonly settled: Share;
  readonly outstanding: Share;
  /** The oldest instalment of which something is left; null when nothing is. */
  readonly nextDue: InstalmentStanding | null;
  readonly daysPastDue: number;
}

/** An entry of a ledger, and the loan as it leaves it. */
export interface Booking {
  readonly entry: Entry;
  readonly after: Loan;
  readonly balance: Balance;
}

/** A loan that no schedule can be made of, in words that a client may read. */
export class ScheduleFault extends RangeError {}

/** A payment or a reversal that the loan does not take, in words that a client may read. */
export class AccountFault extends RangeError {
  constructor(
    readonly kind: 'not-payable' | 'ledger-full' | 'date',
    message: string,
  ) {
    super(message);
  }
}

/** Bounds what a change of the loan costs. A loan of 50 years that is paid back weekly has 2,600. */
export const MAX_PAYMENTS = 5_000;

const WORDS: Readonly<Record<keyof Terms, string>> = {
  principalMinor: 'amount',
  interestRateApr: 'interest rate',
  termMonths: 'term',
  startDate: 'disbursement',
  method: 'method',
};
const NOTHING: Share = { principal: 0n as MinorAmount, interest: 0n as MinorAmount, total: 0n as MinorAmount };
const NOTHING_LEFT = { outstanding: NOTHING, nextDue: null, daysPastDue: 0 } as const;

/**
 * Equal instalments of the loan, had it been paid out on the given day. A loan without a rate bears no interest.
 * @throws ScheduleFault, for loans of older releases also because of what they hold; DateFault if a due date would be
 * after the year 9999.
 */
export function scheduleOf(loan: Loan, startDate: CalendarDate): Instalment[] {
  const { amount, currency, termMonths, interestRateApr } = loan;
  if (termMonths === null) throw new ScheduleFault('The loan has no term');
  try {
    const principalMinor = toMinor(amount, currency);
    const rate = interestRateApr ?? (0n as Amount);
    return schedule({ principalMinor, interestRateApr: rate, termMonths, startDate, method: 'annuity' });
  } catch (error) {
    if (error instanceof CurrencyFault) throw new ScheduleFault(`The currency of the loan ${error.message}`);
    if (error instanceof AmountFault) throw new ScheduleFault(`The amount of the loan ${error.message}`);
    if (error instanceof TermsFault) throw new ScheduleFault(`The ${WORDS[error.field]} of the loan ${error.message}`);
    throw error;
  }
}

/** The same for a loan that was paid out on that day. @throws ScheduleFault */
export function disbursedSchedule(loan: Loan, disbursedOn: CalendarDate): Instalment[] {
  try {
    return scheduleOf(loan, disbursedOn);
  } catch (error) {
    if (error instanceof DateFault) throw new ScheduleFault(`A due date of the loan ${error.message}`);
    throw error;
  }
}

/** @throws ScheduleFault for a loan that was disbursed, but has no schedule */
export function balanceOf(account: Account, asOf: CalendarDate): Balance {
  const { loan, disbursedOn } = account;
  if (disbursedOn === null) return { paid: NOTHING, settled: NOTHING, ...NOTHING_LEFT };
  return toBalance(standingOf(loan, disbursedOn, account.entries, asOf), loan.status);
}

/**
 * Takes a payment of today or an earlier day. A loan of which nothing is outstanding any more is repaid.
 * @throws AccountFault; RepaymentFault; ScheduleFault
 */
export function pay(account: Account, payment: Entry, now: Date): Booking {
  const { loan, disbursedOn, entries } = account;
  const today = dateOf(now);
  if (disbursedOn === null || loan.status === 'repaid') {
    throw new AccountFault(
      'not-payable',
      `The loan is ${loan.status}: only disbursed and defaulted ones are paid back`,
    );
  }
  if (payment.date > today) throw new AccountFault('date', `must not be after today, ${today} UTC`);
  if (payment.date < disbursedOn) {
    throw new AccountFault('date', `must not be before the loan was disbursed, on ${disbursedOn}`);
  }
  if (entries.filter(({ reverses }) => reverses === null).length >= MAX_PAYMENTS) {
    throw new AccountFault('ledger-full', `The loan has ${MAX_PAYMENTS} payments, and takes no more`);
  }
  return book(account, disbursedOn, payment, today, ({ repaid }) => (repaid ? 'repaid' : loan.status), now);
}

/**
 * Takes a payment back today, all of it. A loan that was repaid, however it came to that, is what it was before.
 * @param id of the reversal
 * @throws RepaymentFault; ScheduleFault
 */
export function reverse(account: Account, paymentId: string, id: string, now: Date): Booking {
  const { loan, disbursedOn, repaidFrom, entries } = account;
  const payment = entries.find((entry) => entry.id === paymentId);
  if (payment === undefined || disbursedOn === null) {
    throw new RepaymentFault('reversal-of-unknown', id, 'must reverse an earlier repayment of the loan');
  }
  const today = dateOf(now);
  const reversal: Entry = { id, date: today, amount: payment.amount, reverses: paymentId };
  return book(account, disbursedOn, reversal, today, () => repaidFrom ?? loan.status, now);
}

export function dateOf(moment: Date): CalendarDate {
  return moment.toISOString().slice(0, 10);
}

function book(
  { loan, entries }: Account,
  disbursedOn: CalendarDate,
  entry: Entry,
  today: CalendarDate,
  statusOf: (reached: Standing) => LoanStatus,
  now: Date,
): Booking {
  const reached = standingOf(loan, disbursedOn, [...entries, entry], today);
  const after = changeLoan(loan, statusOf(reached), now);
  return { entry, after, balance: toBalance(reached, after.status) };
}

function toBalance({ paid, outstanding, nextDue, daysPastDue }: Standing, status: LoanStatus): Balance {
  if (status === 'repaid') return { paid, settled: outstanding, ...NOTHING_LEFT };
  return { paid, settled: NOTHING, outstanding, nextDue, daysPastDue };
}

function standingOf(loan: Loan, disbursedOn: CalendarDate, entries: readonly Entry[], asOf: CalendarDate): Standing {
  const instalments = disbursedSchedule(loan, disbursedOn);
  const ledger = entries.map(({ id, date, amount, reverses }): Repayment => {
    return { id, date, amountMinor: toMinor(amount, loan.currency), ...(reverses !== null && { reverses }) };
  });
  return standing(instalments, ledger, asOf);
}
