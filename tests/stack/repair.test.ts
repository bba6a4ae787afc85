import { request } from 'node:http';
import { join } from 'node:path';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, type Run, TestEnvironment } from './environment';
import { failuresOf, type Load, loansOf, lostWrites, startLoad } from './load';
import { EngineProxy } from './proxy';

/** Deploys that are killed or cut off from their engine, and what brings the stack back. */

const ALL = process.env['KILLS'] === 'all';
jest.setTimeout(ALL ? 1_800_000 : 420_000);

interface Moment {
  readonly when: string;
  /** What `pulumi` prints as it begins with it. */
  readonly begins: RegExp;
  /** How long after that. */
  readonly afterMs: number;
  /** The way back: the verb alone, or the documented command and plain `pulumi up`. */
  readonly remedy: 'make up' | 'repair, pulumi up';
  /** Left out where time counts. */
  readonly rare?: boolean;
}

const MOMENTS: readonly Moment[] = [
  { when: 'at the start', begins: /^Updating/m, afterMs: 0, remedy: 'make up', rare: true },
  { when: 'while the program runs', begins: /^Updating/m, afterMs: 2_500, remedy: 'repair, pulumi up', rare: true },
  {
    when: 'during the migration',
    begins: /api-migrate (updating|creating)/,
    afterMs: 300,
    remedy: 'make up',
    rare: true,
  },
  { when: 'as a container is created', begins: /api-1 creating replacement/, afterMs: 0, remedy: 'make up' },
  {
    when: 'a little later',
    begins: /api-1 creating replacement/,
    afterMs: 250,
    remedy: 'repair, pulumi up',
    rare: true,
  },
  {
    when: 'during the gate',
    begins: /api-gate (creating|updating)/,
    afterMs: 700,
    remedy: 'repair, pulumi up',
    rare: true,
  },
  { when: 'as the switch begins', begins: /gateway-files-switch updating/, afterMs: 0, remedy: 'make up', rare: true },
  { when: 'during the switch', begins: /gateway-files-switch updating/, afterMs: 1_500, remedy: 'repair, pulumi up' },
  { when: 'after the switch', begins: /gateway-files-switch updated/, afterMs: 0, remedy: 'make up', rare: true },
  { when: 'as the old containers stop', begins: /api-1 deleting original/, afterMs: 300, remedy: 'make up' },
];

const CUTS: readonly Moment[] = [
  {
    when: 'during the migration',
    begins: /api-migrate (updating|creating)/,
    afterMs: 300,
    remedy: 'make up',
    rare: true,
  },
  {
    when: 'as a container is created',
    begins: /api-1 creating replacement/,
    afterMs: 100,
    remedy: 'make up',
    rare: true,
  },
  {
    when: 'during the gate',
    begins: /api-gate (creating|updating)/,
    afterMs: 700,
    remedy: 'repair, pulumi up',
    rare: true,
  },
  { when: 'during the switch', begins: /gateway-files-switch updating/, afterMs: 1_500, remedy: 'make up' },
  {
    when: 'as the old containers stop',
    begins: /api-1 deleting original/,
    afterMs: 300,
    remedy: 'repair, pulumi up',
    rare: true,
  },
];

