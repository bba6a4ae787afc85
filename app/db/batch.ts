import { onBehalfOf, requestsServed, type ServedRequest } from '../telemetry/requests';
import type { PoolState, Queue } from './queue';

export interface BatchOptions {
  /** The most calls that one batch takes. */
  readonly size: number;
  /** The most batches that are under way at a time. */
  readonly inFlight: number;
  /** What bounds the wait before a batch; without it, nothing does. */
  readonly queue?: (state: PoolState, size: number) => Queue;
}

/** Enough that one gathers while the other is under way. More only makes them smaller, unless batches are slow. */
const USUALLY_IN_FLIGHT = 2;
/** After so long without an answer another batch begins beside those. */
const PATIENCE_MS = 100;
/** A batch that takes longer may have been too large: the next ones are smaller, and after a failure they begin anew. */
const SLOW_MS = 500;

/**
 * Makes one call of many: what is asked for in the same turn of the event loop, or while enough batches are under way,
 * is asked for together. A call never waits for another to come along, and its answer is always newer than its
 * question: nothing joins a batch that has begun.
 *
 * @param run answers all questions of a batch, in their order. Where it rejects, every call of the batch does.
 * @returns a function that rejects with the Problem of the queue where the wait would be too long
 */
export function batched<Question, Answer>(
  { size, inFlight, queue: createQueue }: BatchOptions,
  run: (questions: readonly Question[]) => Promise<readonly Answer[]>,
): (question: Question) => Promise<Answer> {
  let waiting: Call<Question, Answer>[] = [];
  let running = 0;
  let scheduled = false;
  let currentSize = size;
  let lastBegunAt = 0;
  /** When all that may be was under way. A call that asked later has not waited for the database. */
  let lastFullAt = -Infinity;
  let patience: NodeJS.Timeout | undefined;
  const usually = Math.min(USUALLY_IN_FLIGHT, inFlight);
  const queue = createQueue?.(
    {
      totalCount: inFlight,
      // Those that are kept for slow batches among them: a slow batch is no reason to refuse a call while they are free.
      get idleCount() {
        return inFlight - running;
      },
      get waitingCount() {
        return Math.ceil(waiting.length / currentSize);
      },
    },
    inFlight,
  );

  /** As many as may be while batches are kept small, since those are slow or failed. */
  function mayRun(): number {
    return currentSize === size ? usually : inFlight;
  }

  function mayBegin(): boolean {
    return running < mayRun() || (running < inFlight && performance.now() - lastBegunAt > PATIENCE_MS);
  }

  function schedule(): void {
    if (scheduled || waiting.length === 0) return;
    if (mayBegin()) {
      scheduled = true;
      setImmediate(begin);
    } else if (running < inFlight && patience === undefined) {
      const leftMs = lastBegunAt + PATIENCE_MS - performance.now();
      patience = setTimeout(() => {
        patience = undefined;
        schedule();
      }, leftMs + 1);
    }
  }

  function begin(): void {
    scheduled = false;
    while (waiting.length > 0 && mayBegin()) {
      const calls = waiting.slice(0, currentSize);
      waiting = waiting.slice(currentSize);
      const patient = calls.filter(
        ({ askedAt, reject }) => lastFullAt < askedAt || queue?.refuseLate(askedAt, reject) !== true,
      );
      if (patient.length === 0) continue;
      running++;
      lastBegunAt = performance.now();
      void settle(patient);
    }
    schedule();
  }

  function nextSize(tookMs: number): number {
    if (tookMs > SLOW_MS) return Math.max(1, currentSize >> 1);
    return 2 * tookMs < SLOW_MS ? Math.min(size, 2 * currentSize) : currentSize;
  }

  async function settle(calls: readonly Call<Question, Answer>[]): Promise<void> {
    const begunAt = performance.now();
    const done = queue?.served();
    let failed = true;
    try {
      const askedFor = calls.flatMap(({ requests }) => requests);
      const answers = await onBehalfOf(askedFor, () => run(calls.map(({ question }) => question)));
      calls.forEach(({ resolve }, index) => resolve(answers[index] as Answer));
      failed = false;
    } catch (error) {
      for (const { reject } of calls) reject(error);
    } finally {
      done?.();
      if (running === inFlight) lastFullAt = performance.now();
      running--;
      currentSize = failed ? 1 : nextSize(performance.now() - begunAt);
      schedule();
    }
  }

  return (question) =>
    new Promise((resolve, reject) => {
      queue?.enter(); // What it throws is the promise's rejection.
      waiting.push({ question, requests: requestsServed(), askedAt: performance.now(), resolve, reject });
      schedule();
    });
}

interface Call<Question, Answer> {
  readonly question: Question;
  readonly requests: readonly ServedRequest[];
  readonly askedAt: number;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Answers the same question once for all who ask it before it is put; one who asks while it is being answered waits
 * for the next time, so that an answer is always newer than its question.
 *
 * @returns a function that asks, by a key that is the same for the same question only
 */
export function shared<Answer>(): (key: string, ask: () => Promise<Answer>) => Promise<Answer> {
  const next = new Map<string, { readonly answer: Promise<Answer>; readonly requests: ServedRequest[] }>();
  const current = new Map<string, Promise<unknown>>();
  return (key, ask) => {
    const joined = next.get(key);
    if (joined !== undefined) {
      joined.requests.push(...requestsServed());
      return joined.answer;
    }
    const requests = [...requestsServed()];
    const begun = (current.get(key) ?? turnOfTheLoop()).then(() => {
      next.delete(key);
      const answer = onBehalfOf(requests, ask);
      const settled = answer.then(ignore, ignore).then(() => {
        if (current.get(key) === settled) current.delete(key);
      });
      current.set(key, settled);
      return answer;
    });
    next.set(key, { answer: begun, requests });
    return begun;
  };
}

function turnOfTheLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function ignore(): void {}
