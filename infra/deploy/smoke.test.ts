import { type Answer, type Ask, type PassingKey, type Smoke, smokeFault } from './smoke';

const smoke: Smoke = { reads: ['/open', '/loans'], dryRun: { path: '/dry-run', body: '{}' }, keyCommand: ['keys'] };

/** A release that wants a key for all but `/open`; an answer takes a turn of the event loop. */
const guarded: Ask = async (path, body, key) => {
  await new Promise((done) => setImmediate(done));
  if (path !== '/open' && key !== 'bl_key') return { status: 401, words: 'no key' };
  return { status: body === undefined ? 200 : 201, words: 'well' };
};

function keyMadeAfter(turns: number): PassingKey & { count: number } {
  let made: string | undefined;
  let making: Promise<string> | undefined;
  const key = {
    count: 0,
    text: () => (making ??= make()),
    made: () => made,
    revoke: () => Promise.resolve(),
  };
  const make = async () => {
    key.count += 1;
    for (let turn = 0; turn < turns; turn += 1) await new Promise((done) => setImmediate(done));
    return (made = 'bl_key');
  };
  return key;
}

it('makes one key for all, and only when it is asked for', async () => {
  const key = keyMadeAfter(3);
  expect(await Promise.all([1, 2, 3].map(() => smokeFault(smoke, guarded, key)))).toEqual(Array(3).fill(undefined));
  expect(key.count).toBe(1);
  const open: Ask = (_path, body) => Promise.resolve({ status: body === undefined ? 200 : 201, words: '' });
  const unused = keyMadeAfter(0);
  expect(await smokeFault(smoke, open, unused)).toBeUndefined();
  expect(unused.count).toBe(0);
});

it('a question that was on its way when the key was made is asked again with it', async () => {
  const key = keyMadeAfter(0);
  const late: Ask = async (path, body, shown) => {
    if (path === '/loans' && shown === undefined) await key.text();
    return guarded(path, body, shown);
  };
  expect(await smokeFault(smoke, late, key)).toBeUndefined();
});

it.each<[string, Answer, object | undefined]>([
  ['a read that fails', { status: 500, words: 'boom' }, { path: '/open', words: 'boom' }],
  ['no answer', { status: undefined, words: 'refused' }, { path: '/open', words: 'refused' }],
])('tells of %s', async (_name, answer, fault) => {
  expect(await smokeFault(smoke, () => Promise.resolve(answer), keyMadeAfter(0))).toEqual(fault);
});

it('goes without the dry run where the release is older than it', async () => {
  const old: Ask = (_path, body) => Promise.resolve({ status: body === undefined ? 200 : 404, words: '' });
  expect(await smokeFault(smoke, old, keyMadeAfter(0))).toBeUndefined();
});
