import { setTimeout as timer } from 'node:timers/promises';
import type { Limits } from '../environment';
import { own } from './database';
import { docker, indent, inspectState, lastLog, reasonOfFailure, sleep, StepError, tryDocker } from './engine';

/**
 * A container that is replaced in place is stopped before its successor starts: whatever is wrong with the successor
 * would be an outage. So its image, settings and files are tried first in a container of another name, without ports
 * and networks, with empty volumes in the place of its data. It must pass its own health check; meanwhile the old one
 * serves. The time that it took is how long the replacement will take.
 */
export interface RehearseInput {
  /** The container to be replaced. Nothing is rehearsed where it does not run: there is nothing to lose. */
  readonly container: string;
  readonly component: string;
  readonly image: string;
  /** Numeric `uid:gid`. */
  readonly user: string;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly environment: readonly string[];
  readonly limits: Limits;
  /** Path -> mount options. */
  readonly tmpfs: Readonly<Record<string, string>>;
  readonly sharedMemoryMib?: number;
  /** Read-only ones hold the files to try; in the place of the others come empty volumes. */
  readonly mounts: readonly {
    readonly source: string;
    readonly target: string;
    readonly kind?: 'volume' | 'bind';
    readonly readOnly: boolean;
  }[];
  readonly healthcheck: { readonly test: readonly string[]; readonly timeoutSeconds: number };
  /** How long the health check may fail: as long as the engine would wait before it calls the container unhealthy. */
  readonly readyWithinSeconds: number;
  readonly stopSignal?: string;
  readonly stopGraceSeconds: number;
  readonly labels: Readonly<Record<string, string>>;
  /** Run by the new image with all real mounts, read-only; its failure refuses the image. */
  readonly fits?: readonly string[];
  /** Run in the old container when all the rest is good, so that it stops sooner. Not needed for being right. */
  readonly settle?: readonly string[];
}

const POLL_MS = 50;

/** @returns what the operator is told about the outage to come; empty when nothing runs */
export async function rehearse(input: RehearseInput): Promise<string> {
  if ((await inspectState(input.container))?.status !== 'running') return '';
  await refuseMisfit(input);
  const measured = await tryOut(input);
  if (input.settle) await tryDocker(['exec', input.container, ...input.settle]);
  return describeOutage(input, measured);
}

export interface Outage {
  readonly stopMs: number;
  readonly startMs: number;
}

/** One sentence for the operator. */
export function describeOutage(
  { component, stopGraceSeconds }: Pick<RehearseInput, 'component' | 'stopGraceSeconds'>,
  { stopMs, startMs }: Outage,
): string {
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  return (
    `The ${component} is replaced now, its successor was tried: about ${seconds(stopMs + startMs)} without it ` +
    `(${seconds(stopMs)} to stop, ${stopGraceSeconds} s at most if work is under way; ${seconds(startMs)} to start)`
  );
}

async function refuseMisfit(input: RehearseInput): Promise<void> {
  const [entrypoint, ...rest] = input.fits ?? [];
  if (entrypoint === undefined) return;
  const args = ['run', '--rm', ...hardening(input), ...mountOptions(input.mounts, (mount) => mount.source, true)];
  const command = ['--entrypoint', entrypoint, input.image, ...rest];
  const { code, stdout, stderr } = await tryDocker([...args, ...environmentOptions(input), ...command]);
  if (code !== 0) refuse(input, `does not fit what the running one has:\n${indent(stderr + stdout)}`);
}

async function tryOut(input: RehearseInput): Promise<Outage> {
  const name = `${input.container}-rehearsal`;
  const data = input.mounts.filter(({ readOnly }) => !readOnly);
  const scratch = (target: string) => `${name}-${data.findIndex((mount) => mount.target === target)}`;
  const sourceOf = (mount: Mount) => (mount.readOnly ? mount.source : scratch(mount.target));
  // One that was killed in the midst of it may have left something.
  const clean = async () => {
    await tryDocker(['rm', '--force', '--volumes', name]);
    for (const { target } of data) await tryDocker(['volume', 'rm', '--force', scratch(target)]);
  };
  const start = async () => {
    const began = Date.now();
    await startOne(name, input, sourceOf);
    return Date.now() - began;
  };
  const stop = async () => {
    const began = Date.now();
    await docker(`Stopping ${name}`, ['stop', '-t', String(input.stopGraceSeconds), name]);
    await docker(`Removing ${name}`, ['rm', '--volumes', name]);
    return Date.now() - began;
  };
  await clean();
  try {
    for (const { target } of data) await prepare(input, scratch(target), target);
    const first = await start();
    const stopMs = await stop();
    // The first start made the files; the successor finds them.
    return { stopMs, startMs: data.length > 0 ? await start() : first };
  } finally {
    await clean();
  }
}

