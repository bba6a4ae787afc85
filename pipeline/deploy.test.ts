import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { type Commands, commandsOf, deploy, deployFaults, engineOfStack, storeKeysOf, withAccess } from './deploy';
import type { History } from './history';
import type { Run } from './run';

const before = { image: `me/loans@sha256:${'a'.repeat(64)}`, release: 'aaaaaaaaaaaa', commit: 'd'.repeat(40) };

function commands(
  fate: {
    up: boolean;
    smoke: readonly boolean[];
    rollback?: boolean;
    cancelAfter?: string;
    overtaken?: boolean;
  },
  previous: typeof before | undefined = before,
) {
  const done: string[] = [];
  const smokes = [...fate.smoke];
  const note = (name: string) => done.push(name);
  const all: Commands = {
    current: () => Promise.resolve(previous),
    overtakenBy: () => Promise.resolve(fate.overtaken ?? false),
    up: () => (note('up'), Promise.resolve(fate.up)),
    smoke: () => (note('smoke'), Promise.resolve(smokes.shift() ?? false)),
    rollback: ({ release }) => (note(`rollback ${release}`), Promise.resolve(fate.rollback ?? true)),
    cancelled: () => done.at(-1) === fate.cancelAfter,
  };
  return { all, done };
}

it.each([
  ['all well', { up: true, smoke: [true] }, 'deployed', ['up', 'smoke']],
  ['up fails, the old one answers', { up: false, smoke: [true] }, 'kept', ['up', 'smoke']],
  ['smoke fails', { up: true, smoke: [false, true] }, 'rolled-back', ['up', 'smoke', 'rollback aaaaaaaaaaaa', 'smoke']],
  [
    'up fails half-way',
    { up: false, smoke: [false, true] },
    'rolled-back',
    ['up', 'smoke', 'rollback aaaaaaaaaaaa', 'smoke'],
  ],
  ['rollback fails', { up: true, smoke: [false], rollback: false }, 'failed', ['up', 'smoke', 'rollback aaaaaaaaaaaa']],
  ['nothing answers', { up: true, smoke: [false, false] }, 'failed', ['up', 'smoke', 'rollback aaaaaaaaaaaa', 'smoke']],
  ['a later run was faster', { up: true, smoke: [true], overtaken: true }, 'superseded', []],
  ['cancelled in up', { up: false, smoke: [], cancelAfter: 'up' }, 'cancelled', ['up']],
  ['cancelled in smoke', { up: true, smoke: [false], cancelAfter: 'smoke' }, 'cancelled', ['up', 'smoke']],
] as const)('%s', async (_, fate, outcome, steps) => {
  const { all, done } = commands(fate);
  expect(await deploy(all)).toMatchObject({ outcome, previous: before });
  expect(done).toEqual(steps);
});

it.each([
  [{ up: false, smoke: [] }, ['up']],
  [{ up: true, smoke: [false] }, ['up', 'smoke']],
])('a first deploy that fails says so, and pretends no way back', async (fate, steps) => {
  const { all, done } = commands(fate, undefined);
  // The default argument would stand for undefined.
  const first = { ...all, current: () => Promise.resolve(undefined) };
  const { outcome, words } = await deploy(first);
  expect(outcome).toBe('failed');
  expect(words).toMatch(/no release to go back to/);
  expect(done).toEqual(steps);
});

