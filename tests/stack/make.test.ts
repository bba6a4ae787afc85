import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { parseDocument } from 'yaml';
import { describeUnless } from '../skip';
import { docker, freePort, reasonWithoutEngine, reasonWithoutPulumi } from './environment';
import { ask } from './load';

/** The verbs of the Makefile in a clone of the repository, as a newcomer types them. */

jest.setTimeout(240_000);

const ROOT = resolve(__dirname, '../..');

/** The PATH of a machine without Pulumi. */
const withoutPulumi = (process.env['PATH'] ?? '')
  .split(delimiter)
  .filter((directory) => !existsSync(join(directory, 'pulumi')))
  .join(delimiter);

class Clone {
  readonly directory = mkdtempSync(join(tmpdir(), 'branchloans-clone-'));
  readonly prefix = `bl-make-${process.pid}-${Math.random().toString(36).slice(2, 6)}`;
  readonly ports = { https: 0, http: 0, api: 0 };

  static async create(): Promise<Clone> {
    const clone = new Clone();
    execFileSync('git', ['clone', '--quiet', ROOT, clone.directory]);
    // What is not committed yet is tested too.
    const changed = execFileSync('git', ['diff', 'HEAD', '--binary'], { cwd: ROOT, maxBuffer: 64 * 1024 * 1024 });
    if (changed.length > 0) execFileSync('git', ['apply'], { cwd: clone.directory, input: changed });
    symlinkSync(join(ROOT, 'node_modules'), join(clone.directory, 'node_modules'));
    Object.assign(clone.ports, { https: await freePort(), http: await freePort(), api: await freePort() });
    const file = join(clone.directory, 'Pulumi.development.yaml');
    const settings = parseDocument(readFileSync(file, 'utf8'));
    settings.setIn(['config', 'branchloans:gateway', 'ports'], clone.ports);
    settings.setIn(['config', 'branchloans:prefix'], clone.prefix);
    settings.setIn(['config', 'branchloans:database', 'volume'], `./${clone.prefix}-postgres`);
    writeFileSync(file, settings.toString());
    return clone;
  }

  make(args: string[], environment: NodeJS.ProcessEnv = {}): { code: number; output: string } {
    const inherited = { ...process.env };
    delete inherited['PULUMI_CONFIG_PASSPHRASE'];
    // Never `npm ci` here: the packages are those of the repository under test, by a link.
    const { status, stdout, stderr } = spawnSync('make', ['--old-file=node_modules/.package-lock.json', ...args], {
      cwd: this.directory,
      encoding: 'utf8',
      env: { ...inherited, NODE_OPTIONS: '', ...environment },
    });
    return { code: status ?? 1, output: stdout + stderr };
  }

  /** What git would see as changed, apart from the settings that the test itself changed. */
  status(): string {
    const text = execFileSync('git', ['status', '--porcelain'], { cwd: this.directory, encoding: 'utf8' });
    // A link is not the folder that .gitignore names.
    return text
      .split('\n')
      .filter((line) => line !== '' && !line.endsWith(' node_modules'))
      .join('\n');
  }

  /** Which parts of the environment have lines about a request that was made through the entrance, by `make logs`. */
  async followed(environment: NodeJS.ProcessEnv = {}): Promise<string[]> {
    const authority = readFileSync(join(this.directory, 'ssl/ca.pem'), 'utf8');
    // A refusal tells its id in its body.
    const { body } = await ask(`https://localhost:${this.ports.https}/api/loans/nobody`, authority);
    const { request_id: id } = JSON.parse(body) as { request_id: string };
    const { code, output } = this.make(['--silent', 'logs', `REQUEST=${id}`, 'JSON=1'], environment);
    if (code !== 0) throw new Error(output);
    const lines = output.split('\n').filter((line) => line.startsWith('{'));
    const entries = lines.map((line) => JSON.parse(line) as { component: string; request_id: string; time: string });
    expect(entries.map(({ request_id }) => request_id)).toEqual(entries.map(() => id));
    expect(entries.map(({ time }) => time)).toEqual(entries.map(({ time }) => time).sort());
    return entries.map(({ component }) => component).sort();
  }

  async loans(): Promise<number> {
    const authority = readFileSync(join(this.directory, 'ssl/ca.pem'), 'utf8');
    const { body } = await ask(`https://localhost:${this.ports.https}/api/loans`, authority);
    return (JSON.parse(body) as unknown[]).length;
  }

