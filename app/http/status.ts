import type { Database, Statement } from '../db/pool';
import type { ApplicationStatus } from './contract/system';

interface Parts {
  readonly database: Database;
  readonly release: { readonly version: string; readonly commit: string; readonly environment: string };
  /** The schema version that this release brings. */
  readonly newestMigration: number;
  readonly now: () => Date;
  readonly isDraining: () => boolean;
}

const SELECT_ONE: Statement<{ ready: string }> = { name: 'status_ping', text: "SELECT 't' AS ready" };
const SCHEMA_VERSION: Statement<{ version: string | null }> = {
  name: 'status_schema',
  text: 'SELECT max(version) AS version FROM schema_migrations',
};
/** Everybody may ask, and the database has one connection for such questions. */
const KEEP_MS = 1_000;

/** How the application is, found out once a second at most, however many ask. Never rejects. */
export function createStatus({ database, release, newestMigration, now, isDraining }: Parts) {
  const started = { at: now().toISOString(), clock: performance.now() };
  let kept: { readonly at: number; readonly database: Promise<ApplicationStatus['database']> } | undefined;

  async function askDatabase(): Promise<ApplicationStatus['database']> {
    const askedAt = performance.now();
    const known = { release_schema_version: newestMigration };
    try {
      await database.ping(SELECT_ONE);
    } catch {
      return { status: 'down', latency_ms: null, schema_version: null, ...known };
    }
    const latency_ms = milliseconds(performance.now() - askedAt);
    // Before the first migration there is no such table.
    const [row] = await database.probe(SCHEMA_VERSION).catch(() => []);
    const schema_version = typeof row?.version === 'string' ? Number(row.version) : null;
    return { status: 'up', latency_ms, schema_version, ...known };
  }

  return async function status(): Promise<ApplicationStatus> {
    if (kept === undefined || performance.now() - kept.at > KEEP_MS) {
      kept = { at: performance.now(), database: askDatabase() };
    }
    const database = await kept.database;
    // A newer schema is no fault: an older release runs on it after a roll-back.
    const whole = database.schema_version !== null && database.schema_version >= newestMigration;
    return {
      status: isDraining() ? 'shutting-down' : whole ? 'ok' : 'degraded',
      timestamp: now().toISOString(),
      version: release.version,
      commit: release.commit,
      environment: release.environment,
      started_at: started.at,
      uptime_seconds: Math.round(performance.now() - started.clock) / 1_000,
      database,
    };
  };
}

export type Status = ReturnType<typeof createStatus>;

function milliseconds(duration: number): number {
  return Math.round(duration * 1_000) / 1_000;
}
