import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import images from '../../infra/images.json';
import { ALL_MIGRATIONS } from '../api/migrations';
import { lint } from './lint';

const ROOT = resolve(__dirname, '..', '..');

let root: string;
let directory: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'branchloans-lint-'));
  directory = join(root, 'migrations');
  mkdirSync(directory);
});
afterEach(() => rmSync(root, { recursive: true }));

/** Lints these as all migrations there are, each on record unless told otherwise. */
function findings(files: Readonly<Record<string, string>>, record = recordOf(files)) {
  for (const [name, sql] of Object.entries(files)) writeFileSync(join(directory, name), sql);
  writeFileSync(join(root, 'migrations.sum'), record);
  return lint(directory, join(root, 'migrations.sum'));
}

function recordOf(files: Readonly<Record<string, string>>): string {
  return Object.entries(files)
    .map(([name, sql]) => `${createHash('sha256').update(sql).digest('hex')}  ${name}\n`)
    .join('');
}

const refused = (sql: string) => findings({ '0001_a.sql': sql }).map(({ rule }) => rule);
const OUTSIDE = '-- outside a transaction\n';

it('lets all migrations of this release pass, as they are on record', () => {
  expect(lint(ALL_MIGRATIONS, `${ALL_MIGRATIONS}.sum`)).toEqual([]);
});

it('knows the version of the database', () => {
  const [, major] = /postgres:(\d+)/.exec(images.postgres)!;
  expect(readFileSync(join(ROOT, '.squawk.toml'), 'utf8')).toContain(`pg_version = "${major}.`);
});

