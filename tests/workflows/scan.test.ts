import { execFileSync, spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeUnless } from '../skip';
import { ROOT } from './files';
import { missing, toolEnvironment } from './linters';
import { noRegistry } from './registry';

jest.setTimeout(120_000);

/**
 * The gate with the real Trivy, on secrets and misconfigurations: its vulnerability database is not to be had on every machine, and is
 * judged on recorded reports (pipeline/gate.test.ts).
 */
describeUnless(
  missing('trivy') ?? noRegistry(),
  'the gate with the real Trivy, without its vulnerability database',
  () => {
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
    const built = (dockerfile: string) => {
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
  },
);
