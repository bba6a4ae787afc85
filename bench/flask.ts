import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type DataSet, prepareForeignLoans } from './data';
import type { Stage } from './stage';

/** The Flask program that this project replaces, in an environment of its own below the stage's folder. */
export interface FlaskOriginal {
  readonly directory: string;
  readonly gunicorn: string;
  readonly environment: Readonly<Record<string, string>>;
  /** As many loans as the others have. */
  readonly loans: DataSet;
  /** Its list has no pages: this database has the 50 loans of one. */
  readonly page: DataSet;
  databaseUrl(database: string): string;
}

const SOURCE = 'https://github.com/blue-samarth/dummy-branch-app';
const PAGE = 50;

/** Why it cannot take part. */
export class NoFlask extends Error {}

/**
 * @param given a folder with its sources; without one they are cloned
 * @throws NoFlask
 */
export async function prepareFlask(stage: Stage, rows: number, given: string | undefined): Promise<FlaskOriginal> {
  const directory = given ?? clone(join(stage.directory, 'flask'));
  if (!existsSync(join(directory, 'wsgi.py'))) throw new NoFlask(`${directory} has no wsgi.py`);
  const venv = join(stage.directory, 'flask-venv');
  const environment = { PATH: process.env['PATH'] ?? '', PYTHONDONTWRITEBYTECODE: '1', FLASK_ENV: 'production' };
  const bin = (name: string) => join(venv, 'bin', name);
  if (!existsSync(bin('gunicorn'))) {
    attempt('python3', ['-m', 'venv', '--clear', venv]);
    attempt(bin('pip'), ['install', '--quiet', '--requirement', join(directory, 'requirements.txt')]);
  }
  const { port } = stage.postgres;
  const databaseUrl = (database: string) => `postgresql+psycopg2://postgres@127.0.0.1:${port}/${database}`;
  const createSchema = (database: string) => {
    attempt(bin('alembic'), ['upgrade', 'head'], directory, { ...environment, DATABASE_URL: databaseUrl(database) });
  };
  const [loans, page] = [
    await prepareForeignLoans(port, { name: 'flask', rows }, createSchema),
    await prepareForeignLoans(port, { name: 'flask', rows: PAGE }, createSchema),
  ];
  return { directory, gunicorn: bin('gunicorn'), environment, loans, page, databaseUrl };
}

function clone(directory: string): string {
  if (existsSync(join(directory, 'wsgi.py'))) return directory;
  rmSync(directory, { recursive: true, force: true });
  attempt('git', ['clone', '--quiet', '--depth', '1', SOURCE, directory], undefined, {
    ...process.env,
    GIT_TERMINAL_PROMPT: '0',
  });
  return directory;
}

function attempt(program: string, args: readonly string[], cwd?: string, env?: NodeJS.ProcessEnv): void {
  try {
    execFileSync(program, args, { cwd, env, stdio: ['ignore', 'ignore', 'pipe'], timeout: 300_000 });
  } catch (error) {
    const words = String((error as { stderr?: Buffer }).stderr ?? error).trim();
    throw new NoFlask(`${program} ${args.slice(0, 2).join(' ')} failed: ${words.split('\n').at(-1) ?? ''}`);
  }
}
