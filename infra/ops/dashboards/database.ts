import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { CONNECTIONS_EXHAUSTED } from '../alerts';
import { JOBS, POSTGRES_METRICS as pg } from '../exporters';
import { type Bounds, type DashboardSpec, type PanelSpec, shareFrom } from './builder';
import { max, min, ratio, seriesOf, sum } from './query';

const api = seriesOf(JOBS.api);
const postgres = seriesOf(JOBS.postgres);
/** The databases that hold something of ours. */
const OURS = 'datname!~"template.*|postgres|"';

/** What the overview shows too. */
export const connectionsUsed = ({ thresholds: { connectionsPercent } }: Bounds): PanelSpec => ({
  kind: 'gauge',
  title: 'Connections used',
  description: `Connections of those that ordinary roles may open. Above ${connectionsPercent} % a deploy, which needs twice the pools, may not get through.`,
  unit: units.PercentUnit,
  width: 8,
  queries: {
    used: ratio(
      sum(postgres.select(pg.activity)),
      `(${sum(postgres.select(pg.maxConnections))} - ${sum(postgres.select(pg.reservedConnections))})`,
    ),
  },
  thresholds: { warning: shareFrom(connectionsPercent), critical: CONNECTIONS_EXHAUSTED },
  alerts: ['PostgresConnectionsHigh', 'PostgresConnectionsExhausted'],
});

export const databaseDashboard = (bounds: Bounds): DashboardSpec => ({
  uid: 'loans-postgres',
  title: 'Loans / Database',
  description: 'Which queries take the time, as the API measures them and as PostgreSQL does, and how the server is.',
  jobs: [JOBS.api, JOBS.postgres],
  rows: {
    'Queries as the API sees them': queries(),
    'Statements as PostgreSQL sees them': statements(),
    Server: server(bounds),
    'Storage and locks': storage(),
  },
});

function queries(): PanelSpec[] {
  const duration = METRICS.dbQueryDuration.name;
  return [
    {
      title: 'Query time p95 by operation',
      description: 'Time of one query as the API measures it, with the network but without waiting for a connection.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{operation}}': api.quantile(0.95, duration, ['operation']) },
      thresholds: { warning: 0.1, critical: 0.5 },
    },
    {
      title: 'Queries by operation',
      description:
        'Queries per second by the name of the operation. More of them with as many requests: a loop of queries.',
      unit: units.OpsPerSecond,
      width: 12,
      queries: { '{{operation}}': sum(api.rate(`${duration}_count`), 'operation') },
    },
    {
      title: 'Time in queries by operation',
      description: 'Seconds of queries in each second: what to make faster first.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{operation}}': sum(api.rate(`${duration}_sum`), 'operation') },
    },
    {
      title: 'Slow queries by operation',
      description:
        'Queries above the threshold of the slow query log, in each step of the graph. `make logs` shows them.',
      unit: units.Short,
      width: 8,
      queries: { '{{operation}}': sum(api.increase(METRICS.dbSlowQueries.name), 'operation') },
    },
    {
      title: 'Query errors by SQLSTATE class',
      description: 'Failed queries per second. 08 and "connection": unreachable; 40: conflicts; 53: out of resources.',
      unit: units.OpsPerSecond,
      width: 8,
      queries: { '{{sqlstate_class}}': sum(api.rate(METRICS.dbQueryErrors.name), 'sqlstate_class') },
      alerts: ['ApiDatabaseAway'],
    },
  ];
}

function statements(): PanelSpec[] {
  const seconds = postgres.rate(pg.statementSeconds, OURS);
  const calls = postgres.rate(pg.statementCalls, OURS);
  const top = (expression: string) => `topk(10, ${expression})`;
  return [
    {
      title: 'Mean statement time',
      description:
        'Time of a statement inside PostgreSQL. Rising with the same statements: missing index, locks or slow disk.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{datname}}': ratio(sum(seconds, 'datname'), sum(calls, 'datname')) },
      thresholds: { warning: 0.1, critical: 0.5 },
      alerts: ['PostgresMeanQueryTimeHigh'],
    },
    {
      title: 'Rows by database',
      description:
        'Rows per second that statements returned or changed. Many more than before with as many requests: a filter is missing.',
      unit: units.OpsPerSecond,
      width: 12,
      queries: { '{{datname}}': sum(postgres.rate(pg.statementRows, OURS), 'datname') },
    },
    {
      kind: 'table',
      title: 'Statements by total time',
      description:
        'Seconds in each second, by the id of pg_stat_statements; its query gives the text. The first is what to make faster.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{queryid}}': top(sum(seconds, 'queryid', 'user')) },
    },
    {
      kind: 'table',
      title: 'Statements by calls',
      description: 'Calls per second. A statement that is called far oftener than there are requests is in a loop.',
      unit: units.OpsPerSecond,
      width: 8,
      queries: { '{{queryid}}': top(sum(calls, 'queryid', 'user')) },
    },
    {
      kind: 'table',
      title: 'Statements by mean time',
      description: 'Seconds of one call. Above 0.5 s a statement of the API should not be here.',
      unit: units.Seconds,
      width: 8,
      queries: { '{{queryid}}': top(ratio(sum(seconds, 'queryid', 'user'), sum(calls, 'queryid', 'user'))) },
      thresholds: { warning: 0.1, critical: 0.5 },
    },
  ];
}

