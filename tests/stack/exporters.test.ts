import * as names from '../../infra/ops/exporters';
import { PROBES } from '../../infra/ops/probes';
import { describeUnless } from '../skip';
import { docker, type Inspected, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { ask } from './load';

/** What Prometheus knows of a whole environment, with every exporter, on a real engine. */

const { ACCESS_LOG_METRICS, CONTAINER_METRICS, EXPORTERS, HOST_METRICS, JOBS, MONITORED, NGINX_METRICS } = {
  ...names,
  MONITORED: Object.values(names.JOBS),
};

/** Job -> the names that must have a series with it. */
const SERIES: Readonly<Record<string, readonly string[]>> = {
  [JOBS.api]: Object.values(names.RUNTIME_METRICS),
  [JOBS.alertmanager]: Object.values(names.ALERTMANAGER_METRICS),
  // The others are made for every job, or of rules.
  [JOBS.prometheus]: Object.values(names.PROMETHEUS_METRICS).filter((name) => name.startsWith('prometheus_')),
  [JOBS.postgres]: Object.values(names.POSTGRES_METRICS),
  [JOBS.nginx]: Object.values(NGINX_METRICS),
  [JOBS.accessLog]: [
    ACCESS_LOG_METRICS.responses,
    ...['bucket', 'sum', 'count'].map((part) => `${ACCESS_LOG_METRICS.seconds}_${part}`),
  ],
  [JOBS.host]: Object.values(HOST_METRICS),
  [JOBS.containers]: Object.values(CONTAINER_METRICS),
  [JOBS.probe]: Object.values(names.PROBE_METRICS),
};

interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: [at: number, value: string];
}

