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

const YAML = {
  extends: 'default',
  rules: {
    'line-length': 'disable',
    'document-start': 'disable',
    truthy: { 'check-keys': false },
    braces: { 'min-spaces-inside': 0, 'max-spaces-inside': 1 },
    brackets: { 'max-spaces-inside': 0 },
    comments: { 'min-spaces-from-content': 1 },
  },
};

/** Each linter as it is called in a repository, at its strictest. */
const LINTERS = {
  zizmor: () => [['--offline', '--persona', 'auditor', '--no-progress', '--quiet', '--format', 'plain', '.']],
  actionlint: () => [['-no-color', '-oneline']],
  yamllint: () => [['--strict', '--format', 'parsable', '--config-data', JSON.stringify(YAML), '.github']],
  // The schemas come with it: nothing is fetched.
  'check-jsonschema': (files: readonly string[]) =>
    Object.entries({
      'vendor.github-workflows': files.filter((file) => file.startsWith('workflows/')),
      'vendor.github-actions': files.filter((file) => file.startsWith('actions/')),
      'vendor.dependabot': ['dependabot.yml'],
    }).map(([schema, paths]) => ['--builtin-schema', schema, ...paths.map((path) => join('.github', path))]),
} as const;

/** All findings of a linter in these files, as it prints them. */
export function lint(tool: keyof typeof LINTERS, files: Files): string {
  return withRepository(files, (directory) =>
    LINTERS[tool](Object.keys(files))
      .map((args) => findings(tool, args, directory))
      .join(''),
  );
}

/** The same for a Dockerfile. */
export function lintDockerfile(text: string): string {
  return findings('hadolint', ['--no-color', '-'], ROOT, text);
}

/** The same for a script, but for remarks on its style. */
export function lintScript(text: string): string {
  return findings('shellcheck', ['--severity', 'warning', '--format', 'gcc', '-'], ROOT, text);
}

function findings(tool: string, args: readonly string[], cwd: string, input?: string): string {
  const { status, stdout, stderr } = spawnSync(tool, args, { cwd, env: toolEnvironment, encoding: 'utf8', input });
  return status === 0 ? '' : `exit code ${status ?? 'none'}\n${stdout}${stderr}`;
}

export const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
