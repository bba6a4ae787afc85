import { LOAN, startService, type TestService } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());
beforeEach(async () => {
  await api.database.sql('TRUNCATE loans');
});

const UUID = /^[0-9a-f-]{36}$/;

describe('POST /api/loans', () => {
  it('creates a pending loan and says where it is', async () => {
    const created = await api.post(LOAN);
    expect(created.status).toBe(201);
    expect(created.headers['content-type']).toBe('application/json; charset=utf-8');
    const loan = created.json();
    expect(loan).toEqual({
      ...LOAN,
      id: expect.stringMatching(UUID),
      status: 'pending',
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      updated_at: loan.created_at,
    });
    expect(created.headers.location).toBe(`/api/v1/loans/${String(loan.id)}`);
    const found = await api.ask('GET', created.headers.location!);
    expect(found.status).toBe(200);
    expect(found.text).toBe(created.text);
  });

  it('is the same under /api', async () => {
    const created = await api.ask('POST', '/api/loans', {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(LOAN),
    });
    expect(created.status).toBe(201);
    const found = await api.ask('GET', created.headers.location!);
    expect(found.json()).toEqual(created.json());
    expect(created.headers.location).toMatch(/^\/api\/loans\//);
  });

  it('takes a loan without term and rate, and puts the currency in upper case', async () => {
    for (const optional of [{}, { term_months: null, interest_rate_apr: null }]) {
      const created = await api.post({ borrower_id: 'b', amount: 1, currency: 'kEs', ...optional });
      expect(created.json()).toMatchObject({ currency: 'KES', term_months: null, interest_rate_apr: null });
    }
  });

  it.each([
    ['0.01', '0.01'],
    ['0.1', '0.10'],
    ['12500', '12500.00'],
    ['12500.5', '12500.50'],
    ['49999.99', '49999.99'],
    ['50000', '50000.00'],
    ['50000.00', '50000.00'],
    ['1.25e4', '12500.00'],
    ['5E-2', '0.05'],
    ['"0.01"', '0.01'],
    ['"12500.50"', '12500.50'],
    ['"50000"', '50000.00'],
  ])('reads the amount %s exactly', async (source, expected) => {
    const created = await api.post(`{"borrower_id":"b","amount":${source},"currency":"KES"}`);
    expect(created.status).toBe(201);
    expect(created.json().amount).toBe(expected);
    const [row] = await api.database.sql<{ same: boolean }>('SELECT amount = $1 AS same FROM loans', [expected]);
    expect(row?.same).toBe(true);
  });

  it.each(['12', '12.0', '1.2e1', '120E-1'])('reads the term %s as a whole number', async (source) => {
    const created = await api.post(`{"borrower_id":"b","amount":1,"currency":"KES","term_months":${source}}`);
    expect([created.status, created.json().term_months]).toEqual([201, 12]);
  });

  it('stores text byte by byte as it came', async () => {
    for (const borrower_id of [
      'Ünïcode',
      'e\u0301',
      '\u00e9',
      '👩‍👩‍👧‍👦',
      'مرحبا',
      '\u202Eabc',
      "'; DROP TABLE loans; --",
      ' x ',
      '\t',
      '\u200b',
    ].filter((text) => /\S/.test(text))) {
      const created = await api.post({ ...LOAN, borrower_id });
      expect(created.status).toBe(201);
      expect((await api.ask('GET', created.headers.location!)).json().borrower_id).toBe(borrower_id);
    }
  });

  it('counts the length of a text in characters', async () => {
    expect((await api.post({ ...LOAN, borrower_id: '💶'.repeat(255) })).status).toBe(201);
    expect((await api.post({ ...LOAN, borrower_id: 'a'.repeat(256) })).status).toBe(422);
  });

  it('keeps every one of many at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, index) =>
        api.post({ ...LOAN, borrower_id: `b${index}`, amount: `${index + 1}.01` }),
      ),
    );
    expect(answers.filter(({ status }) => status !== 201)).toEqual([]);
    const rows = await api.database.sql<{ id: string; borrower_id: string; amount: string }>(
      'SELECT id, borrower_id, amount FROM loans',
    );
    const stored = new Map(rows.map((row) => [row.id, row]));
    expect(stored.size).toBe(200);
    for (const answer of answers) {
      const { id, borrower_id, amount } = answer.json();
      expect(stored.get(id as string)).toEqual({ id, borrower_id, amount: `${String(amount)}00` });
    }
  });

  it('counts the loan by currency and writes one line, after the commit', async () => {
    const before = await created('KES');
    const answer = await api.post(LOAN, { 'x-request-id': 'loan-line' });
    expect(await created('KES')).toBe(before + 1);
    expect(api.logs().filter((line) => line.request_id === 'loan-line' && line.message === 'loan created')).toEqual([
      expect.objectContaining({ loan_id: answer.json().id, amount: '12500.00', currency: 'KES' }),
    ]);

    async function created(currency: string): Promise<number> {
      const { text } = await api.ask('GET', '/metrics');
      return Number(new RegExp(`^loans_created_total\\{currency="${currency}"\\} (\\d+)$`, 'm').exec(text)?.[1]);
    }
  });
});

