import fc from 'fast-check';
import { CODES } from '../../app/domain/currency';
import { limitOf, parseLimits } from '../../app/domain/limits';
import { type Amount, formatAmount } from '../../app/domain/money';
import { LOAN, startService, type TestService, until } from './harness';
import { borrower, share } from './ledger';
import { OLD_INSERT } from './migrations';

const MAX_AMOUNT = '50000,KES=9999999999.99,VND=999999999999999,KWD=999999999999999.999,CLF=999999999999999.9999';
const LIMITS = parseLimits(MAX_AMOUNT);

let api: TestService;
beforeAll(async () => {
  api = await startService({ maxAmount: MAX_AMOUNT });
});
afterAll(() => api.stop());

/** A currency, and an amount of it up to its largest one, often at an edge. */
const anyMoney = fc
  .oneof(fc.constantFrom('KES', 'VND', 'KWD', 'CLF'), fc.constantFrom(...[...CODES.values()].flat()))
  .chain((currency) => {
    const [digits] = [...CODES].find(([, codes]) => codes.includes(currency))!;
    const unit = 10n ** BigInt(4 - digits);
    const max = limitOf(LIMITS, currency) / unit;
    const minor = fc.oneof(fc.constantFrom(1n, max - 1n, max), fc.bigInt({ min: 1n, max }));
    return fc.record({ currency: fc.constant(currency), amount: minor.map((value) => (value * unit) as Amount) });
  });

it('any amount of any currency comes back as it was sent, and is stored so, up to the edges of the columns', async () => {
  await fc.assert(
    fc.asyncProperty(anyMoney, fc.boolean(), async ({ currency, amount }, asNumber) => {
      const text = formatAmount(amount);
      const source = asNumber ? text : `"${text}"`;
      const created = await api.post(`{"borrower_id":"b","amount":${source},"currency":"${currency}"}`);
      expect([created.status, created.json().amount]).toEqual([201, text]);
      const found = await api.ask('GET', created.headers.location!);
      expect(found.text).toBe(created.text);
      const [row] = await api.database.sql<{ same: boolean }>(
        'SELECT amount = $2::numeric AS same FROM loans WHERE id = $1',
        [found.json().id, text],
      );
      expect(row!.same).toBe(true);
    }),
    { numRuns: 150 },
  );
});

it.each([
  ['KES', '9999999999.99', '10000000000', 'must be at most 9999999999.99'],
  ['INR', '50000', '50000.01', 'must be at most 50000'],
  ['VND', '999999999999999', '1000000000000000', 'must be at most 999999999999999'],
])('%s is lent up to %s, and not %s', async (currency, most, more, detail) => {
  expect((await api.post({ ...LOAN, currency, amount: most })).status).toBe(201);
  const refused = await api.post({ ...LOAN, currency, amount: more });
  expect(refused.json()).toMatchObject({
    type: 'urn:problem:invalid-amount',
    errors: [{ pointer: '/amount', detail }],
  });
});

it('the OpenAPI document has the limits, and says of every currency what its amounts look like', async () => {
  const { NewLoan } = (await api.ask('GET', '/openapi.json')).json().components.schemas;
  expect(NewLoan.properties.amount.description).toContain('at most 50000, KES=9999999999.99, VND=');
  expect(NewLoan.properties.currency.enum).toContain('KES');
  expect(NewLoan.properties.currency.enum).not.toContain('XAU');
  const rules = NewLoan.allOf as {
    if: { properties: { currency: { enum: string[] } } };
    then: { properties: { amount: { anyOf: { pattern?: string }[] } } };
  }[];
  const { then } = rules.find((rule) => rule.if.properties.currency.enum.includes('VND'))!;
  const [number, text] = then.properties.amount.anyOf;
  expect(number).toEqual({ type: 'number', exclusiveMinimum: 0, maximum: 999999999999999, multipleOf: 1 });
  const pattern = new RegExp(text!.pattern!);
  const texts = ['8400', '8400.00', '8400.000', `8400.${'0'.repeat(30)}`, '8400.5', '8400.0005'];
  expect(texts.map((amount) => pattern.test(amount))).toEqual([true, true, true, true, false, false]);
});

it.each([
  ['KES', '12500.000', '12500.00'],
  ['KES', `12500.1${'0'.repeat(29)}`, '12500.10'],
  ['VND', '8400.000', '8400.00'],
  ['VND', '8400.000e1', '84000.00'],
  ['KWD', '1.2500000', '1.25'],
  ['CLF', '1.00010', '1.0001'],
])('%s %s is exact: zeros at the end say nothing, in a number and in a string', async (currency, written, amount) => {
  for (const source of written.includes('e') ? [written] : [written, `"${written}"`]) {
    const body = `{"borrower_id":"z","amount":${source},"currency":"${currency}","interest_rate_apr":28.50000,"term_months":6.0}`;
    const created = await api.post(body);
    expect([created.status, created.json()]).toMatchObject([201, { amount, interest_rate_apr: '28.50' }]);
    const range = `min_amount=${amount}00000&max_amount=${amount}000`;
    const found = await api.ask('GET', `/api/v1/loans?borrower_id=z&currency=${currency}&${range}`);
    expect(found.json()).toContainEqual(created.json());
  }
  const long = `/api/v1/loans?min_amount=1.${'0'.repeat(31)}`;
  expect((await api.ask('GET', long)).json()).toMatchObject({ status: 422, errors: [{ parameter: 'min_amount' }] });
});

