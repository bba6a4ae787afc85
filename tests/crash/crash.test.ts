import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { migrate } from '../../app/db/migrate';
import { freePort } from '../../infra/embedded/ports';
import { commandLineOf } from '../../infra/embedded/processes';
import { type PostgresServer, startPostgres } from '../../infra/embedded/postgres';
import { until } from '../api/harness';
import { environmentOf, type RunningProcess, serve } from '../api/process';
import { connectionTo } from '../postgres/database';
import { type Load, startLoad } from './load';
import { verify, type Verdict } from './verify';

/**
 * SIGKILL of the service and of Postgres while it is written to. The page cache of the machine survives that, so this
 * is no loss of power; that fsync and full_page_writes are on, which stand for that, is asserted.
 *
 * CRASH_KILLS sets the number of kills, CRASH_SEED the moments at which they come.
 */
const KILLS = Number(process.env.CRASH_KILLS ?? 20);
const CONTROL_KILLS = 8;
const SEED = Number(process.env.CRASH_SEED ?? Date.now() % 1_000_000);
const GOOD: Verdict = { lost: 0, duplicated: 0, unknown: 0, otherAnswer: 0, wrongHistory: 0 };
const TIMEOUT_MS = 60_000 + KILLS * 10_000;

const moments = random(SEED);
/** Lets the load get going again, and then some time pass. */
async function beforeKill({ acknowledged }: Load): Promise<void> {
  const before = acknowledged.length;
  await until(() => acknowledged.length >= before + 16, 30_000);
  await sleep(moments() * 750);
}

const directory = mkdtempSync(join(tmpdir(), 'branchloans-crash-'));
chmodSync(directory, 0o755);
afterAll(() => rmSync(directory, { recursive: true, force: true }));

describe.each([
  ['as it is run', {}],
  // Acknowledges what it has not written: what follows must be seen, or the tests above prove nothing.
  [
    'that does not wait for its disk',
    { synchronous_commit: 'off', wal_writer_delay: '10s', wal_writer_flush_after: '1GB' },
  ],
] as const)('with a database %s', (name, settings) => {
  const control = 'synchronous_commit' in settings;
  const data = join(directory, control ? 'control' : 'data');
  let postgres: PostgresServer;
  let api: RunningProcess;
  let environment: Record<string, string>;
  const startDatabase = (port: number) => startPostgres({ directory: data, port, settings });

  beforeAll(async () => {
    postgres = await startDatabase(await freePort());
    const connection = connectionTo(postgres.port, 'postgres');
    await migrate(connection, { databasePassword: () => Promise.resolve('') });
    await withClient(postgres.port, (client) => client.query('CHECKPOINT')); // The tables are not to be lost.
    environment = { ...environmentOf(connection), LOG_LEVEL: 'error' };
    api = await serve(environment);
  }, 60_000);
  afterAll(async () => {
    await api.end('SIGKILL');
    await postgres.stop();
  });

  async function finish(load: Load, what: string, kills: number, startedAt: number): Promise<Verdict> {
    await load.stop();
    const verdict = await verify(postgres.port, load.acknowledged);
    const acknowledged = load.acknowledged.length;
    const seconds = Math.round((performance.now() - startedAt) / 100) / 10;
    console.log(
      `crash: ${JSON.stringify({ what, database: name, seed: SEED, kills, seconds, acknowledged, ...load.figures(), ...verdict })}`,
    );
    await empty(postgres.port);
    return verdict;
  }

  const killDatabase = async () => {
    await killWithChildren(postgres);
    postgres = await startDatabase(postgres.port);
  };

  if (control) {
    it(
      'is seen to lose acknowledged writes when Postgres is killed',
      async () => {
        const startedAt = performance.now();
        const load = startLoad(api.port, 'control');
        for (let kill = 0; kill < CONTROL_KILLS; kill++) {
          await beforeKill(load);
          await killDatabase();
        }
        expect((await finish(load, 'kill -9 of Postgres', CONTROL_KILLS, startedAt)).lost).toBeGreaterThan(0);
      },
      TIMEOUT_MS,
    );
    return;
  }

  it('promises durability', async () => {
    expect(await show(postgres.port, ['fsync', 'full_page_writes', 'synchronous_commit'])).toEqual(['on', 'on', 'on']);
  });

  it(
    `keeps every acknowledged write, once, over ${KILLS} kills of the service`,
    async () => {
      const startedAt = performance.now();
      const load = startLoad(api.port, 'api');
      for (let kill = 0; kill < KILLS; kill++) {
        await beforeKill(load);
        await api.end('SIGKILL');
        api = await serve(environment, api.port);
      }
      const verdict = await finish(load, 'kill -9 of the service', KILLS, startedAt);
      expect(verdict).toEqual(GOOD);
      // Answers that were lost after the write was done: without a key each would have become a second loan.
      expect(load.figures().replays).toBeGreaterThan(0);
      expect(load.acknowledged.length).toBeGreaterThan(KILLS * 16);
    },
    TIMEOUT_MS,
  );

  it(
    `keeps every acknowledged write, once, over ${KILLS} kills of Postgres, while the service lives on`,
    async () => {
      const startedAt = performance.now();
      const load = startLoad(api.port, 'postgres');
      for (let kill = 0; kill < KILLS; kill++) {
        await beforeKill(load);
        await killDatabase();
      }
      expect(await finish(load, 'kill -9 of Postgres', KILLS, startedAt)).toEqual(GOOD);
      expect(api.child.exitCode).toBeNull();
      expect(load.acknowledged.length).toBeGreaterThan(KILLS * 16);
    },
    TIMEOUT_MS,
  );
});

/** The server with all its processes, none of which gets to tell another or to write anything more. */
async function killWithChildren(server: PostgresServer): Promise<void> {
  process.kill(server.pid, 'SIGSTOP'); // So that it starts no more.
  const { stdout } = spawnSync('pgrep', ['-P', String(server.pid)], { encoding: 'utf8' });
  const children = stdout.split('\n').filter(Boolean).map(Number);
  expect(children.length).toBeGreaterThan(3);
  for (const child of children) process.kill(child, 'SIGKILL');
  await server.kill();
  // The next server wants the memory that they share, and they may be dying still.
  await until(() => children.every((child) => commandLineOf(child) === undefined));
}

async function withClient<T>(port: number, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres' });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const show = (port: number, names: readonly string[]) =>
  withClient(port, async (client) => {
    const values: unknown[] = [];
    for (const name of names) values.push((await client.query<Record<string, string>>(`SHOW ${name}`)).rows[0]?.[name]);
    return values;
  });

/** For the next run; the events, which nobody can delete, go with their table's trigger out of the way. */
const empty = (port: number) =>
  withClient(port, async (client) => {
    await client.query('ALTER TABLE loan_events DISABLE TRIGGER loan_events_are_final');
    await client.query('TRUNCATE loans, loan_events, idempotency_keys');
    await client.query('ALTER TABLE loan_events ENABLE ALWAYS TRIGGER loan_events_are_final');
  });

/** Mulberry32: the same seed gives the same moments. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
