import { monitorEventLoopDelay } from 'node:perf_hooks';
import { BODY_LIMIT_BYTES, BULK_BODY_LIMIT_BYTES, BULK_LOANS } from '../../app/config';
import { MAX_TERM_MONTHS } from '../../app/domain/amortization';
import { ask, LOAN, startService, type TestService } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

const PATH = '/api/v1/loans/bulk';
const send = (body: unknown, headers: Record<string, string> = {}, path = PATH) =>
  api.ask('POST', path, {
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
const many = (count: number, change: object = {}) =>
  Array.from({ length: count }, (_, index) => ({ ...LOAN, borrower_id: `b${index}`, ...change }));
const counts = async () => {
  const [row] = await api.database.sql<{ loans: string; events: string; keys: string }>(
    'SELECT (SELECT count(*) FROM loans) AS loans, (SELECT count(*) FROM loan_events) AS events, (SELECT count(*) FROM idempotency_keys) AS keys',
  );
  return { loans: Number(row?.loans), events: Number(row?.events), keys: Number(row?.keys) };
};
/** Runs the work, and says what it added to the tables. */
async function adding(work: () => Promise<unknown>) {
  const before = await counts();
  await work();
  const after = await counts();
  return { loans: after.loans - before.loans, events: after.events - before.events, keys: after.keys - before.keys };
}

it.each(['/api/loans/bulk', PATH])(
  '%s creates all loans, each with its event, and answers with them in order',
  async (path) => {
    const loans = many(3).map((loan, index) => ({ ...loan, amount: `${index + 1}.50`, term_months: index || null }));
    const before = await counts();
    const created = await send({ loans }, { 'x-request-id': 'many' }, path);
    const { loans: stored, events, keys } = await counts();
    expect([stored - before.loans, events - before.events, keys - before.keys]).toEqual([3, 3, 0]);
    expect(created.status).toBe(201);
    const answered = created.json() as { id: string; created_at: string }[];
    expect(answered).toMatchObject(loans.map((loan) => ({ ...loan, status: 'pending' })));
    for (const { id, ...loan } of answered) {
      expect((await api.ask('GET', `/api/v1/loans/${id}`)).json()).toEqual({ id, ...loan });
      const events = (await api.ask('GET', `/api/v1/loans/${id}/events`)).json();
      expect(events).toEqual([expect.objectContaining({ action: 'created', request_id: 'many', at: loan.created_at })]);
    }
    expect(api.logs().filter((line) => line.request_id === 'many' && line.message === 'loans created')).toEqual([
      expect.objectContaining({ loans: 3 }),
      ...(path === PATH ? [expect.objectContaining({ loans: 3 })] : []),
    ]);
  },
);

it('counts each loan by its currency', async () => {
  const counted = async () =>
    Number(/^loans_created_total\{currency="VND"\} (\d+)$/m.exec((await api.ask('GET', '/metrics')).text)?.[1] ?? 0);
  const before = await counted();
  await send({ loans: [...many(4, { currency: 'VND' }), LOAN] });
  expect((await counted()) - before).toBe(4);
});

it(`takes ${BULK_LOANS} of the largest loans there can be, and no body of more bytes`, async () => {
  const largest = {
    ...LOAN,
    borrower_id: '\u{1F4B6}'.repeat(255),
    term_months: MAX_TERM_MONTHS,
    interest_rate_apr: '100.00',
  };
  const body = JSON.stringify({ loans: Array(BULK_LOANS).fill(largest) });
  expect(Buffer.byteLength(body)).toBeGreaterThan(BULK_BODY_LIMIT_BYTES * 0.9);
  const padded = (bytes: number) => body + ' '.repeat(bytes - Buffer.byteLength(body));
  const added = await adding(async () => expect((await send(padded(BULK_BODY_LIMIT_BYTES))).status).toBe(201));
  expect(added).toEqual({ loans: BULK_LOANS, events: BULK_LOANS, keys: 0 });
  const refused = await send(padded(BULK_BODY_LIMIT_BYTES + 1));
  expect([refused.status, refused.json().type]).toEqual([413, 'urn:problem:payload-too-large']);
  // The limit of all others is untouched.
  expect((await api.post(`${JSON.stringify(LOAN)}${' '.repeat(BODY_LIMIT_BYTES)}`)).status).toBe(413);
});

describe('writes nothing', () => {
  it.each([
    ['a wrong amount', (loan: object) => ({ ...loan, amount: '-1' }), 'invalid-amount', '/loans/17/amount'],
    [
      'a missing property',
      ({ ...loan }: Record<string, unknown>) => (delete loan.currency, loan),
      'validation-error',
      '/loans/17/currency',
    ],
    ['an unknown property', (loan: object) => ({ ...loan, id: 'x' }), 'unknown-property', '/loans/17/id'],
    ['a text with NUL', (loan: object) => ({ ...loan, borrower_id: '\0' }), 'invalid-text', '/loans/17/borrower_id'],
    ['no object', () => null, 'validation-error', '/loans/17'],
  ])('where one loan has %s, and names it', async (_name, spoil, slug, pointer) => {
    const loans: unknown[] = many(40);
    loans[17] = spoil(many(1)[0]!);
    const added = await adding(async () => {
      const answer = await send({ loans }, { 'idempotency-key': `spoiled-${pointer}` });
      expect([answer.status, answer.json()]).toEqual([
        422,
        expect.objectContaining({
          type: `urn:problem:${slug}`,
          errors: [{ pointer, detail: expect.any(String) }],
        }),
      ]);
    });
    expect(added).toEqual({ loans: 0, events: 0, keys: 0 });
  });

  it.each([
    ['no list', '{}', '/loans'],
    ['an empty list', '{"loans":[]}', '/loans'],
    ['too many', JSON.stringify({ loans: Array(BULK_LOANS + 1).fill(1) }), '/loans'],
    ['a list alone', '[]', ''],
    ['another property', JSON.stringify({ loans: [LOAN], more: 1 }), '/more'],
    ['another type', '{"loans":{"0":{}}}', '/loans'],
  ])('of %s', async (_name, body, pointer) => {
    const added = await adding(async () => {
      const answer = await send(body);
      expect([answer.status, answer.json().errors]).toEqual([422, [{ pointer, detail: expect.any(String) }]]);
    });
    expect(added).toEqual({ loans: 0, events: 0, keys: 0 });
  });

  it('and names twenty faults where there are thousands', async () => {
    const answer = await send({ loans: many(1_000, { amount: 0, term_months: 0 }) });
    expect(answer.status).toBe(422);
    const { errors } = answer.json() as { errors: { pointer: string }[] };
    expect(errors).toHaveLength(20);
    expect(errors.at(-1)?.pointer).toBe('/loans/9/amount');
  });

  it('where the database refuses one of them', async () => {
    const added = await adding(async () => {
      await api.database.sql("ALTER TABLE loans ADD CONSTRAINT no_b7 CHECK (borrower_id <> 'b7') NOT VALID");
      expect((await send({ loans: many(10) }, { 'idempotency-key': 'refused' })).status).toBe(500);
      await api.database.sql('ALTER TABLE loans DROP CONSTRAINT no_b7');
    });
    expect(added).toEqual({ loans: 0, events: 0, keys: 0 });
  });

  it.each([
    ...['', 'null', '1', '{"loans":[}', '{"loans":[1,]}', '{"loans":['.repeat(20)],
    `{"loans":[${'1,'.repeat(50_000)}1]}`,
  ])('of what is no JSON to take: %.20s', async (body) => {
    const added = await adding(async () => {
      const { status } = await send(body);
      expect([400, 422]).toContain(status);
    });
    expect(added).toEqual({ loans: 0, events: 0, keys: 0 });
  });
});

describe('with an Idempotency-Key', () => {
  it('is done once, and answered the same again', async () => {
    const headers = { 'idempotency-key': 'bulk-once' };
    const added = await adding(async () => {
      const first = await send({ loans: many(20) }, headers);
      const second = await send({ loans: many(20) }, headers);
      expect([first.status, second.status, second.headers['idempotent-replayed']]).toEqual([201, 201, 'true']);
      expect(second.text).toBe(first.text);
      expect((await send({ loans: many(21) }, headers)).json().type).toBe('urn:problem:idempotency-key-reused');
    });
    expect(added).toEqual({ loans: 20, events: 20, keys: 1 });
  });

  it('is done once by twenty twins at once', async () => {
    const added = await adding(async () => {
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => send({ loans: many(50) }, { 'idempotency-key': 'bulk-twins' })),
      );
      expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
    });
    expect(added).toEqual({ loans: 50, events: 50, keys: 1 });
  });
});

it('lets others in between: the event loop is never blocked for long', async () => {
  const body = JSON.stringify({ loans: many(BULK_LOANS) });
  for (let warm = 0; warm < 3; warm++) await send(body);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  for (let round = 0; round < 5; round++) expect((await send(body)).status).toBe(201);
  delay.disable();
  // The goal is 50 ms; a machine that is busy with other things takes its share.
  expect(delay.percentile(99) / 1e6).toBeLessThan(150);
});

it.each([
  ['GET', 405],
  ['PUT', 405],
  ['OPTIONS', 204],
])('%s is not for it: no loan has that id', async (method, status) => {
  const answer = await ask(api.port, method, PATH);
  expect([answer.status, answer.headers.allow]).toEqual([status, 'POST']);
});
