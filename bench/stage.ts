import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { dataDirectoryOf, isOutside, placeAt } from '../infra/embedded/environment';
import { freePort } from '../infra/embedded/ports';
import { findPostgres, openDirectory, startPostgres } from '../infra/embedded/postgres';
import type { DataSet } from './data';

/** Where the contenders appear: one real Postgres with shipped settings (fsync on), and a folder for all that is made. */
export interface Stage {
  /** Absolute. */
  readonly directory: string;
  readonly postgres: { readonly pid: number; readonly port: number };
}

export const ROOT = join(__dirname, '..');

/** The data is kept there until somebody removes it. */
const DIRECTORY = join(ROOT, '.local', 'bench');

/** Runs the work on the server, which ends with it unless it was running before. */
export async function onStage<T>(work: (stage: Stage) => Promise<T>): Promise<T> {
  mkdirSync(DIRECTORY, { recursive: true });
  const place = placeAt(DIRECTORY);
  const directory = dataDirectoryOf(place);
  if (isOutside(place, directory)) openDirectory(dirname(directory));
  const found = findPostgres(directory);
  const server =
    found ?? (await startPostgres({ directory, port: await freePort(), detachedLogFile: place.postgresLog }));
  try {
    return await work({ directory: DIRECTORY, postgres: server });
  } finally {
    if (found === undefined) await server.stop();
  }
}

/** What a contender on this stage is told about its database, in the names of app/config.ts. */
export function databaseSettings({ postgres }: Pick<Stage, 'postgres'>, { database }: DataSet) {
  return {
    DATABASE_HOST: '127.0.0.1',
    DATABASE_PORT: String(postgres.port),
    DATABASE_NAME: database,
    DATABASE_USER: 'postgres',
  } as const;
}
