import { type CalendarDate, DateFault, type Instalment, schedule, type Terms, TermsFault } from './amortization';
import { CurrencyFault } from './currency';
import { MAX_RECORDED } from './limits';
import { changeLoan, type Loan, type LoanStatus } from './loan';
import { type Amount, AmountFault, fromMinor, type MinorAmount, toMinor } from './money';
import {
  type InstalmentStanding,
  type Repayment,
  RepaymentFault,
  type Share,
  type Standing,
  standing,
} from './repayment';

/** A payment, a settlement, or the reversal of either, as it is recorded. */
export interface Entry {
  /** A UUID. */
  readonly id: string;
  readonly date: CalendarDate;
  /** At most MAX_RECORDED: a settlement of more is recorded with as much as that. */
  readonly amount: Amount;
  /** The id of the entry that this one takes back. */
  readonly reverses: string | null;
  /** Whether it is what was outstanding when the loan was moved to repaid by hand. A reversal of that is none itself. */
  readonly settlement: boolean;
  /** Of a payment: what the payer or the bank calls it. */
  readonly reference: string | null;
}

/** A loan with all that its balance follows from. */
export interface Account {
  readonly loan: Loan;
  /** The day the money was paid out, UTC; null before that. */
  readonly disbursedOn: CalendarDate | null;
  /** What a loan was before it was repaid; null for one that isn't, or that was never anything else. */
  readonly repaidFrom: LoanStatus | null;
  /** In the order in which they were recorded. */
  readonly entries: readonly Entry[];
}

/** Where a loan stands: what was paid, settled and is outstanding adds up to what its schedule asks for. */
export interface Balance {
  /** Payments less their reversals. */
  readonly paid: Share;
  /** What was settled outside of these records, when the loan was moved to repaid by hand, less reversals. */
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
    readonly kind: 'not-payable' | 'ledger-full' | 'duplicate-reference' | 'date',
    message: string,
    /** The entry that has the reference already. */
    readonly entryId?: string,
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
};
const NOTHING: Share = { principal: 0n as MinorAmount, interest: 0n as MinorAmount, total: 0n as MinorAmount };
const NOTHING_LEFT = { outstanding: NOTHING, nextDue: null, daysPastDue: 0 } as const;

/**
 * Equal instalments of the loan, had it been paid out on the given day. A loan without a rate bears no interest.
 * @throws ScheduleFault, for loans of older releases also because of what they hold; DateFault if a due date would be
 * after the year 9999.
 */
export function scheduleOf(loan: Loan, startDate: CalendarDate): readonly Instalment[] {
  const { amount, currency, termMonths, interestRateApr } = loan;
  if (termMonths === null) throw new ScheduleFault('The loan has no term');
  try {
    const principalMinor = toMinor(amount, currency);
    const rate = interestRateApr ?? (0n as Amount);
    return schedule({ principalMinor, interestRateApr: rate, termMonths, startDate });
  } catch (error) {
    if (error instanceof CurrencyFault) throw new ScheduleFault(`The currency of the loan ${error.message}`);
    if (error instanceof AmountFault) throw new ScheduleFault(`The amount of the loan ${error.message}`);
    if (error instanceof TermsFault) throw new ScheduleFault(`The ${WORDS[error.field]} of the loan ${error.message}`);
    throw error;
  }
}

/** The same for a loan that was paid out on that day. @throws ScheduleFault */
export function disbursedSchedule(loan: Loan, disbursedOn: CalendarDate): readonly Instalment[] {
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
  return toBalance(standingOf(loan, disbursedOn, account.entries, asOf));
}

/** What is no longer outstanding of the principal: paid or settled. */
export function principalCovered({ paid, settled }: Balance, currency: string): Amount {
  return fromMinor((paid.principal + settled.principal) as MinorAmount, currency);
}

/**
 * Takes a payment of today or an earlier day. A loan of which nothing is outstanding any more is repaid. A reference names
 * one payment of the loan; that of a payment that was taken back may be used again.
 * @throws AccountFault; RepaymentFault; ScheduleFault
 */
export function pay(account: Account, payment: Entry, now: Date): Booking {
  const { loan, disbursedOn, entries } = account;
  const today = dateOf(now);
  // First, so that a client that asks twice learns that the payment is recorded, whatever it made of the loan.
  const twin = payment.reference === null ? undefined : paymentWith(payment.reference, entries);
  if (twin !== undefined) {
    throw new AccountFault('duplicate-reference', `The loan has a payment with this reference: ${twin.id}`, twin.id);
  }
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
  if (entries.filter(isPayment).length >= MAX_PAYMENTS) {
    throw new AccountFault('ledger-full', `The loan has ${MAX_PAYMENTS} payments, and takes no more`);
  }
  return book(account, disbursedOn, payment, today, ({ repaid }) => (repaid ? 'repaid' : loan.status), now);
}

