import type { Listing, Position } from '../../db/loan-pages';
import type { Loans } from '../../db/loans';
import { Problem } from '../../errors';
import type { Context } from '../context';
import { CursorFault, filtersOf, loanListQuery, readCursor, writeCursor } from '../contract/loan-list';
import { presentLoan } from '../present';
import { sendJson } from '../send';
import { validateQuery } from '../validate';

interface Parts {
  readonly loans: Loans;
}

/** Many loans at once. */
export function loanListHandlers({ loans }: Parts) {
  return {
    async listLoans(ctx: Context) {
      const { limit, sort, cursor, ...filters } = validateQuery(loanListQuery, ctx);
      const listing = { sort, filters: filtersOf(filters) };
      const after = cursor === undefined ? undefined : positionIn(cursor, listing);
      const { rows, next } = await loans.list(listing, limit, after);
      const links = [
        ...(next === undefined ? [] : [linkTo(ctx, limit, 'next', writeCursor(next, listing))]),
        ...(after === undefined ? [] : [linkTo(ctx, limit, 'first')]),
      ];
      if (links.length > 0) ctx.set('Link', links.join(', '));
      sendJson(ctx, 200, rows.map(presentLoan));
    },
  };
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
