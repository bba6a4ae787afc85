import { execFileSync } from 'node:child_process';
import { createServer, type Server } from 'node:net';
import { nextRelease, removeReleases } from './images';
import { ask, failuresOf, figuresOf, loansOf, lostWrites, startLoad } from './load';
import { describeUnless } from '../skip';
import { docker, type Inspected, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';

/** The stacks on a real engine, by the real `pulumi`: what a user does, and what a user sees. */

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();
const suite = (name: string, tests: () => void) => describeUnless(reason, name, tests);

jest.setTimeout(300_000);

const NUMBERS = {
  development: { cpus: 1, mib: 512, health: [30, 5, 3], replicas: 1 },
  staging: { cpus: 2, mib: 1024, health: [20, 4, 4], replicas: 2 },
  production: { cpus: 4, mib: 2048, health: [15, 3, 5], replicas: 2 },
} as const;

const roleOf = (container: Inspected) => container.Config.Labels['org.branchloans.component'] ?? '';

async function up(environment: TestEnvironment): Promise<string> {
  const { code, output } = await environment.up();
  if (code !== 0) throw new Error(output);
  return output;
}

async function healthy(environment: TestEnvironment): Promise<void> {
  const deadline = Date.now() + 90_000;
  for (;;) {
    const waiting = Object.values(environment.containers()).filter(({ State }) => State.Health?.Status !== 'healthy');
    if (waiting.length === 0) return;
    if (Date.now() > deadline) throw new Error(`not healthy: ${waiting.map(({ Name }) => Name).join(', ')}`);
    await new Promise((done) => setTimeout(done, 1_000));
  }
}

for (const stack of ['development', 'staging', 'production'] as const) {
  suite(`stack ${stack} on a real engine`, () => {
    const numbers = NUMBERS[stack];
    let environment: TestEnvironment;
    let firstOutput: string;

    beforeAll(async () => {
      environment = await TestEnvironment.create(stack);
      firstOutput = await up(environment);
    });
    afterAll(() => environment.remove());

    it('comes up, with a warning where the host has fewer cores than the settings allow', () => {
      const cores = Number(docker(['info', '--format', '{{.NCPU}}']));
      const warning = new RegExp(`allow ${numbers.cpus} cores per container, the Docker host has ${cores}`);
      if (numbers.cpus > cores) expect(firstOutput).toMatch(warning);
      else expect(firstOutput).not.toMatch(warning);
    });

    it('applies its limits and health checks: docker inspect shows the numbers', () => {
      const containers = Object.values(environment.containers());
      for (const role of ['api', 'database']) {
        const ours = containers.filter((container) => roleOf(container) === role);
        expect(ours).toHaveLength(role === 'api' ? numbers.replicas : 1);
        for (const { HostConfig, Config } of ours) {
          expect(HostConfig.CpuQuota / HostConfig.CpuPeriod).toBe(numbers.cpus);
          expect(HostConfig.Memory).toBe(numbers.mib * 1024 * 1024);
          const { Interval, Timeout, Retries } = Config.Healthcheck!;
          expect([Interval / 1e9, Timeout / 1e9, Retries]).toEqual(numbers.health);
        }
      }
    });

    it('hardens every container', () => {
      const containers = Object.values(environment.containers());
      expect(containers.map(roleOf).sort()).toEqual(
        [
          ...Array<string>(numbers.replicas).fill('api'),
          'alertmanager',
          'database',
          'gateway',
          'grafana',
          'prometheus',
        ].sort(),
      );
      for (const container of containers) {
        const { HostConfig, Config, Mounts } = container;
        expect(HostConfig).toMatchObject({
          ReadonlyRootfs: true,
          Privileged: false,
          CapAdd: null,
          CapDrop: ['ALL'],
          SecurityOpt: ['no-new-privileges:true'],
          RestartPolicy: { Name: 'unless-stopped' },
          LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
          PidMode: '',
        });
        expect(HostConfig.IpcMode).not.toBe('host');
        expect(HostConfig.NetworkMode).not.toBe('host');
        expect(HostConfig.MemorySwap).toBe(HostConfig.Memory);
        expect(HostConfig.CpuQuota).toBeGreaterThan(0);
        expect(Number(Config.User.split(':')[0])).toBeGreaterThan(0);
        expect(Config.Healthcheck?.Test[0]).toBe('CMD');
        expect(
          Mounts.filter(({ Type, Source }) => Type === 'bind' && !Source.startsWith(environment.directory)),
        ).toEqual([]);
        const bindings = Object.values(HostConfig.PortBindings ?? {}).flat();
        expect(bindings.every(({ HostIp }) => HostIp === '127.0.0.1')).toBe(true);
        expect(bindings.length > 0).toBe(roleOf(container) === 'gateway');
      }
      const database = containers.find((container) => roleOf(container) === 'database')!;
      expect(Object.keys(database.NetworkSettings.Networks)).toEqual([`${environment.prefix}-data`]);
      expect(docker(['network', 'inspect', '--format', '{{.Internal}}', `${environment.prefix}-data`]).trim()).toBe(
        'true',
      );
    });

    it('becomes healthy as a whole', () => healthy(environment));

    it('serves the five sample loans and takes a new one, through TLS', async () => {
      if (stack === 'production') {
        expect((await ask(`${environment.url}/api/loans`, environment.authority, { key: environment.key })).body).toBe(
          '[]',
        );
        docker(['exec', environment.apiContainers()[0]!, 'node', '/app/main.js', 'seed']);
      }
      const samples = JSON.parse(
        (await ask(`${environment.url}/api/loans`, environment.authority, { key: environment.key })).body,
      ) as object[];
      expect(samples).toHaveLength(5);
      expect(samples).toContainEqual(
        expect.objectContaining({
          id: '00000000-0000-0000-0000-000000000001',
          borrower_id: 'usr_kenya_001',
          amount: '12500.00',
          currency: 'KES',
          status: 'pending',
          term_months: 6,
        }),
      );
      const loan = { borrower_id: 'usr_test', amount: 17.5, currency: 'kes' };
      const answer = await ask(`${environment.url}/api/loans`, environment.authority, {
        key: environment.key,
        method: 'POST',
        body: loan,
      });
      expect(answer.status).toBe(201);
      expect(JSON.parse(answer.body)).toMatchObject({ amount: '17.50', currency: 'KES', status: 'pending' });
    });

    it('asks for an API key where its settings say so', async () => {
      const { status } = await ask(`${environment.url}/api/loans`, environment.authority);
      expect(status).toBe(stack === 'development' ? 200 : 401);
      const list = docker(['exec', environment.apiContainers()[0]!, 'node', '/app/main.js', 'api-key', 'list']);
      // The keys of the smoke tests are ended when the tests are.
      const keys = list.split('\n').filter((line) => line.includes('deploy-smoke'));
      expect(keys.length > 0).toBe(stack !== 'development');
      expect(keys.filter((line) => !/deploy-smoke +loans:read,loans:write +revoked/.test(line))).toEqual([]);
    });

    it('shows Prometheus with all targets up, to whoever knows the password', async () => {
      const path = `${environment.url}/prometheus/api/v1/targets`;
      expect((await ask(path, environment.authority)).status).toBe(401);
      const user = `admin:${environment.output('prometheusPassword')}`;
      const deadline = Date.now() + 60_000;
      for (;;) {
        const { body } = await ask(path, environment.authority, { user });
        const targets = (JSON.parse(body) as { data: { activeTargets: { labels: { job: string }; health: string }[] } })
          .data.activeTargets;
        const up = targets.filter(({ health }) => health === 'up').map(({ labels }) => labels.job);
        // Prometheus itself, Alertmanager, and the gateway with its connections and its answers.
        if (up.length === numbers.replicas + 4 && up.length === targets.length) break;
        if (Date.now() > deadline) throw new Error(body);
        await new Promise((done) => setTimeout(done, 1_000));
      }
    });

    it('shows Grafana under /grafana/ with the generated password, never admin/admin', async () => {
      const at = (path: string, user?: string) =>
        ask(`${environment.url}/grafana/${path}`, environment.authority, { user });
      expect((await at('')).status).toBe(302);
      const login = await at('login');
      expect(login.status).toBe(200);
      if (login.body.includes('Grafana did not run')) console.warn('Grafana did not run: its stand-in answered');
      expect((await at('api/org', 'admin:admin')).status).toBe(401);
      expect((await at('api/org')).status).toBe(401);
      const user = `admin:${environment.output('grafanaPassword')}`;
      expect((await at('api/org', user)).status).toBe(200);
      expect((await at('api/search', user)).body).toContain('"API"');
      expect((await at('api/datasources', user)).body.length).toBeGreaterThan(2);
    });

    it('keeps its secrets out of the state, the containers, the logs and the process list', () => {
      const secrets = ['prometheusPassword', 'grafanaPassword', 'operatorToken'].map((name) =>
        environment.output(name),
      );
      const api = environment.apiContainers()[0]!;
      secrets.push(docker(['exec', api, 'cat', '/run/branchloans/current/database-password']).trim());
      const key = execFileSync('cat', [`${environment.directory}/ssl/branchloans.com.key`], { encoding: 'utf8' }).split(
        '\n',
      )[1]!;
      secrets.push(key, environment.key.split('_')[3]!);
      const names = Object.keys(environment.containers());
      const places = {
        state: environment.state(),
        preview: environment.pulumi(['preview', '--diff', '-s', environment.stack]).output,
        inspect: docker(['inspect', ...names]),
        // Both streams: Postgres and nginx write what went wrong to the other one.
        logs: names
          .map((name) => execFileSync('sh', ['-c', 'docker logs "$0" 2>&1', name], { maxBuffer: 2 ** 28 }).toString())
          .join(''),
        processes:
          names.map((name) => docker(['top', name, '-eo', 'pid,args'])).join('') +
          execFileSync('ps', ['-eo', 'args']).toString(),
        metrics: docker([
          'exec',
          api,
          'bash',
          '-c',
          'exec 3<>/dev/tcp/127.0.0.1/8000; printf "GET /metrics HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3',
        ]),
      };
      expect(places.metrics).toContain('app_info');
      expect(places.logs).toContain('database system is ready to accept connections');
      for (const [place, text] of Object.entries(places)) {
        for (const [index, secret] of secrets.entries()) {
          expect(secret.length).toBeGreaterThan(20);
          expect([place, index, text.includes(secret)]).toEqual([place, index, false]);
        }
      }
    });

    it('finds nothing to change in a second up, nor after a refresh', async () => {
      expect(await environment.changes()).toBe('');
    });

    it('leaves nothing but the database behind, and serves the same loans when it comes back', async () => {
      const before = (await ask(`${environment.url}/api/loans`, environment.authority, { key: environment.key })).body;
      expect((await environment.destroy()).code).toBe(0);
      expect(environment.leftovers()).toEqual(stack === 'production' ? [] : [`volume ${environment.volume}`]);
      await up(environment);
      expect((await ask(`${environment.url}/api/loans`, environment.authority, { key: environment.key })).body).toBe(
        before,
      );
    });
  });
}

suite('two environments on one engine', () => {
  it('run side by side on other ports', async () => {
    const environments = [await TestEnvironment.create('development'), await TestEnvironment.create('staging')];
    try {
      await Promise.all(environments.map(up));
      for (const environment of environments) {
        expect((await ask(`${environment.url}/health`, environment.authority)).status).toBe(200);
      }
      await environments[0]!.destroy();
      expect(
        (await ask(`${environments[1]!.url}/api/loans`, environments[1]!.authority, { key: environments[1]!.key }))
          .status,
      ).toBe(200);
    } finally {
      for (const environment of environments) await environment.remove();
    }
  });
});

suite('a deploy under load', () => {
  let environment: TestEnvironment;
  let base: string;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      const api = settings['branchloans:api'] as Record<string, unknown>;
      settings['branchloans:api'] = { ...api, drain: '2s' };
    });
    await up(environment);
    base = environment.output('image');
  });
  afterAll(async () => {
    await environment.remove();
    removeReleases();
  });

  /** Nobody notices: no request fails, and what was acknowledged is there, once. */
  async function unnoticed(deploy: () => Promise<unknown>): Promise<void> {
    const load = startLoad(environment);
    await deploy();
    const outcomes = await load.stop();
    expect(failuresOf(outcomes)).toEqual([]);
    expect(lostWrites(outcomes, environment.sql(loansOf(load)))).toEqual([]);
    const { requests, acknowledged, p50Ms, p99Ms, maxMs } = figuresOf(outcomes);
    expect(acknowledged).toBeGreaterThan(100);
    console.info(
      `${requests} requests, ${acknowledged} of them writes, none failed; ` +
        `p50 ${p50Ms.toFixed()} ms, p99 ${p99Ms.toFixed()} ms, longest ${maxMs.toFixed()} ms`,
    );
  }

  it('of a changed image fails no request and replaces every container', async () => {
    const before = environment.apiContainers();
    environment.configure((settings) => (settings['branchloans:image'] = nextRelease(base, 1)));
    await unnoticed(() => up(environment));
    const after = environment.apiContainers();
    expect(after).toHaveLength(2);
    expect(after.filter((name) => before.includes(name))).toEqual([]);
  });

  it('of changed settings fails no request, and leaves the gateway in place', async () => {
    const gateway = () => environment.containers()[`${environment.prefix}-gateway`]!.Id;
    const before = { gateway: gateway(), api: environment.apiContainers() };
    const set = (changes: object) =>
      environment.configure(
        (settings) => (settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), ...changes }),
      );
    set({ maxAmount: '60000', replicas: 3 });
    await unnoticed(() => up(environment));
    expect(gateway()).toBe(before.gateway);
    const after = environment.apiContainers();
    expect(after).toHaveLength(3);
    expect(after.filter((name) => before.api.includes(name))).toEqual([]);
    const loan = { borrower_id: 'usr_rich', amount: '55000.00', currency: 'KES' };
    const answer = await ask(`${environment.url}/api/v1/loans`, environment.authority, {
      key: environment.key,
      method: 'POST',
      body: loan,
    });
    expect(answer.status).toBe(201);
    set({ replicas: 2 });
    await unnoticed(() => up(environment));
    expect(environment.apiContainers()).toEqual(after.slice(0, 2));
  });
});

