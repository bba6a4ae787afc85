import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { coverage, ROOT } from './files';

// Programs are started; the machine may have other work.
jest.setTimeout(60_000);

/** The file that workflows run, as they run it. */
const PIPELINE = join(ROOT, '.github/pipeline.js');
let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'steps-'))));
afterEach(() => rmSync(directory, { recursive: true }));

const environment = (env: Record<string, string>) => ({
  PATH: `${directory}:${process.env['PATH'] ?? ''}`,
  GITHUB_OUTPUT: join(directory, 'outputs'),
  GITHUB_ACTIONS: 'true',
  ...coverage,
  ...env,
});
function step(name: string, env: Record<string, string>) {
  const options = { cwd: directory, encoding: 'utf8', env: environment(env) } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [PIPELINE, name], options);
  return { green: status === 0, said: stdout + stderr };
}

describe('all green', () => {
  const green = (results: Record<string, string>) => {
    const needs = Object.fromEntries(Object.entries(results).map(([job, result]) => [job, { result }]));
    return step('all-green', { NEEDS: JSON.stringify(needs), MAY_SKIP: 'preview\n' });
  };
  it('is green when every job is, or may be skipped', () => {
    expect(green({ test: 'success', preview: 'skipped' })).toMatchObject({ green: true });
  });
  it.each([
    [{ test: 'skipped' }, 'test: skipped'],
    [{ test: 'success', image: 'failure' }, 'image: failure'],
    [{ test: 'success', preview: 'cancelled' }, 'preview: cancelled'],
    [{}, 'No job was waited for'],
  ])('is red with %j', (results, words) => {
    expect(green(results)).toEqual({ green: false, said: `::error::${words}\n` });
  });
});

