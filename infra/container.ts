import { createHash } from 'node:crypto';
import * as docker from '@pulumi/docker';
import * as pulumi from '@pulumi/pulumi';
import type { Healthcheck, Limits } from './environment';
import { guarded } from './guardrails';
import { LABEL, labelsOf } from './labels';
import { createStep } from './step';

/**
 * The one way to a container in this program. It decides hardening, limits, health, logs and what happens on
 * replacement; callers say what runs. Spellings are those that the engine reports back, so that a second `up`
 * and a refresh find nothing to change.
 */
export interface ContainerSpec {
  /** Which part of the stack this is; a label, and what `make logs` and `make status` filter by. */
  readonly component: string;
  /**
   * How a new version takes over.
   * - `beside`: the new container starts next to the old one, which goes last. Needs no fixed name and no port.
   * - in place: the old container stops first. For what owns files or ports; a short outage, after a rehearsal.
   * - `unrehearsed`: the same without the rehearsal. For what nobody waits for.
   */
  readonly replacement: 'beside' | 'unrehearsed' | InPlace;
  /** An id or digest. Changing it replaces the container. */
  readonly image: pulumi.Input<string>;
  /** Numeric `uid:gid`, never root. */
  readonly user: string;
  /** Further groups by their numbers. */
  readonly groups?: readonly pulumi.Input<string>[];
  readonly entrypoint: readonly string[];
  readonly command?: readonly pulumi.Input<string>[];
  /** Never secrets: they would be readable by `docker inspect`. Changing it replaces the container. */
  readonly environment?: Readonly<Record<string, pulumi.Input<string>>>;
  readonly limits: Limits;
  readonly healthcheck: Healthcheck & { readonly test: readonly string[]; readonly startPeriodSeconds: number };
  readonly networks: readonly { readonly name: pulumi.Input<string>; readonly alias?: string }[];
  readonly mounts?: readonly Mount[];
  /** Writable paths in memory, with their size in MiB. Everything else is read-only. */
  readonly tmpfs?: Readonly<Record<string, number>>;
  readonly ports?: readonly { readonly internal: number; readonly external: number; readonly address: string }[];
  /** From SIGTERM to SIGKILL. Taken from the running container, so a change counts from the next replacement on. */
  readonly stopGraceSeconds: number;
  readonly stopSignal?: string;
  /** Mebibytes of /dev/shm. */
  readonly sharedMemoryMib?: number;
  /** A change of this text replaces the container: for files that are read only at start. */
  readonly restartOn?: pulumi.Input<string>;
}

/** How a container is replaced in place; see deploy/rehearse.ts for what happens before the old one stops. */
export interface InPlace {
  /** Address of the engine. */
  readonly engine: string;
  /** Run by a new image with all mounts, read-only, and the environment; its failure refuses the image. */
  readonly fits?: readonly string[];
  /** Run in the old container right before it goes, so that it stops sooner. */
  readonly settle?: readonly string[];
}

export interface Mount {
  readonly source: pulumi.Input<string>;
  readonly target: string;
  readonly kind?: 'volume' | 'bind';
  readonly readOnly: boolean;
}

export function createContainer(
  name: string,
  environment: { readonly stack: string; readonly prefix: string },
  spec: ContainerSpec,
  opts: pulumi.CustomResourceOptions,
): docker.Container {
  const { replacement } = spec;
  const args: docker.ContainerArgs = {
    ...(replacement === 'beside' ? {} : { name }),
    image: spec.image,
    user: spec.user,
    ...(spec.groups === undefined ? {} : { groupAdds: [...spec.groups] }),
    entrypoints: [...spec.entrypoint],
    ...(spec.command ? { command: [...spec.command] } : {}),
    envs: Object.entries(spec.environment ?? {})
      // Not set, rather than set to nothing: the image's own default holds.
      .filter(([, value]) => value !== '')
      .map(([key, value]) => pulumi.interpolate`${key}=${value}`),
    labels: [
      ...Object.entries(labelsOf(environment, spec.component)).map(([label, value]) => ({ label, value })),
      ...(spec.restartOn === undefined ? [] : [{ label: `${LABEL}.files`, value: spec.restartOn }]),
    ],
    ...limitArgs(spec.limits),
    healthcheck: {
      tests: ['CMD', ...spec.healthcheck.test],
      interval: goDuration(spec.healthcheck.intervalSeconds),
      timeout: goDuration(spec.healthcheck.timeoutSeconds),
      retries: spec.healthcheck.retries,
      startPeriod: goDuration(spec.healthcheck.startPeriodSeconds),
    },
    networksAdvanced: spec.networks.map(({ name: network, alias }) => ({
      name: network,
      ...(alias === undefined ? {} : { aliases: [alias] }),
    })),
    mounts: (spec.mounts ?? []).map(({ source, target, kind, readOnly }) => ({
      type: kind ?? 'volume',
      source,
      target,
      readOnly,
    })),
    tmpfs: Object.fromEntries(
      Object.entries(spec.tmpfs ?? {}).map(([path, mib]) => [path, tmpfsOptions(mib, spec.user)]),
    ),
    ports: (spec.ports ?? []).map(({ internal, external, address }) => ({ internal, external, ip: address })),
    readOnly: true,
    capabilities: { drops: ['ALL'] },
    securityOpts: ['no-new-privileges:true'],
    // Open files are left to the engine: a host may not allow what another one needs.
    ulimits: [{ name: 'core', soft: 0, hard: 0 }],
    ...(spec.sharedMemoryMib === undefined ? {} : { shmSize: spec.sharedMemoryMib }),
    ...(spec.stopSignal === undefined ? {} : { stopSignal: spec.stopSignal }),
    // on-failure with a limit gives up for ever after a few seconds of a database that is away.
    restart: 'unless-stopped',
    stopTimeout: spec.stopGraceSeconds,
    // Without this every delete is a SIGKILL, whatever stopTimeout says.
    destroyGraceSeconds: spec.stopGraceSeconds,
    logDriver: 'json-file',
    logOpts: { 'max-size': '10m', 'max-file': '3' },
    mustRun: true,
  };
  const checked = guarded(name, args);
  const rehearsal =
    typeof replacement === 'string' ? undefined : createRehearsal(name, environment, spec, replacement, checked, opts);
  return new docker.Container(name, checked, {
    ...opts,
    deleteBeforeReplace: replacement !== 'beside',
    // Nothing is deleted before the rehearsal is over.
    ...(rehearsal ? { dependsOn: rehearsal } : {}),
    replaceOnChanges: replacesOn(spec.limits),
  });
}

