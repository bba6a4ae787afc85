import { DATABASE_ROLES } from '../../app/config';
import { extract, previousRelease } from '../migrations/previous-release';
import { REFUSED_TO_THE_SERVICE } from '../postgres/walls';
import { describeUnless } from '../skip';
import { docker, PROGRAM, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import { ask, failuresOf, figuresOf, loansOf, lostWrites, startLoad } from './load';

/** A stack of the last release whose service owned its tables, upgraded by an ordinary `up` while users are served. */

const BEFORE = 'cdb0496';
const USER = 'branchloans_staging';
const before = previousRelease(undefined, BEFORE);

jest.setTimeout(600_000);

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi() ?? (typeof before === 'string' ? before : undefined);

describeUnless(reason, 'a stack whose service owned its tables', () => {
  let environment: TestEnvironment;
  let old: { readonly id: string };

  beforeAll(async () => {
    const program = extract(BEFORE, [...PROGRAM, 'Pulumi.staging.yaml']);
    environment = await TestEnvironment.create('staging', slow, program);
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    old = JSON.parse(environment.output('release')) as typeof old;
  });
  afterAll(() => environment.remove());

  const slow = (settings: Record<string, unknown>) => {
    settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), drain: '2s' };
  };
  const owners = () =>
    environment.sql(`SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'public'::regnamespace
      UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
      UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()`).trim(); // prettier-ignore
  /** Fails only while a part is away that the deploy said it would take away. */
  const underLoad = async (work: () => Promise<{ code: number; output: string }>) => {
    const load = startLoad(environment);
    await load.begun;
    const { code, output } = await work();
    const outcomes = await load.stop();
    expect([code, code === 0 ? '' : output]).toEqual([0, '']);
    const away = [...output.matchAll(/about ([\d.]+) s without it/g)].map(([, seconds]) => Number(seconds));
    const { requests, failed } = figuresOf(outcomes);
    console.info(`${requests} requests, ${failed} failed, ${away.length} announced outages`);
    if (away.length === 0) expect(failuresOf(outcomes)).toEqual([]);
    else expect(failed).toBeLessThan(requests / 4);
    expect(lostWrites(outcomes, environment.sql(loansOf(load)))).toEqual([]);
  };

  it('gets its roles by an ordinary up, without a failed request', async () => {
    expect(owners()).toBe(USER);
    environment.replaceProgram();
    await underLoad(() => environment.up());
    expect(owners()).toBe(DATABASE_ROLES.owner);
    expect(environment.sql('SELECT * FROM loan_totals_missing').trim()).toBe('');
    expect(environment.sql('SELECT conname FROM pg_constraint WHERE NOT convalidated').trim()).toBe('');
    expect(await environment.changes()).toBe('');
  });

  it('keeps the password of the owner from the containers that serve', () => {
    for (const name of environment.apiContainers()) {
      const [{ Mounts: mounts }] = JSON.parse(docker(['inspect', name])) as [{ Mounts: { Name?: string }[] }];
      expect(mounts.map((mount) => mount.Name)).toEqual([`${environment.prefix}-api-secrets`]);
    }
  });

  it.each(REFUSED_TO_THE_SERVICE)('refuses its service %s', async (_what, statement, sqlstate) => {
    const [id = ''] = environment.sql("SELECT id FROM loans WHERE status = 'repaid' LIMIT 1").split('\n');
    const script = `SET SESSION AUTHORIZATION ${USER}; ${statement.replaceAll('ID', id)};`;
    const psql = ['psql', '--no-psqlrc', '--quiet', '--set', 'VERBOSITY=sqlstate', '--set', 'ON_ERROR_STOP=1'];
    const command = ['exec', `${environment.prefix}-database`, ...psql, '--dbname', USER, '--command', script];
    expect(() => docker(command)).toThrow(new RegExp(`ERROR: +${sqlstate}`));
    await Promise.resolve();
  });

  it('goes back to the release before, and that serves', async () => {
    await underLoad(() => environment.verb('rollback', [old.id]));
    const answer = await ask(`${environment.url}/api/v1/loans`, environment.authority, { key: environment.key });
    expect(answer.status).toBe(200);
    expect(owners()).toBe(DATABASE_ROLES.owner);
  });
});
