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

const git = (...args: string[]) =>
  execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });

/** @returns it, or why there is none in this clone */
export function previousRelease(): PreviousRelease | string {
  const named = process.env['PREVIOUS_RELEASE'];
  try {
    const commits = named === undefined ? ['HEAD', ...changesOfMigrations()] : [named];
    for (const name of commits) {
      const commit = git('rev-parse', '--verify', '--quiet', `${name}^{commit}`).trim();
      const version = firstOnesOf(commit);
      if (version !== undefined) return { commit, version };
    }
  } catch {
    return named === undefined ? 'the clone has not all of its history' : `no commit ${named} in this clone`;
  }
  return named === undefined ? 'no earlier release in git' : `the migrations of ${named} are not the first of these`;
}

/** The commits before those that changed them, newest first. */
function changesOfMigrations(): string[] {
  const changed = git('log', '--first-parent', '--format=%H %P', '--', MIGRATIONS).split('\n');
  return changed.map((line) => line.split(' ')[1] ?? '').filter((parent) => parent !== '');
}

/** How many migrations the commit has, if those are here too, as they are there, and followed by others. */
function firstOnesOf(commit: string): number | undefined {
  const present = readdirSync(join(ROOT, MIGRATIONS)).sort();
  const there = git('ls-tree', '--name-only', `${commit}:${MIGRATIONS}`).split('\n').filter(Boolean);
  if (there.length >= present.length) return undefined;
  const same = there.every(
    (file, index) =>
      file === present[index] &&
      git('show', `${commit}:${MIGRATIONS}/${file}`) === readFileSync(join(ROOT, MIGRATIONS, file), 'utf8'),
  );
  return same ? there.length : undefined;
}

/** @returns a new folder with its program and the packages that it had; or why those cannot be had */
export function unpack({ commit }: PreviousRelease): { readonly root: string } | string {
  const root = mkdtempSync(join(tmpdir(), 'branchloans-previous-'));
  const archive = join(root, 'archive.tar');
  git('archive', '--output', archive, commit, 'app', 'package.json', 'package-lock.json', 'tsconfig.json');
  execFileSync('tar', ['-xf', archive, '-C', root]);
  const options = ['--omit=dev', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  const { status, stderr } = spawnSync('npm', ['ci', ...options], { cwd: root, encoding: 'utf8', timeout: 120_000 });
  if (status !== 0) {
    rmSync(root, { recursive: true });
    return `npm has not the packages of ${commit.slice(0, 7)}: ${stderr.trim().split('\n')[0] ?? ''}`;
  }
  symlinkSync(join(ROOT, 'node_modules', 'tsx'), join(root, 'node_modules', 'tsx'));
  return { root };
}
