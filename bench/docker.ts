import { docker, tryDocker } from '../infra/deploy/engine';
import { freePort } from '../infra/embedded/ports';
import images from '../infra/images.json';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DataSet, sql } from './data';
import { SERVICE, untilAnswers } from './contenders';
import { databaseSettings, ROOT, type Stage } from './stage';

/** API and database in containers under the limits of the development environment. */
export const LIMITS = { cpus: 1, memory: '512m' } as const;

const IMAGE = 'branchloans-bench-api';
/** Where the official image keeps its volume. */
const FILES = '/var/lib/postgresql';
/** The containers listen on the loopback address of the host, and nobody else can reach them. */
const CONTAINER = [
  ...['--network', 'host', '--cpus', String(LIMITS.cpus)],
  ...['--memory', LIMITS.memory, '--memory-swap', LIMITS.memory],
];

/** Why there are no containers. */
export class NoDocker extends Error {}

export interface Image {
  readonly name: string;
  readonly bytes: number;
  /** Of the image that it stands on. */
  readonly baseBytes: number;
}

/** Builds the API's image. @throws NoDocker */
export async function buildImage(): Promise<Image> {
  const { code } = await tryDocker(['info']).catch(() => ({ code: 1 }));
  if (code !== 0) throw new NoDocker('no Docker engine answers');
  const flags = ['--network', 'host', '--file', 'app/Dockerfile', '--build-arg', `NODE_IMAGE=${images.node}`];
  const { code: built, stderr } = await tryDocker(['build', ...flags, '--tag', IMAGE, ROOT]);
  if (built !== 0) throw new NoDocker(`the image cannot be built: ${stderr.trim().split('\n').at(-1) ?? ''}`);
  return { name: IMAGE, bytes: await sizeOf(IMAGE), baseBytes: await sizeOf(images.node) };
}

async function sizeOf(image: string): Promise<number> {
  return Number(await docker(`looking at ${image}`, ['image', 'inspect', '--format', '{{.Size}}', image]));
}

/**
 * Postgres as the stack starts it, but with a volume that keeps its data for the next run, and without a password.
 * @throws NoDocker
 */
export async function withLimitedPostgres<T>(stage: Stage, work: (limited: Stage) => Promise<T>): Promise<T> {
  const port = await freePort();
  const start = `set -eu
    [ -s "$PGDATA/PG_VERSION" ] || initdb --username postgres --auth trust --encoding UTF8 --locale C.UTF-8 --data-checksums
    exec postgres -c listen_addresses=127.0.0.1 -c port=${port} -c unix_socket_directories=/tmp \
      -c shared_buffers=128MB -c effective_cache_size=384MB`;
  const volume = [
    '--volume',
    `branchloans-bench:${FILES}`,
    '--shm-size',
    '128m',
    '--user',
    'postgres',
    '--env',
    `PGDATA=${FILES}/18/docker`,
  ];
  const id = await run([...volume, '--entrypoint', 'sh', images.postgres, '-c', start]);
  try {
    await untilReady(id, () => sql(port, 'postgres', ['SELECT 1']));
    const pid = Number(await docker('looking at Postgres', ['inspect', '--format', '{{.State.Pid}}', id]));
    return await work({ ...stage, postgres: { port, pid } });
  } finally {
    await tryDocker(['stop', '--time', '30', id]);
    await tryDocker(['rm', '--force', id]);
  }
}

/** The API as one process, as its share of a CPU wants. */
export async function withLimitedApi<T>(image: Image, stage: Stage, data: DataSet, work: (port: number) => Promise<T>) {
  const port = await freePort();
  const settings = {
    ...SERVICE,
    HOST: '127.0.0.1',
    PORT: String(port),
    PROCESSES: '1',
    ...databaseSettings(stage, data),
  };
  const environment = Object.entries(settings).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
  const id = await run(['--read-only', ...environment, image.name]);
  try {
    await untilReady(id, () => untilAnswers(port, 1_000));
    return await work(port);
  } finally {
    await tryDocker(['rm', '--force', id]);
  }
}

async function run(args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await tryDocker(['run', '--detach', ...CONTAINER, ...args]);
  if (code !== 0) throw new NoDocker(stderr.trim());
  return stdout.trim();
}

async function untilReady(id: string, ask: () => Promise<unknown>): Promise<void> {
  const deadline = performance.now() + 60_000;
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (performance.now() > deadline) {
        const { stdout, stderr } = await tryDocker(['logs', '--tail', '20', id]);
        throw new Error(`A container does not get ready:\n${stdout}${stderr}`, { cause: error });
      }
      await sleep(100);
    }
  }
}
