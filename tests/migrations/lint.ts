import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { MigrationError, newestMigration, OUTSIDE_A_TRANSACTION } from '../../app/db/migrate';
import { type Statement, statementsOf } from '../../app/db/statements';

/**
 * Refuses migrations that lock tables which others use, or break the release that serves while they run. Most of it is
 * squawk's (.squawk.toml); here is what it does not know. A rule is set aside for one statement by the lines
 *
 *   -- Why this one may.
 *   -- squawk-ignore name-of-the-rule
 *
 * right before it.
 */

const ROOT = resolve(__dirname, '..', '..');
const SQUAWK = require.resolve('squawk-cli/js/bin/squawk');

export interface Finding {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly rule: string;
  readonly message: string;
  readonly remedy: string;
}

interface Migration {
  readonly file: string;
  readonly sql: string;
  readonly statements: readonly Statement[];
  /** Names of tables that this file creates: nobody uses them yet. */
  readonly created: ReadonlySet<string>;
}

interface Rule {
  readonly name: string;
  readonly message: string;
  readonly remedy: string;
  readonly refuses: (statement: string, migration: Migration) => boolean;
}

const EXPAND_ONLY = 'Let the new release do without it, deploy that, and drop it in the release after.';
const BESIDE =
  'Add the new one beside it, keep both in step by a trigger, and drop the old one when no release needs it.';
const OUTSIDE = `In a file of its own that begins with "${OUTSIDE_A_TRANSACTION.trim()}", with CONCURRENTLY.`;

/** Of squawk's rules: where it has none, or one that is not how it is done here. */
const REMEDIES: Readonly<Record<string, string>> = {
  'ban-drop-column': EXPAND_ONLY,
  'ban-drop-table': EXPAND_ONLY,
  'ban-drop-not-null': 'Deploy a release that can read null first.',
  'renaming-column': BESIDE,
  'renaming-table': BESIDE,
  'changing-column-type': BESIDE,
  'adding-field-with-default': 'Add it without a default, and fill it with each change of a row, by a trigger.',
  'adding-not-nullable-field':
    'A CHECK (… IS NOT NULL) that is NOT VALID, validated by the next migration; then nothing is left to scan.',
  'require-concurrent-index-creation': OUTSIDE,
  'require-concurrent-index-deletion': OUTSIDE,
  'ban-concurrent-index-creation-in-transaction': OUTSIDE,
  'syntax-error': 'Correct it.',
  'transaction-nesting': 'The runner puts a transaction around each file: write none.',
};

const RULES: readonly Rule[] = [
  {
    name: 'breaks-earlier-release',
    message:
      'The release before this one goes on while this runs, and after a roll-back; it may need what this takes away.',
    remedy: `${EXPAND_ONLY} To change a function, view or trigger: CREATE OR REPLACE.`,
    refuses: (statement, migration) =>
      /^(?:DROP (?!TABLE|DATABASE|INDEX)|REVOKE\b|ALTER (?!TABLE).*\bRENAME\b|ALTER .*\bSET SCHEMA\b)/i.test(
        statement,
      ) ||
      (/^(?:TRUNCATE\b|ALTER TABLE .*\bDROP DEFAULT\b)/i.test(statement) && isUsed(statement, migration)),
  },
  {
    name: 'locks-table',
    message: 'Nobody can use the table until this has gone through all of it.',
    remedy:
      'A new table that is filled by triggers, a constraint of its own that is NOT VALID and validated by the next migration, REFRESH … CONCURRENTLY; or a window of maintenance.',
    refuses: (statement, migration) =>
      /^(?:VACUUM|CLUSTER|REFRESH MATERIALIZED VIEW (?!CONCURRENTLY))\b/i.test(statement) ||
      (/^LOCK\b|^ALTER TABLE .*(?:\bSET (?:UN)?LOGGED|\bSET TABLESPACE|\bSET ACCESS METHOD|\bATTACH PARTITION|\bADD (?:COLUMN )?(?!CONSTRAINT\b|CHECK\b)\S+ .*\bCHECK)\b/i.test(
        statement,
      ) &&
        isUsed(statement, migration)),
  },
  {
    name: 'rewrites-rows',
    message: 'Every row that this touches stays locked until all are done, and the table grows by as many dead ones.',
    remedy:
      'Fill the column with the next change of each row (as 0006 does), or in batches by the service (as app/retention.ts does).',
    refuses: (statement, migration) =>
      /^(?:UPDATE|DELETE|MERGE)\b|^WITH .*(?:(?<!DO |FOR )\bUPDATE|\bDELETE FROM|\bMERGE INTO)\b/i.test(statement) &&
      isUsed(statement, migration),
  },
  {
    name: 'schema-and-data',
    message: 'The lock of the table that this file changes is kept until its data is through.',
    remedy: 'Put the data into the next migration.',
    refuses: (statement, migration) =>
      /^(?:INSERT .*\bSELECT|UPDATE|DELETE|MERGE|WITH|SELECT|COPY)\b/i.test(statement) &&
      migration.statements.some(({ plain }) => CHANGES_A_TABLE.test(plain) && isUsed(plain, migration)),
  },
  {
    name: 'setting-of-the-runner',
    message: 'This stays in force for the migrations after it, or takes away what bounds the wait for a lock.',
    remedy: 'SET LOCAL, and nothing about lock_timeout.',
    refuses: (statement) =>
      /^(?:RESET|DISCARD)\b|^SET (?!LOCAL\b|CONSTRAINTS\b)|^SET LOCAL lock_timeout\b/i.test(statement),
  },
  {
    // squawk lets it pass where it is the only statement.
    name: 'concurrently-in-transaction',
    message: 'Postgres does not do this in a transaction.',
    remedy: OUTSIDE,
    refuses: (statement, { sql }) =>
      /^(?:CREATE (?:UNIQUE )?INDEX|DROP INDEX) CONCURRENTLY\b/i.test(statement) &&
      !sql.startsWith(OUTSIDE_A_TRANSACTION),
  },
  {
    name: 'hidden-statements',
    message: 'What is inside is seen neither by this linter nor by the runner, which says where a migration failed.',
    remedy: 'Write plain statements; the body of a function in $$ … $$.',
    refuses: (statement) => /^(?:DO|CALL|EXECUTE)\b|\bBEGIN ATOMIC\b/i.test(statement),
  },
];

