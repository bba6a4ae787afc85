import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeDsn } from '@sentry/core';
import { ConfigError, readConfig, SETTING_NAMES } from './config';

const NEEDED = { DATABASE_NAME: 'loans', DATABASE_USER: 'api' };
const faultsOf = (environment: Record<string, string>): readonly string[] => {
  try {
    readConfig(environment);
    return [];
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).faults;
  }
};

it('has defaults for everything but the database', async () => {
  const { config, secrets } = readConfig(NEEDED);
  expect(config).toMatchObject({
    port: 8000,
    processes: 1,
    maxAmount: '50000',
    retentionYears: 7,
    apiKeys: 'required',
    corsOrigins: [],
    allowedHosts: [],
    rateLimit: undefined,
    clientAddress: 'connection',
    tls: undefined,
    database: { name: 'loans', poolSize: 10 },
  });
  expect(await secrets.databasePassword()).toBe('');
  expect(Object.isFrozen(config)).toBe(true);
  expect(SETTING_NAMES).toContain('DATABASE_PASSWORD_FILE');
});

it('reads lists between commas', () => {
  const { config } = readConfig({
    ...NEEDED,
    CORS_ORIGINS: 'https://desk.example, http://localhost:3000',
    ALLOWED_HOSTS: 'branchloans.com,localhost,127.0.0.1,[::1]',
  });
  expect(config.corsOrigins).toEqual(['https://desk.example', 'http://localhost:3000']);
  expect(config.allowedHosts).toEqual(['branchloans.com', 'localhost', '127.0.0.1', '[::1]']);
});

it('takes a largest amount for each currency', () => {
  const MAX_AMOUNT = '50000,KES=5000000,VND=2000000000';
  expect(readConfig({ ...NEEDED, MAX_AMOUNT }).config.maxAmount).toBe(MAX_AMOUNT);
});

it('takes an empty value for one that is not set', () => {
  expect(readConfig({ ...NEEDED, PORT: '', TLS_PORT: '' }).config).toMatchObject({ port: 8000, tls: undefined });
});

it('reads the password from its file, without the last line break, and keeps it out of the configuration', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'branchloans-')), 'password');
  writeFileSync(file, ' secret canary \n');
  const { config, secrets } = readConfig({ ...NEEDED, DATABASE_PASSWORD_FILE: file });
  expect(await secrets.databasePassword()).toBe(' secret canary ');
  expect(JSON.stringify(config)).not.toContain('canary');
});

it('reads the password again whenever it is asked for, and keeps the last one while the file is gone or empty', async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'branchloans-')), 'password');
  writeFileSync(file, 'first');
  const { databasePassword } = readConfig({ ...NEEDED, DATABASE_PASSWORD_FILE: file }).secrets;
  writeFileSync(file, 'second\n');
  expect(await databasePassword()).toBe('second');
  writeFileSync(file, '');
  expect(await databasePassword()).toBe('second');
  rmSync(file);
  expect(await databasePassword()).toBe('second');
  writeFileSync(file, 'third');
  expect(await databasePassword()).toBe('third');
});

it('names every fault at once', () => {
  const faults = faultsOf({
    PORT: '0',
    LOG_LEVEL: 'loud',
    MAX_AMOUNT: '1e5',
    TLS_PORT: '8443',
    DATABASE_PASSWORD_FILE: '/nowhere/password',
  });
  expect(faults.map((fault) => fault.split(':')[0]).sort()).toEqual(
    [
      'DATABASE_NAME',
      'DATABASE_PASSWORD_FILE',
      'DATABASE_USER',
      'LOG_LEVEL',
      'MAX_AMOUNT',
      'PORT',
      'TLS_CERTIFICATE_FILE, TLS_KEY_FILE',
    ].sort(),
  );
  expect(faults).toContain('DATABASE_NAME: not set');
});

it.each([
  ['PORT', '65536'],
  ['PORT', '80.5'],
  ['PROCESSES', '0'],
  ['DATABASE_POOL_SIZE', '201'],
  ['DRAIN_MS', '-1'],
  ['RETENTION_YEARS', '-1'],
  ['RETENTION_YEARS', '6.5'],
  ['ENVIRONMENT', 'Production!'],
  ['API_KEYS', 'off'],
  ['CORS_ORIGINS', '*'],
  ['CORS_ORIGINS', 'null'],
  ['CORS_ORIGINS', 'desk.example'],
  ['CORS_ORIGINS', 'https://desk.example/'],
  ['CORS_ORIGINS', 'https://Desk.example'],
  ['CORS_ORIGINS', 'https://desk.example:443'],
  ['CORS_ORIGINS', 'https://*.example'],
  ['CORS_ORIGINS', 'https://desk.example,,https://b.example'],
  ['CORS_ORIGINS', 'ftp://desk.example'],
  ['ALLOWED_HOSTS', '*'],
  ['ALLOWED_HOSTS', 'https://branchloans.com'],
  ['ALLOWED_HOSTS', 'branchloans.com:443'],
  ['ALLOWED_HOSTS', 'Branchloans.com'],
  ['RATE_LIMIT', '100'],
  ['RATE_LIMIT', '0/60'],
  ['RATE_LIMIT', '100/0'],
  ['RATE_LIMIT', '-1/60'],
  ['RATE_LIMIT', '100/1.5'],
  ['RATE_LIMIT', '100000000/60'],
  ['CLIENT_ADDRESS', 'anything'],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'collector:4318'],
  ['OTEL_EXPORTER_OTLP_ENDPOINT', 'http://user:secret@collector:4318'],
  ['OTEL_TRACES_SAMPLER', 'sometimes'],
  ['OTEL_TRACES_SAMPLER_ARG', '1.1'],
  ['OTEL_TRACES_SAMPLER_ARG', '-0.1'],
  ['OTEL_RESOURCE_ATTRIBUTES', 'key'],
  ['OTEL_RESOURCE_ATTRIBUTES', 'key=%zz'],
  ['MAX_AMOUNT', '0'],
  ['MAX_AMOUNT', '50000,QQQ=1'],
  ['PROMETHEUS_URL', 'prometheus:9090'],
  ['PROMETHEUS_URL', 'http://admin:secret@prometheus:9090'],
  ['PROMETHEUS_URL', 'http://prometheus:9090/?a=b'],
  ['SLO', '99'],
  ['SLO', 'speed=99'],
  ['SLO', 'latency=100'],
  ['SLO', 'latency=0'],
  ['SLO', 'latency=95,'],
  ['CAPACITY_RPS', '0'],
  ['CAPACITY_RPS', 'many'],
  ['MAX_AMOUNT', '50000,VND=0.5'],
])('refuses %s=%s', (name, value) => {
  expect(faultsOf({ ...NEEDED, [name]: value })).toEqual([expect.stringContaining(`${name}: "${value}"`)]);
});

