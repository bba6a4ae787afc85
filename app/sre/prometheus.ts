import { lookup } from 'node:dns/promises';
import { setMaxListeners } from 'node:events';
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { LookupFunction } from 'node:net';
import type { Logger } from '../telemetry/logger';
import { readNumber } from './exposition';
import type { Point } from './trend';

/** One series of an instant query's answer. */
export interface Value {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly points: readonly Point[];
}

/** As Prometheus tells of it. */
export interface ActiveAlert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly state: 'pending' | 'firing';
  readonly activeAt: string;
}

export interface PrometheusState {
  readonly open: boolean;
  /** ISO 8601; null while it is closed. */
  readonly openedAt: string | null;
  /** What was wrong last, in words; null while it is closed. */
  readonly reason: string | null;
}

/**
 * The stack's Prometheus as a source of figures, never as something that an answer depends on: what it does not say in
 * TIMEOUT_MS is not waited for, and after one failure nobody asks, until a question on the side, at most one every
 * RETRY_MS, finds it ready.
 * @throws (from every question) PrometheusAway, at once while it is known to be away
 */
export interface Prometheus {
  /** Its clock, in seconds: the time to ask all questions of one answer for. */
  now(): Promise<number>;
  /** What it refuses to evaluate gives nothing, and a line in the log. */
  query(expression: string, at: number): Promise<Value[]>;
  range(
    expression: string,
    span: { readonly from: number; readonly to: number; readonly step: number },
  ): Promise<Series[]>;
  alerts(): Promise<ActiveAlert[]>;
  state(): PrometheusState;
  close(): void;
}

export class PrometheusAway extends Error {}

/** A person waits for it, and other figures are at hand. */
export const TIMEOUT_MS = 1_500;
export const RETRY_MS = 2_000;
/** Of one answer. */
const MAX_BYTES = 8 * 2 ** 20;
/** Its queries are short; more at a time would be more than its own limit of 20 with some containers that ask. */
const CONNECTIONS = 2;

interface Answer {
  readonly status: number;
  readonly text: string;
}

/**
 * @param url as PROMETHEUS_URL
 * @param now of the calendar, for who reads its state
 * @param headers of a question, such as the trace that it is part of
 */
export function createPrometheus(
  url: string,
  logger: Logger,
  now: () => Date,
  headers: () => Readonly<Record<string, string>> = () => ({}),
): Prometheus {
  const base = url.replace(/\/+$/, '');
  const transport = createTransport(base);
  let opened: { readonly at: string; readonly since: number; readonly reason: string } | undefined;
  let lookedAt = -Infinity;
  let looking = false;
  /** What is asked while it is believed to be there. */
  let asking = beginAsking();

  function open(error: unknown): PrometheusAway {
    const reason = error instanceof Error ? error.message : String(error);
    if (opened === undefined) {
      opened = { at: now().toISOString(), since: performance.now(), reason };
      logger.log('warn', 'prometheus circuit opened', { reason });
      asking.abort();
      // At once: one question that takes too long does not mean that it is away.
      lookedAt = -Infinity;
      void lookWhetherBack();
    }
    return new PrometheusAway(`Prometheus does not answer: ${reason}`);
  }

  /** On the side: whoever asked has gone on without it. */
  async function lookWhetherBack(): Promise<void> {
    if (looking || performance.now() - lookedAt < RETRY_MS) return;
    looking = true;
    try {
      const { status } = await transport.get('/-/ready', {});
      if (status === 200 && opened !== undefined) {
        logger.log('info', 'prometheus circuit closed', { open_ms: Math.round(performance.now() - opened.since) });
        opened = undefined;
        asking = beginAsking();
      }
    } catch {
      // Still away.
    } finally {
      looking = false;
      lookedAt = performance.now();
    }
  }

  async function ask<T>(path: string, parameters: Record<string, string>): Promise<T | undefined> {
    if (opened !== undefined) {
      void lookWhetherBack();
      throw new PrometheusAway(`Prometheus does not answer: ${opened.reason}`);
    }
    let answer: Answer;
    try {
      const target = `${path}?${new URLSearchParams(parameters).toString()}`;
      answer = await transport.get(target, headers(), asking.signal);
      if (answer.status === 200) return (JSON.parse(answer.text) as { data: T }).data;
    } catch (error) {
      throw open(error);
    }
    if (answer.status !== 400 && answer.status !== 422) throw open(new Error(`it answered ${answer.status}`));
    logger.log('warn', 'prometheus refused a query', { ...parameters, reason: answer.text.slice(0, 500) });
    return undefined;
  }

  const answered = <T>(data: { readonly result: T } | undefined): T | undefined => data?.result;
  return {
    async now() {
      const result = answered(await ask<{ result: RawPoint }>('/api/v1/query', { query: 'time()' }));
      return result === undefined ? NaN : readNumber(result[1]);
    },
    async query(expression, at) {
      const parameters = { query: expression, time: String(at) };
      const result = answered(await ask<{ result: RawVector }>('/api/v1/query', parameters)) ?? [];
      return result.map(({ metric, value }) => ({ labels: metric, value: readNumber(value[1]) }));
    },
    async range(expression, { from, to, step }) {
      const parameters = { query: expression, start: String(from), end: String(to), step: String(step) };
      const result = answered(await ask<{ result: RawMatrix }>('/api/v1/query_range', parameters)) ?? [];
      return result.map(({ metric, values }) => ({
        labels: metric,
        points: values.map(([at, value]): Point => [at, readNumber(value)]),
      }));
    },
    async alerts() {
      return (await ask<{ alerts: ActiveAlert[] }>('/api/v1/alerts', {}))?.alerts ?? [];
    },
    state: () => ({ open: opened !== undefined, openedAt: opened?.at ?? null, reason: opened?.reason ?? null }),
    close: () => transport.close(),
  };
}

