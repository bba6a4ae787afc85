import { describeUnless } from '../skip';
import { reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { hesitatingRelease, removeReleases } from './images';
import { failuresOf, figuresOf, loansOf, lostWrites, startHog, startLoad } from './load';

/**
 * Deploys on a host whose processors are busy with something else, when a rollback is needed most. `HOG=1 make bench
 * BENCH=deploys` does it at length.
 */

jest.setTimeout(600_000);

const HOGS = 8;

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'a busy host', () => {
  let environment: TestEnvironment;
  let endHog: () => void = () => undefined;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging');
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  });
  afterAll(async () => {
    endHog();
    await environment.remove();
    removeReleases();
  });

  it('bears a release whose database is late at first, and a rollback, without a failed request', async () => {
    const image = hesitatingRelease(environment.output('image'), 15);
    endHog = startHog(HOGS);
    const load = startLoad(environment, { connections: 40, closed: true });
    await load.begun;
    environment.configure((settings) => (settings['branchloans:image'] = image));
    const deploy = await environment.up();
    expect([deploy.code, deploy.code === 0 ? '' : deploy.output]).toEqual([0, '']);
    const rollback = await environment.verb('rollback');
    expect([rollback.code, rollback.code === 0 ? '' : rollback.output]).toEqual([0, '']);
    const outcomes = await load.stop();
    expect(failuresOf(outcomes)).toEqual([]);
    expect(lostWrites(outcomes, environment.sql(loansOf(load)))).toEqual([]);
    expect(figuresOf(outcomes).acknowledged).toBeGreaterThan(100);
    endHog();
    expect(environment.apiContainers()).toHaveLength(2);
    expect(await environment.changes()).toBe('');
  });
});