describe('refuses, with the way to do it instead,', () => {
  it.each([
    ['a column that goes', 'ALTER TABLE loans DROP COLUMN status', 'ban-drop-column', /release after/],
    ['a table that goes', 'DROP TABLE loans', 'ban-drop-table', /release after/],
    ['another name of a column', 'ALTER TABLE loans RENAME COLUMN status TO state', 'renaming-column', /beside/],
    ['another name of a table', 'ALTER TABLE loans RENAME TO credits', 'renaming-table', /beside/],
    [
      'another type',
      'ALTER TABLE loans ALTER COLUMN amount TYPE numeric(30, 4)',
      'changing-column-type',
      /keep both in step/,
    ],
    [
      'a column that must be given',
      'ALTER TABLE loans ADD COLUMN branch text NOT NULL',
      'adding-required-field',
      /nullable/,
    ],
    [
      'a default for which each row is written',
      'ALTER TABLE loans ADD COLUMN branch uuid DEFAULT gen_random_uuid()',
      'adding-field-with-default',
      /trigger/,
    ],
    [
      'a column that may no longer be null',
      'ALTER TABLE loans ALTER COLUMN term_months SET NOT NULL',
      'adding-not-nullable-field',
      /NOT VALID/,
    ],
    [
      'a column that may suddenly be null',
      'ALTER TABLE loans ALTER COLUMN status DROP NOT NULL',
      'ban-drop-not-null',
      /can read null first/,
    ],
    [
      'an index that stops writers',
      'CREATE INDEX loans_x ON loans (status)',
      'require-concurrent-index-creation',
      /outside a transaction/,
    ],
    [
      'an index whose end stops all',
      'DROP INDEX loans_newest_first',
      'require-concurrent-index-deletion',
      /outside a transaction/,
    ],
    [
      'an index that needs to be outside',
      'CREATE INDEX CONCURRENTLY loans_x ON loans (status)',
      'concurrently-in-transaction',
      /outside a transaction/,
    ],
    [
      'a constraint that reads all rows',
      'ALTER TABLE loans ADD CONSTRAINT small CHECK (amount < 10)',
      'constraint-missing-not-valid',
      /NOT VALID/,
    ],
    [
      'one in the form of a column',
      'ALTER TABLE loans ADD COLUMN branch text CHECK (branch > 1)',
      'locks-table',
      /NOT VALID/,
    ],
    [
      'a reference that reads all rows',
      'ALTER TABLE repayments ADD COLUMN of uuid REFERENCES loans (id)',
      'adding-foreign-key-constraint',
      /NOT VALID/,
    ],
    [
      'a unique constraint',
      'ALTER TABLE loans ADD COLUMN branch text UNIQUE',
      'disallowed-unique-constraint',
      /CONCURRENTLY/,
    ],
    ['a transaction of its own', 'COMMIT', 'transaction-nesting', /runner/],
    ['what is no SQL', 'ALTER TABEL loans', 'syntax-error', /./],
    ['a function that goes', 'DROP FUNCTION loan_disbursed_on(loans)', 'breaks-earlier-release', /CREATE OR REPLACE/],
    ['a trigger that goes', 'DROP TRIGGER loan_is_disbursed ON loans', 'breaks-earlier-release', /CREATE OR REPLACE/],
    ['another name of a view', 'ALTER VIEW loan_totals_missing RENAME TO x', 'breaks-earlier-release', /release after/],
    ['rows that go', 'TRUNCATE loans', 'breaks-earlier-release', /release after/],
    ['a default that goes', 'ALTER TABLE loans ALTER version DROP DEFAULT', 'breaks-earlier-release', /release after/],
    ['a lock', 'LOCK TABLE loans', 'locks-table', /maintenance/],
    ['a table written anew', 'ALTER TABLE loans SET UNLOGGED', 'locks-table', /maintenance/],
    ['a view counted anew', 'REFRESH MATERIALIZED VIEW x', 'locks-table', /CONCURRENTLY/],
    ['all rows changed at once', "UPDATE loans SET status = 'repaid'", 'rewrites-rows', /in batches/],
    ['the same in a query', 'WITH x AS (DELETE FROM loans RETURNING id) SELECT 1', 'rewrites-rows', /in batches/],
    ['a setting that stays', "SET search_path = ''", 'setting-of-the-runner', /SET LOCAL/],
    ['a wait for a lock without end', 'SET LOCAL lock_timeout = 0', 'setting-of-the-runner', /lock_timeout/],
    ['what cannot be seen', 'DO $$ BEGIN DROP TABLE loans; END $$', 'hidden-statements', /plain statements/],
    [
      'a body with semicolons',
      'CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END',
      'hidden-statements',
      /\$\$/,
    ],
  ])('%s', (_name, sql, rule, remedy) => {
    const found = findings({ '0001_a.sql': `-- Why.\n\n${sql};\n` }).filter((finding) => finding.rule === rule);
    expect(found[0]).toMatchObject({ file: '0001_a.sql', line: 3 });
    expect(found[0]!.remedy).toMatch(remedy);
  });

  it('a table that is changed in the same migration as its data', () => {
    const copy = 'INSERT INTO totals SELECT status, count(*) FROM loans GROUP BY status;\n';
    const change = 'ALTER TABLE loans ADD COLUMN branch text;\n';
    const trigger = 'CREATE TRIGGER x AFTER INSERT ON loans FOR EACH ROW EXECUTE FUNCTION f();\n';
    expect(refused(change + copy)).toEqual(['schema-and-data']);
    expect(refused(trigger + copy)).toEqual(['schema-and-data']);
    expect(refused(copy)).toEqual([]);
    expect(refused(change + trigger)).toEqual([]);
  });
});

it.each([
  ['a new table with all that belongs to it', 'CREATE TABLE a (id uuid PRIMARY KEY, n integer CHECK (n > 0)); CREATE INDEX ON a (n); ALTER TABLE a SET UNLOGGED; UPDATE a SET n = 1;'], // prettier-ignore
  ['a new column', "ALTER TABLE loans ADD COLUMN branch text; ALTER TABLE loans ADD COLUMN n integer NOT NULL DEFAULT 0;"], // prettier-ignore
  ['a constraint in two steps: the first', 'ALTER TABLE loans ADD CONSTRAINT small CHECK (amount < 10) NOT VALID;'],
  ['and the second', 'ALTER TABLE loans VALIDATE CONSTRAINT small;'],
  ['a function that is replaced', "CREATE OR REPLACE FUNCTION f() RETURNS text LANGUAGE sql AS $$ UPDATE loans SET status = 'x'; SELECT ''; $$;"], // prettier-ignore
  ['a row that wins over another', 'WITH x AS (INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE SET n = 1 RETURNING n) SELECT n FROM x;'], // prettier-ignore
  ['a setting of this transaction', "SET LOCAL work_mem = '64MB';"],
  ['indexes outside a transaction', `${OUTSIDE}CREATE INDEX CONCURRENTLY x ON loans (status);\nDROP INDEX CONCURRENTLY y;`], // prettier-ignore
])('lets %s pass', (_name, sql) => {
  expect(refused(sql)).toEqual([]);
});

