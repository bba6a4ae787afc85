import type { z } from 'zod';
import { MAX_PAYMENTS } from '../../app/domain/account';
import type { balanceSchema } from '../../app/http/contract/repayments';
import { type Answer, startService, type TestService } from './harness';
import { borrower, NOTHING, share } from './ledger';
import { OLD_INSERT } from './migrations';

const DISBURSED = new Date('2026-01-31T09:00:00.000Z');
let clock = DISBURSED;
let api: TestService;
let at: ReturnType<typeof borrower>;
beforeAll(async () => {
  api = await startService({}, { now: () => clock });
  at = borrower(api);
});
afterAll(() => api.stop());
beforeEach(() => {
  clock = DISBURSED;
});

type Balance = z.output<typeof balanceSchema>;

/** 12500.00 KES over 6 months at 28 %: 2256.74 a month and 2256.76 at last, 13540.46 in all. */
const OWED = share('12500.00', '1040.46', '13540.46');
const on = (day: string) => (clock = new Date(`${day}T12:00:00.000Z`));
const balance = async (path: string) => (await at.get(`${path}/balance`)).json() as Balance;
const status = async (path: string) => ((await at.get(path)).json() as Balance).status;
const events = async (path: string) => (await at.get(`${path}/events`)).json() as Record<string, unknown>[];
const entries = async (path: string) => (await at.get(`${path}/repayments`)).json() as Record<string, unknown>[];
const idOf = (booked: Answer) => booked.json().repayment.id as string;

function expectProblem(answer: Answer, status: number, slug: string, errors?: object[]): void {
  expect([answer.status, answer.json().type, answer.json().detail]).toEqual([
    status,
    `urn:problem:${slug}`,
    expect.any(String),
  ]);
  if (errors !== undefined) expect(answer.json().errors).toEqual(errors);
}

describe('GET /api/loans/:id/balance', () => {
  it('says what is owed, and from which day on it is past due', async () => {
    const path = await at.loan();
    const next_due = { number: 1, due_date: '2026-02-28', outstanding: share('1965.07', '291.67', '2256.74') };
    expect(await balance(path)).toEqual({
      loan_id: path.split('/').at(-1),
      status: 'disbursed',
      currency: 'KES',
      as_of: '2026-01-31',
      paid: NOTHING,
      settled: NOTHING,
      outstanding: OWED,
      next_due,
      days_past_due: 0,
    });
    for (const [day, days] of [
      ['2026-02-28', 0],
      ['2026-03-01', 1],
      ['2026-04-30', 61],
    ] as const) {
      on(day);
      expect(await balance(path)).toMatchObject({ as_of: day, next_due, days_past_due: days });
    }
  });

  it('counts the days of a leap year', async () => {
    on('2028-01-29');
    const path = await at.loan();
    on('2028-03-01');
    expect(await balance(path)).toMatchObject({ next_due: { due_date: '2028-02-29' }, days_past_due: 1 });
  });

  it('is nothing for a loan that is not disbursed', async () => {
    for (const moves of [[], ['approved'], ['rejected']] as const) {
      const shown = await balance(await at.loan({ term_months: null }, moves));
      expect(shown).toMatchObject({ paid: NOTHING, settled: NOTHING, outstanding: NOTHING, next_due: null });
      expect(shown.days_past_due).toBe(0);
    }
  });

  it('takes no query, and needs a loan', async () => {
    expectProblem(await at.get(`${await at.loan()}/balance?as_of=2026-01-31`), 422, 'invalid-parameter');
    expectProblem(await at.get('/api/loans/00000000-0000-0000-0000-00000000ffff/balance'), 404, 'not-found');
    expectProblem(await at.get('/api/loans/x/balance'), 400, 'invalid-id');
  });
});

