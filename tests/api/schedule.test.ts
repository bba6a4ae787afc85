import fc from 'fast-check';
import { startService, type TestService } from './harness';
import { borrower, share } from './ledger';
import { OLD_INSERT } from './migrations';

let clock = new Date('2026-01-31T23:59:59.999Z');
let api: TestService;
let at: ReturnType<typeof borrower>;
beforeAll(async () => {
  api = await startService({}, { now: () => clock });
  at = borrower(api);
});
afterAll(() => api.stop());
beforeEach(() => {
  clock = new Date('2026-01-31T23:59:59.999Z');
});

const schedule = (path: string, query = '') => at.get(`${path}/schedule${query}`);
const dueDates = (answer: { json(): unknown }) =>
  (answer.json() as { instalments: { due_date: string }[] }).instalments.map(({ due_date }) => due_date);

describe('GET /api/loans/:id/schedule', () => {
  it('has equal instalments on a reducing balance, and the remainder in the last', async () => {
    const path = await at.loan();
    const answer = await schedule(path);
    expect(answer.status).toBe(200);
    const row = (number: number, due_date: string, ...[principal, interest, payment, balance]: string[]) => {
      return { number, due_date, principal, interest, payment, balance };
    };
    expect(answer.json()).toEqual({
      loan_id: path.split('/').at(-1),
      currency: 'KES',
      projected: false,
      start_date: '2026-01-31',
      term_months: 6,
      interest_rate_apr: '28.00',
      total: share('12500.00', '1040.46', '13540.46'),
      instalments: [
        row(1, '2026-02-28', '1965.07', '291.67', '2256.74', '10534.93'),
        row(2, '2026-03-31', '2010.92', '245.82', '2256.74', '8524.01'),
        row(3, '2026-04-30', '2057.85', '198.89', '2256.74', '6466.16'),
        row(4, '2026-05-31', '2105.86', '150.88', '2256.74', '4360.30'),
        row(5, '2026-06-30', '2155.00', '101.74', '2256.74', '2205.30'),
        row(6, '2026-07-31', '2205.30', '51.46', '2256.76', '0.00'),
      ],
    });
    expect((await schedule(path.replace('/v1', ''))).json()).toEqual(answer.json());
  });

  it('counts in the smallest unit of the currency', async () => {
    const vnd = (
      await schedule(await at.loan({ currency: 'VND', amount: 8400, term_months: 4, interest_rate_apr: 26 }))
    ).json();
    expect(vnd.total).toEqual(share('8400.00', '460.00', '8860.00'));
    expect(vnd.instalments[0]).toMatchObject({ principal: '2033.00', interest: '182.00', payment: '2215.00' });
    const kwd = (await schedule(await at.loan({ currency: 'KWD', amount: '10.001', term_months: 2 }))).json();
    expect(kwd.total.principal).toBe('10.001');
    expect(kwd.instalments[0].payment).toMatch(/^\d+\.\d{2,3}$/);
  });

  it.each([
    ['a rate of 0', { interest_rate_apr: 0 }],
    ['no rate', { interest_rate_apr: null }],
  ])('bears no interest with %s', async (_name, change) => {
    const { total, instalments, interest_rate_apr } = (
      await schedule(await at.loan({ amount: 100, term_months: 3, ...change }))
    ).json();
    expect([total, interest_rate_apr]).toEqual([share('100.00', '0.00', '100.00'), '0.00']);
    expect((instalments as { payment: string }[]).map(({ payment }) => payment)).toEqual(['33.33', '33.33', '33.34']);
  });

  it('falls due on the last day of months that are too short, and comes back to the day', async () => {
    clock = new Date('2027-12-31T12:00:00Z');
    expect(dueDates(await schedule(await at.loan({ term_months: 4 })))).toEqual([
      '2028-01-31',
      '2028-02-29',
      '2028-03-31',
      '2028-04-30',
    ]);
    clock = new Date('2028-02-29T00:00:00Z');
    const dates = dueDates(await schedule(await at.loan({ term_months: 12 })));
    expect([dates[0], dates[11]]).toEqual(['2028-03-29', '2029-02-28']);
  });

  it('has one instalment over a month, and 600 over the longest term', async () => {
    expect(dueDates(await schedule(await at.loan({ term_months: 1 })))).toEqual(['2026-02-28']);
    const longest = await schedule(await at.loan({ term_months: 600 }));
    expect(dueDates(longest).at(-1)).toBe('2076-01-31');
    expect(longest.json().instalments[599].balance).toBe('0.00');
  });

  it('counts from the day of the disbursement, UTC, whatever happens later', async () => {
    const path = await at.loan({}, ['approved']);
    clock = new Date('2026-02-01T00:00:00Z');
    await at.move(path, 'disbursed');
    clock = new Date('2026-09-09T00:00:00Z');
    const first = await schedule(path);
    expect(first.json()).toMatchObject({ start_date: '2026-02-01', projected: false });
    await at.move(path, 'defaulted');
    expect((await schedule(path)).text).toBe(first.text);
    await at.move(path, 'repaid');
    expect((await schedule(path)).text).toBe(first.text);
  });

  it('of a loan that is not disbursed yet is projected, from today or another day', async () => {
    for (const moves of [[], ['approved'], ['rejected']] as const) {
      const path = await at.loan({}, moves);
      expect((await schedule(path)).json()).toMatchObject({ projected: true, start_date: '2026-01-31' });
      const other = await schedule(path, '?start_date=2023-12-31');
      expect(other.json()).toMatchObject({ projected: true, start_date: '2023-12-31' });
      expect(dueDates(other).slice(0, 2)).toEqual(['2024-01-31', '2024-02-29']);
    }
  });

  it('takes no other day for a loan that is disbursed', async () => {
    const answer = await schedule(await at.loan(), '?start_date=2026-01-31');
    expect([answer.status, answer.json().type]).toEqual([422, 'urn:problem:invalid-parameter']);
    expect(answer.json().errors).toEqual([
      { parameter: 'start_date', detail: 'is for loans that are not disbursed yet; this one was, on 2026-01-31' },
    ]);
  });

  it.each([
    '2026-02-29',
    '2026-1-1',
    'today',
    '',
    '9999-12-01',
    '2026-01-01T00:00:00Z',
    '%00',
    '2026-01-01&start_date=2026-01-01',
  ])('refuses start_date=%s', async (date) => {
    const answer = await schedule(await at.loan({}, []), `?start_date=${date}`);
    expect([answer.status, answer.json().type]).toEqual([422, 'urn:problem:invalid-parameter']);
    expect(answer.json().errors).toMatchObject([{ parameter: 'start_date' }]);
  });

  it('takes the earliest and the latest day there can be', async () => {
    const path = await at.loan({ term_months: 1 }, []);
    expect(dueDates(await schedule(path, '?start_date=0000-01-31'))).toEqual(['0000-02-29']);
    expect(dueDates(await schedule(path, '?start_date=9999-11-30'))).toEqual(['9999-12-30']);
  });

  it('there is none without a term', async () => {
    for (const moves of [[], ['approved', 'disbursed']] as const) {
      const answer = await schedule(await at.loan({ term_months: null }, moves));
      expect([answer.status, answer.json().type]).toEqual([409, 'urn:problem:no-schedule']);
      expect(answer.json().detail).toMatch(/^The loan has no term\. .*repaid/);
    }
  });

  it('answers 404 for an unknown loan and 400 for what is no id', async () => {
    expect((await schedule('/api/loans/00000000-0000-0000-0000-00000000ffff')).status).toBe(404);
    expect((await schedule('/api/loans/x')).json().type).toBe('urn:problem:invalid-id');
  });

  it('adds up exactly for any loan', async () => {
    const cents = (text: string) => BigInt(text.replace('.', ''));
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 5_000_000 }),
        fc.integer({ min: 0, max: 10_000 }),
        fc.integer({ min: 1, max: 60 }),
        fc.date({ min: new Date('2000-01-01'), max: new Date('2100-12-31'), noInvalidDate: true }),
        async (amount, rate, term_months, start) => {
          const path = await at.loan(
            { amount: `${Math.floor(amount / 100)}.${String(amount % 100).padStart(2, '0')}`, term_months, interest_rate_apr: `${Math.floor(rate / 100)}.${String(rate % 100).padStart(2, '0')}` }, // prettier-ignore
            [],
          );
          const day = start.toISOString().slice(0, 10);
          const { total, instalments } = (await schedule(path, `?start_date=${day}`)).json() as {
            total: Record<string, string>;
            instalments: Record<'principal' | 'interest' | 'payment' | 'due_date' | 'balance', string>[];
          };
          const sum = (of: 'principal' | 'interest' | 'payment') =>
            instalments.reduce((all, each) => all + cents(each[of]), 0n);
          expect(sum('principal')).toBe(BigInt(amount));
          expect([sum('principal'), sum('interest'), sum('payment')]).toEqual(
            [total.principal!, total.interest!, total.total!].map(cents),
          );
          expect(instalments).toHaveLength(term_months);
          expect(instalments.at(-1)!.balance).toBe('0.00');
          const [year, month, dayOfMonth] = day.split('-').map(Number) as [number, number, number];
          for (const [index, { due_date }] of instalments.entries()) {
            const lastDay = new Date(Date.UTC(year, month + index + 1, 0));
            lastDay.setUTCDate(Math.min(dayOfMonth, lastDay.getUTCDate()));
            expect(due_date).toBe(lastDay.toISOString().slice(0, 10));
          }
        },
      ),
      { numRuns: 60 },
    );
  });
});