const CHANGES_A_TABLE = /^(?:ALTER TABLE|CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER .*? ON)\b/i;
const TARGET =
  /(?:^|\b)(?:UPDATE|DELETE FROM|MERGE INTO|ALTER TABLE|TRUNCATE(?: TABLE)?|LOCK(?: TABLE)?|TRIGGER .*? ON)(?: ONLY| IF EXISTS)* ([\w".]+)/i;

/** Whether it is about a table that was there before this file. */
function isUsed(statement: string, { created }: Migration): boolean {
  return !created.has(TARGET.exec(statement)?.[1] ?? '');
}

/**
 * @param directory of the migrations
 * @param record file with the checksum of each one, in the format of sha256sum: those that are in it may not change
 * @returns what is refused, by file and line
 */
export function lint(directory: string, record: string): Finding[] {
  const files = readdirSync(directory).filter((file) => file.endsWith('.sql'));
  const migrations = files.sort().map((file) => readMigration(directory, file));
  const findings = [
    ...numbering(directory),
    ...recorded(migrations, record),
    ...migrations.flatMap((migration) => [...ownRules(migration), ...unexplainedIgnores(migration)]),
    ...squawk(directory, migrations),
  ];
  return findings.sort((one, other) => one.file.localeCompare(other.file) || one.line - other.line);
}

function readMigration(directory: string, file: string): Migration {
  const sql = readFileSync(join(directory, file), 'utf8');
  const statements = statementsOf(sql);
  const created = statements.map(
    ({ plain }) => /^CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?([\w".]+)/i.exec(plain)?.[1],
  );
  return { file, sql, statements, created: new Set(created.filter((name) => name !== undefined)) };
}

function numbering(directory: string): Finding[] {
  try {
    newestMigration(directory);
    return [];
  } catch (error) {
    if (!(error instanceof MigrationError)) throw error;
    const [, file = '', line = '1', rest = ''] = /^(.*?)(?::(\d+))?: (.*)$/s.exec(error.message) ?? [];
    return [{ file, line: Number(line), rule: 'not-runnable', message: 'The runner refuses it.', remedy: rest }];
  }
}

function recorded(migrations: readonly Migration[], record: string): Finding[] {
  const lines = readFileSync(record, 'utf8').split('\n');
  const sums = new Map(lines.filter((line) => line !== '').map((line) => [line.slice(66), line.slice(0, 64)]));
  const where = relative(ROOT, record);
  const released = [...sums].flatMap(([file, sum]) => {
    const migration = migrations.find((each) => each.file === file);
    if (migration !== undefined && createHash('sha256').update(migration.sql).digest('hex') === sum) return [];
    const message = `${where} has it with another content: databases that it was run on refuse the release.`;
    const remedy = `Restore it, and put the change into a new migration. Only if it never left this branch: make its line in ${where} anew.`;
    return [{ file, line: 1, rule: 'released-migration', message, remedy }];
  });
  const missing = migrations.filter(({ file }) => !sums.has(file));
  return [
    ...released,
    ...missing.map(({ file }) => ({
      file,
      line: 1,
      rule: 'not-recorded',
      message: `${where} does not have it, so nobody would see that it was edited later.`,
      remedy: `(cd ${relative(ROOT, resolve(record, '..', 'migrations'))} && sha256sum ${file}) >> ${where}`,
    })),
  ];
}

function ownRules(migration: Migration): Finding[] {
  const { file, sql, statements } = migration;
  const lines = sql.split('\n');
  return statements.flatMap(({ plain, line }) => {
    const ignored = ignoredBy(lines[line - 2] ?? '');
    return RULES.flatMap(({ name, message, remedy, refuses }) => {
      const refused = refuses(plain, migration);
      if (refused && !ignored.includes(name)) return [{ file, line, rule: name, message, remedy }];
      if (refused || !ignored.includes(name)) return [];
      return [
        { file, line, rule: 'unused-ignore', message: `${name} does not refuse it.`, remedy: 'Remove its name.' },
      ];
    });
  });
}

function ignoredBy(line: string): string[] {
  const names = /^-- squawk-ignore (.*)$/.exec(line)?.[1] ?? '';
  return names.split(',').map((name) => name.trim());
}

function unexplainedIgnores({ file, sql }: Migration): Finding[] {
  const lines = sql.split('\n');
  return lines.flatMap((line, index) => {
    if (!line.includes('squawk-ignore')) return [];
    const isPlain = /^-- squawk-ignore [a-z]/.test(line);
    const before = lines[index - 1] ?? '';
    if (isPlain && /^-- \w/.test(before) && !before.includes('squawk-ignore')) return [];
    const message = 'Nobody can tell later why this was let through.';
    const remedy =
      'Write `-- squawk-ignore rule` right before the statement, and the reason as a comment right before that.';
    return [{ file, line: index + 1, rule: 'unexplained-ignore', message, remedy }];
  });
}

interface Report {
  readonly file: string;
  /** From 0. */
  readonly line: number;
  readonly rule_name: string;
  readonly message: string;
  readonly help: string | null;
}

function squawk(directory: string, migrations: readonly Migration[]): Finding[] {
  const isOutside = ({ sql }: Migration) => sql.startsWith(OUTSIDE_A_TRANSACTION);
  const run = (files: readonly Migration[], transaction: string): Finding[] => {
    if (files.length === 0) return [];
    const args = ['--config', join(ROOT, '.squawk.toml'), transaction, '--reporter', 'json'];
    const { stdout, stderr, error } = spawnSync(
      process.execPath,
      [SQUAWK, ...args, ...files.map(({ file }) => join(directory, file))],
      { encoding: 'utf8' },
    );
    if (!stdout.startsWith('[')) throw new Error(`squawk gave no report: ${error?.message ?? stderr}`);
    return (JSON.parse(stdout) as Report[])
      .filter(
        ({ rule_name, message }) => rule_name !== 'unused-ignore' || !RULES.some(({ name }) => message.endsWith(name)),
      )
      .map(({ file, line, rule_name: rule, message, help }) => {
        const remedy = REMEDIES[rule] ?? help ?? `https://squawkhq.com/docs/${rule}`;
        return { file: relative(directory, file), line: line + 1, rule, message, remedy };
      });
  };
  return [
    ...run(
      migrations.filter((migration) => !isOutside(migration)),
      '--assume-in-transaction',
    ),
    ...run(migrations.filter(isOutside), '--no-assume-in-transaction'),
  ];
}

if (require.main === module) {
  const directory = process.argv[2] ?? join(ROOT, 'app', 'db', 'migrations');
  const findings = lint(directory, `${directory}.sum`);
  for (const { file, line, rule, message, remedy } of findings) {
    console.error(`${relative(process.cwd(), join(directory, file))}:${line}: ${rule}: ${message}\n    ${remedy}`);
  }
  if (findings.length > 0)
    console.error(`\n${findings.length} finding(s). How to write a migration: docs/MIGRATIONS.md`);
  process.exitCode = findings.length > 0 ? 1 : 0;
}
