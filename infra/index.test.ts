import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as pulumi from '@pulumi/pulumi';
import { parse } from 'yaml';
import type { RehearseInput } from './deploy/rehearse';
import { violations } from './guardrails';
import { EXPORTERS } from './ops/exporters';
import { GENERATED } from './verbs/rotate';

/** The whole program under mocks: what it would ask the engine for. What the engine does is in tests/stack. */

jest.mock('./preflight', () => ({
  preflight: () => Promise.resolve({ engine: 'unix:///var/run/docker.sock', warnings: [] }),
}));

interface Registered {
  readonly type: string;
  readonly name: string;
  readonly inputs: Record<string, unknown>;
}

type Container = Parameters<typeof violations>[0] & { name?: string };

const registered: Registered[] = [];

/** Mocks get secrets wrapped, as the engine does. */
function unwrap(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unwrap);
  if (typeof value !== 'object' || value === null) return value;
  if ('4dabf18193072939515e22adb298388d' in value && 'value' in value) return unwrap(value.value);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unwrap(inner)]));
}

interface Input {
  readonly attempt: { readonly release: object };
}

function stdoutOf({ create, stdin }: { create?: string; stdin?: string }): string {
  if (create?.endsWith(' gate')) {
    const { attempt, containers } = JSON.parse(stdin ?? '{}') as Input & { containers: { name: string }[] };
    return JSON.stringify({ release: attempt.release, containers: containers.map(({ name }) => name) });
  }
  if (create?.endsWith(' switch'))
    return JSON.stringify({ release: (JSON.parse(stdin ?? '{}') as Input).attempt.release });
  if (create?.endsWith(' run')) return '{"message":"migrate done","applied":[],"version":11}\n';
  return create?.startsWith('node -p') ? 'a-generated-secret' : '';
}

function install(stack: string, change: (config: Record<string, unknown>) => void = () => undefined): void {
  registered.length = 0;
  void pulumi.runtime.setMocks(
    {
      call: ({ inputs }) => inputs as Record<string, unknown>,
      newResource: ({ type, name, inputs }) => {
        const given = unwrap(inputs) as Record<string, unknown>;
        registered.push({ type, name, inputs: given });
        const outputs = { imageId: `sha256:${name}`, repoDigest: `sha256:${name}`, name: `${name}-a1b2c3d`, ...given };
        return { id: `${name}-id`, state: { ...outputs, stdout: stdoutOf(given) } };
      },
    },
    'branchloans',
    stack,
  );
  const file = parse(readFileSync(resolve(__dirname, `../Pulumi.${stack}.yaml`), 'utf8')) as {
    config: Record<string, unknown>;
  };
  change(file.config);
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  pulumi.runtime.setAllConfig(
    Object.fromEntries(Object.entries(file.config).map(([key, value]) => [key, text(value)])),
    ['branchloans:databasePassword'],
  );
}

async function run(): Promise<Record<string, unknown>> {
  let program!: () => Promise<Record<string, unknown>>;
  jest.isolateModules(() => {
    // eslint-disable-next-line @typescript-eslint/no-require-imports
    program = require('./index') as typeof program;
  });
  const outputs = await program();
  const resolved = await new Promise<Record<string, unknown>>((done) => pulumi.output(outputs).apply(done));
  // No output of the program waits for all of it: it is whole when nothing more comes.
  const needed = ['grafana', 'alertmanager', 'gateway', 'postgres-exporter'];
  for (let waited = 0, quiet = 0, seen = 0; waited < 200 && quiet < 10; waited += 1) {
    const whole = seen === registered.length && needed.every((part) => containersOf(part).length > 0);
    quiet = whole ? quiet + 1 : 0;
    seen = registered.length;
    await new Promise((done) => setTimeout(done, 20));
  }
  return resolved;
}

const containers = (): Container[] =>
  registered
    .filter(({ type }) => type === 'docker:index/container:Container')
    .map(({ inputs }) => inputs as unknown as Container);
const containersOf = (component: string) =>
  containers().filter(({ labels }) =>
    labels?.some(({ label, value }) => label.endsWith('.component') && value === component),
  );
const commands = (step: string) =>
  registered.filter(({ inputs }) => typeof inputs['create'] === 'string' && inputs['create'].endsWith(` ${step}`));