it('loans of earlier releases stay readable whatever they hold', async () => {
  await api.database.unguard();
  for (const [currency, amount] of [
    ['QQQ', '12500.0001'],
    ['VND', '8400.5'],
    ['XAU', '999999999999999.9999'],
  ] as const) {
    const [row] = await api.database.sql<{ id: string }>(
      OLD_INSERT.replace("12500, 'KES', 6", `${amount}, '${currency}', 2147483647`),
    );
    const found = await api.ask('GET', `/api/loans/${row!.id}`);
    expect([found.status, found.json().currency, found.json().term_months]).toEqual([200, currency, 2147483647]);
    expect(Number(found.json().amount)).toBe(Number(amount));
    expect((await api.ask('GET', '/api/loans')).status).toBe(200);
    expect((await api.ask('GET', '/api/stats')).json().by_currency[currency].loans).toBeGreaterThan(0);
  }
});

describe('a loan in a currency that ISO 4217 withdrew', () => {
  /** 100 over 2 months without interest, running, as it was lent while the code was active. */
  async function running(currency: string): Promise<string> {
    const [row] = await api.database.sql<{ id: string }>(
      OLD_INSERT.replace("12500, 'KES', 6, 28", `100, '${currency}', 2, NULL`),
    );
    return `/api/v1/loans/${row!.id}`;
  }

  it.each([
    ['BGN', '40.55', '0.001'],
    ['HRK', '40.55', '0.001'],
    ['SLL', '40.55', '0.001'],
    ['MRO', '40.55', '0.001'],
    ['BYR', '40.00', '0.5'],
  ])('%s: all that can be done with a loan goes on', async (currency, amount, tooFine) => {
    const at = borrower(api);
    const path = await running(currency);
    expect((await at.get(path)).json()).toMatchObject({ currency, status: 'disbursed' });
    expect((await at.get(`${path}/schedule`)).json()).toMatchObject({ total: share('100.00', '0.00', '100.00') });
    const paid = await at.pay(path, amount);
    expect(paid.json().balance).toMatchObject({ paid: { total: amount } });
    expect((await at.pay(path, tooFine)).json().type).toBe('urn:problem:invalid-amount');
    expect((await at.get(`${path}/balance`)).json()).toMatchObject({ status: 'disbursed', paid: { total: amount } });
    expect((await at.reverse(path, paid.json().repayment.id as string)).status).toBe(201);
    expect((await at.move(path, 'defaulted')).status).toBe(200);
    expect((await at.move(path, 'repaid')).status).toBe(200);
    expect((await at.get(`${path}/balance`)).json()).toMatchObject({ settled: { total: '100.00' } });
    expect((await at.get(`${path}/events`)).json()).toHaveLength(5);

    const id = path.split('/').at(-1)!;
    for (const query of [
      `currency=${currency}`,
      `currency=${currency.toLowerCase()}&min_amount=100.000&status=repaid`,
    ]) {
      expect((await at.get(`/api/v1/loans?${query}`)).json()).toEqual([expect.objectContaining({ id, currency })]);
      const exported = await at.get(`/api/v1/loans/export?format=ndjson&${query}`);
      expect(
        exported.text
          .trimEnd()
          .split('\n')
          .map((line) => (JSON.parse(line) as { id: string }).id),
      ).toEqual([id]);
    }
    expect((await at.get('/api/v1/stats')).json().by_currency[currency]).toMatchObject({ total_amount: '100.00' });
    for (const [to, body] of [
      ['/api/v1/loans', { ...LOAN, currency, amount: '1' }],
      ['/api/v1/loans/dry-run', { ...LOAN, currency, amount: '1' }],
      ['/api/v1/loans/bulk', { loans: [{ ...LOAN, currency, amount: '1' }] }],
    ] as const) {
      const refused = await at.post(to, body);
      expect([to, refused.status, refused.json().errors[0].pointer]).toEqual([
        to,
        422,
        expect.stringMatching(/currency$/),
      ]);
    }
  });

  it('is in the metrics of the book under its own name', async () => {
    const other = await startService({}, { readBookEveryMs: 50 });
    await other.database.sql(OLD_INSERT.replace("12500, 'KES'", "100, 'BGN'"));
    try {
      await until(async () =>
        (await other.ask('GET', '/metrics')).text.includes('loans_principal_outstanding{currency="BGN"} 100'),
      );
    } finally {
      await other.stop();
    }
  });

  it('may be in the setting of the largest amounts, which need not change with ISO 4217', () => {
    expect(limitOf(parseLimits('50000,BGN=70000.50'), 'BGN')).toBe(700_005_000n);
  });
});

it('the filter takes any code that a release before may have taken', async () => {
  await api.database.sql(OLD_INSERT.replace("12500, 'KES'", "5, 'QQZ'"));
  expect((await api.ask('GET', '/api/v1/loans?currency=QQZ')).json()).toHaveLength(1);
  expect((await api.ask('GET', '/api/v1/loans?currency=XAG')).json()).toEqual([]);
});
