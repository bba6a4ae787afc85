import * as fc from 'fast-check';
import { format, recommend, type Signal, signalQueries, type Situation } from './autoscale';
import { renderPrometheus } from './prometheus';

const LONG_AGO = 10_000;

const signal = (now: number | undefined, { target = 0.7, peak = (now ?? 0) * 64, name = 'cpu' } = {}): Signal => ({
  name,
  unit: 'share',
  target,
  now,
  peak,
});

/** A steady load: `total` is what all containers together have to bear. */
const steady = (total: number, current: number, target: number, name = 'cpu') =>
  signal(total / current, { target, peak: total, name });

const situation = (change: Partial<Situation>): Situation => ({
  current: 2,
  min: 1,
  max: 8,
  signals: [],
  secondsSinceChange: LONG_AGO,
  ...change,
});

const ask = (change: Partial<Situation>) => recommend(situation(change));

describe('recommend', () => {
  it.each<[string, Partial<Situation>, number, RegExp]>([
    [
      'adds what brings the signal to its target',
      { signals: [steady(2.5, 2, 0.7)] },
      4,
      /^cpu is 125 %, the aim is 70 %$/,
    ],
    ['leaves what is near enough', { signals: [steady(1.5, 2, 0.7)] }, 2, /near enough$/],
    [
      'takes away what was not needed for the whole window',
      { current: 4, signals: [steady(1.4, 4, 0.7)] },
      2,
      /^cpu is 35 %/,
    ],
    [
      'keeps what was needed within the window',
      { current: 4, signals: [signal(0.1, { peak: 2.6 })] },
      4,
      /but within 5 minutes it was not: wait$/,
    ],
    [
      'keeps part of it where part was needed',
      { current: 4, signals: [signal(0.1, { peak: 2 })] },
      3,
      /^cpu is 10 %, the aim is 70 %$/,
    ],
    ['doubles at most', { signals: [steady(7, 2, 0.7)] }, 4, /10 wanted, at most doubled at once$/],
    ['halves at most', { current: 8, signals: [steady(0.1, 8, 0.7)] }, 4, /1 are enough, at most halved at once$/],
    [
      'adds nothing to what was just added',
      { signals: [steady(7, 2, 0.7)], secondsSinceChange: 20 },
      2,
      /20 s ago: wait/,
    ],
    [
      'takes nothing soon after a change',
      { signals: [steady(0.1, 2, 0.7)], secondsSinceChange: 200 },
      2,
      /5 minutes ago/,
    ],
    ['keeps to the most', { current: 8, signals: [steady(20, 8, 0.7)] }, 8, /the settings allow 1 to 8$/],
    ['keeps to the least', { min: 2, signals: [steady(0, 2, 0.7)] }, 2, /the settings allow 2 to 8$/],
    ['changes nothing without signals', { signals: [signal(undefined)] }, 2, /knows nothing of the signals/],
    ['takes NaN for no signal', { signals: [signal(NaN)] }, 2, /knows nothing of the signals/],
    [
      'takes the most that any signal wants',
      { signals: [steady(0.1, 2, 0.7), steady(0.8, 2, 0.2, 'latency')] },
      4,
      /^latency is/,
    ],
    [
      'adds by memory, though the CPU is idle',
      { signals: [steady(0.1, 2, 0.7), steady(2.2, 2, 0.8, 'memory')] },
      3,
      /^memory is 110 %, the aim is 80 %$/,
    ],
    [
      'takes nothing away while one of the signals is unknown',
      { signals: [steady(0.1, 2, 0.7), signal(undefined, { name: 'latency' })] },
      2,
      /but Prometheus does not know latency$/,
    ],
    [
      'adds by what it knows',
      { signals: [steady(2, 2, 0.7), signal(undefined, { name: 'latency' })] },
      3,
      /^cpu is 100 %/,
    ],
  ])('%s', (_name, change, replicas, reason) => {
    expect(ask(change)).toMatchObject({ replicas, reason: expect.stringMatching(reason) });
  });

  const numbers = fc
    .tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 20 }), fc.nat({ max: 20 }))
    .map(([min, span, at]) => ({ min, max: min + span, current: Math.min(min + at, min + span) }));
  const load = fc.double({ min: 0, max: 100, noNaN: true });
  const target = fc.double({ min: 0.01, max: 10, noNaN: true });
  const someSignal = fc
    .record({ now: fc.option(load, { nil: undefined }), peak: fc.option(load, { nil: undefined }), target })
    .map((values) => ({ name: 'any', unit: 'number' as const, ...values }));
  const since = fc.double({ min: 0, max: 1_000, noNaN: true });

  it('always stays between the least and the most, with a reason', () => {
    fc.assert(
      fc.property(numbers, fc.array(someSignal, { maxLength: 3 }), since, fc.nat(80), (n, signals, age, stray) => {
        // Whatever runs now, also what the settings no longer allow.
        const { replicas, reason } = recommend({ ...n, current: stray || n.current, signals, secondsSinceChange: age });
        expect(replicas).toBeGreaterThanOrEqual(n.min);
        expect(replicas).toBeLessThanOrEqual(n.max);
        expect(Number.isInteger(replicas)).toBe(true);
        expect(reason).not.toBe('');
      }),
    );
  });

  it('changes nothing for signals within the band, however they move in it', () => {
    const near = fc.double({ min: -0.099, max: 0.099, noNaN: true });
    fc.assert(
      fc.property(numbers, target, fc.array(near, { minLength: 1 }), ({ min, max, current }, aim, offsets) => {
        for (const offset of offsets) {
          const now = aim * (1 + offset);
          const signals = [signal(now, { target: aim, peak: now * current })];
          expect(recommend({ min, max, current, signals, secondsSinceChange: LONG_AGO }).replicas).toBe(current);
        }
      }),
    );
  });

  it('never wants fewer for more load', () => {
    fc.assert(
      fc.property(numbers, target, load, load, since, ({ min, max, current }, aim, one, other, age) => {
        const at = (total: number) =>
          recommend({ min, max, current, signals: [steady(total, current, aim)], secondsSinceChange: age }).replicas;
        expect(at(Math.max(one, other))).toBeGreaterThanOrEqual(at(Math.min(one, other)));
      }),
    );
  });

  it('comes to rest under a steady load, without turning round on the way', () => {
    fc.assert(
      fc.property(numbers, target, load, ({ min, max, current }, aim, total) => {
        const path = [current];
        for (let step = 0; step < 8; step += 1) {
          const now = path.at(-1)!;
          path.push(
            recommend({ min, max, current: now, signals: [steady(total, now, aim)], secondsSinceChange: LONG_AGO })
              .replicas,
          );
        }
        const moves = path.slice(1).map((replicas, index) => Math.sign(replicas - path[index]!));
        expect(new Set(moves.filter(Boolean)).size).toBeLessThanOrEqual(1);
        expect(moves.slice(-2)).toEqual([0, 0]);
      }),
    );
  });

  it('comes to rest with a signal of which each container takes a part by itself, as memory is', () => {
    const part = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(numbers, target, part, load, ({ min, max, current }, aim, idle, total) => {
        const used = (containers: number) => idle * aim * 1.2 * containers + total;
        const path = [current];
        // Each step at least halves what is too many, or adds one.
        for (let step = 0; step < 50; step += 1) {
          const now = path.at(-1)!;
          const signals = [steady(used(now), now, aim, 'memory')];
          path.push(recommend({ min, max, current: now, signals, secondsSinceChange: LONG_AGO }).replicas);
        }
        const moves = path.slice(1).map((replicas, index) => Math.sign(replicas - path[index]!));
        expect(new Set(moves.filter(Boolean)).size).toBeLessThanOrEqual(1);
        expect(moves.slice(-2)).toEqual([0, 0]);
      }),
    );
  });

  it('never takes away what the highest load of the window needed', () => {
    fc.assert(
      fc.property(numbers, target, load, load, ({ min, max, current }, aim, now, peak) => {
        const signals = [signal(now, { target: aim, peak })];
        const { replicas } = recommend({ min, max, current, signals, secondsSinceChange: LONG_AGO });
        if (replicas < current) expect(peak / replicas).toBeLessThanOrEqual(aim * 1.000001);
      }),
    );
  });
});

