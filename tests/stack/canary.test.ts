import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { crashingRelease, flakyRelease, nextRelease, removeReleases } from './images';
import { failuresOf, startLoad, type Load } from './load';

/** Canaries beside a stable release, under load, by the verb that an operator uses. */

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();

jest.setTimeout(400_000);

describeUnless(reason, 'a canary under load', () => {
  let environment: TestEnvironment;
  let stable: string;
  let load: Load;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), drain: '2s', cpus: 1 };
    });
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    stable = environment.output('image');
    load = startLoad(environment);
  });
  afterAll(async () => {
    await load.stop();
    await environment.remove();
    removeReleases();
  });

  const settings = () =>
    (parse(readFileSync(environment.settingsFile, 'utf8')) as { config: Record<string, unknown> }).config;

  it('that fails is aborted by itself, having had the share that was asked for', async () => {
    const since = new Date();
    const address = addressOfCanary(environment);
    const { code, output } = await environment.verb('canary', ['--image', flakyRelease(stable), '--window', '5m']);
    expect([code === 0, output]).toEqual([
      false,
      expect.stringMatching(/The canary \S+:2\.0\.7 was aborted.*\d\d\.\d % of its requests failed/),
    ]);
    expect(output).toMatch(/canary \d+ requests, .* failed, p95 \d+ ms; stable \d+ requests/);
    expectShare(environment, since, await address, 10);
    expect(settings()).not.toHaveProperty('branchloans:canary');
    expect(canaries(environment)).toEqual([]);
    expect(environment.apiContainers()).toHaveLength(2);
  });

  it('that does not get through its gate leaves settings and containers as they were', async () => {
    const [before, first] = [readFileSync(environment.settingsFile, 'utf8'), load.outcomes.length];
    const { code, output } = await environment.verb('canary', ['--image', crashingRelease(stable)]);
    expect([code === 0, output]).toEqual([
      false,
      expect.stringMatching(/boom at start[^]*did not start, the settings/),
    ]);
    expect(readFileSync(environment.settingsFile, 'utf8')).toBe(before);
    expect(canaries(environment)).toEqual([]);
    expect(failuresOf(load.outcomes.slice(first))).toEqual([]);
  });

  it('that is good outlives its watcher, gets its share, and is promoted; nobody notices', async () => {
    const first = load.outcomes.length;
    const image = nextRelease(stable, 71);
    const since = new Date();
    const address = addressOfCanary(environment);
    const watcher = environment.startVerb('canary', ['--image', image, '--window', '5m']);
    expect([await watcher.said(/Watching/), watcher.output()]).toEqual([true, expect.any(String)]);
    watcher.kill();
    await watcher.ended;
    expect(settings()).toMatchObject({ 'branchloans:canary': { image, percent: 10 } });
    expect(await environment.changes()).toBe('');

    const { code, output } = await environment.verb('canary', ['--window', '45s', '--latency', '10']);
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(output).toMatch(/The canary is promoted: 0\.0 % of \d+ requests failed/);
    expectShare(environment, since, await address, 10);
    expect(settings()).toMatchObject({ 'branchloans:image': image });
    expect(settings()).not.toHaveProperty('branchloans:canary');
    expect(canaries(environment)).toEqual([]);
    expect(environment.apiContainers()).toHaveLength(2);
    expect(failuresOf(load.outcomes.slice(first))).toEqual([]);
    expect(await environment.changes()).toBe('');
  });
});

/** Of the requests between its first and its last one, in the gateway's log since it was asked for: addresses come again. */
function expectShare(environment: TestEnvironment, since: Date, address: string, percent: number): void {
  const upstreams = docker(['logs', '--since', since.toISOString(), `${environment.prefix}-gateway`])
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => (JSON.parse(line) as { upstream: string }).upstream);
  const at = upstreams.flatMap((upstream, index) => (upstream.includes(`${address}:`) ? [index] : []));
  const requests = at.at(-1)! - at[0]! + 1;
  const share = (100 * at.length) / requests;
  console.info(`the canary got ${at.length} of ${requests} requests: ${share.toFixed(2)} %`);
  expect(requests).toBeGreaterThanOrEqual(2_000);
  expect(Math.abs(share - percent)).toBeLessThanOrEqual(2);
}

/** Where the next canary of the environment listens. */
async function addressOfCanary(environment: TestEnvironment): Promise<string> {
  const format = `{{(index .NetworkSettings.Networks "${environment.prefix}-front").IPAddress}}`;
  for (;;) {
    const [name] = canaries(environment);
    const address = name === undefined ? '' : docker(['inspect', '--format', format, name]).trim();
    if (address !== '') return address;
    await new Promise((done) => setTimeout(done, 1_000));
  }
}

function canaries(environment: TestEnvironment): string[] {
  return Object.keys(environment.containers()).filter((name) => name.includes('-api-canary-'));
}
