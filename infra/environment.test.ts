import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import { EnvironmentError, readEnvironment } from './environment';

type Settings = Record<string, unknown>;

/** What Pulumi hands to the program: every value as text. */
function configurationOf(stack: string, change: (config: Settings) => void = () => undefined): Record<string, string> {
  const file = parse(readFileSync(resolve(__dirname, `../Pulumi.${stack}.yaml`), 'utf8')) as { config: Settings };
  change(file.config);
  return Object.fromEntries(
    Object.entries(file.config).map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
  );
}

const read = (stack: string, change?: (config: Settings) => void) =>
  readEnvironment(
    'branchloans',
    stack,
    configurationOf(stack, change),
    (key) => key !== 'branchloans:prometheusPassword',
  );

function faultsOf(change: (config: Settings) => void, stack = 'development'): readonly string[] {
  try {
    read(stack, change);
  } catch (error) {
    if (error instanceof EnvironmentError) return error.faults;
    throw error;
  }
  return [];
}

/** Changes one setting inside an object such as `branchloans:api`. */
const set = (name: string, key: string, value: unknown) => (config: Settings) => {
  (config[`branchloans:${name}`] as Settings)[key] = value;
};

it('takes as much memory as docs/LIMITS.md says', () => {
  const rows = readFileSync(resolve(__dirname, '../docs/LIMITS.md'), 'utf8').split('\n');
  for (const stack of ['development', 'staging', 'production']) {
    const { api, database, gateway, prometheus, alertmanager, grafana, exporters } = read(stack);
    const of = ({ limits }: { limits: { memoryMib: number } }) => limits.memoryMib;
    const running = [exporters.database, exporters.probes, exporters.host, exporters.containers].filter(Boolean).length;
    const parts = [
      api.replicas * of(api),
      of(database),
      of(gateway),
      of(prometheus),
      of(alertmanager),
      of(grafana),
      running * of(exporters),
    ];
    const row = rows.find((line) => line.startsWith(`| ${stack} `)) ?? '';
    const written = row.split('|').slice(2, -1).map(Number);
    expect([stack, ...written]).toEqual([stack, ...parts, parts.reduce((sum, part) => sum + part)]);
  }
});

it('has all exporters unless the settings say otherwise', () => {
  const { limits, database, probes, host, containers, socket } = read('production').exporters;
  expect({ database, probes, host, containers, socket }).toEqual({
    database: true,
    probes: true,
    host: true,
    containers: true,
    socket: '/var/run/docker.sock',
  });
  expect(limits).toEqual({ cpus: 0.25, memoryMib: 96 });
  const without = read('staging', (config) => (config['branchloans:exporters'] = { host: false })).exporters;
  expect([without.host, without.containers]).toEqual([false, true]);
});

