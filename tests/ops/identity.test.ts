import { buildSync } from 'esbuild';
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { requestRate } from '../../app/telemetry/names';
import { DEPLOYS } from '../../infra/ops/dashboards/builder';
import { isAlert } from '../../infra/ops/rules';
import { prometheusArguments, renderPrometheus } from '../../infra/ops/prometheus';
import { ruleGroups } from '../../infra/ops/alerts';
import { describeUnless } from '../skip';
import { image, missingForContainers, run } from './binaries';

/**
 * What a real Prometheus knows of containers that follow each other at one address: what Docker does at each deploy. The
 * containers write the metrics of the service, without the service.
 */

const APP = resolve(__dirname, '../../app');
const STUB = `
  import { createServer } from 'node:http';
  import { FAILURES } from ${JSON.stringify(join(APP, 'http/app'))};
  import { containerName } from ${JSON.stringify(join(APP, 'telemetry/container'))};
  import { expose, EXPOSITIONS } from ${JSON.stringify(join(APP, 'telemetry/exposition'))};
  import { createMetrics } from ${JSON.stringify(join(APP, 'telemetry/metrics'))};
  const build = { version: '1', commit: 'c', environment: 'test', release: process.env.RELEASE };
  const metrics = createMetrics(build, FAILURES);
  const name = containerName();
  createServer(async ({ url }, response) => {
    if (url === '/fail') metrics.observeRequest('POST', '/api/loans', 503, 0.01);
    const text = await expose([await metrics.registry.getMetricsAsJSON()], 'openmetrics', await name);
    response.setHeader('content-type', EXPOSITIONS.openmetrics).end(text);
  }).listen(8000);
`;
const ADDRESS_HOST = 10;

function docker(args: readonly string[]): string {
  const { status, output } = run('docker', args);
  if (status !== 0) throw new Error(`docker ${args[0]}: ${output}`);
  return output.trim();
}

interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

