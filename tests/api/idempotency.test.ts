import { connect, createServer, type AddressInfo } from 'node:net';
import { Client } from 'pg';
import { locksOf } from '../../app/db/idempotency';
import { type Answer, LOAN, startService, type TestService, until } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(async () => {
  const halves = await api.database.sql(
    `SELECT loans.id FROM loans LEFT JOIN loan_events ON loan_id = loans.id AND action = 'created' WHERE loan_id IS NULL
     UNION ALL SELECT loan_id FROM loan_events LEFT JOIN loans ON loans.id = loan_id WHERE loans.id IS NULL`,
  );
  for (const other of others) await other.stop();
  await api.stop();
  expect(halves).toEqual([]);
});

/** A second instance, stopped after all tests, also where one failed. */
async function another(...options: Parameters<typeof startService>): Promise<TestService> {
  const service = await startService(...options);
  others.push(service);
  return service;
}
const others: TestService[] = [];

let keys = 0;
const newKey = () => `key-${++keys}`;
const post = (key: string | string[], body: object = LOAN, path = '/api/v1/loans') =>
  api.ask('POST', path, {
    headers: { 'content-type': 'application/json', 'idempotency-key': key },
    body: JSON.stringify(body),
  });
/** Does what the answer asks for: tries again after a while. */
async function untilFinal(ask: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    const answer = await ask();
    if (answer.status !== 409 && answer.status !== 503) return answer;
    if (answer.json().type === 'urn:problem:illegal-transition') return answer;
    await new Promise((resolve) => setTimeout(resolve, Number(answer.headers['retry-after']) * 1_000));
  }
}
const loansOf = async (borrower: string) =>
  (await api.database.sql<{ id: string }>('SELECT id FROM loans WHERE borrower_id = $1', [borrower])).map(
    ({ id }) => id,
  );
const same = ({ status, text, headers }: Answer) => {
  return { status, text, location: headers.location, etag: headers.etag, type: headers['content-type'] };
};
const slug = (answer: Answer) => String(answer.json().type).replace('urn:problem:', '');

describe('a repeated POST', () => {
  it('is done once, and gets the same answer byte by byte, marked as replayed', async () => {
    const [key, borrower] = [newKey(), 'serial'];
    const first = await post(key, { ...LOAN, borrower_id: borrower });
    expect([first.status, first.headers['idempotent-replayed']]).toEqual([201, undefined]);
    const replays = await metric();
    for (let time = 0; time < 20; time++) {
      const again = await post(key, { ...LOAN, borrower_id: borrower });
      expect(same(again)).toEqual(same(first));
      expect(again.headers['idempotent-replayed']).toBe('true');
      expect(again.headers['x-request-id']).not.toBe(first.headers['x-request-id']);
    }
    expect(await metric()).toBe(replays + 20);
    expect(await loansOf(borrower)).toHaveLength(1);

    async function metric(): Promise<number> {
      const { text } = await api.ask('GET', '/metrics');
      return Number(/^idempotency_replays_total (\d+)$/m.exec(text)?.[1]);
    }
  });

  it('costs one round trip to the database, and its replay two', async () => {
    const key = newKey();
    const before = await queries();
    await post(key);
    expect(await queries()).toBe(before + 1);
    await post(key);
    expect(await queries()).toBe(before + 3);

    async function queries(): Promise<number> {
      const { text } = await api.ask('GET', '/metrics');
      const counts = text.matchAll(/^db_query_duration_seconds_count\{.*\} (\d+)$/gm);
      return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
    }
  });

  it('may be written in another order and with other space', async () => {
    const key = newKey();
    const first = await post(key, LOAN);
    const reversed = Object.fromEntries(Object.entries(LOAN).reverse());
    const again = await api.post(JSON.stringify(reversed, undefined, 2), { 'idempotency-key': key });
    expect(same(again)).toEqual(same(first));
  });

  it('of 200 twins at once makes one loan, and all get its answer', async () => {
    const [key, borrower] = [newKey(), 'twins'];
    const ask = () => post(key, { ...LOAN, borrower_id: borrower });
    const answers = await Promise.all(Array.from({ length: 200 }, () => untilFinal(ask)));
    expect(new Set(answers.map((answer) => JSON.stringify(same(answer)))).size).toBe(1);
    expect(answers[0]!.status).toBe(201);
    expect(answers.filter(({ headers }) => headers['idempotent-replayed'] === undefined)).toHaveLength(1);
    expect(await loansOf(borrower)).toEqual([answers[0]!.json().id]);
  });

  it('of twins at two instances makes one loan each round', async () => {
    const other = await another({ database: api.database.connection });
    for (let round = 0; round < 30; round++) {
      const [key, borrower] = [newKey(), `instances-${round}`];
      const body = JSON.stringify({ ...LOAN, borrower_id: borrower });
      const options = { headers: { 'content-type': 'application/json', 'idempotency-key': key }, body };
      const twins = [api, other, api, other].map((one) => untilFinal(() => one.ask('POST', '/api/v1/loans', options)));
      expect(new Set((await Promise.all(twins)).map((answer) => JSON.stringify(same(answer)))).size).toBe(1);
      expect(await loansOf(borrower)).toHaveLength(1);
    }
  });
});

