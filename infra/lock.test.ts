import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import {
  inTurn,
  locksOf,
  type Machine,
  type Owner,
  type Place,
  placeOf,
  refusedBy,
  secondsOf,
  verdictOn,
} from './lock';

const at = '2026-11-21T11:48:16.636692638Z';
const owner = (change: Partial<Owner> = {}): Owner => ({
  pid: 7,
  username: 'ann',
  hostname: 'one',
  timestamp: at,
  ...change,
});
const machine = (startedAt: number | undefined): Machine => ({ hostname: 'one', startedAt: () => startedAt });

describe('the owner of a lock', () => {
  const made = Date.parse(at);
  it.each([
    ['lives where its process is older than the lock', made - 60_000, 'alive'],
    ['lives where both are as old as the clock can tell', made + 1_500, 'alive'],
    ['is dead where its process is gone', undefined, 'dead'],
    ['is dead where its number went to a younger process', made + 60_000, 'dead'],
    ['lives where nothing tells when its process started', NaN, 'alive'],
  ])('%s', (_name, startedAt, verdict) => {
    expect(verdictOn(owner(), machine(startedAt))).toBe(verdict);
  });

  it('of another machine is never judged', () => {
    expect(verdictOn(owner({ hostname: 'two' }), machine(undefined))).toBe('elsewhere');
  });

  it('is read from what Pulumi says when it refuses', () => {
    const message = `error: the stack is currently locked by 1 lock(s). Either wait for …
  s3://state/.pulumi/locks/organization/branchloans/staging/d0.json: created by ann@one (pid 7) at 2026-11-21T11:48:16Z`;
    expect(refusedBy(message)).toEqual({ owner: owner({ timestamp: '2026-11-21T11:48:16Z' }) });
    expect(refusedBy('error: [409] Conflict: Another update is currently in progress.')).toEqual({ owner: undefined });
    expect(refusedBy('error: update failed')).toBeUndefined();
  });
});

it('reads how long a process has run, as ps says it', () => {
  fc.assert(
    fc.property(fc.nat({ max: 400 * 86_400 }), (seconds) => {
      const two = (number: number) => String(number).padStart(2, '0');
      const [days, hours] = [Math.floor(seconds / 86_400), Math.floor(seconds / 3600) % 24];
      const short = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
      const text = days > 0 ? `${days}-${two(hours)}:${short}` : hours > 0 ? `${two(hours)}:${short}` : short;
      expect(secondsOf(text)).toBe(seconds);
    }),
  );
  expect(secondsOf('')).toBeNaN();
});

describe('a turn', () => {
  let directory: string;
  let place: Place;
  let said: jest.SpyInstance;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'branchloans-turn-'));
    place = { stack: 'staging', queue: join(directory, 'queue'), locks: [join(directory, 'locks')] };
    mkdirSync(join(directory, 'locks'));
    mkdirSync(place.queue);
    said = jest.spyOn(console, 'error').mockReturnValue();
  });
  afterEach(() => {
    said.mockRestore();
    rmSync(directory, { recursive: true });
  });

  const here = (pid: number) => owner({ pid, hostname: hostname(), timestamp: new Date().toISOString() });
  const write = (folder: string, name: string, content: Owner) =>
    writeFileSync(join(directory, folder, name), JSON.stringify(content));
  const gonePid = () => spawnSync('true').pid;

  it('comes at once where nobody is before, and leaves nothing', async () => {
    expect(await inTurn(place, 0, (turn) => turn.free())).toEqual([]);
    expect(readdirSync(place.queue)).toEqual([]);
    expect(said).not.toHaveBeenCalled();
  });

  it('waits for the lock of a living process, says whose it is, and goes on when it is free', async () => {
    const child = spawn('sleep', ['30']);
    write('locks', 'a.json', here(child.pid!));
    setTimeout(() => rmSync(join(directory, 'locks/a.json')), 700);
    expect(await inTurn(place, 30, (turn) => turn.free())).toEqual([]);
    expect(said.mock.calls).toEqual([
      [
        expect.stringMatching(
          new RegExp(`^Waiting for ann@${hostname()} \\(pid ${child.pid}\\), at work since .*WAIT=30s`),
        ),
      ],
    ]);
    child.kill();
  });

  it('waits for a lock until its process is gone, and hands it over', async () => {
    const child = spawn('sleep', ['30']);
    write('locks', 'a.json', here(child.pid!));
    setTimeout(() => child.kill('SIGKILL'), 700);
    expect(await inTurn(place, 30, (turn) => turn.free())).toEqual([expect.objectContaining({ pid: child.pid })]);
  });

  it('does not come in time: the message names who, and the remedy', async () => {
    write('locks', 'a.json', owner({ hostname: 'elsewhere.example' }));
    await expect(inTurn(place, 1, (turn) => turn.free())).rejects.toThrow(
      /staging is being changed by ann@elsewhere\.example \(pid 7\).*after 1 s.*\n.*WAIT=1h.*\n.*pulumi cancel -s staging/,
    );
    expect(readdirSync(place.queue)).toEqual([]);
  });

  it('waits for the living who came first, and clears the tickets of the dead', async () => {
    const child = spawn('sleep', ['30']);
    write('queue', '0-1.json', here(gonePid()));
    write('queue', '1-1.json', here(child.pid!));
    setTimeout(() => child.kill('SIGKILL'), 700);
    await inTurn(place, 30, async () => Promise.resolve());
    expect(said).toHaveBeenCalledTimes(1);
    expect(readdirSync(place.queue)).toEqual([]);
  });

  it('is handed on where Pulumi alone knows of locks', async () => {
    const remote = { ...place, locks: [] };
    const dead = here(gonePid());
    await inTurn(remote, 30, async (turn) => {
      expect(await turn.free()).toEqual([]);
      await turn.refused(dead);
      expect(await turn.free()).toEqual([dead]);
      expect(await turn.free()).toEqual([]);
    });
    await expect(inTurn(remote, 5, (turn) => turn.refused(undefined))).rejects.toThrow(/by another update/);
  });

  it('has its place beside the state', () => {
    writeFileSync(join(directory, 'Pulumi.yaml'), 'name: branchloans\nbackend: { url: "file://." }\n');
    const before = process.env['PULUMI_BACKEND_URL'];
    delete process.env['PULUMI_BACKEND_URL'];
    try {
      expect(placeOf(directory, 'staging')).toEqual({
        stack: 'staging',
        queue: join(directory, '.pulumi/queue/branchloans/staging'),
        locks: ['organization/branchloans/staging', 'staging'].map((path) => join(directory, '.pulumi/locks', path)),
      });
      process.env['PULUMI_BACKEND_URL'] = 'file:///srv/state?no_tmp_dir=true';
      expect(placeOf(directory, 'staging').locks[0]).toBe('/srv/state/.pulumi/locks/organization/branchloans/staging');
      process.env['PULUMI_BACKEND_URL'] = 's3://state';
      expect(placeOf(directory, 'staging')).toMatchObject({
        locks: [],
        queue: expect.stringContaining(directory) as string,
      });
    } finally {
      if (before === undefined) delete process.env['PULUMI_BACKEND_URL'];
      else process.env['PULUMI_BACKEND_URL'] = before;
    }
    expect(locksOf({ ...place, locks: [join(directory, 'absent')] })).toEqual([]);
  });
});
