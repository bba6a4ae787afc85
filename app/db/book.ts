import type { LoanStatus } from '../domain/loan';
import { parseAmount } from '../domain/money';
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
 * The kept figures of all loans, beside the pool: whoever watches the book must not wait for requests, nor they for it.
 * @throws a Problem, within a second or two, when the database is away or too slow
 */
export async function readBook(database: Pick<Database, 'probe'>): Promise<Book> {
  const rows = await database.probe(BOOK);
  return rows.map(({ currency, status, loans, total, principal_paid }) => {
    return {
      currency,
      status,
      loans: BigInt(loans),
      total: parseAmount(total),
      principalPaid: parseAmount(principal_paid),
    };
  });
}
