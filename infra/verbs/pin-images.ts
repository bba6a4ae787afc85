import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { docker, StepError } from '../deploy/engine';
import { list, ROOT } from '../operator';

/**
 * `make pin-images`: asks the registry for the digest of every default image and writes it beside the version.
 * @param file name of each image and its reference, as JSON
 * @throws StepError where one cannot be had, or has no digest; then nothing was written
 */
export async function pinImages(file = resolve(ROOT, 'infra/images.json')): Promise<void> {
  const images = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
  const pinned = await Promise.all(
    Object.entries(images).map(async ([name, reference]) => {
      const tag = reference.replace(/@sha256:.*/, '');
      await docker(`Asking the registry for ${tag}`, ['pull', '--quiet', tag]);
      const digests = await docker('Reading its digest', [
        'image',
        'inspect',
        '--format',
        '{{json .RepoDigests}}',
        tag,
      ]);
      // An image may be known by several names, each with a digest of its own.
      const repository = tag.replace(/:[^:/]*$/, '');
      const digest = (JSON.parse(digests) as string[]).find((each) => each.split('@')[0] === repository)?.split('@')[1];
      if (digest === undefined)
        throw new StepError(`${tag} came from no registry: it has no digest, nothing was written`);
      return [name, `${tag}@${digest}`];
    }),
  );
  writeFileSync(file, `${JSON.stringify(Object.fromEntries(pinned), null, 2)}\n`);
  console.log(list(pinned.map(([, reference]) => reference ?? '')));
}
