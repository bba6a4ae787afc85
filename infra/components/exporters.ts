import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as pulumi from '@pulumi/pulumi';
import { type ContainerSpec, createContainer, type Mount } from '../container';
import { MONITOR } from '../environment';
import { LABEL } from '../labels';
import { EXPORTERS } from '../ops/exporters';
import { renderProbes } from '../ops/probes';
import { createSecret, createStep } from '../step';
import type { Context } from './context';
import type { Connection } from './database';
import { Files } from './files';
import type { Images } from './images';
import type { Network } from './network';

const NOBODY = { uid: 65_534, gid: 65_534 };
const USER = `${NOBODY.uid}:${NOBODY.gid}`;
const MOUNT = '/etc/branchloans';
const CURRENT = `${MOUNT}/current`;

interface Args {
  readonly images: Images;
  readonly network: Network;
  readonly database: Connection;
  /** PEM: who vouches for the certificate of the entrance. */
  readonly authority: string;
}

type Exporter = keyof typeof EXPORTERS;
type Own = Pick<ContainerSpec, 'image' | 'entrypoint' | 'command'> &
  Partial<Pick<ContainerSpec, 'groups' | 'environment' | 'networks' | 'mounts' | 'tmpfs' | 'restartOn'>> & {
    /** Succeeds while it answers. */
    readonly test?: readonly string[];
  };

/**
 * What tells Prometheus of the parts that do not do so themselves. Nothing waits for them: a deploy goes on beside them,
 * and an exporter that is away costs its own metrics alone.
 */
export class Exporters extends pulumi.ComponentResource {
  constructor(name: string, context: Context, args: Args, opts: pulumi.ComponentResourceOptions) {
    super('branchloans:infra:Exporters', name, {}, opts);
    const { exporters } = context.spec;
    if (exporters.database) this.createOfDatabase(context, args);
    if (exporters.probes) this.createProbes(context, args);
    if (exporters.host) this.createOfHost(context, args);
    if (exporters.containers) this.createOfContainers(context, args);
    this.registerOutputs({});
  }

  private create(
    exporter: Exporter,
    { spec }: Context,
    { network }: Args,
    { test, ...own }: Own,
    dependsOn: pulumi.Resource[],
  ) {
    const { name, port } = EXPORTERS[exporter];
    createContainer(
      `${spec.prefix}-${name}`,
      spec,
      {
        component: name,
        replacement: 'unrehearsed',
        user: USER,
        limits: spec.exporters.limits,
        healthcheck: {
          ...spec.exporters.healthcheck,
          test: test ?? ['wget', '-q', '-O', '/dev/null', `http://127.0.0.1:${port}/`],
          startPeriodSeconds: 10,
        },
        networks: [{ name: network.front, alias: name }],
        stopGraceSeconds: 5,
        ...own,
      },
      { parent: this, dependsOn },
    );
  }

  private createOfDatabase(context: Context, args: Args): void {
    const { images, network, database } = args;
    const name = `${context.spec.prefix}-${EXPORTERS.database.name}`;
    const password = createSecret(`${name}-password`, undefined, { parent: this });
    const role = createStep(
      `${name}-role`,
      'monitor',
      { container: database.container.name, user: MONITOR, password },
      { parent: this, engine: context.engine, triggers: [database.container.id], dependsOn: database.ready },
    );
    const secrets = new Files(
      `${name}-secrets`,
      context,
      { files: { password }, owner: NOBODY, helperImage: images.nginx },
      { parent: this },
    );
    this.create(
      'database',
      context,
      args,
      {
        image: images.exporter('postgres-exporter'),
        entrypoint: ['/bin/postgres_exporter'],
        command: [
          `--web.listen-address=:${EXPORTERS.database.port}`,
          '--collection-timeout=8s',
          '--collector.stat_statements',
          '--collector.stat_statements.limit=50',
          `--collector.stat_statements.exclude_users=${MONITOR}`,
          // The id alone says nothing. Texts have no values in them; utility statements, which have, are not tracked.
          '--collector.stat_statements.include_query',
          '--collector.stat_statements.query_length=300',
          '--collector.stat_checkpointer',
          // Of the one database that it is connected to, which holds nothing.
          '--no-collector.stat_user_tables',
          '--no-collector.statio_user_tables',
        ],
        environment: {
          // What it shows is of the whole server, whichever database it asks.
          DATA_SOURCE_URI: `${database.host}:${database.port}/postgres?sslmode=disable`,
          DATA_SOURCE_USER: MONITOR,
          DATA_SOURCE_PASS_FILE: `${CURRENT}/password`,
        },
        networks: [{ name: network.front, alias: EXPORTERS.database.name }, { name: network.data }],
        mounts: [{ source: secrets.volume, target: MOUNT, readOnly: true }],
        restartOn: secrets.version,
      },
      [role],
    );
  }

