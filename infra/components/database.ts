import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import { DATABASE_ROLES } from '../../app/config';
import { createContainer } from '../container';
import { POSTGRES_LOG } from '../ops/postgres';
import { createSecret, createStep } from '../step';
import type { Context } from './context';
import type { Images } from './images';
import type { Network } from './network';

/** What a consumer of the database must know. */
export interface Connection {
  readonly host: string;
  readonly port: number;
  readonly name: string;
  /** Of the service. */
  readonly user: string;
  readonly password: pulumi.Output<string>;
  /** Owns the database, and is for the migrations only. */
  readonly owner: { readonly user: string; readonly password: pulumi.Output<string> };
  /** Where its files lie: others hold another database, or none yet. */
  readonly files: pulumi.Output<string>;
  /** Name and id of its container. */
  readonly container: docker.Container;
  /** Resolves when roles, passwords and database are as described. */
  readonly ready: pulumi.Resource;
}

const OWNER = '999:999';
const HOME = '/var/lib/postgresql';
const MAJOR = 18;

/**
 * PostgreSQL with its files in a volume (or a directory of the host) that outlives the stack. It knows no
 * password at start: the superuser comes in by the local socket only, and a step makes the roles.
 */
export class Database extends pulumi.ComponentResource {
  readonly connection: Connection;

  constructor(
    name: string,
    context: Context,
    { images, network }: { images: Images; network: Network },
    opts: pulumi.ComponentResourceOptions,
  ) {
    super('branchloans:infra:Database', name, {}, opts);
    const { spec, engine } = context;
    const { volume, ...database } = spec.database;

    const source =
      volume.kind === 'directory'
        ? pulumi.output(volume.path)
        : // Outlives `pulumi destroy`; no labels, since a change of them would mount a new, empty volume.
          new docker.Volume(volume.name, { name: volume.name }, { parent: this, retainOnDelete: true }).name;
    const owned = createStep(
      `${name}-directory`,
      'own',
      { source, target: HOME, owner: OWNER, helperImage: images.postgres },
      { parent: this, engine, triggers: [source], onlyTriggered: true },
    );

    const memoryMib = database.limits.memoryMib;
    const container = createContainer(
      name,
      spec,
      {
        component: 'database',
        // Two servers on the same files would destroy them.
        replacement: { engine, fits: ['sh', '-c', FITS], settle: CHECKPOINT },
        image: images.postgres,
        user: OWNER,
        entrypoint: ['sh', '-c', START, 'start'],
        command: serverSettings(memoryMib, database.maxConnections),
        environment: {
          PGDATA: `${HOME}/${MAJOR}/docker`,
          MAJOR: String(MAJOR),
          PGHOST: '/tmp',
          PGUSER: 'postgres',
        },
        limits: database.limits,
        healthcheck: {
          ...database.healthcheck,
          test: ['pg_isready', '--quiet', '--dbname', 'postgres'],
          startPeriodSeconds: 60,
        },
        networks: [{ name: network.data, alias: 'database' }],
        mounts: [{ source, target: HOME, kind: volume.kind === 'directory' ? 'bind' : 'volume', readOnly: false }],
        tmpfs: { '/tmp': 16 },
        sharedMemoryMib: Math.max(64, Math.floor(memoryMib / 4)),
        // Fast shutdown: end sessions, write a checkpoint. SIGTERM would wait for clients to leave.
        stopSignal: 'SIGINT',
        stopGraceSeconds: 60,
      },
      { parent: this, dependsOn: [owned] },
    );

    const password = createSecret(`${name}-password`, context.configuredSecret('databasePassword'), { parent: this });
    const ownerPassword = createSecret(`${name}-owner-password`, undefined, { parent: this });
    const { name: databaseName, user } = database;
    const ready = createStep(
      `${name}-roles`,
      'roles',
      {
        ...{ container: container.name, database: databaseName, readyWithinSeconds: 120 },
        ...{ user, password, ownerPassword },
      },
      { parent: this, engine, triggers: [container.id] },
    );
    this.connection = {
      host: 'database',
      port: 5432,
      name: databaseName,
      user,
      password,
      owner: { user: DATABASE_ROLES.owner, password: ownerPassword },
      files: source,
      container,
      ready,
    };
    this.registerOutputs({ host: this.connection.host });
  }
}

/**
 * Makes the cluster beside its final place and moves it there, so that a crash leaves none rather than half of
 * one; refuses files of another major version instead of starting empty next to them.
 */
const START = `set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  others=$(find "$(dirname "$(dirname "$PGDATA")")" -mindepth 1 -maxdepth 3 -name PG_VERSION -path '*/docker/*' | head -n 1)
  if [ -n "$others" ] || [ -s "$(dirname "$(dirname "$PGDATA")")/PG_VERSION" ]; then
    echo "This volume holds a database of another PostgreSQL version than $MAJOR: upgrade it with pg_upgrade, or restore a dump. Nothing was changed." >&2
    exit 1
  fi
  if [ -d "$PGDATA" ] && [ -n "$(ls -A "$PGDATA")" ]; then
    echo "$PGDATA holds files but no database (PG_VERSION is missing): restore it, or move these files away. Nothing was changed." >&2
    exit 1
  fi
  rm -rf "$PGDATA.new"
  mkdir -p "$PGDATA.new"
  initdb --pgdata "$PGDATA.new" --username postgres --auth-local peer --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8 --data-checksums
  sync
  mv -T "$PGDATA.new" "$PGDATA"
fi
printf 'local all postgres peer\\nhost all all all scram-sha-256\\n' > /tmp/pg_hba.conf
exec postgres -D "$PGDATA" "$@"`;

/** Run by an image that is to come, on the files that are there. */
const FITS = `set -eu
[ -s "$PGDATA/PG_VERSION" ] || exit 0
files=$(cat "$PGDATA/PG_VERSION")
server=$(postgres --version | sed -E 's/^[^0-9]*([0-9]+).*/\\1/')
[ "$files" = "$server" ] || {
  echo "The database's files are of PostgreSQL $files, the image has PostgreSQL $server: upgrade them with pg_upgrade, or restore a dump." >&2
  exit 1
}`;

/** A server stops once all is on disk: most of it is written while it still serves. */
const CHECKPOINT = ['psql', '--no-psqlrc', '--quiet', '--dbname', 'postgres', '--command', 'CHECKPOINT'];

function serverSettings(memoryMib: number, maxConnections: number): string[] {
  const settings: Record<string, string> = {
    hba_file: '/tmp/pg_hba.conf',
    unix_socket_directories: '/tmp',
    listen_addresses: '*',
    max_connections: String(maxConnections),
    shared_buffers: `${Math.floor(memoryMib / 4)}MB`,
    effective_cache_size: `${Math.floor((memoryMib * 3) / 4)}MB`,
    password_encryption: 'scram-sha-256',
    ...POSTGRES_LOG,
    timezone: 'UTC',
    // How often and how long, for the monitoring. Utility statements are left out: their texts may hold a password.
    shared_preload_libraries: 'pg_stat_statements',
    'pg_stat_statements.max': '1000',
    'pg_stat_statements.track_utility': 'off',
  };
  return Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]);
}
