import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { createMetrics } from '../telemetry/metrics';
import { batched, shared } from './batch';
import { createQueue, type PoolState } from './queue';

const DOUBLE = async (questions: readonly number[]) => {
  await sleep(1);
  return questions.map((question) => 2 * question);
};

describe('batched', () => {
  it('asks together what is asked in one turn, and gives everybody their own answer', async () => {
    const sizes: number[] = [];
    const ask = batched({ size: 3, inFlight: 1 }, (questions: readonly number[]) => {
      sizes.push(questions.length);
      return DOUBLE(questions);
    });
    expect(await Promise.all([1, 2, 3, 4].map(ask))).toEqual([2, 4, 6, 8]);
    expect(sizes).toEqual([3, 1]);
  });

  it('never has more under way than allowed, and joins nothing that has begun', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 3 }),
        fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 20 }),
        async (size, inFlight, delays) => {
          let running = 0;
          const ask = batched({ size, inFlight }, async (askedAt: readonly number[]) => {
            const begunAt = performance.now();
            expect(++running).toBeLessThanOrEqual(inFlight);
            expect(askedAt.length).toBeLessThanOrEqual(size);
            await sleep(1);
            running--;
            return askedAt.map(() => begunAt);
          });
          await Promise.all(
            delays.map(async (delay) => {
              await sleep(delay);
              const askedAt = performance.now();
              expect(await ask(askedAt)).toBeGreaterThanOrEqual(askedAt);
            }),
          );
        },
      ),
      { numRuns: 30 },
    );
  });

  it('a batch that fails is a failure for its calls alone', async () => {
    const ask = batched({ size: 1, inFlight: 2 }, (questions: readonly number[]) =>
      questions[0] === 1 ? Promise.reject(new Error('no')) : DOUBLE(questions),
    );
    const answers = await Promise.allSettled([1, 2].map(ask));
    expect(answers.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    expect(await ask(3)).toBe(6);
  });
});

describe('batched, while what it asks is slow', () => {
  const LIMIT_MS = 20;
  const queue = (state: PoolState, size: number) =>
    createQueue(state, size, LIMIT_MS, createMetrics({ version: '1', commit: 'c', environment: 'test' }));
  /** Answers when `end` is called, as a database that gets no processor. */
  function stuck(inFlight: number) {
    const under: (() => void)[] = [];
    const ask = batched({ size: 50, inFlight, queue }, async (questions: readonly number[]) => {
      await new Promise<void>((done) => under.push(done));
      return questions;
    });
    const end = () => under.splice(0).forEach((done) => done());
    return { ask, end, count: () => under.length };
  }
  /** Two batches are under way, which is as many as usual. */
  async function twoUnderWay({ ask, count }: ReturnType<typeof stuck>): Promise<Promise<number>[]> {
    const asked = [ask(1)];
    while (count() < 1) await sleep(1);
    asked.push(ask(2));
    while (count() < 2) await sleep(1);
    return asked;
  }

  it('refuses no call while there are connections that it does not use', async () => {
    const slow = stuck(3);
    const asked = await twoUnderWay(slow);
    await sleep(3 * LIMIT_MS);
    asked.push(slow.ask(3));
    await sleep(150);
    slow.end();
    expect(await Promise.all(asked)).toEqual([1, 2, 3]);
  });

  it('takes another connection after a moment, without another question, and refuses no call for that wait', async () => {
    const slow = stuck(3);
    const asked = await twoUnderWay(slow);
    asked.push(slow.ask(3));
    const deadline = performance.now() + 5_000;
    while (slow.count() < 3 && performance.now() < deadline) await sleep(5);
    expect(slow.count()).toBe(3);
    slow.end();
    expect(await Promise.all(asked)).toEqual([1, 2, 3]);
  });

  it('refuses who waits too long when all connections are in use', async () => {
    const slow = stuck(2);
    const asked = await twoUnderWay(slow);
    const waited = slow.ask(3);
    const late = expect(waited).rejects.toThrow('overloaded');
    await sleep(3 * LIMIT_MS);
    await expect(slow.ask(4)).rejects.toThrow('overloaded');
    slow.end();
    await late;
    expect(await Promise.all(asked)).toEqual([1, 2]);
  });
});

describe('shared', () => {
  it('asks once for all who ask before it is asked, and again for those who come later', async () => {
    let asked = 0;
    const share = shared<number>();
    const ask = () => share('page', async () => (await sleep(5), ++asked));
    const first = [ask(), ask()];
    await sleep(2); // Under way by now.
    const second = [ask(), ask()];
    expect(await Promise.all([...first, ...second])).toEqual([1, 1, 2, 2]);
    expect(await share('other', () => Promise.resolve(9))).toBe(9);
  });

  it('a failure is that of those who shared it', async () => {
    const share = shared<number>();
    const failed = share('page', () => Promise.reject(new Error('no')));
    await expect(failed).rejects.toThrow('no');
    expect(await share('page', () => Promise.resolve(1))).toBe(1);
  });
});
