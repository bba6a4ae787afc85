import { randomUUID } from 'node:crypto';
import { LOAN, startService, type TestService, until } from './harness';

/** Requests that come at the same time share statements (decision 17), and nothing else. */

const ONCE_MORE = randomUUID();
let api: TestService;
/** Of the next loans; a new one where there is none. */
let ids: (string | undefined)[] = [];
beforeAll(async () => {
  api = await startService({}, { newId: () => ids.shift() ?? randomUUID() });
});
afterAll(() => api.stop());

it('a loan that cannot be written hurts none of those that came with it', async () => {
  ids = [ONCE_MORE];
  await api.post(LOAN);
  // One in the midst of the next ones gets an id that is taken. They gather while the first statements wait.
  ids = [...Array<undefined>(25).fill(undefined), ONCE_MORE];
  const locked = api.database.sql('BEGIN; LOCK TABLE loans; SELECT pg_sleep(0.3)');
  await until(async () => {
    const held = await api.database.sql(
      `SELECT FROM pg_locks WHERE relation = 'loans'::regclass AND mode = 'AccessExclusiveLock' AND granted`,
    );
    return held.length > 0;
  });
  const keys = Array.from({ length: 40 }, () => randomUUID());
  const answers = await Promise.all(
    keys.map((key, index) => api.post(LOAN, index % 2 === 0 ? { 'idempotency-key': key } : {})),
  );
  await locked;
  expect(answers.map(({ status }) => status).sort()).toEqual([...Array<number>(39).fill(201), 500]);
  const written = answers.filter(({ status }) => status === 201).map((answer) => answer.json().id as string);
  expect(new Set(written).size).toBe(39);
  const [row] = await api.database.sql(
    `SELECT count(*) AS loans, count(DISTINCT e.loan_id) AS with_event FROM loans JOIN loan_events e ON e.loan_id = loans.id`,
  );
  expect(row).toEqual({ loans: '40', with_event: '40' });
});

it('everybody gets the loan they asked for', async () => {
  const loans = await Promise.all(
    Array.from(
      { length: 30 },
      async (_, index) => (await api.post({ ...LOAN, borrower_id: `b${index}` })).json() as { id: string },
    ),
  );
  const wanted = [...loans, ...loans].map(({ id }) => id);
  const answers = await Promise.all([...wanted, randomUUID()].map((id) => api.ask('GET', `/api/v1/loans/${id}`)));
  expect(answers.pop()?.status).toBe(404);
  expect(answers.map((answer) => answer.json() as unknown)).toEqual([...loans, ...loans]);
});

it('a page that is asked for after a loan was acknowledged shows it, however many ask', async () => {
  for (let round = 0; round < 20; round++) {
    const before = Array.from({ length: 5 }, () => api.ask('GET', '/api/v1/loans?limit=1'));
    const { id } = (await api.post(LOAN)).json() as { id: string };
    const after = await Promise.all(Array.from({ length: 5 }, () => api.ask('GET', '/api/v1/loans?limit=1')));
    expect(after.map((page) => page.json()[0].id as string)).toEqual(Array(5).fill(id));
    await Promise.all(before);
  }
});
