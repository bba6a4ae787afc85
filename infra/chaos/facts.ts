import { docker, StepError, tryDocker } from '../deploy/engine';
import { LABEL } from '../labels';
import { environmentOf, imageOf, ourContainers } from '../operator';
import { type Container, type Facts, labels, type Network } from './experiments';

/** What there is to break, and with what: asked of the engine before the first fault. */

interface Inspected {
  readonly Name: string;
  readonly Image: string;
  readonly State: { readonly Status: string };
  readonly Config: { readonly User: string; readonly Labels: Readonly<Record<string, string>> };
  readonly HostConfig: { readonly CpuQuota: number; readonly CpuPeriod: number };
}

/** @throws StepError when the stack does not run in containers here */
export async function factsOf(stack: string): Promise<Facts> {
  const { prefix, database, api: settings } = environmentOf(stack);
  const ids = (await ourContainers(stack, ['--quiet'])).split('\n').filter(Boolean);
  const found =
    ids.length === 0 ? [] : (JSON.parse(await docker('Looking at the stack', ['inspect', ...ids])) as Inspected[]);
  const of = (component: string) =>
    found.filter(({ Config }) => Config.Labels[`${LABEL}.component`] === component).map(toContainer);
  const [server] = of('database');
  const [gateway] = of('gateway');
  const api = of('api').sort((a, b) => (a.name < b.name ? -1 : 1));
  if (server === undefined || gateway === undefined || api.length === 0) {
    throw new StepError(
      `${stack} does not run in containers on this engine, nothing was done: make up STACK=${stack} (all of it runs then)`,
    );
  }
  const question = `SELECT rolconnlimit FROM pg_roles WHERE rolname = '${database.user}'`;
  const psql = ['psql', '--no-psqlrc', '--tuples-only', '--no-align', '--dbname', 'postgres', '--command', question];
  const roleLimit = Number.parseInt(await docker('Asking the database', ['exec', server.name, ...psql]), 10);
  return {
    ...{ prefix, api, database: server, gateway, prometheus: of('prometheus')[0] },
    capacity: settings.capacity === undefined ? undefined : settings.capacity * api.length,
    ...{ databaseName: database.name, role: database.user, roleLimit },
    freeMib: await ownSpace(server.name),
    network: await networkTools(prefix, imageOf(stack, 'netshoot')),
  };
}

function toContainer({ Name, Image, Config, HostConfig }: Inspected): Container {
  const { CpuQuota: cpuQuota, CpuPeriod: cpuPeriod } = HostConfig;
  return { name: Name.slice(1), image: Image, user: Config.User, cpuQuota, cpuPeriod: cpuPeriod || 100_000 };
}

/** Free MiB, where the files have a file system of their own: not the one of the engine, whose files lie there too. */
async function ownSpace(database: string): Promise<number | undefined> {
  // The engine mounts its own files, such as /etc/hostname, from where it keeps the volumes as well.
  const script = 'stat -c %d /var/lib/postgresql /etc/hostname && df -Pm /var/lib/postgresql | tail -n 1';
  const { code, stdout } = await tryDocker(['exec', database, 'sh', '-c', script]);
  const [files, engine, space = ''] = stdout.split('\n');
  if (code !== 0 || files === engine) return undefined;
  const free = Number(space.trim().split(/\s+/)[3]);
  return Number.isFinite(free) ? free : undefined;
}

/** Tries the tools out in a network of nobody. */
async function networkTools(prefix: string, image: string): Promise<Network> {
  if ((await tryDocker(['image', 'inspect', image])).code !== 0) {
    const { code, stderr } = await tryDocker(['pull', '--quiet', image]);
    if (code !== 0)
      return { missing: `the image ${image} cannot be pulled: ${stderr.trim().split('\n').at(-1) ?? ''}` };
  }
  const works = async (command: string) => {
    const run = ['run', '--rm', ...labels({ prefix }), '--network', 'none', '--user', '0', '--cap-drop', 'ALL'];
    const more = ['--cap-add', 'NET_ADMIN', '--cap-add', 'NET_RAW', '--entrypoint', 'sh', image, '-c', command];
    return (await tryDocker([...run, ...more])).code === 0;
  };
  if (!(await works('iptables -A INPUT -m comment --comment x -j DROP'))) {
    return { missing: `iptables of ${image} does not work on this kernel` };
  }
  const netem = await works('tc qdisc add dev lo root netem delay 1ms');
  const statistic = await works('iptables -A INPUT -m statistic --mode random --probability 0.1 -j DROP');
  return { image, netem, statistic };
}