describe('the branches that are looked at every night', () => {
  const branches = (script: string) => {
    writeFileSync(join(directory, 'gh'), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return step('branches', { REPOSITORY: 'me/loans', GITHUB_STEP_SUMMARY: join(directory, 'summary') });
  };
  it('are those that there are, one for each environment', () => {
    const { green, said } = branches('echo "$*" > asked; printf "feature\\nmain\\nmaster\\n"');
    expect([green, readFileSync(join(directory, 'outputs'), 'utf8')]).toEqual([true, 'branches=main master\n']);
    expect(said).toBe('- development: main\n- staging: no branch staging: nobody looks at it\n- production: master\n');
    expect(readFileSync(join(directory, 'summary'), 'utf8')).toContain('nobody looks at it');
    expect(readFileSync(join(directory, 'asked'), 'utf8')).toContain('repos/me/loans/branches?per_page=100');
  });
  it.each([
    ['echo trunk', /no branch of the map/],
    ['echo "HTTP 403" >&2; exit 1', /gh api failed:.*HTTP 403/],
  ])('are none: %s, and the job is red', (script, message) => {
    const { green, said } = branches(script);
    expect([green, existsSync(join(directory, 'outputs'))]).toEqual([false, false]);
    expect(said).toMatch(message);
  });
});

describe('a version', () => {
  const release = (tag: string, files: Record<string, string> = {}) => {
    const all = {
      'package.json': '{"version": "1.2.3"}',
      'tests/workflows/interface.json': '{"version": "1.2.3"}',
      'CHANGELOG.md':
        '# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-21\n\n- All.\n\n## [1.2.2] - 2026-01-01\n',
      ...files,
    };
    mkdirSync(join(directory, 'tests/workflows'), { recursive: true });
    for (const [file, text] of Object.entries(all)) writeFileSync(join(directory, file), text);
    return step('release', { REF: `refs/tags/${tag}`, NOTES: join(directory, 'notes.md') });
  };
  it('is released under its own tag, with what the changelog says of it', () => {
    expect(release('v1.2.3')).toMatchObject({ green: true });
    expect(readFileSync(join(directory, 'notes.md'), 'utf8')).toBe('- All.');
  });
  it.each([
    ['another tag', 'v1.2.4', {}, /is not v1.2.3/],
    ['an interface of before', 'v1.2.3', { 'tests/workflows/interface.json': '{"version": "1.2.2"}' }, /make pipeline/],
    ['a changelog that says nothing', 'v1.2.3', { 'CHANGELOG.md': '## [1.2.3] - 2026-11-21\n\n' }, /has no section/],
  ])('is not released with %s', (_, tag, files, message) => {
    const { green, said } = release(tag, files);
    expect(green).toBe(false);
    expect(said).toMatch(message);
  });
});

it('a failed step leaves no outputs, and its message in one line for the runner', () => {
  expect(
    step('plan', { REF: 'refs/heads/x', COMMIT: 'a'.repeat(40), REPOSITORY: 'me/x', NAMESPACE: 'Me' }),
  ).toMatchObject({
    green: false,
    said: expect.stringMatching(/^::error::"refs\/heads\/x" deploys nowhere[^\n]*\n$/),
  });
  expect(existsSync(join(directory, 'outputs'))).toBe(false);
});

it('a token is asked for before anything is pushed', () => {
  const env = { FROM: '127.0.0.1:1/me/x:proven', IMAGE: '127.0.0.1:1/me/y', REGISTRY_USER: 'me' };
  expect(step('promote', env)).toMatchObject({
    said: expect.stringContaining('the secret DOCKER_PASSWORD is missing'),
  });
});

describe('a deploy', () => {
  const ref = `docker.io/me/loans@sha256:${'a'.repeat(64)}`;
  const env = { STACK: 'staging', IMAGE_REF: ref };
  const log = () => (existsSync(join(directory, 'log')) ? readFileSync(join(directory, 'log'), 'utf8') : '');
  beforeEach(() => {
    writeFileSync(join(directory, 'Pulumi.yaml'), 'name: loans\n');
    writeFileSync(join(directory, 'Pulumi.staging.yaml'), 'encryptionsalt: v1:x\n');
    const commands = {
      pulumi: 'if [ "$2" = output ]; then echo "{\\"image\\": \\"before\\"}"; fi',
      make: 'echo "$1 ${REGISTRY_TOKEN-}${DOCKER_HOST_KEY-}${TLS_KEY-}" >> log; sleep 20 & trap "kill $!; exit 1" TERM; wait $!',
    };
    for (const [name, text] of Object.entries(commands)) {
      writeFileSync(join(directory, name), `#!/bin/bash\n${text}\n`);
      chmodSync(join(directory, name), 0o755);
    }
  });

  it('that is stopped passes the signal on, begins nothing new and says so', async () => {
    const child = spawn(process.execPath, [PIPELINE, 'deploy'], {
      cwd: directory,
      env: environment({ ...env, TLS_KEY: 'k' }),
    });
    const ended = new Promise<number | null>((done) => child.on('close', done));
    while (!log().includes('up')) await new Promise((done) => setTimeout(done, 50));
    child.kill('SIGINT');
    expect(await ended).toBe(1);
    expect(readFileSync(join(directory, 'outputs'), 'utf8')).toContain('outcome=cancelled\n');
    // No rollback, and the program was given no key that is not for it.
    expect(log()).toBe('up \n');
  });

  it('that is only looked at is refused likewise where no engine and no state stay', () => {
    const { green, said } = step('preview', { STACK: 'staging', RUNNER_ENVIRONMENT: 'github-hosted' });
    expect(green).toBe(false);
    expect(said).toContain('thrown away after the job');
    expect(said).toContain('state would be lost');
    expect(log()).toBe('');
  });

  it('refuses a tag, and a runner whose engine and state are thrown away, before anything is touched', () => {
    expect(step('deploy', { ...env, IMAGE_REF: 'docker.io/me/loans:latest' }).said).toContain('is not name@sha256');
    const { said } = step('deploy', { ...env, RUNNER_ENVIRONMENT: 'github-hosted' });
    expect(said).toContain('thrown away after the job');
    expect(said).toContain('state would be lost');
    expect(log()).toBe('');
  });
});
