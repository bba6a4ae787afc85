import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EXPERIMENTS } from '../../infra/chaos/experiments';
import type { Result } from '../../infra/chaos/report';
import images from '../../infra/images.json';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, type Running, TestEnvironment } from './environment';

/**
 * Every experiment of `make chaos` upon a real stack with two API containers, and that no fault outlives the run that made
 * it. `EXPERIMENT=api-kill,…` runs some of them; `KEEP_REPORT=directory` keeps the report.
 */

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();
const WANTED = (process.env['EXPERIMENT'] ?? EXPERIMENTS.map(({ name }) => name).join()).split(',');
/** The machine of the tests may be slow, and so may be what is measured on it. */
const STEADY = ['--p95', process.env['P95'] ?? '2s'];

jest.setTimeout(1_200_000);

describeUnless(reason, 'chaos and load on a real engine', () => {
  let environment: TestEnvironment;
  let disk: Disk | undefined;

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), cpus: 1, drain: '1s' };
    });
    disk = mountDisk(join(environment.directory, 'disk'));
    if (disk !== undefined) {
      environment.configure((settings) => {
        const database = settings['branchloans:database'] as object;
        settings['branchloans:database'] = { ...database, volume: disk?.directory };
      });
    }
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  });
  afterAll(async () => {
    await environment.destroy();
    disk?.unmount();
    await environment.remove();
  });

  const database = () => `${environment.prefix}-database`;
  const status = (container: string) => docker(['inspect', '--format', '{{.State.Status}}', container]).trim();
  const left = () =>
    docker(['ps', '--all', '--format', '{{.Names}}'])
      .split('\n')
      .filter((name) => name.startsWith(`${environment.prefix}-chaos`));
  const until = async (what: string, holds: () => boolean, seconds = 60) => {
    const deadline = Date.now() + seconds * 1_000;
    while (!holds()) {
      if (Date.now() > deadline) throw new Error(`${what}: not within ${seconds} s`);
      await sleep(200);
    }
  };
  const report = (name: string): string => {
    const reports = join(environment.directory, '.local/reports');
    return join(
      reports,
      readdirSync(reports)
        .filter((each) => each.startsWith(name))
        .sort()
        .at(-1)!,
    );
  };
  const validKeys = async () =>
    (await environment.verb('api-key', ['list'])).output.split('\n').filter((line) => / valid /.test(line));
  const freeze = (): Running => environment.startVerb('chaos', ['--experiment', 'database-frozen', ...STEADY]);

  it('bears them all, loses no acknowledged write, and leaves nothing behind', async () => {
    const { code, output } = await environment.verb('chaos', ['--experiment', WANTED.join(), ...STEADY]);
    const keep = process.env['KEEP_REPORT'];
    const directory = report('chaos-');
    if (keep !== undefined) cpSync(directory, keep, { recursive: true });
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    const { results } = JSON.parse(readFileSync(join(directory, 'report.json'), 'utf8')) as { results: Result[] };
    expect(results.map(({ name }) => name)).toEqual(
      EXPERIMENTS.map(({ name }) => name).filter((name) => WANTED.includes(name)),
    );
    for (const result of results) {
      if ('impossible' in result) {
        // What this engine and this kernel cannot do is known beforehand.
        expect(impossibleHere(disk)).toContain(result.name);
        continue;
      }
      expect({ name: result.name, lost: result.lost, faults: result.faults }).toEqual({
        name: result.name,
        lost: 0,
        faults: [],
      });
      expect(result.acknowledged).toBeGreaterThan(30);
      const page = readFileSync(join(directory, 'index.html'), 'utf8');
      expect(page).toContain(result.title.replaceAll("'", '&#39;'));
      expect(readFileSync(join(directory, `${result.name}.svg`), 'utf8')).toContain('>fault</text>');
    }
    expect(left()).toEqual([]);
    expect(await environment.changes()).toBe('');
    expect(environment.sql("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'branchloans_staging'").trim()).toBe(
      '-1',
    );
  });

  it('told to end: takes the fault back first', async () => {
    const run = freeze();
    await until('paused', () => status(database()) === 'paused');
    const { code, output } = await run.stop();
    expect([code, output]).toEqual([1, expect.stringContaining('Told to end')]);
    expect([status(database()), left()]).toEqual(['running', []]);
  });

  it('killed: the guard takes the fault back', async () => {
    const run = freeze();
    await until('paused', () => status(database()) === 'paused');
    run.kill();
    await until('taken back', () => status(database()) === 'running' && left().length === 0);
    await run.ended;
  });

  it('killed with its guard, as a machine that goes away: the next run takes the fault back', async () => {
    const run = freeze();
    await until('paused', () => status(database()) === 'paused');
    // In this order: the guard would see the end of the other.
    endGuard(environment.directory);
    run.kill();
    await run.ended;
    await sleep(2_000);
    expect([status(database()), left()]).toEqual(['paused', [`${environment.prefix}-chaos`]]);
    const { code, output } = await environment.verb('chaos', ['--undo']);
    expect([code, output]).toEqual([0, expect.stringContaining('the fault of database-frozen')]);
    expect([status(database()), left()]).toEqual(['running', []]);
  });

  it('begins nothing while a deploy is under way', async () => {
    const locks = join(environment.directory, '.pulumi/locks/organization/branchloans/staging');
    mkdirSync(locks, { recursive: true });
    const lock = join(locks, '00000000-0000-0000-0000-000000000000.json');
    const owner = { pid: process.pid, username: 'somebody', hostname: hostname(), timestamp: new Date().toISOString() };
    writeFileSync(lock, JSON.stringify(owner));
    const { code, output } = await environment.verb('chaos', ['--experiment', 'database-frozen']);
    rmSync(lock);
    expect([code, output]).toEqual([
      1,
      expect.stringMatching(/staging is being changed by somebody@.*Nothing was changed/s),
    ]);
    expect(left()).toEqual([]);
  });

  it('make load: a report with figures of every second, and its loans can be told apart', async () => {
    // Keys of runs that were killed above end by themselves, in a day.
    const before = await validKeys();
    const { code, output } = await environment.verb('load', ['--rate', '20', '--duration', '6s']);
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    const directory = report('load-');
    const { name, total, timeline } = JSON.parse(readFileSync(join(directory, 'report.json'), 'utf8')) as {
      name: string;
      total: { requests: number; acknowledged: number };
      timeline: { requests: number }[];
    };
    expect(total.requests).toBeGreaterThan(80);
    expect(timeline.length).toBeGreaterThanOrEqual(5);
    expect(environment.sql(`SELECT count(*) FROM loans WHERE borrower_id LIKE '${name}-%'`).trim()).toBe(
      String(total.acknowledged),
    );
    expect(readFileSync(join(directory, 'index.html'), 'utf8')).toContain(`${name}-`);
    // Its key is revoked.
    expect(await validKeys()).toEqual(before);
  });

  it('make load RAMP=1: tries rates, and says what a container bears', async () => {
    const { code, output } = await environment.verb('load', [
      '--ramp',
      '--rate',
      '10',
      '--most',
      '12',
      '--duration',
      '3s',
    ]);
    // On a machine with other work even that may be too much; then it says so.
    expect(output).toMatch(
      code === 0 ? /^Capacity: \d+(\.\d)? requests per second per API container \(2 ran\)/m : /No rate was borne/,
    );
    expect(output).toMatch(/ 10\/s: /);
  });
});