describe('GET /api/loans/:id', () => {
  it('finds a loan by its id in either case', async () => {
    const { id } = (await api.post(LOAN)).json();
    expect((await api.ask('GET', `/api/loans/${String(id).toUpperCase()}`)).json().id).toBe(id);
  });

  it('answers 404 for an unknown id', async () => {
    const answer = await api.ask('GET', '/api/loans/00000000-0000-0000-0000-00000000ffff');
    expect(answer.status).toBe(404);
    expect(answer.json()).toMatchObject({
      type: 'urn:problem:not-found',
      status: 404,
      instance: '/api/loans/00000000-0000-0000-0000-00000000ffff',
    });
  });

  it.each([
    'abc',
    '1',
    '%00',
    '%ff',
    '%zz',
    '..%2f',
    '00000000-0000-0000-0000-00000000000',
    '00000000000000000000000000000001',
    '{00000000-0000-0000-0000-000000000001}',
    "1'--",
    ';x=1',
  ])('answers 400 for %s', async (id) => {
    const answer = await api.ask('GET', `/api/loans/${id}`);
    expect(answer.status).toBe(400);
    expect(answer.json().type).toBe('urn:problem:invalid-id');
  });
});

describe('GET /api/loans', () => {
  /** Loans whose times of creation are given, in SQL. */
  const insert = (createdAt: string, count = 1) =>
    api.database.sql(
      `INSERT INTO loans SELECT gen_random_uuid(), 'b', 1, 'KES', NULL, NULL, 'pending', ${createdAt}, now() FROM generate_series(1, ${count}) AS n`,
    );

  it('is an empty list without loans', async () => {
    const answer = await api.ask('GET', '/api/loans');
    expect(answer.status).toBe(200);
    expect(answer.text).toBe('[]');
    expect(answer.headers.link).toBeUndefined();
  });

  it('is newest first, 50 to a page unless asked otherwise', async () => {
    await insert("now() - n * interval '1 minute'", 120);
    const loans = (await api.ask('GET', '/api/loans')).json() as { created_at: string }[];
    expect(loans).toHaveLength(50);
    expect(loans.map((loan) => loan.created_at)).toEqual(
      loans
        .map((loan) => loan.created_at)
        .sort()
        .reverse(),
    );
    expect((await api.ask('GET', '/api/loans?limit=100')).json()).toHaveLength(100);
    expect((await api.ask('GET', '/api/loans?limit=1')).json()).toHaveLength(1);
  });

  it('leads through all loans by its links, also where many were created in one microsecond', async () => {
    await insert("'2026-02-28 23:59:59.123456+00'", 25);
    await insert("'2026-02-28 23:59:59.123457+00'", 25);
    await insert("'2026-03-01 00:00:00+00'", 10);
    const seen: string[] = [];
    let path: string | undefined = '/api/v1/loans?limit=7';
    while (path !== undefined) {
      const page = await api.ask('GET', path);
      expect(page.status).toBe(200);
      seen.push(...(page.json() as { id: string }[]).map(({ id }) => id));
      path = /<([^>]+)>; rel="next"/.exec((page.headers.link as string | undefined) ?? '')?.[1];
    }
    const expected = await api.database.sql<{ id: string }>('SELECT id FROM loans ORDER BY created_at DESC, id DESC');
    expect(seen).toEqual(expected.map(({ id }) => id));
  });

  it('has no link when the last page is full', async () => {
    await insert('now()', 10);
    expect((await api.ask('GET', '/api/loans?limit=10')).headers.link).toBeUndefined();
    expect((await api.ask('GET', '/api/loans?limit=9')).headers.link).toBeDefined();
  });

  it('shows times to the microsecond where they are stored so', async () => {
    await insert("'2026-02-28 23:59:59.120006+00'");
    expect((await api.ask('GET', '/api/loans')).json()[0].created_at).toBe('2026-02-28T23:59:59.120006Z');
  });

  const cursor = (text: string) => Buffer.from(text).toString('base64url');
  const ID = '00000000-0000-0000-0000-000000000001';
  it.each([
    'limit=0',
    'limit=-1',
    'limit=101',
    'limit=1000000000',
    'limit=abc',
    'limit=1.5',
    'limit=+1',
    'limit=%201',
    'limit=',
    'limit=5&limit=5',
    'offset=1',
    'sort=id;DROP TABLE loans',
    'LIMIT=5',
    '__proto__=1',
    'cursor=',
    'cursor=abc',
    'cursor=%00',
    'cursor=%ff%zz',
    `cursor=${cursor('2026-02-30T00:00:00.000Z|' + ID)}`,
    `cursor=${cursor('0000-01-01T00:00:00.000Z|' + ID)}`,
    `cursor=${cursor('0000-12-31T23:59:59.999999Z|' + ID)}`,
    `cursor=${cursor('2026-01-01T24:00:00.000Z|' + ID)}`,
    `cursor=${cursor('2026-12-31T23:59:60.000Z|' + ID)}`,
    `cursor=${cursor('2026-13-01T00:00:00.000Z|' + ID)}`,
    `cursor=${cursor('2026-01-01T00:00:00.000Z|' + 'x'.repeat(36))}`,
    `cursor=${cursor("2026-01-01T00:00:00.000Z'|" + ID)}`,
  ])('refuses the query %s', async (query) => {
    const answer = await api.ask('GET', `/api/loans?${encodeURI(query).replaceAll('%25', '%')}`);
    expect(answer.status).toBe(422);
    expect(answer.json()).toMatchObject({
      type: 'urn:problem:invalid-parameter',
      errors: [{ parameter: expect.any(String), detail: expect.any(String) }],
    });
  });

  it.each(['0001-01-01T00:00:00.000Z', '9999-12-31T23:59:59.999999Z'])('takes a cursor from %s', async (moment) => {
    expect((await api.ask('GET', `/api/loans?cursor=${cursor(`${moment}|${ID}`)}`)).status).toBe(200);
  });

  it('refuses any query where there is none to give', async () => {
    for (const path of ['/api/stats?x=1', '/api/loans/00000000-0000-0000-0000-000000000001?x=1']) {
      expect((await api.ask('GET', path)).status).toBe(422);
    }
  });
});

