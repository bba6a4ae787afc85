import type { Ledger } from '../../app/db/quotas';
import { type Ask, type Grant, type Quota, SLOTS } from '../../app/domain/quota';

interface Row {
  slot: number;
  /** Bought in that slot, the one before it, and so on. */
  used: number[];
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

/** What the statement of app/db/quotas.ts does, in plain words: the tests hold the one against the other. */
export class ModelLedger {
  readonly rows = new Map<string, Row>();

  buy({ requests, windowSeconds }: Quota, caller: string, ask: Ask, nowMs: number): Grant {
    const slotMs = (windowSeconds * 1_000) / SLOTS;
    const current = Math.floor(nowMs / slotMs);
    const row = this.rows.get(caller) ?? { slot: current, used: [] };
    if (Math.abs(current - row.slot) > SLOTS) Object.assign(row, { slot: current, used: [] });
    for (; row.slot < current; row.slot++) row.used.unshift(0);
    row.used.length = Math.min(row.used.length, SLOTS + 1);
    const from = row.slot - ask.returnedFrom;
    if (from in row.used) row.used[from]! -= Math.min(row.used[from]!, ask.returned);
    const free = Math.max(0, requests - ask.spent - sum(row.used));
    const share = Math.max(Math.trunc((free - ask.urgent) / 2), Math.floor(requests / 100));
    const granted = Math.min(free, ask.urgent + Math.min(ask.ahead, share));
    row.used[0] = (row.used[0] ?? 0) + ask.spent + granted;
    this.rows.set(caller, row);
    const oldest = Math.max(
      0,
      row.used.findLastIndex((bought) => bought > 0),
    );
    return {
      granted,
      slot: row.slot,
      slotEndsInMs: (row.slot + 1) * slotMs - nowMs,
      left: Math.max(0, requests - sum(row.used)),
      releaseInMs: (row.slot - oldest + SLOTS + 1) * slotMs - nowMs,
    };
  }

  /** A ledger at the end of a wire, that reads its own clock when the question arrives. */
  remote(nowMs: () => number, latencyMs: () => number): Ledger {
    const wire = () => new Promise((resolve) => setTimeout(resolve, latencyMs()));
    return {
      buy: async (quota, asks) => {
        await wire();
        const now = nowMs();
        const grants = [...asks].map(([caller, ask]) => [caller, this.buy(quota, caller, ask, now)] as const);
        await wire();
        return new Map(grants);
      },
      prune: () => Promise.resolve(false),
    };
  }
}
