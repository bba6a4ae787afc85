import type { Worker } from 'node:cluster';
import { Counter, Registry } from 'prom-client';
import { collectMetrics } from './cluster';

it('keeps the counters of two workers that die at once', async () => {
  const told: unknown[] = [];
  const worker = (id: number) =>
    ({ id, isConnected: () => true, send: (message: unknown) => told.push(message) }) as unknown as Worker;
  const registry = new Registry();
  new Counter({ name: 'loans', help: 'Loans', registers: [registry] }).inc(5);
  const metrics = await registry.getMetricsAsJSON();
  const [first, second, third] = [worker(1), worker(2), worker(3)];

  const collector = collectMetrics(Promise.resolve('bl-api-1-97fff87'));
  for (const each of [first, second, third]) await collector.hear(each, { kind: 'my-metrics', id: 1, metrics });
  collector.retire(first);
  collector.retire(second);
  await collector.hear(third, { kind: 'all-metrics', id: 2, format: 'text' });
  expect(told).toEqual([
    { kind: 'sum', id: 2, text: expect.stringMatching(/^loans\{container="bl-api-1-97fff87"\} 15$/m) },
  ]);
});
