import { Agent } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DriverOrder, type DriverReport, type Outcome, send } from './load';

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
  let running = true;
  const order = await new Promise<DriverOrder>((done) =>
    process.on('message', (message: DriverOrder | 'stop') => {
      if (message === 'stop') running = false;
      else done(message);
    }),
  );
  const known: string[] = [];
  let outcomes: Outcome[] = [];

  const report = (last: boolean) => {
    process.send?.({ outcomes, last } satisfies DriverReport);
    outcomes = [];
  };
  const timer = setInterval(() => report(false), REPORT_EVERY_MS);

  const make = (count: number, keepAlive: boolean) =>
    new Connections(Array.from({ length: count }, () => new Agent({ keepAlive, maxSockets: 1, ca: order.authority })));
  const ofNew = Math.ceil(order.connections / FRESH);
  const made = make(ofNew, false);
  const kept = make(order.connections - ofNew, true);
  const underWay = new Set<Promise<void>>();
  const startedAt = performance.now();
  for (let turn = 0; running; turn++) {
    const dueAt = startedAt + (turn / order.rate) * 1_000;
    const earlyMs = dueAt - performance.now();
    if (earlyMs > 0) await sleep(earlyMs);
    const fresh = turn % FRESH === FRESH - 1;
    const one = (fresh ? made : kept)
      .use((agent) => perform(order, agent, { turn, dueAt, fresh }, known))
      .then((outcome) => {
        outcomes.push(outcome);
        underWay.delete(one);
      });
    underWay.add(one);
  }
  await Promise.all(underWay);
  clearInterval(timer);
  report(true);
}

async function perform(
  { name, url, key }: DriverOrder,
  agent: Agent,
  { turn, dueAt, fresh }: { readonly turn: number; readonly dueAt: number; readonly fresh: boolean },
  known: string[],
): Promise<Outcome> {
  const id = `${name}-${turn}`;
  const write = turn % 3 === 0;
  const method = write ? 'POST' : 'GET';
  const path = write ? '/api/v1/loans' : readingPath(turn, known);
  const request = {
    method,
    headers: { authorization: `Bearer ${key}`, 'x-request-id': id, ...(write && { 'idempotency-key': id }) },
    ...(write && { body: { borrower_id: id, amount: '100.25', currency: 'KES' } }),
  };
  /** @returns what went wrong, and the loan that was made */
  const attempt = async () => {
    try {
      const { status, body } = await send(agent, url + path, request);
      if (status < 200 || status > 299) return { status, failure: `${status} ${body.slice(0, 300)}` };
      return write ? { status, loan: (JSON.parse(body) as { id: string }).id } : { status };
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
    ...{ id, what: `${method} ${path}`, dueAt: performance.timeOrigin + dueAt, latencyMs, fresh },
    ...first,
    ...(repeated !== undefined && { repeated }),
    ...(loan !== undefined && { loan }),
  };
}

function readingPath(turn: number, known: readonly string[]): string {
  const loan = known[Math.floor(Math.random() * known.length)];
  const paths = [loan === undefined ? undefined : `/api/v1/loans/${loan}`, '/api/v1/stats', '/api/v1/loans?limit=5'];
  // Of every three requests one is a write: three turns of that are nine, and six reads.
  return paths[(turn - Math.ceil(turn / 3)) % paths.length] ?? '/api/v1/stats';
}

void main();
