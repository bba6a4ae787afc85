import { createDatabase, type TestDatabase } from '../postgres/database';
import { ask, CONFIG, LOAN, startService, type TestService, until } from './harness';
import { type Proxy, startProxy } from './proxy';

let behind: TestDatabase;
let network: Proxy;
let api: TestService;

beforeAll(async () => {
  behind = await createDatabase();
  network = await startProxy(behind.connection.port);
  api = await startService({ database: { ...behind.connection, port: network.port, statementTimeoutMs: 500 } });
});
afterAll(async () => {
  await api.stop();
  await network.close();
  await behind.drop();
});
afterEach(async () => {
  network.become('pass');
  await until(async () => !(await isOpen()), 5_000);
});
/** Equal requests would share one question to the database. */
let nth = 0;
const get = () => timed(ask(api.port, 'GET', `/api/v1/loans?limit=${1 + (nth++ % 100)}`));

async function timed<T>(work: Promise<T>): Promise<[result: T, ms: number]> {
  const startedAt = performance.now();
  return [await work, performance.now() - startedAt];
}

async function metric(name: string): Promise<number> {
  const { text } = await ask(api.port, 'GET', '/metrics');
  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1]);
}

const isOpen = async () => (await metric('db_circuit_open')) === 1;
const lines = (message: string) => api.logs().filter((line) => line.message === message);

describe.each([
  ['resets connections', 'refuse'],
  ['swallows everything', 'swallow'],
  ['is two seconds late', 2_000],
] as const)('with a network that %s', (_name, mode) => {
  it('refuses at once when it knows, while readiness still asks, and serves again within two seconds', async () => {
    expect(await api.post(LOAN)).toMatchObject({ status: 201 });
    const opened = lines('database circuit opened').length;
    const shed = await metric('requests_shed_total{reason="circuit_open"}');
    network.become(mode);
    // Requests at once would share a statement, and fail as one.
    const found: ReturnType<typeof get>[] = [];
    await until(async () => {
      found.push(get());
      return isOpen();
    }, 6_000);
    for (const [answer, ms] of await Promise.all(found)) {
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1']);
      expect(ms).toBeLessThan(2_500);
    }

    const times: number[] = [];
    for (let n = 0; n < 200; n++) {
      const [answer, ms] = await timed(n % 2 === 0 ? ask(api.port, 'GET', '/api/v1/stats') : api.post(LOAN));
      expect([answer.status, answer.json().type]).toEqual([503, 'urn:problem:db-unavailable']);
      expect(answer.headers['retry-after']).toBe('1');
      times.push(ms);
    }
    expect(times.sort((a, b) => a - b)[100]).toBeLessThan(50); // A request of this process to itself; 1 ms on a quiet machine.
    expect(times[190]).toBeLessThan(200);
    expect(await metric('requests_shed_total{reason="circuit_open"}')).toBeGreaterThanOrEqual(shed + 200);
    const [ready, readyMs] = await timed(ask(api.port, 'GET', '/health/ready'));
    expect([ready.status, readyMs < 2_500]).toEqual([503, true]);
    expect((await ask(api.port, 'GET', '/health/live')).status).toBe(200);

    network.become('pass');
    const [, backMs] = await timed(until(async () => (await get())[0].status === 200, 5_000));
    expect(backMs).toBeLessThan(2_000);
    expect((await ask(api.port, 'GET', '/health/ready')).status).toBe(200);
    expect(await isOpen()).toBe(false);
    expect([lines('database circuit opened').length, lines('database circuit closed').length]).toEqual([
      opened + 1,
      opened + 1,
    ]);
    for (let n = 0; n < 20; n++) expect((await get())[0].status).toBe(200);
  });
});

it('stays closed where the database answers, whatever it answers', async () => {
  const opened = lines('database circuit opened').length;
  for (const code of ['23514', '42703', '53100', '25006', '42P01', '57014']) {
    await behind.sql(`CREATE OR REPLACE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN RAISE EXCEPTION 'fault' USING ERRCODE = '${code}'; END $$`);
    await behind.sql('CREATE TRIGGER fault BEFORE INSERT ON loans FOR EACH ROW EXECUTE FUNCTION fault()');
    for (let n = 0; n < 10; n++) expect((await api.post(LOAN)).status).toBeGreaterThanOrEqual(500);
    expect([code, lines('database circuit opened').length]).toEqual([code, opened]);
    expect((await get())[0].status).toBe(200);
    await behind.sql('DROP TRIGGER fault ON loans');
  }
});

it('(a network that is 200 ms late) serves', async () => {
  network.become(200);
  const found = await Promise.all(Array.from({ length: 4 }, get));
  network.become('pass');
  for (const [answer] of found) expect(answer.status).toBe(200);
  expect(await isOpen()).toBe(false);
});

it('does not keep a service from stopping', async () => {
  const other = await startService({ database: { ...CONFIG.database, port: 1 } });
  await Promise.all(Array.from({ length: 8 }, (_, n) => ask(other.port, 'GET', `/api/v1/loans?limit=${n + 1}`)));
  expect((await ask(other.port, 'GET', '/metrics')).text).toContain('\ndb_circuit_open 1\n');
  const [, ms] = await timed(other.stop());
  expect(ms).toBeLessThan(1_000);
});
