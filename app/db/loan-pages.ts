import type { LoanStatus } from '../domain/loan';
import { type Amount, formatAmount } from '../domain/money';
import { Problem } from '../errors';
import { batched, type BatchOptions } from './batch';
import { type Queryable, type Statement, toTimestamp, type Value } from './pool';

/** By what loans are sorted, a minus for the largest first. Loans that are equal in it are sorted by their ids. */
export const LOAN_SORTS = ['-created_at', 'created_at', 'amount', '-amount'] as const;
export type LoanSort = (typeof LOAN_SORTS)[number];

/** Which loans are meant: those for which everything holds that is given. */
export interface LoanFilters {
  readonly status?: LoanStatus | undefined;
  /** Three letters, upper case. */
  readonly currency?: string | undefined;
  readonly borrowerId?: string | undefined;
  /** Both inclusive. */
  readonly minAmount?: Amount | undefined;
  readonly maxAmount?: Amount | undefined;
  /** ISO 8601, UTC, milli- or microseconds, years 0001 to 9999. The first is inclusive, the second is not. */
  readonly createdFrom?: string | undefined;
  readonly createdTo?: string | undefined;
}

export interface Listing {
  readonly sort: LoanSort;
  readonly filters: LoanFilters;
}

/** Where a page ends: the next one begins after this place. */
export interface Position {
  /** Of what is sorted by: a moment (ISO 8601, UTC, to the microsecond as stored) or an amount (a decimal). */
  readonly value: string;
  readonly id: string;
}

export interface Page<Row> {
  readonly rows: Row[];
  /** Undefined where there is no more. A page may have fewer rows than asked for, or none, and a next one all the same. */
  readonly next: Position | undefined;
}

export type ReadPage<Row> = (listing: Listing, limit: number, after: Position | undefined) => Promise<Page<Row>>;

/** A batch of the service itself (an export) is larger than any page, and comes alone or nearly so. */
const PAGES_AT_ONCE = 8;

/** What a page needs to know of its rows, each value as the database writes it. */
interface PlacedRow {
  readonly id: string;
  readonly amount: string;
  readonly created_at: string;
}

/** The row that only says how far the statement looked has no status. */
type Found<Row> = Row & PlacedRow & { readonly status: LoanStatus | null };

/**
 * A page looks at no more loans than this, however few of them its filters let through; the next one goes on from
 * there. So every page costs about the same, at any place and for any combination of filters, and three indexes
 * are enough, each of which costs every insert. By amount, loans lie scattered over the table.
 */
const WINDOW = { created_at: 10_000, amount: 2_000 } as const;
const LARGEST_ID = 'ffffffff-ffff-ffff-ffff-ffffffffffff';
const SMALLEST_ID = '00000000-0000-0000-0000-000000000000';

/** Parameters of every statement, so that all of them take the same values: see valuesOf. */
const FILTER = `($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR currency = $3)
  AND ($4::text IS NULL OR borrower_id = $4) AND amount >= $5::numeric AND amount <= $6::numeric
  AND created_at >= $7::timestamptz AND created_at < $8::timestamptz`;

/** Through which index: of all loans, of those in one status or of those of one borrower. */
type Way = 'all' | 'in_status' | 'of_borrower';

/** The columns that an index has before those of the sort, and the parameters that they are compared with. */
const LEADS: Readonly<Record<Way, readonly [columns: readonly string[], values: readonly string[]]>> = {
  all: [[], []],
  in_status: [['status'], ['$2']],
  of_borrower: [['borrower_id'], ['$4']],
};
/** The parameter that the last loan of the range is compared with. */
const BOUNDS = { '-created_at': '$7', created_at: '$8', amount: '$6', '-amount': '$5' } as const;
const TYPES = { created_at: 'timestamptz', amount: 'numeric' } as const;

/**
 * Pages of loans. There is one prepared statement for each way and sort.
 * @param columns what a row has; at least what filters and sorts look at.
 */
