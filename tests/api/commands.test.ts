import { createDatabase, type TestDatabase } from '../postgres/database';
import { freePort } from '../../infra/embedded/ports';
import { MIGRATIONS } from './migrations';
import { environmentOf, run, serve } from './process';

let database: TestDatabase;
let environment: Record<string, string>;
let owner: Record<string, string>;
beforeEach(async () => {
  database = await createDatabase({ migrated: false });
  environment = environmentOf(database.connection);
  owner = environmentOf(database.owner);
});
afterEach(() => database.drop());

const resultOf = (stdout: string) => JSON.parse(stdout.trimEnd().split('\n').at(-1)!) as Record<string, unknown>;

it('migrate, then seed: each may be run again', async () => {
  expect(resultOf((await run(['migrate'], owner)).stdout)).toMatchObject({
    level: 'info',
    message: 'migrate done',
    applied: MIGRATIONS,
    version: MIGRATIONS.length,
  });
  expect(resultOf((await run(['migrate'], owner)).stdout)).toMatchObject({
    applied: [],
    version: MIGRATIONS.length,
  });
  expect(resultOf((await run(['seed'], environment)).stdout)).toMatchObject({ message: 'seed done', inserted: 5 });
  await database.unguard();
  await database.sql("UPDATE loans SET status = 'approved' WHERE borrower_id = 'usr_kenya_001'");
  const again = await run(['seed'], environment);
  expect([again.code, resultOf(again.stdout)]).toEqual([0, expect.objectContaining({ inserted: 0 })]);
  const rows = await database.sql<object>(
    'SELECT id, borrower_id, currency, amount::text, status, term_months, interest_rate_apr::text AS apr FROM loans ORDER BY id',
  );
  expect(rows.map((row) => Object.values(row).join(' '))).toEqual([
    '00000000-0000-0000-0000-000000000001 usr_kenya_001 KES 12500.0000 approved 6 28.00',
    '00000000-0000-0000-0000-000000000002 usr_india_002 INR 50000.0000 approved 12 24.00',
    '00000000-0000-0000-0000-000000000003 usr_nigeria_003 NGN 32000.0000 rejected 9 30.00',
    '00000000-0000-0000-0000-000000000004 usr_vietnam_004 VND 8400.0000 disbursed 4 26.00',
    '00000000-0000-0000-0000-000000000005 usr_philippines_005 PHP 21000.0000 repaid 6 22.00',
  ]);
});

it('generate makes the same loans of the same seed', async () => {
  await run(['migrate'], owner);
  expect(resultOf((await run(['generate', '--count', '5100', '--seed', '7'], environment)).stdout)).toMatchObject({
    inserted: 5100,
    seed: 7,
  });
  expect(resultOf((await run(['generate', '--count', '100', '--seed', '7'], environment)).stdout)).toMatchObject({
    inserted: 0,
  });
  expect(resultOf((await run(['generate', '--count', '100', '--seed', '8'], environment)).stdout)).toMatchObject({
    inserted: 100,
  });
  const [row] = await database.sql<{ bad: string; currencies: string }>(
    `SELECT count(*) FILTER (WHERE amount > 50000 OR created_at > now() OR updated_at < created_at OR updated_at > now()) AS bad,
            count(DISTINCT currency) AS currencies FROM loans`,
  );
  expect(row).toEqual({ bad: '0', currencies: '5' });
});

it.each([
  ['nonsense'],
  ['serve now'],
  ['migrate --count 1'],
  ['generate'],
  ['generate --count 0'],
  ['generate --count 1e3'],
  ['generate --count 5 --seed x'],
  ['retention --years 1'],
  ['retention now'],
  ['recount --count 1'],
  ['seed --dry-run'],
  ['generate --count 1 --dry-run'],
  ['--help'],
  ['api-key'],
])('bad arguments, %s, print the usage and end with 2', async (args) => {
  const { code, stdout, stderr } = await run(args.split(' '), {});
  expect([code, stdout]).toEqual([2, '']);
  expect(stderr).toContain('usage: main [command]');
});

it('recount says what the statistics lack, and adds it', async () => {
  await run(['migrate'], owner);
  await run(['seed'], environment);
  await database.sql("DELETE FROM loan_totals WHERE currency = 'KES'");
  const lacking = [{ currency: 'KES', status: 'pending', loans: 1, amount: '12500.0000', principal_paid: '0.0000' }];
  const recount = async (...args: string[]) => resultOf((await run(['recount', ...args], environment)).stdout);
  expect(await recount('--dry-run')).toMatchObject({ dry_run: true, corrections: lacking });
  expect(await recount()).toMatchObject({ message: 'recount done', dry_run: false, corrections: lacking });
  expect(await recount()).toMatchObject({ corrections: [] });
});

