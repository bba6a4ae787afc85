import { Counter, Histogram, Registry } from 'prom-client';
import { expose, type Measurements } from './exposition';

const BOUND = 'route="/x"';

/** One process: a counter, and a histogram with the exemplars of these seconds. */
async function measured(exemplars: readonly (readonly [seconds: number, trace: string])[]): Promise<Measurements> {
  const registry = new Registry();
  new Counter({ name: 'loans_total', help: 'Loans', registers: [registry] }).inc(2);
  const options = { name: 'seconds', help: 'Time', labelNames: ['route'], buckets: [0.1, 1], enableExemplars: true };
  const histogram = new Histogram({ ...options, registers: [] });
  registry.registerMetric(histogram);
  histogram.labels('/x').observe(0.05);
  for (const [value, trace_id] of exemplars) {
    histogram.observe({ labels: { route: '/x' }, value, exemplarLabels: { trace_id } });
  }
  // Through a message between processes.
  return JSON.parse(JSON.stringify(await registry.getMetricsAsJSON())) as Measurements;
}

const exemplarsIn = (text: string) =>
  [...text.matchAll(/^seconds_bucket\{le="([^"]+)",.*\} (\d+) # \{trace_id="(\w+)"\} (\S+) [\d.]+$/gm)].map((found) =>
    found.slice(1),
  );

it('adds up, and keeps of each bucket the newest exemplar', async () => {
  const first = await measured([
    [0.5, 'old'],
    [7, 'slow'],
  ]);
  await new Promise((resolve) => setTimeout(resolve, 5));
  const second = await measured([[0.6, 'new']]);
  for (const order of [
    [first, second],
    [second, first],
  ]) {
    const text = await expose(order, 'openmetrics');
    expect(exemplarsIn(text)).toEqual([
      ['1', '4', 'new', '0.6'],
      ['+Inf', '5', 'slow', '7'],
    ]);
    expect(text).toMatch(/^# TYPE loans counter\nloans_total 4$/m);
    expect(text.endsWith('\n# EOF\n')).toBe(true);
  }
});

it.each(['text', 'openmetrics'] as const)('names the container in every series of %s', async (format) => {
  const text = await expose([await measured([[0.5, 'trace']])], format, 'bl-api-1-97fff87');
  const series = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  expect(series.length).toBeGreaterThan(5);
  expect(series.filter((line) => !line.includes('container="bl-api-1-97fff87"'))).toEqual([]);
  expect(await expose([await measured([])], format)).not.toContain('container=');
});

it('writes the text format as the library does, without exemplars', async () => {
  const text = await expose([await measured([[0.5, 'trace']])], 'text');
  expect(text).toContain(`seconds_bucket{le="1",${BOUND}} 2\n`);
  expect(text).toMatch(/^# TYPE loans_total counter\nloans_total 2$/m);
  expect(text).not.toContain('trace');
});