describe('POST /api/loans/:id/repayments', () => {
  it('records a payment: interest first, oldest instalment first', async () => {
    const path = await at.loan();
    on('2026-03-10');
    const booked = await at.pay(
      path,
      { amount: 300, date: '2026-03-09', reference: 'M-PESA QX12' },
      { 'x-request-id': 'pay-line' },
    );
    expect(booked.status).toBe(201);
    const { repayment, balance: after } = booked.json();
    expect(repayment).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      amount: '300.00',
      currency: 'KES',
      date: '2026-03-09',
      reference: 'M-PESA QX12',
      reverses: null,
      reversed_by: null,
      reason: null,
      actor: 'unauthenticated',
      request_id: 'pay-line',
      created_at: '2026-03-10T12:00:00.000Z',
    });
    expect(after).toMatchObject({
      status: 'disbursed',
      as_of: '2026-03-10',
      paid: share('8.33', '291.67', '300.00'),
      outstanding: share('12491.67', '748.79', '13240.46'),
      next_due: { number: 1, outstanding: share('1956.74', '0.00', '1956.74') },
      days_past_due: 10,
    });
    expect(await balance(path)).toEqual(after);
    expect(await entries(path)).toEqual([repayment]);
    expect((await events(path)).at(-1)).toMatchObject({
      action: 'paid',
      from: 'disbursed',
      to: 'disbursed',
      repayment_id: repayment.id,
      actor: 'unauthenticated',
      request_id: 'pay-line',
      at: repayment.created_at,
    });
    expect(api.logs().filter((line) => line.request_id === 'pay-line' && line.message !== 'request')).toEqual([
      expect.objectContaining({
        message: 'repayment recorded',
        repayment_id: repayment.id,
        loan_id: after.loan_id,
        amount: '300.00',
        currency: 'KES',
      }),
    ]);
  });

  it('is of today unless it says otherwise', async () => {
    const path = await at.loan();
    for (const body of [{ amount: '1' }, { amount: '1', date: null, reference: null }]) {
      expect((await at.pay(path, body)).json().repayment).toMatchObject({ date: '2026-01-31', reference: null });
    }
  });

  it.each(['disbursed', 'defaulted'] as const)(
    'makes a %s loan repaid with the last of it, early or late',
    async (from) => {
      const path = await at.loan({}, from === 'disbursed' ? ['approved', from] : ['approved', 'disbursed', from]);
      await at.pay(path, '2256.74');
      const booked = await at.pay(path, '11283.72', { 'x-request-id': `last-${from}` });
      expect(booked.json().balance).toMatchObject({
        status: 'repaid',
        paid: OWED,
        settled: NOTHING,
        outstanding: NOTHING,
        next_due: null,
        days_past_due: 0,
      });
      const loan = await at.get(path);
      expect([loan.json().status, loan.headers.etag]).toEqual(['repaid', booked.headers.etag]);
      const event = { action: 'repaid', from, to: 'repaid', actor: 'unauthenticated', request_id: `last-${from}` };
      expect((await events(path)).at(-1)).toMatchObject({ ...event, repayment_id: idOf(booked) });
      expect(api.logs().filter((line) => line.request_id === `last-${from}` && line.message === 'loan moved')).toEqual([
        expect.objectContaining({ from, to: 'repaid' }),
      ]);
      expectProblem(await at.pay(path, '0.01'), 409, 'not-payable');
      expect((await at.move(path, 'defaulted')).json().allowed).toEqual([]);
    },
  );

  it('refuses more than is outstanding, and names that', async () => {
    const path = await at.loan();
    await at.pay(path, '13000');
    for (const amount of ['540.47', '999999999999999.99']) {
      const refused = await at.pay(path, amount);
      const detail = 'must be at most 540.46, which is all that is outstanding';
      expectProblem(refused, 422, 'overpayment', [{ pointer: '/amount', detail }]);
      expect(refused.json().outstanding).toBe('540.46');
    }
    expect((await balance(path)).outstanding.total).toBe('540.46');
    expect(await entries(path)).toHaveLength(1);
    expect((await at.pay(path, '540.46')).json().balance.status).toBe('repaid');
  });

  it.each([
    [[], 'pending'],
    [['approved'], 'approved'],
    [['rejected'], 'rejected'],
    [['approved', 'disbursed', 'repaid'], 'repaid'],
  ] as const)('is for no loan after %j', async (moves, name) => {
    const path = await at.loan({}, moves);
    const refused = await at.pay(path, '1');
    expectProblem(refused, 409, 'not-payable');
    expect(refused.json().detail).toContain(`The loan is ${name}`);
    expect((await entries(path)).filter(({ settlement }) => settlement !== true)).toEqual([]);
  });

  it('is for no loan without a term', async () => {
    expectProblem(await at.pay(await at.loan({ term_months: null }), '1'), 409, 'no-schedule');
  });

  it.each([
    ['KES', '0', 'must be greater than 0'],
    ['KES', '-1', 'must be greater than 0'],
    ['KES', '0.001', 'must have at most 2 digits after the point in KES'],
    ['KES', '1.0010', 'must have at most 2 digits after the point in KES'],
    ['VND', '0.5', 'must have at most 0 digits after the point in VND'],
    ['KWD', '0.0001', 'must have at most 3 digits after the point in KWD'],
    ['KES', '1e400', 'must be a decimal number such as 12500.00'],
    ['KES', 'NaN', 'must be a decimal number such as 12500.00'],
    ['KES', '1000000000000000', 'must be at most 999999999999999.9999'],
  ])('refuses an amount in %s of %s', async (currency, amount, detail) => {
    const path = await at.loan({ currency });
    expectProblem(await at.pay(path, amount), 422, 'invalid-amount', [{ pointer: '/amount', detail }]);
    expect(await entries(path)).toEqual([]);
  });

  it.each([
    [{}, '/amount'],
    [{ amount: true }, '/amount'],
    [{ amount: null }, '/amount'],
    [{ amount: [1] }, '/amount'],
    [{ amount: 1, date: '2026-02-29' }, '/date'],
    [{ amount: 1, date: '' }, '/date'],
    [{ amount: 1, date: 20260131 }, '/date'],
    [{ amount: 1, date: '2026-01-30' }, '/date'],
    [{ amount: 1, date: '2026-02-01' }, '/date'],
    [{ amount: 1, date: '0000-01-01' }, '/date'],
    [{ amount: 1, date: '9999-12-31' }, '/date'],
    [{ amount: 1, reference: '' }, '/reference'],
    [{ amount: 1, reference: 'a\0b' }, '/reference'],
    [{ amount: 1, reference: '\ud800' }, '/reference'],
    [{ amount: 1, reference: 'x'.repeat(256) }, '/reference'],
    [{ amount: 1, currency: 'KES' }, '/currency'],
    [{ amount: 1, reason: 'x' }, '/reason'],
    [[], ''],
  ])('refuses the body %j', async (body, pointer) => {
    const path = await at.loan();
    const answer = await at.pay(path, body);
    expect(answer.status).toBe(422);
    expect(answer.json().errors).toEqual([{ pointer, detail: expect.any(String) }]);
    expect(await entries(path)).toEqual([]);
  });

  it('reads a number exactly, as a loan does', async () => {
    const path = await at.loan({ currency: 'KWD', amount: '10.001' });
    const options = { headers: { 'content-type': 'application/json' }, body: '{"amount":1.001e0}' };
    expect((await api.ask('POST', `${path}/repayments`, options)).json().repayment.amount).toBe('1.001');
  });

  it('knows a payment by its reference: the same one twice is refused, and the problem names the payment', async () => {
    const path = await at.loan();
    const paid = await at.pay(path, { amount: '10', reference: 'TX 1' });
    const again = await at.pay(path, { amount: '20', reference: 'TX 1' });
    expectProblem(again, 409, 'duplicate-reference');
    expect(again.json().repayment_id).toBe(idOf(paid));
    expect(again.json().detail).toContain(idOf(paid));
    expect((await at.pay(path, { amount: '10', reference: 'tx 1' })).status).toBe(201);
    for (const body of [{ amount: '10' }, { amount: '10', reference: null }]) {
      expect((await at.pay(path, body)).status).toBe(201);
    }
    expect((await at.pay(await at.loan(), { amount: '10', reference: 'TX 1' })).status).toBe(201);
    expect((await balance(path)).paid.total).toBe('40.00');
    // Also when the loan takes no payments any more: it is this one that did it.
    await at.pay(path, { amount: '13500.46', reference: 'TX 2' });
    expectProblem(await at.pay(path, { amount: '13500.46', reference: 'TX 2' }), 409, 'duplicate-reference');
  });

  it('takes the reference of a payment that was taken back again, as often as that', async () => {
    const path = await at.loan();
    for (let round = 0; round < 2; round++) {
      const paid = await at.pay(path, { amount: '10', reference: 'TX 1' });
      expect(paid.status).toBe(201);
      expectProblem(await at.pay(path, { amount: '10', reference: 'TX 1' }), 409, 'duplicate-reference');
      expect((await at.reverse(path, idOf(paid))).status).toBe(201);
    }
    expect((await at.pay(path, { amount: '11', reference: 'TX 1' })).status).toBe(201);
    expect((await balance(path)).paid.total).toBe('11.00');
  });

  it('goes on with a ledger in which an older release recorded a reference twice', async () => {
    const path = await at.loan();
    await api.database.sql(
      `INSERT INTO repayments (id, loan_id, version, amount, currency, date, reference, actor, created_at)
       SELECT gen_random_uuid(), $1, 1000 + n, 1, 'KES', '2026-01-31', 'TX 1', 'test', now() FROM generate_series(1, 2) AS n`,
      [path.split('/').at(-1)!],
    );
    expect((await balance(path)).paid.total).toBe('2.00');
    expectProblem(await at.pay(path, { amount: '1', reference: 'TX 1' }), 409, 'duplicate-reference');
    expect((await at.pay(path, { amount: '1', reference: 'TX 2' })).status).toBe(201);
  });

  it('takes an amount with zeros at the end, as a number and as a string', async () => {
    const path = await at.loan();
    for (const amount of ['10.000', '"10.0000000"', `10.${'0'.repeat(30)}`, '1000.000e-2']) {
      const options = { headers: { 'content-type': 'application/json' }, body: `{"amount":${amount}}` };
      expect((await api.ask('POST', `${path}/repayments`, options)).json().repayment.amount).toBe('10.00');
    }
    expect((await balance(path)).paid.total).toBe('40.00');
  });

  it('answers 404 for an unknown loan and 400 for what is no id', async () => {
    expectProblem(await at.pay('/api/loans/00000000-0000-0000-0000-00000000ffff', '1'), 404, 'not-found');
    expectProblem(await at.pay('/api/loans/x', '1'), 400, 'invalid-id');
    expectProblem(await at.get('/api/loans/00000000-0000-0000-0000-00000000ffff/repayments'), 404, 'not-found');
  });

  it('takes only so many for one loan', async () => {
    const path = await at.loan();
    const id = path.split('/').at(-1)!;
    await api.database.sql(
      `INSERT INTO repayments (id, loan_id, version, amount, currency, date, actor, created_at)
       SELECT gen_random_uuid(), $1, 1000 + n, 0.01, 'KES', '2026-01-31', 'test', now() FROM generate_series(1, $2::int) AS n`,
      [id, MAX_PAYMENTS - 1],
    );
    const startedAt = performance.now();
    const last = await at.pay(path, '0.01');
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    expect(last.json().balance.paid.total).toBe('50.00');
    expectProblem(await at.pay(path, '0.01'), 409, 'ledger-full');
    expect((await at.reverse(path, idOf(last))).status).toBe(201);
    expect((await entries(path)).length).toBe(MAX_PAYMENTS + 1);
  });
});