/** What stops every question there is. */
function beginAsking(): AbortController {
  const asking = new AbortController();
  setMaxListeners(0, asking.signal);
  return asking;
}

type RawPoint = readonly [at: number, value: string];
type RawVector = readonly { readonly metric: Record<string, string>; readonly value: RawPoint }[];
type RawMatrix = readonly { readonly metric: Record<string, string>; readonly values: readonly RawPoint[] }[];

/** GET with few connections that are kept, a limit to every wait, and one to what is read. */
function createTransport(base: string) {
  const secure = base.startsWith('https:');
  const options = { keepAlive: true, maxSockets: CONNECTIONS, timeout: 30_000 };
  const agent = secure ? new HttpsAgent(options) : new HttpAgent(options);
  const send = secure ? httpsRequest : httpRequest;
  const lookUp = oneLookupAtATime();
  return {
    get: (path: string, headers: Readonly<Record<string, string>>, signal?: AbortSignal) =>
      new Promise<Answer>((resolve, reject) => {
        let late: NodeJS.Timeout | undefined;
        const fail = (error: Error) => {
          clearTimeout(late);
          reject(error);
        };
        const outgoing = send(`${base}${path}`, { agent, headers, lookup: lookUp, signal }, (incoming) => {
          let text = '';
          incoming.setEncoding('utf8');
          incoming.on('data', (chunk: string) => {
            text += chunk;
            if (text.length > MAX_BYTES) outgoing.destroy(new Error('its answer is too long'));
          });
          incoming.once('error', fail);
          incoming.once('end', () => {
            clearTimeout(late);
            resolve({ status: incoming.statusCode ?? 0, text });
          });
        });
        // Not before: those that wait for a connection have asked nothing yet.
        outgoing.once('socket', () => {
          late = setTimeout(() => outgoing.destroy(new Error(`no answer in ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
        });
        outgoing.once('error', fail);
        outgoing.end();
      }),
    close: () => agent.destroy(),
  };
}

/**
 * A lookup takes one of the four threads that all of the process shares, the database's connections too, for as long
 * as a resolver is silent; giving up on the request does not give the thread back. So there is never more than one.
 */
function oneLookupAtATime(): LookupFunction {
  let pending: ReturnType<typeof lookUpAll> | undefined;
  const lookUpAll = (host: string) => lookup(host, { all: true }).finally(() => (pending = undefined));
  return (host, { all }, callback) => {
    pending ??= lookUpAll(host);
    pending.then(
      (addresses) => {
        const [first] = addresses;
        if (all === true) callback(null, addresses);
        else callback(null, first?.address ?? '', first?.family);
      },
      (error: unknown) => callback(error as NodeJS.ErrnoException, ''),
    );
  };
}

/**
 * What many ask for and may be some time old: found out once for all of them. A failure is for those who wait for it;
 * whoever comes next asks anew.
 */
export function kept<T>(forMs: number, find: () => Promise<T>): () => Promise<T> {
  let last: { readonly at: number; readonly found: Promise<T> } | undefined;
  return () => {
    if (last === undefined || performance.now() - last.at >= forMs) {
      const asked = { at: performance.now(), found: find() };
      last = asked;
      asked.found.catch(() => {
        if (last === asked) last = undefined;
      });
    }
    return last.found;
  };
}
