import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { renderRules } from '../../infra/ops/alerts';
import { COUNTERS, withCanary } from '../../infra/ops/canary';
import { renderOperators } from '../../infra/ops/maintenance';
import { htpasswd, renderGateway, renderUpstream } from '../../infra/ops/nginx';
import { jobsOf, prometheusArguments, renderPrometheus, RULES_FILE } from '../../infra/ops/prometheus';
import { ensureCertificate } from '../../ssl/certificates';
import { loadDashboards, queriesOf } from '../dashboards/model';
import { asRules } from '../dashboards/promql';
import { describeUnless } from '../skip';
import { findProgram, image, missingForContainers, run } from './binaries';
import { DOMAIN, gatewayOptions, OPERATOR_TOKEN } from './stage';

const nginx = findProgram('nginx', 'nginx', '-v', '1.27.4');
const promtool = findProgram('prometheus', 'promtool', '--version', '3.0.0');

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'rendered-'));
  chmodSync(directory, 0o755);
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Its configuration, and the rules that go with what it scrapes. */
function prometheusFiles(all = false): Record<string, string> {
  const exporters = { database: all, probes: all, host: all, containers: all };
  const url = 'https://localhost:8443';
  const configuration = renderPrometheus({ environment: 'staging', url, canary: all, exporters });
  const rules = renderRules({
    environment: 'staging',
    url,
    runbooks: 'docs/runbooks/',
    prefix: 'bl',
    jobs: jobsOf(configuration),
    replicas: 2,
  });
  return { 'prometheus.yml': configuration, [RULES_FILE]: rules };
}

function write(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true });
    writeFileSync(join(directory, name), text, { mode: 0o644 });
  }
}

describeUnless(
  nginx === undefined ? 'no image and no nginx >= 1.27.4' : undefined,
  `the gateway's files, read by ${nginx?.label ?? 'nginx'}`,
  () => {
    test.each([
      ['two servers', {}, ['a1b2-c3', 'other.name']],
      ['a canary', {}, withCanary(['a', 'b'], ['c'], 10)],
      ['no server', {}, []],
      ['no figures', { metrics: undefined }, ['a']],
      ['no API listener, port 443', { listen: { https: 8443, http: 8080 }, publicHttpsPort: 443 }, ['api-1']],
      ['other limits', { connectionsPerAddress: 1, workerProcesses: 4, names: ['host.internal'] }, ['a']],
    ])('%s', async (_name, overrides, servers) => {
      const { certificateFile, keyFile } = await ensureCertificate({
        directory: join(directory, 'ssl'),
        domain: DOMAIN,
      });
      write({
        'tls.pem': readFileSync(certificateFile, 'utf8'),
        'tls.key': readFileSync(keyFile, 'utf8'),
        htpasswd: `${htpasswd('admin', 'x')}\n`,
        'upstream.conf': renderUpstream(servers),
        'operators.conf': renderOperators(OPERATOR_TOKEN),
        'gateway.js': readFileSync(join(__dirname, '../../infra/exporters/gateway.js'), 'utf8'),
        'nginx.conf': renderGateway(gatewayOptions(directory, overrides)),
      });
      const { status, output } = nginx!.run(directory, ['-t', '-c', join(directory, 'nginx.conf')]);
      expect(output).not.toMatch(/\[(warn|emerg|crit)\]/);
      expect(status).toBe(0);
    });
  },
);

