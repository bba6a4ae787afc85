import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { commitOf } from './images';

/** The commit that an image is built from where no setting says it. */

let root: string;
const git = (...args: string[]) =>
  execFileSync('git', ['-C', root, '-c', 'user.name=a', '-c', 'user.email=a@b', ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim();
const write = (file: string, text: string) => {
  mkdirSync(dirname(join(root, file)), { recursive: true });
  writeFileSync(join(root, file), text);
};
const commit = (file: string) => {
  write(file, `${Math.random()}`);
  git('add', '--all');
  git('commit', '--quiet', '--no-verify', '--message', file);
  return git('rev-parse', 'HEAD');
};

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'commit-'));
  git('init', '--quiet');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

it('is the last one that changed what the image is made of: another one makes no other image', () => {
  const first = commit('app/main.ts');
  expect(first).toMatch(/^[0-9a-f]{40}$/);
  for (const file of ['docs/README.md', 'infra/index.ts', 'app/main.test.ts', 'app/domain/money.test.ts']) {
    commit(file);
    expect([file, commitOf(root)]).toEqual([file, first]);
  }
  for (const file of ['app/domain/money.ts', 'package-lock.json', 'app/Dockerfile']) {
    const next = commit(file);
    expect([file, commitOf(root)]).toEqual([file, next]);
  }
});

it('is not known with changes that are not committed', () => {
  const first = commit('app/main.ts');
  write('docs/README.md', 'changed');
  write('app/main.test.ts', 'changed');
  expect(commitOf(root)).toBe(first);
  write('app/main.ts', 'changed');
  expect(commitOf(root)).toBe('');
  git('checkout', '--', 'app/main.ts');
  write('app/new.ts', 'new');
  expect(commitOf(root)).toBe('');
});

it('is not known without a history', () => {
  expect(commitOf(root)).toBe('');
  rmSync(join(root, '.git'), { recursive: true });
  expect(commitOf(root)).toBe('');
});
