import { Agent } from 'node:https';
import { createSecureContext } from 'node:tls';
import { setImmediate as turnOver, setTimeout as sleep } from 'node:timers/promises';
import { trusting } from '../../ssl/trust';
import type { Outcome } from './figures';
import { type DriverMessage, type DriverOrder, type DriverReport, send } from './load';

/** The process behind `startLoad`: takes its order from the parent, reports, and ends with it. */

const REPEAT_AFTER_MS = 500;
const REPORT_EVERY_MS = 500;
/** Every so-manieth request has a connection of its own. */
const FRESH = 5;
/** How many of the newest loans are read. */
const RECENT = 500;

/** Connections that carry one request at a time each, taken in turn so that all of them are in use. */
class Connections {
  private readonly waiting: ((agent: Agent) => void)[] = [];

  constructor(private readonly free: Agent[]) {}

  async use<T>(work: (agent: Agent) => Promise<T>): Promise<T> {
    const agent = this.free.shift() ?? (await new Promise<Agent>((done) => this.waiting.push(done)));
    try {
      return await work(agent);
    } finally {
      const next = this.waiting.shift();
      if (next === undefined) this.free.push(agent);
      else next(agent);
    }
  }
}

async function main(): Promise<void> {
  process.once('disconnect', () => process.exit());
  // A Ctrl-C is for the parent, which says when this is over.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
  const state = { running: true, rate: 0 };
  const order = await new Promise<DriverOrder>((done) =>
    process.on('message', (message: DriverMessage) => {
      if (message === 'stop') state.running = false;
      else if ('newRate' in message) state.rate = message.newRate;
      else done(message);
    }),
  );
  // Told before the order was, perhaps.
  state.rate ||= order.rate;
  const known: string[] = [];
  let outcomes: Outcome[] = [];
  let reads = 0;

  let dueAt = performance.now();
  // When they were due, the oldest first.
  const underWay = new Map<Promise<void>, number>();
  const report = (last: boolean) => {
    const [oldest = dueAt] = underWay.values();
    process.send?.({ outcomes, endedUntil: performance.timeOrigin + oldest, last } satisfies DriverReport);
    outcomes = [];
  };
  const timer = setInterval(() => report(false), REPORT_EVERY_MS);

  // Made once: reading some hundred authorities anew for each connection would cost more than all the rest.
  const secureContext = createSecureContext(trusting(order.authority));
  const make = (count: number, keepAlive: boolean) =>
    new Connections(Array.from({ length: count }, () => new Agent({ keepAlive, maxSockets: 1, secureContext })));
  const ofNew = Math.ceil(order.connections / FRESH);
  const made = make(ofNew, false);
  const kept = make(order.connections - ofNew, true);
  const { reads: readsOfMix, writes } = order.mix;
  report(false);
  dueAt = performance.now();
  for (let turn = 0; state.running; turn++, dueAt += 1_000 / state.rate) {
    while (order.closed && underWay.size >= order.connections) {
      await Promise.race(underWay.keys());
      dueAt = Math.max(dueAt, performance.now());
    }
    const earlyMs = dueAt - performance.now();
    if (earlyMs > 0) await sleep(earlyMs);
    // One that is late lets the answers in all the same.
    else if (turn % 16 === 0) await turnOver();
    const fresh = turn % FRESH === FRESH - 1;
    const write = turn % (readsOfMix + writes) < writes;
    const job = {
      turn,
      dueAt,
      lagMs: Math.max(0, performance.now() - dueAt),
      fresh,
      read: write ? undefined : reads++,
    };
    const one = (fresh ? made : kept)
      .use((agent) => perform(order, agent, job, known))
      .then((outcome) => {
        outcomes.push(outcome);
        underWay.delete(one);
      });
    underWay.set(one, dueAt);
  }
  await Promise.all(underWay.keys());
  clearInterval(timer);
  report(true);
}

interface Job {
  readonly turn: number;
  readonly dueAt: number;
  readonly lagMs: number;
  readonly fresh: boolean;
  /** How many reads came before; undefined of a write. */
  readonly read: number | undefined;
}

async function perform(
  { name, url, key, dryRun }: DriverOrder,
  agent: Agent,
  { turn, dueAt, lagMs, fresh, read }: Job,
  known: string[],
): Promise<Outcome> {
  const id = `${name}-${turn}`;
  const write = read === undefined;
  const method = write ? 'POST' : 'GET';
  const path = write ? `/api/v1/loans${dryRun ? '/dry-run' : ''}` : readingPath(read, known);
  const request = {
    method,
    headers: {
      'x-request-id': id,
      ...(key !== undefined && { authorization: `Bearer ${key}` }),
      ...(write && !dryRun && { 'idempotency-key': id }),
    },
    ...(write && { body: { borrower_id: id, amount: '100.25', currency: 'KES' } }),
  };
  /** @returns what went wrong, and the loan that was made */
  const attempt = async (): Promise<Pick<Outcome, 'status' | 'failure' | 'retryAfter' | 'loan'>> => {
    try {
      const { status, body, retryAfter } = await send(agent, url + path, request);
      if (status < 200 || status > 299) {
        return {
          status,
          failure: `${status} ${body.slice(0, 300)}`,
          ...(retryAfter !== undefined && { retryAfter: true }),
        };
      }
      return write && !dryRun ? { status, loan: (JSON.parse(body) as { id: string }).id } : { status };
    } catch (error) {
      return { status: 0, failure: error instanceof Error ? error.message : String(error) };
    }
  };
  const first = await attempt();
  const latencyMs = performance.now() - dueAt;
  let repeated: boolean | undefined;
  let { loan } = first;
  if (first.failure !== undefined) {
    await sleep(REPEAT_AFTER_MS);
    const again = await attempt();
    repeated = again.failure === undefined;
    loan = again.loan;
  }
  if (loan !== undefined) {
    known.push(loan);
    if (known.length > RECENT) known.shift();
  }
  return {
    ...{ id, what: `${method} ${path}`, dueAt: performance.timeOrigin + dueAt, latencyMs, lagMs, fresh },
    ...first,
    ...(repeated !== undefined && { repeated }),
    ...(loan !== undefined && { loan }),
  };
}

function readingPath(read: number, known: readonly string[]): string {
  const loan = known[Math.floor(Math.random() * known.length)];
  const paths = [loan === undefined ? undefined : `/api/v1/loans/${loan}`, '/api/v1/stats', '/api/v1/loans?limit=5'];
  return paths[read % paths.length] ?? '/api/v1/stats';
}

void main();
