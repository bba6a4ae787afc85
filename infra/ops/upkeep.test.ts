import { type DatabaseFacts, describeUpkeep } from './upkeep';

const NOW = '2026-03-01T12:00:00+00:00';
const LOANS = {
  name: 'loans',
  bytes: 330 * 1024 ** 2,
  indexBytes: 120.25 * 1024 ** 2,
  rows: 1_203_411,
  dead: 3_201,
  vacuumed: '2026-03-01T10:00:00+00:00',
  analyzed: null,
};
const FACTS: DatabaseFacts = {
  name: 'branchloans',
  now: NOW,
  bytes: 2.5 * 1024 ** 3,
  frozenPercent: 12,
  oldest: { process: 77, who: 'branchloans-api, branchloans, active', seconds: 0.2 },
  violated: [],
  tables: [
    LOANS,
    { name: 'api_keys', bytes: 512, indexBytes: 0, rows: 0, dead: 0, vacuumed: null, analyzed: '2026-02-01T12:00:00Z' },
  ],
};

it('is a table of sizes', () => {
  expect(describeUpkeep('staging', FACTS)).toBe(`staging: the database branchloans has 2.5 GB.

table         size   indexes       rows   dead  vacuumed  analyzed
loans     330.0 MB  120.3 MB  1,203,411  3,201   2 h ago     never
api_keys     512 B       0 B          0      0     never  28 d ago

Nothing wants attention.`);
});

it.each<[string, Partial<DatabaseFacts>, RegExp]>([
  [
    'a transaction that nobody ends',
    { oldest: { process: 77, who: 'psql, postgres, idle in transaction', seconds: 3_000 } },
    /Process 77 \(psql, postgres, idle in transaction\) has had a transaction open for 50 min.*pg_terminate_backend\(77\)/,
  ],
  [
    'dead rows',
    { tables: [{ ...LOANS, rows: 4_000, dead: 1_001 }] },
    /Many dead rows: loans\. .*make upkeep STACK=staging VACUUM=1/,
  ],
  [
    'old rows that break a constraint',
    { violated: ['loans: loans_version_check'] },
    /break constraints: loans: loans_version_check\./,
  ],
  ['a vacuum that does not succeed', { frozenPercent: 130 }, /unfrozen for 130 %/],
])('points at %s', (_, facts, hint) => {
  const text = describeUpkeep('staging', { ...FACTS, ...facts });
  expect(text).toMatch(hint);
  expect(text).not.toContain('Nothing wants attention');
});

it.each([
  { rows: 4_100, dead: 1_001 },
  { rows: 0, dead: 1_000 },
])('does not mind some dead rows: %p', (table) => {
  expect(describeUpkeep('staging', { ...FACTS, tables: [{ ...LOANS, ...table }] })).toContain(
    'Nothing wants attention',
  );
});
