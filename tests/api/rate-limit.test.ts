import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { Client } from 'pg';
import { createLedger } from '../../app/db/quotas';
import { openDatabase } from '../../app/db/pool';
import { type Ask, change, SLOTS } from '../../app/domain/quota';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { type Answer, ask, CONFIG, LOAN, startService, type TestService, until } from './harness';
import { ModelLedger } from './model-ledger';

const services: TestService[] = [];
afterEach(async () => {
  for (const service of services.splice(0)) await service.stop();
});
async function start(...options: Parameters<typeof startService>): Promise<TestService> {
  const service = await startService(...options);
  services.push(service);
  return service;
}

/** Refused by its handler without asking the database, so that all that is left of it is the limit. */
const CHEAP = '/api/v1/loans/x';

async function connect({ connection: { host, port, name, user } }: TestDatabase): Promise<Client> {
  const client = new Client({ host, port, database: name, user });
  await client.connect();
  return client;
}

/** The sum over all label values. */
async function metric(service: TestService, name: string): Promise<number> {
  const { text } = await service.ask('GET', '/metrics');
  return [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\d+)$`, 'gm'))].reduce(
    (sum, [, n]) => sum + Number(n),
    0,
  );
}

describe('one caller', () => {
  it('hears what is left, and is refused beyond it before anything is read', async () => {
    const api = await start({ rateLimit: { requests: 3, windowSeconds: 60 } });
    const left = [];
    for (let time = 0; time < 3; time++) {
      const { status, headers } = await api.ask('GET', '/api/v1/stats');
      expect([status, headers['ratelimit-policy']]).toEqual([200, '"default";q=3;w=60']);
      left.push(/^"default";r=(\d+);t=\d+$/.exec(String(headers.ratelimit))?.[1]);
    }
    expect(left).toEqual(['2', '1', '0']);
    const refused = await api.post('{ no JSON');
    expect([refused.status, refused.json()]).toEqual([
      429,
      {
        type: 'urn:problem:quota-exceeded',
        title: 'The caller has made too many requests',
        status: 429,
        detail: 'Too many requests. Wait for as long as Retry-After says.',
        instance: '/api/v1/loans',
        request_id: refused.headers['x-request-id'],
        'violated-policies': ['default'],
      },
    ]);
    const retryAfter = Number(refused.headers['retry-after']);
    expect(retryAfter).toBeGreaterThan(55);
    expect(retryAfter).toBeLessThanOrEqual(61);
    expect(refused.headers.ratelimit).toBe(`"default";r=0;t=${retryAfter}`);
    expect(await metric(api, 'rate_limit_refusals_total')).toBe(1);
    expect(await api.database.sql('SELECT id FROM loans')).toEqual([]);
  });

  it('may always ask for health, metrics and documents, and paths that do not exist', async () => {
    const api = await start({ rateLimit: { requests: 1, windowSeconds: 60 } });
    await api.ask('GET', CHEAP);
    expect((await api.ask('GET', CHEAP)).status).toBe(429);
    for (const path of [
      '/health',
      '/health/live',
      '/health/ready',
      '/health-db',
      '/metrics',
      '/openapi.json',
      '/docs',
    ]) {
      const { status, headers } = await api.ask('GET', path);
      expect([path, status, headers.ratelimit]).toEqual([path, 200, undefined]);
    }
    expect((await api.ask('GET', '/nowhere')).status).toBe(404);
  });

  it('may come again when Retry-After has passed', async () => {
    const api = await start({ rateLimit: { requests: 5, windowSeconds: 1 } });
    const six = () => Promise.all(Array.from({ length: 6 }, () => api.ask('GET', CHEAP)));
    const first = await six();
    expect(first.map(({ status }) => status).sort()).toEqual([400, 400, 400, 400, 400, 429]);
    const retryAfter = Number(first.find(({ status }) => status === 429)!.headers['retry-after']);
    expect(retryAfter).toBeLessThanOrEqual(2);
    await sleep(retryAfter * 1_000);
    expect((await api.ask('GET', CHEAP)).status).toBe(400);
    expect((await six()).filter(({ status }) => status === 400).length).toBeLessThanOrEqual(4);
  });

  it('is not limited where no limit is set', async () => {
    const api = await start();
    expect((await api.ask('GET', CHEAP)).headers['ratelimit-policy']).toBeUndefined();
    expect(await api.database.sql('SELECT * FROM request_quotas')).toEqual([]);
  });
});

describe('without a key, the caller is', () => {
  const one = { rateLimit: { requests: 1, windowSeconds: 60 } };
  const from = (api: TestService, address: string) =>
    api.ask('GET', CHEAP, { headers: { 'x-forwarded-for': address } }).then(({ status }) => status);

  it('the address that connects, whatever it claims', async () => {
    const api = await start(one);
    expect([await from(api, '192.0.2.1'), await from(api, '192.0.2.2')]).toEqual([400, 429]);
  });

  it('behind a gateway the address that the gateway names last, and of IPv6 its network', async () => {
    const api = await start({ ...one, clientAddress: 'x-forwarded-for' });
    expect([await from(api, '192.0.2.1'), await from(api, '192.0.2.2')]).toEqual([400, 400]);
    expect(await from(api, '192.0.2.9, 192.0.2.1')).toBe(429);
    expect(await from(api, '::ffff:192.0.2.2')).toBe(429);
    expect([await from(api, '2001:db8:0:1::1'), await from(api, '2001:DB8::1:2:3:4:5')]).toEqual([400, 429]);
    expect([await from(api, '2001:db8:0:2::'), await from(api, '::1'), await from(api, '::2')]).toEqual([
      400, 400, 429,
    ]);
    expect([await from(api, 'x'.repeat(5_000)), await from(api, `${'x'.repeat(5_000)}y`)]).toEqual([400, 429]);
    const rows = await api.database.sql<{ caller: string }>('SELECT caller FROM request_quotas ORDER BY 1');
    expect(rows.map(({ caller }) => caller).slice(0, 4)).toEqual([
      'address:0:0:0:0::/64',
      'address:192.0.2.1',
      'address:192.0.2.2',
      'address:2001:db8:0:1::/64',
    ]);
  });
});

it('three processes keep one limit, to a few per cent and with few round trips, however the load is spread', async () => {
  const rateLimit = { requests: 2_000, windowSeconds: 20 };
  const first = await start({ rateLimit });
  const database = first.database.connection;
  const all = [first, await start({ rateLimit, database }), await start({ rateLimit, database })];
  const agent = new Agent({ keepAlive: true, maxSockets: 20 });
  const answers: Promise<Answer>[] = [];
  const startedAt = performance.now();
  // Twice the limit in 8 s: all of it falls into one window.
  for (let sent = 0; sent < 4_000;) {
    const due = Math.min(4_000, ((performance.now() - startedAt) / 8_000) * 4_000);
    for (; sent < due; sent++) {
      const { port } = all[sent % 20 === 7 ? 1 : sent % 20 === 14 ? 2 : 0]!;
      answers.push(ask(port, 'GET', CHEAP, { agent }));
    }
    await sleep(5);
  }
  const statuses = (await Promise.all(answers)).map(({ status }) => status);
  const tookMs = performance.now() - startedAt;
  agent.destroy();
  expect(tookMs).toBeLessThan(rateLimit.windowSeconds * 1_000);
  const passed = statuses.filter((status) => status === 400).length;
  expect(statuses.filter((status) => status !== 400 && status !== 429)).toEqual([]);
  const sum = async (name: string) =>
    (await Promise.all(all.map((service) => metric(service, name)))).reduce((a, b) => a + b);
  const [purchases, estimates] = [await sum('rate_limit_purchases_total'), await sum('rate_limit_estimates_total')];
  console.info(
    `${passed} of 4000 passed, ${purchases} round trips, ${estimates} by estimate, ${Math.round(tookMs)} ms`,
  );
  expect(Math.abs(passed - 2_000)).toBeLessThanOrEqual(60);
  expect(purchases).toBeLessThanOrEqual(200);
}, 30_000);

describe('while the ledger does not answer', () => {
  async function lock({ database }: TestService): Promise<Client> {
    const client = await connect(database);
    await client.query('BEGIN; LOCK TABLE request_quotas IN ACCESS EXCLUSIVE MODE');
    return client;
  }

  it('nobody waits or fails, each process keeps the limit alone, and what passed counts afterwards', async () => {
    const rateLimit = { requests: 500, windowSeconds: 60 };
    const first = await start({ rateLimit });
    const second = await start({ rateLimit, database: first.database.connection });
    await first.ask('GET', CHEAP);
    const agent = new Agent({ keepAlive: true, maxSockets: 10 });
    const holder = await lock(first);
    const times: number[] = [];
    const hundred = async (service: TestService) => {
      const answers = Array.from({ length: 100 }, async () => {
        const { status } = await ask(service.port, 'GET', CHEAP, { agent });
        return status;
      });
      return Promise.all(answers);
    };
    const statuses: number[] = [];
    for (let time = 0; time < 7; time++) {
      const startedAt = performance.now();
      statuses.push(...(await hundred(second)));
      times.push((performance.now() - startedAt) / 10); // Ten at a time.
    }
    expect(statuses.filter((status) => status === 400)).toHaveLength(500);
    expect(statuses.filter((status) => status === 429)).toHaveLength(200);
    times.sort((a, b) => a - b);
    expect(times[3]).toBeLessThan(50);
    const said = () => second.logs().filter(({ message }) => String(message).startsWith('rate limits'));
    await until(() => said().length > 0, 5_000);
    await sleep(1_200);
    expect(said().map(({ message }) => message)).toEqual(['rate limits are judged by each process alone']);
    expect(await metric(second, 'rate_limit_estimates_total')).toBe(700);
    await holder.query('ROLLBACK');
    await holder.end();
    await until(() => said().length === 2);
    expect(said()[1]!.message).toBe('rate limits are shared again');
    const asked = await metric(first, 'rate_limit_purchases_total');
    await first.ask('GET', CHEAP);
    await until(async () => (await metric(first, 'rate_limit_purchases_total')) > asked);
    const after = await hundred(first);
    agent.destroy();
    expect(after.filter((status) => status === 400).length).toBeLessThanOrEqual(change(rateLimit));
  }, 30_000);

  it('and has no table yet, as before the migration, requests pass', async () => {
    const api = await start({ rateLimit: { requests: 500, windowSeconds: 60 } });
    await api.database.sql('DROP TABLE request_quotas');
    expect((await api.ask('GET', '/api/v1/stats')).status).toBe(200);
    expect((await api.post(LOAN)).status).toBe(201);
  });
});

it('rows that no window reaches are pruned, the others kept', async () => {
  const api = await start({ rateLimit: { requests: 10, windowSeconds: 60 } }, { pruneEveryMs: 50 });
  await api.ask('GET', CHEAP);
  await api.database.sql(`INSERT INTO request_quotas
    SELECT 'old' || n, 60, floor(extract(epoch FROM now())) - 63, '{1}', 1 FROM generate_series(1, 2500) AS n`);
  await api.database.sql(`INSERT INTO request_quotas
    SELECT 'young', 60, floor(extract(epoch FROM now())) - 30, '{1}', 1`);
  const left = () => api.database.sql<{ caller: string }>('SELECT caller FROM request_quotas ORDER BY 1');
  await until(async () => (await left()).length <= 2);
  expect((await left()).map(({ caller }) => caller)).toEqual(['address:127.0.0.1', 'young']);
});

describe('the statement', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase();
  });
  afterAll(() => database.drop());

  it('does what the model of it does', async () => {
    const logger = createLogger('error', process.stderr);
    const pool = openDatabase(database.connection, database.secrets, { metrics: createMetrics(CONFIG), logger });
    const ledger = createLedger(pool);
    const client = await connect(database);
    const upTo = (max: number) => fc.nat(max);
    const step = fc.record({
      spent: upTo(30),
      urgent: upTo(40),
      ahead: upTo(60),
      returned: upTo(20),
      slotsAgo: upTo(3),
      passing: fc.oneof(upTo(2), upTo(SLOTS + 3)),
    });
    let run = 0;
    // A slot of 1,440 s, so that none ends meanwhile. Time passes by making the row older.
    const windowSeconds = 86_400;
    try {
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 400 }),
          fc.array(step, { minLength: 1, maxLength: 15 }),
          async (requests, steps) => {
            const quota = { requests, windowSeconds };
            const [caller, model] = [`caller ${++run}`, new ModelLedger()];
            const now = Date.now(); // It is the same machine.
            const current = Math.floor(now / 1_440_000);
            for (const { slotsAgo, passing, ...rest } of steps) {
              await client.query('UPDATE request_quotas SET slot = slot - $2 WHERE caller = $1', [caller, passing]);
              const row = model.rows.get(caller);
              if (row !== undefined) row.slot -= passing;
              const asked: Ask = { ...rest, returnedFrom: current - slotsAgo };
              const grant = (await ledger.buy(quota, new Map([[caller, asked]]))).get(caller)!;
              const expected = model.buy(quota, caller, asked, now);
              const { slotEndsInMs, releaseInMs, ...whole } = grant;
              expect(whole).toEqual({ granted: expected.granted, slot: expected.slot, left: expected.left });
              expect(Math.abs(slotEndsInMs - expected.slotEndsInMs)).toBeLessThan(20_000);
              expect(Math.abs(releaseInMs - expected.releaseInMs)).toBeLessThan(20_000);
              const [kept] = await database.sql<{ used: number[] }>(
                'SELECT used FROM request_quotas WHERE caller = $1',
                [caller],
              );
              expect(kept!.used).toEqual(model.rows.get(caller)!.used);
            }
          },
        ),
        { numRuns: 40 },
      );
      // Several callers in one statement, each by itself, in whatever order.
      const asks = new Map(
        ['z', 'a', 'm'].map((caller, index) => {
          return [caller, { spent: 0, urgent: index + 1, ahead: 0, returned: 0, returnedFrom: 0 }];
        }),
      );
      const grants = await ledger.buy({ requests: 100, windowSeconds: 10 }, asks);
      expect([...asks.keys()].map((caller) => grants.get(caller)?.granted)).toEqual([1, 2, 3]);
      // A clock that was set back by a day: nobody is refused for a day.
      await database.sql('UPDATE request_quotas SET slot = slot + 10000, used[1] = 100');
      expect((await ledger.buy({ requests: 100, windowSeconds: 10 }, asks)).get('m')).toMatchObject({
        granted: 3,
        left: 97,
      });
    } finally {
      await client.end();
      await pool.close();
    }
  }, 60_000);
});