  remove(): void {
    this.make(['down'], { PATH: withoutPulumi });
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function expectApiKeys(clone: Clone, environment: NodeJS.ProcessEnv): void {
  const made = clone.make(['api-key', 'NAME=the desk', 'SCOPES=loans:read', 'DAYS=1'], environment);
  expect([made.code, made.output]).toEqual([0, expect.stringMatching(/^bl_development_[0-9a-z]{12}_\w{38}$/m)]);
  const [, id] = /^bl_development_([0-9a-z]{12})/m.exec(made.output)!;
  const rotated = clone.make(['api-key', `ROTATE=${id}`, 'HOURS=1'], environment);
  expect([rotated.code, rotated.output]).toEqual([0, expect.stringContaining(`It follows ${id}`)]);
  expect(clone.make(['api-key', `REVOKE=${id}`], environment)).toMatchObject({ code: 0 });
  const list = clone.make(['api-key', 'LIST=1'], environment);
  expect([list.code, list.output]).toEqual([
    0,
    expect.stringMatching(new RegExp(`^${id} +the desk +loans:read +revoked`, 'm')),
  ]);
  for (const wrong of [[], ['NAME=desk', 'SCOPES=loans:delete']]) {
    const { code, output } = clone.make(['api-key', ...wrong], environment);
    expect([code === 0, output]).toEqual([false, expect.stringContaining('make api-key NAME=desk SCOPES=')]);
  }
}

describe('make, on a machine without Pulumi', () => {
  let clone: Clone;
  const environment = { PATH: withoutPulumi };

  beforeAll(async () => {
    clone = await Clone.create();
  });
  afterAll(() => clone.remove());

  it('up brings development up without containers, and says what is missing', async () => {
    const before = clone.status();
    const { code, output } = clone.make(['up'], environment);
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(output).toContain(`https://localhost:${clone.ports.https}/health`);
    expect(output).toMatch(/Pulumi is not installed: https:/);
    expect(await clone.loans()).toBe(5);
    expect(clone.status()).toBe(before);
  });

  it('api-key makes one in the database of development, lists and revokes it, and says how', () => {
    expectApiKeys(clone, environment);
  });

  it('logs finds the line of a request', async () => {
    expect(await clone.followed(environment)).toEqual(['api']);
    expect(clone.make(['logs', 'CONTAINER=database', 'SINCE=1h'], environment).output).toContain(
      'database system is ready to accept connections',
    );
  });

  it.each([
    ['retention', ['DRY_RUN=1'], '"message":"retention done","dry_run":true'],
    ['retention', [], '"message":"retention done"'],
    ['seed', [], '"message":"seed done"'],
    ['smoke', [], 'Development answers at https://localhost:'],
    ['upkeep', ['VACUUM=1'], 'loans'],
  ])('%s %j works on it', (verb, settings, said) => {
    const { code, output } = clone.make([verb, ...settings], environment);
    expect([code, output]).toEqual([0, expect.stringContaining(said)]);
  });

  it.each([
    ...['alerts', 'silence', 'drift', 'readiness', 'canary', 'scale', 'autoscale', 'keep', 'load', 'chaos'],
    ...['maintenance', 'releases', 'rollback', 'rotate'],
  ])('%s says why it cannot work on it, and what to do', (verb) => {
    const { code, output } = clone.make([verb], environment);
    expect(code).not.toBe(0);
    expect(output).toMatch(/cannot work here: development runs without containers, where /);
    expect(output).toContain('In containers it can: make up');
  });

  it('status says what runs, down ends it, and both leave git status as it was', () => {
    const before = clone.status();
    expect(clone.make(['status'], environment)).toMatchObject({ code: 0 });
    expect(clone.make(['down'], environment)).toMatchObject({ code: 0 });
    expect(clone.make(['status'], environment).code).not.toBe(0);
    expect(clone.status()).toBe(before);
  });

  it('up STACK=staging stops with the reason and the remedy', () => {
    const { code, output } = clone.make(['up', 'STACK=staging'], environment);
    expect(code).not.toBe(0);
    expect(output).toMatch(/staging runs in containers only, nothing was changed:\n {2}- Pulumi is not installed/);
  });

  it('up names a missing engine too', () => {
    const missing = { ...environment, DOCKER_HOST: 'unix:///nonexistent/docker.sock' };
    expect(clone.make(['up', 'STACK=production'], missing).output).toMatch(
      /no Docker engine answers|docker command is not/,
    );
  });

  it('an unknown environment is refused by name', () => {
    expect(clone.make(['up', 'STACK=stagin'], environment).output).toMatch(
      /There is no environment "stagin": choose one of development, production, staging/,
    );
  });

  it('help lists every verb', () => {
    const { output } = clone.make(['help']);
    for (const verb of [
      'up',
      'down',
      'repair',
      'logs',
      'status',
      'test',
      'seed',
      'retention',
      'api-key',
      'certificate',
    ])
      expect(output).toContain(`make ${verb} `);
  });
});

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'make, on a machine with an engine and Pulumi', () => {
  let clone: Clone;

  beforeAll(async () => {
    clone = await Clone.create();
  });
  afterAll(() => {
    clone.make(['down']);
    clone.remove();
    docker(['volume', 'rm', '--force', `${clone.prefix}-postgres`]);
  });

  it('up brings the whole stack up without being asked for a passphrase, and leaves git status as it was', async () => {
    const before = clone.status();
    const { code, output } = clone.make(['up']);
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(output).toContain(`https://localhost:${clone.ports.https}/grafana/`);
    expect(output).toContain('pulumi stack output grafanaPassword --show-secrets -s development');
    expect(await clone.loans()).toBe(5);
    expect(clone.status()).toBe(before);
  });

  it('seed can be repeated', async () => {
    expect(clone.make(['seed'])).toMatchObject({ code: 0 });
    expect(await clone.loans()).toBe(5);
  });

  it('retention says what it would do, and does it', () => {
    for (const [option, dryRun] of [['DRY_RUN=1', true] as const, ['DRY_RUN=', false] as const]) {
      const { code, output } = clone.make(['retention', option]);
      expect([code, output]).toEqual([0, expect.stringContaining(`"dry_run":${dryRun},"years":7`)]);
    }
  });

  it('api-key makes one in the container, lists and revokes it, and says how', () => {
    expectApiKeys(clone, {});
  });

  it('status shows containers and how to get in', () => {
    const { code, output } = clone.make(['status']);
    expect(code).toBe(0);
    expect(output).toContain(`${clone.prefix}-gateway`);
    expect(output).toContain('grafanaPassword');
  });

  it('logs follows a request from the gateway to the API, and says what is wrong with a filter', async () => {
    expect(await clone.followed()).toEqual(['api', 'gateway']);
    expect(clone.make(['logs', 'LEVEL=loud']).output).toMatch(/LEVEL=loud is none of error, warn, info, debug/);
    expect(clone.make(['logs', 'CONTAINER=mars']).output).toMatch(
      /No container of development is called mars: .*gateway/,
    );
    const { code, output } = clone.make(['logs', 'SINCE=1h', 'CONTAINER=database']);
    expect([code, output]).toEqual([0, expect.stringContaining('database system is ready to accept connections')]);
  });

  it('upkeep vacuums all tables and shows them', () => {
    const { code, output } = clone.make(['upkeep', 'VACUUM=1']);
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(output).toMatch(/^\d+ of \d+: loans, [\d.]+ s$/m);
    expect(output).toMatch(/^development: the database branchloans_dev has /m);
    expect(output).toMatch(/^loans .* \d+ s ago +\d+ s ago$/m);
  });

  it('rotate gives the database and the API another password', async () => {
    const question = "SELECT rolpassword FROM pg_authid WHERE rolname = 'branchloans_dev'";
    const stored = () =>
      docker(['exec', `${clone.prefix}-database`, 'psql', '--tuples-only', '--no-align', '--command', question]);
    const before = stored();
    expect(before).toMatch(/^SCRAM-SHA-256/);
    const { code, output } = clone.make(['rotate', 'SECRET=databasePassword']);
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    expect(stored()).toMatch(/^SCRAM-SHA-256/);
    expect(stored()).not.toBe(before);
    expect(await clone.loans()).toBe(5);
    expect(clone.make(['rotate']).output).toMatch(/SECRET=databasePassword\|/);
  });

  it('readiness finds it as deployed, also after that, and says what production wants more', () => {
    const { code, output } = clone.make(['readiness']);
    expect(code).not.toBe(0);
    for (const line of [/^ok +deployed/m, /^ok +drift/m, /^ok +entrance/m, /^FAIL +keys .*\n +remedy: api\.keys/m]) {
      expect(output).toMatch(line);
    }
  });

  it('up for staging without a passphrase is refused before anything is touched', () => {
    const { code, output } = clone.make(['up', 'STACK=staging']);
    expect(code).not.toBe(0);
    expect(output).toMatch(/staging keeps its secrets encrypted and no key was given, nothing was changed/);
    expect(clone.status()).not.toMatch(/Pulumi\.staging/);
  });

  it('down removes the containers and keeps the database', () => {
    const before = clone.status();
    expect(clone.make(['down'])).toMatchObject({ code: 0 });
    expect(docker(['ps', '--all', '--quiet', '--filter', `name=${clone.prefix}-`])).toBe('');
    expect(docker(['volume', 'ls', '--quiet', '--filter', `name=${clone.prefix}-`]).trim()).toBe(
      `${clone.prefix}-postgres`,
    );
    expect(clone.status()).toBe(before);
  });
});
