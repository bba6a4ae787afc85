import * as units from '@grafana/grafana-foundation-sdk/units';
import { certificateDaysCritical } from '../alerts';
import { ACCESS_LOG_METRICS as log, JOBS, NGINX_METRICS as nginx, PROBE_METRICS as probe } from '../exporters';
import {
  type Bounds,
  type DashboardSpec,
  failureBounds,
  latencyBounds,
  type PanelSpec,
  STATUS_COLOURS,
} from './builder';
import { min, seriesOf, shareOf, sum } from './query';

const gateway = seriesOf(JOBS.nginx);
const answers = seriesOf(JOBS.accessLog);
const outside = seriesOf(JOBS.probe);
const NO_REQUESTS = 'no requests';

/** What the overview shows too. */
export const reachable: PanelSpec = {
  kind: 'stat',
  title: 'Reachable',
  description: 'Whether the stack answers through its public entrance, asked by a probe. Down: users see it too.',
  unit: units.BoolYesNo,
  width: 6,
  queries: { '{{probe}}': min(outside.select(probe.success), 'probe') },
  words: { 0: 'down', 1: 'up' },
  thresholds: { critical: 1, low: true },
  alerts: ['ProbeFailing', 'ApiHealthFailing'],
};

export const gatewayDashboard = (bounds: Bounds): DashboardSpec => ({
  uid: 'loans-edge',
  title: 'Gateway',
  description: 'What comes in at the edge: connections, answers and times as nginx sees them, probes, certificate.',
  rows: { 'From outside': probes(bounds), 'From the access log': accessLog(bounds), nginx: connections() },
});

function probes({ thresholds }: Bounds): PanelSpec[] {
  const DAY = 86_400;
  return [
    reachable,
    {
      kind: 'stat',
      title: 'Certificate expires in',
      description: `Days left of the certificate that the gateway shows. Below ${thresholds.certificateDays} days: renew it, or see why it was not.`,
      // Grafana's own unit of days writes weeks.
      unit: 'suffix:d',
      decimals: 1,
      width: 6,
      queries: { certificate: `(${min(outside.select(probe.certificateExpiry))} - time()) / ${DAY}` },
      thresholds: {
        warning: thresholds.certificateDays,
        critical: certificateDaysCritical(thresholds),
        low: true,
      },
      alerts: ['TlsCertificateExpiresSoon', 'TlsCertificateExpiresVerySoon'],
    },
    {
      title: 'Probe success',
      description: 'Share of probes that were answered. A gap of seconds is a gateway that was replaced.',
      unit: units.PercentUnit,
      width: 6,
      queries: { '{{probe}}': `min by (probe) (${outside.select(probe.success)})` },
      // No area: anything below 1 is a failure, and all of the graph would be red.
      softMin: 0.8,
      alerts: ['ProbeFailing'],
    },
    {
      kind: 'stacked',
      title: 'Probe phases',
      description:
        'Where the time of the probe of the API goes. Processing is ours; connect and TLS are the way and the gateway.',
      unit: units.Seconds,
      width: 6,
      queries: { '{{phase}}': `avg by (phase) (${outside.select(probe.phases, 'probe="api"')})` },
    },
  ];
}

function accessLog(bounds: Bounds): PanelSpec[] {
  const responses = (...matchers: readonly string[]) => answers.rate(log.responses, ...matchers);
  return [
    {
      kind: 'stacked',
      title: 'Answers at the edge by status',
      description:
        'Answers per second, those that the gateway gave itself included (502, 503 and 504: it found no API).',
      unit: units.RequestsPerSecond,
      width: 8,
      queries: { '{{status}}': sum(responses(), 'status') },
      colours: STATUS_COLOURS,
      empty: NO_REQUESTS,
      alerts: ['ApiDown'],
    },
    {
      title: 'Error ratio at the edge',
      description:
        "Share of answers with status 5xx. 502 and 504 are the gateway's own: it found no API, or waited in vain for its answer.",
      unit: units.PercentUnit,
      decimals: 2,
      width: 8,
      queries: {
        '5xx': shareOf(sum(responses('status=~"5.+"')), sum(responses())),
        '502 and 504': shareOf(sum(responses('status=~"502|504"')), sum(responses())),
      },
      thresholds: failureBounds(bounds),
      empty: NO_REQUESTS,
      alerts: ['GatewayErrorRateHigh'],
    },
    {
      title: 'Latency at the edge',
      description:
        'Time from the first byte of a request to the last of its answer. Much above the latency of the API: slow clients, or the gateway.',
      unit: units.Seconds,
      width: 8,
      queries: {
        p50: answers.quantile(0.5, log.seconds),
        p95: answers.quantile(0.95, log.seconds),
        p99: answers.quantile(0.99, log.seconds),
      },
      thresholds: latencyBounds(bounds),
      empty: NO_REQUESTS,
    },
  ];
}

function connections(): PanelSpec[] {
  return [
    {
      kind: 'stat',
      title: 'Up',
      description: 'Whether nginx answers Prometheus.',
      unit: units.BoolYesNo,
      width: 4,
      queries: { nginx: min(gateway.select(nginx.up)) },
      words: { 0: 'down', 1: 'up' },
      thresholds: { critical: 1, low: true },
      alerts: ['NginxDown'],
    },
    {
      title: 'Requests',
      description: 'Requests per second of every kind, probes and pages included.',
      unit: units.RequestsPerSecond,
      width: 6,
      queries: { requests: sum(gateway.rate(nginx.requests)) },
    },
    {
      kind: 'stacked',
      title: 'Connections by state',
      description: 'Reading: slow clients. Writing: requests under way. Waiting: kept for the next one.',
      unit: units.Short,
      width: 7,
      queries: {
        reading: sum(gateway.select(nginx.reading)),
        writing: sum(gateway.select(nginx.writing)),
        waiting: sum(gateway.select(nginx.waiting)),
      },
    },
    {
      title: 'Connections dropped',
      description:
        'Connections per second that were accepted and then not handled. Any: nginx is out of connections or files.',
      unit: units.CountsPerSecond,
      width: 7,
      queries: { dropped: `${sum(gateway.rate(nginx.accepted))} - ${sum(gateway.rate(nginx.handled))}` },
      alerts: ['NginxDroppedConnections'],
    },
  ];
}
