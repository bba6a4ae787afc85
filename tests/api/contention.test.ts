import { Client } from 'pg';
import { locksOf } from '../../app/db/idempotency';
import { type Answer, startService, type TestService, until } from './harness';
import { borrower } from './ledger';
import { type Proxy, startProxy } from './proxy';

/** Many requests change one loan at once: fault F12. */

jest.setTimeout(60_000);

/** What the service promises; and what a busy machine may add to it, with 30 requests under way in one process. */
const DEADLINE_MS = 2_500;
const MARGIN_MS = 1_500;

let api: TestService;
let proxy: Proxy;
/** A second instance on the same database, over a network that can be made slow. */
let slow: TestService;

beforeAll(async () => {
  api = await startService();
  proxy = await startProxy(api.database.connection.port);
  slow = await startService({ database: { ...api.database.connection, port: proxy.port, poolSize: 10 } });
});
beforeEach(() => proxy.become('pass'));
afterAll(async () => {
  await slow.stop();
  await proxy.close();
  await api.stop();
});

let keys = 0;
const keyed = () => ({ 'idempotency-key': `contention-${++keys}` });
const keyless = () => ({});

interface Timed {
  readonly answer: Answer;
  readonly tookMs: number;
}

async function timed(ask: () => Promise<Answer>): Promise<Timed> {
  const startedAt = performance.now();
  const answer = await ask();
  return { answer, tookMs: performance.now() - startedAt };
}

const slug = (answer: Answer) => String(answer.json().type).replace('urn:problem:', '');

/** Every answer that is not the one that is wanted is 503 overloaded with Retry-After, and all come in time. */
function expectOnly(status: number, results: readonly Timed[]): Answer[] {
  const others = results.filter(({ answer }) => answer.status !== status).map(({ answer }) => answer);
  expect(others.map((answer) => [answer.status, slug(answer), answer.headers['retry-after']])).toEqual(
    others.map(() => [503, 'overloaded', '1']),
  );
  for (const { tookMs } of results) expect(tookMs).toBeLessThan(DEADLINE_MS + MARGIN_MS);
  return results.filter(({ answer }) => answer.status === status).map(({ answer }) => answer);
}

const paidOf = async (path: string) => Number((await borrower(api).get(`${path}/balance`)).json().paid.total);

describe.each([
  ['with a key each', keyed],
  ['without keys', keyless],
])('30 payments at once to one loan, %s', (_name, headers) => {
  it('are all made, one after the other', async () => {
    const path = await borrower(api).loan();
    const results = await Promise.all(
      Array.from({ length: 30 }, () => timed(() => borrower(api).pay(path, '10.00', headers()))),
    );
    expect(expectOnly(201, results)).toHaveLength(30);
    expect(await paidOf(path)).toBe(300);
  });

  it('on a slow database: as many as there is time for, and what is acknowledged is paid', async () => {
    const path = await borrower(api).loan();
    proxy.become(150);
    const results = await Promise.all(
      Array.from({ length: 30 }, () => timed(() => borrower(slow).pay(path, '10.00', headers()))),
    );
    const paid = expectOnly(201, results);
    expect(paid.length).toBeGreaterThanOrEqual(1);
    expect(paid.length).toBeLessThan(30);
    expect(await paidOf(path)).toBe(10 * paid.length);
  });

  it('through two instances: what is acknowledged is paid', async () => {
    const path = await borrower(api).loan();
    const results = await Promise.all(
      Array.from({ length: 30 }, (_, index) =>
        timed(() => borrower(index % 2 === 0 ? api : slow).pay(path, '10.00', headers())),
      ),
    );
    const paid = expectOnly(201, results);
    expect(await paidOf(path)).toBe(10 * paid.length);
  });

  it('while another process changes the loan all the time, which no attempt here wins', async () => {
    const path = await borrower(api).loan();
    // As if a rival were faster each time: the update finds another version than the one that was read.
    await api.database.sql(`CREATE FUNCTION rival() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`);
    await api.database.sql('CREATE TRIGGER rival BEFORE UPDATE ON loans FOR EACH ROW EXECUTE FUNCTION rival()');
    try {
      const { pay, move, reverse } = borrower(api);
      const id = '00000000-0000-4000-8000-000000000000';
      const results = await Promise.all([
        timed(() => pay(path, '10.00', headers())),
        timed(() => move(path, 'defaulted', headers())),
        timed(() => pay(path, '10.00', headers())),
      ]);
      expect(expectOnly(201, results)).toEqual([]);
      expect((await reverse(path, id, headers())).status).toBe(404);
    } finally {
      await api.database.sql('DROP FUNCTION rival CASCADE');
    }
    expect(await paidOf(path)).toBe(0);
    expect((await borrower(api).pay(path, '10.00', headers())).status).toBe(201);
  });

  it('and reversals of them', async () => {
    const { pay, reverse } = borrower(api);
    const path = await borrower(api).loan();
    const ids = [];
    for (let payment = 0; payment < 10; payment++) ids.push((await pay(path, '10.00')).json().repayment.id as string);
    const results = await Promise.all(ids.map((id) => timed(() => reverse(path, id, headers()))));
    expect(expectOnly(201, results)).toHaveLength(10);
    expect(await paidOf(path)).toBe(0);
  });
});

