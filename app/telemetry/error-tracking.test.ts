import { until } from '../../tests/api/harness';
import { type Receiver, startReceiver } from '../../tests/api/receivers';
import { createErrorTracking, type ErrorTracking } from './error-tracking';

const RELEASE = { environment: 'staging', version: '1.2.3', commit: 'abc' };
const KEY = 'a'.repeat(32);

let receiver: Receiver;
let tracking: ErrorTracking;
beforeEach(async () => {
  receiver = await startReceiver();
  tracking = createErrorTracking(`http://${KEY}@127.0.0.1:${receiver.port}/7`, RELEASE);
});
afterEach(() => receiver.close());

/** The events of all envelopes that came: a header, then a header and a body for each item. */
const events = () =>
  receiver.bodies().map((text) => {
    const [, header = '', body = ''] = text.split('\n');
    expect(JSON.parse(header)).toMatchObject({ type: 'event' });
    return JSON.parse(body) as Record<string, any>; // eslint-disable-line @typescript-eslint/no-explicit-any -- as it came
  });

it('reports what, where, of which release and of which trace', async () => {
  const where = { requestId: 'r-1', method: 'POST', route: '/api/v1/loans' };
  tracking.capture(new TypeError('x is not a function'), {
    ...where,
    traceId: 'ab'.repeat(16),
    spanId: 'cd'.repeat(8),
  });
  await tracking.flush(2_000);
  const [event] = events();
  expect(event).toMatchObject({
    event_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    platform: 'node',
    level: 'error',
    environment: 'staging',
    release: 'branchloans@1.2.3+abc',
    transaction: 'POST /api/v1/loans',
    tags: { request_id: 'r-1' },
    contexts: { trace: { trace_id: 'ab'.repeat(16), span_id: 'cd'.repeat(8) } },
    exception: { values: [{ type: 'TypeError', value: 'is not a function', mechanism: { handled: true } }] },
  });
  const frames = event?.['exception'].values[0].stacktrace.frames as { filename: string; in_app: boolean }[];
  // The newest call is the last.
  expect(frames.at(-1)?.filename).toContain('error-tracking.test');
  expect(frames.at(-1)?.in_app).toBe(true);
});

it.each([
  ['the words', Object.assign(new Error('duplicate key usr_kenya_001'), { code: '23505' }), '23505'],
  ['the words', new SyntaxError('Cannot convert usr_kenya_001 to a BigInt'), 'see the log of this request'],
  ['the value', new TypeError("Cannot create property 'x' on string 'usr_kenya_001'"), 'see the log of this request'],
  ['the value', new TypeError('usr_kenya_001 is not a function'), 'is not a function'],
  [
    'the key',
    new TypeError("Cannot read properties of undefined (reading 'usr_kenya_001')"),
    'Cannot read properties of undefined',
  ],
  [
    'the argument',
    Object.assign(new TypeError("Received type string ('usr_kenya_001')"), { code: 'ERR_INVALID_ARG_TYPE' }),
    'ERR_INVALID_ARG_TYPE',
  ],
  ['lines that look like calls', new Error('no\n usr_kenya_001\n  at'), 'see the log of this request'],
  ['a text', 'usr_kenya_001', 'see the log of this request'],
  ['an object', { borrower: 'usr_kenya_001' }, 'see the log of this request'],
])('does not repeat %s of an error that may hold what a client sent', async (_what, error, value) => {
  tracking.capture(error, {});
  await tracking.flush(2_000);
  expect(events()[0]?.['exception'].values[0]).toMatchObject({ value, mechanism: { handled: false } });
  expect(receiver.bodies().join('')).not.toContain('usr_kenya_001');
});

it('keeps a bounded number of them while nobody answers, waits no longer than told, and goes on after', async () => {
  receiver.answer(undefined);
  for (let count = 0; count < 500; count++) tracking.capture(new Error('x'), {});
  const startedAt = performance.now();
  await tracking.flush(200);
  expect(performance.now() - startedAt).toBeLessThan(2_000);
  await until(() => receiver.asked() === 20);
  receiver.answer(200);
  await tracking.flush(10_000); // Those before give up.
  tracking.capture(new Error('x'), {});
  await tracking.flush(2_000);
  expect(events()).toHaveLength(1);
  expect(receiver.asked()).toBe(21);
});

it('pauses for as long as the other side asks', async () => {
  receiver.answer(429, { 'retry-after': '60' });
  tracking.capture(new Error('x'), {});
  await tracking.flush(2_000);
  for (let count = 0; count < 5; count++) tracking.capture(new Error('x'), {});
  await tracking.flush(2_000);
  expect(receiver.asked()).toBe(1);
});

it('outlives a tracker that is away', async () => {
  const away = createErrorTracking(`http://${KEY}@127.0.0.1:1/7`, RELEASE);
  away.capture(new Error('x'), {});
  await away.flush(2_000);
});
