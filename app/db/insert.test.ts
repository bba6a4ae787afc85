import { DatabaseError } from 'pg';
import fc from 'fast-check';
import type { Loan } from '../domain/loan';
import { parseAmount } from '../domain/money';
import { createInsert } from './insert';
import type { Database, Value } from './pool';

/** What a database does with a row, as told by the row's id. */
type Fate = 'written' | 'refused' | 'key taken' | 'in use' | 'lost';

const ORIGIN = { principal: 'a test', requestId: null };

function loan(id: string): Loan {
  return {
    id,
    borrowerId: 'usr_kenya_001',
    amount: parseAmount('100'),
    currency: 'KES',
    termMonths: null,
    interestRateApr: null,
    status: 'pending',
    createdAt: '2026-01-31T00:00:00.000Z',
    updatedAt: '2026-01-31T00:00:00.000Z',
    version: 1,
  };
}

function refusal(code: string, constraint: string): Error {
  return Object.assign(new DatabaseError('refused', 0, 'error'), { code, constraint });
}

/** Writes the rows of a statement all or none, as PostgreSQL does, one statement at a time. */
function fakeDatabase(fates: readonly Fate[]) {
  const written: string[] = [];
  let running = 0;
  let mostRunning = 0;
  let statements = 0;
  const query = async (_statement: unknown, [rows]: readonly Value[] = []) => {
    statements++;
    mostRunning = Math.max(mostRunning, ++running);
    await new Promise((resolve) => setImmediate(resolve));
    running--;
    const ids = (JSON.parse(String(rows)) as { id: string }[]).map(({ id }) => id);
    const fateOf = (id: string) => fates[Number(id)];
    // Which fault is met first is for PostgreSQL to say. A connection is lost only by the row on its own, so that
    // there is something to be kept.
    if (ids.some((id) => fateOf(id) === 'refused')) throw refusal('23514', 'loans_amount_check');
    if (ids.some((id) => fateOf(id) === 'key taken')) throw refusal('23505', 'idempotency_keys_pkey');
    if (ids.length === 1 && ids.some((id) => fateOf(id) === 'lost')) throw new Error('Connection terminated');
    const done = ids.filter((id) => fateOf(id) !== 'in use');
    written.push(...done);
    return done.map((id) => ({ id }));
  };
  const database = {
    query,
    connections: 4,
    queueBefore: () => ({ enter: () => undefined, refuseLate: () => false, served: () => () => undefined }),
  } as unknown as Database;
  return { database, written, statements: () => statements, mostRunning: () => mostRunning };
}

async function openTogether(database: Database, count: number): Promise<string[]> {
  const insert = createInsert(database);
  const all = Array.from({ length: count }, (_, index) =>
    insert({ loan: loan(String(index)), origin: ORIGIN, recorded: undefined }),
  );
  const settled = await Promise.allSettled(all);
  return settled.map((one) => (one.status === 'fulfilled' ? String(one.value) : (one.reason as Error).message));
}

describe('a statement that is shared', () => {
  it('gives all of its loans their outcome at once where none is at fault', async () => {
    const fake = fakeDatabase(['written', 'in use', 'written']);
    expect(await openTogether(fake.database, 3)).toEqual(['true', 'false', 'true']);
    expect(fake.statements()).toBe(1);
  });

  it('a loan that the database refuses fails, and none of those around it', async () => {
    const fake = fakeDatabase(['written', 'key taken', 'refused', 'written', 'in use']);
    expect(await openTogether(fake.database, 5)).toEqual(['true', 'false', 'refused', 'true', 'false']);
    expect(fake.written).toEqual(['0', '3']);
  });

  it('they are tried one after the other, so that many of them do not crowd the pool', async () => {
    const fake = fakeDatabase(['refused', ...Array<Fate>(49).fill('written')]);
    await openTogether(fake.database, 50);
    expect(fake.mostRunning()).toBe(1);
    expect(fake.statements()).toBe(51);
  });

  it('a connection that is lost meanwhile fails those not written yet, and acknowledges the others', async () => {
    const fake = fakeDatabase(['written', 'refused', 'lost', 'written', 'refused']);
    const lost = 'Connection terminated';
    expect(await openTogether(fake.database, 5)).toEqual(['true', 'refused', lost, lost, lost]);
    expect(fake.written).toEqual(['0']);
  });

  it('acknowledges exactly what was written, whatever happens', async () => {
    const fate = fc.constantFrom<Fate>('written', 'written', 'refused', 'key taken', 'in use', 'lost');
    await fc.assert(
      fc.asyncProperty(fc.array(fate, { minLength: 1, maxLength: 60 }), async (fates) => {
        const fake = fakeDatabase(fates);
        const outcomes = await openTogether(fake.database, fates.length);
        const acknowledged = outcomes.flatMap((outcome, index) => (outcome === 'true' ? [String(index)] : []));
        expect(acknowledged).toEqual([...fake.written].sort((a, b) => Number(a) - Number(b)));
        // Refused are those who are, and nobody else; without a lost connection everybody gets their own outcome.
        const own = { written: 'true', refused: 'refused', 'key taken': 'false', 'in use': 'false', lost: 'true' };
        outcomes.forEach((outcome, index) => {
          if (outcome !== 'Connection terminated') expect(outcome).toBe(own[fates[index]!]);
          else expect(fates).toContain('lost');
        });
      }),
    );
  });
});
