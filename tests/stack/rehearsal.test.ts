import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { rehearse, type RehearseInput } from '../../infra/deploy/rehearse';
import images from '../../infra/images.json';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { brokenPart, changedPart, removeReleases } from './images';
import { ask, failuresOf, startLoad } from './load';

/** What is replaced in place is tried first: nothing that would not start gets as far as stopping what runs. */

jest.setTimeout(300_000);

const idAndStart = (name: string) => docker(['inspect', '--format', '{{.Id}} {{.State.StartedAt}}', name]).trim();

describeUnless(reasonWithoutEngine(), 'the rehearsal of a container', () => {
  const name = `bl-rehearsal-${process.pid}`;
  const data = `${name}-data`;
  const files = `${name}-files`;
  const script = (text: string): Partial<RehearseInput> => ({ entrypoint: ['sh', '-c', text] });
  const input = (more: Partial<RehearseInput>): RehearseInput => ({
    container: name,
    component: 'thing',
    image: images.nginx,
    user: '101:101',
    entrypoint: ['sh', '-c', 'touch /tmp/ready; sleep 60'],
    command: [],
    environment: ['GREETING=hello'],
    limits: { cpus: 0.5, memoryMib: 64 },
    tmpfs: { '/tmp': 'rw,mode=1777' },
    mounts: [
      { source: files, target: '/files', readOnly: true },
      { source: data, target: '/data', readOnly: false },
    ],
    healthcheck: { test: ['test', '-e', '/tmp/ready'], timeoutSeconds: 2 },
    readyWithinSeconds: 20,
    stopSignal: 'SIGKILL',
    stopGraceSeconds: 5,
    labels: { 'bl-test': name },
    ...more,
  });
  let before: string;

  beforeAll(() => {
    const mounts = ['--volume', `${data}:/data`, '--volume', `${files}:/files`];
    const script = 'echo 7 > /data/version; echo text > /files/text; chmod 777 /data; sleep 600';
    docker(
      ['run', '--detach', '--name', name, '--network', 'none', ...mounts, '--entrypoint', 'sh', images.nginx].concat([
        '-c',
        script,
      ]),
    );
    before = idAndStart(name);
  });
  afterEach(() => {
    expect(idAndStart(name)).toBe(before);
    const all = ['ps', '--all', '--quiet', '--filter', `label=bl-test=${name}`];
    expect([docker(all), docker(['volume', 'ls', '--quiet', '--filter', `label=bl-test=${name}`])]).toEqual(['', '']);
  });
  afterAll(() => {
    docker(['rm', '--force', name]);
    docker(['volume', 'rm', data, files]);
  });

  it('lets through what gets healthy, and says how long the outage will be', async () => {
    expect(await rehearse(input({}))).toMatch(
      /^The thing is replaced now, .* about \d+\.\d s without it \(\d+\.\d s to stop, 5 s at most .*; \d+\.\d s to start\)$/,
    );
  });

  it('gives it the files that are current, and an empty volume in the place of its data', async () => {
    const wanted = 'test "$(cat /files/text)" = text && ! test -e /data/version && test $GREETING = hello';
    const made = 'test -e /data/made || echo first; touch /data/made /tmp/ready; sleep 60';
    await rehearse(input(script(`${wanted} && ! touch /files/x && { ${made}; }`)));
    expect(docker(['exec', name, 'ls', '/data'])).toBe('version\n');
  });

  it('measures the second start: the first one makes the files', async () => {
    const began = Date.now();
    const slowOnce = 'test -e /data/made || sleep 4; touch /data/made /tmp/ready; sleep 60';
    const [, start] = /([\d.]+) s to start/.exec(await rehearse(input(script(slowOnce)))) ?? [];
    expect(Date.now() - began).toBeGreaterThan(4_000);
    expect(Number(start) * 1000).toBeLessThan(Date.now() - began - 4_000);
  });

  it.each<[string, Partial<RehearseInput>, RegExp]>([
    ['crashes', script('echo boom; exit 3'), /ended with exit code 3[^]*boom/],
    [
      'never gets healthy',
      { ...script('echo waiting; sleep 60'), readyWithinSeconds: 1 },
      /not healthy after 1 s[^]*waiting/,
    ],
    [
      'has a health check that hangs',
      { healthcheck: { test: ['sleep', '60'], timeoutSeconds: 1 }, readyWithinSeconds: 1 },
      /not healthy after 1 s[^]*\(no answer\)/,
    ],
    ['has no such program', { entrypoint: ['/no/such/program'] }, /does not start[^]*no such file/],
    [
      'does not fit the data',
      { fits: ['sh', '-c', 'test "$(cat /data/version)" = 8 || { echo "$GREETING: of version 7"; exit 1; }'] },
      /does not fit what the running one has:\n\s+hello: of version 7/,
    ],
    ['would change the data to see whether it fits', { fits: ['touch', '/data/new'] }, /Read-only file system/],
  ])('refuses one that %s, and touches nothing', async (_name, more, reason) => {
    const settle = ['touch', '/tmp/settled'];
    const failure = await rehearse(input({ ...more, settle })).catch((error: unknown) => (error as Error).message);
    expect(failure).toMatch(reason);
    expect(failure).toMatch(new RegExp(`${name} was not touched`));
    expect(() => docker(['exec', name, 'ls', '/tmp/settled'])).toThrow();
  });

  it('prepares the running one for its end when all the rest is good', async () => {
    await rehearse(input({ settle: ['touch', '/tmp/settled'] }));
    expect(docker(['exec', name, 'ls', '/tmp/settled'])).toContain('settled');
  });

  it('clears away what a killed one left', async () => {
    docker(['create', '--name', `${name}-rehearsal`, '--label', `bl-test=${name}`, images.nginx]);
    docker(['volume', 'create', '--label', `bl-test=${name}`, `${name}-rehearsal-0`]);
    await rehearse(input({}));
  });

  it('is skipped where nothing runs', async () => {
    expect(await rehearse(input({ container: `${name}-none`, entrypoint: ['false'] }))).toBe('');
  });
});

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'an environment whose parts change', () => {
  let environment: TestEnvironment;
  const part = (component: string) => `${environment.prefix}-${component}`;
  const use = (changed: Partial<typeof images>) => {
    environment.configure((settings) => (settings['branchloans:images'] = changed));
    return environment.up();
  };
  const status = async (path: string, user?: string) =>
    (await ask(environment.url + path, environment.authority, { user })).status;

  beforeAll(async () => {
    environment = await TestEnvironment.create('development');
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  });
  afterAll(async () => {
    await environment.remove();
    removeReleases();
  });

  it.each<[string, readonly string[], () => Partial<typeof images>, RegExp]>([
    [
      'nginx that does not start',
      ['gateway'],
      () => ({ nginx: brokenPart('nginx') }),
      /The new gateway was tried beside the running one and ended with exit code 1[^]*boom at start of nginx/,
    ],
    [
      'PostgreSQL of another major version',
      ['database'],
      () => ({ postgres: brokenPart('postgres') }),
      /database's files are of PostgreSQL 18, the image has PostgreSQL 17/,
    ],
    [
      'Prometheus or Grafana that does not start',
      ['prometheus', 'grafana'],
      () => ({ prometheus: brokenPart('prometheus'), grafana: brokenPart('grafana') }),
      /The new (prometheus|grafana) was tried[^]*boom at start of \1/,
    ],
  ])('goes on with what it has when it gets a %s', async (_name, parts, broken, reason) => {
    const before = parts.map((component) => idAndStart(part(component)));
    const { code, output } = await use(broken());
    expect(code).not.toBe(0);
    expect(output).toMatch(reason);
    expect(output).toMatch(/was not touched: it goes on as it is/);
    expect(parts.map((component) => idAndStart(part(component)))).toEqual(before);
    expect(await status('/health-db')).toBe(200);
  });

  it('gets a good one, and is told before how long the outage will be', async () => {
    const began = Date.now();
    const before = ['gateway', 'database'].map((component) => idAndStart(part(component)));
    const outage = { longest: 0, last: began };
    const watch = setInterval(() => {
      void status('/health-db').then(
        (code) => {
          if (code !== 200) return;
          outage.longest = Math.max(outage.longest, Date.now() - outage.last);
          outage.last = Date.now();
        },
        () => undefined,
      );
    }, 50);
    const parts = { nginx: changedPart('nginx'), postgres: changedPart('postgres') };
    const { code, output } = await use(parts).finally(() => clearInterval(watch));
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    const told = output.match(/The (gateway|database) is replaced now.*/g) ?? [];
    console.info([...new Set(told), `measured from outside: at most ${outage.longest} ms`].join('\n'));
    for (const [index, component] of ['gateway', 'database'].entries()) {
      expect(idAndStart(part(component))).not.toBe(before[index]);
      expect(output).toMatch(new RegExp(`The ${component} is replaced now.* about \\d+\\.\\d s without it`));
      expect(output.indexOf(`The ${component} is replaced now`)).toBeLessThan(
        output.search(new RegExp(`Container ${part(component)} (deleting|deleted|replacing|creating)`)),
      );
    }
    expect(told.some((line) => /prometheus|grafana/.test(line))).toBe(false);
    expect(await environment.changes()).toBe('');
  });

  it('gets new gateway settings and a new certificate by a reload that fails no request', async () => {
    const before = idAndStart(part('gateway'));
    const program = join(environment.directory, 'infra/ops/nginx.ts');
    const text = readFileSync(program, 'utf8');
    expect(text).toContain('CONNECTIONS_PER_ADDRESS = 256');
    writeFileSync(program, text.replace('CONNECTIONS_PER_ADDRESS = 256', 'CONNECTIONS_PER_ADDRESS = 200'));
    rmSync(join(environment.directory, 'ssl/branchloans.com.pem'));
    const load = startLoad(environment);
    const { code, output } = await environment.up();
    const outcomes = await load.stop();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(failuresOf(outcomes)).toEqual([]);
    expect(outcomes.length).toBeGreaterThan(100);
    expect(idAndStart(part('gateway'))).toBe(before);
    const current = '/etc/branchloans/current';
    expect(docker(['exec', part('gateway'), 'cat', `${current}/nginx.conf`])).toContain('limit_conn addresses 200');
    expect(output).not.toMatch(/is replaced now/);
  });

  it('leaves nothing but the database behind', async () => {
    expect((await environment.destroy()).code).toBe(0);
    expect(environment.leftovers()).toEqual([`volume ${environment.volume}`]);
  });
});
