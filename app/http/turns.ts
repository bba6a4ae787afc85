import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Lets requests that would only get in each other's way work one after the other, in the order in which they came, each
 * name by itself. Holds for this process; other processes have turns of their own.
 *
 * @param deadline on the clock of performance.now()
 * @returns what the work returns; undefined, and nothing was begun, where its turn came too late to end by the deadline
 */
export type InTurn = <T>(name: string, deadline: number, work: () => Promise<T>) => Promise<T | undefined>;

interface Queue {
  /** Settles when the last of the queue has had its turn. */
  tail: Promise<void>;
  /** How long the quickest work took: another one would hardly take less. */
  quickestMs: number;
}

export function createTurns(): InTurn {
  const queues = new Map<string, Queue>();
  return async function inTurn(name, deadline, work) {
    const known = queues.get(name);
    const queue = known ?? { tail: Promise.resolve(), quickestMs: Infinity };
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const before = queue.tail;
    const turn = before.then(() => ended);
    queue.tail = turn;
    queues.set(name, queue);
    void turn.then(() => (queue.tail === turn ? queues.delete(name) : undefined));
    try {
      if (known !== undefined && !(await settledBy(before, deadline))) return undefined;
      const startedAt = performance.now();
      if (known !== undefined && startedAt + queue.quickestMs > deadline) return undefined;
      try {
        return await work();
      } finally {
        queue.quickestMs = Math.min(queue.quickestMs, performance.now() - startedAt);
      }
    } finally {
      end();
    }
  };
}

/** Whether a promise, which never rejects, settles by the deadline. */
export async function settledBy(promise: Promise<unknown>, deadline: number): Promise<boolean> {
  const patience = new AbortController();
  const late = sleep(Math.max(0, deadline - performance.now()), false, { signal: patience.signal }).catch(() => false);
  const settled = await Promise.race([promise.then(() => true), late]);
  patience.abort();
  return settled;
}
