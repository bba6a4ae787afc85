import { PassThrough } from 'node:stream';
import { openDatabase } from '../../app/db/pool';
import { generate, seed } from '../../app/db/samples';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { type Answer, CONFIG, LOAN, startService, type TestService } from './harness';
import { OLD_INSERT, withReleases } from './migrations';

/** Loans that do not agree with the last of their events, or whose events have a gap: always none. */
const DISAGREEING = `SELECT loans.id FROM loans LEFT JOIN (
    SELECT DISTINCT ON (loan_id) loan_id, to_status, version, amount, currency,
      count(*) OVER (PARTITION BY loan_id) AS events, min(version) OVER (PARTITION BY loan_id) AS first
    FROM loan_events ORDER BY loan_id, sequence DESC) AS last ON loan_id = loans.id
  WHERE to_status IS DISTINCT FROM status OR last.version <> loans.version OR last.amount <> loans.amount
    OR last.currency <> loans.currency OR events <> last.version - first + 1`;

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(async () => {
  const disagreeing = await api.database.sql(DISAGREEING);
  await api.stop();
  expect(disagreeing).toEqual([]);
});

function move(path: string, body: object, requestId: string): Promise<Answer> {
  return api.ask('POST', `${path}/transitions`, {
    headers: { 'content-type': 'application/json', 'x-request-id': requestId },
    body: JSON.stringify(body),
  });
}

describe('GET /api/loans/:id/events', () => {
  it('tells who did what, when, why and with which request, the newest last', async () => {
    const created = await api.post(LOAN, { 'x-request-id': 'first' });
    const path = created.headers.location!;
    const moves = [
      await move(path, { to: 'approved' }, 'second'),
      await move(path, { to: 'disbursed', reason: 'paid out' }, 'third'),
      await move(path, { to: 'approved' }, 'refused'),
      await move(path, { to: 'defaulted', reason: 'Zahlungsverzug, 90 Täge' }, 'fourth'),
    ];
    expect(moves.map(({ status }) => status)).toEqual([200, 200, 409, 200]);
    const events = (await api.ask('GET', `${path}/events`)).json() as { sequence: number; at: string }[];
    const common = { sequence: expect.any(Number), at: expect.any(String), actor: 'unauthenticated' };
    const loan = { amount: '12500.00', currency: 'KES' };
    const action = 'transitioned';
    expect(events).toEqual([
      { ...common, ...loan, action: 'created', from: null, to: 'pending', reason: null, request_id: 'first' },
      { ...common, ...loan, action, from: 'pending', to: 'approved', reason: null, request_id: 'second' },
      { ...common, ...loan, action, from: 'approved', to: 'disbursed', reason: 'paid out', request_id: 'third' },
      {
        ...common,
        ...loan,
        action,
        from: 'disbursed',
        to: 'defaulted',
        reason: 'Zahlungsverzug, 90 Täge',
        request_id: 'fourth',
      },
    ]);
    expect(events[0]!.at).toBe(created.json().created_at);
    expect(events.at(-1)!.at).toBe(moves.at(-1)!.json().updated_at);
    const sequences = events.map(({ sequence }) => sequence);
    expect(sequences).toEqual([...sequences].sort((a, b) => a - b));
    expect((await api.ask('GET', `${path.replace('/v1', '')}/events`)).json()).toEqual(events);
  });

  it('answers 404 where there is no such loan', async () => {
    expect((await api.ask('GET', '/api/loans/00000000-0000-0000-0000-00000000ffff/events')).status).toBe(404);
    expect((await api.ask('GET', '/api/loans/x/events')).status).toBe(400);
  });
});

describe('the trail', () => {
  it.each([
    "UPDATE loan_events SET actor = 'somebody else'",
    'UPDATE loan_events SET reason = NULL WHERE false',
    'DELETE FROM loan_events',
    'TRUNCATE loan_events',
    'TRUNCATE loan_events CASCADE',
    `INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, amount, currency)
       SELECT loan_id, version, at, 'forged', action, to_status, amount, currency FROM loan_events
       ON CONFLICT (loan_id, version) DO UPDATE SET actor = 'forged'`,
    'MERGE INTO loan_events USING loans ON loan_id = loans.id WHEN MATCHED THEN DELETE',
    'SET session_replication_role = replica; DELETE FROM loan_events',
  ])('cannot be changed, by a superuser and owner either: %s', async (statement) => {
    await api.post(LOAN);
    const all = () =>
      api.database.sql('SELECT md5(string_agg(loan_events::text, $$,$$ ORDER BY sequence)) FROM loan_events');
    const before = await all();
    await expect(api.database.sql(statement)).rejects.toThrow('loan_events is append-only');
    expect(await all()).toEqual(before);
  });

  it('cannot be given a sequence by hand', async () => {
    await expect(
      api.database
        .sql(`INSERT INTO loan_events (sequence, loan_id, version, at, actor, action, to_status, amount, currency)
        VALUES (1, gen_random_uuid(), 1, now(), 'a', 'created', 'pending', 1, 'KES')`),
    ).rejects.toThrow(/sequence/);
  });

  it('and the loan are written together or not at all', async () => {
    const path = (await api.post(LOAN)).headers.location!;
    const count = () => api.database.sql('SELECT count(*) FROM loans');
    const before = await count();
    await api.database.sql(`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$`);
    await api.database.sql('CREATE TRIGGER full_disk BEFORE INSERT ON loan_events EXECUTE FUNCTION full_disk()');
    try {
      expect((await api.post(LOAN)).status).toBe(503);
      expect((await move(path, { to: 'approved' }, 'x')).status).toBe(503);
    } finally {
      await api.database.sql('DROP TRIGGER full_disk ON loan_events');
    }
    expect(await count()).toEqual(before);
    expect((await api.ask('GET', path)).json().status).toBe('pending');
  });
});

describe('loans of earlier releases', () => {
  it('have the event of their creation once this one was migrated to', async () => {
    await withReleases(async (database, upTo) => {
      const loans: string[] = [];
      const insert = async () => loans.push((await database.sql<{ id: string }>(OLD_INSERT))[0]!.id);
      await upTo(1);
      await insert();
      await upTo(3);
      await insert(); // By the old release, still running, between two of the migrations.
      await upTo(4);
      await insert();
      const events = await database.sql<object>(
        `SELECT loan_id, actor, action, from_status, to_status, amount, request_id, at = '2026-01-01T00:00:00Z' AS then
         FROM loan_events ORDER BY actor, sequence`,
      );
      const event = {
        action: 'created',
        from_status: null,
        to_status: 'disbursed',
        amount: '12500.0000',
        request_id: null,
        then: true,
      };
      expect(events).toEqual([
        { ...event, loan_id: loans[0], actor: 'migration' },
        { ...event, loan_id: loans[1], actor: 'unrecorded' },
        { ...event, loan_id: loans[2], actor: 'unrecorded' },
      ]);
      expect(await database.sql(DISAGREEING)).toEqual([]);
    });
  });
});

it('samples and made-up loans have the event of their creation', async () => {
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
  const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
  for (let run = 0; run < 2; run++) {
    await seed(database, new Date());
    await generate(database, 200, 1, new Date());
  }
  await database.close();
  const actors = await api.database.sql<object>(
    "SELECT actor, count(*)::int FROM loan_events WHERE actor IN ('seed', 'generate') GROUP BY actor ORDER BY actor",
  );
  expect(actors).toEqual([
    { actor: 'generate', count: 200 },
    { actor: 'seed', count: 5 },
  ]);
});
