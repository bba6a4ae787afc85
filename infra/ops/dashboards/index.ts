import { apiDashboard } from './api';
import { type Bounds, build, type DashboardSpec, OVERVIEW, type Places } from './builder';
import { businessDashboard } from './business';
import { databaseDashboard } from './database';
import { gatewayDashboard } from './gateway';
import { monitoringDashboard } from './monitoring';
import { overviewDashboard } from './overview';
import { requestsDashboard } from './requests';
import { resourcesDashboard } from './resources';
import { sloDashboard } from './slo';

export interface DashboardOptions extends Bounds, Places {
  /** What the names of the stack's containers begin with, such as branchloans-staging. */
  readonly prefix: string;
  /** Database connections that one API container may hold: its pool's size times its processes. */
  readonly connectionsPerContainer: number;
}

/** Path in Grafana of the dashboard that it opens with. */
export const HOME_PATH = `/d/${OVERVIEW}`;

/** All dashboards, in the order in which they are read. */
export function dashboards(options: DashboardOptions): DashboardSpec[] {
  return [
    overviewDashboard(options),
    sloDashboard(options.objectives.periodDays),
    requestsDashboard(options),
    apiDashboard(options),
    databaseDashboard(options),
    gatewayDashboard(options),
    resourcesDashboard(options.prefix),
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
    dashboards(options).map((spec) => [`${spec.uid}.json`, `${JSON.stringify(build(spec, options))}\n`]),
  );
}
