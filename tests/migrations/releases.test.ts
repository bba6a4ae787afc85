import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { ask, LOAN } from '../api/harness';
import { borrower } from '../api/ledger';
import { MIGRATIONS } from '../api/migrations';
import { environmentOf, run, type RunningProcess, serve } from '../api/process';
import { describeUnless } from '../skip';
import { previousRelease, unpack } from './previous-release';

/**
 * Expand and contract: the release before this one and this one, at the same time, on one database with the schema of
 * this one; as during every deploy, and after a roll-back.
 */

jest.setTimeout(60_000);

const previous = previousRelease();
const program = typeof previous === 'string' ? previous : unpack(previous);

describeUnless(typeof program === 'string' ? program : undefined, 'this release and the one before it', () => {
  let database: TestDatabase;
  const root = typeof program === 'string' ? '' : program.root;
  let older: Release;
  let newer: Release;
  /** Of loans that the earlier release wrote before this one migrated. */
  const earlier = { pending: '', paid: '', key: randomUUID(), keyed: '' };
  let statistics: unknown;

  beforeAll(async () => {
    database = await createDatabase({ migrated: false, walled: false });
    const environment = environmentOf(database.connection);
    const owner = environmentOf(database.owner);
    await migrate(environment, root);
    older = release(await serve(environment, undefined, root));
    earlier.pending = await older.loan({}, []);
    earlier.paid = await older.loan();
    expect((await older.pay(earlier.paid, '100')).status).toBe(201);
    const keyed = await older.create(earlier.key);
    expect(keyed.status).toBe(201);
    earlier.keyed = keyed.headers.location!;
    statistics = (await older.get('/api/v1/stats')).json();

    // As in a deploy: the old one serves on.
    await database.wall();
    await migrate(owner);
    newer = release(await serve(environment));
  });
  afterAll(async () => {
    for (const each of [older, newer] as (Release | undefined)[]) await each?.end();
    await (database as TestDatabase | undefined)?.drop();
    rmSync(root, { recursive: true });
  });

  it('the earlier one takes the newer schema for well, and leaves it as it is', async () => {
    const applied = () => database.sql('SELECT * FROM schema_migrations ORDER BY version');
    const before = await applied();
    expect(before).toHaveLength(MIGRATIONS.length);
    await migrate(environmentOf(database.owner), root);
    expect(await applied()).toEqual(before);
    expect((await older.get('/health/ready')).status).toBe(200);
    const started = release(await serve(environmentOf(database.connection), undefined, root));
    expect((await started.get('/api/v1/loans')).status).toBe(200);
    await started.end();
  });

  it('this one shows what the earlier one wrote as that one does', async () => {
    for (const path of [earlier.pending, earlier.paid, earlier.keyed]) {
      for (const part of path === earlier.paid ? ['', '/events', '/repayments', '/balance', '/schedule'] : ['']) {
        const [old, now] = await Promise.all([older.get(path + part), newer.get(path + part)]);
        expect([old.status, now.status]).toEqual([200, 200]);
        expect(now.json()).toMatchObject(old.json());
      }
      expect((await newer.get(path)).headers.etag).toBe((await older.get(path)).headers.etag);
    }
    expect((await newer.get('/api/v1/stats')).json()).toMatchObject(statistics as object);
  });

  it('an answer that the earlier one gave is given again by this one', async () => {
    const again = await newer.create(earlier.key);
    expect([again.status, again.headers.location]).toEqual([201, earlier.keyed]);
  });

  it('the earlier one does all that it did', async () => {
    await wholeLife(older, older);
  });
  it('this one does all with what the earlier one goes on to write', async () => {
    await wholeLife(older, newer);
  });
  it('the earlier one does all with what this one writes, as after a roll-back', async () => {
    await wholeLife(newer, older);
  });
  it('this one goes on with loans from before', async () => {
    expect((await newer.move(earlier.pending, 'approved')).status).toBe(200);
    expect((await older.move(earlier.pending, 'disbursed')).status).toBe(200);
    const { outstanding } = (await newer.get(`${earlier.paid}/balance`)).json();
    const last = await newer.pay(earlier.paid, outstanding.total as string);
    expect([last.status, last.json().balance.status]).toEqual([201, 'repaid']);
    expect((await older.get(earlier.paid)).json().status).toBe('repaid');
  });

  it('a loan that either of them settled stays settled when either takes a payment back', async () => {
    for (const settler of [older, newer]) {
      for (const reverser of [older, newer]) {
        const path = await older.loan({ amount: '1000.00', currency: 'USD', term_months: 2, interest_rate_apr: '12' });
        const paid = await newer.pay(path, '10.00');
        expect((await settler.move(path, 'repaid')).status).toBe(200);
        for (const each of [older, newer]) {
          const { status, outstanding } = (await each.get(`${path}/balance`)).json();
          expect([status, outstanding.total]).toEqual(['repaid', '0.00']);
        }
        expect((await newer.get(`${path}/balance`)).json()).toMatchObject({ settled: { total: '1005.02' } });
        const reversed = await reverser.reverse(path, paid.json().repayment.id as string);
        // What the earlier one does with its own settlement is what it always did.
        const left = settler === older && reverser === older ? '1015.02' : '10.00';
        expect([reversed.status, reversed.json().balance.outstanding.total]).toEqual([201, left]);
        for (const each of [older, newer]) {
          const shown = (await each.get(`${path}/balance`)).json();
          expect([shown.status, shown.outstanding.total]).toEqual(['disbursed', left]);
        }
        // Neither takes more than that.
        for (const each of [older, newer]) expect((await each.pay(path, '1015.03')).status).toBe(422);
        expect((await older.pay(path, left)).json().balance.status).toBe('repaid');
        expect((await newer.get(`${path}/balance`)).json()).toMatchObject({
          status: 'repaid',
          outstanding: { total: '0.00' },
        });
      }
    }
  });

  it('the earlier one goes on beside a loan that was withdrawn', async () => {
    const path = await newer.loan({}, []);
    expect((await newer.move(path, 'withdrawn')).status).toBe(200);
    expect((await older.get(path)).json()).toMatchObject({ status: 'withdrawn' });
    expect((await older.get(`${path}/balance`)).json()).toMatchObject({ outstanding: { total: '0.00' } });
    expect((await older.get('/api/v1/loans?limit=100')).status).toBe(200);
    expect((await older.get('/api/v1/stats')).status).toBe(200);
    expect((await older.move(path, 'approved')).status).toBeGreaterThanOrEqual(400);
    expect((await newer.get(path)).json()).toMatchObject({ status: 'withdrawn' });
  });

  it('a key that both get at once makes one loan', async () => {
    const keys = Array.from({ length: 20 }, () => randomUUID());
    const asked = keys.flatMap((key) => [older.create(key), newer.create(key)]);
    const answers = await Promise.all(asked);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
    const locations = answers.map(({ headers }) => headers.location!);
    expect(new Set(locations).size).toBe(keys.length);
    for (let pair = 0; pair < locations.length; pair += 2) expect(locations[pair]).toBe(locations[pair + 1]);
  });

  it.each(['the earlier', 'this'])('a client whose API key %s release rotated pays once, through both', async (by) => {
    const environment = environmentOf(database.connection);
    const apiKey = async (...args: string[]) => {
      const { code, stdout, stderr } = await run(['api-key', ...args], environment, by === 'this' ? undefined : root);
      if (code !== 0) throw new Error(stderr);
      return { authorization: `Bearer ${stdout.trim()}` };
    };
    const old = await apiKey('create', '--name', 'desk', '--scopes', 'admin');
    const next = await apiKey('rotate', '--id', old.authorization.split('_')[2]!);
    // Not the earlier release by itself, which takes the two keys for two clients.
    for (const [first, second] of [
      [older, newer],
      [newer, older],
    ] as const) {
      for (const [shown, again] of [
        [old, next],
        [next, old],
        [next, next],
      ] as const) {
        const key = { 'idempotency-key': randomUUID() };
        const path = await newer.loan();
        const paid = await first.pay(path, '10', { ...key, ...shown });
        const replayed = await second.pay(path, '10', { ...key, ...again });
        // The earlier release finds what this one did; what it did itself under another key only this one finds.
        expect([paid.status, replayed.status, replayed.text]).toEqual([201, 201, paid.text]);
        expect((await newer.get(`${path}/balance`)).json().paid.total).toBe('10.00');
      }
    }
    // In flight at the same moment.
    const path = await newer.loan();
    const key = { 'idempotency-key': randomUUID() };
    const twins = Array.from({ length: 6 }, () => [
      older.pay(path, '10', { ...key, ...next }),
      newer.pay(path, '10', { ...key, ...next }),
      newer.pay(path, '10', { ...key, ...old }),
    ]);
    const statuses = (await Promise.all(twins.flat())).map(({ status }) => status);
    expect(statuses.filter((status) => status !== 409)).toEqual(expect.arrayContaining([201]));
    expect((await newer.get(`${path}/balance`)).json().paid.total).toBe('10.00');
  });

  it('of two that pay at once, through one each, nobody pays too much', async () => {
    const path = await older.loan();
    const { outstanding } = (await newer.get(`${path}/balance`)).json();
    const total = outstanding.total as string;
    const paid = await Promise.all([older.pay(path, total), newer.pay(path, total)]);
    expect(paid.map(({ status }) => status).sort()).toEqual([201, 409]);
    const [one, other] = await Promise.all([older, newer].map((each) => each.get(`${path}/balance`)));
    expect(one!.json()).toMatchObject({ status: 'repaid' });
    expect(other!.json()).toMatchObject(one!.json() as object);
  });

  it('figures and list are the same in the end, and are right', async () => {
    const list = async ({ get }: Release) =>
      ((await get('/api/v1/loans?limit=100')).json() as { id: string }[]).map(({ id }) => id);
    expect((await list(newer)).length).toBeGreaterThan(20);
    expect(await list(newer)).toEqual(await list(older));
    const [old, now] = await Promise.all([older, newer].map((each) => each.get('/api/v1/stats')));
    expect(now!.json()).toMatchObject(old!.json() as object);
    expect(await database.sql('SELECT * FROM loan_totals_missing')).toEqual([]);
  });
});