export function createPages<Row extends PlacedRow>(
  columns: string,
): (connection: Queryable, limits: Omit<BatchOptions, 'size'>) => ReadPage<Row> {
  const statements = new Map<string, Statement<Found<Row>>>();
  for (const sort of LOAN_SORTS) {
    for (const way of ['all', 'in_status', 'of_borrower'] as const) {
      const text = way === 'of_borrower' && isByAmount(sort) ? gather(columns, sort) : walk(columns, way, sort);
      statements.set(`${way} ${sort}`, { name: nameOf(way, sort), text });
    }
  }
  const newest = newestOf<Found<Row>>(columns);
  return (connection, limits) => {
    const readNewest = batched({ ...limits, size: PAGES_AT_ONCE }, (asked: readonly Asked[]) =>
      newest(connection, asked),
    );
    return async (listing, limit, after) => {
      const { filters, sort } = listing;
      const found = isOfAll(listing)
        ? await readNewest({ size: limit + 1, after: after ?? startOf(sort, filters) })
        : await connection.query(
            statements.get(`${wayOf(listing)} ${sort}`) as Statement<Found<Row>>,
            valuesOf(listing, limit, after),
          );
      const rows = found.filter(({ status }) => status !== null);
      const horizon = found.find(({ status }) => status === null);
      if (horizon !== undefined && filters.borrowerId !== undefined && isByAmount(sort)) throw tooManyToSort();
      if (rows.length <= limit) return { rows, next: horizon && positionOf(horizon, sort) };
      const page = rows.slice(0, limit);
      return { rows: page, next: positionOf(page.at(-1) as Found<Row>, sort) };
    };
  };
}

interface Asked {
  readonly size: number;
  readonly after: Position;
}

/**
 * What is asked for most has no filter, so nothing to be passed over: several such pages, each at its own place, are
 * one statement.
 */
function newestOf<Row>(columns: string): (connection: Queryable, asked: readonly Asked[]) => Promise<Row[][]> {
  const statement: Statement<Row & { readonly n: string }> = {
    name: 'loan_list',
    text: `SELECT n, page.* FROM unnest($1::int[], $2::timestamptz[], $3::uuid[]) WITH ORDINALITY AS asked (size, at, after, n)
      CROSS JOIN LATERAL (
        SELECT ${columns} FROM loans WHERE (created_at, id) < (asked.at, asked.after)
        ORDER BY created_at DESC, id DESC LIMIT asked.size) AS page`,
  };
  return async (connection, asked) => {
    const places = asked.map(({ after }) => after);
    const values = [asked.map(({ size }) => size), places.map(({ value }) => value), places.map(({ id }) => id)];
    const pages = asked.map((): Row[] => []);
    for (const row of await connection.query(statement, values)) pages[Number(row.n) - 1]?.push(row);
    return pages;
  };
}

function isOfAll({ sort, filters }: Listing): boolean {
  return sort === '-created_at' && Object.values(filters).every((value) => value === undefined);
}

/** The fewest loans that surely are enough. Loans in one status are not indexed by amount. */
function wayOf({ sort, filters }: Listing): Way {
  if (filters.borrowerId !== undefined) return 'of_borrower';
  return filters.status !== undefined && !isByAmount(sort) ? 'in_status' : 'all';
}

function nameOf(way: Way, sort: LoanSort): string {
  return `loans_${way}_by_${columnOf(sort)}_${isDescending(sort) ? 'down' : 'up'}`;
}

/**
 * Goes along an index from where the last page ended. The ends of the range are one row comparison and one bound:
 * with two conditions at one end Postgres might begin at the wrong one and pass over all loans in between. The first
 * column of an index is compared too, instead of set equal, since otherwise Postgres is free to take another index and
 * look for the few loans that fit in all of it.
 */
function walk(columns: string, way: Way, sort: LoanSort): string {
  const by = columnOf(sort);
  const [direction, beyond, within] = isDescending(sort) ? ['DESC', '<', '>='] : ['ASC', '>', '<='];
  const [lead, given] = LEADS[way];
  const key = [...lead, by];
  const bound = BOUNDS[sort];
  const loans = `SELECT ${columns} FROM loans
    WHERE (${[...key, 'id'].join(', ')}) ${beyond} (${[...given, `$9::${TYPES[by]}`, '$10::uuid'].join(', ')})
      AND (${key.join(', ')}) ${within} (${[...given, `${bound}::${TYPES[by]}`].join(', ')})
    ORDER BY ${[...key, 'id'].map((column) => `${column} ${direction}`).join(', ')}`;
  const unfilled = '(SELECT count(*) FROM page) < $1::int';
  return `WITH ${page(columns, loans, WINDOW[by], '')}
    SELECT ${columns} FROM page UNION ALL ${horizon(columns, loans, WINDOW[by] - 1, unfilled)}`;
}

