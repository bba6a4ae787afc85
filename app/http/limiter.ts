import type { Ledger } from '../db/quotas';
import { Account, type Quota, slotMs } from '../domain/quota';
import { Problem } from '../errors';
import type { Logger } from '../telemetry/logger';
import type { Metrics } from '../telemetry/metrics';
import { onBehalfOf } from '../telemetry/requests';
import { isAnonymous } from './caller';

export interface Verdict {
  readonly passes: boolean;
  /** What the caller has left, as far as this process knows, and in how many whole seconds there will be more. */
  readonly remaining: number;
  readonly resetSeconds: number;
}

export interface Limiter {
  /**
   * Whether this caller may make one more request. Mostly answered from memory; a caller that was not seen lately
   * waits for one round trip to the ledger, PATIENCE_MS at most. Never rejects.
   */
  admit(caller: string): Verdict | Promise<Verdict>;
  /** Forgets callers that were not heard of for a whole window. */
  prune(): void;
  /** Asks the ledger nothing more. */
  stop(): void;
}

/** How long a request waits for the ledger before this process judges alone. */
const PATIENCE_MS = 5;
/** How long the ledger is left alone after it failed. */
const RETRY_MS = 1_000;
/** Callers that one round trip buys for. */
const MAX_BATCH = 200;
/** Anonymous callers that are told apart; what comes beyond shares one account. Some 2 MB. */
const MAX_ANONYMOUS = 10_000;
const OTHERS = 'others';

interface Caller {
  readonly name: string;
  readonly account: Account;
  readonly waiting: ((verdict: Verdict) => void)[];
  /** Part of the question under way. */
  asked: boolean;
}

interface Parts {
  readonly quota: Quota;
  readonly ledger: Ledger;
  readonly metrics: Metrics;
  readonly logger: Logger;
}

/** One process's part of the rate limits: accounts in memory, and one question at a time to the ledger for all. */
export function createLimiter({ quota, ledger, metrics, logger }: Parts): Limiter {
  const callers = new Map<string, Caller>();
  let anonymous = 0;
  const toAsk = new Set<Caller>();
  const impatient = new Set<Caller>();
  const perishable = new Set<Caller>();
  let asking = false;
  /** When the question under way was put. */
  let askedAt = Infinity;
  let failing = false;
  let sweeping = false;
  let stopped = false;

  function callerNamed(name: string, now: number): Caller {
    const known = callers.get(name);
    if (known !== undefined) return known;
    const isOne = isAnonymous(name);
    if (isOne && anonymous >= MAX_ANONYMOUS) return callerNamed(OTHERS, now);
    if (isOne) anonymous++;
    const caller = { name, account: new Account(quota, now), waiting: [], asked: false };
    callers.set(name, caller);
    return caller;
  }

  function verdict({ account }: Caller, passes: boolean, now: number): Verdict {
    if (!passes) metrics.rateLimitRefusals.inc();
    return { passes, remaining: passes ? account.remaining : 0, resetSeconds: account.resetSeconds(now) };
  }

  function estimate(caller: Caller, now: number): Verdict {
    metrics.rateLimitEstimates.inc();
    return verdict(caller, caller.account.estimate(now), now);
  }

  function askFor(caller: Caller): void {
    if (caller.asked) return; // The answer is looked at first.
    toAsk.add(caller);
    if (asking || stopped) return;
    asking = true;
    // With what else this turn of the event loop brings; on behalf of no one request, the first one either.
    onBehalfOf([], () => setImmediate(() => void askAll()));
  }

  async function askAll(): Promise<void> {
    while (toAsk.size > 0 && !stopped) {
      const batch = [...toAsk].slice(0, MAX_BATCH);
      for (const caller of batch) {
        toAsk.delete(caller);
        caller.asked = true;
      }
      if (!(await buy(batch))) {
        setTimeout(() => void askAll(), RETRY_MS).unref();
        return;
      }
    }
    asking = false;
  }

  async function buy(batch: readonly Caller[]): Promise<boolean> {
    const sentAt = performance.now();
    askedAt = sentAt;
    const asks = new Map(batch.map(({ name, account, waiting }) => [name, account.ask(sentAt, waiting.length)]));
    // An answer that came while this process was busy is read first.
    const giveUp = () => (askedAt === sentAt ? judgeAlone() : undefined);
    const patience = setTimeout(() => setImmediate(giveUp), PATIENCE_MS);
    try {
      const grants = await ledger.buy(quota, asks);
      const now = performance.now();
      for (const caller of batch) {
        const [ask, grant] = [asks.get(caller.name), grants.get(caller.name)];
        if (ask === undefined || grant === undefined) continue;
        caller.account.answered(ask, grant, sentAt, now);
        serve(caller, now);
      }
      metrics.countPurchase('done');
      if (failing) logger.log('info', 'rate limits are shared again');
      failing = false;
      return true;
    } catch (error) {
      metrics.countPurchase('failed');
      for (const caller of batch) toAsk.add(caller);
      if (!failing && !stopped) {
        logger.log('warn', 'rate limits are judged by each process alone', { reason: reasonOf(error) });
      }
      failing = true;
      judgeAlone();
      return false;
    } finally {
      clearTimeout(patience);
      askedAt = Infinity;
      for (const caller of batch) caller.asked = false;
    }
  }

  /** Lets those that wait pass as far as something was bought. Who came after the question was put may wait again. */
  function serve(caller: Caller, now: number): void {
    const { account, waiting } = caller;
    const passed = account.settle(waiting.length);
    for (const resolve of waiting.splice(0, passed)) resolve(verdict(caller, true, now));
    if (account.isEmpty(now)) for (const resolve of waiting.splice(0)) resolve(verdict(caller, false, now));
    if (waiting.length > 0) toAsk.add(caller);
    else impatient.delete(caller);
    if (account.holdsPerishable) returnLater(caller);
  }

  function judgeAlone(): void {
    const now = performance.now();
    for (const caller of impatient) for (const resolve of caller.waiting.splice(0)) resolve(estimate(caller, now));
    impatient.clear();
  }

  function returnLater(caller: Caller): void {
    perishable.add(caller);
    if (sweeping) return;
    sweeping = true;
    onBehalfOf([], () => setTimeout(sweep, slotMs(quota)).unref());
  }

  /** Returns what callers that went quiet hold of a slot that has ended. */
  function sweep(): void {
    sweeping = false;
    const now = performance.now();
    for (const caller of [...perishable]) {
      if (caller.account.lapse(now)) askFor(caller);
      if (caller.account.holdsPerishable) returnLater(caller);
      else perishable.delete(caller);
    }
  }

  return {
    admit(name) {
      const now = performance.now();
      const caller = callerNamed(name, now);
      const passes = caller.account.take(now);
      if (passes !== undefined) {
        if (caller.account.runsLow(now)) askFor(caller);
        return verdict(caller, passes, now);
      }
      askFor(caller);
      if (failing || stopped || now > askedAt + PATIENCE_MS) return estimate(caller, now);
      return new Promise((resolve) => {
        caller.waiting.push(resolve);
        impatient.add(caller);
      });
    },
    prune() {
      const now = performance.now();
      for (const [name, caller] of callers) {
        if (caller.asked || toAsk.has(caller) || !caller.account.isIdle(now)) continue;
        callers.delete(name);
        if (isAnonymous(name)) anonymous--;
      }
    },
    stop() {
      stopped = true;
      judgeAlone();
    },
  };
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Problem ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}