describe('GET /api/stats', () => {
  it('counts nothing without loans', async () => {
    expect((await api.ask('GET', '/api/stats')).json()).toEqual({
      total_loans: 0,
      by_status: { pending: 0, approved: 0, rejected: 0, withdrawn: 0, disbursed: 0, repaid: 0, defaulted: 0 },
      by_currency: {},
    });
  });

  it('adds amounts up exactly, and only within one currency', async () => {
    for (const [amount, currency] of [
      ['0.10', 'KES'],
      ['0.20', 'KES'],
      ['0.01', 'KES'],
      ['50000.00', 'VND'],
    ] as const) {
      await api.post({ ...LOAN, amount, currency });
    }
    await api.database.unguard();
    await api.database.sql("UPDATE loans SET status = 'repaid' WHERE currency = 'VND'");
    const statistics = (await api.ask('GET', '/api/v1/stats')).json();
    expect(statistics).toMatchObject({
      total_loans: 4,
      by_status: { pending: 3, approved: 0, rejected: 0, disbursed: 0, repaid: 1, defaulted: 0 },
      by_currency: {
        KES: { loans: 3, total_amount: '0.31', avg_amount: '0.10' },
        VND: { loans: 1, total_amount: '50000.00', avg_amount: '50000.00' },
      },
    });
  });

  it('adds up more than a float can hold', async () => {
    await api.database.sql(
      `INSERT INTO loans SELECT gen_random_uuid(), 'b', 999999999999999.99, 'KES', NULL, NULL, 'pending', now(), now() FROM generate_series(1, 3)`,
    );
    expect((await api.ask('GET', '/api/stats')).json().by_currency.KES).toMatchObject({
      loans: 3,
      total_amount: '2999999999999999.97',
      avg_amount: '999999999999999.99',
    });
  });
});

describe('the schema', () => {
  const row = { amount: '1', currency: "'KES'", term: 'NULL', rate: 'NULL', status: "'pending'", borrower: "'b'" };
  it.each([
    { amount: '0' },
    { amount: '-1' },
    { amount: "'NaN'" },
    { currency: "'kes'" },
    { currency: "'KESS'" },
    { term: '0' },
    { rate: '-0.01' },
    { rate: '100.01' },
    { rate: "'NaN'" },
    { status: "'open'" },
    { borrower: "''" },
    { borrower: 'NULL' },
  ])('is the second wall: it refuses %j', async (change) => {
    const { amount, currency, term, rate, status, borrower } = { ...row, ...change };
    const insert = (of: string) =>
      api.database.sql(`INSERT INTO loans VALUES (gen_random_uuid(), ${of}, now(), now())`);
    await insert("'b', 1, 'KES', NULL, NULL, 'pending'");
    await expect(insert(`${borrower}, ${amount}, ${currency}, ${term}, ${rate}, ${status}`)).rejects.toThrow(
      /constraint/,
    );
  });
});
