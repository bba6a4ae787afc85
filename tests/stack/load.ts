import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { quantile } from '../../bench/quantile';

/**
 * A constant load through the public entrance, over TLS: every third request is a POST with an idempotency key, the
 * others read a loan, the list or the statistics. Requests are due at fixed times, whether or not earlier ones were
 * answered (open model), and latency counts from then. Four of five go over connections that are kept, the others each over
 * a new one, so that a switch is seen from both sides. It runs in a process of its own (driver.ts): neither a test nor the
 * program that it runs disturbs it.
 */
export interface Target {
  readonly url: string;
  /** PEM of the authority that signed its certificate. */
  readonly authority: string;
  /** An API key that may read and write loans. */
  readonly key: string;
}

export interface LoadOptions {
  /** Requests per second. */
  readonly rate?: number;
  readonly connections?: number;
}

/** A request, once its answer or its failure is known. */
export interface Outcome {
  /** `X-Request-ID` of the request, for the logs of gateway and API; without its end the name of the load. */
  readonly id: string;
  readonly what: string;
  /** When it was due, in milliseconds since 1970. */
  readonly dueAt: number;
  readonly latencyMs: number;
  /** 0 where the connection failed. */
  readonly status: number;
  /** Whether its connection was made for it. */
  readonly fresh: boolean;
  /** What went wrong; undefined of a 2xx. */
  readonly failure?: string;
  /** Of a failure: whether one repetition, half a second later and with the same key, was answered by a 2xx. */
  readonly repeated?: boolean;
  /** The loan whose creation was acknowledged, perhaps to the repetition. */
  readonly loan?: string;
}

export interface Load {
  /** Begins the borrower of every loan that it asks for. */
  readonly name: string;
  /** What is known so far; the newest may be a second old. */
  readonly outcomes: readonly Outcome[];
  /** Ends when every request that was due is answered or has failed. */
  stop(): Promise<readonly Outcome[]>;
}

/** What the driver is told first; after that only `stop`. */
export interface DriverOrder extends Target, Required<LoadOptions> {
  readonly name: string;
}

/** From the driver, twice a second; `last` when no more will come. */
export interface DriverReport {
  readonly outcomes: readonly Outcome[];
  readonly last: boolean;
}

export function startLoad({ url, authority, key }: Target, { rate = 120, connections = 64 }: LoadOptions = {}): Load {
  const name = `load-${randomUUID().slice(0, 8)}`;
  const outcomes: Outcome[] = [];
  const driver = fork(join(__dirname, 'driver.ts'), {
    execArgv: ['--import', 'tsx'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const over = new Promise<void>((done, fail) => {
    driver.on('error', fail);
    driver.on('exit', (code) => fail(new Error(`the load's process ended with exit code ${code}`)));
    driver.on('message', (report: DriverReport) => {
      for (const outcome of report.outcomes) outcomes.push(outcome);
      if (report.last) done();
    });
  });
  // Whoever stops it is told.
  over.catch(() => undefined);
  driver.send({ name, url, authority, key, rate, connections } satisfies DriverOrder);
  return {
    name,
    outcomes,
    async stop() {
      if (driver.connected) driver.send('stop');
      await over;
      driver.disconnect();
      return outcomes;
    },
  };
}

/** A line for each request that failed: what a strict count counts. */
export function failuresOf(outcomes: readonly Outcome[]): string[] {
  return outcomes.flatMap(({ id, what, dueAt, latencyMs, fresh, failure, repeated }) =>
    failure === undefined
      ? []
      : [
          `${new Date(dueAt).toISOString()} +${Math.round(latencyMs)} ms ${id} ${what} on a ${fresh ? 'new' : 'kept'} ` +
            `connection: ${failure}; ${repeated ? 'the repetition was answered' : 'the repetition failed too'}`,
        ],
  );
}

/** Of what was due in a span of time; latencies are those of the answers with 2xx, and NaN where there was none. */
export interface Figures {
  readonly requests: number;
  readonly failed: number;
  /** What a client sees that repeats a failed request once. */
  readonly failedTwice: number;
  readonly acknowledged: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** @param span milliseconds since 1970; all of the load if left out */
export function figuresOf(
  outcomes: readonly Outcome[],
  [from, to]: readonly [from: number, to: number] = [-Infinity, Infinity],
): Figures {
  const during = outcomes.filter(({ dueAt }) => dueAt >= from && dueAt <= to);
  const failed = during.filter(({ failure }) => failure !== undefined);
  const latencies = during.filter(({ failure }) => failure === undefined).map(({ latencyMs }) => latencyMs);
  return {
    requests: during.length,
    failed: failed.length,
    failedTwice: failed.filter(({ repeated }) => repeated !== true).length,
    acknowledged: during.filter(({ loan }) => loan !== undefined).length,
    p50Ms: quantile(latencies, 0.5),
    p99Ms: quantile(latencies, 0.99),
    maxMs: quantile(latencies, 1),
  };
}

/** Asks the database for every loan of the load, one `id borrower` a line. */
export const loansOf = ({ name }: Load): string =>
  `SELECT id || ' ' || borrower_id FROM loans WHERE borrower_id LIKE '${name}-%'`;

/**
 * @param stored what `loansOf` printed
 * @returns a line for each acknowledged loan that is not there, and each borrower who got more than one
 */
export function lostWrites(outcomes: readonly Outcome[], stored: string): string[] {
  const lines = stored.split('\n').filter(Boolean);
  const there = new Set(lines);
  const loans = new Map<string, number>();
  for (const line of lines) {
    const borrower = line.split(' ')[1] ?? '';
    loans.set(borrower, (loans.get(borrower) ?? 0) + 1);
  }
  const lost = outcomes.filter(({ id, loan }) => loan !== undefined && !there.has(`${loan} ${id}`));
  return [
    ...lost.map(({ id, loan }) => `loan ${loan} of ${id} was acknowledged and is not there`),
    ...[...loans].flatMap(([borrower, count]) =>
      count > 1 ? [`${borrower} asked for one loan and has ${count}`] : [],
    ),
  ];
}

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** No answer takes longer: the gateway gives up after ten seconds. */
const TIMEOUT_MS = 20_000;

/** Rejects where the connection fails. */
export function send(
  agent: Agent,
  url: string,
  { method = 'GET', body, ...more }: { method?: string; body?: object; headers: Record<string, string> },
): Promise<Answer> {
  const headers = { ...more.headers, ...(body && { 'content-type': 'application/json' }) };
  return new Promise((done, fail) => {
    const outgoing = request(url, { agent, method, headers, timeout: TIMEOUT_MS }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8');
      incoming.on('data', (chunk: string) => (text += chunk));
      incoming.on('end', () => done({ status: incoming.statusCode ?? 0, body: text }));
      incoming.on('error', fail);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer within ${TIMEOUT_MS / 1_000} s`)));
    outgoing.on('error', fail);
    outgoing.end(body ? JSON.stringify(body) : undefined);
  });
}

/** One request through the public entrance, trusting only the environment's own authority. */
export async function ask(
  url: string,
  authority: string,
  { user, key, ...options }: { method?: string; body?: object; user?: string; key?: string } = {},
): Promise<Answer> {
  const headers = key === undefined ? undefined : { authorization: `Bearer ${key}` };
  const address = user === undefined ? url : url.replace('https://', `https://${user}@`);
  return send(new Agent({ ca: authority }), address, { ...options, headers: { ...headers } });
}
