import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, PipelineError, type Run } from './run';

/** The checks and tests of a Node project: the scripts of its package.json, in their order. */
export interface NodeProject {
  readonly directory: string;
  /** Names of npm scripts. */
  readonly scripts: readonly string[];
  /** Image of a PostgreSQL that the scripts have for themselves, `name@sha256:…`; undefined starts none. */
  readonly postgres: string | undefined;
}

/** A script that passes whatever the code does: only words, or a success that is given away. */
export const isPlaceholder = (script: string) =>
  script.split(/&&|;|\|\|/).every((part) => /^\s*(echo\b.*|true|:|exit( 0)?)?\s*$/.test(part));

/** What would let a run pass without having looked; each with its remedy. */
export function nodeFaults({ directory, scripts, postgres }: NodeProject): string[] {
  const file = join(directory, 'package.json');
  if (!existsSync(file)) return [`there is no ${file}: say where the project is (working-directory)`];
  const { scripts: own = {} } = JSON.parse(readFileSync(file, 'utf8')) as { scripts?: Record<string, string> };
  const locked = ['package-lock.json', 'npm-shrinkwrap.json'].some((name) => existsSync(join(directory, name)));
  return [
    ...(locked
      ? []
      : [`${directory} has no package-lock.json: what is tested must be what is installed (npm install)`]),
    ...(postgres === undefined || /^[\w.\-/:]+@sha256:[0-9a-f]{64}$/.test(postgres)
      ? []
      : [`postgres: "${postgres}" is not name@sha256:…: a tag may be another image tomorrow`]),
    ...(scripts.length === 0 ? ['no script is named: nothing would be looked at'] : []),
    ...scripts.flatMap((name) => {
      const script = own[name];
      if (script === undefined) {
        return [`${file} has no script "${name}"; it has ${Object.keys(own).join(', ') || 'none'}`];
      }
      return isPlaceholder(script) ? [`the script "${name}" is a placeholder: ${script}`] : [];
    }),
  ];
}

export interface Checked {
  readonly script: string;
  readonly seconds: number;
}

/**
 * Installs what the lock file names, and runs the scripts.
 * @throws PipelineError with the first that fails; before anything is installed where one cannot do its work
 */
export async function checkNode(project: NodeProject, run: Run): Promise<Checked[]> {
  const faults = nodeFaults(project);
  if (faults.length > 0) throw new PipelineError(faults.join('\n'));
  const options = { cwd: project.directory, show: true };
  const install = await run('npm', ['ci', '--no-audit', '--no-fund'], options);
  if (install.code !== 0) throw new PipelineError('npm ci failed: package.json and its lock file must agree');
  return withPostgres(project.postgres, run, async (env) => {
    const checked: Checked[] = [];
    for (const script of project.scripts) {
      const start = Date.now();
      const { code } = await run('npm', ['run', script], { ...options, env });
      if (code !== 0) throw new PipelineError(`npm run ${script} failed with exit code ${code}`);
      checked.push({ script, seconds: Math.round((Date.now() - start) / 1_000) });
    }
    return checked;
  });
}

/** A database on this machine's loopback, gone after the work; its password is worth nothing afterwards. */
async function withPostgres<T>(
  image: string | undefined,
  run: Run,
  work: (env: Readonly<Record<string, string>>) => Promise<T>,
): Promise<T> {
  if (image === undefined) return work({});
  const password = randomBytes(16).toString('hex');
  // By name: the value does not appear on a command line.
  const start = ['run', '--detach', '--env', 'POSTGRES_PASSWORD', '--publish', '127.0.0.1::5432', image];
  const container = (await output(run, 'docker', start, { env: { POSTGRES_PASSWORD: password } })).trim();
  try {
    const port = /:(\d+)\s*$/m.exec(await output(run, 'docker', ['port', container, '5432/tcp']))?.[1] ?? '';
    // Over TCP: while it makes its first database it listens on its socket only.
    const ask = ['exec', container, 'pg_isready', '--host', '127.0.0.1', '--username', 'postgres'];
    for (let tried = 0; (await run('docker', ask)).code !== 0; tried++) {
      if (tried === 120) {
        const { stderr, stdout } = await run('docker', ['logs', '--tail', '20', container]);
        throw new PipelineError(`The database does not come up:\n${stdout}${stderr}`);
      }
      await new Promise((done) => setTimeout(done, 500));
    }
    return await work({
      PGHOST: '127.0.0.1',
      PGPORT: port,
      PGUSER: 'postgres',
      PGPASSWORD: password,
      PGDATABASE: 'postgres',
    });
  } finally {
    await run('docker', ['rm', '--force', '--volumes', container]);
  }
}
