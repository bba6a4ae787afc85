import { Resolver } from 'node:dns/promises';
import { hostname, networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** The part of node:dns that is asked. */
export interface NameService {
  getServers(): string[];
  /** Rejects where there is no such name. */
  resolvePtr(name: string): Promise<string[]>;
}

/** Where Docker's own name service listens in each container of a network that was created for it. */
const DOCKER_NAME_SERVICE = '127.0.0.11';
/** Milliseconds. Less than Prometheus waits for an answer, and more than a busy engine needs. */
const PATIENCE = 8_000;
const QUESTION = { timeout: 1_000, tries: 1 };
const PAUSE = 250;

/**
 * The name of the container that this process runs in, as `docker ps` shows it. Unlike its address it is never given to
 * another container, so it tells the series of one container from those of the next. Docker knows it by the container's
 * address: the answer is `<container>.<network>`.
 * @returns the container's id where Docker does not answer in time; undefined where there is no Docker. Never rejects.
 */
export async function containerName(
  service: NameService = new Resolver(QUESTION),
  addresses: readonly string[] = ownAddresses(),
  id: string = hostname(),
  patience = PATIENCE,
): Promise<string | undefined> {
  if (!service.getServers().includes(DOCKER_NAME_SERVICE)) return undefined;
  const questions = addresses.map((address) => `${address.split('.').toReversed().join('.')}.in-addr.arpa`);
  const deadline = performance.now() + patience;
  while (questions.length > 0 && performance.now() < deadline) {
    const answers = await Promise.allSettled(questions.map((question) => service.resolvePtr(question)));
    const names = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const name = names.map((full) => /^[\w-]+(?=[.])/.exec(full)?.[0]).find((known) => known !== undefined);
    if (name !== undefined) return name;
    await sleep(PAUSE, undefined, { ref: false });
  }
  return id;
}

/** IPv4 only: Docker gives one to every container. */
function ownAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses = []) => addresses)
    .filter(({ family, internal }) => family === 'IPv4' && !internal)
    .map(({ address }) => address);
}
