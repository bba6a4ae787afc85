import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { JOBS, PROMETHEUS_METRICS } from '../exporters';
import type { Bounds, DashboardSpec, PanelSpec } from './builder';
import { currencyVariable, shared as business } from './business';
import { connectionsUsed } from './database';
import { reachable } from './gateway';
import { firing, targets } from './monitoring';
import { seriesOf } from './query';
import { shared } from './requests';
import { containerVariable, shared as resources } from './resources';
import { budgetRemaining } from './slo';

/** The first page: one look, and which dashboard is next. */
export const OVERVIEW = 'loans-overview';

export const overviewDashboard = (bounds: Bounds): DashboardSpec => ({
  uid: OVERVIEW,
  title: 'Loans / Overview',
  description: 'Is all well? If not, which dashboard is next.',
  jobs: Object.values(JOBS),
  variables: { ...containerVariable, ...currencyVariable },
  rows: {
    'Is all well': wellness(),
    Users: Object.values(shared(bounds)),
    Book: [{ ...business.loans, width: 10 }, { ...business.created, width: 10 }, business.age],
    Resources: [
      { ...resources.cpu, width: 8 },
      { ...resources.memory, width: 8 },
      { ...connectionsUsed(bounds), width: 8 },
    ],
    'What runs, and what fires': running(),
  },
});

function wellness(): PanelSpec[] {
  const { alerts } = PROMETHEUS_METRICS;
  const firingOf = (severity: string) =>
    `count(${alerts}{alertstate="firing",severity="${severity}",env=~"$env|"}) or vector(0)`;
  return [
    reachable,
    { ...budgetRemaining, width: 8 },
    {
      kind: 'stat',
      title: 'Alerts',
      description: 'Alerts that fire now, by severity. Critical: somebody is called; the list below says for what.',
      unit: units.Short,
      width: 4,
      queries: { critical: firingOf('critical'), warning: firingOf('warning') },
      thresholds: { warning: 1 },
    },
    { ...targets, width: 6 },
  ];
}

function running(): PanelSpec[] {
  const api = seriesOf(JOBS.api);
  return [
    {
      kind: 'table',
      title: 'Version running',
      description: 'What each replica runs. Two versions outside a deployment mean that it did not finish.',
      unit: units.NoUnit,
      width: 8,
      queries: { '{{version}}': api.select(METRICS.appInfo.name) },
    },
    firing(8),
    {
      kind: 'alerts',
      title: 'Alerts by rule',
      description: "The same from Grafana's side, with what is pending and its own rule that Prometheus can be asked.",
      unit: units.NoUnit,
      width: 8,
      queries: {},
    },
  ];
}
