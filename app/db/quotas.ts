import { type Ask, type Grant, type Quota, SLOTS } from '../domain/quota';
import type { Database, Statement } from './pool';

/** The ledger that all processes share; see domain/quota.ts. Its clock is the database's. */
export interface Ledger {
  /**
   * Buys for several callers in one round trip, each of them once.
   * @throws Problem when the database is away, full or too slow. Then something may have been bought.
   */
  buy(quota: Quota, asks: ReadonlyMap<string, Ask>): Promise<Map<string, Grant>>;
  /** Deletes rows that no window reaches any more, a bounded number of them. Resolves to whether there may be more. */
  prune(): Promise<boolean>;
}

const PRUNE_BATCH = 1_000;
/** The one that now is in, and all that a window which ends in it may have begun in. */
const COUNTED = SLOTS + 1;

interface GrantRow {
  readonly caller: string;
  readonly granted: string;
  readonly slot: string;
  readonly slot_ends_in_ms: string;
  readonly left: string;
  readonly release_in_ms: string;
}

/**
 * Of what is ahead, a process gets half of what is left, or 1 % of the limit, so that the last of it is shared by all
 * who ask. Rows are locked in the order of their keys: nobody waits in a circle.
 *
 * A row's slot may be newer than this statement's, which waited for the row; it then counts in that. After a clock
 * was set back by more than a window, the row begins anew.
 */
const BUY: Statement<GrantRow> = {
  name: 'quota_buy',
  text: `WITH asked AS MATERIALIZED (
      SELECT * FROM unnest($3::text[], $4::integer[], $5::integer[], $6::integer[], $7::integer[], $8::bigint[])
        AS asked (caller, spent, urgent, ahead, returned, returned_from)),
    clock AS MATERIALIZED (SELECT extract(epoch FROM now()) AS seconds)
    INSERT INTO request_quotas AS kept (caller, window_seconds, slot, used, granted)
    SELECT caller, $1::integer, floor(seconds * ${SLOTS} / $1::integer), ARRAY[spent + granted], granted
    FROM asked, clock, LATERAL (SELECT ${granted('0')} AS granted)
    ORDER BY caller
    ON CONFLICT (caller, window_seconds) DO UPDATE SET (slot, used, granted) = (
      SELECT slot, ARRAY[counted[1] + spent + granted] || counted[2:], granted
      FROM asked,
        LATERAL (SELECT excluded.slot - kept.slot AS passed),
        LATERAL (SELECT abs(passed) >= ${COUNTED} AS anew),
        LATERAL (SELECT CASE WHEN anew THEN excluded.slot ELSE greatest(excluded.slot, kept.slot) END AS slot,
          CASE WHEN anew THEN '{0}' ELSE (array_fill(0, ARRAY[greatest(passed, 0)::integer]) || kept.used)[:${COUNTED}] END AS used),
        LATERAL (SELECT array_agg(bought - CASE WHEN slot - age + 1 = returned_from THEN least(bought, returned) ELSE 0 END
          ORDER BY age) AS counted FROM unnest(used) WITH ORDINALITY AS slots (bought, age)),
        LATERAL (SELECT sum(bought) AS total FROM unnest(counted) AS bought),
        LATERAL (SELECT ${granted('total')} AS granted)
      WHERE asked.caller = excluded.caller)
    RETURNING caller, granted, slot,
      1000 * ((slot + 1) * $1::integer / ${SLOTS}.0 - (SELECT seconds FROM clock)) AS slot_ends_in_ms,
      greatest(0, $2::integer - (SELECT sum(bought) FROM unnest(used) AS bought)) AS left,
      1000 * ((slot + ${COUNTED} + 1 - coalesce((SELECT max(age) FROM unnest(used) WITH ORDINALITY AS slots (bought, age)
        WHERE bought > 0), 1)) * $1::integer / ${SLOTS}.0 - (SELECT seconds FROM clock)) AS release_in_ms`,
};
/** Several processes may prune at once: each takes what no other has taken. */
const PRUNE: Statement<{ pruned: string }> = {
  name: 'quota_prune',
  text: `DELETE FROM request_quotas WHERE ctid = ANY (ARRAY(
      SELECT ctid FROM request_quotas
      WHERE abs(extract(epoch FROM now()) * ${SLOTS} / window_seconds - slot) > ${COUNTED}
      LIMIT ${PRUNE_BATCH} FOR UPDATE SKIP LOCKED))
    RETURNING 't' AS pruned`,
};

/** @param total what counts already. */
function granted(total: string): string {
  const free = `greatest(0, $2::integer - spent - ${total})`;
  return `least(${free}, urgent + least(ahead, greatest((${free} - urgent) / 2, $2::integer / 100)))::integer`;
}

export function createLedger(database: Database): Ledger {
  return {
    async buy({ requests, windowSeconds }, asks) {
      const all = [...asks.values()];
      const rows = await database.query(BUY, [
        windowSeconds,
        requests,
        [...asks.keys()],
        all.map(({ spent }) => spent),
        all.map(({ urgent }) => urgent),
        all.map(({ ahead }) => ahead),
        all.map(({ returned }) => returned),
        all.map(({ returnedFrom }) => returnedFrom),
      ]);
      return new Map(rows.map((row) => [row.caller, toGrant(row)]));
    },
    async prune() {
      return (await database.query(PRUNE)).length === PRUNE_BATCH;
    },
  };
}

function toGrant(row: GrantRow): Grant {
  return {
    granted: Number(row.granted),
    slot: Number(row.slot),
    slotEndsInMs: Number(row.slot_ends_in_ms),
    left: Number(row.left),
    releaseInMs: Number(row.release_in_ms),
  };
}
