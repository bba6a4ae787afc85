import { ExponentialBackoff, halfJitterGenerator, handleWhen, retry } from 'cockatiel';
import { BULK_BODY_LIMIT_BYTES } from '../../config';
import { shared } from '../../db/batch';
import type { Answer } from '../../db/idempotency';
import type { Listing, LoanFilters, Position } from '../../db/loan-pages';
import type { Loans } from '../../db/loans';
import { type Loan, openLoan } from '../../domain/loan';
import { Problem } from '../../errors';
import { readJson } from '../body';
import type { Context } from '../context';
import { CursorFault, filtersOf, loanExportQuery, loanListQuery, readCursor, writeCursor } from '../contract/loan-list';
import { newLoanListSchema, newLoanSchema } from '../contract/loans';
import { emptyQuery } from '../contract/values';
import { createExporter } from '../export';
import { loansText } from '../present';
import { jsonTextAnswer, sendAnswer } from '../send';
import { validateBody, validateItems, validateQuery } from '../validate';
import type { LoanParts } from './loans';

/** Loans that are asked for at a time: some 250 kB of text. */
const EXPORT_BATCH = 1_000;
/**
 * Of a batch after the first. Its place is known, so that a database which restarts or is busy costs the client some
 * seconds and not all it has taken. Waits 0.1 s, then twice as long each time up to 3 s: at least 6 s in all.
 */
const persistently = retry(
  handleWhen((error) => error instanceof Problem && error.status === 503),
  {
    maxAttempts: 8,
    backoff: new ExponentialBackoff({ generator: halfJitterGenerator, initialDelay: 100, maxDelay: 3_000 }),
  },
);

/** Many loans at once. */
export function loanListHandlers({ loans, events, once, maxAmount, now, newId }: LoanParts) {
  const newLoan = newLoanSchema(maxAmount);
  const sendExport = createExporter();
  /** Answers that depend on nothing but the path and query of the request. */
  const share = shared<Answer>();

  return {
    async listLoans(ctx: Context) {
      const { limit, sort, cursor, ...filters } = validateQuery(loanListQuery, ctx);
      const listing = { sort, filters: filtersOf(filters) };
      const after = cursor === undefined ? undefined : positionIn(cursor, listing);
      const answer = await share(`${ctx.path}?${ctx.querystring}`, async () => {
        const { rows, next } = await loans.list(listing, limit, after);
        const links = [
          ...(next === undefined ? [] : [linkTo(ctx, limit, 'next', writeCursor(next, listing))]),
          ...(after === undefined ? [] : [linkTo(ctx, limit, 'first')]),
        ];
        return jsonTextAnswer(200, loansText(rows), links.length > 0 ? { Link: links.join(', ') } : {});
      });
      sendAnswer(ctx, answer);
    },

    async exportLoans(ctx: Context) {
      const { format, ...filters } = validateQuery(loanExportQuery, ctx);
      await sendExport(ctx, format, (gone) => batchesOf(loans, filtersOf(filters), gone));
    },

    async createLoans(ctx: Context) {
      validateQuery(emptyQuery, ctx);
      const body = await readJson(ctx, BULK_BODY_LIMIT_BYTES);
      const requests = await validateItems(newLoan, validateBody(newLoanListSchema, body).loans, 'loans');
      await once(ctx, { operation: 'createLoans', body }, async (claim) => {
        const moment = now();
        const created = requests.map((request) => openLoan(request, newId(), moment));
        const answer = jsonTextAnswer(201, loansText(created));
        const conflict = await loans.insertAll(created, ctx.state, claim && { ...claim, answer });
        if (conflict !== undefined) return conflict;
        events.loansCreated(created, ctx.state.requestId);
        return answer;
      });
    },
  };
}

/** Between two batches nothing is held: no connection, no transaction. */
async function* batchesOf(loans: Loans, filters: LoanFilters, gone: AbortSignal): AsyncGenerator<Loan[], void> {
  const batch = (after?: Position) => loans.list({ sort: '-created_at', filters }, EXPORT_BATCH, after);
  let { rows, next } = await batch();
  yield rows;
  while (next !== undefined) {
    const after: Position = next;
    ({ rows, next } = await persistently.execute(() => batch(after), gone));
    yield rows;
  }
}

/** @throws Problem invalid-parameter */
function positionIn(cursor: string, listing: Listing): Position {
  try {
    return readCursor(cursor, listing);
  } catch (error) {
    if (!(error instanceof CursorFault)) throw error;
    const { message: detail } = error;
    throw new Problem('invalid-parameter', `cursor ${detail}`, { faults: [{ parameter: 'cursor', detail }] });
  }
}

/** The same request for another page. */
function linkTo(ctx: Context, limit: number, relation: string, cursor?: string): string {
  const query = new URLSearchParams({ limit: String(limit) });
  for (const [name, value] of new URLSearchParams(ctx.querystring)) {
    if (name !== 'limit' && name !== 'cursor') query.append(name, value);
  }
  if (cursor !== undefined) query.append('cursor', cursor);
  return `<${ctx.path}?${query.toString()}>; rel="${relation}"`;
}
