import type { LedgerAccount, Repayment, Repayments } from '../../db/repayments';
import {
  AccountFault,
  balanceOf,
  type Booking,
  dateOf,
  disbursedSchedule,
  pay,
  reverse,
  ScheduleFault,
  scheduleOf,
} from '../../domain/account';
import { type CalendarDate, DateFault } from '../../domain/amortization';
import { CurrencyFault } from '../../domain/currency';
import { MAX_RECORDED } from '../../domain/limits';
import { AmountFault, formatAmount, fromMinor, readMoney } from '../../domain/money';
import { RepaymentFault } from '../../domain/repayment';
import { Problem } from '../../errors';
import type { Events } from '../../telemetry/events';
import { readJson } from '../body';
import { entityTag, type Precondition, readPrecondition } from '../conditions';
import type { Context } from '../context';
import { paymentSchema, reversalSchema, scheduleQuery } from '../contract/repayments';
import { emptyQuery } from '../contract/values';
import type { Once } from '../idempotency';
import { presentBalance, presentRepayment, presentSchedule } from '../present';
import { jsonAnswer, sendJson } from '../send';
import { validateBody, validateQuery } from '../validate';
import { accountProblem, noSuchLoan, readLoanId, readUuid, versionMismatch } from './loans';

interface Parts {
  readonly repayments: Repayments;
  readonly events: Events;
  readonly once: Once;
  readonly now: () => Date;
  /** A new UUID. */
  readonly newId: () => string;
}

export function repaymentHandlers({ repayments, events, once, now, newId }: Parts) {
  async function find(id: string): Promise<LedgerAccount> {
    const account = await repayments.find(id);
    if (account === undefined) throw noSuchLoan();
    return account;
  }

  /** One entry of a loan's ledger. The database lets one of several rivals through; the others read the loan anew. */
  async function book(
    ctx: Context,
    { id, holds }: Target,
    operation: string,
    body: unknown,
    decide: (account: LedgerAccount, now: Date) => Booking,
    reason: string | null,
  ): Promise<void> {
    const { principal, requestId } = ctx.state;
    await once(ctx, { operation, body, loan: id }, async (claim) => {
      const before = await find(id);
      const moment = now();
      const booking = decided(before, holds, moment, decide);
      const { entry, after, balance } = booking;
      const repayment: Repayment = { ...entry, reason, actor: principal, requestId, createdAt: after.updatedAt };
      const shown = {
        repayment: presentRepayment(repayment, after.currency, null),
        balance: presentBalance(after, balance, dateOf(moment)),
      };
      const answer = jsonAnswer(201, shown, { ETag: entityTag(after) });
      const kept = claim && { ...claim, answer };
      if (!(await repayments.writeSettlement(before))) return 'rival';
      const conflict = await repayments.record(before, booking, reason, ctx.state, kept);
      if (conflict !== undefined) return conflict;
      events.repaymentRecorded(before.loan, after, repayment, requestId);
      return answer;
    });
  }

  return {
    async loanSchedule(ctx: Context) {
      const query = validateQuery(scheduleQuery, ctx);
      const terms = await repayments.findTerms(readLoanId(ctx));
      if (terms === undefined) throw noSuchLoan();
      const { loan, disbursedOn } = terms;
      if (disbursedOn !== null && query.start_date !== undefined) {
        throw startDateFault(`is for loans that are not disbursed yet; this one was, on ${disbursedOn}`);
      }
      const startDate = disbursedOn ?? query.start_date ?? dateOf(now());
      const projected = disbursedOn === null;
      const instalments = explained(() =>
        projected ? projection(() => scheduleOf(loan, startDate)) : disbursedSchedule(loan, startDate),
      );
      sendJson(ctx, 200, presentSchedule(loan, startDate, projected, instalments));
    },

    async loanBalance(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const account = await find(readLoanId(ctx));
      const today = dateOf(now());
      const balance = explained(() => balanceOf(account, today));
      sendJson(ctx, 200, presentBalance(account.loan, balance, today));
    },

    async listRepayments(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const { loan, entries } = await find(readLoanId(ctx));
      const reversals = new Map(entries.map(({ id, reverses }) => [reverses, id]));
      const shown = entries.map((entry) => presentRepayment(entry, loan.currency, reversals.get(entry.id) ?? null));
      sendJson(ctx, 200, shown);
    },

    async repayLoan(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const target = readTarget(ctx);
      const body = await readJson(ctx);
      const { amount, date, reference } = validateBody(paymentSchema, body);
      const decide = (account: LedgerAccount, moment: Date) => {
        const paid = readMoney(amount, account.loan.currency, MAX_RECORDED);
        const payment = { id: newId(), date: date ?? dateOf(moment), amount: paid, reference };
        return pay(account, { ...payment, reverses: null, settlement: false }, moment);
      };
      await book(ctx, target, 'repayLoan', body, decide, null);
    },

    async reverseRepayment(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const target = readTarget(ctx);
      const paymentId = readUuid(ctx, 'repaymentId', 'A repayment is named by a UUID.');
      const body = await readJson(ctx);
      const { reason } = validateBody(reversalSchema, body);
      const decide = (account: LedgerAccount, moment: Date) => reverse(account, paymentId, newId(), moment);
      await book(ctx, target, 'reverseRepayment', body, decide, reason);
    },
  };
}

