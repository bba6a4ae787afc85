import { existsSync } from 'node:fs';
import { createServer, connect } from 'node:net';
import { resolve } from 'node:path';
import type { EnvironmentSpec } from './environment';
import { StepError, tryDocker } from './deploy/engine';
import { isHeard } from './ops/alertmanager';

/** What must be right outside the settings before the first resource: the engine answers and the ports are free. */
export interface Host {
  /** Address of the engine, as in DOCKER_HOST; the provider and the deploy steps use the same. */
  readonly engine: string;
  readonly warnings: readonly string[];
}

/** @throws StepError that names every fault with its remedy */
export async function preflight(spec: EnvironmentSpec, configuredEngine: string | undefined): Promise<Host> {
  const engine = configuredEngine ?? process.env['DOCKER_HOST'] ?? (await contextEngine());
  process.env['DOCKER_HOST'] = engine;
  const cores = await coresOf(engine);
  const faults = await portFaults(spec, engine);
  if (faults.length > 0) {
    throw new StepError(
      `Stack ${spec.stack} cannot be deployed, nothing was changed:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`,
    );
  }
  const wanted = Math.max(spec.api.limits.cpus, spec.database.limits.cpus);
  const warnings =
    wanted > cores
      ? [
          `The settings allow ${wanted} cores per container, the Docker host has ${cores}: it works, with less headroom.`,
        ]
      : [];
  return { engine, warnings: [...warnings, ...alertWarnings(spec), ...unread(spec)] };
}

/** @param root where the directory would lie */
export function unread({ database: { volume } }: Pick<EnvironmentSpec, 'database'>, root = PROJECT): string[] {
  if (volume.kind !== 'volume' || !existsSync(resolve(root, volume.name))) return [];
  return [
    `The directory ${volume.name} beside the project is not read: database.volume ./${volume.name} is a Docker volume. ` +
      'Its loans come over as docs/UPGRADING.md says; then move it away.',
  ];
}

const PROJECT = resolve(__dirname, '..');

/** What is missing for alerts to reach somebody who can act. Nobody wants to be paged for their own machine. */
export function alertWarnings({ stack, alerts: { receivers, runbooks } }: Pick<EnvironmentSpec, 'stack' | 'alerts'>) {
  if (stack === 'development') return [];
  if (!isHeard(receivers)) {
    return [
      "Nobody is told of this stack's alerts: set alertWebhook, alerts.mail or alerts.pager (README, Alerts). " +
        `make alerts STACK=${stack} shows them.`,
    ];
  }
  // On call, at night, a path is a search.
  if (/^https?:/.test(runbooks)) return [];
  return [
    `Alerts of ${stack} name their pages (${runbooks}) and link to none: set alerts.runbooks to the address where ` +
      'docs/runbooks is read (README, Alerts).',
  ];
}

/** The docker command line may talk to another engine than the default one; the provider does not know that. */
async function contextEngine(): Promise<string> {
  const { code, stdout } = await tryDocker(['context', 'inspect', '--format', '{{.Endpoints.docker.Host}}']);
  return (code === 0 && stdout.trim()) || 'unix:///var/run/docker.sock';
}

async function coresOf(engine: string): Promise<number> {
  const { code, stdout, stderr } = await tryDocker(['info', '--format', '{{.NCPU}}']);
  const cores = Number.parseInt(stdout, 10);
  if (code === 0 && cores > 0) return cores;
  throw new StepError(
    `No Docker engine answers at ${engine}, nothing was changed:\n  ${stderr.trim().split('\n')[0] ?? ''}\n` +
      '  Start it (systemctl start docker), or name another one: DOCKER_HOST=ssh://user@host',
  );
}

async function portFaults(spec: EnvironmentSpec, engine: string): Promise<string[]> {
  const { https, http, api } = spec.gateway.ports;
  const wanted: [string, number | undefined, string][] = [
    ['https', https, spec.gateway.address],
    ['http', http, spec.gateway.address],
    ['api', api, '127.0.0.1'],
  ];
  const ours = `${spec.prefix}-gateway`;
  const faults = await Promise.all(
    wanted.map(async ([name, port, address]) => {
      if (port === undefined) return [];
      const holder = await holderOf(port, address, ours, engine);
      return holder === undefined
        ? []
        : [
            `gateway.ports.${name}: port ${port} is in use by ${holder}: stop it, or set another port in Pulumi.${spec.stack}.yaml`,
          ];
    }),
  );
  return faults.flat();
}

/** Who holds a port of the Docker host; undefined when it is free or our own gateway has it. */
async function holderOf(port: number, address: string, ours: string, engine: string): Promise<string | undefined> {
  const { stdout } = await tryDocker(['ps', '--filter', `publish=${port}`, '--format', '{{.Names}}']);
  const names = stdout.split('\n').filter(Boolean);
  if (names.includes(ours)) return undefined;
  if (names[0] !== undefined) return `the container ${names[0]}`;
  const local = /^(unix|npipe):/.test(engine);
  return local && (await isTaken(port, address))
    ? `another program of this machine, or ${address} is not an address of it (ss -ltnp sport = :${port})`
    : undefined;
}

function isTaken(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      // Low ports need rights that the engine has and this process may lack: then ask whether somebody answers.
      if (error.code === 'EACCES') resolve(answers(port, address));
      else resolve(error.code === 'EADDRINUSE' || error.code === 'EADDRNOTAVAIL');
    });
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(false)));
  });
}

function answers(port: number, address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: address === '0.0.0.0' ? '127.0.0.1' : address, timeout: 1_000 });
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
    socket.once('timeout', () => end(false));
  });
}