describe('a key', () => {
  it.each([
    ['with another body', { ...LOAN, amount: '12500.01' }, '/api/v1/loans'],
    ['with a number for a string', { ...LOAN, amount: 12500 }, '/api/v1/loans'],
    ['under another path', LOAN, '/api/loans'],
  ])('%s belongs to another request', async (_name, body, path) => {
    const key = newKey();
    const first = await post(key);
    const refused = await post(key, body, path);
    expect([refused.status, slug(refused)]).toEqual([422, 'idempotency-key-reused']);
    expect(refused.headers['idempotent-replayed']).toBeUndefined();
    expect(same(await post(key))).toEqual(same(first));
  });

  it('of one operation says nothing of another', async () => {
    const key = newKey();
    const created = await post(key);
    const moved = await post(key, { to: 'approved' }, `${created.headers.location!}/transitions`);
    expect([moved.status, moved.headers['idempotent-replayed']]).toEqual([200, undefined]);
  });

  it.each([
    ['abc', '"abc"'],
    ['a"b\\c', '"a\\"b\\\\c"'],
    ['x'.repeat(255), `"${'x'.repeat(255)}"`],
    ['!#~,;=', '"!#~,;="'],
  ])('%.20s is the same in quotes', async (bare, quoted) => {
    const first = await post(bare);
    expect(first.status).toBe(201);
    expect(same(await post(quoted))).toEqual(same(first));
  });

  it.each([
    '',
    '""',
    'x'.repeat(256),
    `"${'x'.repeat(256)}"`,
    'a b',
    '"a b"',
    'a\tb',
    '"abc',
    '"a"b"',
    '"a\\b"',
    '"abc";x=1',
    'é',
    'a\u00a0',
  ])('%.20j is none', async (key) => {
    const answer = await post(key, { ...LOAN, borrower_id: 'bad-key' });
    expect([answer.status, slug(answer)]).toEqual([400, 'idempotency-key-invalid']);
    expect(await loansOf('bad-key')).toEqual([]);
  });

  it('given twice is none', async () => {
    expect((await post(['a1', 'a2'])).status).toBe(400);
  });

  it('that is a day old is free again, whether it was pruned or not', async () => {
    const [key, body] = [newKey(), { ...LOAN, borrower_id: 'expired' }];
    await post(key, body);
    await age(key, '23 hours 59 minutes');
    expect((await post(key, body)).headers['idempotent-replayed']).toBe('true');
    await age(key, '24 hours 1 second');
    const anew = await post(key, body);
    expect([anew.status, anew.headers['idempotent-replayed']]).toEqual([201, undefined]);
    expect(same(await post(key, body))).toEqual(same(anew));
    expect(await loansOf('expired')).toHaveLength(2);
  });

  it('is not used up by a request that is no good', async () => {
    const key = newKey();
    expect((await post(key, { ...LOAN, amount: 0 })).status).toBe(422);
    expect((await api.post('{', { 'idempotency-key': key })).status).toBe(400);
    expect((await post(key)).status).toBe(201);
  });

  const age = (key: string, by: string) =>
    api.database.sql(`UPDATE idempotency_keys SET created_at = now() - interval '${by}' WHERE key = $1`, [key]);
});

