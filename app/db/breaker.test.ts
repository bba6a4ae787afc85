import { PassThrough } from 'node:stream';
import { until } from '../../tests/api/harness';
import { createLogger } from '../telemetry/logger';
import { createMetrics } from '../telemetry/metrics';
import { onBehalfOf, requestFields } from '../telemetry/requests';
import { BREAKER, createBreaker } from './breaker';
import { unavailable } from './faults';

/** What it does for requests is in tests/api/breaker.test.ts. */
const trace = { traceId: undefined, sampled: false, logFields: () => ({}), headers: () => ({}), end: () => undefined };

it('asks whether the database is back on behalf of nobody, not of the request that failed last', async () => {
  const asked: object[] = [];
  const breaker = createBreaker({
    ask: () => {
      asked.push(requestFields());
      return asked.length < 2 ? Promise.reject(new Error('away')) : Promise.resolve();
    },
    metrics: createMetrics({ version: '1', commit: 'c', environment: 'test' }),
    logger: createLogger('error', new PassThrough().resume()),
  });
  const away = Object.assign(new Error('away'), { code: 'ECONNREFUSED' });
  for (let failure = 0; failure < BREAKER.failures; failure++) {
    const failing = onBehalfOf([{ id: 'last', trace }], () =>
      breaker.guard(() => Promise.reject(unavailable('db-unavailable', away))),
    );
    await expect(failing).rejects.toThrow();
  }
  await until(() => asked.length === 2);
  breaker.close();
  expect(asked).toEqual([{}, {}]);
});