describe.each(['development', 'staging', 'production'])('the program for %s', (stack) => {
  let outputs: Record<string, unknown>;

  beforeAll(async () => {
    install(stack);
    outputs = await run();
  });

  it('asks for one container of each part, and for as many of the API as the stack says', () => {
    expect(containersOf('api')).toHaveLength(stack === 'development' ? 1 : 2);
    const parts = [
      ...['database', 'gateway', 'prometheus', 'alertmanager', 'grafana'],
      ...Object.values(EXPORTERS).map(({ name }) => name),
    ];
    for (const part of parts) expect(containersOf(part)).toHaveLength(1);
  });

  it('breaks no guardrail', () => {
    for (const container of containers()) expect(violations(container)).toEqual([]);
  });

  it('leaves the names of API containers open and fixes those of the others', () => {
    expect(containersOf('api').map(({ name }) => name)).toEqual(containersOf('api').map(() => undefined));
    expect(containersOf('gateway')[0]?.name).toBe(`branchloans-${stack}-gateway`);
  });

  it('makes the secrets that can be rotated, and no other', () => {
    const made = registered
      .filter(({ inputs }) => String(inputs['create']).startsWith('node -p'))
      .map(({ name }) => name);
    expect(made.sort()).toEqual(
      Object.values(GENERATED)
        .map((name) => `branchloans-${stack}-${name}`)
        .sort(),
    );
  });

  it('rehearses what it replaces in place, and nothing else', () => {
    const rehearsed = commands('rehearse').map(({ inputs }) => JSON.parse(String(inputs['stdin'])) as RehearseInput);
    expect(rehearsed.map(({ component }) => component).sort()).toEqual([
      'alertmanager',
      'database',
      'gateway',
      'grafana',
      'prometheus',
    ]);
    for (const { component, container, image, command } of rehearsed) {
      const real = containersOf(component)[0];
      expect([container, image, command]).toEqual([real?.name, real?.image, real?.command ?? []]);
    }
  });

  it('publishes ports of the gateway only', () => {
    const ports = containersOf('gateway')[0]?.ports?.map(({ external, ip }) => [external, ip]);
    expect(ports).toEqual(
      stack === 'development'
        ? [
            [8443, '127.0.0.1'],
            [8080, '127.0.0.1'],
            [8000, '127.0.0.1'],
          ]
        : [
            [443, '0.0.0.0'],
            [80, '0.0.0.0'],
          ],
    );
  });

  it('hands over who may call the API, and where the gate gets its key', () => {
    for (const { envs } of containersOf('api')) {
      expect(envs).toEqual(
        expect.arrayContaining([
          `API_KEYS=${stack === 'development' ? 'optional' : 'required'}`,
          `ALLOWED_HOSTS=${stack === 'development' ? 'localhost,branchloans.com' : 'branchloans.com,localhost'},127.0.0.1`,
          'PROMETHEUS_URL=http://prometheus:9090/prometheus',
        ]),
      );
    }
    const gate = JSON.parse(String(commands('gate')[0]?.inputs['stdin'])) as { smoke: { keyCommand: string[] } };
    expect(gate.smoke.keyCommand).toEqual(['node', '--enable-source-maps', '/app/main.js', 'api-key']);
  });

  it('tells the probe how long the stack lets it wait, whatever its image was built with', () => {
    const probes = containersOf('api').map(({ envs, healthcheck }) => [
      (envs as string[]).filter((each) => each.startsWith('HEALTHCHECK_TIMEOUT=')).join(),
      healthcheck?.timeout,
    ]);
    const timeout = { development: '5s', staging: '4s', production: '3s' }[stack];
    expect(new Set(probes.flat())).toEqual(new Set([`HEALTHCHECK_TIMEOUT=${timeout}`, timeout]));
  });

  it('hands no secret over in an environment', () => {
    for (const { envs } of containers()) expect(JSON.stringify(envs)).not.toContain('a-generated-secret');
  });

  it('loads sample loans where the stack says so', () => {
    const seeds = commands('run').filter(({ name }) => name.endsWith('-seed'));
    expect(seeds).toHaveLength(stack === 'production' ? 0 : 1);
  });

  it('migrates with the image that it serves, then starts it, then switches', () => {
    const [migrate] = commands('run').filter(({ name }) => name.endsWith('-api-migrate'));
    const { image } = JSON.parse(String(migrate?.inputs['stdin'])) as { image: string };
    expect(new Set(containersOf('api').map((container) => container.image))).toEqual(new Set([image]));
    const steps = registered.map(({ name }) => name.replace(`branchloans-${stack}-`, ''));
    const order = [
      'api-migrate',
      'api-1',
      'api-gate',
      commands('switch')[0]!.name.replace(`branchloans-${stack}-`, ''),
    ];
    expect(steps.filter((name) => order.includes(name))).toEqual(order);
  });

  it('sends traffic to what the gate let through', () => {
    const published = commands('switch')[0];
    const { files, check, reload } = JSON.parse(String(published?.inputs['stdin'])) as {
      files: Record<string, string>;
      check: { command: string[] };
      reload: object;
    };
    for (const index of containersOf('api').keys()) {
      expect(files['upstream.conf']).toContain(`branchloans-${stack}-api-${index + 1}-a1b2c3d:8000`);
    }
    expect(files['nginx.conf']).toContain('branchloans.com');
    expect(check.command).toContain('-t');
    expect(reload).toMatchObject({ container: `branchloans-${stack}-gateway`, signal: 'HUP' });
  });

  it('gives the gateway the time that its idle connections may live and an answer may take, in its files alone', () => {
    expect(shutdownSeconds()).toBe(70);
    // Whatever depends on a setting here replaces the container with it, and shuts everybody out meanwhile.
    expect(containersOf('gateway')[0]).toMatchObject({ stopTimeout: 10, destroyGraceSeconds: 10 });
  });

  it('says where it is and what runs', () => {
    expect(outputs).toMatchObject({
      url: stack === 'development' ? 'https://localhost:8443' : 'https://branchloans.com',
      image: `sha256:branchloans-${stack}-images-api`,
      release: {
        image: `sha256:branchloans-${stack}-images-api`,
        id: expect.stringMatching(/^[0-9a-f]{12}$/),
        schema: 11,
      },
      prometheusUser: 'admin',
      grafanaUser: 'admin',
      operatorToken: 'a-generated-secret',
    });
  });
});

