import type { ApiKeys, ClientKey } from '../db/api-keys';
import { onBehalfOf, requestsServed, type ServedRequest } from '../telemetry/requests';

/**
 * The keys as this process read them last, so that a request costs no round trip. What is held is what the database
 * holds, ids and digests, never a key. Its size is bounded whatever is sent: made-up ids cannot push real keys out,
 * and are looked up over one connection, however many there are.
 */
export interface KnownKeys {
  /**
   * The key of an id, or undefined if there is none; at once if that was read within the cache time.
   * @throws Problem where the database has to be asked, and does not answer
   */
  find(id: string): ClientKey | undefined | Promise<ClientKey | undefined>;
  /** Notes that a key is used. @param at milliseconds since 1970 */
  used(id: string, at: number): void;
  /** Writes down what was noted since the last time. */
  writeUses(): Promise<void>;
}

/** How long a process believes what it read: a key that is revoked works no longer than this. */
export const KEY_CACHE_MS = 5_000;
const MAX_ENTRIES = 10_000;

interface Entry {
  readonly key: ClientKey | undefined;
  /** On the clock of performance.now(). */
  readonly until: number;
}

export function createKnownKeys(store: Pick<ApiKeys, 'find' | 'recordUse'>, cacheMs = KEY_CACHE_MS): KnownKeys {
  const present = new Map<string, Entry>();
  const absent = new Map<string, Entry>();
  let uses = new Map<string, number>();
  let waiting:
    | {
        readonly ids: Set<string>;
        readonly requests: ServedRequest[];
        readonly answer: Promise<Map<string, ClientKey>>;
      }
    | undefined;
  let asking: Promise<unknown> = Promise.resolve();

  /** One query at a time: who comes meanwhile is in the next one, together with all the others. */
  async function ask(id: string): Promise<ClientKey | undefined> {
    if (waiting === undefined) {
      const ids = new Set<string>();
      const requests: ServedRequest[] = [];
      const answer = asking.then(() => {
        waiting = undefined;
        return onBehalfOf(requests, () => read([...ids]));
      });
      asking = answer.catch(() => undefined);
      waiting = { ids, requests, answer };
    }
    waiting.ids.add(id);
    waiting.requests.push(...requestsServed());
    return (await waiting.answer).get(id);
  }

  async function read(ids: readonly string[]): Promise<Map<string, ClientKey>> {
    const until = performance.now() + cacheMs; // What happens while it is read may be missed.
    const found = await store.find(ids);
    for (const id of ids) {
      const key = found.get(id);
      const [now, before] = key === undefined ? [absent, present] : [present, absent];
      before.delete(id);
      remember(now, id, { key, until });
    }
    return found;
  }

  return {
    find(id) {
      const entry = present.get(id) ?? absent.get(id);
      return entry !== undefined && entry.until > performance.now() ? entry.key : ask(id);
    },
    used(id, at) {
      uses.set(id, at);
    },
    async writeUses() {
      if (uses.size === 0) return;
      const written = uses;
      uses = new Map();
      try {
        await store.recordUse(written);
      } catch (error) {
        uses = new Map([...written, ...uses]); // For the next time.
        throw error;
      }
    },
  };
}

/** The oldest entry goes first; all live equally long. */
function remember(entries: Map<string, Entry>, id: string, entry: Entry): void {
  entries.delete(id);
  entries.set(id, entry);
  for (const [oldest] of entries) {
    if (entries.size <= MAX_ENTRIES) return;
    entries.delete(oldest);
  }
}
