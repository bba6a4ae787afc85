import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const ROOT = join(__dirname, '..', '..');
const REQUIREMENTS = join(__dirname, 'requirements.txt');
const HOOKS = join(__dirname, 'hooks.py');
const CONFIG = join(__dirname, 'schemathesis.toml');

export interface Tool {
  /** Runs it on the OpenAPI document behind the URL; resolves to all it wrote and its exit code. */
  run(url: string, args: readonly string[]): Promise<{ readonly code: number | null; readonly output: string }>;
}

/** schemathesis in an environment of its own under .local, made from requirements.txt when it is not there; or why not. */
export function installTool(): Tool | string {
  const python = spawnSync('python3', ['-c', 'import sys, venv; sys.exit(sys.version_info < (3, 10))']);
  if (python.error !== undefined || python.status !== 0) return 'no Python from 3.10 on with its venv module';
  const version = createHash('sha256').update(readFileSync(REQUIREMENTS)).digest('hex').slice(0, 12);
  const directory = join(ROOT, '.local', `contract-${version}`);
  if (!existsSync(directory)) {
    // Half of one is never taken for it. What it is moved away from stands only in programs that are not used here.
    const unfinished = `${directory}.unfinished`;
    rmSync(unfinished, { recursive: true, force: true });
    const steps = [
      ['python3', '-m', 'venv', unfinished],
      [
        join(unfinished, 'bin', 'python'),
        '-m',
        'pip',
        'install',
        '--quiet',
        '--no-input',
        '--requirement',
        REQUIREMENTS,
      ],
    ] as const;
    for (const [program, ...args] of steps) {
      if (spawnSync(program, args, { timeout: 180_000 }).status !== 0) return 'pip cannot install schemathesis';
    }
    renameSync(unfinished, directory);
  }
  return {
    run(url, args) {
      const program = join(directory, 'bin', 'python');
      const child = spawn(
        program,
        [
          '-m',
          'schemathesis.cli',
          '--config-file',
          CONFIG,
          'run',
          url,
          '--no-color',
          '--generation-database',
          'none',
          ...args,
        ],
        {
          cwd: directory,
          env: { PATH: process.env.PATH, COLUMNS: '160', PYTHONDONTWRITEBYTECODE: '1', SCHEMATHESIS_HOOKS: HOOKS },
          stdio: ['ignore', 'pipe', 'pipe'],
        },
      );
      let output = '';
      child.stdout.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
      child.stderr.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
      return new Promise((resolve, reject) => {
        child.once('error', reject);
        child.once('close', (code) => resolve({ code, output }));
      });
    },
  };
}
