import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { describeUnless } from '../skip';
import { crash, docker, reasonWithoutEngine, reasonWithoutPulumi, type Running, TestEnvironment } from './environment';
import { failuresOf, type Load, loansOf, lostWrites, startLoad } from './load';

/** More and fewer API containers under load, and containers that are killed under load. */

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();

jest.setTimeout(300_000);

describeUnless(reason, 'scaling and keeping on a real engine', () => {
  let environment: TestEnvironment;
  let keeper: Running | undefined;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      const api = settings['branchloans:api'] as Record<string, unknown>;
      settings['branchloans:api'] = {
        ...api,
        cpus: 1,
        drain: '1s',
        autoscale: { min: 2, max: 3, cpu: 70, latency: '5s' },
      };
    });
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  });
  afterEach(async () => {
    await keeper?.stop();
    keeper = undefined;
  });
  afterAll(() => environment.remove());

  /** Names of the API's containers that run -> ids. */
  const running = () =>
    Object.fromEntries(
      Object.entries(environment.containers())
        .filter(
          ([, { Config, State }]) => Config.Labels['org.branchloans.component'] === 'api' && State.Status === 'running',
        )
        .map(([name, { Id }]) => [name, Id]),
    );
  const load = () => startLoad(environment);
  const replicas = () => {
    const file = readFileSync(join(environment.directory, `Pulumi.${environment.stack}.yaml`), 'utf8');
    return (parse(file) as { config: Record<string, { replicas: number }> }).config['branchloans:api']?.replicas;
  };
  const until = async (what: string, holds: () => boolean, seconds = 30) => {
    const deadline = Date.now() + seconds * 1000;
    while (!holds()) {
      if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s\n${keeper?.output() ?? ''}`);
      await sleep(200);
    }
  };
  /** Ends the load: what failed, and what was acknowledged and is not there. */
  const afterwards = async (traffic: Load) => {
    const outcomes = await traffic.stop();
    expect(outcomes.length).toBeGreaterThan(200);
    return { failed: failuresOf(outcomes), lost: lostWrites(outcomes, environment.sql(loansOf(traffic))) };
  };

  it('make scale: up and down under load no request fails, and containers that stay are not touched', async () => {
    const before = running();
    const traffic = load();
    const outputs: string[] = [];
    const counts: number[] = [];
    const kept: boolean[] = [];
    for (const wanted of [3, 2]) {
      const { code, output } = await environment.verb('scale', [String(wanted)]);
      outputs.push(code === 0 ? '' : output);
      const now = running();
      counts.push(Object.keys(now).length, replicas() ?? 0);
      kept.push(Object.entries(before).every(([name, id]) => now[name] === id));
    }
    expect({ outputs, counts, kept, ...(await afterwards(traffic)) }).toEqual({
      outputs: ['', ''],
      counts: [3, 3, 2, 2],
      kept: [true, true],
      failed: [],
      lost: [],
    });
    expect(await environment.changes()).toBe('');
  });

  it('make scale: what cannot be is refused before anything is touched, and the setting stays', async () => {
    for (const [wanted, message] of [
      ['4', /api\.replicas: 4 is not between api\.autoscale\.min and max, 2 and 3/],
      ['many', /make scale STACK=staging REPLICAS=3/],
    ] as const) {
      const { code, output } = await environment.verb('scale', [wanted]);
      expect([code, output]).toEqual([1, expect.stringMatching(message)]);
      expect(replicas()).toBe(2);
    }
  });

  it('make autoscale: says what the signals are and what they want', async () => {
    const { code, output } = await environment.verb('autoscale');
    expect([code, output]).toEqual([
      0,
      expect.stringMatching(/cpu +\d+ % +70 % +\d+\n +latency +\d+ ms +5000 ms +1\n/),
    ]);
    expect(output).toMatch(/^Recommended: [23]\. Reason: /m);
  });

  it('docker kill of one of two under load: nothing fails, and it is brought back', async () => {
    keeper = environment.startVerb('keep');
    const before = running();
    const [victim = ''] = Object.keys(before);
    const traffic = load();
    await sleep(2_000);
    docker(['kill', victim]);
    await until('back', () => keeper?.output().includes(`${victim} was killed: started again.`) === true);
    // nginx looks the name up again.
    await sleep(6_000);
    expect(await afterwards(traffic)).toEqual({ failed: [], lost: [] });
    await until('healthy', () => environment.containers()[victim]?.State.Health?.Status === 'healthy', 60);
    expect(running()).toEqual(before);
  });

  it('does not get in the way of a deploy', async () => {
    keeper = environment.startVerb('keep');
    const before = running();
    environment.configure((settings) => {
      (settings['branchloans:api'] as Record<string, unknown>)['logLevel'] = 'warn';
    });
    const { code, output } = await environment.up();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    await sleep(4_000);
    const after = running();
    expect(Object.keys(after)).toHaveLength(2);
    expect(Object.values(after).filter((id) => Object.values(before).includes(id))).toEqual([]);
    expect(Object.values(environment.containers()).filter(({ State }) => State.Status !== 'running')).toEqual([]);
    expect(keeper.output()).not.toContain('started again');
    expect(await environment.changes()).toBe('');
  });

  it('a gateway that crashes after a reload is restarted by the engine alone', async () => {
    const gateway = `${environment.prefix}-gateway`;
    const startedAt = () => docker(['inspect', '--format', '{{.State.StartedAt}} {{.State.Status}}', gateway]).trim();
    const before = startedAt();
    crash(gateway);
    await until('restarted', () => startedAt() !== before && startedAt().endsWith('running'));
  });
});