async function migrate(environment: Record<string, string>, root?: string): Promise<void> {
  const { code, stdout, stderr } = await run(['migrate'], environment, root);
  if (code !== 0) throw new Error(`${stdout}${stderr}`);
}

type Release = ReturnType<typeof release>;

function release(running: RunningProcess) {
  const { port } = running;
  const json = { 'content-type': 'application/json' };
  const post = (body: unknown, headers: Record<string, string> = {}) =>
    ask(port, 'POST', '/api/v1/loans', { headers: { ...json, ...headers }, body: JSON.stringify(body) });
  return {
    ...borrower({ post, ask: (method, path, options) => ask(port, method, path, options) }),
    create: (key: string) => post(LOAN, { 'idempotency-key': key }),
    end: () => running.end('SIGTERM'),
  };
}

/** A loan from its beginning to its end, each step through the other one of two. */
async function wholeLife(writer: Release, other: Release): Promise<void> {
  const key = { 'idempotency-key': randomUUID() };
  const path = await writer.loan({}, []);
  expect((await other.get(path)).json()).toMatchObject({ status: 'pending', amount: LOAN.amount });
  expect((await other.move(path, 'approved')).status).toBe(200);
  expect((await writer.move(path, 'disbursed')).status).toBe(200);
  const paid = await other.pay(path, '1000', key);
  expect(paid.status).toBe(201);
  const replayed = await writer.pay(path, '1000', key);
  expect([replayed.status, replayed.text]).toEqual([201, paid.text]);
  const second = await writer.pay(path, '500');
  expect((await other.reverse(path, second.json().repayment.id as string)).status).toBe(201);
  const { outstanding, paid: sum } = (await writer.get(`${path}/balance`)).json();
  expect(sum.total).toBe('1000.00');
  const last = await other.pay(path, outstanding.total as string);
  expect([last.status, last.json().balance.status]).toEqual([201, 'repaid']);
  expect((await writer.get(path)).json().status).toBe('repaid');
  const [events, same] = await Promise.all([writer, other].map((each) => each.get(`${path}/events`)));
  expect(events!.text).toBe(same!.text);
  const rejected = await other.loan({}, []);
  expect((await writer.move(rejected, 'rejected')).status).toBe(200);
}