/**
 * What is outstanding is settled outside of these records, and the loan is repaid.
 * @returns undefined where no amount can be told: nothing is outstanding, or the loan has no schedule
 * @throws AccountFault
 */
export function settle(account: Account, id: string, now: Date): Booking | undefined {
  const today = dateOf(now);
  const entry = outstandingAsSettled(account, id, today);
  if (entry === undefined || account.disbursedOn === null) return undefined;
  if (account.entries.filter(({ settlement }) => settlement).length >= MAX_PAYMENTS) {
    throw new AccountFault('ledger-full', `The loan has ${MAX_PAYMENTS} settlements, and takes no more`);
  }
  return book(account, account.disbursedOn, entry, today, () => 'repaid', now);
}

/**
 * The settlement that the ledger of a repaid loan lacks: releases before migration 0013 moved a loan to
 * repaid by hand without an entry.
 * @param id of the entry; @param date of the move
 */
export function missingSettlement(account: Account, id: string, date: CalendarDate): Entry | undefined {
  return account.loan.status === 'repaid' ? outstandingAsSettled(account, id, date) : undefined;
}

function outstandingAsSettled(
  { loan, disbursedOn, entries }: Account,
  id: string,
  date: CalendarDate,
): Entry | undefined {
  try {
    const { outstanding } = balanceOf({ loan, disbursedOn, repaidFrom: null, entries }, date);
    if (outstanding.total === 0n) return undefined;
    const most = largestRecorded(loan.currency);
    const amount = outstanding.total > most ? most : outstanding.total;
    return { id, date, amount: fromMinor(amount, loan.currency), reverses: null, settlement: true, reference: null };
  } catch (error) {
    if (error instanceof ScheduleFault || error instanceof RepaymentFault) return undefined;
    throw error;
  }
}

/**
 * Takes a payment or a settlement back today, all of it. A loan that was repaid, however it came to that, is what it was
 * before.
 * @param id of the reversal
 * @throws RepaymentFault; ScheduleFault
 */
export function reverse(account: Account, entryId: string, id: string, now: Date): Booking {
  const { loan, disbursedOn, repaidFrom, entries } = account;
  const reversed = entries.find((entry) => entry.id === entryId);
  if (reversed === undefined || disbursedOn === null) {
    throw new RepaymentFault('reversal-of-unknown', id, 'must reverse an earlier repayment of the loan');
  }
  const today = dateOf(now);
  const { amount } = reversed;
  const reversal = { id, date: today, amount, reverses: entryId, settlement: false, reference: null };
  // Rows of older releases may have been repaid from their first event on: those were disbursed, too.
  const before = repaidFrom === 'defaulted' ? 'defaulted' : 'disbursed';
  return book(account, disbursedOn, reversal, today, () => (loan.status === 'repaid' ? before : loan.status), now);
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
  return { entry, after: changeLoan(loan, statusOf(reached), now), balance: toBalance(reached) };
}

function toBalance({ paid, settled, outstanding, nextDue, daysPastDue }: Standing): Balance {
  return { paid, settled, outstanding, nextDue, daysPastDue };
}

function paymentWith(reference: string, entries: readonly Entry[]): Entry | undefined {
  const reversed = new Set(entries.map(({ reverses }) => reverses));
  return entries.find((entry) => entry.reference === reference && !reversed.has(entry.id));
}

function isPayment({ reverses, settlement }: Entry): boolean {
  return reverses === null && !settlement;
}

function standingOf(loan: Loan, disbursedOn: CalendarDate, entries: readonly Entry[], asOf: CalendarDate): Standing {
  const instalments = disbursedSchedule(loan, disbursedOn);
  return standing(instalments, ledgerOf(entries, loan.currency, instalments), asOf);
}

/**
 * The entries in minor units. A settlement that is recorded with the largest amount stands for all that was outstanding
 * then, which may be more than a column holds.
 */
function ledgerOf(entries: readonly Entry[], currency: string, instalments: readonly Instalment[]): Repayment[] {
  const most = largestRecorded(currency);
  const amounts = new Map<string, bigint>();
  let outstanding = instalments.reduce((sum, { payment }) => sum + payment, 0n);
  return entries.map(({ id, date, amount, reverses, settlement }): Repayment => {
    const recorded = toMinor(amount, currency);
    const meant = settlement && recorded === most && outstanding > most ? outstanding : recorded;
    const amountMinor = reverses === null ? meant : (amounts.get(reverses) ?? recorded);
    outstanding -= reverses === null ? amountMinor : -amountMinor;
    amounts.set(id, amountMinor);
    return { id, date, amountMinor: amountMinor as MinorAmount, reverses, settlement };
  });
}

/** The largest amount that an entry can be recorded with. */
function largestRecorded(currency: string): MinorAmount {
  return (MAX_RECORDED / fromMinor(1n as MinorAmount, currency)) as MinorAmount;
}
