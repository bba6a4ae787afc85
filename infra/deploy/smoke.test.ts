import * as fc from 'fast-check';
import {
  type Answer,
  type Ask,
  type Fault,
  faultAfterPatience,
  type FaultKind,
  type PassingKey,
  type Smoke,
  smokeFault,
} from './smoke';

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

it.each<[string, Answer, FaultKind]>([
  ['no answer', { status: undefined, words: 'probe /open: no answer within 4 s' }, 'passing'],
  ['a service that has too much to do', { status: 503, words: 'urn:problem:overloaded' }, 'passing'],
  ['a gateway without an answer', { status: 504, words: '' }, 'passing'],
  // What refused a rollback at a load average of 18.
  [
    'a connection to the database that takes too long',
    { status: 500, words: 'urn:problem:db-check-failed' },
    'passing',
  ],
  ['a handler that throws', { status: 500, words: 'urn:problem:internal' }, 'lasting'],
  ['a path that is gone', { status: 404, words: '' }, 'lasting'],
  ['an answer that is no failure, but another one', { status: 204, words: '' }, 'lasting'],
])('tells %s', async (_name, answer, kind) => {
  const fault = await smokeFault(smoke, () => Promise.resolve(answer), keyMadeAfter(0));
  expect(fault).toEqual({ path: '/open', words: answer.words, kind });
});

it('waits for a key that could not be made, which a busy host causes too', async () => {
  let tries = 0;
  const key = keyMadeAfter(0);
  const text = () => (++tries === 1 ? Promise.reject(new Error('timeout')) : key.text());
  const done = new Set<string>();
  const ask = () => smokeFault(smoke, guarded, { ...key, text }, done);
  expect(await ask()).toEqual({ path: '/loans', words: 'timeout', kind: 'passing' });
  expect(await ask()).toBeUndefined();
});

it('asks no path again that was answered well', async () => {
  const asked: string[] = [];
  const sometimes: Ask = (path, body) => {
    asked.push(path);
    const well = path !== '/loans' || asked.length > 2;
    return Promise.resolve({ status: well ? (body === undefined ? 200 : 201) : 503, words: '' });
  };
  const done = new Set<string>();
  expect(await smokeFault(smoke, sometimes, keyMadeAfter(0), done)).toMatchObject({ path: '/loans' });
  expect(await smokeFault(smoke, sometimes, keyMadeAfter(0), done)).toBeUndefined();
  expect(asked).toEqual(['/open', '/loans', '/loans', '/dry-run']);
});

describe('patience', () => {
  /** Of a clock that moves only during a sleep, and by `askMs`. */
  const run = (faultAt: (ms: number) => FaultKind | undefined, withinMs: number, { askMs = 0, moreMs = 0 } = {}) => {
    let ms = 0;
    const asked: number[] = [];
    const pass = (milliseconds: number) => Promise.resolve(void (ms += milliseconds));
    const ask = async (): Promise<Fault | undefined> => {
      asked.push(ms);
      const kind = faultAt(ms);
      await pass(askMs);
      return kind && { path: '/', words: '', kind };
    };
    const clock = { now: () => ms, sleep: pass };
    const ended = faultAfterPatience(ask, { withinMs, clock, moreMs: () => Promise.resolve(moreMs) });
    return ended.then((fault) => ({ fault, asked }));
  };
  const within = fc.integer({ min: 0, max: 120_000 });
  const askMs = fc.integer({ min: 0, max: 6_000 });

  it('refuses no release for a passing fault that ends in time', () =>
    fc.assert(
      fc.asyncProperty(within, askMs, fc.float({ min: 0, max: 1, noNaN: true }), async (withinMs, ask, share) => {
        const { fault } = await run((ms) => (ms < share * withinMs ? 'passing' : undefined), withinMs, { askMs: ask });
        expect(fault).toBeUndefined();
      }),
    ));

  it('refuses no release for wrong answers that come one or two at a time', () =>
    fc.assert(
      fc.asyncProperty(within, fc.array(fc.constantFrom<FaultKind>('passing', 'lasting')), async (withinMs, kinds) => {
        const text = kinds.map((kind) => kind[0]).join('');
        fc.pre(!text.includes('lll'));
        let turn = 0;
        const { fault, asked } = await run(() => kinds[turn++], withinMs);
        // Unless time is up before they end.
        expect(fault === undefined || (asked.at(-1) ?? 0) >= withinMs).toBe(true);
      }),
    ));

  it('ends when time is up, with a last question then', () =>
    fc.assert(
      fc.asyncProperty(within, askMs, async (withinMs, ask) => {
        const { fault, asked } = await run(() => 'passing', withinMs, { askMs: ask });
        const last = asked.at(-1) ?? 0;
        expect(fault?.kind).toBe('passing');
        expect(last).toBeGreaterThanOrEqual(withinMs);
        expect(last).toBeLessThanOrEqual(withinMs + ask);
      }),
    ));

  it('goes on for as long as it is granted more, once', async () => {
    const heals = (ms: number) => (ms < 200_000 ? 'passing' : undefined);
    expect((await run(heals, 60_000, { moreMs: 180_000 })).fault).toBeUndefined();
    const { fault } = await run(() => 'passing', 60_000, { moreMs: 180_000 });
    expect(fault).toMatchObject({ afterMs: 240_000 });
  });

  it('ends with the third wrong answer in a row, and at once with what is final', async () => {
    const { fault, asked } = await run((ms) => (ms < 5_000 ? 'passing' : 'lasting'), 60_000);
    expect(fault).toMatchObject({ kind: 'lasting' });
    expect(asked.filter((ms) => ms >= 5_000)).toHaveLength(3);
    expect((await run(() => 'final', 60_000)).asked).toEqual([0]);
  });

  it('asks a host that is slow less and less often, once a second at last', async () => {
    const { asked } = await run(() => 'passing', 60_000);
    expect(asked.length).toBeLessThanOrEqual(63);
    expect(asked.slice(0, 4)).toEqual([0, 250, 750, 1_750]);
  });
});

it('goes without the dry run where the release is older than it', async () => {
  const old: Ask = (_path, body) => Promise.resolve({ status: body === undefined ? 200 : 404, words: '' });
  expect(await smokeFault(smoke, old, keyMadeAfter(0))).toBeUndefined();
});