describe('POST /api/loans/:id/repayments/:repaymentId/reversal', () => {
  it('takes a repayment back, all of it, by another entry', async () => {
    const path = await at.loan();
    const paid = await at.pay(path, { amount: '500.50', reference: 'r' });
    await at.pay(path, '10');
    on('2026-02-03');
    const booked = await at.reverse(path, idOf(paid).toUpperCase(), { 'x-request-id': 'reverse-line' });
    expect(booked.status).toBe(201);
    const { repayment, balance: after } = booked.json();
    expect(repayment).toMatchObject({
      amount: '500.50',
      date: '2026-02-03',
      reference: null,
      reverses: idOf(paid),
      reversed_by: null,
      reason: 'bounced',
      request_id: 'reverse-line',
    });
    expect(after).toMatchObject({ status: 'disbursed', paid: share('0.00', '10.00', '10.00') });
    expect(await balance(path)).toEqual(after);
    expect((await entries(path)).map(({ amount, reversed_by }) => [amount, reversed_by])).toEqual([
      ['500.50', repayment.id],
      ['10.00', null],
      ['500.50', null],
    ]);
    expect((await events(path)).at(-1)).toMatchObject({
      action: 'payment_reversed',
      from: 'disbursed',
      to: 'disbursed',
      reason: 'bounced',
      repayment_id: repayment.id,
    });
    expect(api.logs().filter((line) => line.request_id === 'reverse-line' && line.message !== 'request')).toEqual([
      expect.objectContaining({ message: 'repayment reversed', repayment_id: idOf(paid), amount: '500.50' }),
    ]);
  });

  it.each(['disbursed', 'defaulted'] as const)('brings a loan that was repaid back to %s', async (from) => {
    const path = await at.loan({}, from === 'disbursed' ? ['approved', from] : ['approved', 'disbursed', from]);
    const first = await at.pay(path, '540.46');
    const last = await at.pay(path, '13000');
    expect(await status(path)).toBe('repaid');
    on('2026-03-01');
    // Not the last one only: without any of them something is outstanding.
    const booked = await at.reverse(path, idOf(first));
    expect(booked.json().balance).toMatchObject({
      status: from,
      outstanding: { total: '540.46' },
      next_due: { number: 6 },
      days_past_due: 0,
    });
    expect((await events(path)).at(-1)).toMatchObject({ action: 'payment_reversed', from: 'repaid', to: from });
    expect((await at.reverse(path, idOf(last))).json().balance).toMatchObject({ status: from, days_past_due: 1 });
    expect((await at.pay(path, '13540.46')).json().balance.status).toBe('repaid');
    expect(await status(path)).toBe('repaid');
  });

  it('happens once, to repayments only, of this loan', async () => {
    const path = await at.loan();
    const paid = await at.pay(path, '5');
    const reversal = await at.reverse(path, idOf(paid));
    expectProblem(await at.reverse(path, idOf(paid)), 409, 'not-reversible');
    expectProblem(await at.reverse(path, idOf(reversal)), 409, 'not-reversible');
    const other = await at.pay(await at.loan(), '5');
    expectProblem(await at.reverse(path, idOf(other)), 404, 'not-found');
    expectProblem(await at.reverse(await at.loan({}, []), idOf(other)), 404, 'not-found');
    expectProblem(await at.reverse(path, 'x'), 400, 'invalid-id');
    expectProblem(await at.reverse('/api/loans/00000000-0000-0000-0000-00000000ffff', idOf(other)), 404, 'not-found');
    expect(await entries(path)).toHaveLength(2);
  });

  it.each([
    [{}],
    [{ reason: null }],
    [{ reason: ' ' }],
    [{ reason: 'x'.repeat(1_001) }],
    [{ reason: 'x', amount: 1 }],
    [[]],
  ])('refuses the body %j', async (body) => {
    const path = await at.loan();
    const paid = await at.pay(path, '5');
    expect((await at.reverse(path, idOf(paid), {}, body)).status).toBe(422);
    expect(await entries(path)).toHaveLength(1);
  });
});

