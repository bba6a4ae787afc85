import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { trusting } from '../../ssl/trust';
import type { Outcome } from './figures';

/**
 * A load through the public entrance, over TLS: GETs of a loan, the list and the statistics, and POSTs with an
 * idempotency key. Requests are due at a rate, whether or not earlier ones were answered (open model), and latency counts
 * from then: a service that stops for a second is seen by every request of that second. Four of five go over connections
 * that are kept, the others each over a new one, so that a switch is seen from both sides. It runs in a process of its own
 * (driver.ts): neither a test nor the program that it runs disturbs it.
 */
export interface Target {
  readonly url: string;
  /** PEM of the authorities that may have signed its certificate. */
  readonly authority: string;
  /** An API key that may read and write loans; undefined where none is wanted. */
  readonly key: string | undefined;
}

export interface LoadOptions {
  /** Requests per second. */
  readonly rate?: number;
  /** How many requests may be under way at a time; more wait for their turn. */
  readonly connections?: number;
  /** Of so many requests so many are reads. */
  readonly mix?: Mix;
  /**
   * Whether a request waits to be due while all connections are in use (closed model). Where the host is too busy for the
   * rate, requests would else wait for ever longer, and most of them until it is not.
   */
  readonly closed?: boolean;
  /** POSTs ask what would be answered (`/loans/dry-run`): the whole way, and no loan stays. */
  readonly dryRun?: boolean;
}

export interface Mix {
  readonly reads: number;
  readonly writes: number;
}

export interface Load {
  /** Begins the borrower of every loan that it asks for. */
  readonly name: string;
  /** What is known so far; the newest may be a second old. */
  readonly outcomes: readonly Outcome[];
  /** Every request that was due before this time has ended, and is among the outcomes; in milliseconds since 1970. */
  readonly endedUntil: () => number;
  /** Resolves when the first request is due: a process takes a moment to start. */
  readonly begun: Promise<void>;
  /** Another rate from now on, in requests per second. */
  setRate(rate: number): void;
  /** Ends when every request that was due is answered or has failed. */
  stop(): Promise<readonly Outcome[]>;
}

/** What the driver is told first; after that another rate, or `stop`. */
export interface DriverOrder extends Target, Required<LoadOptions> {
  readonly name: string;
}
export type DriverMessage = DriverOrder | { readonly newRate: number } | 'stop';

/** From the driver, once when it begins and then twice a second; `last` when no more will come. */
export interface DriverReport {
  readonly outcomes: readonly Outcome[];
  readonly endedUntil: number;
  readonly last: boolean;
}

/** How the borrowers of all loads begin, whoever made them. */
export const BORROWER_PREFIX = 'load-';

export function startLoad(
  { url, authority, key }: Target,
  { rate = 100, connections = 64, mix = { reads: 2, writes: 1 }, closed = false, dryRun = false }: LoadOptions = {},
): Load {
  const name = `${BORROWER_PREFIX}${randomUUID().slice(0, 8)}`;
  const outcomes: Outcome[] = [];
  let endedUntil = 0;
  const driver = fork(join(__dirname, 'driver.ts'), {
    execArgv: ['--import', 'tsx'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  let begin: () => void = () => undefined;
  const begun = new Promise<void>((done) => (begin = done));
  const over = new Promise<void>((done, fail) => {
    driver.on('error', fail);
    driver.on('exit', (code) => fail(new Error(`the load's process ended with exit code ${code}`)));
    driver.on('message', (report: DriverReport) => {
      begin();
      for (const outcome of report.outcomes) outcomes.push(outcome);
      endedUntil = report.endedUntil;
      if (report.last) done();
    });
  });
  // Whoever stops it is told; nobody waits for the begin of one that has ended.
  over.catch(() => {
    begin();
    // Nothing more will be known: `stop` says why.
    endedUntil = Infinity;
  });
  // One that is never stopped ends with this process, and does not keep it.
  void begun.then(() => {
    driver.unref();
    driver.channel?.unref();
  });
  const tell = (message: DriverMessage) => driver.connected && driver.send(message);
  tell({ name, url, authority, key, rate, connections, mix, closed, dryRun });
  return {
    name,
    outcomes,
    endedUntil: () => endedUntil,
    begun,
    setRate: (newRate) => void tell({ newRate }),
    async stop() {
      driver.channel?.ref();
      tell('stop');
      await over;
      if (driver.connected) driver.disconnect();
      return outcomes;
    },
  };
}

/** Asks the database for every loan of the load, one `id borrower` a line. */
export const loansOf = ({ name }: Pick<Load, 'name'>): string =>
  `SELECT id || ' ' || borrower_id FROM loans WHERE borrower_id LIKE '${name}-%'`;

export interface Answer {
  readonly status: number;
  readonly body: string;
  /** `Retry-After`, in seconds; undefined where there is none. */
  readonly retryAfter: string | undefined;
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
      incoming.on('end', () =>
        done({ status: incoming.statusCode ?? 0, body: text, retryAfter: incoming.headers['retry-after'] }),
      );
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
  return send(new Agent(trusting(authority)), address, { ...options, headers: { ...headers } });
}
