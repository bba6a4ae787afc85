import { Resolver } from 'node:dns/promises';
import { hostname, networkInterfaces } from 'node:os';

/** The part of node:dns that is asked. */
export interface NameService {
  getServers(): string[];
  /** Rejects where there is no such name. */
  resolvePtr(name: string): Promise<string[]>;
}

/** Where Docker's own name service listens in each container of a network that was created for it. */
const DOCKER_NAME_SERVICE = '127.0.0.11';
const PATIENCE = { timeout: 500, tries: 2 };

/**
 * The name of the container that this process runs in, as `docker ps` shows it. Unlike its address it is never given to
 * another container, so it tells the series of one container from those of the next. Docker knows it by the container's
 * address: the answer is `<container>.<network>`.
 * @returns the container's id where Docker does not answer; undefined where there is no Docker
 */
export async function containerName(
  service: NameService = new Resolver(PATIENCE),
  addresses: readonly string[] = ownAddresses(),
  id: string = hostname(),
): Promise<string | undefined> {
  if (!service.getServers().includes(DOCKER_NAME_SERVICE)) return undefined;
  const asked = addresses.map(async (address) => {
    const [name] = await service.resolvePtr(`${address.split('.').toReversed().join('.')}.in-addr.arpa`);
    return /^[\w-]+(?=[.])/.exec(name ?? '')?.[0] ?? Promise.reject(new Error(`no name for ${address}`));
  });
  return Promise.any(asked).catch(() => id);
}

/** IPv4 only: Docker gives one to every container. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses = []) => addresses)
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ address }) => address);
}
