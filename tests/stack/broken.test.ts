import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';
import {
  badMigrationRelease,
  crashingRelease,
  failingRelease,
  nextRelease,
  passwordlessRelease,
  removeReleases,
  silentRelease,
  slowRelease,
  unreadyRelease,
} from './images';
import { failuresOf, figuresOf, type Load, loansOf, lostWrites, startLoad } from './load';

/**
 * Releases that are broken in every way that was thought of, under load: users see nothing, the operator sees why, and
 * the next good deploy leaves exactly what is wanted. MATRIX=all: also without a `refresh` in between.
 */

jest.setTimeout(600_000);

const READY_WITHIN_SECONDS = 8;

interface Broken {
  readonly name: string;
  readonly release: (base: string) => string;
  /** All of them are in the message. */
  readonly cause: readonly RegExp[];
}

const BROKEN: readonly Broken[] = [
  {
    name: 'crashes at start',
    release: crashingRelease,
    cause: [/crashed and was restarted|ended with exit code 1/, /boom at start/],
  },
  {
    name: 'never listens',
    release: silentRelease,
    cause: [/was not ready after/, /waiting for something that never comes/],
  },
  { name: 'is never ready', release: unreadyRelease, cause: [/was not ready after/, /the cache is cold/] },
  {
    name: 'is ready, but fails requests',
    release: failingRelease,
    cause: [/\/api\/v1\/loans/, /500/, /boom in a handler/],
  },
  {
    name: 'starts too slowly',
    release: (base) => slowRelease(base, 10 * READY_WITHIN_SECONDS),
    cause: [/was not ready after/, /warming up/],
  },
  {
    name: 'has a wrong password for the database',
    release: passwordlessRelease,
    cause: [/password authentication failed/],
  },
  {
    name: 'has a migration that fails half-way',
    release: badMigrationRelease,
    cause: [/migrate/, /halfway\.sql:3 failed and was rolled back/, /no_such_function/],
  },
  {
    name: 'cannot be had',
    release: () => 'bl-test-absent.invalid/none:1.0.0',
    cause: [/bl-test-absent\.invalid\/none:1\.0\.0/],
  },
];

const WAYS = process.env['MATRIX'] === 'all' ? ['with a refresh', 'without a refresh'] : ['with a refresh'];

describeUnless(reasonWithoutEngine() ?? reasonWithoutPulumi(), 'a broken release under load', () => {
  let environment: TestEnvironment;
  let base: string;
  let load: Load | undefined;
  let releases = 0;

  const deploy = (image: string) => {
    environment.configure((settings) => (settings['branchloans:image'] = image));
    return environment.up();
  };
  /** Schema, the migrations that count, and the loans that no load made. */
  const database = () =>
    docker([
      'exec',
      `${environment.prefix}-database`,
      'sh',
      '-c',
      'pg_dump --schema-only --restrict-key x "$0"',
      name,
    ]) +
    environment.sql('SELECT * FROM schema_migrations ORDER BY version') +
    environment.sql(`SELECT * FROM loans WHERE borrower_id NOT LIKE 'load-%' ORDER BY id`);
  const name = 'branchloans_staging';

  beforeAll(async () => {
    environment = await TestEnvironment.create('staging', (settings) => {
      const api = settings['branchloans:api'] as Record<string, unknown>;
      // A process that hears no signal is waited for as long.
      const times = { drain: '1s', shutdown: '2s', readyWithin: `${READY_WITHIN_SECONDS}s` };
      settings['branchloans:api'] = { ...api, ...times, cpus: 1 };
    });
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    base = environment.output('image');
  });
  // A test that failed must not leave its load to the next one.
  afterEach(async () => {
    await load?.stop().catch(() => undefined);
  });
  afterAll(async () => {
    await environment.remove();
    removeReleases();
  });

  describe.each(WAYS)('%s before the next good one', (way) => {
    it.each(BROKEN)('that $name', async ({ release, cause }) => {
      const before = { api: environment.apiContainers(), database: database() };
      load = startLoad(environment);
      const broken = await deploy(release(base));
      expect(broken.code).not.toBe(0);
      for (const words of cause) expect(broken.output).toMatch(words);
      expect(broken.output).not.toMatch(/^\s+at .*infra\//m);
      expect(environment.apiContainers()).toEqual(expect.arrayContaining(before.api));
      expect(database()).toBe(before.database);

      if (way === 'with a refresh') expect(await environment.refresh()).toMatchObject({ code: 0 });
      const good = await deploy(nextRelease(base, ++releases));
      expect([good.code, good.code === 0 ? '' : good.output]).toEqual([0, '']);
      expect(environment.apiContainers()).toHaveLength(2);
      expect(await environment.changes()).toBe('');

      const outcomes = await load.stop();
      expect(failuresOf(outcomes)).toEqual([]);
      expect(lostWrites(outcomes, environment.sql(loansOf(load)))).toEqual([]);
      expect(figuresOf(outcomes).acknowledged).toBeGreaterThan(100);
    });
  });
});
