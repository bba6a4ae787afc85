import { Agent } from 'node:http';
import { connect } from 'node:net';
import { createDatabase, type TestDatabase } from '../postgres/database';
import { ask, LOAN, startService, until } from './harness';
import { environmentOf, type RunningProcess, serve } from './process';

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

/**
 * Clients with connections kept alive, as a gateway has them: each sends until it is told that its connection ends,
 * and counts every request that got no good answer.
 */
function load(port: number, clients: number) {
  const failures: unknown[] = [];
  const created = new Set<string>();
  let requests = 0;
  const running = Array.from({ length: clients }, async (_, client) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let closing = false; !closing;) {
      const write = client % 2 === 0;
      const answer = await ask(port, write ? 'POST' : 'GET', '/api/loans', {
        agent,
        headers: { 'content-type': 'application/json' },
        ...(write && { body: JSON.stringify(LOAN) }),
      }).catch((error: unknown) => error as Error);
      requests++;
      if (answer instanceof Error || answer.status >= 400) {
        failures.push(answer);
        return;
      }
      if (answer.status === 201) created.add(answer.json().id as string);
      closing = answer.headers.connection === 'close';
    }
    agent.destroy();
  });
  return { failures, created, requests: () => requests, done: Promise.all(running) };
}

describe.each(['1', '2'])('a shutdown under load, with %s process(es)', (processes) => {
  it.each(['SIGTERM', 'SIGINT'] as const)('(%s) fails no request and loses no loan', async (signal) => {
    const service = await serve({ ...environmentOf(database.connection), DRAIN_MS: '700', PROCESSES: processes });
    const before = await count();
    const clients = load(service.port, 12);
    await until(() => clients.requests() > 300);
    const ended = service.end(signal);
    await until(() => service.logs().some(({ message }) => message === 'shutting down'));
    const ready = await ask(service.port, 'GET', '/health/ready');
    expect([ready.status, ready.json().type, ready.headers.connection]).toEqual([
      503,
      'urn:problem:shutting-down',
      'close',
    ]);
    expect((await ask(service.port, 'GET', '/api/stats')).status).toBe(200); // Still serving.
    await clients.done;
    const { code, stderr } = await ended;
    expect([code, stderr, clients.failures]).toEqual([0, '', []]);
    expect((await count()) - before).toBe(clients.created.size);
    expect(service.logs().filter(({ message }) => message === 'stopped')).toEqual(
      Array.from(
        { length: Number(processes) },
        () => expect.objectContaining({ level: 'info', cut_off: 0 }) as unknown,
      ),
    );
  });

  const count = async (): Promise<number> =>
    Number((await database.sql<{ count: string }>('SELECT count(*) FROM loans'))[0]?.count);
});

describe('at the end', () => {
  let service: RunningProcess;

  it('idle connections do not hold it up', async () => {
    service = await serve(environmentOf(database.connection));
    const agent = new Agent({ keepAlive: true });
    await ask(service.port, 'GET', '/health', { agent });
    const silent = connect(service.port, '127.0.0.1');
    await new Promise((resolve) => silent.once('connect', resolve));
    const startedAt = performance.now();
    expect((await service.end('SIGTERM')).code).toBe(0);
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    agent.destroy();
    silent.destroy();
  });

  it('a request that takes too long is cut off, and the log says so', async () => {
    service = await serve({ ...environmentOf(database.connection), SHUTDOWN_TIMEOUT_MS: '300' });
    const slow = connect(service.port, '127.0.0.1');
    slow.write('POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{');
    slow.on('error', () => undefined);
    await until(async () => /http_requests_in_flight 2/.test((await ask(service.port, 'GET', '/metrics')).text));
    const startedAt = performance.now();
    expect((await service.end('SIGTERM')).code).toBe(0);
    expect(performance.now() - startedAt).toBeLessThan(3_000);
    expect(service.logs()).toContainEqual(expect.objectContaining({ level: 'warn', message: 'stopped', cut_off: 1 }));
  });

  it('a request in flight is finished', async () => {
    const here = await startService();
    await here.database.sql(
      'CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END $$',
    );
    await here.database.sql('CREATE TRIGGER slow BEFORE INSERT ON loans FOR EACH ROW EXECUTE FUNCTION slow()');
    const answer = here.post(LOAN);
    await new Promise((resolve) => setTimeout(resolve, 150));
    const startedAt = performance.now();
    await here.service.stop();
    expect(performance.now() - startedAt).toBeLessThan(1_500); // Not until the connection times out.
    expect((await answer).status).toBe(201);
    await here.stop(); // A second stop is the same one.
  });
});