describe('signalQueries', () => {
  const all = {
    ...{ min: 1, max: 4, cpuPercent: 70, memoryPercent: 80, latencySeconds: 0.2 },
    custom: { query: 'sum(rate(x[1m]))', target: 5 },
  };
  const none = { cpuPercent: undefined, memoryPercent: undefined, latencySeconds: undefined, custom: undefined };
  const limits = { cpus: 2, memoryMib: 512 };

  it('asks for the signals of the settings only', () => {
    const names = (spec: Partial<typeof all>) =>
      signalQueries({ ...all, ...none, ...spec }, limits, 2).map(({ name, target }) => [name, target]);
    expect(names({})).toEqual([]);
    expect(names({ cpuPercent: 70 })).toEqual([['cpu', 0.7]]);
    expect(names({ memoryPercent: 80 })).toEqual([['memory', 0.8]]);
    expect(names(all)).toEqual([
      ['cpu', 0.7],
      ['memory', 0.8],
      ['latency', 0.2],
      ['custom', 5],
    ]);
  });

  it('asks for the stable release only: a canary is not what is scaled', () => {
    const asked = signalQueries(all, limits, 2).flatMap(({ now, peak }) => [now, peak]);
    const selectors = asked.join('\n').match(/\{[^}]*job="api"[^}]*\}/g) ?? [];
    expect(selectors.length).toBeGreaterThanOrEqual(6);
    for (const selector of selectors) expect(selector).toContain('track="stable"');
    // What the engine measures tells the tracks apart by the label of their containers.
    const measured = asked.join('\n').match(/\{[^}]*job="containers"[^}]*\}/g) ?? [];
    expect(new Set(measured)).toEqual(new Set(['{job="containers",component="api"}']));
    // The label that Prometheus puts on them.
    expect(renderPrometheus({ environment: 'staging' })).toMatch(
      /regex: api\n +target_label: track\n +replacement: stable/,
    );
  });

  it('relates the CPU to the limit of all containers', () => {
    const [cpu] = signalQueries(all, limits, 3);
    expect(cpu).toMatchObject({
      now: 'sum(rate(process_cpu_seconds_total{job="api",track="stable"}[1m])) / 6',
      peak: 'max_over_time((sum(rate(process_cpu_seconds_total{job="api",track="stable"}[1m])) / 2)[300s:15s])',
    });
  });

  it('relates the memory to the limit of all containers', () => {
    const [memory] = signalQueries({ ...all, ...none, memoryPercent: 80 }, limits, 3);
    const total = 'sum(container_memory_working_set_bytes{job="containers",component="api"})';
    expect(memory).toMatchObject({
      unit: 'share',
      now: `${total} / ${3 * 512 * 2 ** 20}`,
      peak: `max_over_time((${total} / ${512 * 2 ** 20})[300s:15s])`,
    });
  });
});

it('format speaks of percent and milliseconds', () => {
  expect([format(0.834, 'share'), format(0.1204, 'seconds'), format(12.34567, 'number')]).toEqual([
    '83 %',
    '120 ms',
    '12.35',
  ]);
});
