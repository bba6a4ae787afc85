import { METRICS } from '../../app/telemetry/names';
import { createDatabase } from '../postgres/database';
import { ask, startService, type TestService } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

it('GET /health says who answers and for how long', async () => {
  const first = await api.ask('GET', '/health');
  expect(first.status).toBe(200);
  expect(first.json()).toEqual({
    status: 'ok',
    timestamp: expect.stringMatching(/Z$/),
    uptime_seconds: expect.any(Number),
    version: '1.2.3',
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect((await api.ask('GET', '/health')).json().uptime_seconds).toBeGreaterThan(
    first.json().uptime_seconds as number,
  );
});

it('GET /health/live and /health/ready answer 200', async () => {
  for (const path of ['/health/live', '/health/ready']) {
    const answer = await api.ask('GET', path);
    expect([answer.status, answer.json()]).toEqual([200, { status: 'ok' }]);
  }
});

it('GET /health-db says how long the database took', async () => {
  const answer = await api.ask('GET', '/health-db');
  expect(answer.status).toBe(200);
  expect(answer.json()).toEqual({ status: 'ok', database_ms: expect.any(Number) });
  expect(answer.json().database_ms).toBeGreaterThan(0);
});

it('starts with its connections open, so that the first requests wait for no handshake', async () => {
  const fresh = await startService();
  const { text } = await ask(fresh.port, 'GET', '/metrics');
  expect(text).toContain(`\ndb_pool_connections ${fresh.database.connection.poolSize - 1}\n`);
  await fresh.stop();
});

it('is not ready on a database without the schema', async () => {
  const empty = await createDatabase({ migrated: false });
  const other = await startService({ database: empty.connection });
  const answer = await ask(other.port, 'GET', '/health/ready');
  expect([answer.status, answer.json().type]).toEqual([503, 'urn:problem:db-unavailable']);
  expect(answer.json().detail).toContain('run the migrations');
  expect((await ask(other.port, 'GET', '/api/loans')).status).toBe(503);
  expect((await ask(other.port, 'GET', '/health-db')).status).toBe(200);
  await other.stop();
  await empty.drop();
});

describe('GET /metrics', () => {
  it('speaks the text format, with every metric of ours', async () => {
    await api.ask('GET', '/api/loans');
    const { status, headers, text } = await api.ask('GET', '/metrics');
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    for (const { name, type } of Object.values(METRICS)) expect(text).toContain(`# TYPE ${name} ${type}\n`);
    expect(text).toContain('app_info{version="1.2.3",commit="abc",environment="test",release=""} 1');
    expect(text).toMatch(
      /http_request_duration_seconds_bucket\{le="0\.2",method="GET",route="\/api\/loans",status_code="200"\} \d/,
    );
    expect(text).toMatch(/db_query_duration_seconds_count\{operation="loan_list"\} [1-9]/);
    expect(text).toMatch(/^http_requests_in_flight 1$/m);
    expect(text).toMatch(/^db_pool_connections [1-9]/m);
    expect(text).toMatch(/^process_resident_memory_bytes \d/m);
  });

  it('begins with the values that are known to come', async () => {
    const fresh = await startService();
    const { text } = await ask(fresh.port, 'GET', '/metrics');
    for (const line of [
      'loans_created_total{currency="KES"} 0',
      'db_query_errors_total{sqlstate_class="connection"} 0',
    ]) {
      expect(text).toContain(line);
    }
    await fresh.stop();
  });
});

it('logs the probes only when somebody wants every line', async () => {
  const quiet = await startService({ logLevel: 'info' });
  await ask(quiet.port, 'GET', '/health/ready');
  await ask(quiet.port, 'GET', '/metrics');
  await ask(quiet.port, 'GET', '/api/loans');
  await quiet.stop();
  expect(
    quiet
      .logs()
      .filter(({ message }) => message === 'request')
      .map(({ path }) => path),
  ).toEqual(['/api/loans']);
});
