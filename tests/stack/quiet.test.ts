import { setTimeout as sleep } from 'node:timers/promises';
import { queryPrometheus } from '../../infra/deploy/prometheus';
import { describeUnless } from '../skip';
import { reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { figuresOf, startLoad } from './load';

/** A stack with all that watches it, some users, and no fault: who is called for nothing stops listening. */

/** Alerts begin after up to ten minutes of what they watch for. */
const QUIET_SECONDS = Number(process.env['QUIET_SECONDS'] ?? 600);
/** Of the host, not of the stack: containers and small virtual machines may have no time service. */
const OF_THE_HOST = ['HostClockSkew'];

jest.setTimeout((QUIET_SECONDS + 300) * 1_000);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'a stack in peace', () => {
  let environment: TestEnvironment;
  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => delete settings['branchloans:exporters']);
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  });
  afterAll(() => environment.remove());

  it('has no alert but the watchdog, from its first second on', async () => {
    const ask = (expression: string) => queryPrometheus(`${environment.prefix}-prometheus`, expression);
    const load = startLoad(environment, { rate: 5 });
    await sleep(QUIET_SECONDS * 1_000);
    const { requests, failed } = figuresOf(await load.stop());
    const alerts = await ask(`count by (alertname, alertstate) (count_over_time(ALERTS[${QUIET_SECONDS + 120}s]))`);
    const named = (state: string) =>
      alerts.filter(({ labels }) => labels['alertstate'] === state).map(({ labels }) => labels['alertname'] ?? '');
    console.info(`quiet for ${QUIET_SECONDS} s: firing ${named('firing').join()}; pending ${named('pending').join()}`);
    expect(requests).toBeGreaterThan(4 * QUIET_SECONDS);
    expect(failed).toBe(0);
    expect(named('firing').filter((name) => !OF_THE_HOST.includes(name))).toEqual(['Watchdog']);
    expect(await ask('up == 0')).toEqual([]);
    expect((await ask('up')).length).toBeGreaterThan(8);
  });
});
