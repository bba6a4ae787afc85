import { join } from 'node:path';
import { buildSync } from 'esbuild';
import { ROOT } from './files';

/**
 * The steps of pipeline/ as one file without dependencies: an action runs it where it is used, in any repository, without
 * installing anything.
 */
export function bundle(): string {
  return made().text;
}

/** For the lines of pipeline/ that are covered where its bundle runs; the names of its sources are absolute. */
export function sourceMap(): object {
  const map = JSON.parse(made().map) as { sources: string[] };
  return { ...map, sources: map.sources.map((source) => join(ROOT, '.github', source)) };
}

function made(): { readonly text: string; readonly map: string } {
  const { outputFiles } = buildSync({
    entryPoints: [join(ROOT, 'pipeline/main.ts')],
    absWorkingDir: ROOT,
    bundle: true,
    platform: 'node',
    target: 'node20',
    write: false,
    outfile: join(ROOT, '.github/pipeline.js'),
    sourcemap: 'external',
    legalComments: 'none',
    banner: { js: '// Made from pipeline/ by `make pipeline`; a test compares the two.' },
  });
  const endingWith = (end: string) => outputFiles.find(({ path }) => path.endsWith(end))!.text;
  return { text: endingWith('.js'), map: endingWith('.map') };
}
