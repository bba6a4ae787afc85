import { spawn, spawnSync } from 'node:child_process';
import { Agent, request } from 'node:https';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, type Run, TestEnvironment } from './environment';
import { failuresOf, loansOf, lostWrites, startLoad } from './load';

/** Maintenance on a real engine: what users, probes and operators see before, during and after it. */

jest.setTimeout(300_000);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'maintenance', () => {
  let environment: TestEnvironment;
  let agent: Agent;

  beforeAll(async () => {
    environment = await TestEnvironment.create('development');
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    agent = new Agent({ keepAlive: true, ca: environment.authority });
  });
  afterAll(async () => {
    agent.destroy();
    await environment.remove();
  });

  /** The operator's command, in the environment's own copy of the program. */
  const maintenance = (...words: string[]): Promise<Run> =>
    new Promise((done, fail) => {
      const child = spawn('node', ['--import', 'tsx', 'infra/main.ts', 'maintenance', 'development', ...words], {
        cwd: environment.directory,
      });
      let output = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (output += String(text)));
      child.on('error', fail);
      child.on('close', (code) => done({ code: code ?? 1, output }));
    });

  const status = (path: string, headers: Record<string, string> = {}): Promise<number> =>
    new Promise((done, fail) => {
      const outgoing = request(environment.url + path, { agent, headers, timeout: 10_000 }, (incoming) => {
        incoming.resume().on('end', () => done(incoming.statusCode ?? 0));
      });
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 10 s')));
      outgoing.on('error', fail);
      outgoing.end();
    });

  /** Asks one path after the other until it is stopped; what was not a 200, in words. */
  function watchProbes() {
    const failures: string[] = [];
    let running = true;
    const watch = async () => {
      for (let turn = 0; running; turn += 1) {
        const path = ['/health', '/health-db', '/health/live', '/health/ready'][turn % 4]!;
        const answer = await status(path).catch(String);
        if (answer !== 200) failures.push(`${path}: ${answer}`);
        await sleep(50);
      }
    };
    const watching = watch();
    return async () => ((running = false), await watching, failures);
  }

  it('closes and opens under load: requests get only its 503, probes and operators never notice, no deploy opens', async () => {
    const probes = watchProbes();
    const load = startLoad(environment);
    await sleep(1_000);

    expect(await maintenance('on')).toMatchObject({ code: 0, output: expect.stringContaining('is closed') });
    const headers = { 'X-Operator-Token': environment.output('operatorToken') };
    expect([await status('/api/loans'), await status('/api/loans', headers)]).toEqual([503, 200]);
    expect(await status('/grafana/login')).toBe(200);
    expect(await maintenance()).toMatchObject({ code: 0, output: expect.stringContaining('is closed') });
    // A whole deploy: the old container goes, and operators are served by the new one.
    environment.configure((settings) => {
      settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), maxAmount: '60000' };
    });
    const { code, output } = await environment.up();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect([await status('/api/loans'), await status('/api/loans', headers)]).toEqual([503, 200]);

    expect(await maintenance('off')).toMatchObject({ code: 0, output: expect.stringContaining('is open again') });
    expect(await status('/api/loans')).toBe(200);
    const after = startLoad(environment);
    await sleep(2_000);

    expect(failuresOf(await after.stop())).toEqual([]);
    const outcomes = await load.stop();
    const failures = failuresOf(outcomes);
    expect(failures.length).toBeGreaterThan(50);
    expect(failures.filter((failure) => !/: 503 \{"type":"urn:problem:maintenance"/.test(failure))).toEqual([]);
    expect(lostWrites(outcomes, environment.sql(loansOf(load)))).toEqual([]);
    expect(await probes()).toEqual([]);
    console.info(`${outcomes.length} requests, ${failures.length} of them told to come back, none failed otherwise`);
  });

  it('holds when the gateway is restarted, and when it is replaced', async () => {
    expect((await maintenance('on')).code).toBe(0);
    const gateway = `${environment.prefix}-gateway`;
    const before = environment.containers()[gateway]!.Id;
    const closed = async () => {
      for (let attempt = 0; attempt < 100; attempt += 1) {
        const answer = await status('/api/loans').catch(() => 0);
        if (answer !== 0) return answer;
        await sleep(100);
      }
      return 0;
    };
    docker(['restart', gateway]);
    expect(await closed()).toBe(503);
    environment.configure((settings) => {
      settings['branchloans:gateway'] = { ...(settings['branchloans:gateway'] as object), cpus: 0.5 };
    });
    const { code, output } = await environment.up();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(environment.containers()[gateway]!.Id).not.toBe(before);
    expect(await closed()).toBe(503);
    expect(await environment.changes()).toBe('');
    docker(['stop', gateway]);
    expect(await maintenance('off')).toMatchObject({ code: 0 });
    docker(['start', gateway]);
    expect(await closed()).toBe(200);
    expect(await maintenance('off')).toMatchObject({ code: 0, output: expect.stringContaining('was open already') });
  });

  it('refuses what it does not understand, and an environment that has no gateway', async () => {
    expect(await maintenance('on', 'off')).toMatchObject({ code: 1, output: expect.stringContaining('Say ON=1 or') });
    docker(['rename', `${environment.prefix}-gateway`, `${environment.prefix}-away`]);
    const { code, output } = await maintenance('on');
    docker(['rename', `${environment.prefix}-away`, `${environment.prefix}-gateway`]);
    expect([code, output]).toEqual([
      1,
      expect.stringMatching(/development has no gateway here .* nothing was changed/),
    ]);
  });

  it.each([
    ['ON=1', 'maintenance development on'],
    ['OFF=1', 'maintenance development off'],
  ])('is what make maintenance %s asks for', (setting, command) => {
    const args = ['--dry-run', '--old-file=node_modules/.package-lock.json', 'maintenance', setting];
    const { stdout } = spawnSync('make', args, { cwd: resolve(__dirname, '../..'), encoding: 'utf8' });
    expect(stdout.replace(/ +/g, ' ')).toContain(command);
  });
});