suite('wrong settings and surroundings', () => {
  let environment: TestEnvironment;
  let holder: Server | undefined;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging');
  });
  afterEach(() => holder?.close());
  afterAll(() => environment.remove());

  const refused = async (process: NodeJS.ProcessEnv = {}) => {
    const { code, output } = await environment.run(['up', '--yes', '--skip-preview'], process);
    expect(code).not.toBe(0);
    expect(environment.leftovers()).toEqual([]);
    expect(output).not.toMatch(/^\s+at /m);
    return output;
  };
  const withSetting = async (name: string, key: string, value: unknown) => {
    const key_ = `branchloans:${name}`;
    let before: unknown;
    environment.configure((settings) => {
      before = settings[key_];
      settings[key_] = { ...(before as object), [key]: value };
    });
    const output = await refused();
    environment.configure((settings) => (settings[key_] = before));
    return output;
  };

  it('a typo in a key', async () => {
    expect(await withSetting('api', 'memroy', '1g')).toMatch(
      /Pulumi\.staging\.yaml.*\n.*api\.memroy: unknown setting; known here/,
    );
  });
  it('a wrong unit', async () => {
    expect(await withSetting('api', 'memory', '512x')).toMatch(
      /api\.memory: "512x" is not valid: must be a size such as 512m or 2g/,
    );
  });
  it('negative replicas', async () => {
    expect(await withSetting('api', 'replicas', -2)).toMatch(/api\.replicas: -2 is not valid: must be at least 1/);
  });
  it('a port in use', async () => {
    const port = environment.ports.https;
    holder = createServer().listen(port, '127.0.0.1');
    expect(await refused()).toMatch(new RegExp(`gateway\\.ports\\.https: port ${port} is in use by another program`));
  });
  it('no Docker engine', async () => {
    const output = await refused({ DOCKER_HOST: 'unix:///nonexistent/docker.sock' });
    expect(output).toMatch(/No Docker engine answers at unix:\/\/\/nonexistent\/docker\.sock/);
    expect(output).toMatch(/Start it \(systemctl start docker\)/);
  });
  it('a wrong passphrase', async () => {
    expect(await refused({ PULUMI_CONFIG_PASSPHRASE: 'wrong' })).toMatch(/incorrect passphrase/);
  });
});