it('while the loan is locked from outside, each request still has its answer in time', async () => {
  const path = await borrower(api).loan();
  const { host, port, name, user } = api.database.connection;
  const holder = new Client({ host, port, database: name, user });
  await holder.connect();
  try {
    await holder.query('BEGIN');
    await holder.query('SELECT FROM loans WHERE id = $1 FOR UPDATE', [path.split('/').at(-1)]);
    const payments = Array.from({ length: 10 }, (_, index) =>
      timed(() => borrower(api).pay(path, '10.00', index % 2 === 0 ? keyed() : {})),
    );
    expect(expectOnly(201, await Promise.all(payments))).toEqual([]);
  } finally {
    await holder.end();
  }
  expect(await paidOf(path)).toBe(0);
});

describe('twins and rivals get different problems', () => {
  async function hold(key: string): Promise<Client> {
    const { host, port, name, user } = api.database.connection;
    const client = new Client({ host, port, database: name, user });
    await client.connect();
    const locks = locksOf({ principals: ['unauthenticated'], operation: 'repayLoan', key });
    await client.query('SELECT pg_advisory_lock($1)', locks);
    return client;
  }

  it('one that another process is doing answers 409 in time, and rivals at the same loan do not wait for it', async () => {
    const { pay } = borrower(api);
    const [path, key] = [await borrower(api).loan(), keyed()];
    const holder = await hold(key['idempotency-key']);
    try {
      const twins = Array.from({ length: 5 }, () => timed(() => pay(path, '10.00', key)));
      const rivals = Array.from({ length: 20 }, () => timed(() => pay(path, '1.00', keyed())));
      expect(expectOnly(201, await Promise.all(rivals))).toHaveLength(20);
      for (const { answer, tookMs } of await Promise.all(twins)) {
        expect([answer.status, slug(answer), answer.headers['retry-after']]).toEqual([
          409,
          'idempotency-in-progress',
          '1',
        ]);
        expect(tookMs).toBeLessThan(DEADLINE_MS + MARGIN_MS);
      }
    } finally {
      await holder.end();
    }
    expect((await pay(path, '10.00', key)).status).toBe(201);
    expect(await paidOf(path)).toBe(30);
  });

  it('of this process wait for the first and get its answer, also on a slow database', async () => {
    const [path, key] = [await borrower(api).loan(), keyed()];
    proxy.become(150);
    const results = await Promise.all(
      Array.from({ length: 30 }, () => timed(() => borrower(slow).pay(path, '10.00', key))),
    );
    expect(new Set(results.map(({ answer }) => answer.text)).size).toBe(1);
    expect(results[0]!.answer.status).toBe(201);
    expect(results.filter(({ answer }) => answer.headers['idempotent-replayed'] === undefined)).toHaveLength(1);
    expect(await paidOf(path)).toBe(10);
  });

  it('a twin does what the first one failed to do', async () => {
    const { pay } = borrower(api);
    const [path, key] = [await borrower(api).loan(), keyed()];
    await api.database.sql(`CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      PERFORM pg_sleep(0.3);
      IF NEW.request_id = 'the-first' THEN RAISE EXCEPTION 'fault' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$`);
    await api.database.sql('CREATE TRIGGER once BEFORE INSERT ON repayments FOR EACH ROW EXECUTE FUNCTION once()');
    try {
      const first = pay(path, '10.00', { ...key, 'x-request-id': 'the-first' });
      await until(
        async () => (await api.database.sql("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).length > 0,
      );
      const others = await Promise.all(Array.from({ length: 5 }, () => pay(path, '10.00', key)));
      expect([(await first).status, slug(await first)]).toEqual([503, 'storage-full']);
      expect(new Set(others.map(({ status, text }) => `${status} ${text}`)).size).toBe(1);
      expect(others[0]!.status).toBe(201);
    } finally {
      await api.database.sql('DROP FUNCTION once CASCADE');
    }
    expect(await paidOf(path)).toBe(10);
  });
});
