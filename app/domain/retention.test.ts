import fc from 'fast-check';
import { retentionCutoff } from './retention';

const isDue = (closedAt: string, now: string) => new Date(closedAt) < retentionCutoff(new Date(now), 7);

it.each([
  ['the day before the anniversary', '2019-11-22T09:00:00Z', '2026-11-21T12:00:00Z', false],
  ['the first moment of the anniversary', '2019-11-21T09:00:00Z', '2026-11-21T00:00:00Z', false],
  ['the last moment of the anniversary', '2019-11-21T00:00:00Z', '2026-11-21T23:59:59.999Z', false],
  ['the day after it', '2019-11-21T23:59:59.999Z', '2026-11-22T00:00:00Z', true],
  ['the turn of a year', '2019-12-31T23:59:59Z', '2027-01-01T00:00:00Z', true],
  ['29 February, on 28 February', '2020-02-29T12:00:00Z', '2027-02-28T23:59:59Z', false],
  ['29 February, on 1 March', '2020-02-29T12:00:00Z', '2027-03-01T00:00:00Z', true],
  ['1 March, on 1 March', '2020-03-01T00:00:00Z', '2027-03-01T12:00:00Z', false],
  ['28 February, on 29 February', '2021-02-28T23:59:59Z', '2028-02-29T00:00:00Z', true],
  ['1 March, on 29 February', '2021-03-01T00:00:00Z', '2028-02-29T23:59:59Z', false],
])('keeps a loan for whole years: %s', (_, closedAt, now, due) => {
  expect(isDue(closedAt, now)).toBe(due);
});

it('never goes back when time goes on, and never comes before the years are over', () => {
  const moment = fc.date({ min: new Date('1990-01-01'), max: new Date('2200-01-01'), noInvalidDate: true });
  fc.assert(
    fc.property(moment, fc.integer({ min: 0, max: 5_000 }), fc.integer({ min: 1, max: 100 }), (now, hours, years) => {
      const cutoff = retentionCutoff(now, years);
      expect(+retentionCutoff(new Date(+now + hours * 3_600_000), years)).toBeGreaterThanOrEqual(+cutoff);
      const lastClosed = new Date(+cutoff - 1);
      const over = [now.getUTCFullYear() - lastClosed.getUTCFullYear(), now.getUTCMonth() - lastClosed.getUTCMonth()];
      expect(over[0]! * 12 + over[1]!).toBeGreaterThanOrEqual(years * 12);
    }),
  );
});
