import { figuresOf, type Figures, type Outcome, type Span } from '../load/figures';
import { milliseconds } from '../load/report';

/** Whether an experiment went as its hypothesis says; no I/O. */

export interface Expectation {
  /** Share of the requests that may fail while the fault lasts, from 0 to 1. */
  readonly failedShare: number;
  /**
   * By how much the 95th percentile of all requests may exceed what counts as steady, while the fault lasts. What the
   * generator itself came late does not count: at high load the machine of both may be full.
   */
  readonly slowerMs: number;
  /** What the fault must bring about, or it was none. */
  readonly felt?: 'failures' | 'latency' | undefined;
  /** Every request that fails is answered by a 5xx or 429 that says when to come back. */
  readonly told?: boolean;
  /** What `/health/ready` says through the gateway while the fault lasts. */
  readonly ready?: 'stays' | 'goes' | undefined;
  /** How soon the steady state is there again after the fault. */
  readonly recoverSeconds: number;
}

/** What counts as all being well. */
export interface SteadyState {
  readonly failedShare: number;
  readonly anyP95Ms: number;
}

/** One question to `/health/ready`. */
export interface Probe {
  readonly at: number;
  /** 0 where nothing answered. */
  readonly status: number;
}

export interface Observation {
  readonly outcomes: readonly Outcome[];
  readonly probes: readonly Probe[];
  readonly before: Span;
  readonly during: Span;
  /** Since when the steady state held again, in milliseconds since 1970; undefined: it did not. */
  readonly recoveredAt: number | undefined;
  readonly after: Span;
  /** In words; undefined where the database could not be asked. */
  readonly lost: readonly string[] | undefined;
  /** Why the fault was taken back before its time; undefined when it was not. */
  readonly stopped: string | undefined;
}

/** Why the steady state does not hold; undefined when it does. */
export function unsteady({ requests, failed, anyP95Ms }: Figures, steady: SteadyState): string | undefined {
  if (requests === 0) return 'no request was due';
  if (failed / requests > steady.failedShare) return `${percent(failed / requests)} of the requests failed`;
  if (!(anyP95Ms <= steady.anyP95Ms))
    return `p95 is ${milliseconds(anyP95Ms)} (bound: ${milliseconds(steady.anyP95Ms)})`;
  return undefined;
}

/** Fewer requests tell nothing. */
const ENOUGH = 60;

/** Why the fault is to be taken back at once; undefined while the damage is within its bound. */
export function tooMuch({ requests, failed }: Figures, { failedShare }: Expectation): string | undefined {
  // What is expected, and as much again as chance may add.
  const bound = Math.min(1, failedShare * 2 + 0.05);
  if (requests < ENOUGH || failed / requests <= bound) return undefined;
  return `${percent(failed / requests)} of the requests failed, the bound is ${percent(bound)}`;
}

/** @returns what was not as expected, each in a sentence; empty when the hypothesis held */
export function judge(observation: Observation, expectation: Expectation, steady: SteadyState): string[] {
  const { outcomes, probes, before, during, after, recoveredAt, lost, stopped } = observation;
  const figures = figuresOf(outcomes, during);
  const faults: string[] = [];
  if (stopped !== undefined) faults.push(`the fault was taken back early: ${stopped}`);
  const share = figures.requests === 0 ? 0 : figures.failed / figures.requests;
  if (share > expectation.failedShare) {
    faults.push(`${percent(share)} failed during the fault, at most ${percent(expectation.failedShare)} may`);
  }
  const bound = steady.anyP95Ms + expectation.slowerMs;
  const { anyP95Ms } = figuresOf(
    outcomes.map((each) => ({ ...each, latencyMs: each.latencyMs - each.lagMs })),
    during,
  );
  if (anyP95Ms > bound) {
    faults.push(`p95 during the fault was ${milliseconds(anyP95Ms)}, at most ${milliseconds(bound)} is expected`);
  }
  if (expectation.felt === 'failures' && figures.failed === 0) faults.push('nothing failed: the fault was none');
  if (expectation.felt === 'latency') {
    const quiet = figuresOf(outcomes, before);
    // Where even the slowest twentieth is as quick as before, nothing was slowed down.
    if (!(figures.anyP95Ms > quiet.anyP95Ms + 10)) faults.push('nothing took longer: the fault was none');
  }
  if (expectation.told === true) {
    const untold = outcomes.filter(
      ({ dueAt, failure, status, retryAfter }) =>
        dueAt >= during[0] &&
        dueAt <= during[1] &&
        failure !== undefined &&
        !((status >= 500 || status === 429) && retryAfter === true),
    );
    if (untold.length > 0) {
      faults.push(`${untold.length} failed without a 5xx or 429 and Retry-After, such as: ${untold[0]?.failure ?? ''}`);
    }
  }
  const asked = probes.filter(({ at }) => at >= during[0] && at <= during[1]);
  const ready = asked.filter(({ status }) => status === 200).length;
  if (expectation.ready === 'stays' && ready < asked.length * 0.9) {
    faults.push(`/health/ready failed ${asked.length - ready} of ${asked.length} times`);
  }
  if (expectation.ready === 'goes' && ready === asked.length) {
    faults.push('/health/ready said all the time that all is well');
  }
  if (recoveredAt === undefined) {
    faults.push(`the steady state did not come back within ${expectation.recoverSeconds} s`);
  } else {
    const still = unsteady(figuresOf(outcomes, after), steady);
    if (still !== undefined) faults.push(`afterwards ${still}`);
  }
  if (lost === undefined) faults.push('the database could not be asked which loans there are');
  else if (lost.length > 0) faults.push(`${lost.length} acknowledged writes are wrong, such as: ${lost[0] ?? ''}`);
  return faults;
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}
