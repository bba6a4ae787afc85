import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { ask, type Answer } from '../api/harness';

/** A write that the service has acknowledged, and what it said. */
export interface Acknowledged {
  readonly key: string;
  readonly loan: string;
  /** Of a new loan, else null. */
  readonly borrower: string | null;
  readonly status: string;
  readonly body: string;
}

export interface Figures {
  readonly attempts: number;
  readonly replays: number;
  /** Answers by status; 0 stands for a connection that broke. */
  readonly answers: Readonly<Record<number, number>>;
  /** Between one acknowledgement to anybody and the next. */
  readonly longestGapMs: number;
}

export interface Load {
  readonly acknowledged: readonly Acknowledged[];
  figures(): Figures;
  /** Lets every writer bring what it has begun to its end. */
  stop(): Promise<void>;
}

const WRITERS = 16;
const NEXT = ['approved', 'disbursed', 'repaid'] as const;
/** No single write may take longer to be acknowledged, whatever is killed meanwhile. */
const PATIENCE_MS = 30_000;

/**
 * Writers that each ask for a loan and move some of them on, every write with a key of its own and again with the same
 * key until it is acknowledged, as a careful client does.
 * @param name of this run: it begins every borrower and key
 */
export function startLoad(port: number, name: string): Load {
  const acknowledged: Acknowledged[] = [];
  const answers: Record<number, number> = {};
  const agent = new Agent({ keepAlive: true });
  let attempts = 0;
  let replays = 0;
  let longestGapMs = 0;
  let lastAt = performance.now();
  let running = true;
  let failed: unknown;

  /** Resolves to undefined where the loan is gone. */
  const write = async (path: string, key: string, body: object): Promise<Answer | undefined> => {
    const headers = { 'content-type': 'application/json', 'idempotency-key': key };
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      attempts++;
      const options = { headers, body: JSON.stringify(body), agent };
      const answer = await ask(port, 'POST', path, options).catch(() => undefined);
      const status = answer?.status ?? 0;
      answers[status] = (answers[status] ?? 0) + 1;
      if (answer !== undefined && status < 300) {
        if (answer.headers['idempotent-replayed'] === 'true') replays++;
        longestGapMs = Math.max(longestGapMs, performance.now() - lastAt);
        lastAt = performance.now();
        return answer;
      }
      const again = status === 0 || status === 503 || answer?.json().type === 'urn:problem:idempotency-in-progress';
      if (status === 404) return undefined;
      if (!again) throw new Error(`${path} was answered ${status}: ${answer?.text}`);
      if (performance.now() > deadline)
        throw new Error(`${path} was not acknowledged within ${PATIENCE_MS} ms, last ${status}: ${answer?.text}`);
      await sleep(30 + Math.random() * 90);
    }
  };

  const writer = async (who: number) => {
    for (let n = 0; running; n++) {
      const borrower = `${name}-${who}-${n}`;
      const created = await write('/api/v1/loans', borrower, {
        borrower_id: borrower,
        amount: '125.50',
        currency: 'KES',
      });
      if (created === undefined) throw new Error('A new loan cannot be not found');
      const loan = created.json().id as string;
      acknowledged.push({ key: borrower, loan, borrower, status: 'pending', body: created.text });
      for (const to of NEXT.slice(0, n % (NEXT.length + 1))) {
        const key = `${borrower}-${to}`;
        const moved = await write(`/api/v1/loans/${loan}/transitions`, key, { to });
        if (moved === undefined) break;
        acknowledged.push({ key, loan, borrower: null, status: to, body: moved.text });
      }
    }
  };
  const writers = Array.from({ length: WRITERS }, (_, who) => writer(who).catch((error: unknown) => (failed = error)));

  return {
    acknowledged,
    figures: () => ({ attempts, replays, answers, longestGapMs: Math.round(longestGapMs) }),
    async stop() {
      running = false;
      await Promise.all(writers);
      agent.destroy();
      if (failed !== undefined) throw failed as Error;
    },
  };
}
