import { execFileSync, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeUnless } from '../skip';
import { coverage, ROOT } from './files';
import { LOGIN, noRegistry, type Registry, startRegistry } from './registry';

// Programs are started; the machine may have other work.
jest.setTimeout(60_000);

/** From the Dockerfile to the registry with the file that ships, a real engine, skopeo and a real registry. */
describeUnless(noRegistry(), 'the way of an image', () => {
  let registry: Registry;
  let repository: string;
  let commits: string[];

  beforeAll(async () => {
    registry = await startRegistry();
    repository = mkdtempSync(join(tmpdir(), 'publish-test-'));
    const git = (...args: string[]) => {
      const who = ['-c', 'user.name=test', '-c', 'user.email=test@example.com'];
      return execFileSync('git', [...who, ...args], { cwd: repository, encoding: 'utf8' }).trim();
    };
    git('init', '--quiet', '--initial-branch=main');
    writeFileSync(join(repository, 'Dockerfile'), 'FROM scratch\nARG COMMIT\nCOPY file /file\nENV COMMIT=${COMMIT}\n');
    commits = ['one', 'two', 'three'].map((text) => {
      writeFileSync(join(repository, 'file'), text);
      git('add', '--all');
      git('commit', '--quiet', '--message', text);
      return git('rev-parse', 'HEAD');
    });
    // Not on the way from one to three.
    git('checkout', '--quiet', '-b', 'aside', commits[0]!);
    git('commit', '--quiet', '--allow-empty', '--message', 'aside');
    commits.push(git('rev-parse', 'HEAD'));
  });
  afterAll(() => {
    registry.stop();
    rmSync(repository, { recursive: true, force: true });
  });

  /** @returns the step's outputs, or what it said when it failed */
  function step(name: string, env: Record<string, string>): Record<string, string> & { readonly error?: string } {
    const file = join(repository, '.git', `outputs-${name}`);
    writeFileSync(file, '');
    const { status, stderr } = spawnSync(process.execPath, [join(ROOT, '.github/pipeline.js'), name], {
      cwd: repository,
      encoding: 'utf8',
      env: {
        PATH: process.env['PATH'],
        ...coverage,
        HOME: process.env['HOME'],
        GITHUB_OUTPUT: file,
        DOCKERFILE: 'Dockerfile',
        ...env,
      },
    });
    if (status !== 0) return { error: stderr };
    const pairs = readFileSync(file, 'utf8').split('\n').filter(Boolean);
    return Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s).slice(0, 2) as [string, string]));
  }
  const build = (commit: string) => {
    execFileSync('git', ['-c', 'advice.detachedHead=false', 'checkout', '--quiet', commit], { cwd: repository });
    const layout = join(repository, '.git', `layout-${commit}`);
    const { digest, error } = step('image', { COMMIT: commit, LAYOUT: layout });
    expect(error).toBeUndefined();
    return { layout, digest: digest! };
  };
  const push = (image: string, commit: string, built: { layout: string; digest: string }, more = {}) =>
    step('publish', {
      IMAGE: `${registry.host}/${image}`,
      TAG: commit,
      LAYOUT: built.layout,
      DIGEST: built.digest,
      ...more,
    });
  /** What the registry itself says, not our program. */
  const held = async (image: string, tag: string) => {
    const headers = { accept: 'application/vnd.oci.image.manifest.v1+json' };
    const answer = await fetch(`http://${registry.host}/v2/${image}/manifests/${tag}`, { method: 'HEAD', headers });
    return answer.headers.get('docker-content-digest');
  };

  it('ends with one digest: of the layout, the commit and latest', async () => {
    const built = build(commits[0]!);
    const pushed = push('me/loans-main', commits[0]!, built);
    expect(pushed).toEqual({
      ref: `${registry.host}/me/loans-main@${built.digest}`,
      digest: built.digest,
      latest: 'moved',
      attest: 'false',
    });
    expect(await held('me/loans-main', commits[0]!)).toBe(built.digest);
    expect(await held('me/loans-main', 'latest')).toBe(built.digest);
    // A job that runs again finds its work done.
    expect(push('me/loans-main', commits[0]!, built)).toEqual(pushed);
  });

  it('never overwrites the tag of a commit', async () => {
    const [one, two] = [build(commits[0]!), build(commits[1]!)];
    push('me/kept', commits[0]!, one);
    expect(push('me/kept', commits[0]!, two).error).toMatch(/never overwritten/);
    expect(await held('me/kept', commits[0]!)).toBe(one.digest);
    expect(await held('me/kept', 'latest')).toBe(one.digest);
  });

  it('moves latest forwards, never backwards or aside', async () => {
    const [one, two, three, aside] = commits.map(build);
    expect(push('me/order', commits[1]!, two!)).toMatchObject({ latest: 'moved' });
    expect(push('me/order', commits[0]!, one!)).toMatchObject({ latest: 'kept' });
    expect(push('me/order', commits[3]!, aside!)).toMatchObject({ latest: 'kept' });
    expect(await held('me/order', 'latest')).toBe(two!.digest);
    expect(push('me/order', commits[2]!, three!, { LATEST: 'never' })).toMatchObject({ latest: 'kept' });
    expect(push('me/order', commits[2]!, three!)).toMatchObject({ latest: 'moved' });
    expect(await held('me/order', 'latest')).toBe(three!.digest);
  });

  it('pushes nothing but what was scanned, whole and unchanged', async () => {
    const built = build(commits[1]!);
    const other = `sha256:${'0'.repeat(64)}`;
    expect(push('me/none', commits[1]!, built, { DIGEST: other }).error).toMatch(/nothing goes on/);
    const blobs = join(built.layout, 'blobs/sha256');
    const largest = readdirSync(blobs).sort(
      (a, b) => statSync(join(blobs, b)).size - statSync(join(blobs, a)).size,
    )[0]!;
    appendFileSync(join(blobs, largest), ' ');
    expect(push('me/none', commits[1]!, built).error).toMatch(/a file was changed/);
    expect(await held('me/none', 'latest')).toBeNull();
  });

  it('promotes by digest, under the commit that it was built from', async () => {
    const built = build(commits[2]!);
    push('me/loans-staging', commits[2]!, built);
    const env = { FROM: `${registry.host}/me/loans-staging:latest`, IMAGE: `${registry.host}/me/loans-production` };
    expect(step('promote', { ...env, DIGEST: `sha256:${'1'.repeat(64)}` }).error).toMatch(/nothing goes on/);
    expect(step('promote', env)).toMatchObject({ digest: built.digest, latest: 'moved' });
    expect(await held('me/loans-production', commits[2]!)).toBe(built.digest);
  });

  it('fetches what runs, to be scanned again', () => {
    const built = build(commits[0]!);
    const { ref } = push('me/runs', commits[0]!, built);
    const layout = join(repository, '.git/fetched');
    mkdirSync(layout);
    expect(step('fetch', { IMAGE_REF: ref!, LAYOUT: layout })).toEqual({});
  });

  describe('in a registry that asks who it is', () => {
    let closed: Registry;
    beforeAll(async () => {
      closed = await startRegistry(false);
    });
    afterAll(() => closed.stop());
    const login = { REGISTRY_USER: LOGIN.user, REGISTRY_TOKEN: LOGIN.token };

    it('pushes, moves latest, promotes and fetches with a login, and with no other', () => {
      const [one, two] = [build(commits[0]!), build(commits[1]!)];
      const image = `${closed.host}/me/closed`;
      expect(push('', commits[0]!, one, { IMAGE: image }).error).toMatch(/cannot be asked for|denied|authentication/);
      const wrong = { ...login, IMAGE: image, REGISTRY_TOKEN: 'hunter3' };
      expect(push('', commits[0]!, one, wrong).error).toMatch(/skopeo login failed/);
      expect(push('', commits[0]!, one, { ...login, IMAGE: image })).toMatchObject({ latest: 'moved' });
      const pushed = push('', commits[1]!, two, { ...login, IMAGE: image });
      expect(pushed).toMatchObject({ digest: two.digest, latest: 'moved' });
      const promotion = { ...login, FROM: `${image}:latest`, IMAGE: `${closed.host}/me/closed-production` };
      expect(step('promote', promotion)).toMatchObject({ digest: two.digest });
      const layout = join(repository, '.git/fetched-closed');
      mkdirSync(layout);
      expect(step('fetch', { IMAGE_REF: pushed['ref']!, LAYOUT: layout }).error).toMatch(/unauthorized|authentication/);
      expect(step('fetch', { ...login, IMAGE_REF: pushed['ref']!, LAYOUT: layout })).toEqual({});
    });
  });

  it('says that a registry does not answer', () => {
    const built = build(commits[0]!);
    expect(push('x', commits[0]!, built, { IMAGE: '127.0.0.1:1/x' }).error).toMatch(
      /cannot be asked for 127.0.0.1:1\/x/,
    );
  });
});
