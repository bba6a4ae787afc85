import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { COMMIT, type History, mayBecomeLatest } from './history';
import { assertSame, DIGEST, digestOf, sha256 } from './layout';
import { output, PipelineError, type Run } from './run';

export interface Publish {
  /** An OCI layout, or `name@sha256:…` in a registry (a promotion). */
  readonly source: { readonly layout: string } | { readonly ref: string };
  /** Name without tag. */
  readonly image: string;
  readonly tag: string;
  /** Digest that the step before handed over. */
  readonly digest: string;
  readonly latest: 'published' | 'never';
  readonly credentials: { readonly user: string; readonly token: string } | undefined;
}

export interface Published {
  /** `image@sha256:…`: the only name that is deployed. */
  readonly ref: string;
  readonly latest: 'moved' | 'kept';
  /** Why `latest` was left where it is. */
  readonly reason: string | undefined;
}

/**
 * Pushes an image under a tag that is never overwritten, reads it back, and moves `latest` forwards, never backwards.
 * @throws PipelineError when a digest differs at any of these places, or the tag is taken by another image
 */
export async function publish(spec: Publish, history: History, run: Run): Promise<Published> {
  const { image, tag, digest } = spec;
  const held = 'layout' in spec.source ? digestOf(spec.source.layout) : (spec.source.ref.split('@')[1] ?? '');
  assertSame('The image to be pushed', held, digest);
  return withRegistry(
    spec.credentials,
    [image, ...('ref' in spec.source ? [spec.source.ref] : [])],
    run,
    async (at) => {
      const tagged = await at.digestOf(`${image}:${tag}`);
      if (tagged !== undefined && tagged !== digest) {
        throw new PipelineError(
          `${image}:${tag} is ${tagged} already, and a published tag is never overwritten. Deploy that one, or run only the ` +
            'failed jobs of a run again: all of them build another image of the same commit',
        );
      }
      const source = 'layout' in spec.source ? `oci:${spec.source.layout}` : `docker://${spec.source.ref}`;
      if (tagged === undefined) assertSame('The pushed image', await at.copy(source, `${image}:${tag}`), digest);
      assertSame(`${image}:${tag}`, (await at.digestOf(`${image}:${tag}`)) ?? 'not there', digest);

      const reason = spec.latest === 'never' ? 'not asked for' : await whyNot(spec, at, history);
      if (reason === undefined) {
        await at.copy(`docker://${image}@${digest}`, `${image}:latest`);
        assertSame(`${image}:latest`, (await at.digestOf(`${image}:latest`)) ?? 'not there', digest);
      }
      return { ref: `${image}@${digest}`, latest: reason === undefined ? 'moved' : 'kept', reason };
    },
  );
}

/**
 * What a name in a registry is now.
 * @param name `name:tag` or `name@sha256:…`
 * @throws PipelineError when there is no such image
 */
export function resolve(
  name: string,
  credentials: Publish['credentials'],
  run: Run,
): Promise<{ readonly digest: string; readonly revision: string | undefined }> {
  return withRegistry(credentials, [name], run, async (at) => {
    const digest = await at.digestOf(name);
    if (digest === undefined) throw new PipelineError(`There is no ${name} in the registry`);
    return { digest, revision: await at.revisionOf(name) };
  });
}

/** Moves a tag that says what became of an image, such as `proven`. */
export function mark(ref: string, tag: string, credentials: Publish['credentials'], run: Run): Promise<void> {
  const [image = '', digest = ''] = ref.split('@');
  return withRegistry(credentials, [image], run, async (at) => {
    assertSame(`${image}:${tag}`, await at.copy(`docker://${ref}`, `${image}:${tag}`), digest);
  });
}

/** Brings an image here as a layout. @returns its digest, which is the one of its name */
export async function fetchLayout(
  ref: string,
  layout: string,
  credentials: Publish['credentials'],
  run: Run,
): Promise<string> {
  const [image = '', digest = ''] = ref.split('@');
  await withRegistry(credentials, [image], run, (at) => at.fetch(ref, layout));
  assertSame('The image that was fetched', digestOf(layout), digest);
  return digest;
}

