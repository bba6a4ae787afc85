import fc from 'fast-check';
import { Client } from 'pg';
import { createPages, type Listing, LOAN_SORTS, type LoanFilters } from '../../app/db/loan-pages';
import type { Statement, Value } from '../../app/db/pool';
import { LOAN_STATUSES } from '../../app/domain/loan';
import { type Answer, LOAN, startService, type TestService } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
  await api.database.unguard();
});
afterAll(() => api.stop());

interface Shown {
  readonly id: string;
  readonly borrower_id: string;
  readonly amount: string;
  readonly currency: string;
  readonly status: string;
  readonly created_at: string;
}

const list = (query: string) => api.ask('GET', `/api/v1/loans?${query}`);
const shown = (answer: Answer) => answer.json() as Shown[];

function link(answer: Answer, relation: string): string | undefined {
  return new RegExp(`<([^>]+)>; rel="${relation}"`).exec((answer.headers.link as string | undefined) ?? '')?.[1];
}

/** All loans that the pages show, one page after the other. */
async function walk(query: string, between: (page: number) => Promise<unknown> = () => Promise.resolve()) {
  const loans: Shown[] = [];
  let path: string | undefined = `/api/v1/loans?${query}`;
  for (let page = 1; path !== undefined; page++) {
    const answer: Answer = await api.ask('GET', path);
    expect([answer.status, path]).toEqual([200, path]);
    loans.push(...shown(answer));
    path = link(answer, 'next');
    await between(page);
  }
  return loans;
}

const insert = (count: number, columns: { [column: string]: string } = {}) => {
  const { borrower = "'b' || n % 7", amount = '1 + n % 50', currency, status, created } = columns;
  return api.database.sql(
    `INSERT INTO loans SELECT gen_random_uuid(), ${borrower}, ${amount},
      ${currency ?? "(ARRAY['KES', 'INR', 'VND'])[1 + n % 3]"}, NULL, NULL,
      ${status ?? "(ARRAY['pending', 'approved', 'repaid', 'defaulted'])[1 + n % 4]"},
      ${created ?? "timestamptz '2026-03-01' + n / 3 * interval '1 hour'"}, now(), 1 FROM generate_series(1, ${count}) AS n`,
  );
};

