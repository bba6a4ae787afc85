import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeUnless } from '../skip';
import { type Fate, ownWorkflow, type Stage, stage } from './act';
import { ROOT } from './files';
import { missing } from './linters';
import { noRegistry, type Registry, startRegistry } from './registry';

jest.setTimeout(120_000);

const before = `docker.io/me/loans-staging@sha256:${'a'.repeat(64)}`;

describeUnless(missing('act'), 'every night, run by act', () => {
  it('each environment is looked at on a branch that there is', () => {
    const ours = stage({
      '.github/workflows/nightly.yml': ownWorkflow('nightly.yml'),
      '.github/pipeline.js': readFileSync(join(ROOT, '.github/pipeline.js'), 'utf8'),
    });
    const night = (branch: string) => ours.run({ workflow: 'nightly.yml', event: 'schedule', branch, variables: {} });
    night('master');
    const { green, output } = night('main');
    const started = ours.log().flatMap((line) => /^gh workflow run nightly.yml .*--ref (\S+)$/.exec(line)?.[1] ?? []);
    ours.remove();
    expect(green ? '' : output).toBe('');
    expect(output).toContain('staging: no branch staging');
    expect(started).toEqual(['main', 'master']);
  });
});

describeUnless(noRegistry() ?? missing('act'), 'the graph of jobs, run by act on a rewritten copy', () => {
  let registry: Registry;
  beforeAll(async () => {
    registry = await startRegistry();
  });
  afterAll(() => registry.stop());
  const tags = async (image: string) => {
    const answer = await fetch(`http://${registry.host}/v2/${image}/tags/list`);
    return answer.ok ? (((await answer.json()) as { tags: string[] | null }).tags ?? []) : [];
  };
  const held = async (image: string, tag: string) => {
    const headers = { accept: 'application/vnd.oci.image.manifest.v1+json' };
    const answer = await fetch(`http://${registry.host}/v2/${image}/manifests/${tag}`, { method: 'HEAD', headers });
    return answer.headers.get('docker-content-digest');
  };

  describe('cd of this repository', () => {
    let ours: Stage;
    beforeAll(() => {
      ours = stage({
        '.ci/run': '#!/bin/sh\necho tests >> "$STAGE/log"\n[ ! -e "$STAGE/tests-fail" ]\n',
        '.github/workflows/cd.yml': ownWorkflow('cd.yml').replace(
          'dockerfile: app/Dockerfile',
          `registry: ${registry.host}`,
        ),
        ...Object.fromEntries(
          ['promote.yml', 'rollback.yml', 'nightly.yml'].map((file) => [
            `.github/workflows/${file}`,
            ownWorkflow(file).replace(
              /( +)namespace: .*/g,
              (line, indent: string) => `${line}\n${indent}registry: ${registry.host}`,
            ),
          ]),
        ),
      });
    });
    afterAll(() => ours.remove());
    const push = (fate: Partial<Fate>) =>
      ours.run({ workflow: 'cd.yml', event: 'push', branch: 'staging', before, variables: {}, ...fate });
    const made = (stack = 'staging') =>
      ours.log().flatMap((line) => new RegExp(`^make (\\w+) STACK=${stack}`).exec(line)?.[1] ?? []);
    const touched = () => ours.log().filter((line) => /^(make|cosign|set)/.test(line));

    it('deploys what it built, scanned and pushed, and marks it as proven', async () => {
      const { green, output } = push({});
      expect(green ? '' : output).toBe('');
      const log = ours.log();
      const [, ref] = /^set branchloans:image (.*)$/m.exec(log.join('\n')) ?? [];
      expect(ref).toMatch(new RegExp(`^${registry.host}/me/loans-staging@sha256:[0-9a-f]{64}$`));
      expect(log).toEqual(expect.arrayContaining(['tests', `cosign sign --yes ${ref!}`, 'uses actions/attest']));
      expect(made()).toEqual(['up', 'smoke']);
      const verified = log.findIndex(
        (line) => line.startsWith('cosign verify') && line.includes(' --certificate-identity '),
      );
      expect(log[verified]).toContain(
        ' --certificate-identity https://github.com/me/loans/.github/workflows/image.yml@refs/heads/staging ' +
          `--certificate-github-workflow-repository me/loans ${ref!}`,
      );
      expect(verified).toBeLessThan(log.indexOf('make up STACK=staging'));
      const digest = ref!.split('@')[1]!;
      for (const tag of ['latest', 'proven']) expect(await held('me/loans-staging', tag)).toBe(digest);
    });

    it('deploys nothing that was not signed by its own workflow', () => {
      expect(push({ unsigned: true }).green).toBe(false);
      expect(made()).toEqual([]);
    });

    it('deploys nothing when a later run was faster, and is green', () => {
      const { green, output } = push({ overtaken: true });
      expect(green ? '' : output).toBe('');
      expect(output).toContain('### staging: superseded');
      expect(made()).toEqual([]);
    });

    const byHand = (workflow: string, branch: string, running = before) =>
      ours.run({ workflow, event: 'workflow_dispatch', branch, before: running, variables: {} });

    it('promotes what is proven in staging: the same digest, without a build', async () => {
      const proven = await held('me/loans-staging', 'proven');
      const { green, output } = byHand('promote.yml', 'production');
      expect(green ? '' : output).toBe('');
      expect(ours.log()).toContain(`set branchloans:image ${registry.host}/me/loans-production@${proven!}`);
      expect(made('production')).toEqual(['up', 'smoke']);
      const identities = ours.log().flatMap((line) => /identity https:\S+workflows\/(\S+)/.exec(line)?.[1] ?? []);
      expect(identities).toEqual(['image.yml@refs/heads/staging', 'promote.yml@refs/heads/production']);
      expect(output).not.toContain('Built sha256');
      expect(byHand('promote.yml', 'development').output).not.toContain('Pushed');
    });

    it('goes back by hand, on the branch of the environment', () => {
      const { green, output } = byHand('rollback.yml', 'staging');
      expect(green ? '' : output).toBe('');
      expect(made()).toEqual(['rollback', 'smoke']);
      expect(byHand('rollback.yml', 'feature').green).toBe(false);
      expect(touched()).toEqual([]);
    });

    it('looks every night at what runs: does it answer, did it drift, is there news about it', async () => {
      const digest = await held('me/loans-staging', 'proven');
      const { green, output } = byHand('nightly.yml', 'staging', `${registry.host}/me/loans-staging@${digest!}`);
      expect(green ? '' : output).toBe('');
      expect(made()).toEqual(['smoke', 'drift']);
      expect(output).toContain(`Scan of ${digest!}`);
    });

    it('pushes and deploys nothing when the gate finds something', async () => {
      const { green, output } = push({ branch: 'master', secret: true });
      expect(green).toBe(false);
      expect(output).toContain('**CRITICAL** secret private-key in `/key`');
      expect(await tags('me/loans-master')).toEqual([]);
      expect(touched()).toEqual([]);
    });

    it('builds and deploys nothing when the tests fail', () => {
      expect(push({ tests: false }).green).toBe(false);
      expect(touched()).toEqual([]);
    });

    it('takes a release back that does not answer, and is red', () => {
      const { green, output } = push({ smoke: [false, true] });
      expect(green).toBe(false);
      expect(output).toContain('### staging: rolled-back');
      expect(made()).toEqual(['up', 'smoke', 'rollback', 'smoke']);
    });

    it('leaves the old release when the deploy fails, and is red', () => {
      const { green, output } = push({ up: false });
      expect(green).toBe(false);
      expect(output).toContain('### staging: kept');
      expect(made()).toEqual(['up', 'smoke']);
    });

    it('says so when a first deploy fails: there is nothing to go back to', () => {
      const { green, output } = push({ smoke: [false], before: undefined });
      expect(green).toBe(false);
      expect(output).toContain('there is no release to go back to');
      expect(made()).toEqual(['up', 'smoke']);
    });

    it('asks for a person when the way back fails', () => {
      const { green, output } = push({ smoke: [false], rollback: false });
      expect(green).toBe(false);
      expect(output).toContain('act now');
    });

    it('maps main to development', () => {
      expect(push({ branch: 'main' }).green).toBe(true);
      expect(made('development')).toEqual(['up', 'smoke']);
    });
  });

  it('a second repository calls the library by reference, for an image and a deploy of its own', async () => {
    const theirs = stage({
      '.github/workflows/cd.yml': `name: cd
on: { push: { branches: [production] } }
permissions: {}
jobs:
  image:
    permissions: { contents: read, id-token: write, attestations: write }
    uses: library/branchloans/.github/workflows/image.yml@v1
    with:
      ref: \${{ github.ref }}
      commit: \${{ github.sha }}
      namespace: them
      registry: ${registry.host}
      push: true
      sign: false
    secrets:
      DOCKER_PASSWORD: \${{ secrets.DOCKER_PASSWORD }}
  deploy:
    needs: image
    runs-on: ubuntu-24.04
    environment: production
    permissions: { contents: read }
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with: { persist-credentials: false }
      - uses: library/branchloans/.github/actions/deploy@v1
        with:
          ref: \${{ needs.image.outputs.ref }}
          stack: production
          passphrase: \${{ secrets.PULUMI_CONFIG_PASSPHRASE }}
`,
    });
    const { green, output } = theirs.run({ workflow: 'cd.yml', event: 'push', branch: 'production', variables: {} });
    const log = theirs.log();
    theirs.remove();
    expect(green ? '' : output).toBe('');
    expect(log).toEqual(expect.arrayContaining(['make up STACK=production', 'make smoke STACK=production']));
    expect(log.filter((line) => line.startsWith('cosign'))).toEqual([]);
    expect(await tags('them/loans-production')).toContain('latest');
  });

  it('a second repository has its scripts checked by the library, and a placeholder is none', () => {
    const scripts = { lint: 'node --check main.js', types: 'node --check main.js', test: 'node main.js' };
    const theirs = stage({
      'main.js': 'require("fs").appendFileSync(process.env.STAGE + "/log", "ran\\n");\n',
      'package.json': JSON.stringify({ name: 'theirs', version: '1.0.0', scripts }),
      'package-lock.json': '{"name": "theirs", "version": "1.0.0", "lockfileVersion": 3, "packages": {}}',
      '.github/workflows/ci.yml': `name: ci
on: { push: { branches: [main] } }
permissions: {}
jobs:
  check:
    permissions: { contents: read }
    uses: library/branchloans/.github/workflows/node.yml@v1
`,
    });
    const push = () => theirs.run({ workflow: 'ci.yml', event: 'push', branch: 'main', variables: {} });
    const { green, output } = push();
    const log = theirs.log();
    const empty = JSON.stringify({ name: 'theirs', version: '1.0.0', scripts: { ...scripts, test: 'echo tests' } });
    writeFileSync(join(theirs.directory, 'package.json'), empty);
    const placeholder = push();
    theirs.remove();
    expect(green ? '' : output).toBe('');
    expect(log).toContain('ran');
    expect(placeholder.green).toBe(false);
    expect(placeholder.output).toContain('the script "test" is a placeholder');
  });
});
