import { DATABASE_ROLES } from '../../app/config';
import { randomUUID } from 'node:crypto';
import { LOAN, newKey, startService, type TestService } from './harness';

/** A loan that is written for good measure, and taken back: what a deploy is tried with (decision 18). */

const PATH = '/api/v1/loans/dry-run';
const NOW = new Date('2026-01-31T12:00:00.000Z');

let api: TestService;
beforeAll(async () => {
  api = await startService({}, { now: () => NOW });
});
afterAll(() => api.stop());

const send = (body: unknown, headers: Record<string, string> = {}, path = PATH) =>
  api.ask('POST', path, {
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

/** Every row of every table. */
async function everything(): Promise<Record<string, string>> {
  const tables = await api.database.sql<{ name: string }>(
    `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
  );
  const rows = tables.map(async ({ name }) => {
    const [table] = await api.database.sql<{ rows: string }>(
      `SELECT coalesce(json_agg(t ORDER BY t::text), '[]')::text AS rows FROM ${name} t`,
    );
    return [name, table?.rows ?? ''] as const;
  });
  return Object.fromEntries(await Promise.all(rows));
}

const created = async () => {
  const { text } = await api.ask('GET', '/metrics');
  return text.split('\n').filter((line) => line.startsWith('loans_created_total{'));
};

describe('a dry run of a new loan', () => {
  it.each(['/api/loans', '/api/v1/loans'])('%s/dry-run answers as the creation does', async (path) => {
    const request = { ...LOAN, amount: 12500, currency: 'kes', term_months: null };
    const real = (await send(request, {}, path)).json() as object;
    const dry = await send(request, {}, `${path}/dry-run`);
    expect(dry.status).toBe(201);
    expect(dry.json()).toEqual({ ...real, id: expect.stringMatching(/^[0-9a-f-]{36}$/) as string });
    // There is no such loan.
    expect([dry.headers.location, dry.headers.etag]).toEqual([undefined, undefined]);
    expect((await api.ask('GET', `${path}/${dry.json().id}`)).status).toBe(404);
  });

  it('leaves nothing: no row, no key, no figure, no metric, no event', async () => {
    const before = [await everything(), await created()];
    expect(before[0]).toHaveProperty('loan_totals');
    const key = randomUUID();
    for (let time = 0; time < 2; time++) {
      const answer = await send(LOAN, { 'idempotency-key': key, 'x-request-id': 'dry' });
      expect([answer.status, answer.headers['idempotent-replayed']]).toEqual([201, undefined]);
    }
    // In a currency that has no figures yet.
    expect((await send({ ...LOAN, currency: 'ISK', amount: '100' })).status).toBe(201);
    expect([await everything(), await created()]).toEqual(before);
    const messages = api.logs().flatMap((line) => (line.request_id === 'dry' ? [line.message] : []));
    expect(messages).toEqual(['request', 'request']);
    // The key is free.
    expect((await api.post({ ...LOAN, amount: '1' }, { 'idempotency-key': key })).status).toBe(201);
  });

  it('disturbs none of those that are real, at the same time', async () => {
    const [before] = await api.database.sql<{ loans: string }>('SELECT count(*) AS loans FROM loans');
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, index) => (index % 2 === 0 ? api.post(LOAN) : send(LOAN))),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(60).fill(201));
    const [after] = await api.database.sql<{ loans: string }>('SELECT count(*) AS loans FROM loans');
    expect(Number(after?.loans)).toBe(Number(before?.loans) + 30);
    expect(await api.database.sql('SELECT * FROM loan_totals_missing')).toEqual([]);
  });

  it.each([
    ['a wrong amount', { ...LOAN, amount: '1.234' }],
    ['several faults', { ...LOAN, borrower_id: '', currency: 'XXX', term_months: 0 }],
    ['an unknown property', { ...LOAN, rate: 1 }],
    ['no JSON', '{'],
  ])('refuses what the creation refuses, in the same words: %s', async (_what, body) => {
    const real = (await api.post(body)).json() as object;
    const dry = await send(body);
    expect(dry.status).toBeGreaterThanOrEqual(400);
    expect(dry.json()).toEqual({ ...real, instance: PATH, request_id: dry.headers['x-request-id'] });
  });

  it('takes no query, and no other method', async () => {
    expect((await send(LOAN, {}, `${PATH}?really=no`)).status).toBe(422);
    const get = await api.ask('GET', PATH);
    expect([get.status, get.headers.allow]).toEqual([405, 'POST']);
  });

  it('needs a key that may write', async () => {
    const asKey = async (scope: 'loans:read' | 'loans:write') => ({
      authorization: `Bearer ${await newKey(api, [scope])}`,
    });
    expect((await send(LOAN, await asKey('loans:read'))).json()).toMatchObject({ status: 403, scope: 'loans:write' });
    expect((await send(LOAN, await asKey('loans:write'))).status).toBe(201);
  });
});

/** What it is for: a database on which a loan could not be created. */
describe('a dry run fails where the creation would', () => {
  const raise = `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END $$;`;
  const cases: [string, make: string, undo: string][] = [
    [
      'a trigger that refuses the event',
      `${raise} CREATE TRIGGER refuse BEFORE INSERT ON loan_events FOR EACH ROW EXECUTE FUNCTION refuse()`,
      'DROP FUNCTION refuse CASCADE',
    ],
    [
      'a trigger that refuses at the commit',
      `${raise} CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON loans DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()`,
      'DROP FUNCTION refuse CASCADE',
    ],
    [
      'no right to write events',
      `REVOKE INSERT ON loan_events FROM ${DATABASE_ROLES.app}`,
      `GRANT INSERT ON loan_events TO ${DATABASE_ROLES.app}`,
    ],
    [
      'a schema that the release does not know',
      'ALTER TABLE loans RENAME term_months TO months',
      'ALTER TABLE loans RENAME months TO term_months',
    ],
  ];

  it.each(cases)('%s', async (_what, make, undo) => {
    const both = async () => {
      const dry = await api.ask('POST', PATH, {
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(LOAN),
      });
      return [dry.status, (await api.post(LOAN)).status];
    };
    expect(await both()).toEqual([201, 201]);
    await api.database.sql(make);
    try {
      expect(await both()).toEqual([500, 500]);
    } finally {
      await api.database.sql(undo);
    }
    expect(await both()).toEqual([201, 201]);
  });
});
