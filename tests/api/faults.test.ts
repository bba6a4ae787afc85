import { mkdtempSync, chmodSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { Client } from 'pg';
import { migrate } from '../../app/db/migrate';
import { openDatabase, type Database } from '../../app/db/pool';
import { Problem } from '../../app/errors';
import { createService, type Service } from '../../app/service';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { connectionTo, createDatabase, type TestDatabase } from '../postgres/database';
import { freePort } from '../../infra/embedded/ports';
import { startPostgres, type PostgresServer } from '../../infra/embedded/postgres';
import { startProxy } from './proxy';
import { ask, CONFIG, LOAN, startService, type TestService, until } from './harness';

const post = (port: number) =>
  ask(port, 'POST', '/api/loans', { headers: { 'content-type': 'application/json' }, body: JSON.stringify(LOAN) });

async function timed<T>(work: Promise<T>): Promise<[result: T, ms: number]> {
  const startedAt = performance.now();
  return [await work, performance.now() - startedAt];
}

describe('a database that goes away', () => {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-faults-'));
  chmodSync(directory, 0o755);
  let postgres: PostgresServer;
  let service: Service;
  let port: number;
  const start = async (on: number) =>
    startPostgres({ directory: join(directory, 'data'), port: on, settings: { fsync: 'off' } });

  beforeAll(async () => {
    postgres = await start(await freePort());
    const database = connectionTo(postgres.port, 'postgres');
    const secrets = { databasePassword: () => Promise.resolve('') };
    await migrate(database, secrets);
    service = createService({ ...CONFIG, database }, secrets, { logDestination: new PassThrough().resume() });
    await service.start();
    port = service.ports()[0]!;
  });
  afterAll(async () => {
    await service.stop();
    await postgres.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it.each(['stop', 'kill'] as const)('(%s) answers 503 and comes back without a restart', async (how) => {
    expect((await post(port)).status).toBe(201);
    const load = hammer(port);
    await postgres[how]();
    await until(async () => (await ask(port, 'GET', '/health/ready')).status === 503);

    for (const request of [ask(port, 'GET', '/api/loans'), ask(port, 'GET', '/api/stats'), post(port)]) {
      const [answer, ms] = await timed(request);
      expect([answer.status, answer.json().type]).toEqual([503, 'urn:problem:db-unavailable']);
      expect(answer.headers['retry-after']).toBe('1');
      expect(ms).toBeLessThan(2_500);
    }
    const check = await ask(port, 'GET', '/health-db');
    expect([check.status, check.json().type]).toEqual([500, 'urn:problem:db-check-failed']);
    expect((await ask(port, 'GET', '/health')).status).toBe(200);
    expect((await ask(port, 'GET', '/health/live')).status).toBe(200);

    postgres = await start(postgres.port);
    const [, ms] = await timed(until(async () => (await ask(port, 'GET', '/health/ready')).status === 200));
    expect(ms).toBeLessThan(5_000);
    const { acknowledged, statuses } = await load.stop();
    expect([...statuses].filter((status) => status !== 201 && status !== 503)).toEqual([]);
    expect(acknowledged.length).toBeGreaterThan(0);
    const client = new Client({ host: '127.0.0.1', port: postgres.port, user: 'postgres', database: 'postgres' });
    await client.connect();
    const { rows } = await client.query<{ id: string }>('SELECT id FROM loans');
    await client.end();
    const stored = new Set(rows.map(({ id }) => id));
    expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
  });

  /** Four writers that never stop; what was acknowledged must be there afterwards. */
  function hammer(on: number) {
    const acknowledged: string[] = [];
    const statuses = new Set<number>();
    let running = true;
    const writers = Array.from({ length: 4 }, async () => {
      while (running) {
        const answer = await post(on);
        statuses.add(answer.status);
        if (answer.status === 201) acknowledged.push(answer.json().id as string);
      }
    });
    return {
      async stop() {
        await new Promise((resolve) => setTimeout(resolve, 300));
        running = false;
        await Promise.all(writers);
        return { acknowledged, statuses };
      },
    };
  }
});

describe('a database that is there but does not answer', () => {
  let hole: ReturnType<typeof createServer>;
  let api: TestService;
  const sockets = new Set<Socket>();
  let upstream: number;
  let swallow = false;

  beforeAll(async () => {
    // A proxy that can stop passing anything on, with the connections left open.
    hole = createServer((socket) => {
      const behind = connect(upstream, '127.0.0.1');
      for (const [from, to] of [
        [socket, behind],
        [behind, socket],
      ] as const) {
        sockets.add(from);
        from.on('data', (chunk) => (swallow ? undefined : to.write(chunk)));
        from.on('error', () => undefined).on('close', () => to.destroy());
      }
    });
    await new Promise<void>((resolve) => hole.listen(0, '127.0.0.1', resolve));
    const seed = await createDatabase();
    upstream = seed.connection.port;
    api = await startService({ database: { ...seed.connection, port: (hole.address() as AddressInfo).port } });
  });
  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    await api.stop();
    hole.close();
  });

  it('gets 503 in bounded time, health stays quick, and all is well when it answers again', async () => {
    expect((await post(api.port)).status).toBe(201);
    swallow = true;
    const requests = Array.from({ length: 10 }, () => timed(post(api.port)));
    const [live, liveMs] = await timed(ask(api.port, 'GET', '/health/live'));
    expect([live.status, liveMs < 100]).toEqual([200, true]);
    for (const [answer, ms] of await Promise.all(requests)) {
      expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1']);
      expect(ms).toBeLessThan(2_500);
    }
    const [ready, readyMs] = await timed(ask(api.port, 'GET', '/health/ready'));
    expect([ready.status, readyMs < 2_500]).toEqual([503, true]);
    const [check, checkMs] = await timed(ask(api.port, 'GET', '/health-db'));
    expect([check.status, checkMs < 2_500]).toEqual([500, true]);
    swallow = false;
    await until(async () => (await post(api.port)).status === 201, 5_000);
  });
});

describe('a database that has too much to do', () => {
  let api: TestService;
  beforeAll(async () => {
    api = await startService();
  });
  afterAll(() => api.stop());

  it('(a locked table) sheds with 503, while the probes answer at once', async () => {
    const { host, port, name } = api.database.connection;
    const blocker = new Client({ host, port, database: name, user: 'postgres' });
    blocker.on('error', () => undefined);
    await blocker.connect();
    await blocker.query('BEGIN; LOCK TABLE loans');
    const requests = Array.from({ length: 60 }, () => timed(post(api.port)));
    await new Promise((resolve) => setTimeout(resolve, 200));
    const [ready, readyMs] = await timed(ask(api.port, 'GET', '/health/ready'));
    expect([ready.status, readyMs < 300]).toEqual([200, true]);
    for (const [answer, ms] of await Promise.all(requests)) {
      expect([answer.status, answer.json().type, answer.headers['retry-after']]).toEqual([
        503,
        'urn:problem:overloaded',
        '1',
      ]);
      expect(ms).toBeLessThan(2_500);
    }
    await blocker.query('ROLLBACK');
    await blocker.end();
    expect((await post(api.port)).status).toBe(201);
    const [row] = await api.database.sql<{ count: string }>('SELECT count(*) FROM loans');
    expect(row?.count).toBe('1');
  });

  it.each([
    ['53100', 'storage-full'],
    ['53300', 'overloaded'],
    ['40001', 'overloaded'],
    ['57P01', 'db-unavailable'],
    ['25006', 'db-unavailable'],
  ])('(SQLSTATE %s) answers 503 %s', async (code, slug) => {
    await raising(api.database, code);
    const answer = await post(api.port);
    expect([answer.status, answer.json().type]).toEqual([503, `urn:problem:${slug}`]);
    expect(answer.headers['retry-after']).toMatch(/^\d+$/);
    expect((await ask(api.port, 'GET', '/api/loans')).status).toBe(200);
    await api.database.sql('DROP TRIGGER fault ON loans');
  });

  it.each([
    ['that nobody foresaw', 'XX000'],
    ['of our own, such as a column that does not exist', '42703'],
  ])('masks an error %s, and logs it', async (_name, code) => {
    await raising(api.database, code, 'canary of the inside');
    const answer = await ask(api.port, 'POST', '/api/loans', {
      headers: { 'content-type': 'application/json', 'x-request-id': 'masked' },
      body: JSON.stringify(LOAN),
    });
    expect([answer.status, answer.json().type]).toEqual([500, 'urn:problem:internal']);
    expect(answer.text).not.toContain('canary');
    expect(api.logs()).toContainEqual(
      expect.objectContaining({
        level: 'error',
        request_id: 'masked',
        problem: 'internal',
        code,
        stack: expect.any(String),
      }),
    );
    await api.database.sql('DROP TRIGGER fault ON loans');
  });

  it('(a lost race) tries again, and succeeds without the client knowing', async () => {
    await api.database.sql('CREATE SEQUENCE tries');
    await raising(api.database, '40P01', 'deadlock', "IF nextval('tries') < 4 THEN");
    expect((await post(api.port)).status).toBe(201);
    const [row] = await api.database.sql<{ last_value: string }>('SELECT last_value FROM tries');
    expect(row?.last_value).toBe('4');
    expect((await ask(api.port, 'GET', '/metrics')).text).toMatch(/db_query_errors_total\{sqlstate_class="40"\} [3-9]/);
    await api.database.sql('DROP TRIGGER fault ON loans');
  });

  /** Lets every insert fail with the given SQLSTATE. */
  async function raising(
    database: TestDatabase,
    code: string,
    message = 'fault',
    condition = 'IF true THEN',
  ): Promise<void> {
    await database.sql(`CREATE OR REPLACE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      ${condition} RAISE EXCEPTION '${message}' USING ERRCODE = '${code}'; END IF; RETURN NEW; END $$`);
    await database.sql('CREATE TRIGGER fault BEFORE INSERT ON loans FOR EACH ROW EXECUTE FUNCTION fault()');
  }
});

describe('a transaction', () => {
  let test: TestDatabase;
  let database: Database;
  const one = { name: 'pid', text: 'SELECT pg_backend_pid() AS pid' } as {
    name: string;
    text: string;
    row?: { pid: string };
  };
  const insert = {
    name: 'insert',
    text: "INSERT INTO loans VALUES (gen_random_uuid(), 'b', 1, 'KES', NULL, NULL, 'pending', now(), now())",
  };
  beforeAll(async () => {
    test = await createDatabase();
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
    database = openDatabase(test.connection, test.secrets, telemetry);
  });
  afterAll(async () => {
    await database.close();
    await test.drop();
  });
  const count = async () => Number((await test.sql<{ count: string }>('SELECT count(*) FROM loans'))[0]?.count);

  it('takes a connection that has come free where a new one is not to be had', async () => {
    const network = await startProxy(test.connection.port);
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
    const config = { ...test.connection, port: network.port, connectTimeoutMs: 500 };
    const behind = openDatabase(config, test.secrets, telemetry);
    const nap = { name: 'nap', text: "SELECT 'slept' AS nap FROM pg_sleep(0.2)" };
    try {
      await behind.query(one);
      network.become('full');
      expect(await Promise.all([behind.query(nap), behind.query(nap)])).toEqual([
        [{ nap: 'slept' }],
        [{ nap: 'slept' }],
      ]);
    } finally {
      await behind.close();
      await network.close();
    }
  });

  it('commits when its work is done, and rolls back when it throws', async () => {
    await expect(
      database.transaction(async (connection) => {
        await connection.query(insert);
        throw new Error('changed my mind');
      }),
    ).rejects.toThrow('changed my mind');
    expect(await count()).toBe(0);
    expect(await database.transaction(async (connection) => (await connection.query(insert)).length)).toBe(0);
    expect(await count()).toBe(1);
  });

  it('whose server process is killed becomes a problem, and the process lives on', async () => {
    const work = database.transaction(async (connection) => {
      const [row] = await connection.query(one);
      await connection.query(insert);
      await test.sql('SELECT pg_terminate_backend($1::int)', [row?.pid]);
      await new Promise((resolve) => setTimeout(resolve, 100)); // Checked out, with no query in flight.
      await connection.query(insert);
    });
    await expect(work).rejects.toThrow(Problem);
    expect(await count()).toBe(1);
    await database.transaction((connection) => connection.query(insert));
    expect(await count()).toBe(2);
  });

  it('that deadlocks with another runs again', async () => {
    await test.sql(
      "INSERT INTO loans SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'b', 1, 'KES', NULL, NULL, 'pending', now(), now() FROM generate_series(1, 2) AS n",
    );
    const lock = (n: number) => ({
      name: `lock_${n}`,
      text: `SELECT 1 FROM loans WHERE id = '00000000-0000-0000-0000-00000000000${n}' FOR UPDATE`,
    });
    let runs = 0;
    const inOrder = (first: number, second: number) =>
      database.transaction(async (connection) => {
        runs++;
        await connection.query(lock(first));
        await new Promise((resolve) => setTimeout(resolve, 100));
        await connection.query(lock(second));
      });
    await Promise.all([inOrder(1, 2), inOrder(2, 1)]);
    expect(runs).toBeGreaterThan(2);
  });
});