describeUnless(missingForContainers(['node', 'prometheus']), 'containers that follow each other at one address', () => {
  const id = `identity-${randomBytes(3).toString('hex')}`;
  const directory = mkdtempSync(join(tmpdir(), 'identity-'));
  const started: string[] = [];
  let subnet: string;
  let base: string;
  jest.setTimeout(240_000);

  beforeAll(() => {
    chmodSync(directory, 0o755);
    buildSync({
      stdin: { contents: STUB, resolveDir: APP, loader: 'ts' },
      ...{ bundle: true, platform: 'node', outfile: join(directory, 'stub.cjs'), external: ['pg-native'] },
    });
    // An address can only be chosen in a subnet that was.
    for (let attempt = 0; ; attempt += 1) {
      subnet = `10.${213 + attempt}.${randomBytes(1)[0]}`;
      if (run('docker', ['network', 'create', '--subnet', `${subnet}.0/24`, id]).status === 0) break;
      if (attempt === 9) throw new Error('no subnet is free');
    }
    const configuration = renderPrometheus({ environment: 'test' }).replaceAll(/\b(?:5|10|15)s\b/g, '1s');
    writeFileSync(join(directory, 'prometheus.yml'), configuration, { mode: 0o644 });
    const options = { configFile: join(directory, 'prometheus.yml'), url: 'https://localhost', retentionDays: 1 };
    start('prometheus', [
      ...['--publish', '127.0.0.1::9090', '--user', '65534:65534', '--volume', '/prometheus'],
      ...['--entrypoint', 'prometheus', image('prometheus')],
      ...prometheusArguments({ ...options, retentionMib: 64 }),
    ]);
    base = `http://127.0.0.1:${docker(['port', `${id}-prometheus`, '9090'])
      .split(':')
      .pop()}/prometheus/api/v1/query`;
  });
  afterAll(() => {
    if (started.length > 0) run('docker', ['rm', '--force', '--volumes', ...started]);
    run('docker', ['network', 'rm', id]);
    rmSync(directory, { recursive: true, force: true });
  });

  function start(part: string, args: readonly string[]): string {
    const name = `${id}-${part}`;
    started.push(name);
    docker(['run', '--detach', '--name', name, '--network', id, '--volume', `${directory}:${directory}:ro`, ...args]);
    return name;
  }

  /** As a deploy does it: a new container with the address of one that is gone. */
  function startApi(part: string, release: string): string {
    return start(part, [
      ...['--ip', `${subnet}.${ADDRESS_HOST}`, '--network-alias', 'api', '--env', `RELEASE=${release}`],
      ...['--entrypoint', 'node', image('node'), join(directory, 'stub.cjs')],
    ]);
  }

  async function query(expression: string): Promise<readonly Series[]> {
    const answer = await fetch(`${base}?query=${encodeURIComponent(expression)}`, {
      signal: AbortSignal.timeout(5_000),
    });
    return ((await answer.json()) as { data: { result: Series[] } }).data.result;
  }

  async function until(expression: string, good: (seen: readonly Series[]) => boolean): Promise<readonly Series[]> {
    const deadline = Date.now() + 60_000;
    for (;;) {
      const seen = await query(expression).catch(() => []);
      if (good(seen)) return seen;
      if (Date.now() > deadline) throw new Error(`${expression}: ${JSON.stringify(seen)}`);
      await sleep(500);
    }
  }

  const [restartLoop] = ruleGroups({
    ...{ environment: 'test', url: '', runbooks: '', prefix: id, jobs: new Set(['api']), replicas: 1 },
  })
    .flatMap(({ rules }) => rules)
    .flatMap((rule) => (isAlert(rule) && rule.alert === 'ApiRestartLoop' ? [rule.expr] : []));
  const names = ['api-1-1111111', 'api-1-2222222', 'api-1-3333333', 'api-1-4444444'].map((part) => `${id}-${part}`);

  it('have names of their own, so that no deploy counts as a restart', async () => {
    for (const [index, name] of names.entries()) {
      startApi(name.slice(id.length + 1), `release${index}`);
      await until(`app_info{instance="${name}"}`, (seen) => seen.length === 1);
      await sleep(2_500);
      if (index < names.length - 1) docker(['rm', '--force', name]);
    }
    const range = (expression: string) => query(`count by (instance) (count_over_time(${expression}[15m]))`);
    const instances = async (metric: string) =>
      (await range(`${metric}{job="api"}`)).map(({ metric: { instance } }) => instance);
    expect((await instances('up')).sort()).toEqual([`${subnet}.${ADDRESS_HOST}:8000`]);
    for (const metric of ['app_info', 'process_cpu_seconds_total', 'http_requests_failed_total'])
      expect([metric, (await instances(metric)).sort()]).toEqual([metric, names]);
    expect(await query(restartLoop!)).toEqual([]);
  });

  it('are a mark of a deploy each, from the first scrape on', async () => {
    const marks = await query(DEPLOYS.replaceAll('$env', '.+').replaceAll('$__interval', '10m'));
    const byStart = [...marks].sort((a, b) => Number(a.value[1]) - Number(b.value[1]));
    expect(byStart.map(({ metric }) => metric)).toEqual(
      names.map((_, index) => {
        return { env: 'test', track: 'stable', version: '1', commit: 'c', release: `release${index}` };
      }),
    );
  });

  it('count the first failure of all', async () => {
    const failing = 'fetch("http://127.0.0.1:8000/fail")';
    docker(['exec', names.at(-1)!, 'node', '-e', failing]);
    const failures = requestRate('job="api",status_code=~"5.."', '5m');
    const seen = await until(`sum by (instance) ${failures} > 0`, (found) => found.length > 0);
    expect(seen.map(({ metric }) => metric)).toEqual([{ instance: names.at(-1) }]);
  });

  it('and one that starts again and again is a restart loop', async () => {
    const name = names.at(-1)!;
    for (const times of [1, 2, 3]) {
      // The start of a process is measured in whole seconds: two within one second would look like one.
      await sleep(2_000);
      docker(['restart', '--time', '0', name]);
      await until(`changes(process_start_time_seconds{instance="${name}"}[15m])`, (seen) =>
        seen.some(({ value }) => Number(value[1]) === times),
      );
    }
    expect((await query(restartLoop!)).map(({ metric }) => metric['instance'])).toEqual([name]);
  });
});
