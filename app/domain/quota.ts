/**
 * How many requests a caller may make, kept by many processes that seldom talk to each other. The truth is a ledger
 * that they share (db/quotas.ts): for each caller, how many requests were paid for in each of the last slots of time.
 * A process buys a batch there ahead of time, and counts in memory until it is used up.
 *
 * All times here are milliseconds of one process's clock that never goes back; only lengths of time cross the wire,
 * so that clocks need not agree.
 */
export interface Quota {
  /** At most so many requests … */
  readonly requests: number;
  /** … in any window of this many seconds, wherever it begins. */
  readonly windowSeconds: number;
}

/**
 * The window has this many slots. A request counts until its whole slot has left the window, so the limit holds in
 * every window, and a caller who always uses all of it gets 1/61 less.
 */
export const SLOTS = 60;

export const slotMs = ({ windowSeconds }: Quota): number => (windowSeconds * 1_000) / SLOTS;

/**
 * What is bought in one slot must be used in it, or it would count for the wrong time; but for this little, so that a
 * caller who comes rarely does not cost a round trip each time. So much more than the limit a process may let pass.
 */
export const change = ({ requests }: Quota): number => Math.floor(requests / 500);

/** What a process asks of the ledger for one caller, in requests. */
export interface Ask {
  /** Let pass without having been bought, by estimate: counts in any case. */
  readonly spent: number;
  /** Wait for the answer: bought first. */
  readonly urgent: number;
  /** Expected until the end of the slot: bought only as far as enough stays for others. */
  readonly ahead: number;
  /** Bought in an earlier slot and not used. */
  readonly returned: number;
  /** The number of that slot. */
  readonly returnedFrom: number;
}

export interface Grant {
  /** At most urgent + ahead; less than urgent only if nothing is left. */
  readonly granted: number;
  /** The slot that they count in, and when it ends, from when the ledger was asked. */
  readonly slot: number;
  readonly slotEndsInMs: number;
  /** What anybody could still buy. */
  readonly left: number;
  /** When more will be left, if nobody returns any. */
  readonly releaseInMs: number;
}

/** The part of a window that a process waits before it looks whether others have returned something. */
const LOOK_AGAIN = 1 / 10;
/** A refill is asked for when only this part of what is still expected in the slot is left. */
const LOW = 1 / 4;
/** As many times what is expected is bought: what is too much is returned with the next question. */
const SPARE = 1.25;

/** One process's side for one caller. */
export class Account {
  private held = 0;
  private heldFrom = 0;
  private heldUntil = -Infinity;
  private lapsed = 0;
  private lapsedFrom = 0;
  private estimated = 0;
  /** When the ledger last said what is left, or a window was begun without it. */
  private estimatedFrom = -Infinity;
  private emptyUntil = -Infinity;
  private left: number;
  private releaseAt = -Infinity;
  /** Requests in one slot, passed or not, as they come lately. */
  private demand = 0;
  private lastAt: number;

  constructor(
    private readonly quota: Quota,
    now: number,
  ) {
    this.left = quota.requests;
    this.lastAt = now;
  }

  /** Whether one more request may pass; undefined where only the ledger can tell. */
  take(now: number): boolean | undefined {
    this.demand = this.demandAt(now) + 1;
    this.lastAt = now;
    this.lapse(now);
    if (this.held === 0) return this.isEmpty(now) ? false : undefined;
    this.held--;
    return true;
  }

  /** Of so many requests that wait, how many may pass now. */
  settle(waiting: number): number {
    const passed = Math.min(waiting, this.held);
    this.held -= passed;
    return passed;
  }

