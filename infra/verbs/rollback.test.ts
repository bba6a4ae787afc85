import fc from 'fast-check';
import type { Entry } from '../deploy/ledger';
import { activeOf, table } from './releases';
import { targetOf } from './rollback';

const entry = (id: string, outcome: Entry['outcome'] = 'active', more: Partial<Entry> = {}): Entry => ({
  id,
  image: `me/loans@sha256:${id}`,
  imageId: `sha256:${id}`,
  localImage: `branchloans-staging-api:${id}`,
  commit: 'c0ffee',
  configuration: 'f00d',
  at: '2026-01-02T03:04:05.678Z',
  outcome,
  ...more,
});

describe('the release to go back to', () => {
  const entries = [entry('aa1'), entry('bb2'), entry('cc3', 'refused'), entry('dd4', 'rolled back')];

  it('is the one before the active one, whatever failed since', () => {
    expect(activeOf(entries)?.id).toBe('bb2');
    expect(targetOf('staging', entries, undefined).id).toBe('aa1');
  });

  it('is the one before that was another, when releases went to and fro', () => {
    expect(targetOf('staging', [...entries, entry('aa1')], undefined).id).toBe('bb2');
  });

  it('may be named by the beginning of its id', () => {
    expect(targetOf('staging', [entry('ff0'), ...entries], 'ff').id).toBe('ff0');
  });

  it.each([
    ['cc3', /cc3 is no release that was active/],
    ['bb2', /bb2 has the traffic already/],
    ['zz', /zz is no release that was active. Nothing was changed. Known releases:\n.*RELEASE/],
  ])('is not %s', (to, message) => {
    expect(() => targetOf('staging', entries, to)).toThrow(message);
  });

  it('is missed when there is none', () => {
    expect(() => targetOf('staging', [entry('aa1')], undefined)).toThrow(/no other release was active before/);
  });

  it('is never the active one, nor one that failed', () => {
    const outcome = fc.constantFrom<Entry['outcome']>('active', 'refused', 'rolled back');
    const any = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), outcome), { minLength: 1 });
    fc.assert(
      fc.property(any, (drawn) => {
        const ledger = drawn.map(([id, result]) => entry(id, result));
        const active = activeOf(ledger);
        const others = new Set(
          ledger.filter((each) => each.outcome === 'active' && each.id !== active?.id).map(({ id }) => id),
        );
        if (others.size === 0) expect(() => targetOf('staging', ledger, undefined)).toThrow(/cannot go back/);
        else expect(others).toContain(targetOf('staging', ledger, undefined).id);
      }),
    );
  });
});

it('the table of releases marks what has the traffic, and says why others have not', () => {
  const text = table([entry('aa1', 'active', { schema: 11 }), entry('cc3', 'refused', { reason: 'it crashed' })]);
  expect(text.split('\n')).toEqual([
    '  RELEASE  TIME (UTC)           OUTCOME  SCHEMA  CONFIGURATION  COMMIT  IMAGE',
    '* aa1      2026-01-02 03:04:05  active   11      f00d           c0ffee  me/loans@sha256:aa1',
    '  cc3      2026-01-02 03:04:05  refused  -       f00d           c0ffee  me/loans@sha256:cc3',
    '      it crashed',
  ]);
});