describe('the environments that ship', () => {
  const numbers = {
    development: { cpus: 1, memoryMib: 512, healthcheck: [30, 5, 3], replicas: 1, https: 8443 },
    staging: { cpus: 2, memoryMib: 1024, healthcheck: [20, 4, 4], replicas: 2, https: 443 },
    production: { cpus: 4, memoryMib: 2048, healthcheck: [15, 3, 5], replicas: 2, https: 443 },
  };

  it.each(Object.entries(numbers))(
    '%s has the numbers of the core system, for the API and the database',
    (stack, n) => {
      const spec = read(stack);
      for (const service of [spec.api, spec.database]) {
        expect(service.limits).toMatchObject({ cpus: n.cpus, memoryMib: n.memoryMib });
        const { intervalSeconds, timeoutSeconds, retries } = service.healthcheck;
        expect([intervalSeconds, timeoutSeconds, retries]).toEqual(n.healthcheck);
      }
      expect(spec.api.replicas).toBe(n.replicas);
      expect(spec.gateway.ports.https).toBe(n.https);
    },
  );

  it('reserve memory in production alone, and weigh nobody', () => {
    const reserved = Object.keys(numbers).map((stack) => {
      const { api, database, gateway } = read(stack);
      expect([api, database, gateway].map(({ limits }) => limits.cpuShares)).toEqual(Array(3).fill(undefined));
      return [api, database, gateway].map(({ limits }) => limits.memoryReservationMib);
    });
    expect(reserved).toEqual([Array(3).fill(undefined), Array(3).fill(undefined), [640, 1024, undefined]]);
  });

  it('keep their databases where the core system kept them', () => {
    expect(read('development').database.volume).toEqual({ kind: 'volume', name: 'postgres_data_dev' });
    expect(read('staging').database.volume).toEqual({ kind: 'volume', name: 'postgres_data_staging' });
    expect(read('production').database.volume).toEqual({ kind: 'directory', path: '/var/lib/postgresql/data' });
  });

  it('promise what operations wants, and tell nobody unless they are told whom', () => {
    const { objectives, alerts } = read('production');
    expect(objectives).toEqual({
      periodDays: 30,
      objectives: { availability: 0.999, success: 0.99, latency: 0.95, freshness: 0.995 },
    });
    expect(alerts.receivers).toEqual({ webhook: false, watchdog: false, pager: undefined, mail: undefined });
    expect(alerts.thresholds).toMatchObject({ errorPercent: 5, errorsPerMinute: 5, p95Seconds: 1, healthPercent: 90 });
  });

  it('read who is told, and what is promised', () => {
    const { objectives, alerts } = read('staging', (c) => {
      c['branchloans:alertWebhook'] = 'https://hooks.example/x';
      c['branchloans:alertPager'] = 'key';
      c['branchloans:alertWatchdog'] = { secure: 'v1:abc' };
      c['branchloans:alerts'] = { pager: 'pagerduty', thresholds: { p95: '500ms' } };
      c['branchloans:slo'] = { period: '7d', availability: 99.5 };
    });
    expect(alerts.receivers).toEqual({ webhook: true, watchdog: true, pager: 'pagerduty', mail: undefined });
    expect(alerts.thresholds.p95Seconds).toBe(0.5);
    expect(objectives).toMatchObject({ periodDays: 7, objectives: { availability: 0.995 } });
  });

  it('take history as long as the error budget, thresholds that can be crossed, and secrets in their forms', () => {
    const { prometheus, alerts } = read('staging', (c) => {
      c['branchloans:prometheus'] = { retentionDays: 7 };
      c['branchloans:slo'] = { period: '7d' };
      c['branchloans:alerts'] = { pager: 'webhook', thresholds: { p95: '4999ms', errorPercent: 99.9 } };
      c['branchloans:alertPager'] = 'https://pager.example/x';
      c['branchloans:errorTracking'] = 'https://0a1b@o1.ingest.sentry.example:8443/path/42';
    });
    expect(prometheus.retentionDays).toBe(7);
    expect(alerts).toMatchObject({ receivers: { pager: 'webhook' }, thresholds: { p95Seconds: 4.999 } });
    for (const secret of ['alertPager', 'errorTracking']) {
      const encrypted = (c: Settings) => {
        c['branchloans:alerts'] = { pager: 'webhook' };
        c['branchloans:alertPager'] = 'https://pager.example/x';
        c[`branchloans:${secret}`] = { secure: 'v1:abc' };
      };
      expect(faultsOf(encrypted)).toEqual([]);
    }
  });

  it('name the URL that a browser opens', () => {
    expect(read('development').url).toBe('https://localhost:8443');
    expect(read('staging').url).toBe('https://branchloans.com');
  });

  it('ask for API keys, except development; no web site may call them; they answer to their own names', () => {
    expect(['development', 'staging', 'production'].map((stack) => read(stack).api.keys)).toEqual([
      'optional',
      'required',
      'required',
    ]);
    expect(read('staging').api.corsOrigins).toEqual([]);
    expect(read('development').api.hosts).toEqual(['localhost', 'branchloans.com', '127.0.0.1']);
    expect(read('production').api.hosts).toEqual(['branchloans.com', 'localhost', '127.0.0.1']);
  });

  it('publish the clear-text API in development only, and development on loopback only', () => {
    expect(read('development').gateway.ports.api).toBe(8000);
    expect(read('development').gateway.address).toBe('127.0.0.1');
    expect(read('staging').gateway.ports.api).toBeUndefined();
    expect(read('production').gateway.ports.api).toBeUndefined();
  });
});

