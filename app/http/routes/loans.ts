import { shared } from '../../db/batch';
import type { Answer } from '../../db/idempotency';
import type { Loans } from '../../db/loans';
import type { LedgerAccount, Repayments } from '../../db/repayments';
import { AccountFault, type Booking, settle } from '../../domain/account';
import { allowedMoves, type Loan, type LoanStatus, moveLoan, openLoan, summarize } from '../../domain/loan';
import { Problem } from '../../errors';
import type { Events } from '../../telemetry/events';
import { readJson } from '../body';
import { entityTag, isUnmodified, readPrecondition } from '../conditions';
import type { Context } from '../context';
import { newLoanSchema, transitionSchema } from '../contract/loans';
import { emptyQuery, readId } from '../contract/values';
import type { Once } from '../idempotency';
import { loanText, presentEvent, presentStatistics } from '../present';
import { validateBody, validateQuery } from '../validate';
import { jsonAnswer, jsonTextAnswer, sendAnswer, sendJson } from '../send';

/** What the operations on loans work with, one by one or many at once. */
export interface LoanParts {
  readonly loans: Loans;
  readonly events: Events;
  readonly once: Once;
  readonly maxAmount: string;
  readonly now: () => Date;
  /** A new UUID. */
  readonly newId: () => string;
}

interface Parts extends LoanParts {
  readonly repayments: Repayments;
}

export function loanHandlers({ loans, repayments, events, once, maxAmount, now, newId }: Parts) {
  const newLoan = newLoanSchema(maxAmount);

  /** Answers that depend on nothing but the path and query of the request. */
  const share = shared<Answer>();

  async function find(id: string): Promise<Loan> {
    const loan = await loans.find(id);
    if (loan === undefined) throw noSuchLoan();
    return loan;
  }

  return {
    async getLoan(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const loan = await find(readLoanId(ctx));
      ctx.set('ETag', entityTag(loan));
      if (isUnmodified(ctx, entityTag(loan))) {
        ctx.status = 304;
        return;
      }
      sendAnswer(ctx, jsonTextAnswer(200, loanText(loan)));
    },

    async createLoan(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const body = await readJson(ctx);
      const request = validateBody(newLoan, body);
      await once(ctx, { operation: 'createLoan', body }, async (claim) => {
        const loan = openLoan(request, newId(), now());
        const headers = { Location: `${ctx.path}/${loan.id}`, ETag: entityTag(loan) };
        const answer = jsonTextAnswer(201, loanText(loan), headers);
        const conflict = await loans.insert(loan, ctx.state, claim && { ...claim, answer });
        if (conflict !== undefined) return conflict;
        events.loanCreated(loan, ctx.state.requestId);
        return answer;
      });
    },

    /** No event of the business: nothing has happened. */
    async dryRunLoan(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const loan = openLoan(validateBody(newLoan, await readJson(ctx)), newId(), now());
      await loans.dryRun(loan, ctx.state);
      sendAnswer(ctx, jsonTextAnswer(201, loanText(loan)));
    },

    /** The database lets one of several rivals through; the others read the loan anew, and may be too late by then. */
    async moveLoan(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const id = readLoanId(ctx);
      const holds = readPrecondition(ctx);
      const body = await readJson(ctx);
      const { to, reason } = validateBody(transitionSchema, body);
      await once(ctx, { operation: 'moveLoan', body, loan: id }, async (claim) => {
        const account = to === 'repaid' ? await repayments.find(id) : undefined;
        const before = account?.loan ?? (await find(id));
        if (!holds(entityTag(before))) throw versionMismatch();
        const moment = now();
        const after = moveLoan(before, to, moment);
        if (after === undefined) throw illegalTransition(before.status, to);
        const answer = jsonTextAnswer(200, loanText(after), { ETag: entityTag(after) });
        const kept = claim && { ...claim, answer };
        const settlement = account && settled(account, newId(), moment);
        const conflict =
          account !== undefined && settlement !== undefined
            ? await repayments.record(account, settlement, reason, ctx.state, kept)
            : await loans.move(before, after, reason, ctx.state, kept);
        if (conflict !== undefined) return conflict;
        events.loanMoved(before, after, ctx.state.requestId);
        return answer;
      });
    },

    async loanEvents(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const history = await loans.history(readLoanId(ctx));
      if (history.length === 0) throw noSuchLoan();
      sendJson(ctx, 200, history.map(presentEvent));
    },

    async statistics(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const answer = await share(ctx.path, async () =>
        jsonAnswer(200, presentStatistics(summarize(await loans.groups()))),
      );
      sendAnswer(ctx, answer);
    },
  };
}

export function readLoanId(ctx: Context): string {
  return readUuid(ctx, 'id', 'A loan is named by a UUID.');
}

/** A parameter of the path. @throws Problem invalid-id, with the detail */
export function readUuid(ctx: Context, name: string, detail: string): string {
  const id = readId((ctx.params as Record<string, string | undefined>)[name]);
  if (id === undefined) throw new Problem('invalid-id', detail);
  return id;
}

export function noSuchLoan(): Problem {
  return new Problem('not-found', 'There is no loan with this id.');
}

export function versionMismatch(): Problem {
  return new Problem('version-mismatch', 'The loan is no longer what If-Match names. Read it again, and decide.');
}

/** @throws Problem ledger-full */
function settled(account: LedgerAccount, id: string, moment: Date): Booking | undefined {
  try {
    return settle(account, id, moment);
  } catch (error) {
    if (error instanceof AccountFault && error.kind !== 'date') throw accountProblem(error.kind, error);
    throw error;
  }
}

/** What a loan does not take, as a problem. */
export function accountProblem(
  kind: Exclude<AccountFault['kind'], 'date'>,
  { message, entryId }: AccountFault,
): Problem {
  const extensions = entryId === undefined ? {} : { repayment_id: entryId };
  return new Problem(kind, `${message}.`, { extensions });
}

function illegalTransition(from: LoanStatus, to: LoanStatus): Problem {
  const allowed = allowedMoves(from);
  const next = allowed.length === 0 ? 'This is the end of it' : `It can become ${allowed.join(' or ')}`;
  return new Problem('illegal-transition', `The loan is ${from} and cannot become ${to}. ${next}.`, {
    extensions: { allowed },
  });
}