describe('a loan that is moved to repaid by hand', () => {
  it('was settled outside of the ledger, and says how much of it', async () => {
    const path = await at.loan();
    await at.pay(path, '540.46');
    on('2027-01-01');
    expect((await at.move(path, 'repaid')).status).toBe(200);
    expect(await balance(path)).toMatchObject({
      status: 'repaid',
      paid: { total: '540.46' },
      settled: { total: '13000.00' },
      outstanding: NOTHING,
      next_due: null,
      days_past_due: 0,
    });
  });

  it('has an entry of its own for that, which its event names', async () => {
    const path = await at.loan();
    await at.pay(path, '540.46');
    on('2026-02-03');
    const headers = { 'x-request-id': 'settle-line', 'idempotency-key': 'settle-once' };
    const moved = await at.move(path, 'repaid', headers);
    expect((await at.move(path, 'repaid', headers)).text).toBe(moved.text);
    const all = await entries(path);
    expect(all).toHaveLength(2);
    expect(all[1]).toEqual({
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      amount: '13000.00',
      currency: 'KES',
      date: '2026-02-03',
      settlement: true,
      reference: null,
      reverses: null,
      reversed_by: null,
      reason: null,
      actor: 'unauthenticated',
      request_id: 'settle-line',
      created_at: '2026-02-03T12:00:00.000Z',
    });
    expect((await events(path)).at(-1)).toMatchObject({
      action: 'transitioned',
      from: 'disbursed',
      to: 'repaid',
      reason: 'for the test',
      repayment_id: all[1]!.id,
    });
    expectProblem(await at.pay(path, '1'), 409, 'not-payable');
  });

  it('stays settled when one of its repayments is taken back: only that is outstanding again', async () => {
    const path = await at.loan({ amount: '1000.00', currency: 'USD', term_months: 2, interest_rate_apr: '12' });
    const paid = await at.pay(path, '10.00');
    await at.move(path, 'repaid');
    expect(await balance(path)).toMatchObject({ paid: { total: '10.00' }, settled: { total: '1005.02' } });
    const { balance: after } = (await at.reverse(path, idOf(paid))).json();
    expect(after).toMatchObject({
      status: 'disbursed',
      paid: NOTHING,
      settled: { total: '1005.02' },
      outstanding: share('10.00', '0.00', '10.00'),
      next_due: { number: 2, outstanding: { total: '10.00' } },
    });
    expect(await balance(path)).toEqual(after);
    await at.move(path, 'defaulted');
    expect(await balance(path)).toMatchObject({ settled: { total: '1005.02' }, outstanding: { total: '10.00' } });
    expectProblem(await at.pay(path, '10.01'), 422, 'overpayment');
    expect((await at.pay(path, '10.00')).json().balance).toMatchObject({
      status: 'repaid',
      paid: { total: '10.00' },
      settled: { total: '1005.02' },
      outstanding: NOTHING,
    });
  });

  it('is what it was before, if the settlement is taken back, and can be settled again', async () => {
    const path = await at.loan();
    await at.pay(path, '540.46');
    await at.move(path, 'defaulted');
    for (let round = 0; round < 2; round++) {
      await at.move(path, 'repaid');
      const settlement = (await entries(path)).at(-1)!;
      expect(settlement).toMatchObject({ amount: '13000.00', settlement: true });
      const reversed = await at.reverse(path, settlement.id as string, { 'x-request-id': `unsettle-${round}` });
      expect(reversed.json().balance).toMatchObject({
        status: 'defaulted',
        paid: { total: '540.46' },
        settled: NOTHING,
        outstanding: { total: '13000.00' },
      });
      expectProblem(await at.reverse(path, settlement.id as string), 409, 'not-reversible');
    }
    expect((await events(path)).slice(-2).map(({ action, from, to }) => [action, from, to])).toEqual([
      ['transitioned', 'defaulted', 'repaid'],
      ['payment_reversed', 'repaid', 'defaulted'],
    ]);
  });

  it('has no entry where the amount is unknown', async () => {
    const path = await at.loan({ term_months: null });
    expect((await at.move(path, 'repaid')).json().status).toBe('repaid');
    expect(await entries(path)).toEqual([]);
    expectProblem(await at.get(`${path}/balance`), 409, 'no-schedule');
  });

  it('counts what is settled as principal that is no longer outstanding', async () => {
    const path = await at.loan({ amount: '1000.00', currency: 'EUR', term_months: 2, interest_rate_apr: '12' });
    const paid = await at.pay(path, '10.00');
    await at.move(path, 'repaid');
    await at.reverse(path, idOf(paid));
    const [row] = await api.database.sql(
      'SELECT status, (amount - principal_paid)::numeric(19, 2) AS outstanding FROM loans WHERE id = $1',
      [path.split('/').at(-1)!],
    );
    expect(row).toEqual({ status: 'disbursed', outstanding: '10.00' });
  });
});