describe('recount', () => {
  const recount = async (...args: string[]) => {
    const { code, stdout } = await run(['recount', ...args], environment);
    return { code, ...resultOf(stdout) };
  };
  const add = async (columns: string, loan: string) => {
    const [row] = await database.sql<{ id: string }>(
      `INSERT INTO loans (id, borrower_id, amount, currency, term_months, interest_rate_apr, status, created_at, updated_at${columns})
       VALUES (gen_random_uuid(), 'b', ${loan}) RETURNING id`,
    );
    return row!.id;
  };

  it('names a loan that cannot be counted, does all the others, and ends with 1', async () => {
    await run(['migrate'], owner);
    const moment = "'2026-01-01', '2026-01-01'";
    const ids: string[] = [];
    for (const currency of ['KES', 'QQQ', 'BGN']) {
      const id = await add('', `100, '${currency}', 2, 12, 'disbursed', ${moment}`);
      await database.sql(
        `INSERT INTO repayments (id, loan_id, version, amount, currency, date, actor, created_at)
         VALUES (gen_random_uuid(), $1, 1, 60, $2, '2026-01-02', 'old', now())`,
        [id, currency],
      );
      ids.push(id);
    }
    const settled = await add('', `100, 'KES', 2, 12, 'repaid', ${moment}`);
    await add('', `100, 'KES', NULL, NULL, 'repaid', ${moment}`);
    const failed = [{ loan_id: ids[1], reason: expect.stringContaining('currency') }];
    const found = { code: 1, level: 'error', principal_corrected: 2, settlements_written: 1, failed };
    expect(await recount('--dry-run')).toMatchObject({ ...found, dry_run: true });
    expect(await recount()).toMatchObject({ ...found, dry_run: false });
    expect(await recount()).toMatchObject({ ...found, principal_corrected: 0, settlements_written: 0 });
    const rows = await database.sql<{ id: string; paid: string }>(
      'SELECT id, principal_paid::numeric(19, 2) AS paid FROM loans WHERE id = ANY ($1)',
      [ids],
    );
    expect(new Map(rows.map(({ id, paid }) => [id, paid]))).toEqual(
      new Map([
        [ids[0], '58.50'],
        [ids[1], '0.00'],
        [ids[2], '58.50'],
      ]),
    );
    const [entry] = await database.sql<object>(
      'SELECT version, amount, settlement FROM repayments WHERE loan_id = $1',
      [settled],
    );
    expect(entry).toMatchObject({ settlement: true, amount: '101.5000' });
    await database.sql("DELETE FROM loans WHERE currency = 'QQQ'");
    expect(await recount()).toMatchObject({ code: 0, level: 'info', message: 'recount done' });
  });
});

it('wrong settings end with 1 and one message that names each', async () => {
  const { code, stdout, stderr } = await run([], { PORT: 'x', DATABASE_NAME: 'loans' });
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toBe(
    'The service cannot start, 2 setting(s) are wrong:\n' +
      '  - PORT: "x" is not valid: Invalid input: expected number, received NaN\n' +
      '  - DATABASE_USER: not set\n',
  );
});

it.each(['migrate', 'seed'])('%s without a database ends with 1 and says why', async (command) => {
  const { code, stdout } = await run([command], { ...environment, DATABASE_PORT: String(await freePort()) });
  expect(code).toBe(1);
  expect(resultOf(stdout)).toMatchObject({
    level: 'error',
    message: `${command} failed`,
    reason: expect.stringContaining('ECONNREFUSED'),
  });
});

