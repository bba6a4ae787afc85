import { Registry, Counter } from 'prom-client';
import { quantileOf, readExposition, sumOf } from './exposition';

it('reads what the library writes, whatever stands in a label', async () => {
  const registry = new Registry();
  const counter = new Counter({ name: 'a_total', help: 'x', labelNames: ['route', 'b'], registers: [registry] });
  const odd = 'a "quoted" \\ back\nnew line } , { = é';
  counter.inc({ route: odd, b: '' }, 3);
  counter.inc({ route: '/x', b: '1' }, 0.5);
  const samples = readExposition(await registry.metrics());
  expect(samples).toEqual([
    { name: 'a_total', labels: { route: odd, b: '' }, value: 3 },
    { name: 'a_total', labels: { route: '/x', b: '1' }, value: 0.5 },
  ]);
  expect([sumOf(samples, 'a_total'), sumOf(samples, 'a_total', ({ b }) => b === '1'), sumOf(samples, 'b')]).toEqual([
    ...[3.5, 0.5, undefined],
  ]);
});

it('reads OpenMetrics too: exemplars, times, infinities', () => {
  const text = `# TYPE a histogram
a_bucket{le="+Inf"} 17 # {trace_id="abc"} 0.67 1520879607.789
b 1e3 1520879607
c +Inf
d -Inf
e NaN
# EOF`;
  expect(readExposition(text).map(({ name, value }) => [name, value])).toEqual([
    ...[
      ['a_bucket', 17],
      ['b', 1_000],
      ['c', Infinity],
      ['d', -Infinity],
      ['e', NaN],
    ],
  ]);
});

it('estimates quantiles as PromQL does', () => {
  const bucket = (le: string, value: number, route = 'a') => ({ name: 'h_bucket', labels: { le, route }, value });
  const samples = [
    bucket('0.1', 50),
    bucket('0.2', 90),
    bucket('+Inf', 100),
    bucket('0.1', 0, 'b'),
    bucket('+Inf', 0, 'b'),
  ];
  const a = ({ route }: Record<string, string>) => route === 'a';
  expect(quantileOf(samples, 0.5, 'h', a)).toBeCloseTo(0.1, 9);
  expect(quantileOf(samples, 0.7, 'h', a)).toBeCloseTo(0.15, 9);
  expect(quantileOf(samples, 0.25, 'h', a)).toBeCloseTo(0.05, 9);
  // Beyond the last bound nothing is known but that bound.
  expect(quantileOf(samples, 0.99, 'h', a)).toBe(0.2);
  expect(quantileOf(samples, 0.5, 'h', ({ route }) => route === 'b')).toBeUndefined();
});