describe('a loan that an older release moved to repaid by hand', () => {
  /** What the release before migration 0013 writes. */
  const OLD_MOVE = `WITH changed AS (
      UPDATE loans SET status = 'repaid', updated_at = $2, version = version + 1 WHERE id = $1 RETURNING *),
    event AS (
      INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, reason, request_id, amount, currency)
      SELECT id, version, updated_at, 'clerk', 'transitioned', 'disbursed', status, NULL, 'old', amount, currency FROM changed)
    SELECT id FROM changed`;
  async function settledBefore() {
    const path = await at.loan();
    const paid = await at.pay(path, '540.46');
    await api.database.sql(OLD_MOVE, [path.split('/').at(-1)!, '2026-02-03T12:00:00Z']);
    return { path, paid: idOf(paid) };
  }
  const written = async (path: string) =>
    Number(
      (
        await api.database.sql<{ n: string }>(
          'SELECT count(*) AS n FROM repayments WHERE loan_id = $1 AND settlement',
          [path.split('/').at(-1)!],
        )
      )[0]!.n,
    );

  it('has the same figures, and shows the entry before it is written', async () => {
    const { path } = await settledBefore();
    const { etag } = (await at.get(path)).headers;
    expect(await balance(path)).toMatchObject({
      status: 'repaid',
      paid: { total: '540.46' },
      settled: { total: '13000.00' },
      outstanding: NOTHING,
      next_due: null,
    });
    const shown = (await entries(path)).at(-1)!;
    expect(shown).toMatchObject({
      amount: '13000.00',
      date: '2026-02-03',
      settlement: true,
      actor: 'clerk',
      request_id: 'old',
      created_at: '2026-02-03T12:00:00.000Z',
    });
    expect(await written(path)).toBe(0);
    expect((await at.get(path)).headers.etag).toBe(etag);
  });

  it('keeps the settlement when a payment is taken back, as an entry', async () => {
    const { path, paid } = await settledBefore();
    const before = await entries(path);
    const { etag } = (await at.get(path)).headers;
    expectProblem(await at.reverse(path, '00000000-0000-4000-8000-000000000000'), 404, 'not-found');
    expect(await written(path)).toBe(0);
    expect((await at.reverse(path, paid, { 'if-match': etag! })).json().balance).toMatchObject({
      status: 'disbursed',
      settled: { total: '13000.00' },
      outstanding: { total: '540.46' },
    });
    expect(await written(path)).toBe(1);
    expect((await entries(path))[1]).toEqual(before[1]);
    expect(await balance(path)).toMatchObject({ settled: { total: '13000.00' }, outstanding: { total: '540.46' } });
    expect((await events(path)).find(({ to }) => to === 'repaid')).toMatchObject({ repayment_id: before[1]!.id });
  });

  it('can be unsettled, by rivals once', async () => {
    const { path } = await settledBefore();
    const id = (await entries(path)).at(-1)!.id as string;
    const answers = await Promise.all(Array.from({ length: 10 }, () => at.reverse(path, id)));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array<number>(9).fill(409)]);
    expect(await balance(path)).toMatchObject({
      status: 'disbursed',
      settled: NOTHING,
      outstanding: { total: '13000.00' },
    });
    expect(await written(path)).toBe(1);
  });

  it('was disbursed before, also if its first event says repaid', async () => {
    const [row] = await api.database.sql<{ id: string }>(
      OLD_INSERT.replace("'disbursed'", "'repaid'").replace('now()', "'2026-01-31T00:00:00Z'"),
    );
    const path = `/api/v1/loans/${row!.id}`;
    expect(await balance(path)).toMatchObject({
      status: 'repaid',
      settled: { total: '13540.46' },
      outstanding: NOTHING,
    });
    const [settlement] = await entries(path);
    expect((await at.reverse(path, settlement!.id as string)).json().balance).toMatchObject({
      status: 'disbursed',
      settled: NOTHING,
      outstanding: OWED,
    });
  });
});

