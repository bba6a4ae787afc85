import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkNode, isPlaceholder, nodeFaults } from './node';
import type { Run } from './run';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'node-'));
  writeFileSync(join(directory, 'package-lock.json'), '{}');
  write({ lint: 'eslint .', test: 'jest' });
});
afterEach(() => rmSync(directory, { recursive: true }));
const write = (scripts: Record<string, string>) =>
  writeFileSync(join(directory, 'package.json'), JSON.stringify({ scripts }));

it.each(['echo ok', 'true', 'exit 0', 'echo "Running tests" && exit 0', 'echo tests; true', ''])(
  '"%s" looks at nothing',
  (script) => expect(isPlaceholder(script)).toBe(true),
);
it.each(['jest', 'echo ok && jest', 'exit 1', 'tsc --noEmit; eslint .', 'echo "no tests" && exit 1'])(
  '"%s" does something',
  (script) => expect(isPlaceholder(script)).toBe(false),
);

it.each([
  ['no such script', ['types'], /has no script "types"; it has lint, test/],
  ['none at all', [], /nothing would be looked at/],
])('%s is told before anything is installed', async (_, scripts, message) => {
  const run: Run = () => Promise.reject(new Error('something was run'));
  await expect(checkNode({ directory, scripts, postgres: undefined }, run)).rejects.toThrow(message);
});

it('a placeholder, and a project without a lock file, are told', () => {
  write({ test: 'echo tests' });
  rmSync(join(directory, 'package-lock.json'));
  expect(nodeFaults({ directory, scripts: ['test'], postgres: undefined })).toEqual([
    expect.stringMatching(/no package-lock.json/),
    'the script "test" is a placeholder: echo tests',
  ]);
  expect(nodeFaults({ directory: '/nowhere', scripts: ['test'], postgres: undefined })).toEqual([
    expect.stringMatching(/no .*package.json/),
  ]);
});

it('runs the scripts in order, and none after one that fails', async () => {
  const calls: string[] = [];
  const run: Run = (command, args) => {
    calls.push([command, ...args].join(' '));
    return Promise.resolve({ code: args[1] === 'lint' ? 2 : 0, stdout: '', stderr: '' });
  };
  expect(await checkNode({ directory, scripts: ['test'], postgres: undefined }, run)).toMatchObject([
    { script: 'test' },
  ]);
  await expect(checkNode({ directory, scripts: ['lint', 'test'], postgres: undefined }, run)).rejects.toThrow(
    'npm run lint failed with',
  );
  expect(calls).toEqual(['npm ci --no-audit --no-fund', 'npm run test', 'npm ci --no-audit --no-fund', 'npm run lint']);
});

describe('with a database', () => {
  const postgres = `docker.io/library/postgres@sha256:${'a'.repeat(64)}`;
  it('the scripts find it by their environment, and it is gone after them, also when one fails', async () => {
    const calls: string[] = [];
    let environment: Record<string, string | undefined> = {};
    let asked = 0;
    const run: Run = (command, args, options) => {
      calls.push([command, ...args].join(' '));
      if (command === 'npm' && args[0] === 'run') environment = options?.env ?? {};
      const stdout = args[0] === 'run' ? 'c0ffee\n' : args[0] === 'port' ? '127.0.0.1:49153\n' : '';
      const code = args.includes('pg_isready') ? (asked++ === 0 ? 2 : 0) : args[1] === 'test' ? 1 : 0;
      return Promise.resolve({ code, stdout, stderr: '' });
    };
    await expect(checkNode({ directory, scripts: ['test'], postgres }, run)).rejects.toThrow('npm run test failed');
    expect(environment).toMatchObject({ PGHOST: '127.0.0.1', PGPORT: '49153', PGUSER: 'postgres' });
    expect(calls.join('\n')).not.toContain(environment['PGPASSWORD']);
    expect(calls.slice(-2)).toEqual(['npm run test', 'docker rm --force --volumes c0ffee']);
  });

  it('a tag is refused', () => {
    const faults = nodeFaults({ directory, scripts: ['test'], postgres: 'postgres:18' });
    expect(faults).toEqual([expect.stringMatching(/is not name@sha256/)]);
  });
});