describe('filters and sorts', () => {
  beforeAll(async () => {
    await api.database.sql('TRUNCATE loans');
    await insert(400);
  });

  const moment = fc.integer({ min: -5, max: 140 }).map((hour) => new Date(Date.UTC(2026, 2, 1, hour)).toISOString());
  const amount = fc.integer({ min: 0, max: 600 }).map((tenths) => (tenths / 10).toFixed(1));
  const query = fc.record(
    {
      status: fc.constantFrom(...LOAN_STATUSES),
      currency: fc.constantFrom('KES', 'inr', 'VND', 'USD'),
      borrower_id: fc.constantFrom('b0', 'b3', 'nobody'),
      min_amount: amount,
      max_amount: amount,
      created_from: moment,
      created_to: moment,
      sort: fc.constantFrom(...LOAN_SORTS),
      limit: fc.constantFrom('1', '7', '50', '100'),
    },
    { requiredKeys: ['limit'] },
  );

  it('show exactly the loans for which all holds, in order, each once, on as many pages as it takes', async () => {
    const all = await walk('limit=100');
    expect(all).toHaveLength(400);
    await fc.assert(
      fc.asyncProperty(query, async (parameters) => {
        const { sort = '-created_at', limit, ...filters } = parameters;
        const expected = all
          .filter((loan) => loan.status === (filters.status ?? loan.status))
          .filter((loan) => loan.currency === (filters.currency ?? loan.currency).toUpperCase())
          .filter((loan) => loan.borrower_id === (filters.borrower_id ?? loan.borrower_id))
          .filter((loan) => Number(loan.amount) >= Number(filters.min_amount ?? 0))
          .filter((loan) => Number(loan.amount) <= Number(filters.max_amount ?? Infinity))
          .filter((loan) => loan.created_at >= (filters.created_from ?? ''))
          .filter((loan) => loan.created_at < (filters.created_to ?? '9'))
          .sort((a, b) => {
            const [first, second] = sort.startsWith('-') ? [b, a] : [a, b];
            const by = (loan: Shown) =>
              sort.endsWith('amount') ? loan.amount.padStart(20, '0') + loan.id : loan.created_at + loan.id;
            return by(first) < by(second) ? -1 : 1;
          });
        const found = await walk(new URLSearchParams({ ...parameters, limit }).toString());
        expect(found.map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
      }),
      { numRuns: 60 },
    );
  }, 60_000);

  it('take a range of time with its begin and without its end, as dates or times of any zone', async () => {
    const times = async (query: string) => (await walk(`${query}&sort=created_at`)).map((loan) => loan.created_at);
    const day = await times('created_from=2026-03-02&created_to=2026-03-03');
    expect([day.length, day[0], day.at(-1)]).toEqual([72, '2026-03-02T00:00:00.000Z', '2026-03-02T23:00:00.000Z']);
    expect(await times('created_from=2026-03-02T03:00:00%2B03:00&created_to=2026-03-02t19:00:00.000-05:00')).toEqual(
      day,
    );
    expect(await times('created_from=2026-03-02T00:00:00.000001Z&created_to=2026-03-02T01:00:00Z')).toEqual([]);
    expect(await times('created_from=2026-03-02T00:00:00Z&created_to=2026-03-02T00:00:00.000001Z')).toHaveLength(3);
    expect(await times('created_from=0001-01-01&created_to=9999-12-31')).toHaveLength(400);
    expect(await times('created_from=2026-03-03&created_to=2026-03-02')).toEqual([]);
  });

  it('begin a range of time with every loan of its first microsecond, whatever its id', async () => {
    const at = "timestamptz '2025-01-01 00:00:00.000100Z'";
    for (const id of ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff']) {
      await api.database.sql(
        `INSERT INTO loans VALUES ($1, 'edge', 3.1234, 'KWD', NULL, NULL, 'pending', ${at}, now(), 1)`,
        [id],
      );
    }
    for (const sort of LOAN_SORTS) {
      const edges = 'created_from=2025-01-01T00:00:00.0001Z&created_to=2025-01-01T00:00:00.000101Z';
      expect(shown(await list(`${edges}&sort=${sort}`))).toHaveLength(2);
      expect(shown(await list(`min_amount=3.1234&max_amount=3.1234&sort=${sort}`))).toHaveLength(2);
      expect(shown(await list(`min_amount=3.1234&max_amount=3.1234&sort=${sort}&borrower_id=edge`))).toHaveLength(2);
    }
    await api.database.sql("DELETE FROM loans WHERE borrower_id = 'edge'");
  });

  it('are kept by the links, which lead on, and back to the first page', async () => {
    const query = 'borrower_id=b%263&sort=-amount&min_amount=1';
    await insert(5, { borrower: "'b&3'" });
    const first = await list(`limit=2&${query}`);
    expect(link(first, 'first')).toBeUndefined();
    const second = await api.ask('GET', link(first, 'next')!);
    expect(new URL(link(second, 'first')!, 'http://x').searchParams.toString()).toBe(`limit=2&${query}`);
    expect((await api.ask('GET', link(second, 'first')!)).text).toBe(first.text);
    expect(link(second, 'next')).toContain('borrower_id=b%263&sort=-amount&min_amount=1&cursor=');
    const last = await api.ask('GET', link(second, 'next')!);
    expect([shown(last).length, link(last, 'next')]).toEqual([1, undefined]);
    await api.database.sql("DELETE FROM loans WHERE borrower_id = 'b&3'");
  });

  it('take the cursors of the release before, which knew neither', async () => {
    const [newest] = shown(await list('limit=1'));
    const cursor = Buffer.from(`${newest!.created_at}|${newest!.id}`).toString('base64url');
    expect(shown(await list(`cursor=${cursor}`))).toEqual(shown(await list('limit=51')).slice(1));
    expect(link(await list('limit=1'), 'next')).toBe(`/api/v1/loans?limit=1&cursor=${cursor}`);
  });

  describe('a cursor', () => {
    const cursorOf = async (query: string) =>
      new URL(link(await list(`limit=2&${query}`), 'next')!, 'http://x').searchParams.get('cursor')!;

    it.each([
      ['', 'sort=created_at'],
      ['', 'sort=amount'],
      ['sort=amount', 'sort=-amount'],
      ['sort=amount', ''],
      ['', 'status=pending'],
      ['status=pending', ''],
      ['status=pending', 'status=approved'],
      ['currency=KES', 'currency=INR'],
      ['borrower_id=b1', 'borrower_id=b2'],
      ['min_amount=5', 'max_amount=5'],
      ['created_from=2026-03-01', 'created_from=2026-03-02'],
    ])('of "%s" is refused with "%s"', async (made, used) => {
      const answer = await list(`${used}&cursor=${await cursorOf(made)}`);
      expect([answer.status, answer.json()]).toEqual([
        422,
        expect.objectContaining({
          type: 'urn:problem:invalid-parameter',
          errors: [{ parameter: 'cursor', detail: expect.stringContaining('other filters or another sort') }],
        }),
      ]);
    });

    it.each([
      ['sort=-created_at', ''],
      ['currency=kes', 'currency=KES'],
      ['min_amount=5', 'min_amount=5.00'],
      ['created_from=2026-03-01', 'created_from=2026-03-01T01:00:00%2B01:00'],
    ])('of "%s" is taken with "%s", which is the same, and with another limit', async (made, used) => {
      expect((await list(`limit=3&${used}&cursor=${await cursorOf(made)}`)).status).toBe(200);
    });
  });

  it.each([
    'status=open',
    'status=',
    'status=pending&status=approved',
    'status=PENDING',
    'currency=KE',
    'currency=KESS',
    'currency=K%C3%89S',
    'currency=',
    'borrower_id=',
    'borrower_id=%20',
    'borrower_id=%00',
    'borrower_id=M%FCller',
    'borrower_id=%C3',
    'borrower_id=%C3%28',
    'borrower_id=%C0%AF',
    'borrower_id=%ED%A0%80',
    'borrower_id=%F4%90%80%80',
    'borrower_id=%zz',
    'borrower_id=100%',
    `borrower_id=${'a'.repeat(256)}`,
    ...[
      '-1',
      'abc',
      '',
      '1e3',
      'NaN',
      'Infinity',
      '1.00001',
      '1000000000000000',
      '9'.repeat(3_000),
      '0x10',
      '1,5',
    ].flatMap((value) => [`min_amount=${value}`, `max_amount=${value}`]),
    ...[
      ...[
        '',
        'now',
        '2026',
        '2026-1-1',
        '2026-02-30',
        '0000-01-01',
        '10000-01-01',
        '2026-13-01',
        'infinity',
        '-infinity',
      ],
      ...[
        '2026-01-01T24:00:00Z',
        '2026-01-01T12:00:60Z',
        '2026-01-01T12:00:00',
        '2026-01-01T12:00Z',
        '2026-01-01T12:00:00+01:00',
      ],
      ...[
        '2026-01-01T12:00:00.1234567Z',
        '2026-01-01T12:00:00%2B24:00',
        '0001-01-01T00:00:00%2B01:00',
        '9999-12-31T23:59:59-01:00',
      ],
      "2026-01-01'; DROP TABLE loans; --",
    ].flatMap((value) => [`created_from=${value}`, `created_to=${value}`]),
    'sort=id',
    'sort=%2Bamount',
    'sort=',
    'sort=amount,created_at',
    'sort=amount;DROP TABLE loans',
    'sort=amount&cursor=abc',
    `sort=amount&cursor=${Buffer.from('NaN|00000000-0000-0000-0000-000000000001').toString('base64url')}`,
    `cursor=${Buffer.from('1.0000|00000000-0000-0000-0000-000000000001').toString('base64url')}`,
    `cursor=${Buffer.from('2026-01-01T00:00:00.000Z|00000000-0000-0000-0000-000000000001|x|y').toString('base64url')}`,
  ])('refuse %s', async (query) => {
    const answer = await list(encodeURI(query).replaceAll('%25', '%'));
    expect([answer.status, answer.json()]).toEqual([
      422,
      expect.objectContaining({
        type: 'urn:problem:invalid-parameter',
        errors: [
          {
            parameter: query.split('=')[0] === 'sort' && query.includes('cursor') ? 'cursor' : query.split('=')[0],
            detail: expect.any(String),
          },
        ],
      }),
    ]);
  });
});

describe('while others write', () => {
  beforeEach(() => api.database.sql('TRUNCATE loans'));

  it.each(LOAN_SORTS)('a walk by %s shows every loan that was there once, and none twice', async (sort) => {
    await insert(300, { status: "'pending'" });
    const before = new Set((await walk('limit=100')).map(({ id }) => id));
    const found = await walk(`limit=20&sort=${sort}`, async () => {
      const moved = await api.database.sql<{ id: string }>(
        "SELECT id FROM loans WHERE status = 'pending' ORDER BY random() LIMIT 3",
      );
      const path = (id: string) => `/api/v1/loans/${id}/transitions`;
      const headers = { 'content-type': 'application/json' };
      const body = JSON.stringify({ to: 'approved' });
      const answers = await Promise.all([
        ...moved.map(({ id }) => api.ask('POST', path(id), { headers, body })),
        ...['0.01', '25.50', '49999'].map((amount) => api.post({ ...LOAN, amount })),
        insert(3, { created: "timestamptz '2026-03-03' + random() * interval '1 day'" }),
      ]);
      expect(answers.filter((answer) => 'status' in answer && answer.status >= 300)).toEqual([]);
    });
    const ids = found.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect([...before].filter((id) => !ids.includes(id))).toEqual([]);
  });

  it('a walk through one status shows every loan once that stays in it', async () => {
    await insert(200, { status: "'pending'" });
    const all = (await walk('limit=100')).map(({ id }) => id);
    const moving = all.filter((_id, index) => index % 3 === 0);
    const found = await walk('limit=10&status=pending', async (page) => {
      await api.database.sql("UPDATE loans SET status = 'approved' WHERE id = ANY ($1)", [
        moving.slice(page * 5, page * 5 + 5),
      ]);
    });
    const ids = found.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    expect(all.filter((id) => !moving.includes(id) && !ids.includes(id))).toEqual([]);
  });
});

describe('among many loans', () => {
  const LOANS = 25_000;
  /** On both sides of the places where a page has looked at as many as it may. */
  const FEW = [1, 2_000, 2_001, 10_000, 10_001, 15_000, 15_001, 23_000, 23_001];
  beforeAll(async () => {
    await api.database.sql('TRUNCATE loans');
    await insert(LOANS, {
      borrower: "CASE WHEN n % 2 = 0 THEN 'giant' ELSE 'b' || n END",
      currency: `CASE WHEN n IN (${FEW.join(', ')}) THEN 'KWD' ELSE 'KES' END`,
      amount: 'n',
      status: "CASE WHEN n = 3 THEN 'defaulted' ELSE 'repaid' END",
      created: "timestamptz '2026-01-01' + n * interval '1 minute'",
    });
    await api.database.sql('ANALYZE loans');
  });

  it('finds the few that pass, on pages that are short or empty but never look at too many', async () => {
    for (const sort of LOAN_SORTS) {
      const sizes: number[] = [];
      let path: string | undefined = `/api/v1/loans?currency=KWD&sort=${sort}`;
      const found: string[] = [];
      while (path !== undefined) {
        const answer: Answer = await api.ask('GET', path);
        sizes.push(shown(answer).length);
        found.push(...shown(answer).map(({ amount }) => amount));
        path = link(answer, 'next');
      }
      const expected = FEW.map((n) => `${n}.00`);
      expect(found).toEqual(sort.startsWith('-') ? expected.reverse() : expected);
      expect(sizes).toHaveLength(sort.endsWith('amount') ? 13 : 3);
    }
  });

  it('goes straight to those in a rare status and to those of a borrower', async () => {
    for (const query of [
      'status=defaulted',
      'status=defaulted&sort=created_at',
      'borrower_id=b17',
      'borrower_id=b17&sort=amount',
    ]) {
      const answer = await list(query);
      expect([query, shown(answer).length, answer.headers.link]).toEqual([query, 1, undefined]);
    }
  });

  it('refuses to sort too many loans of one borrower, and says what can be done', async () => {
    for (const sort of ['amount', '-amount']) {
      const answer = await list(`borrower_id=giant&sort=${sort}`);
      expect([answer.status, answer.json().errors]).toEqual([
        422,
        [{ parameter: 'sort', detail: expect.stringMatching(/10000 loans of one borrower; narrow created_from/) }],
      ]);
    }
    const fewer = await list('borrower_id=giant&sort=-amount&created_to=2026-01-10&limit=3');
    expect(shown(fewer).map(({ amount }) => amount)).toEqual(['12958.00', '12956.00', '12954.00']);
    expect((await walk('borrower_id=giant&sort=amount&limit=100&created_to=2026-01-02')).length).toBe(719);
  });

  describe('the plan of', () => {
    const cases: [LoanFilters, string][] = [
      [{}, 'loans_newest_first'],
      [{ currency: 'USD' }, 'loans_newest_first'],
      [{ createdFrom: '2026-01-02T00:00:00.000000Z' }, 'loans_newest_first'],
      [{ createdFrom: '2026-01-02T00:00:00.000000Z', createdTo: '2026-01-03T00:00:00.000000Z' }, 'loans_newest_first'],
      [{ status: 'defaulted' }, 'loans_in_status'],
      [{ status: 'repaid', currency: 'USD' }, 'loans_in_status'],
      [{ borrowerId: 'giant' }, 'loans_of_borrower'],
      [{ borrowerId: 'b17', status: 'repaid' }, 'loans_of_borrower'],
    ];
    const expectedFor = (sort: string, [filters, index]: [LoanFilters, string]) =>
      sort.endsWith('amount') && filters.borrowerId === undefined ? 'loans_by_amount' : index;
    let client: Client;
    beforeAll(async () => {
      const { host, port, name } = api.database.connection;
      client = new Client({ host, port, database: name, user: 'postgres' });
      await client.connect();
      // As large for the planner as it may become: a small table is rather read as a whole.
      await client.query("UPDATE pg_class SET reltuples = 10000000 WHERE relname = 'loans'");
    });
    afterAll(() => client.end());

    const statementOf = async (listing: Listing) => {
      const asked: [Statement<unknown>, readonly Value[]][] = [];
      const record = {
        query<Row>(statement: Statement<Row>, values: readonly Value[] = []): Promise<Row[]> {
          asked.push([statement, values]);
          return Promise.resolve([]);
        },
      };
      const pagesOf = createPages('id, borrower_id, amount, currency, status, created_at');
      await pagesOf(record, { inFlight: 1 })(listing, 50, undefined);
      return asked[0]!;
    };

    it.each(LOAN_SORTS.flatMap((sort) => cases.map((one) => [sort, JSON.stringify(one[0]), one] as const)))(
      'sort=%s with %s goes along one index, and sorts nothing but the loans of a borrower',
      async (sort, _name, one) => {
        const [{ name, text }, values] = await statementOf({ sort, filters: one[0] });
        const literals = values
          .map((value) =>
            value === null ? 'NULL' : Array.isArray(value) ? `'{${value.join()}}'` : `'${String(value)}'`,
          )
          .join(', ');
        for (const mode of ['force_generic_plan', 'force_custom_plan']) {
          await client.query(`DEALLOCATE ALL; SET plan_cache_mode = ${mode}; PREPARE ${name} AS ${text}`);
          const { rows } = await client.query<Record<string, string>>(
            `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE ${name} (${literals})`,
          );
          const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
          const scans = [...plan.matchAll(/(\w[\w ]* Scan)(?: Backward)?(?: using (\w+))? on loans/g)];
          const index = expectedFor(sort, one);
          expect([new Set(scans.map(([, scan, used]) => `${scan} ${used}`)), plan]).toEqual([
            new Set([`Index Scan ${index}`]),
            plan,
          ]);
          const gathers = sort.endsWith('amount') && one[0].borrowerId !== undefined;
          expect([/\bSort\b/.test(plan), plan]).toEqual([gathers, plan]);
          const examined = [...plan.matchAll(/Index Scan.*rows=(\d+)/g)].map(([, rows]) => Number(rows));
          expect(Math.max(...examined)).toBeLessThanOrEqual(10_001);
        }
      },
    );
  });
});
