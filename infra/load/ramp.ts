/** How many requests a second a stack can bear: which rate to try next, and what the trials say; no I/O. */

import type { Figures, Span } from './figures';

/** What must hold for a rate to count as borne: the objectives of the stack (docs/ARCHITECTURE.md, SLOs). */
export const OBJECTIVE = { p95Ms: 200, failedShare: 0.01 } as const;

/** One rate that was tried. */
export interface Stage {
  /** Requests per second. */
  readonly rate: number;
  readonly figures: Figures;
  /** How late the generator itself was, 99th percentile. */
  readonly lagMs: number;
  /** Requests whose end was waited for in vain: what they would have become is in no figure. */
  readonly unended: number;
}

/** How long the end of a stage's requests is waited for. */
export const patienceMs = (seconds: number): number => (2 * seconds + 60) * 1_000;

/** @param endedUntil every request that was due before has ended @param known of the span, how many have ended */
export function unendedOf(rate: number, [from, to]: Span, endedUntil: number, known: number): number {
  const due = ((to - from) / 1_000) * rate;
  // Where all have ended, fewer than were due are those that the generator did not come to; one may lie on the edge.
  return endedUntil > to ? Math.max(0, Math.floor(due * 0.99) - known) : Math.max(1, Math.ceil(due) - known);
}

/** Beyond this the machine that makes the load is what is measured. */
const LAG_MS = 50;

/** Why a stage is not borne; undefined when it is. */
export function faultOf({ rate, figures, lagMs, unended }: Stage): string | undefined {
  const { requests, failed, anyP95Ms } = figures;
  if (unended > 0) return `${unended} requests have not ended`;
  if (requests === 0) return 'nothing was asked';
  if (failed / requests >= OBJECTIVE.failedShare) {
    return `${((failed / requests) * 100).toFixed(1)} % failed`;
  }
  // Of all requests: one that is refused at once is no quick answer, and one that hangs until it fails is slow.
  if (!(anyP95Ms < OBJECTIVE.p95Ms)) {
    const own =
      lagMs > LAG_MS ? ` (the generator itself was up to ${Math.round(lagMs)} ms late: this machine is full)` : '';
    return `p95 ${Math.round(anyP95Ms)} ms at ${rate}/s${own}`;
  }
  return undefined;
}

const STEP = 1.5;
/** As near as two rates are looked at. */
const NEAR = 1.1;

/**
 * Upwards in steps until one is not borne, then between the highest that is and the lowest that is not.
 * @param range where to begin, and what not to go beyond, in requests per second
 * @returns undefined when it is known well enough
 */
export function nextRate(
  stages: readonly { readonly rate: number; readonly borne: boolean }[],
  { from, most }: { readonly from: number; readonly most: number },
): number | undefined {
  const borne = Math.max(0, ...stages.filter((stage) => stage.borne).map(({ rate }) => rate));
  const tooMuch = Math.min(Infinity, ...stages.filter((stage) => !stage.borne).map(({ rate }) => rate));
  const next = () => {
    if (stages.length === 0) return Math.min(from, most);
    if (tooMuch === Infinity) return Math.min(Math.max(borne + 1, Math.round(borne * STEP)), most);
    if (borne === 0) return Math.floor(tooMuch / 2);
    return tooMuch / borne <= NEAR ? borne : Math.round(Math.sqrt(borne * tooMuch));
  };
  const rate = next();
  return rate < 1 || stages.some((stage) => stage.rate === rate) ? undefined : rate;
}

/** Requests per second that each container bears; undefined where no rate was borne. */
export function capacityOf(
  stages: readonly { readonly rate: number; readonly borne: boolean }[],
  containers: number,
): number | undefined {
  const rates = stages.filter(({ borne }) => borne).map(({ rate }) => rate);
  if (rates.length === 0 || containers < 1) return undefined;
  // Rounded down: a promise is kept.
  return Math.floor((Math.max(...rates) / containers) * 10) / 10;
}
