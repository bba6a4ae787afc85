import fc from 'fast-check';
import { readExposition } from './exposition';
import { budgetOf, OBJECTIVES, objectivesOfProcess } from './objectives';

const [availability] = OBJECTIVES;
const share = fc.double({ min: 0, max: 1, noNaN: true });

describe('the arithmetic of a budget', () => {
  it('by example: half of 0.1 % in 30 days, at three times the rate', () => {
    const figures = budgetOf(availability!, { windowDays: 30, errors: 0.0005, errorsOfHour: 0.003, by: 'recorded' });
    expect(figures).toMatchObject({
      ...{ objective: 0.999, measured: 0.9995, error_budget: 0.001, error_budget_remaining: 0.5, burn_rate: 3 },
      // Half of 30 days at three times the rate.
      ...{ budget_gone_in_hours: 120, measured_by: 'recorded' },
    });
  });

  it('keeps its figures together, whatever was measured', () => {
    const objective = fc.double({ min: 0.5, max: 0.9999, noNaN: true });
    fc.assert(
      fc.property(objective, share, share, fc.integer({ min: 1, max: 90 }), (aim, errors, ofHour, windowDays) => {
        const promised = { ...availability!, objective: aim };
        const f = budgetOf(promised, { windowDays, errors, errorsOfHour: ofHour, by: 'direct' });
        const close = (a: number, b: number) => expect(Math.abs(a - b)).toBeLessThanOrEqual(1e-6 * (1 + Math.abs(b)));
        close(f.measured!, 1 - errors);
        // What is left and what is used make one budget.
        close(f.error_budget_remaining! + errors / f.error_budget, 1);
        // Nothing is left exactly where the aim was missed.
        if (Math.abs(errors - f.error_budget) > 1e-6) {
          expect(f.error_budget_remaining! > 0).toBe(f.measured! > f.objective);
        }
        // A rate of 1 for the whole window uses the whole budget.
        close(f.burn_rate! * f.error_budget, ofHour);
        if (f.budget_gone_in_hours !== null) {
          close(f.budget_gone_in_hours * f.burn_rate!, Math.max(0, f.error_budget_remaining!) * 24 * windowDays);
        } else expect(f.burn_rate).toBeLessThan(1e-300);
      }),
    );
  });

  it('knows nothing of what nobody measured', () => {
    for (const unknown of [undefined, NaN, Infinity]) {
      const f = budgetOf(availability!, { windowDays: 30, errors: unknown, errorsOfHour: unknown, by: 'direct' });
      expect([f.measured, f.error_budget_remaining, f.burn_rate, f.budget_gone_in_hours, f.measured_by]).toEqual([
        ...[null, null, null, null, 'none'],
      ]);
    }
  });
});

it('a process counts users, their failures and how fast they were served, and nobody else', () => {
  const series = (route: string, status: number, fast: number, all: number) =>
    `http_request_duration_seconds_bucket{le="0.2",method="GET",route="${route}",status_code="${status}"} ${fast}
http_request_duration_seconds_bucket{le="+Inf",method="GET",route="${route}",status_code="${status}"} ${all}
http_request_duration_seconds_count{method="GET",route="${route}",status_code="${status}"} ${all}`;
  const text = [
    series('/api/loans', 200, 80, 90),
    series('/api/loans/:id', 404, 6, 6),
    series('/api/stats', 503, 4, 4),
    series('/health', 500, 0, 1_000),
    series('/sre/dashboard', 500, 0, 1_000),
    series('/metrics', 200, 0, 1_000),
  ].join('\n');
  const by = Object.fromEntries(
    objectivesOfProcess(readExposition(text), 3_600, {}).map((figures) => [figures.name, figures]),
  );
  expect(by['success']).toMatchObject({ measured: 0.96, error_budget_remaining: -3, measured_by: 'process' });
  expect(by['latency']!.measured).toBeCloseTo(86 / 96, 8);
  expect(by['availability']).toMatchObject({ measured: null, measured_by: 'none' });
  expect(by['freshness']).toMatchObject({ measured: null, measured_by: 'none' });
  expect(by['success']!.window_days).toBeCloseTo(1 / 24, 9);
});

it('goes by what the stack promises where it promises something else', () => {
  const text = [
    'http_request_duration_seconds_count{method="GET",route="/api/loans",status_code="200"} 98',
    'http_request_duration_seconds_count{method="GET",route="/api/loans",status_code="500"} 2',
  ].join('\n');
  const [availability, success] = objectivesOfProcess(readExposition(text), 3_600, { success: 0.96 });
  expect(availability).toMatchObject({ objective: 0.999 });
  expect(success).toMatchObject({ objective: 0.96, error_budget: 0.04, error_budget_remaining: 0.5, burn_rate: 0.5 });
});