/** What cannot be done where the tests run, whatever the reason that is given. */
function impossibleHere(disk: Disk | undefined): string[] {
  const tools = spawnSync('docker', ['image', 'inspect', images.netshoot]).status === 0;
  return [
    ...(disk === undefined ? ['database-disk-full'] : []),
    ...(tools ? [] : ['database-loss', 'database-black-hole']),
  ];
}

function endGuard(directory: string): void {
  const { stdout } = spawnSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' });
  const found = stdout.split('\n').filter((line) => line.includes(join(directory, 'infra/chaos/guard.ts')));
  expect(found.length).toBeGreaterThan(0);
  for (const line of found) process.kill(Number.parseInt(line, 10), 'SIGKILL');
}

interface Disk {
  readonly directory: string;
  unmount(): void;
}

/** A small file system of its own for the database's files; undefined where this user may mount none. */
function mountDisk(directory: string): Disk | undefined {
  mkdirSync(directory);
  const file = `${directory}.img`;
  const does = (command: string, ...args: string[]) => spawnSync(command, args, { stdio: 'ignore' }).status === 0;
  const mounted =
    does('truncate', '--size', '600M', file) &&
    does('mkfs.ext4', '-q', '-F', file) &&
    does('mount', '-o', 'loop', file, directory);
  return mounted ? { directory, unmount: () => void spawnSync('umount', [directory]) } : undefined;
}
