import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/**
 * The release before this one, out of git: the newest commit whose migrations are the first ones of those there are
 * now. What is deployed may be another one: PREVIOUS_RELEASE names its commit (`make releases` shows it).
 */

const ROOT = resolve(__dirname, '..', '..');
const MIGRATIONS = 'app/db/migrations';

export interface PreviousRelease {
  readonly commit: string;
  /** How many migrations it has. */
  readonly version: number;
}

/** @returns it, or why there is none in this clone */
export function previousRelease(root = ROOT, named = process.env['PREVIOUS_RELEASE']): PreviousRelease | string {
  try {
    const commits = named === undefined ? ['HEAD', ...beforeChanges(root)] : [named];
    for (const name of commits) {
      const commit = git(root, 'rev-parse', '--verify', `${name}^{commit}`).trim();
      const version = firstOnesOf(root, commit);
      if (version !== undefined) return { commit, version };
    }
    if (named !== undefined) return `the migrations of ${named} are not the first of those of this release`;
    const isShallow = git(root, 'rev-parse', '--is-shallow-repository').trim() === 'true';
    return isShallow ? 'this clone has no earlier release: git fetch --unshallow' : 'git has no earlier release';
  } catch {
    return named === undefined ? 'no git history here' : `git has no release ${named} here`;
  }
}

/** The commits before those that changed the migrations, newest first. */
function beforeChanges(root: string): string[] {
  const changes = git(root, 'log', '--first-parent', '--format=%P', '--', MIGRATIONS).split('\n');
  return changes.map((parents) => parents.split(' ')[0] ?? '').filter((parent) => parent !== '');
}

/** How many migrations the commit has, if those are here too, as they are there, and followed by others. */
function firstOnesOf(root: string, commit: string): number | undefined {
  const present = readdirSync(join(root, MIGRATIONS)).sort();
  const listed = git(root, 'ls-tree', '--name-only', commit, `${MIGRATIONS}/`).split('\n').filter(Boolean);
  if (listed.length === 0 || listed.length >= present.length) return undefined;
  const same = listed.every(
    (path, index) =>
      path === `${MIGRATIONS}/${present[index] ?? ''}` &&
      git(root, 'show', `${commit}:${path}`) === readFileSync(join(root, path), 'utf8'),
  );
  return same ? listed.length : undefined;
}

function git(root: string, ...args: string[]): string {
  return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
}

/** @returns a new folder with these files and folders as they were in that commit */
export function extract(commit: string, entries: readonly string[]): string {
  const root = mkdtempSync(join(tmpdir(), 'branchloans-previous-'));
  const archive = join(root, 'archive.tar');
  git(ROOT, 'archive', '--output', archive, commit, ...entries);
  execFileSync('tar', ['-xf', archive, '-C', root]);
  rmSync(archive);
  return root;
}

/** @returns a new folder with its program and the packages that it had; or why those cannot be had */
export function unpack({ commit }: PreviousRelease): { readonly root: string } | string {
  const root = extract(commit, ['app', 'package.json', 'package-lock.json', 'tsconfig.json']);
  const options = ['--omit=dev', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  const { status, stderr } = spawnSync('npm', ['ci', ...options], { cwd: root, encoding: 'utf8', timeout: 120_000 });
  if (status !== 0) {
    rmSync(root, { recursive: true });
    return `npm has not the packages of ${commit.slice(0, 7)}: ${stderr.trim().split('\n')[0] ?? ''}`;
  }
  symlinkSync(join(ROOT, 'node_modules', 'tsx'), join(root, 'node_modules', 'tsx'));
  return { root };
}
