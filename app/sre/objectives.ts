import type { ObjectiveName, Promises } from '../config';
import { METRICS, requestRate } from '../telemetry/names';
import { FAST, isFailure, isUserRoute, type Sample, sumOf, USER_ROUTES } from './exposition';
import type { Prometheus, Value } from './prometheus';

/** What the service promises, how far it keeps it, and how much of what may fail has failed already. */
interface Promised {
  readonly name: ObjectiveName;
  /** Share of what must be good. */
  readonly objective: number;
  readonly meaning: string;
}

/** Age that the figures of the book may have, in seconds. */
export const FRESH_SECONDS = 60;

export const OBJECTIVES: readonly Promised[] = [
  { name: 'availability', objective: 0.999, meaning: 'Checks through the public entrance that were answered' },
  { name: 'success', objective: 0.99, meaning: 'Requests of users that did not fail for a reason of ours' },
  { name: 'latency', objective: 0.95, meaning: `Requests of users that were answered within ${FAST} s` },
  {
    name: 'freshness',
    objective: 0.995,
    meaning: `Time in which the figures of the book were at most ${FRESH_SECONDS} s old`,
  },
];

/** What is promised here: a stack may promise more, or less. */
export const promisedBy = (own: Promises): readonly Promised[] =>
  OBJECTIVES.map((promised) => ({ ...promised, objective: own[promised.name] ?? promised.objective }));

export interface ObjectiveFigures {
  readonly name: ObjectiveName;
  readonly meaning: string;
  readonly objective: number;
  /** Days that the figures are of; a fraction where it is less than one. */
  readonly window_days: number;
  /** Share of what was good in the window; null where nothing was asked, or nobody counted. */
  readonly measured: number | null;
  /** Share of what may fail. */
  readonly error_budget: number;
  /** Share of the budget that is left: 1 all, 0 none, less than 0 overdrawn. */
  readonly error_budget_remaining: number | null;
  /** 1 uses the budget up exactly by the end of the window. Of the last hour. */
  readonly burn_rate: number | null;
  /** At this rate. Null where it never is: nothing burns. */
  readonly budget_gone_in_hours: number | null;
  /** From the recorded series slo:*, from other series directly, or from what this process has counted. */
  readonly measured_by: 'recorded' | 'direct' | 'process' | 'none';
}

interface Measured {
  readonly objective?: number | undefined;
  readonly windowDays: number;
  /** Share of what was bad in the window. */
  readonly errors: number | undefined;
  /** Share of what was bad in the last hour. */
  readonly errorsOfHour: number | undefined;
  readonly by: 'recorded' | 'direct' | 'process';
}

/** The arithmetic of error budgets. Shares that are no numbers count as unknown. */
export function budgetOf(promised: Promised, measured: Measured): ObjectiveFigures {
  const objective = measured.objective ?? promised.objective;
  const budget = 1 - objective;
  const errors = known(measured.errors);
  const ofHour = known(measured.errorsOfHour);
  const remaining = errors === null || budget <= 0 ? null : 1 - errors / budget;
  const burn = ofHour === null || budget <= 0 ? null : ofHour / budget;
  const hours = remaining === null || burn === null ? NaN : (Math.max(0, remaining) * 24 * measured.windowDays) / burn;
  return {
    name: promised.name,
    meaning: promised.meaning,
    objective: rounded(objective),
    window_days: measured.windowDays,
    measured: errors === null ? null : rounded(1 - errors),
    error_budget: rounded(budget),
    error_budget_remaining: remaining === null ? null : rounded(remaining),
    burn_rate: burn === null ? null : rounded(burn),
    budget_gone_in_hours: burn !== null && burn > 0 && Number.isFinite(hours) ? rounded(hours) : null,
    measured_by: errors === null && ofHour === null ? 'none' : measured.by,
  };
}

/** Names that part of infra/ops records; a series without the label env is of a stack alone with its Prometheus. */
const RECORDED = {
  objective: 'slo:objective:ratio',
  periodError: 'slo:period_error:ratio',
  burn: 'slo:current_burn_rate:ratio',
  days: 'slo:time_period:days',
} as const;
const PERIOD_DAYS = 30;
/** 30 days of every series of every route would be too much to ask for a page. */
const DIRECT_DAYS = 1;

/**
 * @param env the label of this environment's series
 * @param own goes for what is not recorded; what is, tells what is promised as well
 */