describe('while a twin is being done', () => {
  async function hold(key: string): Promise<Client> {
    const { host, port, name, user } = api.database.connection;
    const client = new Client({ host, port, database: name, user });
    await client.connect();
    const locks = locksOf({ principals: ['unauthenticated'], operation: 'createLoan', key });
    await client.query('SELECT pg_advisory_lock($1)', locks);
    return client;
  }

  it('others wait a bounded time without a connection, and are then asked to come again', async () => {
    const key = newKey();
    const holder = await hold(key);
    const startedAt = performance.now();
    const waiting = Array.from({ length: 50 }, () => post(key));
    await new Promise((resolve) => setTimeout(resolve, 500));
    // More twins wait than there are connections, and all others are served as if there were none.
    for (let time = 0; time < 20; time++) {
      const askedAt = performance.now();
      expect((await post(newKey())).status).toBe(201);
      expect(performance.now() - askedAt).toBeLessThan(500);
    }
    const blocked = await api.database.sql(
      "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'branchloans' AND wait_event_type = 'Lock'",
    );
    expect(blocked).toEqual([]);
    for (const answer of await Promise.all(waiting)) {
      expect([answer.status, slug(answer), answer.headers['retry-after']]).toEqual([
        409,
        'idempotency-in-progress',
        '1',
      ]);
    }
    const waited = performance.now() - startedAt;
    expect(waited).toBeGreaterThan(1_900);
    expect(waited).toBeLessThan(4_000);
    await holder.end();
    expect((await post(key)).status).toBe(201); // That answer was not kept.
  });

  it('one takes over as soon as it is free', async () => {
    const key = newKey();
    const holder = await hold(key);
    const waiting = Array.from({ length: 10 }, () => post(key, { ...LOAN, borrower_id: 'taken over' }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await holder.end();
    const answers = await Promise.all(waiting);
    expect(new Set(answers.map((answer) => JSON.stringify(same(answer)))).size).toBe(1);
    expect(answers[0]!.status).toBe(201);
    expect(await loansOf('taken over')).toHaveLength(1);
  });

  it('and is done just before the lock is had, the key itself takes all back', async () => {
    // What the statement saw when it looked is older than what the twin has written: as if it had looked too early.
    const key = newKey();
    await api.database.sql(`CREATE FUNCTION twin() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF NEW.borrower_id = 'too late' AND NOT EXISTS (SELECT FROM idempotency_keys WHERE key = '${key}') THEN
        INSERT INTO idempotency_keys (principal, operation, key, fingerprint, status, headers, body)
        VALUES ('unauthenticated', 'createLoan', '${key}', 'of another', 201, '{}', '');
      END IF; RETURN NEW; END $$`);
    await api.database.sql('CREATE TRIGGER twin BEFORE INSERT ON loans FOR EACH ROW EXECUTE FUNCTION twin()');
    const answer = await post(key, { ...LOAN, borrower_id: 'too late' });
    await api.database.sql('DROP TRIGGER twin ON loans');
    expect([answer.status, slug(answer)]).toEqual([409, 'idempotency-in-progress']);
    expect(await loansOf('too late')).toEqual([]);
  });
});

describe('what failed on our side', () => {
  const stored = (key: string) => api.database.sql('SELECT status FROM idempotency_keys WHERE key = $1', [key]);

  it('leaves nothing when the connection is killed halfway, and the same key then does it once', async () => {
    const [key, body] = [newKey(), { ...LOAN, borrower_id: 'killed' }];
    // Loan and event are written, the key is about to be.
    await api.database.sql(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM pg_sleep(1); RETURN NEW; END $$`);
    await api.database.sql(
      'CREATE TRIGGER slow BEFORE INSERT ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION slow()',
    );
    const asked = post(key, body);
    const kill =
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    await until(async () => (await api.database.sql(kill)).length > 0);
    const failed = await asked;
    await api.database.sql('DROP TRIGGER slow ON idempotency_keys');
    expect([failed.status, slug(failed), failed.headers['retry-after']]).toEqual([503, 'db-unavailable', '1']);
    expect([await loansOf('killed'), await stored(key)]).toEqual([[], []]);
    const again = await post(key, body);
    expect([again.status, again.headers['idempotent-replayed']]).toEqual([201, undefined]);
    expect(await loansOf('killed')).toHaveLength(1);
  });

  it('is replayed when it was done, and only the answer of the database was lost', async () => {
    const { port } = api.database.connection;
    let deaf = false;
    const proxy = createServer((socket) => {
      const behind = connect(port, '127.0.0.1');
      socket.on('data', (chunk) => behind.write(chunk)).on('close', () => behind.destroy());
      behind.on('data', (chunk) => (deaf ? undefined : socket.write(chunk))).on('close', () => socket.destroy());
      for (const end of [socket, behind]) end.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    proxy.unref();
    const database = { ...api.database.connection, port: (proxy.address() as AddressInfo).port };
    const behindProxy = await another({ database });
    const headers = { 'content-type': 'application/json', 'idempotency-key': newKey() };
    const body = JSON.stringify({ ...LOAN, borrower_id: 'lost answer' });
    const ask = () => behindProxy.ask('POST', '/api/v1/loans', { headers, body });
    deaf = true;
    const lost = await ask();
    deaf = false;
    expect([lost.status, slug(lost)]).toEqual([503, 'db-unavailable']);
    const [id] = await loansOf('lost answer');
    const again = await ask();
    expect([again.status, again.json().id, again.headers['idempotent-replayed']]).toEqual([201, id, 'true']);
    expect(await loansOf('lost answer')).toHaveLength(1);
  });

  it.each(['53100', 'XX000'])('(SQLSTATE %s) is not kept', async (code) => {
    const key = newKey();
    await api.database.sql(`CREATE OR REPLACE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      RAISE EXCEPTION 'fault' USING ERRCODE = '${code}'; END $$`);
    await api.database.sql('CREATE TRIGGER fault BEFORE INSERT ON loan_events EXECUTE FUNCTION fault()');
    expect((await post(key)).status).toBeGreaterThanOrEqual(500);
    await api.database.sql('DROP TRIGGER fault ON loan_events');
    expect(await stored(key)).toEqual([]);
    expect((await post(key)).status).toBe(201);
  });
});

describe('a repeated transition', () => {
  async function newLoan(): Promise<string> {
    return (await api.post(LOAN)).headers.location!;
  }
  const move = (path: string, key: string, to: string, headers: Record<string, string> = {}) =>
    api.ask('POST', `${path}/transitions`, {
      headers: { 'content-type': 'application/json', 'idempotency-key': key, ...headers },
      body: JSON.stringify({ to, reason: 'because' }),
    });
  const events = async (path: string) => ((await api.ask('GET', `${path}/events`)).json() as unknown[]).length;

  it('gets the same answer, also when the loan has moved on', async () => {
    const [path, key] = [await newLoan(), newKey()];
    const first = await move(path, key, 'approved');
    await move(path, newKey(), 'disbursed');
    const again = await move(path, key, 'approved');
    expect([again.status, same(again)]).toEqual([200, same(first)]);
    expect(await events(path)).toBe(3);
  });

  it('gets the same refusal, also when it would now be possible', async () => {
    const [path, key] = [await newLoan(), newKey()];
    const refused = await move(path, key, 'disbursed');
    expect([refused.status, slug(refused)]).toEqual([409, 'illegal-transition']);
    expect(refused.headers['idempotent-replayed']).toBeUndefined();
    await move(path, newKey(), 'approved');
    const again = await move(path, key, 'disbursed');
    expect(same(again)).toEqual(same(refused));
    expect(again.headers['idempotent-replayed']).toBe('true');
    expect((await move(path, newKey(), 'disbursed')).status).toBe(200);
  });

  it('gets the same 404 and 412, and its condition is part of it', async () => {
    const [path, nowhere] = [await newLoan(), '/api/v1/loans/00000000-0000-0000-0000-00000000ffff'];
    const [lost, stale] = [newKey(), newKey()];
    expect((await move(nowhere, lost, 'approved')).status).toBe(404);
    expect((await move(nowhere, lost, 'approved')).headers['idempotent-replayed']).toBe('true');
    expect((await move(path, stale, 'approved', { 'if-match': '"x"' })).status).toBe(412);
    expect((await move(path, stale, 'approved', { 'if-match': '"x"' })).headers['idempotent-replayed']).toBe('true');
    expect(slug(await move(path, stale, 'approved', { 'if-match': '*' }))).toBe('idempotency-key-reused');
    expect(slug(await move(await newLoan(), stale, 'approved', { 'if-match': '"x"' }))).toBe('idempotency-key-reused');
  });

  it('of 100 twins at once is made once', async () => {
    const [path, key] = [await newLoan(), newKey()];
    const answers = await Promise.all(Array.from({ length: 100 }, () => untilFinal(() => move(path, key, 'approved'))));
    expect(new Set(answers.map((answer) => JSON.stringify(same(answer)))).size).toBe(1);
    expect(answers[0]!.status).toBe(200);
    expect(await events(path)).toBe(2);
  });

  it('of rivals with a key each, one wins, and each gets its own answer again', async () => {
    const path = await newLoan();
    const rivals = Array.from(
      { length: 40 },
      (_, index) => [newKey(), index % 2 === 0 ? 'approved' : 'rejected'] as const,
    );
    const answers = await Promise.all(rivals.map(([key, to]) => untilFinal(() => move(path, key, to))));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    const again = await Promise.all(rivals.map(([key, to]) => move(path, key, to)));
    expect(again.map(same)).toEqual(answers.map(same));
    expect(await events(path)).toBe(2);
  });
});

it('old answers are pruned in batches, the others kept', async () => {
  const pruned = await another({}, { pruneEveryMs: 20 });
  const insert = (count: number, age: string) =>
    pruned.database.sql(`INSERT INTO idempotency_keys
      SELECT 'p', 'o', '${age}' || n, 'f', 201, '{}', '', now() - interval '${age}' FROM generate_series(1, ${count}) AS n`);
  await insert(10, '23 hours');
  await insert(2_500, '25 hours');
  const left = async () =>
    (await pruned.database.sql<{ count: number }>('SELECT count(*)::int FROM idempotency_keys'))[0]!.count;
  await until(async () => (await left()) === 10);
});
