import * as units from '@grafana/grafana-foundation-sdk/units';
import { PROMETHEUS_METRICS } from '../exporters';
import { burnFactor, type Period, TIERS } from '../slo';
import type { DashboardSpec, PanelSpec } from './builder';

const CHOSEN = '{slo=~"$slo",env=~"$env"}';
/** The same in every environment, and perhaps without its label. */
const EVERYWHERE = '{slo=~"$slo"}';
const errorRatio = (window: string) => `slo:sli_error:ratio_rate${window}${CHOSEN}`;

/** Burn rate over an hour from which on somebody is called. */
const pagesFrom = (periodDays: Period) =>
  Math.max(...TIERS.filter(({ long }) => long === '1h').map((tier) => burnFactor(tier, periodDays)));

/** What the overview shows too. */
export const budgetRemaining: PanelSpec = {
  kind: 'gauge',
  title: 'Error budget remaining',
  description:
    'What is left of the failures that the objective allows in its period. Below 0: no risky deploy until it recovers.',
  unit: units.PercentUnit,
  width: 12,
  queries: { '{{slo}}': 'slo:error_budget_remaining:ratio{env=~"$env"}' },
  thresholds: { warning: 0.25, critical: 0, low: true },
  alerts: ['SLOErrorBudgetExhausted'],
};

/** Reads recorded series only, so that 30 days of it are as fast as an hour. */
export const sloDashboard = (periodDays: Period): DashboardSpec => ({
  uid: 'loans-slo',
  title: 'Loans / SLO and error budget',
  description: 'Whether users get what was promised, how much of the error budget is left and how fast it goes.',
  jobs: [],
  variables: { slo: { series: 'slo:objective:ratio', label: 'slo' } },
  rows: { 'Where we stand': standing(periodDays), Burn: burn(periodDays) },
});

function standing(periodDays: Period): PanelSpec[] {
  const pages = pagesFrom(periodDays);
  const goneIn = Number(((24 * periodDays) / pages).toFixed(0));
  return [
    {
      kind: 'stat',
      title: 'Objective',
      description: 'What was promised, as a share of requests, or of time. To compare with the next panel.',
      unit: units.PercentUnit,
      width: 6,
      queries: { '{{slo}}': `slo:objective:ratio${EVERYWHERE}` },
    },
    {
      kind: 'stat',
      title: 'Reached over the period',
      description: 'What users got over the period of the objective. Below the objective it is missed.',
      unit: units.PercentUnit,
      width: 6,
      queries: { '{{slo}}': `1 - slo:period_error:ratio${CHOSEN}` },
    },
    { ...budgetRemaining, queries: { '{{slo}}': `slo:error_budget_remaining:ratio${CHOSEN}` } },
    {
      kind: 'stat',
      title: 'Burn rate over an hour',
      description: `At 1 the budget lasts exactly its period; at ${pages} it is gone in ${goneIn} hours, and somebody is called.`,
      unit: units.NoUnit,
      width: 12,
      queries: { '{{slo}}': `slo:current_burn_rate:ratio${CHOSEN}` },
      thresholds: { warning: 1, critical: pages },
      alerts: ['SLOErrorBudgetBurn'],
    },
    {
      kind: 'table',
      title: 'Firing alerts of the objectives',
      description: 'Which objective burns too fast, over which window. Empty when all is well.',
      unit: units.NoUnit,
      width: 12,
      queries: {
        '{{alertname}} {{slo}}': `${PROMETHEUS_METRICS.alerts}{alertname=~"SLO.+",alertstate="firing",slo=~"$slo",env=~"$env"}`,
      },
      alerts: ['SLOErrorBudgetBurn', 'SLOErrorBudgetExhausted', 'SLOMetricAbsent'],
    },
  ];
}

function burn(periodDays: Period): PanelSpec[] {
  return [
    {
      title: 'Error ratio by window against the budget',
      description:
        'Share of failures over windows of growing length. A short and a long one above the line that pages: the budget burns now, and has for a while.',
      unit: units.PercentUnit,
      width: 24,
      queries: {
        ...Object.fromEntries(
          ['5m', '30m', '1h', '6h', '3d'].map((window) => [`{{slo}} ${window}`, errorRatio(window)]),
        ),
        '{{slo}} pages above': `${pagesFrom(periodDays)} * slo:error_budget:ratio${EVERYWHERE}`,
      },
      alerts: ['SLOErrorBudgetBurn'],
    },
    {
      title: 'Budget remaining over time',
      description: 'A slope is a slow leak, a step an incident.',
      unit: units.PercentUnit,
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
