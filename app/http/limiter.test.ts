import { PassThrough } from 'node:stream';
import { until } from '../../tests/api/harness';
import { createLogger } from '../telemetry/logger';
import { createMetrics } from '../telemetry/metrics';
import { onBehalfOf, requestFields } from '../telemetry/requests';
import { createLimiter } from './limiter';

/** Its judgement is held to a model in tests/api/limiter.test.ts. */
const trace = { traceId: undefined, sampled: false, logFields: () => ({}), headers: () => ({}), end: () => undefined };

it('buys for many on behalf of nobody, not of the request that came first', async () => {
  const asked: object[] = [];
  const limiter = createLimiter({
    quota: { requests: 10, windowSeconds: 1 },
    ledger: {
      buy: () => {
        asked.push(requestFields());
        return Promise.reject(new Error('away'));
      },
      prune: () => Promise.resolve(false),
    },
    metrics: createMetrics({ version: '1', commit: 'c', environment: 'test' }),
    logger: createLogger('info', new PassThrough().resume()),
  });
  await onBehalfOf([{ id: 'first', trace }], () => limiter.admit('key:a'));
  await until(() => asked.length >= 2);
  limiter.stop();
  expect(asked).toEqual([{}, {}]);
});
