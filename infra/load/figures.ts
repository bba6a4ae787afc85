import { quantile } from './quantile';

/** What became of a load's requests, as figures; no I/O. */

/** A request, once its answer or its failure is known. */
export interface Outcome {
  /** `X-Request-ID` of the request, for the logs of gateway and API; without its end the name of the load. */
  readonly id: string;
  readonly what: string;
  /** When it was due, in milliseconds since 1970. */
  readonly dueAt: number;
  /** From when it was due until its answer or failure: a request that had to wait for its turn has waited. */
  readonly latencyMs: number;
  /** How much of that the generator itself came late, before the request had a connection or waited for one. */
  readonly lagMs: number;
  /** 0 where the connection failed. */
  readonly status: number;
  /** Whether its connection was made for it. */
  readonly fresh: boolean;
  /** What went wrong; undefined of a 2xx. */
  readonly failure?: string;
  /** Whether a failure said when to come back (`Retry-After`). */
  readonly retryAfter?: boolean;
  /** Of a failure: whether one repetition, half a second later and with the same key, was answered by a 2xx. */
  readonly repeated?: boolean;
  /** The loan whose creation was acknowledged, perhaps to the repetition. */
  readonly loan?: string;
}

/** Milliseconds since 1970. */
export type Span = readonly [from: number, to: number];

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
  readonly p95Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Of all requests, until the answer or the failure: a client that is refused should be refused soon. */
  readonly anyP95Ms: number;
}

/** @param span all of the load if left out */
export function figuresOf(outcomes: readonly Outcome[], [from, to]: Span = [-Infinity, Infinity]): Figures {
  const during = outcomes.filter(({ dueAt }) => dueAt >= from && dueAt <= to);
  const failed = during.filter(({ failure }) => failure !== undefined);
  const latencies = during.filter(({ failure }) => failure === undefined).map(({ latencyMs }) => latencyMs);
  return {
    requests: during.length,
    failed: failed.length,
    failedTwice: failed.filter(({ repeated }) => repeated !== true).length,
    acknowledged: during.filter(({ loan }) => loan !== undefined).length,
    p50Ms: quantile(latencies, 0.5),
    p95Ms: quantile(latencies, 0.95),
    p99Ms: quantile(latencies, 0.99),
    maxMs: quantile(latencies, 1),
    anyP95Ms: quantile(
      during.map(({ latencyMs }) => latencyMs),
      0.95,
    ),
  };
}

/** Figures of one moment of a load. */
export interface Moment extends Figures {
  /** Its begin, in milliseconds since 1970. */
  readonly at: number;
}

/** @returns one for each step of the span, also where nothing was due; a last one that is not whole is left out */
export function timelineOf(outcomes: readonly Outcome[], [from, to]: Span, stepMs: number): Moment[] {
  const count = Math.max(0, Math.floor((to - from) / stepMs));
  const parts: Outcome[][] = Array.from({ length: count }, () => []);
  for (const outcome of outcomes) parts[Math.floor((outcome.dueAt - from) / stepMs)]?.push(outcome);
  return parts.map((part, index) => ({ at: from + index * stepMs, ...figuresOf(part) }));
}

/** From the first to the last request that was due. @returns undefined of no outcomes */
export function spanOf(outcomes: readonly Outcome[]): Span | undefined {
  if (outcomes.length === 0) return undefined;
  let [from, to] = [Infinity, -Infinity];
  for (const { dueAt } of outcomes) [from, to] = [Math.min(from, dueAt), Math.max(to, dueAt)];
  return [from, to];
}

/** How late the generator itself was, as the 99th percentile in milliseconds: beyond some tens the machine is too busy to measure. */
export function lagOf(outcomes: readonly Outcome[]): number {
  return quantile(
    outcomes.map(({ lagMs }) => lagMs),
    0.99,
  );
}

/** Failures by what they are, without what differs from one to the next; the most frequent first. */
export function kindsOf(outcomes: readonly Outcome[]): { readonly kind: string; readonly count: number }[] {
  const kinds = new Map<string, number>();
  for (const { failure } of outcomes) {
    if (failure === undefined) continue;
    const kind = kindOf(failure);
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [...kinds].map(([kind, count]) => ({ kind, count })).sort((a, b) => b.count - a.count);
}

/** `503 db-unavailable` of a problem document, else the words of the failure without addresses. */
export function kindOf(failure: string): string {
  const [, status, slug] = /^(\d{3}) .*"type":"urn:problem:([a-z-]+)"/s.exec(failure) ?? [];
  if (status !== undefined && slug !== undefined) return `${status} ${slug}`;
  return failure
    .replace(/\s+/g, ' ')
    .replace(/\d{1,3}(\.\d{1,3}){3}(:\d+)?/g, 'the gateway')
    .slice(0, 80)
    .trim();
}

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