describe('api-key', () => {
  const apiKey = (...args: string[]) => run(['api-key', ...args], { ...environment, ENVIRONMENT: 'staging' });
  const KEY = /^bl_staging_([0-9a-z]{12})_[0-9A-Za-z]{38}\n$/;
  const idOf = (stdout: string) => KEY.exec(stdout)![1]!;
  const rows = async () => {
    const { code, stdout } = await apiKey('list');
    expect(code).toBe(0);
    return stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/ {2,}/));
  };

  it('creates, lists, rotates and revokes; a new key is all there is on standard output, once', async () => {
    await run(['migrate'], owner);
    const created = await apiKey(
      'create',
      '--name',
      'the desk',
      '--scopes',
      'loans:write,loans:read',
      '--expires-days',
      '90',
    );
    expect([created.code, created.stdout]).toEqual([0, expect.stringMatching(KEY)]);
    const id = idOf(created.stdout);
    expect(created.stderr).toContain(`The key ${id} "the desk" may loans:read, loans:write and expires at 20`);
    expect(created.stderr).not.toContain(created.stdout.trim().split('_')[3]);

    const rotated = await apiKey('rotate', '--id', id, '--overlap-hours', '1');
    expect([rotated.code, rotated.stdout]).toEqual([0, expect.stringMatching(KEY)]);
    const next = idOf(rotated.stdout);
    expect(next).not.toBe(id);
    expect(rotated.stderr).toContain(`It follows ${id}, which works for another 1 h at most.`);
    const eternal = await apiKey('create', '--name', 'ops', '--scopes', 'admin');
    expect(eternal.stderr).toContain('does not expire');

    const revoked = await apiKey('revoke', '--id', next);
    expect([revoked.code, revoked.stdout]).toEqual([0, '']);
    expect(revoked.stderr).toContain(`The key ${next} "the desk" is revoked since 20`);
    const [, since] = /since (\S+)\./.exec(revoked.stderr)!;
    expect((await apiKey('revoke', '--id', next)).stderr).toContain(`since ${since}.`);

    const [headings, ...lines] = await rows();
    expect(headings).toEqual(['id', 'name', 'scopes', 'state', 'created', 'expires', 'last used', 'client']);
    const time = expect.stringMatching(/^20.*Z$/);
    expect(lines).toEqual([
      [id, 'the desk', 'loans:read,loans:write', `valid until ${next} takes over`, time, time, 'never'],
      [next, 'the desk', 'loans:read,loans:write', 'revoked', time, time, 'never', `key:${id}`],
      [idOf(eternal.stdout), 'ops', 'admin', 'valid', time, 'never', 'never'],
    ]);
    const [expires, overlap] = [Date.parse(lines[1]![5]!) - Date.now(), Date.parse(lines[0]![5]!) - Date.now()];
    expect(expires / 86_400_000).toBeCloseTo(90, 1);
    expect(overlap / 3_600_000).toBeCloseTo(1, 1);
  });

  it('opens the service that it was made for, and no other', async () => {
    await run(['migrate'], owner);
    const key = (await apiKey('create', '--name', 'n', '--scopes', 'loans:read')).stdout.trim();
    const status = async (stack: string) => {
      const service = await serve({ ...environment, ENVIRONMENT: stack, API_KEYS: 'required' });
      const headers = { authorization: `Bearer ${key}` };
      const answers = await Promise.all([
        fetch(`http://127.0.0.1:${service.port}/api/loans`, { headers }),
        fetch(`http://127.0.0.1:${service.port}/api/loans`),
      ]);
      const { stdout } = await service.end('SIGTERM');
      expect(stdout).not.toContain(key.split('_')[3]);
      return answers.map((answer) => answer.status);
    };
    expect(await status('staging')).toEqual([200, 401]);
    expect((await rows())[1]![6]).toMatch(/^20.*Z$/); // Its last use was written when the service ended.
    expect(await status('production')).toEqual([401, 401]);
  });

  it('says what is wrong in one line, and ends with 1', async () => {
    await run(['migrate'], owner);
    for (const verb of ['revoke', 'rotate']) {
      expect(await apiKey(verb, '--id', 'nobody')).toEqual({
        code: 1,
        stdout: '',
        stderr: 'There is no key "nobody". The command "api-key list" shows the ids.\n',
      });
    }
    const away = await run(['api-key', 'list'], { ...environment, DATABASE_PORT: String(await freePort()) });
    expect([away.code, away.stdout]).toEqual([1, '']);
    expect(away.stderr).toMatch(/^.*ECONNREFUSED.*\n$/);
  });
});

it.each(['1', '2'])('a port that is taken ends with 1 at once and says so, with %s process(es)', async (processes) => {
  await run(['migrate'], owner);
  const first = await serve(environment);
  const second = await run(['serve'], {
    ...environment,
    HOST: '127.0.0.1',
    PORT: String(first.port),
    PROCESSES: processes,
    DRAIN_MS: '60000', // For clients that it never had.
  });
  expect(second.code).toBe(1);
  expect(second.stdout).toContain('EADDRINUSE');
  expect((await first.end('SIGTERM')).code).toBe(0);
});
