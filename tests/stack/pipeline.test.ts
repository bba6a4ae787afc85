import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeUnless } from '../skip';
import { ROOT } from '../workflows/files';
import { LOGIN, noRegistry, type Registry, startRegistry } from '../workflows/registry';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { publiclyBrokenRelease, removeReleases } from './images';
import { noSshd, type Remote, startSshd } from './sshd';

jest.setTimeout(600_000);

/**
 * From the Dockerfile to what serves, with the file that workflows run, a real stack, a real registry that asks who it is, and the engine
 * at the other end of SSH.
 */
const way = noSshd() === undefined ? 'over SSH' : `on this machine alone: ${noSshd()!}`;
const missing = noRegistry() ?? reasonWithoutEngine() ?? reasonWithoutPulumi();
describeUnless(missing, `the pipeline on a real engine, ${way}`, () => {
  let registry: Registry;
  let remote: Remote | undefined;
  let environment: TestEnvironment;
  const pulled: string[] = [];

  beforeAll(async () => {
    registry = await startRegistry(false);
    if (noSshd() === undefined) remote = await startSshd();
    environment = await TestEnvironment.create('development');
    mkdirSync(join(environment.directory, '.local'));
    // The Makefile's targets without the installation of packages.
    const makefile = '%:\n\t@node --import tsx infra/main.ts $@ $(STACK) $(TO)\n';
    writeFileSync(join(environment.directory, 'Makefile'), makefile);
  });
  afterAll(async () => {
    // The state knows the engine by its address: to destroy needs the same way there.
    const before = { ...process.env };
    if (remote) Object.assign(process.env, { PATH: `${remote.bin}:${before['PATH'] ?? ''}`, ...remote.env });
    await environment.remove();
    for (const name of Object.keys(remote?.env ?? {})) Reflect.deleteProperty(process.env, name);
    Object.assign(process.env, before);
    remote?.stop();
    registry.stop();
    removeReleases();
    for (const image of pulled) spawnSync('docker', ['rmi', image]);
  });

  const login = { REGISTRY_USER: LOGIN.user, REGISTRY_TOKEN: LOGIN.token };
  const deploy = (env: Record<string, string>) => step('deploy', { ...remote?.env, ...env });

  function step(name: string, env: Record<string, string>): Promise<{ outputs: Record<string, string>; said: string }> {
    const file = join(environment.directory, '.local/outputs');
    writeFileSync(file, '');
    const child = spawn(process.execPath, [join(ROOT, '.github/pipeline.js'), name], {
      cwd: environment.directory,
      env: { ...environment.processEnvironment, GITHUB_OUTPUT: file, STACK: 'development', ...login, ...env },
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
    return new Promise((done) =>
      child.on('close', () => {
        const pairs = readFileSync(file, 'utf8').split('\n').filter(Boolean);
        done({
          outputs: Object.fromEntries(pairs.map((pair) => pair.split(/=(.*)/s).slice(0, 2) as [string, string])),
          said,
        });
      }),
    );
  }

  /** Builds and pushes a commit. */
  async function pushed(commit: string, dockerfile: string) {
    const image = `${registry.host}/me/loans-main`;
    const built = await step('image', { COMMIT: commit, DOCKERFILE: dockerfile, BUILD_NETWORK: 'host' });
    const digest = built.outputs['digest'] ?? built.said;
    const { outputs, said } = await step('publish', { IMAGE: image, TAG: commit, DIGEST: digest });
    expect(outputs['digest'] ?? said).toBe(digest);
    pulled.push(outputs['ref']!);
    return { digest, ref: outputs['ref']! };
  }
  const serving = async () => {
    const { code, output } = await environment.verb('smoke');
    return code === 0 ? 'answers' : output;
  };

  it('has one digest: layout, commit, latest, and the output of the stack after the deploy', async () => {
    const commit = '1'.repeat(40);
    const { digest, ref } = await pushed(commit, 'app/Dockerfile');
    const { outputs, said } = await deploy({ IMAGE_REF: ref, SETTINGS: `branchloans:commit=${commit}` });
    expect({ outcome: outputs['outcome'], said }).toMatchObject({ outcome: 'deployed' });
    expect(outputs).toMatchObject({ ref, previous: '' });
    expect(environment.output('image')).toMatch(new RegExp(`@${digest}$`));
    for (const tag of [commit, 'latest', 'proven']) {
      const authorization = `Basic ${Buffer.from(`${LOGIN.user}:${LOGIN.token}`).toString('base64')}`;
      const headers = { accept: 'application/vnd.oci.image.manifest.v1+json', authorization };
      const answer = await fetch(`http://${registry.host}/v2/me/loans-main/manifests/${tag}`, {
        method: 'HEAD',
        headers,
      });
      expect(answer.headers.get('docker-content-digest')).toBe(digest);
    }
    expect(await serving()).toBe('answers');
    // By the key that the step was given, and with nothing of it left.
    if (remote) expect(remote.logins()).toBeGreaterThan(0);
    const { output } = await environment.verb('releases');
    expect(output).toContain(commit.slice(0, 12));
  });

  it('shows a pull request what it would change, and changes nothing', async () => {
    const preview = async () => (await step('preview', { ...remote?.env, REGISTRY_USER: '', REGISTRY_TOKEN: '' })).said;
    const before = environment.output('image');
    expect(await preview()).toContain('### Preview of development\n```text\nNothing changes.\n```');
    const settings = readFileSync(environment.settingsFile, 'utf8');
    writeFileSync(environment.settingsFile, settings.replace(/retries: \d+/, 'retries: 0'));
    const refused = await preview();
    writeFileSync(environment.settingsFile, settings);
    expect(refused).toContain('### Preview of development: FAILED');
    expect(environment.output('image')).toBe(before);
    expect(await serving()).toBe('answers');
  });

  it('leaves the traffic where it is when the new release does not answer the public, and is red', async () => {
    const before = environment.output('image');
    const broken = publiclyBrokenRelease(
      docker(['inspect', '--format', '{{.Image}}', environment.apiContainers()[0]!]).trim(),
    );
    writeFileSync(join(environment.directory, 'Dockerfile.broken'), `FROM ${broken}\n`);
    rmSync(join(environment.directory, '.dockerignore'));
    const { ref } = await pushed('2'.repeat(40), 'Dockerfile.broken');
    const { outputs, said } = await deploy({ IMAGE_REF: ref });
    expect({ outcome: outputs['outcome'], said }).toMatchObject({ outcome: 'kept' });
    expect(outputs).toMatchObject({ ref: '', previous: before });
    expect(await serving()).toBe('answers');
  });
});
