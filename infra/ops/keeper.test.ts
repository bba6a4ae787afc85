import * as fc from 'fast-check';
import { Keeper, type Stopped } from './keeper';

const api: Stopped = { id: 'a', name: 'x-api-1-9f3c2ab', component: 'api', exitCode: 137 };
const gateway: Stopped = { id: 'g', name: 'x-gateway', component: 'gateway', exitCode: 137 };
const SERVED = [api.name];

/** What becomes of a container some seconds after these events: `kill 9`, `die`, … */
function after(events: readonly string[], container = api, served: readonly string[] | 'unknown' = SERVED) {
  const keeper = new Keeper('x');
  for (const event of events) {
    const [action = '', signal] = event.split(' ');
    keeper.observe({ container: container.id, action, ...(signal === undefined ? {} : { signal: Number(signal) }) });
  }
  expect(keeper.judge([container], undefined, 0)).toEqual([]);
  return keeper
    .judge([container], served === 'unknown' ? undefined : served, 5_000)
    .map(({ start, reason }) => [start, reason])[0];
}

describe('a container that stopped', () => {
  it.each<[string, string[], unknown]>([
    ['docker kill', ['start', 'kill 9', 'die'], [true, 'was killed']],
    ['docker stop', ['start', 'kill 15', 'die', 'stop'], [false, 'was asked to stop']],
    ['docker stop that took too long', ['kill 15', 'kill 9', 'die', 'stop'], [false, 'was asked to stop']],
    ['a stop of nginx', ['kill 3', 'die', 'stop'], [false, 'was asked to stop']],
    ['a stop of PostgreSQL', ['kill 2', 'die', 'stop'], [false, 'was asked to stop']],
    [
      'a crash that the engine leaves alone, some time after a reload',
      ['kill 1', 'die'],
      [true, 'ended with exit code 137'],
    ],
    [
      'docker kill after a stop and a start',
      ['kill 15', 'die', 'stop', 'start', 'kill 9', 'die'],
      [true, 'was killed'],
    ],
    [
      'docker stop after a kill and a start',
      ['kill 9', 'die', 'start', 'kill 15', 'die', 'stop'],
      [false, 'was asked to stop'],
    ],
  ])('by %s', (_name, events, verdict) => expect(after(events)).toEqual(verdict));

  it('before the keeper was there is judged by its exit code', () => {
    expect(after([])).toEqual([true, 'ended with exit code 137']);
    for (const exitCode of [0, 130, 131, 143])
      expect(after([], { ...api, exitCode })).toEqual([false, 'was asked to stop']);
  });

  it('is not started where the gateway does not send requests to it', () => {
    expect(after(['kill 9', 'die'], api, ['x-api-1-other'])).toBeUndefined();
    expect(after(['kill 9', 'die'], api, [])).toBeUndefined();
    // The gateway does not run, and is started first.
    expect(after(['kill 9', 'die'], api, 'unknown')).toBeUndefined();
    expect(after(['kill 9', 'die'], gateway, 'unknown')).toEqual([true, 'was killed']);
  });

  it('is spoken of once while it is left alone', () => {
    const keeper = new Keeper('x');
    keeper.observe({ container: 'a', action: 'stop' });
    const told = [0, 5_000, 10_000, 900_000].map((now) => keeper.judge([api], SERVED, now).length);
    expect(told).toEqual([0, 1, 0, 0]);
  });

  it('is forgotten when it is removed', () => {
    const keeper = new Keeper('x');
    keeper.observe({ container: 'a', action: 'stop' });
    keeper.observe({ container: 'a', action: 'destroy' });
    keeper.judge([api], SERVED, 0);
    expect(keeper.judge([api], SERVED, 5_000)).toMatchObject([{ start: true }]);
  });
});

it('what never stays up is tried at longer and longer intervals, at most a minute; once it did, soon again', () => {
  const keeper = new Keeper('x');
  const tries: number[] = [];
  const live = (from: number, to: number) => {
    for (let now = from; now < to; now += 500) {
      for (const { start } of keeper.judge([api], SERVED, now)) {
        expect(start).toBe(true);
        tries.push(now);
        keeper.tried('a', now);
        keeper.observe({ container: 'a', action: 'start' });
        keeper.observe({ container: 'a', action: 'die' });
      }
    }
  };
  live(0, 600_000);
  const pauses = tries.slice(1).map((at, index) => at - tries[index]!);
  expect(pauses).toEqual([...pauses].sort((a, b) => a - b));
  expect(Math.max(...pauses)).toBe(60_000);
  expect(pauses.length).toBeLessThan(20);
  const before = tries.length;
  live(1_200_000, 1_210_000);
  expect(tries.length).toBeGreaterThan(before + 1);
});

it('whatever happened before: who was asked to stop stays so, until it is started', () => {
  const event = fc.constantFrom('start', 'kill 9', 'kill 1', 'kill 15', 'die', 'stop');
  fc.assert(
    fc.property(fc.array(event), fc.array(fc.constantFrom('kill 9', 'kill 1', 'die', 'kill 15')), (past, since) => {
      expect(after([...past, 'start', 'kill 15', ...since])).toEqual([false, 'was asked to stop']);
      expect(after([...past, 'start', 'kill 9', 'die'])).toEqual([true, 'was killed']);
    }),
  );
});