it('of 600 months costs little more than one of 6, and so do balance and payment: terms are worked out once', async () => {
  const [long, short] = [await at.loan({ term_months: 600, interest_rate_apr: '28' }), await at.loan()];
  /** Of the processor, of this process: that of the client is in it too. */
  const cost = async (work: () => Promise<{ status: number }>): Promise<number> => {
    const before = process.cpuUsage();
    for (let n = 0; n < 20; n++) expect((await work()).status).toBeLessThan(300);
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  const works: ((path: string) => Promise<{ status: number }>)[] = [
    (path) => at.get(`${path}/schedule`),
    (path) => at.get(`${path}/balance`),
    (path) => at.pay(path, '0.01'),
  ];
  for (const work of works) {
    await cost(() => work(short)); // Until it is compiled.
    const few = await cost(() => work(short));
    const many = await cost(() => work(long));
    expect(many / few).toBeLessThan(6);
  }
});

describe('loans of earlier releases', () => {
  it.each([
    [
      'a currency that there is not',
      "12500, 'QQQ', 6",
      'The currency of the loan must be an ISO 4217 currency whose minor unit is known',
    ],
    ['gold', "12500, 'XAU', 6", 'The currency of the loan must be'],
    ['more digits than the currency', "8400.5, 'VND', 6", 'The amount of the loan must have at most 0 digits'],
    ['a term without end', "12500, 'KES', 2147483647", 'The term of the loan must be a whole number from 1 to 600'],
  ])('with %s have no schedule, and say why', async (_name, held, why) => {
    clock = new Date();
    await api.database.unguard();
    const [row] = await api.database.sql<{ id: string }>(OLD_INSERT.replace("12500, 'KES', 6", held));
    const path = `/api/v1/loans/${row!.id}`;
    for (const answer of [await schedule(path), await at.get(`${path}/balance`), await at.pay(path, '1.00')]) {
      expect([answer.status, answer.json().type]).toEqual([409, 'urn:problem:no-schedule']);
      expect(answer.json().detail).toContain(why);
    }
    expect((await at.get(`${path}/repayments`)).json()).toEqual([]);
    const [pending] = await api.database.sql<{ id: string }>(
      OLD_INSERT.replace("12500, 'KES', 6", held).replace("'disbursed'", "'pending'"),
    );
    expect((await at.get(`/api/loans/${pending!.id}/balance`)).json().outstanding.total).toBe('0.00');
  });
});
