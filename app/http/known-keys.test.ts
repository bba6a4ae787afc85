import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientKey } from '../db/api-keys';
import { createKnownKeys } from './known-keys';

const keyOf = (id: string): ClientKey => ({
  id,
  digest: Buffer.alloc(32),
  name: 'n',
  scopes: ['admin'],
  createdAt: '2026-11-21T08:00:00.000Z',
  expiresAt: null,
  revokedAt: null,
  lastUsedAt: null,
  replacedBy: null,
  client: id,
  recent: [id],
});

/** A store that knows the ids that begin with "real", and says what it was asked. */
function store() {
  const queries: (readonly string[])[] = [];
  const uses: Map<string, number>[] = [];
  const state = { atOnce: 0, most: 0, away: false };
  return {
    queries,
    uses,
    state,
    async find(ids: readonly string[]) {
      queries.push(ids);
      state.most = Math.max(state.most, ++state.atOnce);
      await sleep(5);
      state.atOnce--;
      if (state.away) throw new Error('away');
      return new Map(ids.filter((id) => id.startsWith('real')).map((id) => [id, keyOf(id)]));
    },
    recordUse(written: ReadonlyMap<string, number>) {
      if (state.away) return Promise.reject(new Error('away'));
      uses.push(new Map(written));
      return Promise.resolve();
    },
  };
}

it('asks once for what many ask for at the same time, one query after the other', async () => {
  const backing = store();
  const keys = createKnownKeys(backing);
  const first = Array.from({ length: 100 }, () => Promise.resolve(keys.find('real')));
  await sleep(1);
  const others = Array.from({ length: 100 }, (_, index) => Promise.resolve(keys.find(`made-up-${index}`)));
  expect((await Promise.all(first)).every((key) => key?.id === 'real')).toBe(true);
  expect((await Promise.all(others)).every((key) => key === undefined)).toBe(true);
  expect(backing.queries.map(({ length }) => length)).toEqual([1, 100]);
  expect(backing.state.most).toBe(1);
  expect(keys.find('real')).toMatchObject({ id: 'real' }); // At once, without a promise.
  expect(keys.find('made-up-7')).toBeUndefined();
});

it('keeps a real key whatever number of made-up ones is asked for, and no more of those than it can hold', async () => {
  const backing = store();
  const keys = createKnownKeys(backing, 60_000);
  await keys.find('real');
  await Promise.all(Array.from({ length: 25_000 }, (_, index) => Promise.resolve(keys.find(`made-up-${index}`))));
  expect(keys.find('real')).toMatchObject({ id: 'real' });
  expect(keys.find('made-up-24999')).toBeUndefined();
  expect(keys.find('made-up-14999')).toBeInstanceOf(Promise); // Forgotten; the 10,000 after it are not.
  expect(keys.find('made-up-15000')).toBeUndefined();
});

it('hands a failure to whoever waits for it, keeps none, and recovers', async () => {
  const backing = store();
  const keys = createKnownKeys(backing);
  backing.state.away = true;
  await expect(keys.find('real')).rejects.toThrow('away');
  backing.state.away = false;
  expect(await keys.find('real')).toMatchObject({ id: 'real' });
});

it('counts the cache time from before the query: what changed while it ran is not missed for longer', async () => {
  const keys = createKnownKeys(store(), 3);
  await keys.find('real');
  expect(keys.find('real')).toBeInstanceOf(Promise);
});

it('writes the last use of each key once, and again after a failure, but never an older one over a newer', async () => {
  const backing = store();
  const keys = createKnownKeys(backing);
  keys.used('a', 1);
  keys.used('a', 2);
  keys.used('b', 3);
  backing.state.away = true;
  await expect(keys.writeUses()).rejects.toThrow('away');
  keys.used('b', 4);
  backing.state.away = false;
  await keys.writeUses();
  await keys.writeUses();
  expect(backing.uses).toEqual([
    new Map([
      ['a', 2],
      ['b', 4],
    ]),
  ]);
});