  /**
   * Whether one more request may pass while the ledger does not answer: each process lets pass what the ledger last
   * said was left, or 1 % of the limit if there must be more by now, and all of the limit in every window after that.
   * It is paid for later, unless it is too old to matter.
   */
  estimate(now: number): boolean {
    if (now >= this.estimatedFrom + this.windowMs) {
      this.estimatedFrom = now;
      this.estimated = 0;
      this.left = this.quota.requests;
      this.releaseAt = now + this.windowMs;
    }
    // By then something has come free, and nobody said yet how much.
    const left = now < this.releaseAt ? this.left : Math.max(this.left, 1, Math.floor(this.quota.requests / 100));
    if (this.estimated >= left) return false;
    this.estimated++;
    return true;
  }

  /** Whether it is known that nothing is left. */
  isEmpty(now: number): boolean {
    return now < this.emptyUntil;
  }

  /** Whether the ledger should be asked before the next request comes. */
  runsLow(now: number): boolean {
    const expected = this.expected(now);
    return this.held < expected && this.held <= expected * LOW && !this.isEmpty(now);
  }

  /** Whether something is held that is to be returned when its slot ends. */
  get holdsPerishable(): boolean {
    return this.held > change(this.quota);
  }

  /** Takes what was not used in its slot out of what is held. True if there is something to return. */
  lapse(now: number): boolean {
    const excess = this.held - change(this.quota);
    if (now >= this.heldUntil && excess > 0) {
      this.held -= excess;
      this.lapsed = excess + (this.lapsedFrom === this.heldFrom ? this.lapsed : 0);
      this.lapsedFrom = this.heldFrom;
    }
    return this.lapsed > 0;
  }

  ask(now: number, waiting: number): Ask {
    this.lapse(now);
    const { requests } = this.quota;
    if (now >= this.estimatedFrom + this.windowMs) this.estimated = 0;
    const urgent = Math.min(waiting, requests);
    const ahead = Math.min(Math.max(0, this.expected(now) - this.held), requests - urgent);
    return { spent: this.estimated, urgent, ahead, returned: this.lapsed, returnedFrom: this.lapsedFrom };
  }

  /** @param sentAt when the ledger was asked; its clock may have been read at any time from then until now. */
  answered(ask: Ask, grant: Grant, sentAt: number, now: number): void {
    this.lapse(now);
    this.estimated = Math.max(0, this.estimated - ask.spent);
    if (this.lapsedFrom === ask.returnedFrom) this.lapsed = Math.max(0, this.lapsed - ask.returned);
    if (grant.granted > 0) {
      this.held += grant.granted;
      this.heldFrom = grant.slot;
      this.heldUntil = sentAt + grant.slotEndsInMs;
    }
    // What passed by estimate while the question was under way.
    const paid = Math.min(this.held, this.estimated);
    this.held -= paid;
    this.estimated -= paid;
    this.estimatedFrom = now;
    this.left = grant.left;
    this.releaseAt = now + grant.releaseInMs;
    this.emptyUntil = grant.left > 0 ? -Infinity : Math.min(this.releaseAt, now + this.windowMs * LOOK_AGAIN);
  }

  /** As far as this process knows. */
  get remaining(): number {
    return this.held + Math.max(0, this.left - this.estimated);
  }

  /** Whole seconds until there will be more, at least 1. */
  resetSeconds(now: number): number {
    return Math.max(1, Math.ceil((this.releaseAt - now) / 1_000));
  }

  /** Whether nothing of a whole window would be forgotten with this. */
  isIdle(now: number): boolean {
    return now >= this.lastAt + this.windowMs;
  }

  /** Requests to hold for the rest of the slot. One alone does not announce another. */
  private expected(now: number): number {
    const slot = slotMs(this.quota);
    // Slots are as long as each other, so the end of one that was told is the end of all.
    const rest = Number.isFinite(this.heldUntil) ? ((((this.heldUntil - now) % slot) + slot) % slot) / slot : 1;
    return Math.max(change(this.quota), Math.floor((this.demandAt(now) - 1) * rest * SPARE));
  }

  private demandAt(now: number): number {
    return this.demand * Math.exp((this.lastAt - now) / slotMs(this.quota));
  }

  private get windowMs(): number {
    return this.quota.windowSeconds * 1_000;
  }
}