/** A borrower's loans are few: they are taken together and sorted, which saves an index. */
function gather(columns: string, sort: LoanSort): string {
  const [direction, beyond] = isDescending(sort) ? ['DESC', '<'] : ['ASC', '>'];
  const loans = `SELECT ${columns} FROM loans
    WHERE (borrower_id, created_at) >= ($4, $7::timestamptz) AND (borrower_id, created_at) < ($4, $8::timestamptz)
    ORDER BY borrower_id, created_at, id`;
  const rest = `AND (amount, id) ${beyond} ($9::numeric, $10::uuid) ORDER BY amount ${direction}, id ${direction}`;
  return `WITH ${page(columns, loans, WINDOW.created_at, rest)}
    SELECT ${columns} FROM page UNION ALL ${horizon(columns, loans, WINDOW.created_at, 'true')}`;
}

function page(columns: string, loans: string, window: number, rest: string): string {
  return `page AS MATERIALIZED (
    SELECT ${columns} FROM (${loans} LIMIT ${window}) AS looked_at WHERE ${FILTER} ${rest} LIMIT $1::int)`;
}

/** The place of the loan after so many, if there is one. In the statement of the page, so that both are about one moment. */
function horizon(columns: string, loans: string, offset: number, condition: string): string {
  const place = columns.split(', ').map((column) => {
    return ['id', 'amount', 'created_at'].includes(column) ? column : `NULL AS ${column}`;
  });
  return `(SELECT ${place.join(', ')} FROM (${loans} OFFSET ${offset} LIMIT 1) AS looked_at WHERE ${condition})`;
}

/** One loan more than the page has, to know whether there is another page. */
function valuesOf({ sort, filters }: Listing, limit: number, after: Position | undefined): Value[] {
  const { status, currency, borrowerId, minAmount, maxAmount, createdFrom, createdTo } = filters;
  const { value, id } = after ?? startOf(sort, filters);
  return [
    limit + 1,
    status ?? null,
    currency ?? null,
    borrowerId ?? null,
    minAmount === undefined ? '0' : formatAmount(minAmount),
    maxAmount === undefined ? 'Infinity' : formatAmount(maxAmount),
    createdFrom ?? '-infinity',
    createdTo ?? 'infinity',
    value,
    id,
  ];
}

/** A place before the first loan that the range of the filters has, as close to it as there is one. */
function startOf(sort: LoanSort, { minAmount, maxAmount, createdFrom, createdTo }: LoanFilters): Position {
  switch (sort) {
    case '-created_at':
      return { value: createdTo ?? 'infinity', id: SMALLEST_ID };
    case 'created_at':
      return { value: createdFrom === undefined ? '-infinity' : justBefore(createdFrom), id: LARGEST_ID };
    case '-amount':
      return {
        value: maxAmount === undefined ? 'Infinity' : formatAmount((maxAmount + 1n) as Amount),
        id: SMALLEST_ID,
      };
    case 'amount':
      return { value: formatAmount(((minAmount ?? 0n) - 1n) as Amount), id: LARGEST_ID };
  }
}

/** A microsecond earlier, which is the step of the database's clock. */
function justBefore(moment: string): string {
  const milliseconds = moment.slice(0, 23);
  const microseconds = Number(moment.slice(23, -1).padEnd(3, '0'));
  if (microseconds > 0) return `${milliseconds}${String(microseconds - 1).padStart(3, '0')}Z`;
  const earlier = new Date(Date.parse(`${milliseconds}Z`) - 1).toISOString();
  // The calendar of Postgres has no year 0.
  return earlier.startsWith('0000') ? '-infinity' : `${earlier.slice(0, -1)}999Z`;
}

function positionOf({ id, amount, created_at: createdAt }: PlacedRow, sort: LoanSort): Position {
  return { value: isByAmount(sort) ? amount : toTimestamp(createdAt), id };
}

function isByAmount(sort: LoanSort): boolean {
  return columnOf(sort) === 'amount';
}

function isDescending(sort: LoanSort): boolean {
  return sort.startsWith('-');
}

function columnOf(sort: LoanSort): 'created_at' | 'amount' {
  return sort === 'amount' || sort === '-amount' ? 'amount' : 'created_at';
}

function tooManyToSort(): Problem {
  const detail = `by amount is possible for up to ${WINDOW.created_at} loans of one borrower; narrow created_from and created_to, or sort by created_at`;
  return new Problem('invalid-parameter', `sort ${detail}`, { faults: [{ parameter: 'sort', detail }] });
}
