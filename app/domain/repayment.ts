import { type CalendarDate, daysBetween, type Instalment } from './amortization';
import type { MinorAmount } from './money';

/** One entry of a loan's ledger. Entries are only ever added: a mistake is taken back by another entry. */
export interface Repayment {
  /** Unique within the loan. */
  readonly id: string;
  readonly date: CalendarDate;
  /** Above 0, for a reversal as well: that of the repayment it takes back. */
  readonly amountMinor: MinorAmount;
  /** The id of an earlier entry that this one takes back, all of it; null for what takes nothing back. */
  readonly reverses: string | null;
  /** Whether it was settled outside of these records, rather than paid. */
  readonly settlement: boolean;
}

export interface Share {
  readonly principal: MinorAmount;
  readonly interest: MinorAmount;
  /** Principal and interest. */
  readonly total: MinorAmount;
}

/** What is paid or settled, and what is left, of one instalment. */
export interface InstalmentStanding {
  readonly number: number;
  readonly dueDate: CalendarDate;
  readonly covered: Share;
  readonly outstanding: Share;
}

export interface Standing {
  /** Payments less their reversals. */
  readonly paid: Share;
  /** Settlements less their reversals. */
  readonly settled: Share;
  /** All that is left to pay, due or not. */
  readonly outstanding: Share;
  readonly instalments: readonly InstalmentStanding[];
  /** The oldest instalment of which something is left, past due or not; null when nothing is outstanding. */
  readonly nextDue: InstalmentStanding | null;
  /** Days since nextDue fell due; 0 up to and on that day. */
  readonly daysPastDue: number;
  /** Whether nothing is outstanding. A reversal makes it false again. */
  readonly repaid: boolean;
}

export type RepaymentFaultKind =
  | 'amount-not-positive'
  | 'duplicate-id'
  /** More than the outstanding total. */
  | 'overpayment'
  /** Of an id that is not among the entries before. */
  | 'reversal-of-unknown'
  | 'reversal-of-reversal'
  | 'reversed-before'
  /** A reversal of another amount than the repayment's. */
  | 'reversal-amount';

/** An entry that the ledger refuses, in words that a client may read. */
export class RepaymentFault extends RangeError {
  constructor(
    readonly kind: RepaymentFaultKind,
    /** Of the entry that is refused. */
    readonly id: string,
    message: string,
  ) {
    super(message);
  }
}

/**
 * Where a loan stands on a day, by its schedule and all entries of its ledger in the order in which they were recorded.
 *
 * Payments go to the oldest instalment first, and in it to interest before principal; what is over goes on to the next
 * instalment, due or not. Settlements come after all payments. So the standing follows from the two sums alone: neither
 * the order nor the dates of the entries change it. Interest is owed as scheduled; paying early doesn't lessen it.
 *
 * @throws RepaymentFault for the first entry that the ledger refuses; DateFault if asOf is no date.
 */
export function standing(
  schedule: readonly Instalment[],
  repayments: readonly Repayment[],
  asOf: CalendarDate,
): Standing {
  const sums = sumsOf(repayments, total(schedule.map(({ payment }) => payment)));
  const instalments = allocate(schedule, sums.paid + sums.settled);
  const covered = add(instalments.map((each) => each.covered));
  const paid = sums.settled === 0n ? covered : add(allocate(schedule, sums.paid).map((each) => each.covered));
  const nextDue = instalments.find(({ outstanding }) => outstanding.total > 0n) ?? null;
  return {
    paid,
    settled: share(covered.principal - paid.principal, covered.interest - paid.interest),
    outstanding: add(instalments.map(({ outstanding }) => outstanding)),
    instalments,
    nextDue,
    daysPastDue: Math.max(0, daysBetween(nextDue?.dueDate ?? asOf, asOf)),
    repaid: nextDue === null,
  };
}

/** Payments and settlements, each less their reversals: together from 0 to `owed` after each entry. */
function sumsOf(entries: readonly Repayment[], owed: bigint): { paid: bigint; settled: bigint } {
  const earlier = new Map<string, Repayment>();
  const reversed = new Set<string>();
  const sums = { paid: 0n, settled: 0n };
  for (const entry of entries) {
    if (earlier.has(entry.id)) throw new RepaymentFault('duplicate-id', entry.id, 'is recorded already');
    if (entry.amountMinor <= 0n) throw new RepaymentFault('amount-not-positive', entry.id, 'must be greater than 0');
    if (entry.reverses === null) {
      if (entry.amountMinor > owed - sums.paid - sums.settled) {
        throw new RepaymentFault('overpayment', entry.id, 'must be at most the outstanding total');
      }
      sums[kindOf(entry)] += entry.amountMinor;
    } else {
      const taken = checkReversal(entry, earlier.get(entry.reverses), reversed);
      reversed.add(entry.reverses);
      sums[kindOf(taken)] -= entry.amountMinor;
    }
    earlier.set(entry.id, entry);
  }
  return sums;
}

function kindOf({ settlement }: Repayment): 'paid' | 'settled' {
  return settlement ? 'settled' : 'paid';
}

/** @returns what it takes back */
function checkReversal(entry: Repayment, repayment: Repayment | undefined, reversed: ReadonlySet<string>): Repayment {
  const refuse = (kind: RepaymentFaultKind, message: string) => new RepaymentFault(kind, entry.id, message);
  if (repayment === undefined) throw refuse('reversal-of-unknown', 'must reverse an earlier repayment of the loan');
  if (repayment.reverses !== null) throw refuse('reversal-of-reversal', 'must not reverse a reversal');
  if (reversed.has(repayment.id)) throw refuse('reversed-before', 'must not reverse a repayment twice');
  if (repayment.amountMinor !== entry.amountMinor) {
    throw refuse('reversal-amount', 'must have the amount of the repayment that it reverses');
  }
  return repayment;
}

function allocate(schedule: readonly Instalment[], sum: bigint): InstalmentStanding[] {
  let rest = sum;
  const take = (atMost: bigint) => {
    const taken = rest < atMost ? rest : atMost;
    rest -= taken;
    return taken;
  };
  return schedule.map(({ number, dueDate, principal, interest }) => {
    const coveredInterest = take(interest);
    const coveredPrincipal = take(principal);
    return {
      number,
      dueDate,
      covered: share(coveredPrincipal, coveredInterest),
      outstanding: share(principal - coveredPrincipal, interest - coveredInterest),
    };
  });
}

function add(shares: readonly Share[]): Share {
  return share(total(shares.map(({ principal }) => principal)), total(shares.map(({ interest }) => interest)));
}

function share(principal: bigint, interest: bigint): Share {
  return {
    principal: principal as MinorAmount,
    interest: interest as MinorAmount,
    total: (principal + interest) as MinorAmount,
  };
}

function total(amounts: readonly bigint[]): bigint {
  return amounts.reduce((sum, amount) => sum + amount, 0n);
}
