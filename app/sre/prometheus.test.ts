import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONFIG } from '../../tests/api/harness';
import { createLogger } from '../telemetry/logger';
import { onBehalfOf, traceHeaders } from '../telemetry/requests';
import { createTracing } from '../telemetry/tracing';
import { createPrometheus, type Prometheus, PrometheusAway, TIMEOUT_MS } from './prometheus';

/** What a Prometheus does that is there, and slow: the faults of one that is away are tested with the service. */

const LOGGER = createLogger('error', process.stderr);
let answerAfterMs: (path: string) => number;
let asked: { readonly path: string; readonly traceparent: unknown }[];
let server: Server;
let prometheus: Prometheus;
beforeEach(async () => {
  asked = [];
  server = createServer((request, response) => {
    const path = request.url ?? '';
    asked.push({ path: path.replace(/\?.*/, ''), traceparent: request.headers.traceparent });
    setTimeout(() => {
      response.end(path.startsWith('/-/ready') ? '' : '{"data":{"result":[]}}');
    }, answerAfterMs(path)).unref();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  prometheus = createPrometheus(`http://127.0.0.1:${port}`, LOGGER, () => new Date(), traceHeaders);
});
afterEach(() => {
  prometheus.close();
  server.closeAllConnections();
  server.close();
});

it('a question that waits for the connections of others is not late', async () => {
  answerAfterMs = () => 0.45 * TIMEOUT_MS;
  const answers = await Promise.all(Array.from({ length: 8 }, () => prometheus.query('up', 1)));
  expect(answers).toHaveLength(8);
});

it('one slow question fails by itself: Prometheus is not away, and is asked again at once', async () => {
  answerAfterMs = (path) => (path.startsWith('/api/v1/query_range') ? 2 * TIMEOUT_MS : 0);
  await expect(prometheus.range('up', { from: 0, to: 1, step: 1 })).rejects.toThrow(PrometheusAway);
  await sleep(200);
  expect(prometheus.state().open).toBe(false);
  expect(await prometheus.query('up', 1)).toEqual([]);
});

it('when it falls silent, nobody waits longer than for one answer', async () => {
  answerAfterMs = () => 60_000;
  const begun = performance.now();
  const answers = await Promise.allSettled(Array.from({ length: 12 }, () => prometheus.query('up', 1)));
  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 12 }, () => 'rejected'));
  for (const answer of answers) expect(answer).toMatchObject({ reason: expect.any(PrometheusAway) as unknown });
  expect(performance.now() - begun).toBeLessThan(2 * TIMEOUT_MS);
  expect(prometheus.state()).toMatchObject({ open: true, reason: `no answer in ${TIMEOUT_MS} ms` });
});

it('what it is asked is part of the trace of the request that wants to know; what nobody or many want, of none', async () => {
  answerAfterMs = () => 0;
  const traceparent = `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`;
  const tracing = createTracing(CONFIG, undefined, LOGGER);
  const served = (id: string) => ({ id, trace: tracing.begin({ traceparent }, false) });
  const one = served('one');
  await onBehalfOf([one], () => prometheus.query('up', 1));
  await onBehalfOf([served('two'), served('three')], () => prometheus.query('up', 1));
  await prometheus.query('up', 1);
  one.trace.end({ requestId: 'one', method: 'GET', route: '/sre/dashboard', status: 200 });
  await onBehalfOf([one], () => prometheus.query('up', 1));
  expect(asked.map(({ traceparent: sent }) => sent)).toEqual([traceparent, undefined, undefined, undefined]);
});

it('whether it is back is asked for nobody', async () => {
  const traceparent = `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`;
  const trace = createTracing(CONFIG, undefined, LOGGER).begin({ traceparent }, false);
  answerAfterMs = (path) => (path.startsWith('/-/ready') ? 0 : 60_000);
  const late = onBehalfOf([{ id: 'one', trace }], () => prometheus.query('up', 1));
  await expect(late).rejects.toThrow(PrometheusAway);
  await sleep(200);
  expect(asked).toEqual([
    { path: '/api/v1/query', traceparent },
    { path: '/-/ready', traceparent: undefined },
  ]);
});
