import { minorUnits } from '../domain/currency';
import type { Loan, LoanStatus } from '../domain/loan';
import { parseAmount } from '../domain/money';
import { toValues } from './loans';
import type { Database, Statement } from './pool';

const INSERT_MANY: Statement<{ id: string }> = {
  name: 'loan_insert_many',
  // A loan that somebody deleted by hand has its history still.
  text: `WITH loan AS (INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at, version)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::text[], $5::int[], $6::numeric[], $7::text[],
      $8::timestamptz[], $9::timestamptz[], $10::int[])
    ON CONFLICT (id) DO NOTHING RETURNING *), event AS (
    INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, amount, currency)
    SELECT id, version, created_at, $11, 'created', status, amount, currency FROM loan
    ON CONFLICT (loan_id, version) DO NOTHING)
    SELECT id FROM loan`,
};
const BATCH = 5_000;
const DAY_MS = 86_400_000;

type Sample = readonly [borrower: string, currency: string, amount: string, LoanStatus, months: number, apr: string];

const SAMPLES: readonly Sample[] = [
  ['usr_kenya_001', 'KES', '12500', 'pending', 6, '28'],
  ['usr_india_002', 'INR', '50000', 'approved', 12, '24'],
  ['usr_nigeria_003', 'NGN', '32000', 'rejected', 9, '30'],
  ['usr_vietnam_004', 'VND', '8400', 'disbursed', 4, '26'],
  ['usr_philippines_005', 'PHP', '21000', 'repaid', 6, '22'],
];

/** Where generated loans come from: the country of the borrower, the currency, and the usual range of an amount. */
const MARKETS = [
  { country: 'kenya', currency: 'KES', from: 1_000, to: 50_000 },
  { country: 'india', currency: 'INR', from: 2_000, to: 50_000 },
  { country: 'nigeria', currency: 'NGN', from: 5_000, to: 50_000 },
  { country: 'vietnam', currency: 'VND', from: 5_000, to: 50_000 },
  { country: 'philippines', currency: 'PHP', from: 1_500, to: 40_000 },
] as const;
const TERMS_MONTHS = [3, 4, 6, 9, 12, 18, 24] as const;
/** Repeated by how often they occur. */
const STATUSES: readonly LoanStatus[] = [
  ...Array<LoanStatus>(3).fill('pending'),
  ...Array<LoanStatus>(2).fill('approved'),
  ...Array<LoanStatus>(3).fill('rejected'),
  ...Array<LoanStatus>(6).fill('disbursed'),
  ...Array<LoanStatus>(5).fill('repaid'),
  'defaulted',
];

/** Inserts the five sample loans; those that are there already stay as they are. Resolves to how many were new. */
export async function seed(database: Database, now: Date): Promise<number> {
  const moment = now.toISOString();
  return insertMany(
    database,
    'seed',
    SAMPLES.map(([borrowerId, currency, amount, status, termMonths, apr], index) => ({
      id: `00000000-0000-0000-0000-00000000000${index + 1}`,
      borrowerId,
      amount: parseAmount(amount),
      currency,
      termMonths,
      interestRateApr: parseAmount(apr),
      status,
      createdAt: moment,
      updatedAt: moment,
      version: 1,
    })),
  );
}

/**
 * Inserts `count` made-up loans of the last year. The same seed gives the same loans under the same ids, so a second
 * run adds nothing. Resolves to how many were new.
 */
export async function generate(database: Database, count: number, seedNumber: number, now: Date): Promise<number> {
  const random = pseudoRandom(seedNumber);
  let inserted = 0;
  for (let done = 0; done < count; done += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, count - done) }, () => generatedLoan(random, now));
    inserted += await insertMany(database, 'generate', batch);
  }
  return inserted;
}

/** @param actor of the events: a loan begins here in the status that it is given. */
async function insertMany(database: Database, actor: string, loans: readonly Loan[]): Promise<number> {
  const rows = loans.map(toValues);
  const columns = Array.from({ length: 10 }, (_, column) => rows.map((row) => row[column] ?? null));
  return (await database.query(INSERT_MANY, [...columns, actor])).length;
}

/** An integer from 0 up to, not including, the bound. */
type Random = (bound: number) => number;

function generatedLoan(random: Random, now: Date): Loan {
  const pick = <T>(choices: readonly T[]): T => choices[random(choices.length)] as T;
  const { country, currency, from, to } = pick(MARKETS);
  const whole = from + random(to - from);
  const drawn = random(4) === 0 ? `.${String(random(100)).padStart(2, '0')}` : '';
  const cents = minorUnits(currency) === 0 ? '' : drawn;
  const createdMs = now.getTime() - random(365) * DAY_MS - random(DAY_MS);
  const status = pick(STATUSES);
  return {
    id: uuid(random),
    borrowerId: `usr_${country}_${String(random(1_000_000)).padStart(6, '0')}`,
    amount: parseAmount(`${whole}${cents}`),
    currency,
    termMonths: random(50) === 0 ? null : pick(TERMS_MONTHS),
    interestRateApr: random(50) === 0 ? null : parseAmount(`${18 + random(18)}.${random(2) * 5}`),
    status,
    createdAt: new Date(createdMs).toISOString(),
    updatedAt: new Date(status === 'pending' ? createdMs : createdMs + random(now.getTime() - createdMs)).toISOString(),
    version: 1,
  };
}

/** A version 4 UUID from the given source, so that it repeats with the seed. */
function uuid(random: Random): string {
  const hex = (digits: number) =>
    random(16 ** digits)
      .toString(16)
      .padStart(digits, '0');
  return `${hex(8)}-${hex(4)}-4${hex(3)}-${(8 + random(4)).toString(16)}${hex(3)}-${hex(6)}${hex(6)}`;
}

/** Mulberry32 over 32 bits of state: small, quick and repeatable. Not for secrets. */
function pseudoRandom(seedNumber: number): Random {
  let state = seedNumber >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * bound);
  };
}