describe('a rule that is set aside', () => {
  const why = '-- No release since 1.4 reads it.\n';
  const drop = 'ALTER TABLE loans DROP COLUMN branch;\n';
  it.each([
    ['for one statement, with the reason', `${why}-- squawk-ignore ban-drop-column\n${drop}`, []],
    ['of ours', `${why}-- squawk-ignore breaks-earlier-release\nDROP VIEW x;\n`, []],
    [
      'of both',
      `${why}-- squawk-ignore breaks-earlier-release, ban-drop-column\nALTER TABLE loans DROP COLUMN a, ALTER b DROP DEFAULT;\n`,
      [],
    ],
    ['for no other', `${why}-- squawk-ignore ban-drop-column\n${drop}${drop}`, ['ban-drop-column']],
    ['without a reason', `-- squawk-ignore ban-drop-column\n${drop}`, ['unexplained-ignore']],
    ['for the whole file', `${why}-- squawk-ignore-file\n${drop}`, ['unexplained-ignore']],
    ['but would not refuse', `${why}-- squawk-ignore rewrites-rows\nSELECT 1;\n`, ['unused-ignore']],
    ['but does not exist', `${why}-- squawk-ignore no-such-rule\nSELECT 1;\n`, ['unused-ignore']],
  ])('%s', (_name, sql, rules) => {
    expect(refused(sql)).toEqual(rules);
  });
});

describe('the record', () => {
  const files = { '0001_a.sql': 'CREATE TABLE a (id uuid);\n', '0002_b.sql': 'CREATE TABLE b (id uuid);\n' };
  const found = (changed: Record<string, string>, record = recordOf(files)) =>
    findings(changed, record).map(({ file, rule }) => `${file} ${rule}`);

  it('refuses a released migration that was edited', () => {
    expect(found({ ...files, '0001_a.sql': 'CREATE TABLE a (id text);\n' })).toEqual(['0001_a.sql released-migration']);
  });
  it('refuses one that is gone, with those after it renumbered', () => {
    expect(found({ '0001_b.sql': files['0002_b.sql'] })).toEqual([
      '0001_a.sql released-migration',
      '0001_b.sql not-recorded',
      '0002_b.sql released-migration',
    ]);
  });
  it('asks for the line of a new one', () => {
    const third = { ...files, '0003_c.sql': 'CREATE TABLE c (id uuid);\n' };
    expect(findings(third, recordOf(files))[0]!.remedy).toMatch(/sha256sum 0003_c\.sql\) >> .*migrations\.sum$/);
    expect(found(third, recordOf(third))).toEqual([]);
  });
  it.each([
    ['a gap', '0004_d.sql'],
    ['a double', '0002_d.sql'],
  ])('has no %s', (_name, name) => {
    const more = { ...files, [name]: 'CREATE TABLE d (id uuid);\n' };
    expect(findings(more)).toMatchObject([{ file: name, rule: 'not-runnable', remedy: /expected migration number 3/ }]);
  });
  it('has nothing outside a transaction but indexes', () => {
    const sql = `${OUTSIDE}CREATE INDEX CONCURRENTLY x ON a (id);\nALTER TABLE a ADD COLUMN n int;\n`;
    expect(findings({ '0001_a.sql': sql })).toMatchObject([{ line: 3, rule: 'not-runnable' }]);
  });
});

it('fails the check, and says what and where', () => {
  cpSync(ALL_MIGRATIONS, directory, { recursive: true });
  cpSync(`${ALL_MIGRATIONS}.sum`, `${directory}.sum`);
  writeFileSync(join(directory, '9999_bad.sql'), 'DROP TABLE loans;\n');
  const check = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', 'tsx', join(__dirname, 'lint.ts'), ...args], {
      cwd: ROOT,
      encoding: 'utf8',
    });
  const { status, stderr } = check(directory);
  expect(status).toBe(1);
  expect(stderr).toMatch(/9999_bad\.sql:1: ban-drop-table: Dropping a table may break existing clients\.\n {4}Let the/);
  expect(check()).toMatchObject({ status: 0, stderr: '' });
});
