import { resolve } from 'node:path';
import { parse } from 'yaml';
import { readFileSync } from 'node:fs';
import { BRANCHES, ENVIRONMENTS } from './branches';
import { REQUIRED_CHECK, repositorySettings, settingsOf } from './settings';
import type { Run } from './run';

const ROOT = resolve(__dirname, '..');
const words = settingsOf(ROOT).map((setting) => setting.words);

it('every branch is protected, and may use its own environment alone', () => {
  for (const [branch, environment] of Object.entries(BRANCHES)) {
    expect(words.filter((line) => line.startsWith(`branch ${branch}:`))).toHaveLength(1);
    expect(words.filter((line) => line.endsWith(`may be used by ${branch}`))).toEqual([
      `environment ${environment}: may be used by ${branch}`,
    ]);
  }
});

it('the variables are those of the stack files', () => {
  expect(words).toContain('environment development: variable HEALTHCHECK_INTERVAL = 30s');
  expect(words).toContain('environment staging: variable APP_MEMORY_LIMIT = 1g');
  expect(words).toContain('environment production: variable DB_VOLUME_PATH = /var/lib/postgresql/data');
  expect(words.filter((line) => line.includes(': variable '))).toHaveLength(10 * ENVIRONMENTS.length);
});

it('the required check is the job that waits for all others', () => {
  const { jobs } = parse(readFileSync(resolve(ROOT, '.github/workflows/ci.yml'), 'utf8')) as {
    jobs: Record<string, { name: string }>;
  };
  expect(jobs['all-green']!.name).toBe(REQUIRED_CHECK);
});

describe('the command', () => {
  const calls: { args: readonly string[]; input: string | undefined }[] = [];
  const run: Run = (_, args, options) => {
    calls.push({ args, input: options?.input });
    return Promise.resolve({ code: 0, stdout: '', stderr: '' });
  };
  let said: string;
  beforeEach(() => {
    calls.length = 0;
    said = '';
    jest.spyOn(console, 'log').mockImplementation((line: string) => (said += `${line}\n`));
    process.env['DOCKER_PASSWORD_STAGING'] = 'hunter2';
  });
  afterEach(() => {
    delete process.env['DOCKER_PASSWORD_STAGING'];
    jest.restoreAllMocks();
  });

  it('changes nothing unless told to, and shows no secret', async () => {
    await repositorySettings(ROOT, false, run);
    expect(calls).toEqual([]);
    expect(said).toContain('would  environment staging: secret DOCKER_PASSWORD');
    expect(said).toContain('left   environment production: secret DOCKER_PASSWORD: neither');
    expect(said).not.toContain('hunter2');
  });

  it('hands a secret over on standard input only', async () => {
    await repositorySettings(ROOT, true, run);
    const secret = calls.find(({ args }) => args[0] === 'secret')!;
    expect(secret).toEqual({ args: ['secret', 'set', 'DOCKER_PASSWORD', '--env', 'staging'], input: 'hunter2' });
    expect(JSON.stringify(calls.map(({ args }) => args))).not.toContain('hunter2');
    expect(said).not.toContain('hunter2');
  });
});