/** Why `latest` may not move to this image; undefined when it may. */
async function whyNot(spec: Publish, at: Registry, history: History): Promise<string | undefined> {
  const { image, digest } = spec;
  const current = await at.digestOf(`${image}:latest`);
  if (current === undefined) return undefined;
  if (current === digest) return undefined;
  const [before, after] = [await at.revisionOf(`${image}@${current}`), await at.revisionOf(`${image}@${digest}`)];
  // From before this pipeline: nothing is known, and it would stay for ever.
  if (before === undefined || after === undefined || before === after) return undefined;
  const order = await history(before, after);
  // Asking takes a while: what another run has published meanwhile is what counts.
  if ((await at.digestOf(`${image}:latest`)) !== current) return whyNot(spec, at, history);
  if (mayBecomeLatest(order)) return undefined;
  const why = order === 'unknown' ? 'nobody can say whether' : `it is ${order}: the history does not show that`;
  return `latest is of commit ${before.slice(0, 12)}; ${why} ${after.slice(0, 12)} comes after it`;
}

interface Registry {
  /** Undefined when there is no such image. */
  digestOf(reference: string): Promise<string | undefined>;
  revisionOf(reference: string): Promise<string | undefined>;
  /** @returns digest of what is there now */
  copy(source: string, destination: string): Promise<string>;
  fetch(ref: string, layout: string): Promise<void>;
}

const ABSENT =
  /manifest unknown|name unknown|not found|repository name not known|requested access to the resource is denied/i;

/** A registry as skopeo sees it, with credentials in a file of this process alone. */
async function withRegistry<T>(
  credentials: Publish['credentials'],
  images: readonly string[],
  run: Run,
  work: (registry: Registry) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'publish-'));
  const authfile = join(directory, 'auth.json');
  const digestfile = join(directory, 'digest');
  // Without TLS only on this machine.
  const local = images.every((image) => /^(localhost|127\.0\.0\.1)(:\d+)?\//.test(image));
  const auth = credentials === undefined ? [] : ['--authfile', authfile];
  const one = [...auth, ...(local ? ['--tls-verify=false'] : [])];
  const two = [...auth, ...(local ? ['--src-tls-verify=false', '--dest-tls-verify=false'] : [])];
  try {
    if (credentials !== undefined) {
      for (const host of new Set(images.map((image) => image.split('/')[0] ?? ''))) {
        const verify = local ? ['--tls-verify=false'] : [];
        const args = [
          'login',
          '--authfile',
          authfile,
          '--username',
          credentials.user,
          '--password-stdin',
          ...verify,
          host,
        ];
        await output(run, 'skopeo', args, { input: credentials.token });
      }
    }
    return await work({
      async digestOf(reference) {
        const { code, stdout, stderr } = await run('skopeo', ['inspect', '--raw', ...one, `docker://${reference}`]);
        if (code === 0) return sha256(stdout);
        if (code !== 127 && ABSENT.test(stderr)) return undefined;
        throw new PipelineError(`The registry cannot be asked for ${reference}:\n${stderr.trim()}`);
      },
      async revisionOf(reference) {
        const config = await output(run, 'skopeo', ['inspect', '--config', ...one, `docker://${reference}`]);
        const { config: { Labels: labels } = {} } = JSON.parse(config) as {
          config?: { Labels?: Record<string, string> | null };
        };
        const revision = labels?.['org.opencontainers.image.revision'];
        return revision !== undefined && COMMIT.test(revision) ? revision : undefined;
      },
      async copy(source, destination) {
        const flags = ['copy', '--quiet', '--preserve-digests', '--digestfile', digestfile, ...two];
        await output(run, 'skopeo', [...flags, source, `docker://${destination}`]);
        const digest = readFileSync(digestfile, 'utf8').trim();
        if (!DIGEST.test(digest)) throw new PipelineError(`The registry gave no digest for ${destination}`);
        return digest;
      },
      async fetch(ref, layout) {
        const verify = local ? ['--src-tls-verify=false'] : [];
        const flags = ['copy', '--quiet', '--preserve-digests', ...auth, ...verify];
        await output(run, 'skopeo', [...flags, `docker://${ref}`, `oci:${layout}:fetched`]);
      },
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Whether attestations are asked for: a private repository needs a plan that has them, and the job would fail after the push.
 * @param asked true, false, or auto for public repositories
 * @param visibility as GitHub tells it; undefined where it does not
 * @throws PipelineError before anything is pushed
 */
export function isAttested(asked: string, visibility: string | undefined): boolean {
  if (asked === 'auto') return visibility === 'public';
  if (asked === 'true' || asked === 'false') return asked === 'true';
  throw new PipelineError(`attest must be true, false or auto, not "${asked}"`);
}