  private createProbes(context: Context, args: Args): void {
    const { images, authority } = args;
    const { spec } = context;
    const name = `${spec.prefix}-${EXPORTERS.probes.name}`;
    const image = images.exporter('blackbox-exporter');
    const configFile = `${CURRENT}/probes.yml`;
    const files = new Files(
      `${name}-files`,
      context,
      {
        files: {
          'probes.yml': renderProbes({ url: spec.url, authorityFile: `${CURRENT}/authority.pem` }),
          'authority.pem': authority,
        },
        owner: NOBODY,
        helperImage: images.nginx,
        check: image.apply((resolved) => ({
          image: resolved,
          user: USER,
          mountedAt: MOUNT,
          command: ['/bin/blackbox_exporter', `--config.file=${configFile}`, '--config.check'],
        })),
        reload: { container: name, signal: 'HUP' },
      },
      { parent: this },
    );
    this.create(
      'probes',
      context,
      args,
      {
        image,
        entrypoint: ['/bin/blackbox_exporter'],
        command: [`--config.file=${configFile}`, `--web.listen-address=:${EXPORTERS.probes.port}`],
        mounts: [{ source: files.volume, target: MOUNT, readOnly: true }],
      },
      [files],
    );
  }

  private createOfHost(context: Context, args: Args): void {
    const { spec } = context;
    const data: Mount = {
      source: args.database.files,
      target: '/database',
      kind: spec.database.volume.kind === 'directory' ? 'bind' : 'volume',
      readOnly: true,
    };
    this.create(
      'host',
      context,
      args,
      {
        image: args.images.exporter('node-exporter'),
        entrypoint: ['sh', '-c', OWN_VIEW_AND_HOST_NETWORK, 'start'],
        command: [
          `--web.listen-address=:${EXPORTERS.host.port}`,
          '--path.procfs=/tmp/proc',
          '--collector.disable-defaults',
          ...['cpu', 'loadavg', 'meminfo', 'diskstats', 'filesystem', 'netdev', 'timex', 'pressure', 'vmstat'].map(
            (collector) => `--collector.${collector}`,
          ),
          // Where the engine keeps the file, and where the database lies. Their numbers are those of the whole file system.
          '--collector.filesystem.mount-points-include=^(/etc/hosts|/database)$',
          '--no-collector.netdev.netlink',
          '--collector.netdev.device-exclude=^(lo|ifb.*|veth.*|br-.*|docker.*)$',
        ],
        mounts: [{ source: '/proc/1/net', target: '/host/net', kind: 'bind', readOnly: true }, data],
        tmpfs: { '/tmp': 1 },
      },
      [],
    );
  }

  private createOfContainers(context: Context, args: Args): void {
    const { images } = args;
    const { spec, engine } = context;
    const name = `${spec.prefix}-${EXPORTERS.containers.name}`;
    const { socket } = spec.exporters;
    const group = createStep(
      `${name}-socket`,
      'socket',
      { path: socket, helperImage: images.nginx },
      // Asked again whenever anything of it changes: an update that did nothing would leave no group in the state.
      { parent: this, engine, triggers: [socket, engine] },
    );
    const program = 'containers.mjs';
    const files = new Files(
      `${name}-files`,
      context,
      {
        files: { [program]: readFileSync(resolve(__dirname, '../exporters', program), 'utf8') },
        owner: NOBODY,
        helperImage: images.nginx,
      },
      { parent: this },
    );
    const { port } = EXPORTERS.containers;
    this.create(
      'containers',
      context,
      args,
      {
        image: images.exporter('node'),
        groups: [group.stdout],
        entrypoint: ['node', '--max-old-space-size=32'],
        command: [`${CURRENT}/${program}`, SOCKET, `${LABEL}.environment=${spec.prefix}`, String(port)],
        // The image has neither curl nor wget.
        test: [
          'bash',
          '-c',
          `exec 3<>/dev/tcp/127.0.0.1/${port} && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ok <&3`,
        ],
        mounts: [
          { source: files.volume, target: MOUNT, readOnly: true },
          { source: socket, target: SOCKET, kind: 'bind', readOnly: true },
        ],
        restartOn: files.version,
      },
      [],
    );
  }
}

/** Inside the container. */
const SOCKET = '/run/docker.sock';

/**
 * /proc shows a container most of what the host's own shows, but the network of the container. The host's comes from
 * outside, so that nothing else of the host need be mounted: neither its processes nor its files.
 */
const OWN_VIEW_AND_HOST_NETWORK = `set -eu
mkdir -p /tmp/proc
cd /tmp/proc
for name in stat loadavg meminfo diskstats vmstat pressure self cpuinfo; do ln -sfn "/proc/$name" "$name"; done
ln -sfn /host/net net
exec /bin/node_exporter "$@"`;
