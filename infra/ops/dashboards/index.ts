import { apiDashboard } from './api';
import { build, type DashboardSpec } from './builder';
import { businessDashboard } from './business';
import { databaseDashboard } from './database';
import { gatewayDashboard } from './gateway';
import { monitoringDashboard } from './monitoring';
import { overviewDashboard } from './overview';
import { requestsDashboard } from './requests';
import { resourcesDashboard } from './resources';
import { sloDashboard } from './slo';

export interface DashboardOptions {
  /** Where people read the alerts' pages, with a slash at the end: a path of the repository, or an address. */
  readonly runbooks: string;
  /** Database connections that one API container may hold: its pool's size times its processes. */
  readonly connectionsPerContainer: number;
}

/** File name of the dashboard that Grafana opens with. */
export const HOME = `${overviewDashboard.uid}.json`;

/** All dashboards, in the order in which they are read. */
export function dashboards({ connectionsPerContainer: connections }: DashboardOptions): DashboardSpec[] {
  return [
    overviewDashboard,
    sloDashboard,
    requestsDashboard,
    apiDashboard({ connections }),
    databaseDashboard,
    gatewayDashboard,
    resourcesDashboard,
    businessDashboard,
    monitoringDashboard,
  ];
}

/**
 * All dashboards as Grafana reads them: file name -> JSON text. Same program and options, same bytes. On one line: the
 * text stands in the stack's state, which is written many times in a deploy.
 */
export function renderDashboards(options: DashboardOptions): Record<string, string> {
  return Object.fromEntries(
    dashboards(options).map((spec) => [`${spec.uid}.json`, `${JSON.stringify(build(spec, options.runbooks))}\n`]),
  );
}