const chosen = (moments: readonly Moment[]) => moments.filter(({ rare }) => ALL || !rare);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'a deploy that does not come to its end', () => {
  let environment: TestEnvironment;
  let proxy: EngineProxy;
  let load: Load | undefined;
  let amount = 50_000;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      const api = settings['branchloans:api'] as Record<string, unknown>;
      settings['branchloans:api'] = { ...api, drain: '2s' };
    });
    proxy = new EngineProxy(join(environment.directory, 'engine.sock'));
    await proxy.open();
    environment.configure((settings) => (settings['docker:host'] = proxy.address));
    good(await environment.verb('up'));
  });
  afterEach(async () => {
    await load?.stop();
    load = undefined;
  });
  afterAll(async () => {
    await environment.remove();
    proxy.cut();
  });

  function good({ code, output }: Run): string {
    if (code !== 0) throw new Error(output);
    return output;
  }

  function changeSettings(): void {
    amount += 1;
    environment.configure((settings) => {
      const api = settings['branchloans:api'] as Record<string, unknown>;
      settings['branchloans:api'] = { ...api, maxAmount: String(amount) };
    });
  }

  /** A deploy up to the moment. */
  async function deployUntil({ begins, afterMs }: Moment) {
    changeSettings();
    load = startLoad(environment);
    const deploy = environment.start(['up', '--yes', '--skip-preview']);
    expect([await deploy.said(begins), 'the moment came']).toEqual([true, 'the moment came']);
    await new Promise((done) => setTimeout(done, afterMs));
    return deploy;
  }

  /** @returns what the repair said that it did */
  async function bringBack(remedy: Moment['remedy']): Promise<string> {
    if (remedy === 'make up') return good(await environment.verb('up'));
    const said = good(await environment.verb('repair'));
    good(await environment.up());
    return said;
  }

  async function expectWhole(): Promise<void> {
    const traffic = load!;
    const outcomes = await traffic.stop();
    load = undefined;
    expect(failuresOf(outcomes)).toEqual([]);
    expect(lostWrites(outcomes, environment.sql(loansOf(traffic)))).toEqual([]);
    expect(outcomes.length).toBeGreaterThan(100);
    const roles = Object.values(environment.containers()).map(
      ({ Config, State }) => `${Config.Labels['org.branchloans.component']} ${State.Status}`,
    );
    expect(roles.sort()).toEqual(
      ['alertmanager', 'api', 'api', 'database', 'gateway', 'grafana', 'prometheus'].map((role) => `${role} running`),
    );
    const networks = environment.leftovers().filter((name) => name.startsWith('network'));
    expect(networks.sort()).toEqual([`network ${environment.prefix}-data`, `network ${environment.prefix}-front`]);
    expect(environment.state()).not.toMatch(/pending_operations|"delete": true/);
    expect(await environment.changes()).toBe('');
  }

  /** Past the command line, which would refuse a name that there is; so does a newer engine. @returns whether it did it */
  function createNetwork(name: string): Promise<boolean> {
    return new Promise((done, fail) => {
      const headers = { 'content-type': 'application/json' };
      const socketPath = join(environment.directory, 'engine.sock');
      request({ socketPath, method: 'POST', path: '/networks/create', headers }, (answer) => {
        answer.resume().on('end', () => done(answer.statusCode === 201));
      })
        .on('error', fail)
        .end(JSON.stringify({ Name: name }));
    });
  }

  const repaired = (said: string) =>
    said
      .split('\n')
      .filter((line) => line.startsWith('  - '))
      .join('\n');

  it.each(chosen(MOMENTS))('is killed $when: no request fails, and $remedy repairs it', async (moment) => {
    const deploy = await deployUntil(moment);
    deploy.kill();
    await deploy.ended;
    // Whoever does not know the remedy is told.
    if (moment.remedy === 'repair, pulumi up')
      expect((await environment.up()).output).toMatch(/stack is currently locked/);
    const started = Date.now();
    const said = await bringBack(moment.remedy);
    console.info(
      `killed ${moment.when}, back after ${Math.round((Date.now() - started) / 1000)} s:\n${repaired(said)}`,
    );
    expect(said).toMatch(/removed the lock of a process that is gone/);
    await expectWhole();
    deploy.bury();
  });

  it.each(chosen(CUTS))('loses its engine $when: no request fails, and $remedy repairs it', async (moment) => {
    const deploy = await deployUntil(moment);
    proxy.cut();
    const { code } = await deploy.ended;
    await proxy.open();
    expect(code).not.toBe(0);
    const said = await bringBack(moment.remedy);
    console.info(`cut off ${moment.when}:\n${repaired(said)}`);
    await expectWhole();
  });

  it('what the state does not know is removed, unless it serves; what does not run is started', async () => {
    load = startLoad(environment);
    const { prefix } = environment;
    const urn = new RegExp(`"urn": "([^"]+::${prefix}-grafana)"`).exec(environment.state())![1]!;
    expect(environment.pulumi(['state', 'delete', '--yes', '-s', environment.stack, urn])).toMatchObject({ code: 0 });
    const label = ['--label', `org.branchloans.environment=${prefix}`];
    const image = environment.containers()[`${prefix}-gateway`]!.Image;
    docker(['create', '--name', `${prefix}-api-9-halfmade`, ...label, '--network', 'none', image]);
    const ambiguous = await createNetwork(`${prefix}-front`);
    docker(['stop', `${prefix}-prometheus`]);

    const said = good(await environment.verb('repair'));
    expect(said).toContain(`removed ${prefix}-grafana (running), which the state does not know`);
    expect(said).toContain(`removed ${prefix}-api-9-halfmade (created), which the state does not know`);
    expect(said).toContain(`${prefix}-prometheus does not run (exited)`);
    if (ambiguous) expect(said).toContain(`removed the network ${prefix}-front`);
    good(await environment.up());
    await expectWhole();
    expect(good(await environment.verb('repair'))).toMatch(/Nothing is wrong with staging; nothing was changed/);
  });

  it('two at once: the second waits for the first, and both end well', async () => {
    load = startLoad(environment);
    changeSettings();
    const first = environment.verb('up');
    const second = environment.verb('up');
    const outputs = [good(await first), good(await second)];
    expect(
      outputs.filter((output) => /Waiting for \S+@\S+ \(pid \d+\), at work since \S+, for 1800 s/.test(output)),
    ).toHaveLength(1);
    await expectWhole();
  });

  it('while one runs: repair refuses, and a wait that is too long ends with the remedy', async () => {
    changeSettings();
    const deploy = environment.start(['up', '--yes', '--skip-preview']);
    expect(await deploy.said(/^Updating/m)).toBe(true);
    const refused = await environment.verb('repair');
    const impatient = await environment.verb('up', [], { WAIT: '1s' });
    for (const { code, output } of [refused, impatient]) {
      expect([code, output]).toEqual([1, expect.stringMatching(/staging is being changed by \S+@\S+ \(pid \d+\)/)]);
    }
    expect(impatient.output).toMatch(/still was after 1 s\. Nothing was changed:\n {2}- wait longer: WAIT=1h/);
    good(await deploy.ended);
  });
});