describeUnless(
  promtool === undefined ? 'no image and no promtool >= 3' : undefined,
  `Prometheus' files, read by ${promtool?.label ?? 'promtool'}`,
  () => {
    test.each([false, true])('its configuration and rules, with a canary and all exporters: %s', (all) => {
      write(prometheusFiles(all));
      const { status, output } = promtool!.run(directory, [
        'check',
        'config',
        '--lint=all',
        join(directory, 'prometheus.yml'),
      ]);
      expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining('SUCCESS') });
    });

    test('every query of every panel, variable and annotation, and of a canary', () => {
      const rules = asRules([...queriesOf(loadDashboards()).map(({ expr }) => expr), COUNTERS]);
      expect(rules.length).toBeGreaterThan(100);
      write({ 'queries.yml': JSON.stringify({ groups: [{ name: 'queries', rules }] }) });
      const { status, output } = promtool!.run(directory, [
        'check',
        'rules',
        '--lint=none',
        join(directory, 'queries.yml'),
      ]);
      expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining(`${rules.length} rules found`) });
    });

    test('and a query with a fault is found', () => {
      write({
        'queries.yml': JSON.stringify({ groups: [{ name: 'q', rules: [{ record: 'q:1', expr: 'rate(up[5m]' }] }] }),
      });
      expect(
        promtool!.run(directory, ['check', 'rules', '--lint=none', join(directory, 'queries.yml')]).status,
      ).not.toBe(0);
    });
  },
);

const missing = missingForContainers(['prometheus']);

describeUnless(missing, 'Prometheus with its arguments and files', () => {
  const name = `prometheus-test-${process.pid}`;
  beforeEach(() => run('docker', ['network', 'create', name]));
  afterEach(() => {
    run('docker', ['rm', '--force', '--volumes', name]);
    run('docker', ['network', 'rm', name]);
  });

  test('starts under its path, is ready, scrapes itself with the label env, and has no way to be stopped', async () => {
    write(prometheusFiles());
    const configFile = join(directory, 'prometheus.yml');
    const options = { configFile, url: 'https://localhost:8443', retentionDays: 35, retentionMib: 512 };
    const { status, output } = run('docker', [
      ...[
        'run',
        '--detach',
        '--name',
        name,
        '--network',
        name,
        '--publish',
        '127.0.0.1::9090',
        '--read-only',
        '--cap-drop',
        'ALL',
      ],
      ...['--user', '65534:65534', '--volume', '/prometheus', '--volume', `${directory}:${directory}:ro`],
      ...['--entrypoint', 'prometheus', image('prometheus'), ...prometheusArguments(options)],
    ]);
    if (status !== 0) throw new Error(output);
    const port = run('docker', ['port', name, '9090']).output.trim().split(':').pop();
    const base = `http://127.0.0.1:${port}/prometheus`;
    const own = await eventually(
      async () => {
        const response = await get(`${base}/api/v1/query?query=${encodeURIComponent('up{job="prometheus"}')}`);
        const { data } = (await response.json()) as { data: { result: { metric: object; value: [number, string] }[] } };
        return data.result[0];
      },
      () => run('docker', ['logs', '--tail', '8', name]).output,
    );
    expect(own).toMatchObject({ metric: { job: 'prometheus', env: 'staging' }, value: [expect.anything(), '1'] });
    expect((await get(`${base}/-/ready`)).status).toBe(200);
    expect((await get(`${base}/-/quit`, { method: 'POST' })).status).toBe(403);
    expect((await get(`${base}/-/reload`, { method: 'POST' })).status).toBe(403);
    expect((await get(`http://127.0.0.1:${port}/-/ready`)).status).toBe(404);
    const flags = (await (await get(`${base}/api/v1/status/flags`)).json()) as { data: Record<string, string> };
    expect(flags.data).toMatchObject({
      'web.external-url': 'https://localhost:8443/prometheus/',
      'storage.tsdb.retention.time': '5w',
      'web.enable-lifecycle': 'false',
      'web.enable-admin-api': 'false',
    });
  }, 90_000);
});

/** With an end: Docker's port proxy accepts before anybody listens behind it, and then nothing comes. */
const get = (url: string, init: RequestInit = {}) => fetch(url, { ...init, signal: AbortSignal.timeout(3_000) });

/** Prometheus scrapes for the first time within its interval of 15 s. */
async function eventually<T>(attempt: () => Promise<T | undefined>, explain: () => string): Promise<T> {
  const end = Date.now() + 60_000;
  while (Date.now() < end) {
    const result = await attempt().catch(() => undefined);
    if (result !== undefined) return result;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  throw new Error(`nothing came in a minute:\n${explain()}`);
}
