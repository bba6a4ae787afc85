/** Bounds of a batch: how many calls one takes, and how many batches may be under way. */
export interface BatchLimits {
  readonly size: number;
  readonly inFlight: number;
}

/**
 * Makes one call of many: what is asked for in the same turn of the event loop, or while as many batches as may be are
 * under way, is asked for together. A call never waits for another to come along, and its answer is always newer than
 * its question: nothing joins a batch that has begun.
 *
 * @param run answers all questions of a batch, in their order. Where it rejects, every call of the batch does.
 */
export function batched<Question, Answer>(
  { size, inFlight }: BatchLimits,
  run: (questions: readonly Question[]) => Promise<readonly Answer[]>,
): (question: Question) => Promise<Answer> {
  let waiting: Call<Question, Answer>[] = [];
  let running = 0;
  let scheduled = false;

  function schedule(): void {
    if (scheduled || running >= inFlight || waiting.length === 0) return;
    scheduled = true;
    setImmediate(begin);
  }

  function begin(): void {
    scheduled = false;
    while (running < inFlight && waiting.length > 0) {
      const calls = waiting.slice(0, size);
      waiting = waiting.slice(size);
      running++;
      void settle(calls);
    }
  }

  async function settle(calls: readonly Call<Question, Answer>[]): Promise<void> {
    try {
      const answers = await run(calls.map(({ question }) => question));
      calls.forEach(({ resolve }, index) => resolve(answers[index] as Answer));
    } catch (error) {
      for (const { reject } of calls) reject(error);
    } finally {
      running--;
      schedule();
    }
  }

  return (question) =>
    new Promise((resolve, reject) => {
      waiting.push({ question, resolve, reject });
      schedule();
    });
}

interface Call<Question, Answer> {
  readonly question: Question;
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
  const next = new Map<string, Promise<Answer>>();
  const current = new Map<string, Promise<unknown>>();
  return (key, ask) => {
    const joined = next.get(key);
    if (joined !== undefined) return joined;
    const begun = (current.get(key) ?? turnOfTheLoop()).then(() => {
      next.delete(key);
      const answer = ask();
      const settled = answer.then(ignore, ignore).then(() => {
        if (current.get(key) === settled) current.delete(key);
      });
      current.set(key, settled);
      return answer;
    });
    next.set(key, begun);
    return begun;
  };
}

function turnOfTheLoop(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function ignore(): void {}
