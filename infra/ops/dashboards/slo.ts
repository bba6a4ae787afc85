import * as units from '@grafana/grafana-foundation-sdk/units';
import { PROMETHEUS_METRICS } from '../exporters';
import { burnFactor, type Period, type Tier, TIERS } from '../slo';
import type { DashboardSpec, PanelSpec } from './builder';
import { max, min, ratio } from './query';
import * as variables from './variables';

const CHOSEN = '{env=~"$env",slo=~"$slo"}';
const recorded = (name: string) => `${name}${CHOSEN}`;

/** Share of the budget: below the first no risky deploy, below the second none at all. */
const BUDGET = { warning: 0.25, critical: 0, low: true } as const;

/** From which burn rate on an alert tells, and from which on someone is called. */
function burnBounds({ severity, ...tier }: Tier, periodDays: Period) {
  const factor = burnFactor({ severity, ...tier }, periodDays);
  return severity === 'critical' ? { warning: 1, critical: factor } : { warning: factor };
}

/** Of the burn rate over an hour. */
const pagesFrom = (periodDays: Period) =>
  Math.max(...TIERS.filter(({ long }) => long === '1h').map((tier) => burnFactor(tier, periodDays)));

/** What the overview shows too. */
export const budgetRemaining: PanelSpec = {
  kind: 'gauge',
  title: 'Error budget remaining',
  description:
    'What is left of the failures that the objective allows in its period. Below 0: no risky deploy until it recovers.',
  unit: units.PercentUnit,
  decimals: 2,
  width: 8,
  queries: { '{{slo}}': `slo:error_budget_remaining:ratio${CHOSEN}` },
  thresholds: BUDGET,
  alerts: ['SLOErrorBudgetExhausted'],
};

/** Reads recorded series only, so that 30 days of it are as fast as an hour. */
export const sloDashboard = (periodDays: Period): DashboardSpec => ({
  uid: 'loans-slo',
  title: 'SLO and error budget',
  description: 'Whether users get what was promised, how much of the error budget is left and how fast it goes.',
  variables: [variables.slo],
  rows: { 'Where we stand': standing(periodDays), Burn: burn(periodDays) },
});

function standing(periodDays: Period): PanelSpec[] {
  const pages = pagesFrom(periodDays);
  const goneIn = Number(((24 * periodDays) / pages).toFixed(0));
  return [
    {
      kind: 'table',
      title: 'Objectives',
      description: `What was promised, as a share of requests or of time, and what users got over the ${periodDays} days of the objective. Reached below the objective: it is missed. At a burn rate of 1 the budget lasts exactly its period; at ${pages} it is gone in ${goneIn} hours, and someone is called.`,
      width: 16,
      queries: {
        Objective: max(recorded('slo:objective:ratio'), 'slo'),
        Reached: `1 - ${max(recorded('slo:period_error:ratio'), 'slo')}`,
        'Budget left': min(recorded('slo:error_budget_remaining:ratio'), 'slo'),
        'Burn rate (1 h)': max(recorded('slo:current_burn_rate:ratio'), 'slo'),
      },
      columns: [
        { heading: 'SLO', label: 'slo', sort: 'up' },
        { heading: 'Objective', unit: units.PercentUnit, decimals: 3 },
        { heading: 'Reached', unit: units.PercentUnit, decimals: 3 },
        { heading: 'Budget left', unit: units.PercentUnit, decimals: 2, thresholds: BUDGET },
        { heading: 'Burn rate (1 h)', unit: units.NoUnit, decimals: 2, thresholds: { warning: 1, critical: pages } },
      ],
      alerts: ['SLOErrorBudgetBurn', 'SLOErrorBudgetExhausted'],
    },
    budgetRemaining,
    {
      kind: 'table',
      title: 'Firing alerts of the objectives',
      description: 'Which objective burns too fast, over which window. Says "none fires" when all is well.',
      width: 24,
      height: 6,
      queries: {
        Value: `${PROMETHEUS_METRICS.alerts}{alertname=~"SLO.+",alertstate="firing",slo=~"$slo",env=~"$env"}`,
      },
      columns: [
        { heading: 'Severity', label: 'severity' },
        { heading: 'Alert', label: 'alertname' },
        { heading: 'SLO', label: 'slo' },
        { heading: 'Burn', label: 'burn' },
        { heading: 'Long window', label: 'long' },
        { heading: 'Short window', label: 'short' },
      ],
      empty: 'none fires',
      alerts: ['SLOErrorBudgetBurn', 'SLOErrorBudgetExhausted', 'SLOMetricAbsent'],
    },
  ];
}

function burn(periodDays: Period): PanelSpec[] {
  return [
    ...TIERS.map((tier): PanelSpec => ({
      title: `Burn rate over ${tier.long}`,
      description: `How many times faster than evenly over its period a budget is spent, over ${tier.long}. The ${tier.severity === 'critical' ? 'red' : 'yellow'} line is where the alert is, once the burn rate over ${tier.short} is above it too.`,
      unit: units.NoUnit,
      decimals: 2,
      width: 12,
      queries: {
        '{{slo}}': ratio(
          max(recorded(`slo:sli_error:ratio_rate${tier.long}`), 'slo'),
          max(recorded('slo:error_budget:ratio'), 'slo'),
        ),
      },
      thresholds: burnBounds(tier, periodDays),
      softMax: burnFactor(tier, periodDays),
      empty: 'nothing to judge',
      alerts: ['SLOErrorBudgetBurn'],
    })),
    {
      title: 'Budget remaining over time',
      description: 'A slope is a slow leak, a step an incident.',
      unit: units.PercentUnit,
      decimals: 2,
      width: 12,
      queries: { '{{slo}}': `slo:error_budget_remaining:ratio${CHOSEN}` },
    },
    {
      title: 'Requests behind the objective',
      description:
        'Events per second that are judged. Few of them: one failure is a large share. None: the objective is blind.',
      unit: units.OpsPerSecond,
      width: 12,
      queries: { '{{slo}}': `slo:sli_requests:rate5m${CHOSEN}`, '{{slo}} failed': `slo:sli_errors:rate5m${CHOSEN}` },
      alerts: ['SLOMetricAbsent'],
    },
  ];
}
