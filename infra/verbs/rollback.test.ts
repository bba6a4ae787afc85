import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import type { Entry } from '../deploy/ledger';
import { activeOf, ledgerOf, table } from './releases';
import { rollback, targetOf } from './rollback';

const directory = mkdtempSync(join(tmpdir(), 'rollback-verb-'));
let ledger: Entry[];
const inspected = [
  '["branchloans-staging-api:aa1","me/loans:1"]\t{"org.opencontainers.image.revision":"0ff1ce"}',
  '["branchloans-staging-api:bb2"]\tnull\n',
].join('\n');
let deploy: () => Promise<void>;
jest.mock('../operator', () => ({
  get ROOT() {
    return directory;
  },
  waitSeconds: () => 0,
  useEngineOf: () => undefined,
  prefixOf: () => 'bl',
  imageOf: () => 'nginx',
}));
jest.mock('../deploy/engine', () => ({
  ...jest.requireActual<object>('../deploy/engine'),
  tryDocker: (args: string[]) => Promise.resolve({ code: 0, stdout: args.includes('--format') ? inspected : '[]' }),
}));
jest.mock('../deploy/ledger', () => ({
  ...jest.requireActual<object>('../deploy/ledger'),
  withLedger: () => Promise.resolve(ledger),
}));
jest.mock('./up', () => ({ up: () => deploy() }));

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
    expect(() => targetOf('staging', [entry('aa1')], undefined)).toThrow(/no release of another image was active/);
  });

  it('is of another image: settings alone do not come back', () => {
    const later = [...entries, entry('bb3', 'active', { imageId: 'sha256:bb2', configuration: 'beef' })];
    expect(targetOf('staging', later, undefined).id).toBe('aa1');
    expect(targetOf('staging', later, 'a').id).toBe('aa1');
    expect(() => targetOf('staging', later, 'bb2')).toThrow(/bb2 is of the image that runs already, only its settings/);
    expect(() => targetOf('staging', later.slice(1), undefined)).toThrow(/no release of another image was active/);
  });

  it('is never of the active image, nor one that failed', () => {
    const outcome = fc.constantFrom<Entry['outcome']>('active', 'refused', 'rolled back');
    const any = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.constantFrom('1', '2'), outcome), {
      minLength: 1,
    });
    fc.assert(
      fc.property(any, (drawn) => {
        const all = drawn.map(([image, configuration, result]) =>
          entry(image + configuration, result, { imageId: image, configuration }),
        );
        const active = activeOf(all);
        const others = all.filter((each) => each.outcome === 'active' && each.imageId !== active?.imageId);
        if (others.length === 0) expect(() => targetOf('staging', all, undefined)).toThrow(/cannot go back/);
        else expect(targetOf('staging', all, undefined)).toBe(others.at(-1));
      }),
    );
  });
});

describe('a rollback', () => {
  const file = join(directory, 'Pulumi.staging.yaml');
  const text = 'config:\n  branchloans:image: me/loans:1.1.0\n  branchloans:commit: bad0bad\n';
  const read = () => readFileSync(file, 'utf8');
  let lines: string[];

  beforeEach(() => {
    writeFileSync(join(directory, 'Pulumi.yaml'), 'name: branchloans\nbackend: { url: "file://." }\n');
    writeFileSync(file, text);
    ledger = [entry('aa1'), entry('bb2', 'active', { commit: 'bad0bad' })];
    lines = [];
    for (const stream of ['log', 'error'] as const) {
      jest.spyOn(console, stream).mockImplementation((...given: unknown[]) => void lines.push(given.join(' ')));
    }
  });
  afterAll(() => {
    jest.restoreAllMocks();
    rmSync(directory, { recursive: true });
  });
  const fails = (happens: () => void) => () => {
    happens();
    return Promise.reject(new Error('exit code 255'));
  };

  it.each([
    ['c0ffee', '  branchloans:commit: c0ffee\n'],
    ['unknown', ''],
    ['', '  branchloans:commit: 0ff1ce\n'],
  ])('names image and commit of its target (%s)', async (commit, line) => {
    ledger[0] = entry('aa1', 'active', { commit });
    deploy = () => Promise.resolve();
    await rollback('staging', []);
    expect(read()).toBe(`config:\n  branchloans:image: branchloans-staging-api:aa1\n${line}`);
  });

  it('that fails before the switch leaves the settings as they were', async () => {
    deploy = fails(() => ledger.push(entry('aa1', 'refused')));
    await expect(rollback('staging', [])).rejects.toThrow('exit code 255');
    expect(read()).toBe(text);
    expect(lines.at(-1)).toMatch(/Pulumi\.staging\.yaml is again what it was before/);
  });

  it('that fails after the switch goes on naming the image that serves', async () => {
    deploy = fails(() => ledger.push(entry('aa1')));
    await expect(rollback('staging', [])).rejects.toThrow('exit code 255');
    expect(read()).toContain('branchloans-staging-api:aa1');
    expect(lines.at(-1)).toMatch(/stays as it was changed: aa1 has the traffic.*make up STACK=staging finishes it/);
  });
});

it('the commit of a release is that of its image where no setting named one', async () => {
  ledger = [entry('aa1', 'active', { commit: '' }), entry('bb2', 'active', { commit: '' }), entry('cc3')];
  expect((await ledgerOf('staging')).map(({ commit }) => commit)).toEqual(['0ff1ce', '', 'c0ffee']);
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
