import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Files, ROOT } from './files';

/** Where `make workflows` puts its tools; those of the machine serve as well. */
const PATH = `${join(ROOT, '.local/tools/bin')}:${process.env['PATH'] ?? ''}`;

export const toolEnvironment = { ...process.env, PATH };

export function missing(tool: string): string | undefined {
  return spawnSync(tool, ['--version'], { env: toolEnvironment }).error === undefined
    ? undefined
    : `no ${tool}${tool === 'go' ? '' : ': make workflows installs it'}`;
}

/**
 * What actionlint does not know yet, written as it knows it: `$/` (this repository, at this commit) as `./`, and without
 * the queue of a concurrency group.
 */
export function rewritten(text: string): string {
  return text.replaceAll('uses: $/', 'uses: ./').replace(/^ +queue: max\n/gm, '');
}

/** A repository with these files below .github, and what they run. */
export function withRepository<T>(files: Files, work: (directory: string) => T): T {
  const directory = mkdtempSync(join(tmpdir(), 'workflows-'));
  try {
    spawnSync('git', ['init', '--quiet', '--initial-branch=main', directory]);
    cpSync(join(ROOT, '.github'), join(directory, '.github'), { recursive: true });
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(join(directory, '.github', file, '..'), { recursive: true });
      writeFileSync(join(directory, '.github', file), text);
    }
    return work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** All findings of a linter in these files, as it prints them. */
export function lint(tool: 'actionlint' | 'zizmor', files: Files): string {
  return withRepository(files, (directory) => {
    const strictest = ['--offline', '--persona', 'auditor', '--no-progress', '--quiet', '--format', 'plain', '.'];
    const args = tool === 'zizmor' ? strictest : ['-no-color', '-oneline'];
    const options = { cwd: directory, env: toolEnvironment, encoding: 'utf8' } as const;
    const { status, stdout, stderr } = spawnSync(tool, args, options);
    if (status === 0) return '';
    return `exit code ${status ?? 'none'}\n${stdout}${stderr}`;
  });
}

export const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
