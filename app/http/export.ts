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

/** What a spreadsheet takes for a formula, also after spaces: OWASP's list, with the wide forms of East Asian keyboards. */
const FORMULA = /^\s*[=+\-@＝＋－＠]|^[\t\r\n]/;
const NEEDS_QUOTES = /[",\r\n]/;

/**
 * RFC 4180. A text that begins like a formula gets an apostrophe before it, since a spreadsheet would run it otherwise;
 * who wants every byte as it is stored takes NDJSON.
 */
function csvField(value: string): string {
  const text = FORMULA.test(value) ? `'${value}` : value;
  return text !== value || NEEDS_QUOTES.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
