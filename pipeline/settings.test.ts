import { resolve } from 'node:path';
import { parse } from 'yaml';
import { readdirSync, readFileSync } from 'node:fs';
import { BRANCHES, ENVIRONMENTS } from './branches';
import { type Gh, REQUIRED_CHECK, repositorySettings, settingsOf } from './settings';
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

describe('the variables', () => {
  const names = {
    HEALTHCHECK_INTERVAL: ['30s', '20s', '15s'],
    HEALTHCHECK_TIMEOUT: ['5s', '4s', '3s'],
    HEALTHCHECK_RETRIES: ['3', '4', '5'],
    APP_CPU_LIMIT: ['1', '2', '4'],
    APP_MEMORY_LIMIT: ['512m', '1g', '2g'],
    DB_CPU_LIMIT: ['1', '2', '4'],
    DB_MEMORY_LIMIT: ['512m', '1g', '2g'],
    DB_VOLUME_PATH: ['./postgres_data_dev', './postgres_data_staging', '/var/lib/postgresql/data'],
    POSTGRES_USER: ['branchloans_dev', 'branchloans_staging', 'branchloans'],
    POSTGRES_DB: ['branchloans_dev', 'branchloans_staging', 'branchloans'],
  };

  it('are those of the stack files, and no more', () => {
    const variables = Object.entries(names).flatMap(([name, values]) =>
      values.map((value, index) => `environment ${ENVIRONMENTS[index]!}: variable ${name} = ${value}`),
    );
    expect(words.filter((line) => line.includes(': variable ')).sort()).toEqual(variables.sort());
  });

  it('are read by no workflow: they are copies, and the command says so', () => {
    const directory = resolve(ROOT, '.github');
    const files = readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.yml'));
    const read = files.flatMap((file) =>
      [...readFileSync(resolve(directory, file), 'utf8').matchAll(/vars\.(\w+)/g)].map(([, name]) => name!),
    );
    expect(read).toContain('DOCKER_USERNAME');
    expect(read.filter((name) => name in names)).toEqual([]);
  });
});

it('the required check is the job that waits for all others', () => {
  const { jobs } = parse(readFileSync(resolve(ROOT, '.github/workflows/ci.yml'), 'utf8')) as {
    jobs: Record<string, { name: string }>;
  };
  expect(jobs['all-green']!.name).toBe(REQUIRED_CHECK);
});

it('a version is released from its tag alone', () => {
  expect(words).toContain('environment release: may be used by v*.*.*');
});

describe('who must agree', () => {
  const environmentOf = async (env: Record<string, string>, answers: Record<string, unknown> = {}) => {
    const setting = settingsOf(ROOT, env).find(({ words: each }) => each.startsWith('environment production, '))!;
    const asked: string[] = [];
    const json = await (setting.input as { ask: (gh: Gh) => Promise<unknown> }).ask((path) => {
      asked.push(path);
      return Promise.resolve(answers[path]);
    });
    return { words: setting.words, json, asked };
  };
  const policy = { deployment_branch_policy: { protected_branches: false, custom_branch_policies: true } };

  it('is looked up by name, and nobody agrees to what is their own', async () => {
    const env = { REVIEWERS_PRODUCTION: 'alice me/operators', WAIT_MINUTES_PRODUCTION: '10' };
    const answers = { '/users/alice': { id: 7 }, '/orgs/me/teams/operators': { id: 8 } };
    const { words: told, json } = await environmentOf(env, answers);
    expect(told).toContain('reviewed by alice or me/operators, after 10 minutes');
    const reviewers = [
      { type: 'User', id: 7 },
      { type: 'Team', id: 8 },
    ];
    expect(json).toEqual({ ...policy, wait_timer: 10, prevent_self_review: true, reviewers });
  });

  it('stays as it is where nothing is said', async () => {
    const rules = [
      { type: 'wait_timer', wait_timer: 5 },
      { type: 'required_reviewers', prevent_self_review: true, reviewers: [{ type: 'Team', reviewer: { id: 8 } }] },
      { type: 'branch_policy' },
    ];
    const { json } = await environmentOf({}, { 'environments/production': { protection_rules: rules } });
    expect(json).toEqual({ ...policy, wait_timer: 5, prevent_self_review: true, reviewers: [{ type: 'Team', id: 8 }] });
    const { json: fresh } = await environmentOf({});
    expect(fresh).toEqual({ ...policy, wait_timer: 0, prevent_self_review: false, reviewers: [] });
  });

  it('is an error where GitHub does not know them', async () => {
    await expect(environmentOf({ REVIEWERS_PRODUCTION: 'alice' })).rejects.toThrow('GitHub knows no alice');
  });

  it.each([
    [{ REVIEWERS_STAGING: 'a b c d e f g' }, /environment staging: GitHub takes at most six/],
    [{ REVIEWERS_PRODUCTION: '@alice' }, /"@alice" is no user/],
    [{ WAIT_MINUTES_PRODUCTION: 'soon' }, /is no number of minutes/],
    [{ WAIT_MINUTES_PRODUCTION: '43201' }, /is no number of minutes/],
  ])('%j is told before anything is set', (env, message) => {
    expect(() => settingsOf(ROOT, env)).toThrow(message);
  });
});

describe('the command', () => {
  const calls: { args: readonly string[]; input: string | undefined }[] = [];
  const run: Run = (_, args, options) => {
    calls.push({ args, input: options?.input });
    return Promise.resolve({ code: 0, stdout: '{}', stderr: '' });
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
    expect(said).toContain('no workflow reads them, the stack file decides');
    expect(said).not.toContain('hunter2');
  });

  it('takes no reviewer away because GitHub could not be asked', async () => {
    const silent: Run = (command, args, options) =>
      args.length === 2 && args[1]!.includes('/environments/')
        ? Promise.resolve({ code: 1, stdout: '', stderr: 'HTTP 502' })
        : run(command, args, options);
    await expect(repositorySettings(ROOT, true, silent)).rejects.toThrow(/environment production, .*HTTP 502/);
    expect(calls.filter(({ args }) => args[2] === 'PUT' && args[3]!.includes('/environments/'))).toEqual([]);
  });

  it('hands a secret over on standard input only', async () => {
    await repositorySettings(ROOT, true, run);
    const secret = calls.find(({ args }) => args[0] === 'secret')!;
    expect(secret).toEqual({ args: ['secret', 'set', 'DOCKER_PASSWORD', '--env', 'staging'], input: 'hunter2' });
    expect(JSON.stringify(calls.map(({ args }) => args))).not.toContain('hunter2');
    expect(said).not.toContain('hunter2');
  });
});
