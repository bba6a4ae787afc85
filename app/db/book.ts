import type { LoanStatus } from '../domain/loan';
import { type Amount, AmountFault, parseAmount } from '../domain/money';
import type { Book } from '../telemetry/metrics';
import type { Database, Statement } from './pool';

interface GroupRow {
  readonly currency: string;
  readonly status: LoanStatus;
  readonly loans: string;
  readonly total: string;
  readonly principal_paid: string;
}

const BOOK: Statement<GroupRow> = {
  name: 'loan_book',
  // From what is kept with every change (see migrations 0010 and 0012): no loan is read.
  text: `SELECT currency, status, sum(loans) AS loans, sum(amount) AS total, sum(principal_paid) AS principal_paid
    FROM loan_totals GROUP BY currency, status`,
};

/**
 * The kept figures of all loans, beside the pool: those who watch the book do not wait for requests, nor these for them.
 * @throws a Problem, within a second or two, when the database is away or too slow
 */
export async function readBook(database: Pick<Database, 'probe'>): Promise<Book> {
  const rows = await database.probe(BOOK);
  return rows.map(({ currency, status, loans, total, principal_paid }) => {
    return {
      currency,
      status,
      loans: BigInt(loans),
      total: readFigure(total),
      principalPaid: readFigure(principal_paid),
    };
  });
}

/** Undefined for what is no amount, such as NaN of a broken total: one figure must not cost all the others. */
function readFigure(text: string): Amount | undefined {
  try {
    return parseAmount(text);
  } catch (error) {
    if (error instanceof AmountFault) return undefined;
    throw error;
  }
}
