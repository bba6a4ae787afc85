import * as units from '@grafana/grafana-foundation-sdk/units';
import { PROMETHEUS_METRICS } from '../exporters';
import { versions } from './api';
import { type Bounds, type DashboardSpec, OVERVIEW, type PanelSpec } from './builder';
import { BUSINESS_UID, shared as business } from './business';
import { connectionsUsed } from './database';
import { reachable } from './gateway';
import { targets } from './monitoring';
import { REQUESTS_UID, shared as requests } from './requests';
import { disks, RESOURCES_UID, shared as resources } from './resources';
import { budgetRemaining } from './slo';

interface Options extends Bounds {
  /** What the names of the stack's containers begin with. */
  readonly prefix: string;
}

/** The first page: one look, and which dashboard is next. */
export const overviewDashboard = (options: Options): DashboardSpec => {
  const { cpu, memory } = resources(options.prefix);
  const leadsTo = (uid: string, panels: readonly PanelSpec[]) => panels.map((panel) => ({ ...panel, more: uid }));
  return {
    uid: OVERVIEW,
    title: 'Overview',
    description: 'Is all well? If not, which dashboard is next.',
    rows: {
      'Is all well': wellness(),
      Users: leadsTo(REQUESTS_UID, Object.values(requests(options))),
      Book: leadsTo(BUSINESS_UID, [{ ...business.loans, width: 10 }, { ...business.created, width: 10 }, business.age]),
      Resources: [
        ...leadsTo(RESOURCES_UID, [cpu, memory]),
        { ...connectionsUsed(options), width: 8, more: 'loans-postgres' },
        ...leadsTo(RESOURCES_UID, [disks.used, disks.fullIn]),
      ],
      'Versions and alerts': running(options.prefix),
    },
  };
};

function wellness(): PanelSpec[] {
  const { alerts } = PROMETHEUS_METRICS;
  const firingOf = (severity: string) =>
    `count(${alerts}{alertstate="firing",severity="${severity}",env=~"$env|"}) or vector(0)`;
  return [
    { ...reachable, more: 'loans-edge' },
    { ...budgetRemaining, more: 'loans-slo' },
    {
      kind: 'stat',
      title: 'Alerts',
      description: 'Alerts that fire now, by severity. Critical: someone is called; the list below says for what.',
      unit: units.Short,
      width: 4,
      queries: { critical: firingOf('critical'), warning: firingOf('warning') },
      thresholds: { warning: 1 },
      thresholdsOf: { critical: { critical: 1 } },
    },
    { ...targets, width: 6, more: 'loans-monitoring' },
  ];
}

function running(prefix: string): PanelSpec[] {
  return [
    { ...versions(prefix), more: 'loans-api' },
    {
      kind: 'alerts',
      title: 'Alerts by rule',
      description:
        'What fires or is about to, and since when: the rules of Prometheus, and the one of Grafana that says when Prometheus does not answer.',
      width: 12,
      queries: {},
    },
    {
      kind: 'text',
      title: 'Logs',
      description: 'Where the logs are: on the engine, read by a command.',
      width: 24,
      height: 4,
      queries: {},
      content: [
        'Logs are read where the stack is run from, all containers in one order:',
        '`make logs STACK=<stack> LEVEL=error SINCE=1h`; one request through gateway and API:',
        '`make logs STACK=<stack> REQUEST=<X-Request-ID>`. See also `make status` and `make releases`.',
      ].join(' '),
    },
  ];
}
