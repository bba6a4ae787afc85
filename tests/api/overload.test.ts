import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { type Answer, ask, LOAN, startService, type TestService } from './harness';

let api: TestService;
beforeEach(async () => {
  api = await startService({ logLevel: 'debug' });
});
afterEach(() => api.stop());

const agent = new Agent({ keepAlive: true });
afterAll(() => agent.destroy());

const post = () =>
  ask(api.port, 'POST', '/api/v1/loans', {
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(LOAN),
    agent,
  });

/**
 * How long the service took for each request with this route and status, in milliseconds, sorted: this process also
 * sends all of them, so that the time from here would say little.
 */
const timesOf = (route: string, status: number, since = new Date(0)) =>
  api
    .logs()
    .filter((line) => line.route === route && line.status === status && begunAt(line) >= since.getTime())
    .map((line) => Number(line.duration_ms))
    .sort((a, b) => a - b);
const begunAt = ({ timestamp, duration_ms }: Record<string, unknown>) =>
  Date.parse(String(timestamp)) - Number(duration_ms);
const percentiles = (times: readonly number[]) => ({
  p50: percentile(times, 0.5),
  p75: percentile(times, 0.75),
  p80: percentile(times, 0.8),
  max: percentile(times, 1),
});
const percentile = (times: readonly number[], share: number) => times[Math.ceil(times.length * share) - 1] ?? NaN;

async function withLockedTable(work: (unlock: () => Promise<void>) => Promise<void>): Promise<void> {
  const { host, port, name } = api.database.connection;
  const blocker = new Client({ host, port, database: name, user: 'postgres' });
  blocker.on('error', () => undefined);
  await blocker.connect();
  await blocker.query('BEGIN; LOCK TABLE loans');
  await work(async () => {
    await blocker.query('ROLLBACK');
  });
  await blocker.end();
}

it('(a locked table) refuses at once what would wait in vain, and all is well when it is unlocked', async () => {
  await withLockedTable(async (unlock) => {
    const first = Array.from({ length: 60 }, post);
    await Promise.all(first);
    const burst = Array.from({ length: 300 }, post);
    for (let n = 0; n < 20; n++) expect((await ask(api.port, 'GET', '/health')).status).toBe(200);
    for (const answer of await Promise.all(burst)) {
      expect([answer.status, answer.json().type]).toEqual([503, 'urn:problem:overloaded']);
      expect(answer.headers['retry-after']).toBe('1');
    }
    for (const answer of await Promise.all(first)) expect(answer.status).toBe(503);
    const times = timesOf('/api/loans', 503);
    const health = timesOf('/health', 200);
    report('locked table', { ...percentiles(times), health: percentile(health, 1) });
    expect(percentile(times, 1)).toBeLessThan(3_000);
    // Of 360, the 60 of the beginning and two to each connection wait, for it or for their statement.
    expect(percentile(times, 0.75)).toBeLessThan(100);
    expect(percentile(health, 1)).toBeLessThan(100);
    const { text } = await ask(api.port, 'GET', '/metrics');
    expect(Number(/^requests_shed_total\{reason="queue"\} (\d+)$/m.exec(text)?.[1])).toBeGreaterThanOrEqual(270);
    await unlock();
  });
  const after = await Promise.all(Array.from({ length: 9 }, post));
  expect(after.map(({ status }) => status)).toEqual(Array(9).fill(201));
  const [row] = await api.database.sql<{ count: string }>('SELECT count(*) FROM loans');
  expect(row?.count).toBe('9');
});

it('(a database that is slow) lets in as many as it can serve in time', async () => {
  await api.database.sql(`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END $$`);
  await api.database.sql('CREATE TRIGGER slow BEFORE INSERT ON loans FOR EACH ROW EXECUTE FUNCTION slow()');
  // Nine connections and 0.4 s for each loan are 22 a second; three times as many come. What came before it was slow
  // waits for a statement of many loans, in vain; so look at those that come when that is over.
  const since = new Date(Date.now() + 2_000);
  const found: Promise<Answer>[] = [];
  for (let n = 0; n < 400; n++) {
    found.push(post());
    await sleep(1_000 / 67);
  }
  const answers = await Promise.all(found);
  const accepted = timesOf('/api/loans', 201, since);
  const refused = timesOf('/api/loans', 503, since);
  report('slow database', { accepted: accepted.length, p95: percentile(accepted, 0.95) });
  report('slow database, refused', { refused: refused.length, ...percentiles(refused) });
  expect(answers.filter(({ status }) => status !== 201 && status !== 503)).toEqual([]);
  expect(accepted.length).toBeGreaterThan(60);
  expect(refused.length).toBeGreaterThan(60);
  expect(percentile(accepted, 0.95)).toBeLessThan(1_500);
  expect(percentile(refused, 0.8)).toBeLessThan(100);
});

it('(200 at once, which it can serve) refuses nobody', async () => {
  const found = await Promise.all(Array.from({ length: 200 }, post));
  expect(found.filter(({ status }) => status !== 201)).toEqual([]);
});

function report(what: string, figures: Record<string, number>): void {
  const rounded = Object.entries(figures).map(([name, value]) => [name, Math.round(value)]);
  console.log(`overload: ${JSON.stringify({ what, ...Object.fromEntries(rounded) })}`);
}
