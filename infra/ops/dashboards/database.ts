import * as units from '@grafana/grafana-foundation-sdk/units';
import { METRICS } from '../../../app/telemetry/names';
import { CONNECTIONS_EXHAUSTED } from '../alerts';
import { JOBS, POSTGRES_METRICS as pg } from '../exporters';
import { type Bounds, type DashboardSpec, type PanelSpec, PER_MINUTE, shareFrom } from './builder';
import { max, min, perMinute, ratio, seriesOf, sum } from './query';
import * as variables from './variables';

const api = seriesOf(JOBS.api);
const postgres = seriesOf(JOBS.postgres);
const NO_QUERIES = 'no queries';
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
  title: 'Database',
  description: 'Which queries take the time, as the API measures them and as PostgreSQL does, and how the server is.',
  variables: [variables.replica],
  rows: {
    'Queries as the API sees them': queries(),
    'Statements as PostgreSQL sees them': statements(),
    Server: server(bounds),
    'Storage and locks': storage(),
    'WAL and checkpoints': wal(),
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
      empty: NO_QUERIES,
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
      width: 12,
      queries: { '{{operation}}': sum(api.rate(`${duration}_sum`), 'operation') },
    },
    {
      title: 'Slow queries by operation',
      description: 'Queries per minute above the threshold of the slow query log. `make logs` shows them.',
      unit: PER_MINUTE,
      width: 12,
      queries: { '{{operation}}': perMinute(sum(api.rate(METRICS.dbSlowQueries.name), 'operation')) },
    },
    {
      title: 'Query errors by SQLSTATE class',
      description: 'Failed queries per second. 08 and "connection": unreachable; 40: conflicts; 53: out of resources.',
      unit: units.OpsPerSecond,
      width: 24,
      queries: { '{{sqlstate_class}}': sum(api.rate(METRICS.dbQueryErrors.name), 'sqlstate_class') },
      alerts: ['ApiDatabaseAway'],
    },
  ];
}

function statements(): PanelSpec[] {
  const seconds = postgres.rate(pg.statementSeconds, OURS);
  const calls = postgres.rate(pg.statementCalls, OURS);
  const each = (expression: string) => sum(expression, 'queryid', 'user');
  /** The text beside the id, which alone says nothing. */
  const withText = (expression: string) =>
    `${expression} * on (queryid) group_left (query) ${max(postgres.select(pg.statementText), 'queryid', 'query')}`;
  return [
    {
      title: 'Mean statement time',
      description:
        'Time of a statement inside PostgreSQL. Rising with the same statements: missing index, locks or slow disk.',
      unit: units.Seconds,
      width: 12,
      queries: { '{{datname}}': ratio(sum(seconds, 'datname'), sum(calls, 'datname')) },
      thresholds: { warning: 0.1, critical: 0.5 },
      empty: NO_QUERIES,
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
      title: 'Statements',
      description:
        'The statements that take the most time, as pg_stat_statements knows them; values are left out of their texts. Time is seconds of all calls in a second: the first is what to make faster. A statement that is called far oftener than there are requests is in a loop. Above 0.5 s of one call a statement of the API should not be here.',
      width: 24,
      height: 12,
      queries: {
        Time: withText(each(seconds)),
        Calls: withText(each(calls)),
        'One call': withText(`(${ratio(each(seconds), each(calls))})`),
      },
      columns: [
        { heading: 'Statement', label: 'query' },
        { heading: 'Query id', label: 'queryid', width: 190 },
        { heading: 'Role', label: 'user', width: 120 },
        { heading: 'Time', unit: units.PercentUnit, decimals: 2, width: 90, sort: 'down' },
        { heading: 'Calls', unit: units.OpsPerSecond, width: 110 },
        {
          heading: 'One call',
          unit: units.Seconds,
          width: 110,
          thresholds: { warning: 0.1, critical: 0.5 },
        },
      ],
      empty: NO_QUERIES,
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
      empty: 'nothing read',
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
      title: 'Sessions that wait for a lock',
      description:
        'Sessions that want a lock which another one holds. Above zero for minutes: see the longest transaction, and who holds what (runbook).',
      unit: units.Short,
      width: 12,
      queries: {
        waiting: `${sum(postgres.select(pg.activity, 'wait_event_type="Lock"'))} or 0 * ${sum(postgres.select(pg.activity))}`,
      },
      thresholds: { warning: 1 },
      alerts: ['PostgresLongTransaction'],
    },
    {
      kind: 'stacked',
      title: 'Locks by mode',
      description: 'Locks held. An AccessExclusiveLock outside a migration stops all others.',
      unit: units.Short,
      width: 12,
      queries: { '{{mode}}': sum(postgres.select(pg.locks, OURS), 'mode') },
    },
    {
      title: 'Deadlocks',
      description: 'Deadlocks per minute. Zero is normal: the API locks in one order.',
      unit: PER_MINUTE,
      width: 12,
      queries: { '{{datname}}': perMinute(sum(postgres.rate(pg.deadlocks, OURS), 'datname')) },
      alerts: ['PostgresDeadlocks'],
    },
    {
      title: 'Temporary files',
      description:
        'Bytes per second that sorts and joins wrote to files, since they did not fit into work_mem. Zero is normal.',
      unit: units.BytesPerSecondSI,
      width: 12,
      queries: { '{{datname}}': sum(postgres.rate(pg.temporaryBytes, OURS), 'datname') },
    },
  ];
}

function wal(): PanelSpec[] {
  return [
    {
      title: 'WAL size',
      description:
        'Bytes of the write-ahead log on disk. Growing without an end: something keeps it from being removed.',
      unit: units.BytesIEC,
      width: 8,
      queries: { size: sum(postgres.select(pg.walBytes)) },
    },
    {
      title: 'Checkpoints',
      description:
        'Checkpoints per minute: by the clock, and because the log had grown too much. Many requested ones: max_wal_size is too small for the writes.',
      unit: PER_MINUTE,
      width: 8,
      queries: {
        timed: perMinute(sum(postgres.rate(pg.checkpointsTimed))),
        requested: perMinute(sum(postgres.rate(pg.checkpointsRequested))),
      },
    },
    {
      title: 'Time of checkpoints',
      description:
        'Share of the time in which checkpoints wrote files, and forced them to disk. Much of the latter: the disk is the limit.',
      unit: units.PercentUnit,
      width: 8,
      // Milliseconds.
      queries: {
        write: `${sum(postgres.rate(pg.checkpointWriteMs))} / 1000`,
        sync: `${sum(postgres.rate(pg.checkpointSyncMs))} / 1000`,
      },
    },
  ];
}