it('traces as OpenTelemetry names it, and not at all without a collector', () => {
  expect(readConfig({ ...NEEDED, OTEL_TRACES_SAMPLER_ARG: '0.5' }).config.tracing).toBeUndefined();
  const given = {
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318/',
    OTEL_RESOURCE_ATTRIBUTES: 'service.namespace=loans,team=a%2Cb',
    OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
    OTEL_TRACES_SAMPLER_ARG: '0.25',
  };
  expect(readConfig({ ...NEEDED, ...given }).config.tracing).toEqual({
    endpoint: 'http://collector:4318',
    serviceName: 'branchloans-api',
    attributes: { 'service.namespace': 'loans', team: 'a,b' },
    sampler: 'parentbased_traceidratio',
    sampleRatio: 0.25,
  });
});

it('reads the DSN of an error tracker from its file, and repeats none that is wrong', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'branchloans-')), 'dsn');
  writeFileSync(file, '');
  expect(readConfig({ ...NEEDED, ERROR_TRACKING_DSN_FILE: file }).secrets.errorTrackingDsn).toBeUndefined();
  writeFileSync(file, 'https://canary@sentry.example/path/42\n');
  const { config, secrets } = readConfig({ ...NEEDED, ERROR_TRACKING_DSN_FILE: file });
  expect(secrets.errorTrackingDsn).toBe('https://canary@sentry.example/path/42');
  expect(JSON.stringify(config)).not.toContain('canary');
  const wrong = ['canary', 'https://can-ary@sentry.example/42', 'https://canary:s%20x@sentry.example/42'];
  for (const dsn of [...wrong, 'https://canary@sentry.example:port/42', 'https://canary@sentry;example/42']) {
    writeFileSync(file, dsn);
    expect(faultsOf({ ...NEEDED, ERROR_TRACKING_DSN_FILE: file })).toEqual([
      'ERROR_TRACKING_DSN_FILE: the file holds no DSN such as https://<key>@<host>/<project>',
    ]);
  }
});

it.each(['https://a@b/1', 'http://a_1:@b-c.d:90/x/y/1', 'https://a:b@c/x//1'])(
  'takes no DSN that the library of the error tracker would print: %s',
  (dsn) => {
    const file = join(mkdtempSync(join(tmpdir(), 'branchloans-')), 'dsn');
    writeFileSync(file, dsn);
    expect(readConfig({ ...NEEDED, ERROR_TRACKING_DSN_FILE: file }).secrets.errorTrackingDsn).toBe(dsn);
    expect(makeDsn(dsn)).toMatchObject({ projectId: '1' });
  },
);

it('reads a rate limit as requests and seconds', () => {
  const { config } = readConfig({ ...NEEDED, RATE_LIMIT: '6000/60', CLIENT_ADDRESS: 'x-forwarded-for' });
  expect(config.rateLimit).toEqual({ requests: 6_000, windowSeconds: 60 });
  expect(config.clientAddress).toBe('x-forwarded-for');
});

it('reads what is promised other than by default', () => {
  const { config } = readConfig({ ...NEEDED, SLO: 'availability=99.95,latency=97' });
  expect(config.promises).toEqual({ availability: 0.9995, latency: 0.97 });
  expect(readConfig({ ...NEEDED, SLO: '' }).config.promises).toEqual({});
});

it('reads where Prometheus is, and what a container bears', () => {
  const { config } = readConfig({
    ...NEEDED,
    PROMETHEUS_URL: 'http://prometheus:9090/prometheus',
    CAPACITY_RPS: '450',
  });
  expect([config.prometheusUrl, config.capacityRps]).toEqual(['http://prometheus:9090/prometheus', 450]);
  const { config: without } = readConfig({ ...NEEDED, PROMETHEUS_URL: '', CAPACITY_RPS: '' });
  expect([without.prometheusUrl, without.capacityRps]).toEqual([undefined, undefined]);
});
