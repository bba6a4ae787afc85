import { createLogger } from '../telemetry/logger';
import { createSystemReader } from '../telemetry/system';
import { CONFIG } from '../../tests/api/harness';
import { kept } from './prometheus';
import { createSre } from './sre';

describe('what is kept', () => {
  it('is found once for all that ask', async () => {
    let asked = 0;
    const find = kept(60_000, () => Promise.resolve(++asked));
    expect([await find(), await find(), ...(await Promise.all([find(), find()]))]).toEqual([1, 1, 1, 1]);
  });

  it('is no failure: whoever asks next does not get it', async () => {
    let asked = 0;
    const find = kept(60_000, () => (++asked === 1 ? Promise.reject(new Error('not now')) : Promise.resolve(asked)));
    const together = [find(), find()];
    for (const each of together) await expect(each).rejects.toThrow('not now');
    expect(asked).toBe(1);
    expect([await find(), await find()]).toEqual([2, 2]);
  });
});

it('the history for users does not depend on what the processes have counted', async () => {
  const sre = createSre({
    config: CONFIG,
    metricsText: () => Promise.reject(new Error('the primary does not answer')),
    system: createSystemReader(),
    databaseIsUp: () => Promise.resolve(true),
    logger: createLogger('error', process.stderr),
    now: () => new Date(),
  });
  expect(await sre.history()).toMatchObject({ source: 'process' });
  expect(await sre.alerts()).toMatchObject({ source: 'process' });
  await expect(sre.metrics()).rejects.toThrow('the primary does not answer');
});