jest.setTimeout(300_000);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'the exporters on a real engine', () => {
  let environment: TestEnvironment;
  let user: string;

  beforeAll(async () => {
    environment = await TestEnvironment.create('development', (settings) => delete settings['branchloans:exporters']);
    await up();
    user = `admin:${environment.output('prometheusPassword')}`;
    await ask(`${environment.url}/api/loans`, environment.authority);
  });
  afterAll(() => environment.remove());

  async function up(): Promise<void> {
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  }

  async function prometheus<T>(path: string): Promise<T> {
    const { body } = await ask(`${environment.url}/prometheus/api/v1/${path}`, environment.authority, { user });
    return (JSON.parse(body) as { data: T }).data;
  }

  const query = async (expression: string) =>
    (await prometheus<{ result: Series[] }>(`query?query=${encodeURIComponent(expression)}`)).result;

  const targets = async () =>
    (
      await prometheus<{ activeTargets: { labels: Record<string, string>; health: string; lastError: string }[] }>(
        'targets',
      )
    ).activeTargets;

  async function eventually<T>(look: () => Promise<T>, good: (seen: T) => boolean): Promise<T> {
    const deadline = Date.now() + 90_000;
    for (;;) {
      const seen = await look();
      if (good(seen)) return seen;
      if (Date.now() > deadline) throw new Error(`it did not come; last seen: ${JSON.stringify(seen, null, 2)}`);
      await new Promise((done) => setTimeout(done, 2_000));
    }
  }

  const of = (component: string): Inspected => environment.containers()[`${environment.prefix}-${component}`]!;

  it('are all up', async () => {
    const seen = await eventually(targets, (all) => all.every(({ health }) => health === 'up'));
    expect([...new Set(seen.map(({ labels }) => labels['job']!))].sort()).toEqual([...MONITORED].sort());
    expect(seen.filter(({ labels }) => labels['env'] !== 'development')).toEqual([]);
    expect(seen.flatMap(({ labels }) => labels['probe'] ?? []).sort()).toEqual(Object.keys(PROBES).sort());
  });

  it.each(Object.entries(SERIES))('of the job %s have a series of every name', async (job, expected) => {
    const look = async () => {
      const found = await query(`count by (__name__, env) ({job="${job}", __name__!~"scrape_.*"})`);
      const here = new Set(found.flatMap(({ metric }) => (metric['env'] === 'development' ? metric['__name__']! : [])));
      return expected.filter((name) => !here.has(name));
    };
    expect(await eventually(look, (missing) => missing.length === 0)).toEqual([]);
  });

  it('make few series', async () => {
    const counts = await query(`sum by (job) (scrape_samples_post_metric_relabeling{job!~"api|prometheus"})`);
    const few = Object.fromEntries(counts.map(({ metric, value }) => [metric['job']!, Number(value[1])]));
    expect(Object.keys(few).sort()).toEqual(MONITORED.filter((job) => !['api', 'prometheus'].includes(job)).sort());
    for (const [job, count] of Object.entries(few)) expect([job, count < 600]).toEqual([job, true]);
  });

  it('tell of every container what it uses, against the limits that the engine keeps', async () => {
    const containers = Object.values(environment.containers());
    const figure = async (name: string) =>
      Object.fromEntries((await query(name)).map(({ metric, value }) => [metric['name']!, Number(value[1])]));
    const limit = await eventually(
      () => figure(CONTAINER_METRICS.memoryLimit),
      (seen) => containers.every(({ Name }) => Name.slice(1) in seen),
    );
    const [quota, working, cpu] = [
      await figure(CONTAINER_METRICS.cpuQuota),
      await figure(CONTAINER_METRICS.workingSet),
      await figure(CONTAINER_METRICS.cpuSeconds),
    ];
    expect(Object.keys(limit).sort()).toEqual(containers.map(({ Name }) => Name.slice(1)).sort());
    for (const { Name, HostConfig } of containers) {
      const name = Name.slice(1);
      expect([name, limit[name], quota[name]]).toEqual([name, HostConfig.Memory, HostConfig.CpuQuota]);
      expect(working[name]).toBeGreaterThan(0);
      expect(working[name]).toBeLessThanOrEqual(HostConfig.Memory);
      expect(cpu[name]).toBeGreaterThan(0);
    }
  });

  it('call the containers of the API as the API itself does', async () => {
    const names = async (label: string, expression: string) =>
      (await query(`count by (${label}) (${expression})`)).map(({ metric }) => metric[label]!).sort();
    const containers = [...environment.apiContainers()].sort();
    expect(containers.length).toBeGreaterThan(0);
    expect(await names('instance', '{job="api",__name__!~"up|scrape_.*"}')).toEqual(containers);
    expect(await names('name', `${CONTAINER_METRICS.startTime}{component="api"}`)).toEqual(containers);
    expect(await names('release', 'app_info')).toEqual([expect.stringMatching(/^[0-9a-f]{12}$/)]);
  });

  it('count failures from 0, by plain names, and nothing that is not set up', async () => {
    const zero = await query('http_requests_failed_total{route="/api/loans",method="POST",status_code="503"} == 0');
    expect(zero.length).toBe(environment.apiContainers().length);
    const gateway = await query(`${ACCESS_LOG_METRICS.responses}{method="POST",status="502"} == 0`);
    expect(gateway.length).toBe(1);
    const of = async (label: string) =>
      (await query(`count by (${label}) ({${label}!=""})`)).map(({ metric }) => metric[label]!).sort();
    expect(await of('rule_group')).toEqual(expect.arrayContaining(['api', 'meta', 'slo-success']));
    expect((await of('rule_group')).filter((name) => name.includes('/'))).toEqual([]);
    expect(await of('integration')).toEqual(['email', 'pagerduty', 'webhook']);
  });

  it('reach the entrance as users do, and know when its certificate ends', async () => {
    const success = await eventually(
      () => query(names.PROBE_METRICS.success),
      (seen) => seen.length === 3 && seen.every(({ value }) => value[1] === '1'),
    );
    expect(success.map(({ metric }) => metric['instance']).sort()).toEqual(
      Object.values(PROBES)
        .map((path) => environment.url + path)
        .sort(),
    );
    const [days] = await query(`(min(${names.PROBE_METRICS.certificateExpiry}) - time()) / 86400`);
    expect(Number(days!.value[1])).toBeGreaterThan(80);
    expect(Number(days!.value[1])).toBeLessThan(91);
  });

  it('see the file system of the database', async () => {
    const seen = await query(HOST_METRICS.filesystemSize);
    expect(seen.map(({ metric }) => metric['mountpoint']).sort()).toEqual(['database', 'engine']);
  });

  it('are hardened as everything else, and hold no more of the host than they need', () => {
    for (const { name } of Object.values(EXPORTERS)) {
      const { HostConfig, Config, Mounts, NetworkSettings } = of(name);
      expect(HostConfig).toMatchObject({
        ReadonlyRootfs: true,
        Privileged: false,
        CapAdd: null,
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges:true'],
        Memory: 96 * 1024 * 1024,
        PidMode: '',
        PortBindings: {},
      });
      expect(Config.User).toBe('65534:65534');
      const binds = Mounts.filter(({ Type }) => Type === 'bind').map(({ Source }) => Source);
      expect([name, binds]).toEqual([
        name,
        { 'node-exporter': ['/proc/1/net'], 'container-exporter': ['/var/run/docker.sock'] }[name as string] ?? [],
      ]);
      expect(Mounts.filter(({ RW }) => RW)).toEqual([]);
      expect(Object.keys(NetworkSettings.Networks).length).toBe(name === 'postgres-exporter' ? 2 : 1);
    }
  });

  it('become healthy', () =>
    eventually(
      () => Promise.resolve(Object.values(EXPORTERS).map(({ name }) => of(name).State.Health?.Status)),
      (seen) => seen.every((status) => status === 'healthy'),
    ));

  it('read statistics of the database and none of its data', () => {
    const as = (statement: string) => environment.sql(`SET ROLE branchloans_monitor; ${statement}`);
    expect(as('SELECT count(*) > 0 FROM pg_stat_activity')).toContain('t');
    expect(() => as('SELECT * FROM public.loans')).toThrow(/permission denied/);
    expect(
      environment
        .sql(
          `SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles
      WHERE rolname = 'branchloans_monitor'`,
        )
        .trim(),
    ).toBe('f');
  });

  it('give away neither their password nor that of the service', async () => {
    const read = (container: string, file: string) =>
      docker(['exec', `${environment.prefix}-${container}`, 'cat', file]).trim();
    const passwords = [
      read('postgres-exporter', '/etc/branchloans/current/password'),
      docker(['exec', environment.apiContainers()[0]!, 'cat', '/run/branchloans/current/database-password']).trim(),
    ];
    const all = Object.keys(environment.containers());
    const metrics = await prometheus<unknown>(`series?match[]=${encodeURIComponent('{job=~".+"}')}`);
    const places = {
      inspect: docker(['inspect', ...all]),
      logs: all.map((name) => docker(['logs', name])).join(''),
      state: environment.state(),
      statements: docker([
        'exec',
        `${environment.prefix}-database`,
        'psql',
        '-d',
        'postgres',
        '-c',
        'SELECT query FROM pg_stat_statements',
      ]),
      metrics: JSON.stringify(metrics),
    };
    for (const [place, text] of Object.entries(places)) {
      for (const password of passwords) {
        expect(password.length).toBeGreaterThan(20);
        expect([place, text.includes(password)]).toEqual([place, false]);
      }
    }
  });

  it('notice a process that the kernel ended for want of memory', async () => {
    const container = `${environment.prefix}-node-exporter`;
    const expression = `${CONTAINER_METRICS.oomEvents}{name="${container}"}`;
    await eventually(
      () => query(expression),
      (seen) => seen[0]?.value[1] === '0',
    );
    expect(() => docker(['exec', container, 'sh', '-c', 'tail /dev/zero'])).toThrow();
    await eventually(
      () => query(expression),
      (seen) => Number(seen[0]?.value[1]) > 0,
    );
  });

  it('change nothing in a second up, nor after a refresh', async () => {
    expect(await environment.changes()).toBe('');
  });

  it('go when they are switched off, and nothing else does', async () => {
    const kept = (containers: Record<string, Inspected>) =>
      Object.fromEntries(
        Object.entries(containers).flatMap(([name, { Id }]) => (name.endsWith('-exporter') ? [] : [[name, Id]])),
      );
    const before = kept(environment.containers());
    environment.configure((settings) => {
      settings['branchloans:exporters'] = { database: false, probes: false, host: false, containers: false };
    });
    await up();
    const after = environment.containers();
    expect(Object.keys(after).filter((name) => name.endsWith('-exporter'))).toEqual([]);
    expect(kept(after)).toEqual(before);
    const jobs = await eventually(
      async () => [...new Set((await targets()).map(({ labels }) => labels['job']!))].sort(),
      (seen) => !seen.includes(JOBS.probe),
    );
    expect(jobs).toEqual([JOBS.api, JOBS.prometheus, JOBS.alertmanager, JOBS.nginx, JOBS.accessLog].sort());
    expect(await environment.changes()).toBe('');
  });

  it('leave nothing behind', async () => {
    expect((await environment.destroy()).code).toBe(0);
    expect(environment.leftovers()).toEqual([`volume ${environment.volume}`]);
  });
});
