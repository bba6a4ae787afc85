import { randomUUID } from 'node:crypto';
import { PassThrough } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ApiKeys, createApiKeys, type NewKey } from '../../app/db/api-keys';
import { openDatabase } from '../../app/db/pool';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { type Answer, CONFIG, LOAN, startService, type TestService } from './harness';
import { borrower } from './ledger';

/** A client is not its key: what belongs to it stays with it when the key is rotated. Fault F2. */

const HOUR_MS = 3_600_000;

let api: TestService;
let keys: ApiKeys;
let closeKeys: () => Promise<void>;

beforeAll(async () => {
  api = await startService({ apiKeys: 'required' }, { keyCacheMs: 100 });
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('info', new PassThrough()) };
  const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
  keys = createApiKeys(database, 'test');
  closeKeys = () => database.close();
});
afterAll(async () => {
  await closeKeys();
  await api.stop();
});

const newKey = () => keys.create({ name: 'desk', scopes: ['admin'], expiresAt: null }, new Date());
const rotated = ({ stored }: NewKey, overlapMs = HOUR_MS) => keys.rotate(stored.id, overlapMs, new Date());
const nameOf = ({ stored }: NewKey) => `key:${stored.id}`;

/** The API as the client with this key uses it. */
function as({ text }: NewKey, service: TestService = api) {
  const authorization = `Bearer ${text}`;
  return borrower({
    ask: (method, path, options = {}) =>
      service.ask(method, path, { ...options, headers: { ...options.headers, authorization } }),
    post: (body, headers = {}) => service.post(body, { ...headers, authorization }),
  });
}

const same = ({ status, text, headers }: Answer) => ({ status, text, location: headers.location, etag: headers.etag });
const isReplayed = ({ headers }: Answer) => headers['idempotent-replayed'] === 'true';
/** Asks again, as Retry-After says, while the answer is that a twin is being done. */
async function untilDone(ask: () => Promise<Answer>): Promise<Answer> {
  for (;;) {
    const answer = await ask();
    if (answer.headers['retry-after'] === undefined) return answer;
    await sleep(Number(answer.headers['retry-after']) * 1_000);
  }
}
const once = () => ({ 'idempotency-key': randomUUID() });

describe('an Idempotency-Key outlives the rotation of the API key', () => {
  it('for payments: three tries under two keys pay once', async () => {
    const old = await newKey();
    const path = await as(old).loan();
    const key = once();
    const tries = [await as(old).pay(path, '10.00', key), await as(old).pay(path, '10.00', key)];
    const next = await rotated(old);
    tries.push(await as(next).pay(path, '10.00', key));
    expect(tries.map(same)).toEqual(tries.map(() => same(tries[0]!)));
    expect(tries.map(isReplayed)).toEqual([false, true, true]);
    expect((await as(next).get(`${path}/balance`)).json().paid.total).toBe('10.00');
  });

  it.each<[string, (client: ReturnType<typeof as>, path: string) => (key: Record<string, string>) => Promise<Answer>]>([
    [
      'loans',
      ({ post }) =>
        (key) =>
          post('/api/v1/loans', LOAN, key),
    ],
    [
      'bulk',
      ({ post }) =>
        (key) =>
          post('/api/v1/loans/bulk', { loans: [LOAN, LOAN] }, key),
    ],
    [
      'transitions',
      ({ move }, path) =>
        (key) =>
          move(path, 'approved', key),
    ],
    [
      'refusals',
      ({ pay }, path) =>
        (key) =>
          pay(path, '10.00', key),
    ],
  ])('for %s, in both directions while both keys work', async (_name, request) => {
    const old = await newKey();
    const path = await as(old).loan({}, []);
    const [before, after] = [once(), once()];
    const first = await request(as(old), path)(before);
    const next = await rotated(old);
    const again = await request(as(next), path)(before);
    expect([same(again), isReplayed(again)]).toEqual([same(first), true]);
    const second = await request(as(next), path)(after);
    const back = await request(as(old), path)(after);
    expect([same(back), isReplayed(back)]).toEqual([same(second), true]);
  });

  it('for twins in flight: of 39 at once under three keys of the chain one is done', async () => {
    const first = await newKey();
    const second = await rotated(first);
    const third = await rotated(second);
    const path = await as(first).loan();
    const key = once();
    const chain = [first, second, third];
    const asked = Array.from({ length: 39 }, (_, index) =>
      untilDone(() => as(chain[index % 3]!).pay(path, '10.00', key)),
    );
    const created = Array.from({ length: 39 }, (_, index) =>
      untilDone(() => as(chain[index % 3]!).post('/api/v1/loans', LOAN, key)),
    );
    const [paid, made] = [await Promise.all(asked), await Promise.all(created)];
    for (const answers of [paid, made]) {
      expect(new Set(answers.map((answer) => JSON.stringify(same(answer)))).size).toBe(1);
      expect(answers.filter((answer) => !isReplayed(answer))).toHaveLength(1);
      expect(answers[0]!.status).toBe(201);
    }
    expect((await as(third).get(`${path}/balance`)).json().paid.total).toBe('10.00');
  });

  it('for keys rotated twice, also when the first has expired and the second is revoked', async () => {
    const first = await newKey();
    const path = await as(first).loan();
    const [one, two] = [once(), once()];
    const paid = await as(first).pay(path, '10.00', one);
    const second = await rotated(first, 0);
    const paidToo = await as(second).pay(path, '5.00', two);
    const third = await rotated(second);
    await keys.revoke(second.stored.id, new Date());
    expect(same(await as(third).pay(path, '10.00', one))).toEqual(same(paid));
    expect(same(await as(third).pay(path, '5.00', two))).toEqual(same(paidToo));
    expect((await as(third).get(`${path}/balance`)).json().paid.total).toBe('15.00');
  });

  it('and says nothing to other clients', async () => {
    const [old, other] = [await newKey(), await newKey()];
    const key = once();
    await rotated(old);
    const [mine, others] = [
      await as(old).post('/api/v1/loans', LOAN, key),
      await as(other).post('/api/v1/loans', LOAN, key),
    ];
    expect(isReplayed(others)).toBe(false);
    expect(others.json().id).not.toBe(mine.json().id);
  });
});

