import { setTimeout as sleep } from 'node:timers/promises';
import { createTurns } from './turns';

const inMs = (milliseconds: number) => performance.now() + milliseconds;

it('lets one at a time work, in the order in which they came, and names not wait for each other', async () => {
  const inTurn = createTurns();
  const log: string[] = [];
  let atWork = 0;
  const work = (name: string, index: number) =>
    inTurn(name, inMs(60_000), async () => {
      log.push(`${name}${index}`);
      if (name === 'a') expect(++atWork).toBe(1);
      await sleep(5);
      if (name === 'a') atWork--;
      return index;
    });
  const indexes = Array.from({ length: 20 }, (_, index) => index);
  const all = [...indexes.map((index) => work('a', index)), work('b', 0)];
  expect(await Promise.all(all)).toEqual([...indexes, 0]);
  expect(log.filter((entry) => entry.startsWith('a'))).toEqual(indexes.map((index) => `a${index}`));
  expect(log.indexOf('b0')).toBe(1);
});

it('begins nothing that could not end by its deadline, and those behind it have their turn', async () => {
  const inTurn = createTurns();
  let begun = 0;
  const work = (deadlineMs: number, tookMs: number) =>
    inTurn('a', inMs(deadlineMs), async () => {
      begun++;
      await sleep(tookMs);
      return 'done';
    });
  // The second waits until its deadline; the third has its turn, and too little time for it.
  const all = [work(60_000, 400), work(100, 400), work(500, 400), work(60_000, 1)];
  expect(await Promise.all(all)).toEqual(['done', undefined, undefined, 'done']);
  expect(begun).toBe(2);
});

it('goes on after work that fails, and does the first of a queue whatever its deadline', async () => {
  const inTurn = createTurns();
  const failing = inTurn('a', inMs(60_000), () => Promise.reject(new Error('no')));
  const next = inTurn('a', inMs(60_000), () => Promise.resolve('done'));
  await expect(failing).rejects.toThrow('no');
  expect(await next).toBe('done');
  await sleep(1); // Until the queue is gone.
  expect(await inTurn('a', inMs(-1), () => Promise.resolve('first'))).toBe('first');
});
