import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { policies } from '../../infra/policy/policies';
import { BROKEN, GOOD } from '../guardrails';
import { describeUnless } from '../skip';
import { reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';

/** The guardrails as a policy pack, run by the real `pulumi preview`. Nothing is created. */

const ROOT = resolve(__dirname, '../..');
const PACK = join(ROOT, 'infra/policy');

jest.setTimeout(180_000);

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'the policy pack', () => {
  it.each(['development', 'staging', 'production'])('lets the stack %s pass', async (stack) => {
    const environment = await TestEnvironment.create(stack);
    try {
      const { code, output } = await environment.run(['preview', '--policy-pack', PACK]);
      expect([code, code === 0 ? '' : output]).toEqual([0, '']);
      expect(output).toMatch(/branchloans@v1\.0\.0 \(local: .*infra\/policy\)/);
      expect(output).not.toMatch(/\[mandatory\]/);
    } finally {
      await environment.remove();
    }
  });

  it('names every container of another program that breaks a rule, and the rule', () => {
    const cases = BROKEN.map(([rule, change], index) => ({
      name: `case-${index}-${rule}`,
      args: { ...GOOD, ...change },
    }));
    const { code, output } = preview(
      `const docker = require('@pulumi/docker');
       const provider = new docker.Provider('engine');
       for (const { name, args } of require('./cases.json')) new docker.Container(name, args, { provider });
       new docker.Container('good', ${JSON.stringify(GOOD)}, { provider });
       new docker.Network('default-engine');
       new docker.RemoteImage('moving', { name: 'nginx:stable' }, { provider });`,
      cases,
    );
    expect(code).not.toBe(0);
    const found = [...output.matchAll(/\[mandatory\] +([\w-]+) +\(docker:\S+: ([\w-]+)\)/g)].map(
      ([, rule, name]) => `${name} ${rule}`,
    );
    const expected = BROKEN.flatMap(([rule, change], index) =>
      // The provider fills the address in before a policy sees it; the program itself sees what it was given.
      JSON.stringify(change).includes('"external":1}') ? [] : [`case-${index}-${rule} ${rule}`],
    );
    expect(found.sort()).toEqual([...expected, 'default-engine explicit-engine', 'moving exact-pull'].sort());
    expect(new Set(found.map((text) => text.split(' ')[1]))).toEqual(new Set(policies.map(({ name }) => name)));
  });
});

/** Of a program that is not this one, in a project of its own. */
function preview(program: string, cases: object[]): { code: number; output: string } {
  const directory = mkdtempSync(join(tmpdir(), 'branchloans-policy-'));
  try {
    symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
    writeFileSync(join(directory, 'package.json'), JSON.stringify({ name: 'other', main: 'index.js' }));
    writeFileSync(
      join(directory, 'Pulumi.yaml'),
      'name: other\nruntime: { name: nodejs, options: { typescript: false } }\nbackend: { url: "file://." }\n',
    );
    writeFileSync(join(directory, 'cases.json'), JSON.stringify(cases));
    writeFileSync(join(directory, 'index.js'), program);
    const pulumi = (...args: string[]) => {
      const { status, stdout, stderr } = spawnSync('pulumi', [...args, '-s', 'trial', '--non-interactive'], {
        cwd: directory,
        encoding: 'utf8',
        env: { ...process.env, PULUMI_CONFIG_PASSPHRASE: '', PULUMI_SKIP_UPDATE_CHECK: 'true', NODE_OPTIONS: '' },
      });
      return { code: status ?? 1, output: stdout + stderr };
    };
    pulumi('stack', 'init');
    return pulumi('preview', '--policy-pack', PACK);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