describe('Idempotency-Key and If-Match', () => {
  it('a repayment and a reversal are done once for each key, and answered the same again', async () => {
    const path = await at.loan();
    const first = await at.pay(path, '100', { 'idempotency-key': 'pay-once' });
    on('2026-02-14');
    const again = await at.pay(path, '100', { 'idempotency-key': '"pay-once"' });
    expect([again.status, again.text, again.headers['idempotent-replayed']]).toEqual([201, first.text, 'true']);
    expect(again.headers.etag).toBe(first.headers.etag);
    expectProblem(await at.pay(path, '101', { 'idempotency-key': 'pay-once' }), 422, 'idempotency-key-reused');
    const reversed = await at.reverse(path, idOf(first), { 'idempotency-key': 'reverse-once' });
    const reversedAgain = await at.reverse(path, idOf(first), { 'idempotency-key': 'reverse-once' });
    expect([reversedAgain.status, reversedAgain.text]).toEqual([201, reversed.text]);
    expect(await entries(path)).toHaveLength(2);
  });

  it('a refusal is kept as well', async () => {
    const path = await at.loan();
    const refused = await at.pay(path, '13540.47', { 'idempotency-key': 'too-much' });
    const again = await at.pay(path, '13540.47', { 'idempotency-key': 'too-much' });
    expect([again.status, again.text, again.headers['idempotent-replayed']]).toEqual([422, refused.text, 'true']);
  });

  it('40 twins of one repayment are one', async () => {
    const path = await at.loan();
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => at.pay(path, '100', { 'idempotency-key': 'twins' })),
    );
    const done = answers.filter(({ status }) => status === 201);
    expect(done.length).toBeGreaterThan(0);
    expect(new Set(done.map(({ text }) => text)).size).toBe(1);
    for (const { status } of answers) expect([201, 409]).toContain(status);
    expect((await balance(path)).paid.total).toBe('100.00');
  });

  it('changes the entity tag of the loan, and only the current one lets a repayment through', async () => {
    const path = await at.loan();
    const { etag } = (await at.get(path)).headers;
    const paid = await at.pay(path, '1', { 'if-match': etag! });
    expect(paid.headers.etag).not.toBe(etag);
    expect((await at.get(path)).headers.etag).toBe(paid.headers.etag);
    expectProblem(await at.pay(path, '1', { 'if-match': etag! }), 412, 'version-mismatch');
    expectProblem(await at.reverse(path, idOf(paid), { 'if-match': etag! }), 412, 'version-mismatch');
    expectProblem(await at.pay(path, '1', { 'if-match': 'x' }), 400, 'malformed-request');
    const reversed = await at.reverse(path, idOf(paid), { 'if-match': paid.headers.etag! });
    expect([reversed.status, reversed.headers.etag === paid.headers.etag]).toEqual([201, false]);
    expect(await entries(path)).toHaveLength(2);
  });
});