/** How long old workers of the gateway may finish what they have. */
function shutdownSeconds(): number {
  const { files } = JSON.parse(String(commands('switch')[0]?.inputs['stdin'])) as { files: Record<string, string> };
  return Number(/^worker_shutdown_timeout (\d+)s;$/m.exec(files['nginx.conf'] ?? '')?.[1]);
}

describe('the program', () => {
  it('gives the gateway as long to finish as the API, where that takes longer', async () => {
    install('staging', (config) => Object.assign(config['branchloans:api'] as object, { drain: '5s', shutdown: '3m' }));
    await run();
    expect(shutdownSeconds()).toBe(185);
  });

  it.each<[string, object, boolean]>([
    ['memory', { memory: '256m' }, false],
    ['reservation', { memoryReservation: '64m', cpuShares: 2048 }, false],
    ['CPU', { cpus: 2 }, true],
    ['health check', { healthcheck: { interval: '9s', timeout: '5s', retries: 3 } }, true],
    ['address', { address: '127.0.0.2' }, true],
  ])('rehearses the gateway for another %s only if that replaces it', async (_name, change, replaced) => {
    const trigger = async (more: object) => {
      install('staging', (config) => Object.assign(config['branchloans:gateway'] as object, more));
      await run();
      return commands('rehearse').find(({ name }) => name.includes('gateway'))?.inputs['triggers'];
    };
    const before = await trigger({});
    expect(before).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)]);
    expect(JSON.stringify(await trigger(change)) !== JSON.stringify(before)).toBe(replaced);
  });

  it('reserves what the settings say, for each service, and is silent where they say nothing', async () => {
    const reserved = (component: string) => {
      const { memory, memoryReservation, cpuShares } = containersOf(component)[0]!;
      return { memory, memoryReservation, cpuShares };
    };
    install('production', (config) => {
      config['branchloans:grafana'] = { memory: '256m', memoryReservation: '256m', cpuShares: 512 };
    });
    await run();
    expect(reserved('api')).toEqual({ memory: 2048, memoryReservation: 640 });
    expect(reserved('database')).toEqual({ memory: 2048, memoryReservation: 1024 });
    expect(reserved('grafana')).toEqual({ memory: 256, memoryReservation: 256, cpuShares: 512 });
    expect(Object.keys(containersOf('gateway')[0]!)).not.toContain('memoryReservation');
  });

  it('pulls an image that the settings name instead of building one', async () => {
    install('staging', (config) => (config['branchloans:image'] = `me/loans@sha256:${'b'.repeat(64)}`));
    await run();
    expect(registered.filter(({ type }) => type === 'docker:index/image:Image')).toEqual([]);
    expect(registered).toContainEqual(
      expect.objectContaining({ inputs: expect.objectContaining({ name: `me/loans@sha256:${'b'.repeat(64)}` }) }),
    );
  });

  it('leaves an image that the settings name its own commit, unless they say which', async () => {
    const commits = () => containersOf('api').map(({ envs }) => envs?.filter((env) => env.startsWith('COMMIT=')));
    const image = (config: Record<string, unknown>) =>
      (config['branchloans:image'] = `me/loans@sha256:${'b'.repeat(64)}`);
    install('staging', image);
    await run();
    expect(new Set(commits().flat())).toEqual(new Set());
    install('staging', (config) => {
      image(config);
      config['branchloans:commit'] = 'abcdef0';
    });
    await run();
    expect(new Set(commits().flat())).toEqual(new Set(['COMMIT=abcdef0']));
  });

  it('tells the containers which release they are of: another one with each setting that replaces them, and no other', async () => {
    const release = async (change: (config: Record<string, unknown>) => void) => {
      install('staging', change);
      await run();
      const releases = new Set(containersOf('api').flatMap(({ envs }) => envs?.filter((env) => /^RELEASE=/.test(env))));
      expect([...releases]).toEqual([expect.stringMatching(/^RELEASE=[0-9a-f]{12}$/)]);
      return [...releases][0];
    };
    const settings = (config: Record<string, unknown>) => config['branchloans:api'] as Record<string, unknown>;
    const usual = await release(() => undefined);
    expect(await release((config) => (config['branchloans:commit'] = 'abcdef0'))).toBe(usual);
    // Applied to the running containers.
    expect(await release((config) => (settings(config)['memory'] = '600m'))).toBe(usual);
    expect(await release((config) => (settings(config)['poolSize'] = 7))).not.toBe(usual);
    expect(await release((config) => (settings(config)['cpus'] = 0.7))).not.toBe(usual);
  }, 120_000);

  it('runs a canary beside the stable release, with its image and a gate of its own', async () => {
    const image = `sha256:${'c'.repeat(64)}`;
    install('staging', (config) => {
      config['branchloans:canary'] = { image, percent: 10 };
      config['branchloans:commit'] = 'abcdef0';
    });
    const outputs = await run();
    const [one, ...more] = containersOf('api-canary');
    expect(more).toEqual([]);
    expect(one).toMatchObject({ image: 'sha256:branchloans-staging-images-api-canary' });
    expect(one?.name).toBeUndefined();
    expect(violations(one!)).toEqual([]);
    const [stable] = containersOf('api');
    const without = (envs?: readonly string[]) => envs?.filter((env) => !/^(COMMIT|RELEASE)=/.test(env));
    expect(without(one?.envs)).toEqual(without(stable?.envs));
    expect([stable, one].map((each) => each?.envs?.filter((env) => env.startsWith('COMMIT=')))).toEqual([
      ['COMMIT=abcdef0'],
      [],
    ]);
    expect(registered).toContainEqual(expect.objectContaining({ inputs: expect.objectContaining({ name: image }) }));
    expect(
      commands('run')
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['api-canary-migrate', 'api-migrate', 'api-seed'].map((step) => `branchloans-staging-${step}`));
    const migrates = commands('run').find(({ name }) => name.endsWith('-api-canary-migrate'));
    expect(JSON.parse(String(migrates?.inputs['stdin']))).toMatchObject({ image: one?.image });
    expect(commands('gate')).toHaveLength(2);
    const { files } = JSON.parse(String(commands('switch')[0]?.inputs['stdin'])) as { files: Record<string, string> };
    const written = files['upstream.conf'];
    expect(written?.match(/server \S+ resolve weight=\d+/g)).toEqual([
      'server branchloans-staging-api-1-a1b2c3d:8000 resolve weight=9',
      'server branchloans-staging-api-2-a1b2c3d:8000 resolve weight=9',
      'server branchloans-staging-api-canary-1-a1b2c3d:8000 resolve weight=2',
    ]);
    const published = commands('publish').map(({ inputs }) => String(inputs['stdin']));
    expect(published.some((stdin) => stdin.includes('prometheus.yml') && stdin.includes('- api-canary'))).toBe(true);
    expect(outputs).toMatchObject({ canary: { image: expect.stringContaining('api-canary') } });
  });

  it('has the exporters that the settings leave on, and Prometheus asks those alone', async () => {
    install(
      'staging',
      (config) => (config['branchloans:exporters'] = { host: false, containers: false, probes: false }),
    );
    await run();
    const names = Object.values(EXPORTERS).map(({ name }) => name);
    expect(names.filter((name) => containersOf(name).length > 0)).toEqual(['postgres-exporter']);
    const [prometheus] = commands('publish').filter(({ inputs }) => String(inputs['stdin']).includes('prometheus.yml'));
    expect(names.filter((name) => String(prometheus?.inputs['stdin']).includes(`${name}:`))).toEqual([
      'postgres-exporter',
    ]);
    const pulled = registered
      .filter(({ type }) => type === 'docker:index/remoteImage:RemoteImage')
      .map(({ name }) => name);
    expect(pulled.filter((name) => /-(node|node-exporter|blackbox-exporter)$/.test(name))).toEqual([]);
  });

  it('gives the exporter of the database a role of its own, after the service has its', async () => {
    install('staging');
    await run();
    const index = (part: string) => registered.findIndex(({ name }) => name === `branchloans-staging-${part}`);
    expect(index('postgres-exporter-role')).toBeGreaterThan(index('database-roles'));
    const role = JSON.parse(String(registered[index('postgres-exporter-role')]?.inputs['stdin'])) as object;
    expect(role).toMatchObject({ container: 'branchloans-staging-database', user: 'branchloans_monitor' });
  });

  it('switches before it touches an exporter or Alertmanager, but not Prometheus or Grafana', async () => {
    install('staging');
    await run();
    const index = (part: string) => registered.findIndex(({ name }) => name === `branchloans-staging-${part}`);
    const switched = registered.indexOf(commands('switch')[0]!);
    expect(switched).toBeGreaterThan(0);
    for (const { name } of Object.values(EXPORTERS)) expect(index(name)).toBeGreaterThan(switched);
    for (const part of ['alertmanager', 'postgres-exporter-role', 'blackbox-exporter-files'])
      expect(index(part)).toBeGreaterThan(switched);
    // Nothing of them waits for what comes after the switch.
    expect(index('prometheus')).toBeGreaterThan(0);
    for (const part of ['prometheus', 'grafana']) expect(index(part)).toBeLessThan(switched);
  });

  it('asks for the group of the socket again when it is asked for in another way', async () => {
    install('staging');
    await run();
    const [step] = commands('socket');
    expect(step?.inputs).toMatchObject({ triggers: ['/var/run/docker.sock', 'unix:///var/run/docker.sock'] });
    // An update by another command would put that one's output, nothing, in the place of the group.
    expect(step?.inputs['update']).toBeUndefined();
  });

  it('gives the password of the owner to the migrations, and to no container that serves', async () => {
    install('production');
    await run();
    const input = (step: string) =>
      JSON.parse(
        String(registered.find(({ name }) => name === `branchloans-production-api-${step}`)?.inputs['stdin']),
      ) as {
        environment: Record<string, string>;
        mounts: { source: string }[];
      };
    const secrets = 'branchloans-production-api-owner-secrets';
    expect(input('migrate')).toMatchObject({
      environment: { DATABASE_USER: 'branchloans_owner' },
      mounts: [{ source: secrets }],
    });
    for (const container of containers()) expect(JSON.stringify(container)).not.toContain(secrets);
    for (const { envs } of containers()) expect(JSON.stringify(envs)).not.toContain('branchloans_owner');
  });

  it('takes a password that the stack sets itself', async () => {
    install('staging', (config) => (config['branchloans:databasePassword'] = 'chosen-by-the-team'));
    await run();
    const roles = commands('roles')[0];
    expect(String(roles?.inputs['stdin'])).toContain('chosen-by-the-team');
  });

  it('stops before the first resource when a setting is wrong', async () => {
    install('staging', (config) => ((config['branchloans:api'] as Record<string, unknown>)['memory'] = '512x'));
    await expect(run()).rejects.toThrow(/Pulumi\.staging\.yaml: 1 setting.*\n.*512x/);
    expect(registered).toEqual([]);
  });
});
