import { Readable } from 'node:stream';
import { Problem } from '../errors';
import type { Loan } from '../domain/loan';
import type { Context } from './context';
import type { ExportFormat } from './contract/loan-list';
import { loanText, presentLoan } from './present';
import { asKnownProblem } from './problem';

const MEDIA_TYPES: Readonly<Record<ExportFormat, string>> = {
  csv: 'text/csv; charset=utf-8; header=present',
  ndjson: 'application/x-ndjson; charset=utf-8',
};

/** Of one process: each holds a batch of loans in memory, and asks for the next whenever its client has taken one. */
const MAX_EXPORTS = 4;
/** A client that takes nothing for so long is cut off, to let others have its place. */
const STALLED_MS = 30_000;
const COLUMNS = [
  ...(['id', 'borrower_id', 'amount', 'currency', 'term_months', 'interest_rate_apr'] as const),
  ...(['status', 'created_at', 'updated_at'] as const),
];

/** Batches of loans, until there are no more or their client is gone. */
export type Batches = (gone: AbortSignal) => AsyncGenerator<Loan[], void>;
/** Sends batches of loans as they come, in constant memory, at the pace of the client. */
export type Exporter = (ctx: Context, format: ExportFormat, batchesFor: Batches) => Promise<void>;

/**
 * The first batch is waited for, so that a failure up to then is a problem document. A later one breaks the connection:
 * no client can take a part for the whole, since the end of the body is missing.
 */
export function createExporter(): Exporter {
  let running = 0;
  return async function sendExport(ctx, format, batchesFor) {
    if (running >= MAX_EXPORTS) {
      throw new Problem('overloaded', `${MAX_EXPORTS} exports are running. Try again when one is done.`, {
        headers: { 'Retry-After': '10' },
      });
    }
    running++;
    const gone = new AbortController();
    ctx.res.once('close', () => {
      running--;
      gone.abort();
    });
    const batches = batchesFor(gone.signal);
    const first = ctx.method === 'HEAD' ? undefined : await batches.next();
    ctx.status = 200;
    ctx.set('Content-Type', MEDIA_TYPES[format]);
    ctx.set('Content-Disposition', `attachment; filename="loans.${format}"`);
    ctx.res.setTimeout(STALLED_MS, () => {
      // Where there is nothing to be taken, it is we who look for more.
      if (ctx.res.writableLength > 0) ctx.res.destroy();
    });
    ctx.body = Readable.from(textOf(ctx, format, first, batches), { objectMode: false });
  };
}

async function* textOf(
  ctx: Context,
  format: ExportFormat,
  first: IteratorResult<Loan[], void> | undefined,
  batches: AsyncGenerator<Loan[], void>,
): AsyncGenerator<string, void> {
  const line = format === 'csv' ? csvLine : (loan: Loan) => `${loanText(loan)}\n`;
  try {
    if (format === 'csv') yield `${COLUMNS.join(',')}\r\n`;
    for (let batch = first; batch?.done === false; batch = await batches.next()) {
      if (batch.value.length > 0) yield batch.value.map(line).join('');
    }
  } catch (error) {
    const problem = asKnownProblem(error);
    ctx.state.failure = problem;
    throw problem;
  } finally {
    await batches.return();
  }
}

function csvLine(loan: Loan): string {
  const shown = presentLoan(loan);
  return `${COLUMNS.map((column) => csvField(String(shown[column] ?? ''))).join(',')}\r\n`;
}

/** Also characters at which many programs split a line: they leave alone what stands between quotes. */
const NEEDS_QUOTES = /[",;|\t\r\n]/;

/** RFC 4180, with every text defused. */
function csvField(value: string): string {
  const text = defuse(value);
  return text !== value || NEEDS_QUOTES.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** What a spreadsheet takes for the beginning of a formula, with the wide and small forms of East Asian keyboards. */
const FORMULA = String.raw`=+\-@＝＋－＠﹦﹢﹣﹫`;
/** All but letters, digits and the characters of formulas; an apostrophe is what defuses. */
const SEPARATOR = String.raw`[^\p{L}\p{M}\p{N}_'${FORMULA}]`;
/**
 * Apostrophes, mostly none, where a cell may begin and a formula would: at the start of a text and after every separator,
 * since users choose at which characters their program splits a line, and programs drop quotes and spaces. At the start,
 * a tab or a line break counts as well: Excel drops those.
 */
const FUSE = new RegExp(`(?<=^|${SEPARATOR})'*(?=[${FORMULA}])|^'*(?=[\\t\\r\\n])`, 'gu');

/**
 * Adds an apostrophe before whatever would make a formula of a cell, in whatever way a spreadsheet splits the text. No
 * two texts have the same form, so it can be undone: see UNDO_PATTERN.
 */
export function defuse(text: string): string {
  return text.replace(FUSE, "$&'");
}
