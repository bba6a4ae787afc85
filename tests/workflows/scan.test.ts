import { execFileSync, spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describeUnless } from '../skip';
import { ROOT } from './files';
import { missing, toolEnvironment } from './linters';
import { noRegistry } from './registry';

jest.setTimeout(120_000);

const lacking = missing('trivy') ?? missing('go') ?? noRegistry();

/** Made before the tests are named: where its modules cannot be had, they are skipped with the reason. */
const advisories = mkdtempSync(join(tmpdir(), 'advisories-'));
afterAll(() => rmSync(advisories, { recursive: true }));

function noAdvisories(): string | undefined {
  if (lacking !== undefined) return lacking;
  const options = {
    cwd: join(__dirname, 'database'),
    env: toolEnvironment,
    encoding: 'utf8',
    timeout: 300_000,
  } as const;
  const { status, error, stderr } = spawnSync('go', ['run', '.', advisories], options);
  if (status === 0) return undefined;
  return `go run . in tests/workflows/database: ${error?.message ?? stderr.trim().split('\n').at(-1) ?? ''}`;
}

/**
 * The gate with the real Trivy. Its vulnerability database is not to be had on every machine: vulnerabilities are found with a small one of
 * recorded advisories (tests/workflows/database), all else without any.
 */
describeUnless(lacking, 'the gate with the real Trivy', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'scan-'));
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const files = {
      good: 'nothing\n',
      key: privateKey.export({ type: 'pkcs1', format: 'pem' }).toString(),
      Dockerfile: 'FROM scratch\nCOPY good /good\nUSER 10001\nHEALTHCHECK CMD ["/good"]\n',
    };
    for (const [file, text] of Object.entries(files)) writeFileSync(join(directory, file), text);
    execFileSync('git', ['init', '--quiet'], { cwd: directory });
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const step = (name: string, env: Record<string, string> = {}) => {
    const layout = {
      LAYOUT: join(directory, '.local/image'),
      COMMIT: '3'.repeat(40),
      DOCKERFILE: 'Dockerfile',
      OFFLINE: '1',
    };
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, '.github/pipeline.js'), name], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...toolEnvironment, GITHUB_OUTPUT: join(directory, '.git/outputs'), ...layout, ...env },
    });
    return { green: status === 0, said: `${stdout}${stderr}` };
  };
  const built = (dockerfile: string, files: Record<string, string> = {}) => {
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(dirname(join(directory, file)), { recursive: true });
      writeFileSync(join(directory, file), text);
    }
    writeFileSync(join(directory, 'Dockerfile'), dockerfile);
    expect(step('image')).toMatchObject({ green: true });
    // Of the sources, only what the image is built from.
    rmSync(join(directory, 'key'));
  };
  const clean = 'FROM scratch\nCOPY good /good\nUSER 10001\nHEALTHCHECK CMD ["/good"]\n';

  it('lets a clean image pass, says what was not looked for, and lists what is in it', () => {
    built(clean);
    expect(step('scan')).toMatchObject({ green: true, said: expect.stringContaining('WITHOUT vulnerabilities') });
    expect(step('sbom')).toMatchObject({ green: true });
    const list = JSON.parse(readFileSync(join(directory, '.local/sbom.spdx.json'), 'utf8')) as {
      spdxVersion: string;
    };
    expect(list.spdxVersion).toMatch(/^SPDX-2/);
  });

  it('finds a secret in a layer', () => {
    built(clean.replace('COPY good /good', 'COPY key /etc/app/key'));
    const { green, said } = step('scan');
    expect(green).toBe(false);
    expect(said).toMatch(/\*\*HIGH\*\* secret private-key in `\/?etc\/app\/key:\d+`.*revoke/);
    expect(said).not.toContain('MII');
  });

  it('finds a Dockerfile that runs as root, until an exception says why and until when', () => {
    built(clean.replace('USER 10001\n', ''));
    const { green, said } = step('scan');
    expect(green).toBe(false);
    expect(said).toMatch(/\*\*HIGH\*\* misconfiguration DS-?0002 in `Dockerfile`/);

    const [, id] = /misconfiguration (DS-?0002)/.exec(said) ?? [];
    const until = new Date(Date.now() + 10 * 86_400_000).toISOString().slice(0, 10);
    const entry = `misconfigurations:\n  - id: ${id}\n    statement: Its entry point drops root\n`;
    writeFileSync(join(directory, '.trivyignore.yaml'), `${entry}    expired_at: ${until}\n`);
    expect(step('scan')).toMatchObject({ green: true, said: expect.stringContaining(`ignored until ${until}`) });
    writeFileSync(join(directory, '.trivyignore.yaml'), entry);
    expect(step('scan')).toMatchObject({ green: false, said: expect.stringContaining('"expired_at" must be a day') });
  });

  describeUnless(noAdvisories(), 'by a database of recorded advisories', () => {
    const online = () => ({ OFFLINE: '', TRIVY_CACHE_DIR: advisories, TRIVY_SKIP_DB_UPDATE: 'true' });
    const image = (lodash: string) =>
      built(clean.replace('COPY good /good', 'COPY good /good\nCOPY modules /app/node_modules'), {
        'modules/lodash/package.json': `{"name": "lodash", "version": "${lodash}"}`,
        'modules/request/package.json': '{"name": "request", "version": "2.88.2"}',
      });

    it('finds a vulnerability that has a fix, and says which', () => {
      image('4.17.4');
      const { green, said } = step('scan', online());
      expect(green).toBe(false);
      expect(said).toMatch(
        /- \*\*CRITICAL\*\* vulnerability CVE-2019-10744 in `.*`: lodash 4\.17\.4: .* \(update to 4\.17\.12\)/,
      );
      // One of medium severity, and one that nobody has fixed.
      expect(said).toContain('1 finding(s) block');
      expect(said).toContain('2 more below the severities that count, or without a fix.');
    });

    it('lets the fixed version pass, but not what nobody has fixed where that counts', () => {
      image('4.17.21');
      expect(step('scan', online())).toMatchObject({ green: true, said: expect.not.stringContaining('WITHOUT') });
      expect(step('scan', { ...online(), IGNORE_UNFIXED: 'false' })).toMatchObject({
        green: false,
        said: expect.stringContaining('CVE-2023-28155'),
      });
    });

    it('is not told by a variable of Trivy what to look for', () => {
      image('4.17.4');
      const soft = {
        TRIVY_SEVERITY: 'LOW',
        TRIVY_SKIP_DIRS: 'app',
        TRIVY_SCANNERS: 'secret',
        TRIVY_IGNORE_STATUS: 'fixed',
      };
      expect(step('scan', { ...online(), ...soft })).toMatchObject({
        green: false,
        said: expect.stringContaining('CVE-2019-10744'),
      });
    });
  });

  it.each([
    ['trivy.yaml', 'severity: [LOW]\n'],
    ['trivy-secret.yaml', 'disable-rules: [private-key]\n'],
    ['.trivyignore', 'DS-0002\n'],
  ])('refuses %s, which hides findings without a word', (file, text) => {
    built(clean, { [file]: text });
    expect(step('scan')).toMatchObject({ green: false, said: expect.stringContaining(`${file} hides findings`) });
  });

  it('refuses a comment that hides what follows it', () => {
    built(clean);
    const dockerfile = 'FROM debian:12\n# trivy:ignore:DS-0017\nRUN apt-get update\nUSER 10001\n';
    writeFileSync(join(directory, 'Dockerfile'), dockerfile);
    expect(step('scan')).toMatchObject({ green: false, said: expect.stringContaining('  - Dockerfile:2') });
  });

  it('lets nothing pass when the database cannot be had', () => {
    built(clean);
    const { green, said } = step('scan', { OFFLINE: '', TRIVY_DB_REPOSITORY: '127.0.0.1:1/none' });
    expect(green).toBe(false);
    expect(said).toMatch(/nothing passes/);
  });

  it('is never offline in a pipeline', () => {
    built(clean);
    expect(step('scan', { GITHUB_ACTIONS: 'true' })).toMatchObject({
      green: false,
      said: expect.stringContaining('not for a pipeline'),
    });
  });
});
