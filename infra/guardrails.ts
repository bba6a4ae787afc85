import * as pulumi from '@pulumi/pulumi';
import type * as docker from '@pulumi/docker';
import { imageFault } from './environment';

/**
 * What may never be deployed, whoever asks for it. One set of rules over the resolved arguments of a container:
 * applied while the program runs, so that a preview fails already, and by the policy pack (policy/) to any program.
 */
export type Resolved = pulumi.Unwrap<docker.ContainerArgs>;

export interface Rule {
  /** What the policy pack calls it. */
  readonly name: string;
  /** Follows the container's name in a message. */
  readonly says: string;
  readonly broken: (container: Resolved) => boolean;
}

export const RULES: readonly Rule[] = [
  { name: 'memory-limit', says: 'has no memory limit', broken: (c) => !c.memory || c.memorySwap !== c.memory },
  { name: 'cpu-limit', says: 'has no CPU limit', broken: (c) => !c.cpuQuota || !c.cpuPeriod },
  {
    name: 'health-check',
    says: 'has no health check',
    broken: (c) => !c.healthcheck?.tests?.length || c.healthcheck.tests[0] === 'NONE',
  },
  {
    name: 'exact-image',
    says: 'runs an image by a tag that moves: give an exact version or a digest',
    // An id of the engine is as exact as can be.
    broken: (c) => !/^sha256:/.test(c.image) && imageFault(c.image) !== undefined,
  },
  {
    name: 'no-root',
    says: 'runs as root: give a numeric uid:gid',
    broken: (c) => !/^[1-9]\d*:\d+$/.test(c.user ?? ''),
  },
  { name: 'not-privileged', says: 'is privileged', broken: (c) => c.privileged === true },
  {
    name: 'no-capabilities',
    says: 'keeps or adds capabilities',
    broken: (c) => c.capabilities?.drops?.join() !== 'ALL' || (c.capabilities.adds ?? []).length > 0,
  },
  {
    name: 'no-new-privileges',
    says: 'may gain privileges',
    broken: (c) => !c.securityOpts?.includes('no-new-privileges:true'),
  },
  { name: 'read-only-root', says: 'has a writable root file system', broken: (c) => c.readOnly !== true },
  {
    name: 'no-host-namespace',
    says: 'shares a namespace of the host',
    broken: (c) => [c.networkMode, c.pidMode, c.ipcMode, c.usernsMode].includes('host'),
  },
  {
    name: 'no-docker-socket',
    says: 'mounts the Docker socket',
    broken: (c) =>
      !hasExceptionForSocket(c) &&
      [...(c.mounts ?? []).map(({ source }) => source), ...(c.volumes ?? []).map(({ hostPath }) => hostPath)].some(
        (path) => path?.includes('docker.sock'),
      ),
  },
  {
    name: 'port-on-an-address',
    says: 'publishes a port without saying on which address',
    broken: (c) => (c.ports ?? []).some((p) => !p.ip || !p.external),
  },
  {
    name: 'one-entrance',
    says: 'publishes a port but is not the gateway',
    broken: (c) =>
      (c.ports ?? []).length > 0 &&
      !(c.labels ?? []).some(({ label, value }) => label.endsWith('.component') && value === 'gateway'),
  },
  { name: 'stop-grace', says: 'would be killed without grace', broken: (c) => !c.destroyGraceSeconds },
  {
    name: 'bounded-logs',
    says: 'has logs without a limit',
    broken: (c) => !c.logOpts?.['max-size'] || !c.logOpts['max-file'],
  },
  { name: 'restart', says: 'has no restart policy', broken: (c) => c.restart !== 'unless-stopped' },
  {
    name: 'no-secret-in-environment',
    says: 'carries a secret in its environment: hand it over as a file',
    broken: (c) =>
      (c.envs ?? []).some(
        (env) => /^[^=]*(PASSWORD|SECRET|TOKEN)[^=]*=(?!\$__file\{)./i.test(env) && !/^[^=]*_FILE=/.test(env),
      ),
  },
];

/**
 * The one exception: what containers use of their limits, the engine alone can tell. This one asks it four fixed
 * questions, has no root and no capability, and is reached by no client (docs/decisions/0030-exporters.md).
 */
const MAY_READ_THE_SOCKET = 'container-exporter';

function hasExceptionForSocket({ labels, mounts, volumes }: Resolved): boolean {
  const named = (labels ?? []).some(
    ({ label, value }) => label.endsWith('.component') && value === MAY_READ_THE_SOCKET,
  );
  return named && (volumes ?? []).length === 0 && (mounts ?? []).every(({ readOnly }) => readOnly === true);
}

/** Faults of one container, as sentences without a subject. */
export function violations(container: Resolved): string[] {
  return RULES.filter((rule) => rule.broken(container)).map((rule) => rule.says);
}

/**
 * Refuses a container that breaks a rule: at once for what is known already, and for the rest (an image that is not
 * pulled yet) when it becomes known, before the engine is asked for anything.
 * @returns the arguments to create the container with
 */
export function guarded(name: string, args: docker.ContainerArgs): docker.ContainerArgs {
  const check = (container: Resolved) => {
    const faults = violations(container);
    if (faults.length > 0) throw new pulumi.RunError(`guardrail: container ${name} ${faults.join('; it ')}`);
  };
  check(knownPart(args) as Resolved);
  // The image waits for the verdict on everything, so nothing is created without it.
  return { ...args, image: pulumi.output(args).apply((container) => (check(container), container.image)) };
}

/** The arguments with something harmless in the place of what only the engine will know. */
function knownPart(value: unknown): unknown {
  if (pulumi.Output.isInstance(value)) return 'unknown:0.0';
  if (Array.isArray(value)) return value.map(knownPart);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, knownPart(inner)]));
}
