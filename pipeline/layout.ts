import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';
import { output, PipelineError, type Run } from './run';

/**
 * An image between jobs is an OCI layout: a directory that names every file in it by its hash. It is built once; what is
 * scanned, pushed and deployed is this one, told by its digest. (The same image, loaded into an engine and pushed from
 * there, has another digest.)
 */

interface Descriptor {
  readonly mediaType?: string;
  readonly digest: string;
  readonly size: number;
}

interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

const IMAGE = 'application/vnd.oci.image.manifest.v1+json';
export const DIGEST = /^sha256:[0-9a-f]{64}$/;

export const sha256 = (bytes: Buffer | string) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/**
 * Digest of the one image in a layout, after every file that belongs to it was hashed again.
 * @throws PipelineError when something is missing, changed, or there is more than one image: a scanner looks at the
 * first one only
 */
export function digestOf(layout: string): string {
  const index = join(layout, 'index.json');
  if (!existsSync(index)) throw new PipelineError(`${layout} is no OCI layout: it has no index.json (make image)`);
  const { manifests } = JSON.parse(readFileSync(index, 'utf8')) as { manifests?: readonly Descriptor[] };
  const [image, ...more] = manifests ?? [];
  if (image === undefined || more.length > 0 || image.mediaType !== IMAGE) {
    throw new PipelineError(
      `${layout} must hold exactly one image for one platform, and it holds ${manifests?.length ?? 0} manifest(s) of ` +
        ((manifests ?? []).map(({ mediaType }) => mediaType ?? 'no type').join(', ') || 'nothing'),
    );
  }
  const manifest = JSON.parse(blob(layout, image).toString('utf8')) as Manifest;
  for (const part of [manifest.config, ...manifest.layers]) blob(layout, part);
  return image.digest;
}

function blob(layout: string, { digest, size }: Descriptor): Buffer {
  const file = join(layout, 'blobs', digest.replace(':', '/'));
  if (!DIGEST.test(digest) || !existsSync(file)) throw new PipelineError(`${layout}: ${digest} is missing`);
  const bytes = readFileSync(file);
  const found = sha256(bytes);
  if (found !== digest || bytes.length !== size) {
    throw new PipelineError(`${layout}: a file was changed: it should be ${digest} and is ${found}`);
  }
  return bytes;
}

/** @throws PipelineError at a hand-over where it is no longer the same image */
export function assertSame(what: string, found: string, expected: string): void {
  if (found === expected) return;
  throw new PipelineError(`${what} is ${found}, but the image before this step was ${expected}: nothing goes on`);
}

export interface Build {
  readonly context: string;
  readonly file: string;
  readonly target: string | undefined;
  readonly environment: string;
  readonly commit: string;
  /** `owner/name`, for the image's labels. */
  readonly repository: string | undefined;
  /** `NAME=value`; never a secret: they stay in the image's history. */
  readonly args: readonly string[];
  readonly network: string | undefined;
  /** Directory that is made anew. */
  readonly layout: string;
}

/** Builds the image once and writes it as a layout. @returns its digest */
export async function build(spec: Build, run: Run): Promise<string> {
  if (!existsSync(spec.file)) throw new PipelineError(`There is no ${spec.file} to build from: say which (dockerfile)`);
  const dockerfile = readFileSync(spec.file, 'utf8');
  const tag = `pipeline-${process.pid}:${spec.commit.slice(0, 12)}`;
  const labels = [
    `org.opencontainers.image.revision=${spec.commit}`,
    ...(spec.repository === undefined ? [] : [`org.opencontainers.image.source=https://github.com/${spec.repository}`]),
  ];
  const args = [...standardArgs(dockerfile, spec), ...spec.args];
  await output(
    run,
    'docker',
    [
      ...['build', '--file', spec.file, '--tag', tag],
      ...(spec.target === undefined ? [] : ['--target', spec.target]),
      ...(spec.network === undefined ? [] : ['--network', spec.network]),
      ...args.flatMap((arg) => ['--build-arg', arg]),
      ...labels.flatMap((label) => ['--label', label]),
      spec.context,
    ],
    { env: { DOCKER_BUILDKIT: process.env['DOCKER_BUILDKIT'] }, show: true },
  );
  rmSync(spec.layout, { recursive: true, force: true });
  mkdirSync(resolve(spec.layout, '..'), { recursive: true });
  await output(run, 'skopeo', ['copy', '--quiet', `docker-daemon:${tag}`, `oci:${spec.layout}:${spec.commit}`]);
  // Only the name: the layout is the image from here on.
  await run('docker', ['rmi', '--no-prune', tag]);
  return digestOf(spec.layout);
}

/**
 * Arguments that a Dockerfile gets without being asked, if it declares them: ENVIRONMENT, COMMIT, VERSION and the numbers
 * of the environment's health check, as its settings have them. They are defaults: the same image serves everywhere.
 */
export function standardArgs(
  dockerfile: string,
  { environment, commit, context }: Pick<Build, 'environment' | 'commit' | 'context'>,
): string[] {
  const declared = new Set([...dockerfile.matchAll(/^ARG\s+([A-Z_]+)/gm)].map(([, name]) => name));
  const values: Record<string, string | number | undefined> = {
    ENVIRONMENT: environment,
    COMMIT: commit,
    VERSION: versionOf(context),
    ...healthcheckOf(join(context, `Pulumi.${environment}.yaml`)),
  };
  return Object.entries(values).flatMap(([name, value]) =>
    declared.has(name) && value !== undefined ? [`${name}=${value}`] : [],
  );
}

function versionOf(context: string): string | undefined {
  const file = join(context, 'package.json');
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { version?: string }).version : undefined;
}

function healthcheckOf(settings: string): Record<string, string | number | undefined> {
  if (!existsSync(settings)) return {};
  const { config = {} } = parse(readFileSync(settings, 'utf8')) as { config?: Record<string, unknown> };
  const api = Object.entries(config).find(([key]) => key.endsWith(':api'))?.[1] as
    { healthcheck?: { interval?: string; timeout?: string; retries?: number } } | undefined;
  const { interval, timeout, retries } = api?.healthcheck ?? {};
  return {
    HEALTHCHECK_INTERVAL: inSeconds(interval),
    HEALTHCHECK_TIMEOUT: inSeconds(timeout),
    HEALTHCHECK_RETRIES: retries,
  };
}

/** `1m` -> `60s`, as an image that `pulumi up` builds has it; a probe is often a script that only counts seconds. */
function inSeconds(time: string | undefined): string | undefined {
  return time?.replace(/^(\d+)m$/, (_, minutes: string) => `${Number(minutes) * 60}s`);
}