/** Runs when something changes that replaces the container. Waits for all that the container would wait for. */
function createRehearsal(
  name: string,
  environment: { readonly stack: string; readonly prefix: string },
  spec: ContainerSpec,
  { engine, fits, settle }: InPlace,
  args: docker.ContainerArgs,
  opts: pulumi.CustomResourceOptions,
): pulumi.Resource {
  const { healthcheck } = spec;
  return createStep(
    `${name}-rehearsal`,
    'rehearse',
    {
      container: name,
      component: spec.component,
      image: pulumi.unsecret(pulumi.output(args.image)),
      user: spec.user,
      entrypoint: spec.entrypoint,
      command: pulumi.output([...(spec.command ?? [])]),
      environment: pulumi.output(args.envs).apply((envs) => envs ?? []),
      limits: spec.limits,
      tmpfs: pulumi.output(args.tmpfs).apply((paths) => paths ?? {}),
      ...(spec.sharedMemoryMib === undefined ? {} : { sharedMemoryMib: spec.sharedMemoryMib }),
      mounts: pulumi.output([...(spec.mounts ?? [])]),
      healthcheck: { test: healthcheck.test, timeoutSeconds: healthcheck.timeoutSeconds },
      readyWithinSeconds: healthcheck.startPeriodSeconds + healthcheck.intervalSeconds * healthcheck.retries,
      ...(spec.stopSignal === undefined ? {} : { stopSignal: spec.stopSignal }),
      stopGraceSeconds: spec.stopGraceSeconds,
      labels: labelsOf(environment, 'rehearsal'),
      ...(fits ? { fits } : {}),
      ...(settle ? { settle } : {}),
    },
    { ...opts, engine, triggers: [fingerprint(args)], onlyTriggered: true, speaks: true },
  );
}

/** What is applied to a running container; everything else replaces it. A reservation that goes needs no rehearsal. */
const APPLIED = ['memory', 'memorySwap', 'memoryReservation', 'cpuShares', 'restart', 'destroyGraceSeconds'];

/** Of all that replaces the container. No secret, though it may be made from hashes of secret files. */
function fingerprint(args: docker.ContainerArgs): pulumi.Output<string> {
  const hash = pulumi.output(args).apply((resolved) => {
    const replacing = Object.entries(resolved).filter(([key]) => !APPLIED.includes(key));
    return createHash('sha256').update(JSON.stringify(replacing)).digest('hex');
  });
  return pulumi.unsecret(hash);
}

/** What replaces the container, besides what does so with any program. */
export function replacesOn({ memoryReservationMib, cpuShares }: Limits): string[] {
  return [
    // The provider says that it updates these in place, but sends nothing to the engine: without `mounts` a database
    // that is to move to another volume would go on with the old one.
    ...['healthcheck', 'tmpfs', 'cpuPeriod', 'cpuQuota', 'init', 'mounts'],
    // The engine takes another value while the container runs, but has no word for none: it would keep the old one.
    ...(memoryReservationMib === undefined ? ['memoryReservation'] : []),
    ...(cpuShares === undefined ? ['cpuShares'] : []),
  ];
}

const CPU_PERIOD_MICROSECONDS = 100_000;

/**
 * A quota over a period, not `cpus`: the engine refuses more `cpus` than the host has, while a quota lets the
 * production settings start on a small host too.
 */
function limitArgs({ cpus, memoryMib, memoryReservationMib, cpuShares }: Limits) {
  return {
    cpuPeriod: CPU_PERIOD_MICROSECONDS,
    cpuQuota: Math.round(cpus * CPU_PERIOD_MICROSECONDS),
    memory: memoryMib,
    // Equal to memory: no swap. Left out, it would differ from what the engine reports after a refresh.
    memorySwap: memoryMib,
    ...(memoryReservationMib === undefined ? {} : { memoryReservation: memoryReservationMib }),
    ...(cpuShares === undefined ? {} : { cpuShares }),
  };
}

/** As Go prints a duration and the engine reports it: 90 -> "1m30s". */
export function goDuration(seconds: number): string {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  const rest = seconds % 60;
  if (hours > 0) return `${hours}h${minutes}m${rest}s`;
  return minutes > 0 ? `${minutes}m${rest}s` : `${rest}s`;
}

/** Owned by the user: where the image has this directory, the engine takes its mode from there, whatever is asked. */
function tmpfsOptions(mib: number, user: string): string {
  const [uid = '', gid = ''] = user.split(':');
  return `rw,nosuid,nodev,noexec,size=${mib}m,mode=1777,uid=${uid},gid=${gid}`;
}

/** What a one-shot `docker run` needs, with the same hardening as a container of the stack. */
export interface OneShot {
  readonly image: string;
  readonly user: string;
  readonly entrypoint: string;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly network: string;
  readonly mounts: readonly { readonly source: string; readonly target: string }[];
  readonly memoryMib: number;
  readonly labels: Readonly<Record<string, string>>;
}
