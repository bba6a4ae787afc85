import fc from 'fast-check';
import { newestMigration } from '../../app/db/migrate';
import { type ApplicationStatus, applicationStatusSchema, systemMetricsSchema } from '../../app/http/contract/system';
import { createDatabase } from '../postgres/database';
import { ask, CONFIG, startService, type TestService, until } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

describe.each(['/api/status', '/api/v1/status'])('GET %s', (path) => {
  it('says what runs, since when, and how its database is', async () => {
    const answer = await api.ask('GET', path);
    expect([answer.status, applicationStatusSchema.safeParse(answer.json()).error]).toEqual([200, undefined]);
    const version = newestMigration();
    expect(answer.json()).toMatchObject({
      ...{ status: 'ok', version: '1.2.3', commit: 'abc', environment: 'test' },
      database: { status: 'up', schema_version: version, release_schema_version: version },
    });
    expect(answer.json().database.latency_ms).toBeGreaterThan(0);
    const { started_at, timestamp, uptime_seconds } = answer.json() as Record<string, string>;
    const elapsed = (Date.parse(timestamp!) - Date.parse(started_at!)) / 1_000;
    expect(Math.abs(Number(uptime_seconds) - elapsed)).toBeLessThan(0.1);
  });

  it('takes no parameter', async () => {
    expect((await api.ask('GET', `${path}?x=1`)).status).toBe(422);
  });
});

describe('the application status', () => {
  it('is degraded, and 200 all the same, without a database; and names no address or user', async () => {
    const alone = await startService({
      database: { ...CONFIG.database, user: 'the-user', host: '127.0.0.1', port: 1 },
    });
    const answer = await ask(alone.port, 'GET', '/api/status');
    const down = { status: 'down', latency_ms: null, schema_version: null, release_schema_version: newestMigration() };
    expect([answer.status, answer.json()]).toEqual([
      200,
      expect.objectContaining({ status: 'degraded', database: down }),
    ]);
    expect(answer.text).not.toMatch(/the-user|127\.0\.0\.1|password/);
    await alone.stop();
  });

  it('is degraded without a schema, or with one older than the release; a newer one is well', async () => {
    const empty = await createDatabase({ migrated: false });
    const other = await startService({ database: empty.connection });
    const before = (await ask(other.port, 'GET', '/api/status')).json();
    expect(before).toMatchObject({ status: 'degraded', database: { status: 'up', schema_version: null } });
    await other.stop();
    await empty.drop();

    const newest = newestMigration();
    await api.database.sql('INSERT INTO schema_migrations (version, name, checksum) VALUES (9998, $1, $1)', ['x']);
    const kept = async () => (await api.ask('GET', '/api/status')).json() as ApplicationStatus;
    await until(async () => (await kept()).database.schema_version === 9998);
    expect((await kept()).status).toBe('ok');
    await api.database.sql('DELETE FROM schema_migrations WHERE version >= $1', [newest]);
    await until(async () => (await kept()).database.schema_version === newest - 1);
    expect((await kept()).status).toBe('degraded');
  });

  it('asks the database once, however many ask', async () => {
    const fresh = await startService();
    await Promise.all(Array.from({ length: 100 }, () => ask(fresh.port, 'GET', '/api/status')));
    const { text } = await ask(fresh.port, 'GET', '/metrics');
    const [, count] = /db_query_duration_seconds_count\{operation="status_ping"\} (\d+)/.exec(text)!;
    expect(Number(count)).toBeLessThanOrEqual(3); // Once a second, on a machine that may be busy.
    await fresh.stop();
  });

  it('says that it is shutting down, while it does', async () => {
    const leaving = await startService({ drainMs: 500 });
    const stopped = leaving.stop();
    expect((await ask(leaving.port, 'GET', '/api/status')).json().status).toBe('shutting-down');
    await stopped;
  });
});

it.each(['/api/metrics', '/api/v1/metrics'])('GET %s has the figures of the machine', async (path) => {
  const answer = await api.ask('GET', path);
  expect([answer.status, systemMetricsSchema.safeParse(answer.json()).error]).toEqual([200, undefined]);
  expect(answer.json().memory.total).toBeGreaterThan(0);
  expect((await api.ask('GET', `${path}?x=1`)).status).toBe(422);
});

describe.each(['/api/echo', '/api/v1/echo'])('POST %s', (path) => {
  const echo = (body: string | Buffer, headers = {}) =>
    api.ask('POST', path, { body, headers: { 'content-type': 'application/json', ...headers } });

  it.each([
    '{"amount": 1.10, "big": 12345678901234567890.000, "tiny": 1e-400, "zero": -0}',
    ' [1.0,\n\t2.50 ]\r\n',
    '"\\u00e9 é \\ud800 \\/"',
    '{"__proto__": {"a": null}}',
    '0.10',
    'null',
  ])('gives %j back as it was written', async (text) => {
    const answer = await echo(text);
    expect([answer.status, answer.text]).toEqual([200, text]);
    expect(answer.headers['content-type']).toBe('application/json; charset=utf-8');
  });

  it('gives any JSON back as it was written', async () => {
    await fc.assert(
      fc.asyncProperty(fc.json({ maxDepth: 5 }), fc.integer({ min: 0, max: 4 }), async (json, spaces) => {
        const text = JSON.stringify(JSON.parse(json), undefined, spaces);
        const answer = await echo(text);
        expect([answer.status, answer.text]).toEqual([200, text]);
      }),
      { numRuns: 50 },
    );
  });

  it.each([
    ['an Idempotency-Key, of any kind', '1.50', { 'idempotency-key': 'a b' }, 200],
    ['no JSON', '{', {}, 400],
    ['nothing', '', {}, 400],
    ['a number that JSON does not know', '[NaN]', {}, 400],
    ['a name twice', '{"a":1,"a":1}', {}, 400],
    ['33 levels', '['.repeat(33) + ']'.repeat(33), {}, 400],
    ['bytes that are not UTF-8', Buffer.from([0x22, 0xff, 0x22]), {}, 400],
    ['another type', '{}', { 'content-type': 'text/html' }, 415],
    ['more than 64 KiB', `"${'x'.repeat(65_536)}"`, {}, 413],
  ])('answers to %s', async (_name, body, headers, status) => {
    expect((await echo(body, headers)).status).toBe(status);
  });
});

it('tells strangers how the application is, but not how near to its limits the machine is', async () => {
  const guarded = await startService({ apiKeys: 'required' });
  const statuses = async (paths: readonly string[]) =>
    Promise.all(paths.map(async (path) => (await ask(guarded.port, 'GET', path)).status));
  expect(await statuses(['/api/status', '/status', '/docs', '/docs/try-it.js'])).toEqual([200, 200, 200, 200]);
  expect(await statuses(['/api/metrics', '/api/v1/metrics'])).toEqual([401, 401]);
  expect((await ask(guarded.port, 'POST', '/api/echo', { body: '{}' })).status).toBe(401);
  await guarded.stop();
});