/** The loan that a request is about, and what its client assumes of it. */
interface Target {
  readonly id: string;
  readonly holds: Precondition;
}

/** Before the body is asked for: see readText. */
function readTarget(ctx: Context): Target {
  return { id: readLoanId(ctx), holds: readPrecondition(ctx) };
}

function decided(
  account: LedgerAccount,
  holds: Precondition,
  moment: Date,
  decide: (account: LedgerAccount, now: Date) => Booking,
): Booking {
  if (!holds(entityTag(account.loan))) throw versionMismatch();
  try {
    return explained(() => decide(account, moment));
  } catch (error) {
    if (error instanceof RepaymentFault && error.kind === 'overpayment') throw overpayment(account, dateOf(moment));
    throw error;
  }
}

/** What the domain refuses, as a problem. */
function explained<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw asProblem(error);
  }
}

function asProblem(error: unknown): unknown {
  if (error instanceof ScheduleFault) return noSchedule(error.message);
  if (error instanceof CurrencyFault) return noSchedule(`The currency of the loan ${error.message}`);
  if (error instanceof AmountFault) return bodyFault('invalid-amount', '/amount', error.message);
  if (error instanceof AccountFault) {
    return error.kind === 'date'
      ? bodyFault('validation-error', '/date', error.message)
      : accountProblem(error.kind, error);
  }
  if (error instanceof RepaymentFault) {
    if (error.kind === 'reversal-of-unknown')
      return new Problem('not-found', 'The loan has no repayment with this id.');
    if (error.kind === 'reversal-of-reversal')
      return notReversible('This is a reversal itself. Record a new repayment.');
    if (error.kind === 'reversed-before') return notReversible('This repayment was taken back before.');
  }
  return error;
}

function projection<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof DateFault)
      throw startDateFault('must be so early that every due date is before the year 10000');
    throw error;
  }
}

function startDateFault(detail: string): Problem {
  return new Problem('invalid-parameter', `start_date ${detail}`, { faults: [{ parameter: 'start_date', detail }] });
}

function bodyFault(slug: 'invalid-amount' | 'validation-error', pointer: string, detail: string): Problem {
  return new Problem(slug, `${pointer} ${detail}`, { faults: [{ pointer, detail }] });
}

function noSchedule(why: string): Problem {
  const remedy = 'Without a schedule it takes no repayments: move it to repaid once it is settled';
  return new Problem('no-schedule', `${why}. ${remedy}, or lend anew with a term.`);
}

function notReversible(detail: string): Problem {
  return new Problem('not-reversible', detail);
}

function overpayment(account: LedgerAccount, today: CalendarDate): Problem {
  const { currency } = account.loan;
  const outstanding = formatAmount(fromMinor(balanceOf(account, today).outstanding.total, currency));
  const detail = `must be at most ${outstanding}, which is all that is outstanding`;
  return new Problem('overpayment', `/amount ${detail}`, {
    faults: [{ pointer: '/amount', detail }],
    extensions: { outstanding },
  });
}