it('is green only when the new release answers, and has gone back only when something answers', async () => {
  const fate = fc.record({
    up: fc.boolean(),
    smoke: fc.tuple(fc.boolean(), fc.boolean()),
    rollback: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(fate, async (drawn) => {
      const { all, done } = commands(drawn);
      const { outcome } = await deploy(all);
      expect(outcome === 'deployed').toBe(drawn.up && drawn.smoke[0]);
      if (outcome === 'rolled-back') expect(drawn.rollback && drawn.smoke[1]).toBe(true);
      expect(done.filter((step) => step.startsWith('rollback')).length).toBeLessThanOrEqual(1);
    }),
  );
});

describe('keys of the store that has the state', () => {
  it('are lines of names and values', () => {
    const text = '\nAWS_ACCESS_KEY_ID=AKIA\n AWS_SECRET_ACCESS_KEY=a=b/c+d \n';
    expect(storeKeysOf(text)).toEqual({ AWS_ACCESS_KEY_ID: 'AKIA', AWS_SECRET_ACCESS_KEY: 'a=b/c+d' });
    expect(storeKeysOf('')).toEqual({});
  });
  it.each(['PATH=/tmp/hunter2', 'NODE_OPTIONS=--require=hunter2', 'hunter2', 'AWS_SESSION_TOKEN='])(
    'are nothing else: %s',
    (line) => {
      expect(() => storeKeysOf(`AWS_REGION=x\n${line}`)).toThrow(
        /^PULUMI_BACKEND_KEYS, line 2: must be NAME=value(?!.*hunter2)/,
      );
    },
  );
});

describe('in a program', () => {
  let directory: string;
  const ref = `docker.io/me/loans-staging@sha256:${'b'.repeat(64)}`;
  const write = (name: string, text: string) => writeFileSync(join(directory, name), text);
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'deploy-test-'));
    write('Pulumi.yaml', 'name: loans\nbackend: { url: "file://." }\n');
    write('Pulumi.staging.yaml', 'encryptionsalt: v1:x\nconfig: {}\n');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const target = () => ({ directory, stack: 'staging', ref, settings: ['loans:commit=c0ffee'] });
  const cloud = { PULUMI_BACKEND_URL: 's3://state' };
  const ssh = { DOCKER_HOST: 'ssh://me@host', DOCKER_HOST_KEY: 'k', DOCKER_HOST_KNOWN_HOSTS: 'host ssh-ed25519 A' };

  it('nothing is wrong on a runner of our own, or with a remote engine and a kept state', () => {
    expect(deployFaults(target(), { hosted: false, env: {} })).toEqual([]);
    expect(deployFaults(target(), { hosted: true, env: { ...cloud, ...ssh } })).toEqual([]);
  });

  it.each([
    ['a tag', { ref: 'docker.io/me/loans:latest' }, {}, /is not name@sha256/],
    ['an unknown stack', { stack: 'prod' }, {}, /there is no .*Pulumi.prod.yaml/],
    ['a stack that is a path', { stack: '../x' }, {}, /there is no/],
    ['no engine that stays', {}, { DOCKER_HOST: '' }, /thrown away after the job/],
    ['no state that stays', {}, { PULUMI_BACKEND_URL: '' }, /state would be lost/],
    ['no key', {}, { DOCKER_HOST_KEY: '' }, /DOCKER_HOST_KEY/],
    ['no known host', {}, { DOCKER_HOST_KNOWN_HOSTS: '' }, /DOCKER_HOST_KNOWN_HOSTS/],
  ])('%s is told before anything is touched', (_, more, env, message) => {
    const faults = deployFaults({ ...target(), ...more }, { hosted: true, env: { ...cloud, ...ssh, ...env } });
    expect(faults).toEqual([expect.stringMatching(message)]);
  });

  it('a stack without its salt would be made anew', () => {
    write('Pulumi.staging.yaml', 'config: {}\n');
    expect(deployFaults(target(), { hosted: false, env: {} })).toEqual([expect.stringMatching(/no encryptionsalt/)]);
  });

  it('the engine is the one that the stack names, and else that of the environment', () => {
    expect(engineOfStack(directory, 'staging', {})).toBeUndefined();
    expect(engineOfStack(directory, 'staging', { DOCKER_HOST: 'ssh://me@host' })).toBe('ssh://me@host');
    write('Pulumi.staging.yaml', 'encryptionsalt: v1:x\nconfig: { "docker:host": "ssh://own" }\n');
    expect(engineOfStack(directory, 'staging', { DOCKER_HOST: 'ssh://me@host' })).toBe('ssh://own');
    const env = { ...cloud, DOCKER_HOST: 'tcp://other' };
    expect(deployFaults(target(), { hosted: true, env })).toEqual([
      expect.stringContaining('DOCKER_HOST_KEY'),
      expect.stringContaining('DOCKER_HOST_KNOWN_HOSTS'),
    ]);
  });

  it('is pulled by that engine, with a login that is gone before anything of the repository starts', async () => {
    const asked: [command: string, engine: string | undefined, there: boolean][] = [];
    const logins: string[] = [];
    const run: Run = (_, [command = ''], { env } = {}) => {
      const login = env?.['DOCKER_CONFIG'] ?? '';
      logins.push(login);
      asked.push([command, env?.['DOCKER_HOST'], existsSync(login)]);
      return Promise.resolve({ code: 0, stdout: '', stderr: '' });
    };
    const given = process.env['DOCKER_CONFIG'];
    const credentials = { ref, user: 'me', token: 't', engine: 'ssh://own' };
    await withAccess({}, credentials, run, () => {
      expect(process.env['DOCKER_CONFIG']).toBe(given);
      expect(logins.map((login) => existsSync(login))).toEqual([false, false]);
      return Promise.resolve();
    });
    expect(asked).toEqual([
      ['login', 'ssh://own', true],
      ['pull', 'ssh://own', true],
    ]);
  });

  function recorded(image: string, release: object = { id: 'abc123' }) {
    const calls: string[] = [];
    const run: Run = (command, args) => {
      calls.push([command, ...args].join(' '));
      const stdout = args.includes('output') ? JSON.stringify({ image, release }) : '';
      return Promise.resolve({ code: 0, stdout, stderr: '' });
    };
    return { calls, run };
  }

  it('the image is set by digest, brought up, and compared with what the program says', async () => {
    const { calls, run } = recorded(`me/loans-staging@sha256:${'b'.repeat(64)}`);
    const program = commandsOf(target(), run, () => false);
    expect(await program.up()).toBe(true);
    expect(await program.smoke()).toBe(true);
    expect(calls).toEqual([
      `pulumi config set --stack staging loans:image ${ref}`,
      'pulumi config set --stack staging loans:commit c0ffee',
      'make up STACK=staging',
      'pulumi stack output --json --stack staging',
      'make smoke STACK=staging',
    ]);
    expect(await program.current()).toEqual({
      image: `me/loans-staging@sha256:${'b'.repeat(64)}`,
      release: 'abc123',
      commit: undefined,
    });
    await program.rollback({ release: 'abc123' });
    expect(calls.at(-1)).toBe('make rollback STACK=staging TO=abc123');
  });

  describe('a preview', () => {
    const preview = (answers: Record<string, { code: number; stdout?: string; stderr?: string }>) => {
      const calls: string[] = [];
      const run: Run = (command, args) => {
        calls.push([command, ...args].join(' '));
        return Promise.resolve({ code: 0, stdout: '', stderr: '', ...answers[args[0]!] });
      };
      const program = commandsOf({ ...target(), ref: undefined, settings: [] }, run, () => false);
      return { calls, ended: program.preview() };
    };
    const outputs = (release: object) => ({ code: 0, stdout: JSON.stringify({ image: before.image, release }) });

    it('says what the program would change with the release that runs, and changes nothing', async () => {
      const answers = {
        stack: outputs({ id: 'abc123', commit: before.commit }),
        preview: { code: 0, stdout: '1 changes\n' },
      };
      const { calls, ended } = preview(answers);
      expect(await ended).toEqual({ done: true, words: '1 changes' });
      expect(calls).toEqual([
        'pulumi stack output --json --stack staging',
        `pulumi config set --stack staging loans:image docker.io/${before.image}`,
        `pulumi config set --stack staging loans:commit ${before.commit}`,
        'make preview STACK=staging --silent',
      ]);
    });

    it('fails with the words of a program that cannot be deployed', async () => {
      const { ended } = preview({ stack: outputs({}), preview: { code: 2, stderr: 'api.replicas: must be' } });
      expect(await ended).toEqual({ done: false, words: 'api.replicas: must be' });
    });

    it('is none where the state has no such stack or cannot be read', async () => {
      const { calls, ended } = preview({ stack: { code: 255, stderr: "error: no stack named 'staging' found" } });
      await expect(ended).rejects.toThrow(/^staging cannot be previewed: .*\nerror: no stack named 'staging' found$/);
      expect(calls).toHaveLength(1);
    });

    it('of a stack that was never up is of all of it', async () => {
      const { calls, ended } = preview({ stack: { code: 0, stdout: '{}' } });
      expect((await ended).done).toBe(true);
      expect(calls.filter((call) => call.includes('config set'))).toEqual([]);
    });
  });

  describe('which of two commits is newer', () => {
    const [older, newer] = ['1'.repeat(40), '2'.repeat(40)];
    const history: History = (base, head) =>
      Promise.resolve(base === head ? 'identical' : base < head ? 'ahead' : 'behind');
    const asked = async (running: string, settings: string[], labels: Record<string, string> = {}) => {
      const { run, calls } = recorded(before.image, { id: 'abc123', commit: running });
      const revisionOf = (image: string) => Promise.resolve(labels[image]);
      const { outcome } = await deploy(commandsOf({ ...target(), settings }, run, () => false, history, revisionOf));
      return { superseded: outcome === 'superseded', touched: calls.some((call) => /^make|config set/.test(call)) };
    };
    it.each([
      ['the older one of two settings', newer, [`loans:commit=${older}`], {}, true],
      ['the newer one', older, [`loans:commit=${newer}`], {}, false],
      ['the same one again', older, [`loans:commit=${older}`], {}, false],
      ['an image that says it is older', newer, [], { [ref]: older }, true],
      ['both by their images', '', [], { [ref]: older, [before.image]: newer }, true],
      ['nobody knows what runs', '', [`loans:commit=${older}`], {}, false],
      ['nobody knows what is asked for', newer, ['loans:commit=main'], {}, false],
    ])('%s', async (_, running, settings, labels, superseded) => {
      jest.spyOn(console, 'error').mockImplementation();
      const said = jest.spyOn(console, 'log').mockImplementation();
      expect(await asked(running, settings, labels)).toEqual({ superseded, touched: !superseded });
      expect(said.mock.calls.flat().filter((line) => String(line).startsWith('Nobody can say'))).toHaveLength(
        _.startsWith('nobody knows') ? 1 : 0,
      );
      jest.restoreAllMocks();
    });
    it('a registry that cannot be asked stops the deploy before anything is touched', async () => {
      const { run, calls } = recorded(before.image);
      const revisionOf = () => Promise.reject(new Error('timeout'));
      const program = commandsOf(target(), run, () => false, history, revisionOf);
      await expect(deploy(program)).rejects.toThrow('timeout');
      expect(calls.filter((call) => /^make|config set/.test(call))).toEqual([]);
    });
  });

  it('another digest in the end is no success, and is taken back', async () => {
    jest.spyOn(console, 'error').mockImplementation();
    const { calls, run } = recorded(`me/loans-staging@sha256:${'c'.repeat(64)}`);
    expect(await deploy(commandsOf(target(), run, () => false))).toMatchObject({ outcome: 'rolled-back' });
    expect(calls.filter((call) => call.startsWith('make'))).toEqual([
      'make up STACK=staging',
      'make rollback STACK=staging TO=abc123',
      'make smoke STACK=staging',
    ]);
    jest.restoreAllMocks();
  });
});