describe('answers that the release before kept under each key by itself', () => {
  /** What the release before does: it knows of no chain, and keeps an answer under the name of the key alone. */
  const keepOnlyUnder = (name: string, key: Record<string, string>) =>
    api.database.sql('DELETE FROM idempotency_keys WHERE key = $1 AND principal <> $2', [
      key['idempotency-key']!,
      name,
    ]);

  it('are found through every key of the chain, the own one first', async () => {
    const old = await newKey();
    const next = await rotated(old);
    const [key, path] = [once(), await as(old).loan()];
    const paid = await as(next).pay(path, '10.00', key);
    for (const owner of [next, old]) {
      await keepOnlyUnder(nameOf(next), key);
      await api.database.sql('UPDATE idempotency_keys SET principal = $1 WHERE key = $2', [
        nameOf(owner),
        key['idempotency-key'],
      ]);
      for (const asking of [old, next]) expect(same(await as(asking).pay(path, '10.00', key))).toEqual(same(paid));
      await api.database.sql('UPDATE idempotency_keys SET principal = $1 WHERE key = $2', [
        nameOf(next),
        key['idempotency-key'],
      ]);
    }
    // Done twice before the upgrade: each key goes on to get the answer that it got.
    await api.database.sql(
      `INSERT INTO idempotency_keys (principal, operation, key, fingerprint, status, headers, body)
       SELECT $1, operation, key, fingerprint, status, headers, 'of old' FROM idempotency_keys WHERE key = $2`,
      [nameOf(old), key['idempotency-key']],
    );
    expect((await as(old).pay(path, '10.00', key)).text).toBe('of old');
    expect((await as(next).pay(path, '10.00', key)).text).toBe(paid.text);
    expect((await as(next).get(`${path}/balance`)).json().paid.total).toBe('10.00');
  });

  it('and new answers are kept where that release looks for them: under the key that was shown, and its successor', async () => {
    const old = await newKey();
    const next = await rotated(old);
    const key = once();
    await as(old).post('/api/v1/loans', LOAN, key);
    const rows = await api.database.sql<{ principal: string }>(
      'SELECT principal FROM idempotency_keys WHERE key = $1',
      [key['idempotency-key']],
    );
    expect(rows.map(({ principal }) => principal).sort()).toEqual([nameOf(old), nameOf(next)].sort());
    const single = once();
    await as(await newKey()).post('/api/v1/loans', LOAN, single);
    expect(
      await api.database.sql('SELECT FROM idempotency_keys WHERE key = $1', [single['idempotency-key']]),
    ).toHaveLength(1);
  });
});

it('the audit trail and the ledger name the client; the log also names the key that was shown', async () => {
  const old = await newKey();
  const path = await as(old).loan({}, []);
  const next = await rotated(await rotated(old));
  await as(next).move(path, 'approved');
  await as(next).move(path, 'disbursed');
  const paid = await as(next).pay(path, '10.00');
  const events = (await as(next).get(`${path}/events`)).json() as { actor: string }[];
  expect(events.map(({ actor }) => actor)).toEqual(Array(4).fill(nameOf(old)));
  expect(paid.json().repayment.actor).toBe(nameOf(old));
  expect(api.logs()).toContainEqual(
    expect.objectContaining({
      message: 'request',
      request_id: paid.headers['x-request-id'],
      principal: nameOf(old),
      key_id: next.stored.id,
    }),
  );
});

it('a rate limit counts a client once, whichever of its keys it shows', async () => {
  const limited = await startService({
    apiKeys: 'required',
    database: api.database.connection,
    rateLimit: { requests: 4, windowSeconds: 60 },
  });
  try {
    const old = await newKey();
    const next = await rotated(old);
    const statuses = [];
    for (const key of [old, next, old, next, old, next]) {
      statuses.push((await as(key, limited).get('/api/v1/loans?limit=1')).status);
    }
    expect(statuses).toEqual([200, 200, 200, 200, 429, 429]);
    expect((await as(await newKey(), limited).get('/api/v1/loans?limit=1')).status).toBe(200);
  } finally {
    await limited.stop();
  }
});

it('the list of keys names the client of each', async () => {
  const first = await newKey();
  const second = await rotated(first);
  const third = await rotated(second);
  await newKey();
  const clients = new Map((await keys.list()).map(({ id, client }) => [id, client]));
  for (const { stored } of [first, second, third]) expect(clients.get(stored.id)).toBe(first.stored.id);
  const found = await keys.find([third.stored.id, first.stored.id]);
  expect([...found.get(third.stored.id)!.recent].sort()).toEqual(
    [first, second, third].map(({ stored }) => stored.id).sort(),
  );
});