export async function objectivesFrom(
  prometheus: Prometheus,
  env: string,
  at: number,
  own: Promises,
): Promise<ObjectiveFigures[]> {
  const names = Object.values(RECORDED).join('|');
  const recorded = await prometheus.query(`{__name__=~"${names}",env=~"${env}|"}`, at);
  const valueOf = (name: string, slo: ObjectiveName) => pick(recorded, name, slo);
  const direct = directExpressions(env);
  return Promise.all(
    promisedBy(own).map(async (promised) => {
      const { name } = promised;
      const objective = valueOf(RECORDED.objective, name);
      const errors = valueOf(RECORDED.periodError, name);
      const burn = valueOf(RECORDED.burn, name);
      if (objective !== undefined && (errors !== undefined || burn !== undefined)) {
        const windowDays = valueOf(RECORDED.days, name) ?? PERIOD_DAYS;
        const errorsOfHour = burn === undefined ? undefined : burn * (1 - objective);
        return budgetOf(promised, { objective, windowDays, errors, errorsOfHour, by: 'recorded' });
      }
      const [whole, hour] = await Promise.all(
        [`${DIRECT_DAYS}d`, '1h'].map(async (window) => (await prometheus.query(direct[name](window), at))[0]?.value),
      );
      return budgetOf(promised, { windowDays: DIRECT_DAYS, errors: whole, errorsOfHour: hour, by: 'direct' });
    }),
  );
}

/** Series of several rules may carry one name: any of them, since they are of one stack. */
function pick(recorded: readonly Value[], name: string, slo: ObjectiveName): number | undefined {
  return recorded.find(({ labels }) => labels['__name__'] === name && labels['slo'] === slo)?.value;
}

/** PromQL for whether users could get in; without a check through the entrance, whether any container answered. */
export const reachable = (env: string) =>
  `(max(probe_success{probe="api",env="${env}"}) or max(up{job="api",env="${env}"}))`;

/** PromQL for the share of what was bad in a window, such as 1h. */
export function directExpressions(env: string): Readonly<Record<ObjectiveName, (window: string) => string>> {
  const { httpRequestDuration, loansRefreshed } = METRICS;
  const users = `job="api",env="${env}",${USER_ROUTES}`;
  const count = `${httpRequestDuration.name}_count`;
  const sum = (selector: string, window: string, name: string = count) =>
    `sum(increase(${name}{${selector}}[${window}]))`;
  const answered = `${users},status_code!~"5.."`;
  return {
    availability: (window) => `1 - avg_over_time(${reachable(env)}[${window}:1m])`,
    // Without a single failure there is no series of failures; without requests there is nothing to divide by.
    success: (window) => {
      const all = `sum${requestRate(users, window)}`;
      return `(sum${requestRate(`${users},status_code=~"5.."`, window)} or 0 * ${all}) / (${all} > 0)`;
    },
    latency: (window) =>
      `1 - ${sum(`${answered},le="${FAST}"`, window, `${httpRequestDuration.name}_bucket`)} / (${sum(answered, window)} > 0)`,
    freshness: (window) =>
      `1 - avg_over_time((time() - min(${loansRefreshed.name}{job="api",env="${env}"}) <= bool ${FRESH_SECONDS})[${window}:1m])`,
  };
}

/** What the containers that this process belongs to have counted since they started; availability nobody sees from inside. */
export function objectivesOfProcess(
  samples: readonly Sample[],
  uptimeSeconds: number,
  own: Promises,
): ObjectiveFigures[] {
  const windowDays = Math.max(1, uptimeSeconds) / 86_400;
  const name = METRICS.httpRequestDuration.name;
  const all = sumOf(samples, `${name}_count`, isUserRoute) ?? 0;
  const failed = sumOf(samples, `${name}_count`, (labels) => isUserRoute(labels) && isFailure(labels)) ?? 0;
  const fast = sumOf(
    samples,
    `${name}_bucket`,
    (labels) => isUserRoute(labels) && !isFailure(labels) && labels['le'] === FAST,
  );
  const share = (bad: number, of: number) => (of > 0 ? bad / of : undefined);
  const errors: Record<ObjectiveName, number | undefined> = {
    availability: undefined,
    success: share(failed, all),
    latency: share(all - failed - (fast ?? 0), all - failed),
    freshness: undefined,
  };
  return promisedBy(own).map((promised) =>
    budgetOf(promised, {
      windowDays,
      errors: errors[promised.name],
      errorsOfHour: errors[promised.name],
      by: 'process',
    }),
  );
}

function known(share: number | undefined): number | null {
  return share === undefined || !Number.isFinite(share) ? null : share;
}

/** Nine digits: what a subtraction leaves beyond them says nothing. */
export function rounded(value: number): number {
  return Number(value.toPrecision(9));
}