describe('rivals', () => {
  it('of 50 payments at once only those that fit are taken, whatever their order', async () => {
    for (const [amount, fit] of [
      ['1000.00', 13],
      ['13540.46', 1],
      ['6770.23', 2],
    ] as const) {
      const path = await at.loan();
      const pay = async (): Promise<Answer> => {
        const answer = await at.pay(path, amount);
        // As a busy machine says. It is safe to ask again.
        return answer.status === 503 ? pay() : answer;
      };
      const answers = await Promise.all(Array.from({ length: 50 }, pay));
      const taken = answers.filter(({ status }) => status === 201);
      expect([amount, taken.length]).toEqual([amount, fit]);
      for (const { status, text } of answers) expect([201, 409, 422, text]).toContain(status);
      const { paid, outstanding, status: reached } = await balance(path);
      const cents = (text: string) => BigInt(text.replace('.', ''));
      expect(cents(paid.total)).toBe(BigInt(fit) * cents(amount));
      expect(cents(paid.total) + cents(outstanding.total)).toBe(1_354_046n);
      expect(reached).toBe(outstanding.total === '0.00' ? 'repaid' : 'disbursed');
      const [last] = (await events(path)).slice(-1);
      expect(last!.to).toBe(reached);
      expect(await entries(path)).toHaveLength(fit);
    }
  });

  it('of 20 payments with one reference at once one is taken', async () => {
    const path = await at.loan();
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => at.pay(path, { amount: '10', reference: 'TX 1' })),
    );
    const taken = answers.filter(({ status }) => status === 201);
    expect(taken).toHaveLength(1);
    for (const answer of answers) if (answer.status === 409) expectProblem(answer, 409, 'duplicate-reference');
    expect((await balance(path)).paid.total).toBe('10.00');
  });

  it('of a payment and a settlement in one moment both count, or the payment comes too late', async () => {
    for (let round = 0; round < 10; round++) {
      const path = await at.loan();
      const [paid, moved] = await Promise.all([at.pay(path, '540.46'), at.move(path, 'repaid')]);
      expect(moved.status).toBe(200);
      expect([201, 409]).toContain(paid.status);
      const settled = paid.status === 201 ? '13000.00' : '13540.46';
      expect(await balance(path)).toMatchObject({
        status: 'repaid',
        settled: { total: settled },
        outstanding: NOTHING,
      });
    }
  });

  it('of 20 reversals at once one is done', async () => {
    const path = await at.loan();
    const paid = await at.pay(path, '13540.46');
    const answers = await Promise.all(Array.from({ length: 20 }, () => at.reverse(path, idOf(paid))));
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array<number>(19).fill(409)]);
    expect((await balance(path)).paid).toEqual(NOTHING);
  });

  it('a last payment and a default in one moment leave a loan that is repaid', async () => {
    for (let round = 0; round < 10; round++) {
      const path = await at.loan();
      const [paid, moved] = await Promise.all([at.pay(path, '13540.46'), at.move(path, 'defaulted')]);
      expect(paid.status).toBe(201);
      expect([200, 409]).toContain(moved.status);
      expect(await balance(path)).toMatchObject({ status: 'repaid', outstanding: NOTHING, settled: NOTHING });
    }
  });
});