function server(bounds: Bounds): PanelSpec[] {
  return [
    {
      kind: 'stat',
      title: 'Up',
      description:
        'Whether the exporter reaches PostgreSQL. Down: the API answers 503 for whatever needs the database.',
      unit: units.BoolYesNo,
      width: 4,
      queries: { PostgreSQL: min(postgres.select(pg.up)) },
      words: { 0: 'down', 1: 'up' },
      thresholds: { critical: 1, low: true },
      alerts: ['PostgresDown'],
    },
    {
      kind: 'stat',
      title: 'Exporter errors',
      description: 'Whether the exporter failed to read something at its last scrape. Then panels here miss data.',
      unit: units.BoolYesNo,
      width: 4,
      queries: { errors: max(postgres.select(pg.lastScrapeError)) },
      words: { 0: 'none', 1: 'some' },
      thresholds: { critical: 1 },
      alerts: ['PostgresExporterErrors'],
    },
    { ...connectionsUsed(bounds), width: 6 },
    {
      kind: 'stacked',
      title: 'Connections by state',
      description: 'Connections by what they do. "idle in transaction" that stays holds locks, and keeps dead rows.',
      unit: units.Short,
      width: 10,
      queries: { '{{state}}': sum(postgres.select(pg.activity, OURS), 'state') },
    },
    {
      title: 'Transactions',
      description: 'Transactions per second. Rollbacks above 10 % of commits: look at the query errors.',
      unit: units.OpsPerSecond,
      width: 12,
      queries: {
        'committed {{datname}}': sum(postgres.rate(pg.commits, OURS), 'datname'),
        'rolled back {{datname}}': sum(postgres.rate(pg.rollbacks, OURS), 'datname'),
      },
      alerts: ['PostgresRollbackRatioHigh'],
    },
    {
      title: 'Longest transaction',
      description:
        'Age of the oldest transaction by state. Minutes: it keeps others waiting, and VACUUM from cleaning.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{state}}': max(postgres.select(pg.longestTransaction, OURS), 'state') },
      thresholds: { warning: 60, critical: 300 },
      alerts: ['PostgresLongTransaction'],
    },
  ];
}

function storage(): PanelSpec[] {
  const hit = sum(postgres.rate(pg.blocksHit, OURS), 'datname');
  const read = sum(postgres.rate(pg.blocksRead, OURS), 'datname');
  return [
    {
      title: 'Cache hit ratio',
      description: 'Share of blocks that were in memory. Below 95 % for long: the working set no longer fits.',
      unit: units.PercentUnit,
      width: 8,
      queries: { '{{datname}}': ratio(hit, `(${hit} + ${read})`) },
      thresholds: { warning: 0.98, critical: 0.95, low: true },
      alerts: ['PostgresCacheHitRatioLow'],
    },
    {
      title: 'Rows read and written',
      description: 'Rows per second. Fetched that rises without more requests: a query reads more than it needs.',
      unit: units.OpsPerSecond,
      width: 8,
      queries: {
        fetched: sum(postgres.rate(pg.tuplesFetched, OURS)),
        inserted: sum(postgres.rate(pg.tuplesInserted, OURS)),
        updated: sum(postgres.rate(pg.tuplesUpdated, OURS)),
        deleted: sum(postgres.rate(pg.tuplesDeleted, OURS)),
      },
    },
    {
      title: 'Database size',
      description: 'Bytes of the files of each database. Compare its growth with the free disk of the host.',
      unit: units.BytesIEC,
      width: 8,
      queries: { '{{datname}}': sum(postgres.select(pg.databaseSize, OURS), 'datname') },
    },
    {
      kind: 'stacked',
      title: 'Locks by mode',
      description: 'Locks held. An AccessExclusiveLock outside a migration stops everybody else.',
      unit: units.Short,
      width: 12,
      queries: { '{{mode}}': sum(postgres.select(pg.locks, OURS), 'mode') },
    },
    {
      title: 'Deadlocks',
      description: 'Deadlocks in each step of the graph. Zero is normal: the API locks in one order.',
      unit: units.Short,
      width: 12,
      queries: { '{{datname}}': sum(postgres.increase(pg.deadlocks, OURS), 'datname') },
      thresholds: { warning: 1 },
      alerts: ['PostgresDeadlocks'],
    },
  ];
}
