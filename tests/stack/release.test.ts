import { spawnSync } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Entry } from '../../infra/deploy/ledger';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { crashingRelease, nextRelease, publiclyBrokenRelease, removeReleases } from './images';
import { ask, failuresOf, figuresOf, loansOf, lostWrites, startLoad } from './load';

/** Releases: the ledger, the way back by command, and the way back that nobody asked for. */

jest.setTimeout(300_000);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'releases on a real engine', () => {
  let environment: TestEnvironment;
  let base: string;
  const deploy = (image: string) => {
    environment.configure((settings) => (settings['branchloans:image'] = image));
    return environment.up();
  };
  const ledger = () =>
    docker([
      ...['run', '--rm', '--network', 'none', '--volume', `${environment.prefix}-releases:/releases:ro`],
      ...['--entrypoint', 'cat', environment.image('nginx'), '/releases/ledger.jsonl'],
    ])
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Entry);
  const api = () =>
    Object.keys(environment.containers()).filter((name) => name.startsWith(`${environment.prefix}-api-`));
  const serving = () => {
    const gateway = `${environment.prefix}-gateway`;
    const upstream = docker(['exec', gateway, 'cat', '/etc/branchloans/current/upstream.conf']);
    return api().filter((name) => upstream.includes(`${name}:8000`));
  };

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      const api = settings['branchloans:api'] as Record<string, unknown>;
      settings['branchloans:api'] = { ...api, drain: '2s', readyWithin: '15s' };
    });
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    base = environment.output('image');
  });
  afterAll(async () => {
    await environment.remove();
    removeReleases();
  });

  it('are written down with image, commit, configuration and schema, and named by the outputs', () => {
    const [first, ...more] = ledger();
    expect(more).toEqual([]);
    expect(first).toMatchObject({ outcome: 'active', image: base, commit: '', schema: expect.any(Number) });
    expect(JSON.parse(environment.output('release'))).toMatchObject({ id: first?.id, image: base });
  });

  it('are not written down again when nothing of them changes', async () => {
    expect((await environment.up()).code).toBe(0);
    expect(ledger()).toHaveLength(1);
  });

  it('that fail are written down with the reason, and a stray is gone after the next good one', async () => {
    const { code, output } = await deploy(crashingRelease(base));
    expect([code === 0, output]).toEqual([false, expect.stringContaining('boom at start')]);
    expect(ledger().at(-1)).toMatchObject({ outcome: 'refused', reason: expect.stringMatching(/crashed|ended/) });
    expect(JSON.parse(environment.output('release'))).toMatchObject({ image: base });
    // As a deploy that was cut off would leave it.
    const [like] = api();
    const labels = docker(['inspect', '--format', '{{json .Config.Labels}}', like ?? '']);
    const stray = Object.entries(JSON.parse(labels) as Record<string, string>).flatMap(([k, v]) => [
      '--label',
      `${k}=${v}`,
    ]);
    docker(['create', '--name', `${environment.prefix}-api-9-stray`, ...stray, environment.image('nginx')]);
    expect((await deploy(nextRelease(base, 3))).code).toBe(0);
    expect(api()).toHaveLength(2);
    expect(ledger().at(-1)).toMatchObject({ outcome: 'active' });
  });

  it('that users cannot use are taken back by themselves, and the deploy is a failure', async () => {
    const before = serving();
    const { code, output } = await deploy(publiclyBrokenRelease(base));
    expect(code).not.toBe(0);
    expect(output).toMatch(/fails through the public entrance[^]*The traffic was given back to the release before/);
    expect(ledger().at(-1)).toMatchObject({ outcome: 'rolled back', reason: expect.stringContaining('entrance') });
    expect(serving()).toEqual(before);
    const answer = await ask(`${environment.url}/api/v1/loans`, environment.authority, { key: environment.key });
    expect(answer.status).toBe(200);
    // Tried again, it is judged again.
    expect((await environment.up()).code).not.toBe(0);
    expect(serving()).toEqual(before);
  });

  it('whose switch is cut off and that fail when it runs again give the traffic back to the release before all that', async () => {
    const before = serving();
    const current = () =>
      docker(['exec', `${environment.prefix}-gateway`, 'readlink', '/etc/branchloans/current']).trim();
    const cut = environment.start(['up', '--yes', '--skip-preview']);
    const deadline = Date.now() + 60_000;
    while (!current().endsWith('-handover') && Date.now() < deadline) await sleep(50);
    spawnSync('pkill', ['-9', '-f', `${environment.prefix}-gateway-files-switch switch`]);
    expect((await cut.ended).code).not.toBe(0);
    expect(current()).toMatch(/-handover$/);
    expect(serving().length).toBeGreaterThan(before.length);
    const { code, output } = await environment.up();
    expect([code === 0, output]).toEqual([
      false,
      expect.stringMatching(/The traffic was given back to the release before/),
    ]);
    expect(serving()).toEqual(before);
  });

  it('that come while the gateway is stopped are tested and written down when it is started', async () => {
    docker(['stop', `${environment.prefix}-gateway`]);
    const image = nextRelease(base, 6);
    environment.configure((settings) => (settings['branchloans:image'] = image));
    const { code, output } = await environment.verb('up');
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(ledger().at(-1)).toMatchObject({ outcome: 'active', image: environment.output('image') });
    expect(api()).toHaveLength(2);
  });

  it('are gone back to by one command, in seconds and without a failed request', async () => {
    const wanted = ledger()[0];
    expect((await deploy(nextRelease(base, 4))).code).toBe(0);
    const load = startLoad(environment);
    const begun = Date.now();
    const { code, output } = await environment.verb('rollback', [wanted?.id ?? '']);
    const seconds = (Date.now() - begun) / 1000;
    const outcomes = await load.stop();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(failuresOf(outcomes)).toEqual([]);
    expect(lostWrites(outcomes, environment.sql(loansOf(load)))).toEqual([]);
    const entry = ledger().at(-1);
    expect(entry).toMatchObject({ outcome: 'active', id: wanted?.id });
    const active = (Date.parse(entry?.at ?? '') - begun) / 1000;
    console.info(
      `roll-back: all traffic after ${active.toFixed(1)} s, old containers gone after ${seconds.toFixed(1)} s; ` +
        `${figuresOf(outcomes).requests} requests meanwhile, none failed`,
    );
    expect(api()).toHaveLength(2);
    expect(await environment.changes()).toBe('');
    const { output: table } = await environment.verb('releases');
    expect(table).toMatch(new RegExp(`^\\* ${wanted?.id ?? ''} `, 'm'));
  });

  it('that are not there cannot be gone back to', async () => {
    const { code, output } = await environment.verb('rollback', ['abcdef']);
    expect(code).not.toBe(0);
    expect(output).toMatch(/abcdef is no release that was active\. Nothing was changed/);
  });
});