it('counts repayments and reversals by currency, from 0', async () => {
  const counts = async () => {
    const { text } = await at.get('/metrics');
    const lines = text.matchAll(/^loan_(repayments|repayment_reversals)_total\{currency="(\w+)"\} (\d+)$/gm);
    return Object.fromEntries([...lines].map(([, what, currency, n]) => [`${what!} ${currency!}`, Number(n)]));
  };
  const before = await counts();
  expect(before).toMatchObject({ 'repayments VND': 0, 'repayment_reversals VND': 0 });
  const path = await at.loan({ currency: 'VND', amount: '8400' });
  const paid = await at.pay(path, '100');
  await at.pay(path, '50');
  await at.pay(path, '999999');
  await at.reverse(path, idOf(paid));
  expect(await counts()).toEqual({ ...before, 'repayments VND': 2, 'repayment_reversals VND': 1 });
});

describe('the table', () => {
  it.each([
    'UPDATE repayments SET amount = 1',
    'UPDATE repayments SET amount = 1 WHERE false',
    'DELETE FROM repayments',
    'TRUNCATE repayments',
    'SET session_replication_role = replica; DELETE FROM repayments',
  ])('cannot be changed, by a superuser and owner either: %s', async (statement) => {
    await at.pay(await at.loan(), '1');
    await expect(api.database.sql(statement)).rejects.toThrow('repayments is append-only');
  });

  it.each([
    ['nothing', { amount: '0' }],
    ['a settlement with a reference', { settlement: 'true', reference: "'r'" }],
    ['a reversal that is a settlement', { settlement: 'true', reverses: 'paid', reason: "'r'" }],
    ['NaN', { amount: "'NaN'" }],
    ['another version twice', { version: '4' }],
    ['a reversal without a reason', { reverses: 'paid', amount: '7' }],
    ['a reversal of another amount', { reverses: 'paid', reason: "'r'", amount: '6' }],
    ['a reversal in another currency', { reverses: 'paid', reason: "'r'", amount: '7', currency: "'VND'" }],
    ['a reversal for another loan', { reverses: 'paid', reason: "'r'", amount: '7', loan: 'gen_random_uuid()' }],
    ['a second reversal', { reverses: 'reversed', reason: "'r'", amount: '8' }],
  ])('is the second wall: it refuses %s', async (_name, change: Record<string, string>) => {
    const path = await at.loan();
    const reversed = await at.pay(path, '8');
    const paid = await at.pay(path, '7');
    await at.reverse(path, idOf(reversed));
    const ids: Record<string, string> = { paid: `'${idOf(paid)}'`, reversed: `'${idOf(reversed)}'` };
    const row = { loan: `'${path.split('/').at(-1)!}'`, version: '99', amount: '7', currency: "'KES'", reverses: 'NULL', reason: 'NULL', reference: 'NULL', settlement: 'false', ...change }; // prettier-ignore
    const insert = `INSERT INTO repayments (id, loan_id, version, amount, currency, date, reverses, reason, reference, settlement, actor, created_at)
      VALUES (gen_random_uuid(), ${row.loan}, ${row.version}, ${row.amount}, ${row.currency}, now(), ${ids[row.reverses] ?? 'NULL'}, ${row.reason}, ${row.reference}, ${row.settlement}, 'a', now())`;
    await expect(api.database.sql(insert)).rejects.toThrow(/constraint/);
  });

  it('and the loan, its event and the answer are written together or not at all', async () => {
    const path = await at.loan();
    await api.database.sql(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$`);
    await api.database.sql('CREATE TRIGGER full_disk BEFORE INSERT ON repayments EXECUTE FUNCTION full_disk()');
    const before = [await at.get(path), await events(path)];
    try {
      expect((await at.pay(path, '1', { 'idempotency-key': 'full' })).status).toBe(503);
    } finally {
      await api.database.sql('DROP TRIGGER full_disk ON repayments');
    }
    expect([(await at.get(path)).text, await events(path)]).toEqual([(before[0] as Answer).text, before[1]]);
    expect((await at.pay(path, '1', { 'idempotency-key': 'full' })).status).toBe(201);
  });
});