it('have no canary unless they say so, and room for one', () => {
  for (const stack of ['development', 'staging', 'production']) {
    expect(read(stack).canary).toBeUndefined();
    const image = `sha256:${'a'.repeat(64)}`;
    const { canary } = read(stack, (c) => (c['branchloans:canary'] = { image, percent: 10 }));
    expect(canary).toEqual({ image, percent: 10, replicas: 1 });
  }
});

it('limit what one caller may ask for, but not in development', () => {
  expect(['development', 'staging', 'production'].map((stack) => read(stack).api.rateLimit)).toEqual([
    undefined,
    '10000/10',
    '10000/10',
  ]);
});

describe('wrong settings', () => {
  it('traces nothing unless told where to, and then lets clients decide', () => {
    expect(read('production').tracing).toBeUndefined();
    const tracing = { endpoint: 'http://collector:4318', sampleRatio: 0.29 };
    expect(read('production', (c) => (c['branchloans:tracing'] = tracing)).tracing).toEqual({
      ...tracing,
      clientsDecide: true,
    });
  });

  it.each(['*', 'null', 'desk.example', 'https://desk.example/', 'https://*.example'])(
    'the origin %s is refused',
    (origin) => {
      expect(faultsOf(set('api', 'corsOrigins', ['https://desk.example', origin]))).toEqual([
        expect.stringMatching(
          /^api\.corsOrigins\.1: .* is not valid: must be an origin such as https:\/\/desk\.example/,
        ),
      ]);
    },
  );

  it.each<[string, (config: Settings) => void, RegExp]>([
    ['a typo in a key', set('api', 'memroy', '512m'), /^api\.memroy: unknown setting; known here: .*memory/],
    [
      'a typo in a top-level key',
      (c) => (c['branchloans:gatway'] = {}),
      /^gatway: unknown setting; known here: .*gateway/,
    ],
    [
      'a typo in a nested key',
      set('api', 'healthcheck', { interval: '9s', timeout: '1s', retries: 1, intervall: '30s' }),
      /^api\.healthcheck\.intervall: unknown/,
    ],
    ['a typo in the namespace', (c) => (c['branchloan:api'] = 'x'), /^branchloan:api: not used here/],
    ['a wrong unit of memory', set('api', 'memory', '512x'), /^api\.memory: "512x" is not valid: .*512m or 2g/],
    [
      'more memory reserved than allowed',
      set('api', 'memoryReservation', '1g'),
      /^api\.memoryReservation: 1024m is more than api\.memory, 512m: reserve less, or allow more/,
    ],
    [
      'more memory reserved than is allowed without a word',
      set('gateway', 'memoryReservation', '129m'),
      /^gateway\.memoryReservation: 129m is more than gateway\.memory, 128m/,
    ],
    [
      'a reservation as a number',
      set('database', 'memoryReservation', 256),
      /^database\.memoryReservation: 256 .*unit/,
    ],
    ['a weight that is none', set('database', 'cpuShares', 1), /^database\.cpuShares: 1 .*must be at least 2/],
    ['a weight as text', set('api', 'cpuShares', 'much'), /^api\.cpuShares: "much" .*a whole number such as 2048/],
    ['memory without a unit', set('api', 'memory', 512), /^api\.memory: 512 is not valid: .*unit/],
    ['negative replicas', set('api', 'replicas', -1), /^api\.replicas: -1 is not valid: must be at least 1/],
    ['half a replica', set('api', 'replicas', 1.5), /^api\.replicas: 1\.5 is not valid: must be a whole number/],
    ['no CPU', set('database', 'cpus', 0), /^database\.cpus: 0 is not valid: must be at least 0\.1/],
    ['CPUs as text', set('database', 'cpus', 'two'), /^database\.cpus: "two" is not valid: must be a number of cores/],
    ['a time without unit', set('api', 'drain', '30'), /^api\.drain: "30" is not valid: must be a time/],
    ['a port that is none', set('gateway', 'ports', { https: 99999 }), /^gateway\.ports\.https: 99999 is not valid/],
    [
      'one port twice',
      set('gateway', 'ports', { https: 8443, http: 8443 }),
      /http: 8443 is taken by gateway\.ports\.https/,
    ],
    ['a volume that is neither', set('database', 'volume', 'data'), /^database\.volume: "data" is not valid/],
    ['an image that moves', (c) => (c['branchloans:image'] = 'loans:latest'), /^image: "loans:latest" .*exact version/],
    [
      'a major-only image',
      (c) => (c['branchloans:images'] = { postgres: 'postgres:18' }),
      /^images\.postgres: .*moves/,
    ],
    [
      'a rate without its window',
      set('api', 'rateLimit', '100'),
      /^api\.rateLimit: "100" .*such as 10000\/10, or none/,
    ],
    ['a capacity that is none', set('api', 'capacity', 0), /^api\.capacity: 0 .*must be more than 0/],
    ['a capacity as text', set('api', 'capacity', 'many'), /^api\.capacity: "many" .*requests per second/],
    ['a threshold without its unit', set('api', 'slowQuery', '200'), /^api\.slowQuery: "200" .*such as 200ms/],
    ['a rate as a number', set('api', 'rateLimit', 100), /^api\.rateLimit: 100 .*such as 10000\/10, or none/],
    ['the superuser for the service', set('database', 'user', 'postgres'), /^database\.user: .*superuser/],
    [
      'the owner for the service',
      set('database', 'user', 'branchloans_owner'),
      /^database\.user: .*role of the program itself/,
    ],
    ['a missing setting', (c) => delete c['branchloans:domain'], /^domain: not set/],
    [
      'a probe slower than its interval',
      set('api', 'healthcheck', { interval: '5s', timeout: '9s', retries: 1 }),
      /9s is longer/,
    ],
    [
      'more connections than the database has',
      set('api', 'replicas', 40),
      /^database\.maxConnections: 200 is too few: a deploy needs 800/,
    ],
    [
      'a canary for which the database has no connections',
      (c) => {
        set('database', 'maxConnections', 50)(c);
        c['branchloans:canary'] = { image: 'me/loans:1.4.0', percent: 10, replicas: 2 };
      },
      /^database\.maxConnections: 50 is too few: a deploy needs 60 \(2 x 1 replicas and 2 of the canary x 1 /,
    ],
    ['a canary without an image', (c) => (c['branchloans:canary'] = { percent: 10 }), /^canary\.image: not set/],
    [
      'a canary that moves',
      (c) => (c['branchloans:canary'] = { image: 'me/loans:main', percent: 10 }),
      /^canary\.image: .*"main" moves/,
    ],
    ...[0, 51, 2.5, '10'].map((percent): [string, (config: Settings) => void, RegExp] => [
      `a canary of ${JSON.stringify(percent)} percent`,
      (c) => (c['branchloans:canary'] = { image: 'me/loans:1.4.0', percent }),
      /^canary\.percent: .* is not valid: must be (at least 1|at most 50|a whole number of percent)/,
    ]),
    [
      'an unknown setting of a canary',
      (c) => (c['branchloans:canary'] = { image: 'me/loans:1.4.0', percent: 10, weight: 1 }),
      /^canary\.weight: unknown setting; known here: image, percent, replicas/,
    ],
    [
      'a password in clear',
      (c) => (c['branchloans:prometheusPassword'] = 'x'),
      /^prometheusPassword: must be secret: pulumi config set --secret/,
    ],
    ...(
      [
        ['alertPager', {}, /^alertPager: is used by nobody: set alerts\.pager/],
        ['alertMailPassword', {}, /^alertMailPassword: is used by nobody/],
        [
          undefined,
          { pager: 'pagerduty' },
          /^alerts\.pager: wants a routing key: pulumi config set --secret alertPager/,
        ],
        [
          undefined,
          { mail: { to: 'a@example.com', from: 'b@example.com', server: 'smtp.example.com:587', user: 'b' } },
          /^alerts\.mail\.user: wants a password: pulumi config set --secret alertMailPassword/,
        ],
        [
          undefined,
          { mail: { to: 'us', from: 'b@example.com', server: 'smtp.example.com:587' } },
          /^alerts\.mail\.to: "us" is not valid: must be a mail address/,
        ],
        [
          undefined,
          { mail: { to: 'a@example.com', from: 'b@example.com', server: 'smtp.example.com' } },
          /^alerts\.mail\.server: .* host and port/,
        ],
        [undefined, { runbooks: 'https://wiki.example/runbooks' }, /^alerts\.runbooks: .* with a slash at the end/],
        [undefined, { thresholds: { errorPercent: 0 } }, /^alerts\.thresholds\.errorPercent: 0 .* more than 0/],
        [undefined, { thresholds: { errorPercent: 100 } }, /^alerts\.thresholds\.errorPercent: 100 .* less than 100/],
        [undefined, { thresholds: { p95: '5s' } }, /^alerts\.thresholds\.p95: "5s" .* less than 5s/],
        [undefined, { thresholds: { p95: 1 } }, /^alerts\.thresholds\.p95: 1 .* a time such as 500ms/],
      ] as const
    ).map(([secret, alerts, fault]): [string, (config: Settings) => void, RegExp] => [
      `alerts that could reach nobody: ${secret ?? ''} ${JSON.stringify(alerts)}`,
      (c) => {
        c['branchloans:alerts'] = alerts;
        if (secret !== undefined) c[`branchloans:${secret}`] = 'x';
      },
      fault,
    ]),
    [
      'an address that is none, without showing it',
      (c) => (c['branchloans:alertWebhook'] = 'hooks.example/T0/secret'),
      /^alertWebhook: must be an address that begins with https:\/\/ or http:\/\/$/,
    ],
    [
      'an objective whose alert could never fire',
      (c) => (c['branchloans:slo'] = { latency: 90 }),
      /^slo\.latency: 90 must be at least 93\.06: its alert for a fast burn/,
    ],
    [
      'a promise of perfection',
      (c) => (c['branchloans:slo'] = { success: 100 }),
      /^slo\.success: 100 must be more than 0 and less than 100/,
    ],
    [
      'a period without factors',
      (c) => (c['branchloans:slo'] = { period: '14d' }),
      /^slo\.period: "14d" is not valid: must be 30d, 28d or 7d/,
    ],
    [
      'the role of the exporter as that of the service',
      set('database', 'user', 'branchloans_monitor'),
      /^database\.user: .*is the role that reads statistics/,
    ],
    [
      'an exporter that there is not',
      (c) => (c['branchloans:exporters'] = { redis: true }),
      /^exporters\.redis: unknown setting; known here: cpus, memory, memoryReservation, cpuShares, healthcheck, database, probes, host, containers, socket/,
    ],
    [
      'a socket that is nowhere',
      (c) => (c['branchloans:exporters'] = { socket: 'tcp://engine:2375' }),
      /^exporters\.socket: .*must be an absolute path on the Docker host/,
    ],
    ...(
      [
        [{ endpoint: 'collector:4318', sampleRatio: 1 }, /^tracing\.endpoint: .*must be a URL such as http:/],
        [{ endpoint: 'http://a:4318/v1/traces', sampleRatio: 1 }, /^tracing\.endpoint: .*must be the base URL/],
        [{ endpoint: 'http://user@a:4318', sampleRatio: 1 }, /^tracing\.endpoint: .*must be a URL such as http:/],
        [{ endpoint: 'http://a:4318', sampleRatio: 1.5 }, /^tracing\.sampleRatio: .*must be at most 1/],
        [{ endpoint: 'http://a:4318', sampleRatio: 0.00001 }, /^tracing\.sampleRatio: .*at most four decimals/],
        [{ endpoint: 'http://a:4318', sampleRatio: '1%' }, /^tracing\.sampleRatio: .*must be a share such as 0.01/],
        [{ sampleRatio: 1 }, /^tracing\.endpoint: not set/],
        [
          { endpoint: 'http://a:4318', sampleRatio: 1, sampler: 'x' },
          /^tracing\.sampler: unknown setting; known here: /,
        ],
      ] as const
    ).map(([tracing, fault]): [string, (config: Settings) => void, RegExp] => [
      `tracing ${JSON.stringify(tracing)}`,
      (c) => (c['branchloans:tracing'] = tracing),
      fault,
    ]),
    [
      'a health check of 0s',
      set('api', 'healthcheck', { interval: '0s', timeout: '0s', retries: 1 }),
      /^api\.healthcheck\.\w+: .*at least 1s/,
    ],
    [
      'a drain longer than the service allows',
      set('api', 'drain', '15m'),
      /^api\.drain: "15m" is not valid: must be at most 10m/,
    ],
    [
      'a largest amount of nothing',
      set('api', 'maxAmount', '0'),
      /^api\.maxAmount: "0" is not valid: must be a decimal above 0/,
    ],
    [
      'a largest amount of no currency',
      set('api', 'maxAmount', '50000,KSH=5000000'),
      /^api\.maxAmount: "50000,KSH=5000000" is not valid: "KSH=5000000" must be a currency/,
    ],
    [
      'a largest amount without quotes',
      set('api', 'maxAmount', 60000),
      /^api\.maxAmount: 60000 is not valid: must be a decimal in quotes/,
    ],
    [
      'a part of a year',
      set('api', 'retentionYears', 6.5),
      /^api\.retentionYears: 6\.5 is not valid: must be a whole number of years/,
    ],
    [
      'an autoscaling range upside down',
      set('api', 'autoscale', { min: 3, max: 2 }),
      /^api\.autoscale\.min: 3 is more than api\.autoscale\.max, 2/,
    ],
    [
      'a number outside the autoscaling range',
      set('api', 'autoscale', { min: 2, max: 4 }),
      /^api\.replicas: 1 is not between api\.autoscale\.min and max, 2 and 4/,
    ],
    [
      'a pager by webhook without an address, without showing the key',
      (c) => {
        c['branchloans:alerts'] = { pager: 'webhook' };
        c['branchloans:alertPager'] = 'R0UT1NGK3Y';
      },
      /^alertPager: must be an address that begins with https:\/\/ or http:\/\/$/,
    ],
    ...['sentry.example/1', 'https://key@sentry.example', 'https://my-key@sentry.example/1'].map(
      (dsn): [string, (config: Settings) => void, RegExp] => [
        `the DSN ${dsn}, without showing it,`,
        (c) => (c['branchloans:errorTracking'] = dsn),
        /^errorTracking: must be a DSN such as https:\/\/<key>@<host>\/<project>$/,
      ],
    ),
    [
      'less history than an error budget looks back on',
      (c) => (c['branchloans:prometheus'] = { retentionDays: 29 }),
      /^prometheus\.retentionDays: 29 is less than slo\.period, 30d.* Keep metrics for 30 days/,
    ],
    [
      'more connections at the end of the range than the database has',
      set('api', 'autoscale', { min: 1, max: 40 }),
      /^database\.maxConnections: 200 is too few: a deploy needs 800/,
    ],
    [
      'a latency without unit',
      set('api', 'autoscale', { min: 1, max: 2, latency: 200 }),
      /^api\.autoscale\.latency: 200 is not valid: must be a time such as 200ms/,
    ],
    [
      'a share of more than all',
      set('api', 'autoscale', { min: 1, max: 2, cpu: 170 }),
      /^api\.autoscale\.cpu: 170 is not valid: must be at most 100/,
    ],
    [
      'a custom signal without its target',
      set('api', 'autoscale', { min: 1, max: 2, custom: { query: 'x' } }),
      /^api\.autoscale\.custom\.target: not set/,
    ],
    [
      'a signal that there is not',
      set('api', 'autoscale', { min: 1, max: 2, requests: 70 }),
      /^api\.autoscale\.requests: unknown setting; known here: min, max, cpu, memory, latency, custom/,
    ],
    [
      'no memory to aim at',
      set('api', 'autoscale', { min: 1, max: 2, memory: 0 }),
      /^api\.autoscale\.memory: 0 is not valid: must be at least 1/,
    ],
    [
      'memory that nothing measures',
      (c) => {
        set('api', 'autoscale', { min: 1, max: 2, memory: 80 })(c);
        c['branchloans:exporters'] = { containers: false };
      },
      /^api\.autoscale\.memory: nothing measures it without exporters\.containers/,
    ],
    ['a directory that climbs', set('database', 'volume', '/var/../etc'), /^database\.volume: /],
    ['a directory that is the root', set('database', 'volume', '//'), /^database\.volume: /],
    ['a host that is none', set('gateway', 'host', 'my host'), /^gateway\.host: "my host" is not valid/],
    [
      'a host that the certificate lacks',
      set('gateway', 'host', 'other.example'),
      /^gateway\.host: "other\.example" is not in the certificate/,
    ],
    ['settings of a provider', (c) => (c['docker:registryAuth'] = '[]'), /^docker:registryAuth: not used here/],
  ])('%s is refused', (_name, change, message) => {
    const faults = faultsOf(change);
    expect(faults.length).toBeGreaterThan(0);
    for (const fault of faults) expect(fault).toMatch(message);
  });

  it('are all told in one message that names the stack', () => {
    expect(() =>
      read('staging', (c) => {
        set('api', 'memory', '512x')(c);
        set('api', 'replicas', 0)(c);
        delete c['branchloans:domain'];
      }),
    ).toThrow(/^Pulumi\.staging\.yaml: 3 setting\(s\) are wrong, nothing was changed:\n {2}- .*\n {2}- .*\n {2}- /);
  });
});

describe('autoscaling', () => {
  const range = (value: object) => read('staging', set('api', 'autoscale', { min: 2, max: 4, ...value })).api.autoscale;

  it('is off unless the settings have a range', () => expect(read('staging').api.autoscale).toBeUndefined());

  it('goes by the CPU where no signal is named', () => {
    expect(range({})).toMatchObject({ min: 2, max: 4, cpuPercent: 70, latencySeconds: undefined, custom: undefined });
  });

  it('goes by the signals that are named', () => {
    expect(range({ latency: '200ms' })).toMatchObject({ cpuPercent: undefined, latencySeconds: 0.2 });
    const custom = { query: 'avg(x)', target: 5 };
    expect(range({ cpu: 50, latency: '1s', custom })).toMatchObject({ cpuPercent: 50, latencySeconds: 1, custom });
  });
});

describe('images', () => {
  it.each([
    'nginx:1.30.5',
    'me/repo-staging:9f3c2ab',
    `nginx@sha256:${'a'.repeat(64)}`,
    `nginx:1.30.5@sha256:${'a'.repeat(64)}`,
  ])('accepts %s', (image) => {
    expect(faultsOf((c) => (c['branchloans:image'] = image))).toEqual([]);
  });

  it('takes an override and leaves the others', () => {
    const spec = read('staging', (c) => (c['branchloans:images'] = { nginx: 'nginx:1.31.0' }));
    expect(spec.images).toMatchObject({ nginx: 'nginx:1.31.0', postgres: expect.stringMatching(/^postgres:18\./) });
  });
});
