import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { previousRelease } from './previous-release';

let directory: string;
let root: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'branchloans-history-'));
  root = join(directory, 'origin');
  mkdirSync(join(root, 'app', 'db', 'migrations'), { recursive: true });
  git('init', '--quiet');
});
afterEach(() => rmSync(directory, { recursive: true }));

const git = (...args: string[]) => {
  const who = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com', '-c', 'commit.gpgsign=false'];
  return execFileSync('git', [...who, ...args], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
};
const write = (file: string, sql: string) => writeFileSync(join(root, 'app', 'db', 'migrations', file), sql);
const commit = () => {
  git('add', '--all');
  git('commit', '--quiet', '--allow-empty', '--message', 'A change');
  return git('rev-parse', 'HEAD').trim();
};
const found = (named?: string) => previousRelease(root, named);

it('is the last commit with fewer migrations, whatever came after them', () => {
  write('0001_a.sql', 'a');
  commit();
  expect(found()).toBe('git has no earlier release');
  const last = commit();
  write('0002_b.sql', 'b');
  expect(found()).toEqual({ commit: last, version: 1 });
  commit();
  const other = commit();
  expect(found()).toEqual({ commit: last, version: 1 });
  write('0003_c.sql', 'c');
  expect(found()).toEqual({ commit: other, version: 2 });
});

it('is none whose migrations are others', () => {
  write('0001_a.sql', 'a');
  const first = commit();
  write('0002_b.sql', 'b');
  const second = commit();
  write('0002_b.sql', 'another one');
  write('0003_c.sql', 'c');
  commit();
  expect(found()).toEqual({ commit: first, version: 1 });
  expect(found(second)).toBe(`the migrations of ${second} are not the first of those of this release`);
  expect(found(first)).toEqual({ commit: first, version: 1 });
});

it('is not to be had without its history, which says so', () => {
  write('0001_a.sql', 'a');
  const first = commit();
  write('0002_b.sql', 'b');
  commit();
  const clone = join(directory, 'clone');
  git('clone', '--quiet', '--depth', '1', `file://${root}`, clone);
  expect(previousRelease(clone)).toBe('this clone has no earlier release: git fetch --unshallow');
  expect(previousRelease(clone, first)).toBe(`git has no release ${first} here`);
  expect(previousRelease(directory)).toBe('no git history here');
});