/** An empty volume takes its owner from the image. Where that is another one, the running image can change it. */
async function prepare({ container, user, labels }: RehearseInput, source: string, target: string): Promise<void> {
  await docker(`Making the volume ${source}`, ['volume', 'create', ...labelOptions(labels), source]);
  const image = await docker(`Looking at ${container}`, ['inspect', '--format', '{{.Image}}', container]);
  await own({ source, target, owner: user, helperImage: image.trim() }).catch(() => undefined);
}

async function startOne(name: string, input: RehearseInput, sourceOf: (mount: Mount) => string): Promise<void> {
  const [entrypoint = '', ...rest] = input.entrypoint;
  const { code, stderr } = await tryDocker([
    ...['run', '--detach', '--name', name, ...hardening(input), ...mountOptions(input.mounts, sourceOf, false)],
    ...Object.entries(input.tmpfs).flatMap(([path, options]) => ['--tmpfs', `${path}:${options}`]),
    ...environmentOptions(input),
    ...(input.stopSignal === undefined ? [] : ['--stop-signal', input.stopSignal]),
    ...['--entrypoint', entrypoint, input.image, ...rest, ...input.command],
  ]);
  if (code !== 0) refuse(input, `does not start:\n${indent(stderr)}\n  its last log lines:\n${await lastLog(name)}`);
  await becomeHealthy(name, input);
}

async function becomeHealthy(name: string, input: RehearseInput): Promise<void> {
  const { test, timeoutSeconds } = input.healthcheck;
  const deadline = Date.now() + input.readyWithinSeconds * 1000;
  let answer = '(no answer)';
  for (;;) {
    // A check that hangs ends with its container; a timer that is not waited for holds nothing up.
    const late = timer(timeoutSeconds * 1000, undefined, { ref: false });
    const result = await Promise.race([tryDocker(['exec', name, ...test]), late]);
    if (result?.code === 0) return;
    if (result !== undefined) answer = result.stdout + result.stderr || answer;
    const tooLate = Date.now() > deadline ? `was not healthy after ${input.readyWithinSeconds} s` : undefined;
    const reason = (await reasonOfFailure(name)) ?? tooLate;
    if (reason !== undefined) {
      const said = `its health check (${test.join(' ')}) said:\n${indent(answer)}`;
      refuse(input, `${reason}.\n  ${said}\n  its last log lines:\n${await lastLog(name)}`);
    }
    await sleep(POLL_MS);
  }
}

function refuse({ container, component }: RehearseInput, what: string): never {
  throw new StepError(
    `The new ${component} was tried beside the running one and ${what}\n` +
      `${container} was not touched: it goes on as it is.`,
  );
}

type Mount = RehearseInput['mounts'][number];

function mountOptions(mounts: readonly Mount[], sourceOf: (mount: Mount) => string, allReadOnly: boolean): string[] {
  return mounts.flatMap((mount) => {
    const type = sourceOf(mount) === mount.source ? (mount.kind ?? 'volume') : 'volume';
    const readOnly = allReadOnly || mount.readOnly ? ',readonly' : '';
    return ['--mount', `type=${type},source=${sourceOf(mount)},target=${mount.target}${readOnly}`];
  });
}

/** No secrets: they are in files. */
function environmentOptions({ environment }: RehearseInput): string[] {
  return environment.flatMap((assignment) => ['--env', assignment]);
}

function hardening({ user, limits, sharedMemoryMib, labels }: RehearseInput): string[] {
  return [
    ...['--network', 'none', '--read-only', '--cap-drop', 'ALL', '--security-opt', 'no-new-privileges:true'],
    ...['--user', user, '--no-healthcheck', '--ulimit', 'core=0:0', ...labelOptions(labels)],
    ...['--memory', `${limits.memoryMib}m`, '--memory-swap', `${limits.memoryMib}m`],
    ...['--cpu-period', '100000', '--cpu-quota', String(Math.round(limits.cpus * 100_000))],
    ...(sharedMemoryMib === undefined ? [] : ['--shm-size', `${sharedMemoryMib}m`]),
  ];
}

function labelOptions(labels: RehearseInput['labels']): string[] {
  return Object.entries(labels).flatMap(([label, value]) => ['--label', `${label}=${value}`]);
}
