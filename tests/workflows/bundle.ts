import { join } from 'node:path';
import { buildSync } from 'esbuild';
import { ROOT } from './files';

/**
 * The steps of pipeline/ as one file without dependencies: an action runs it where it is used, in any repository, without
 * installing anything.
 */
export function bundle(): string {
  const { outputFiles } = buildSync({
    entryPoints: [join(ROOT, 'pipeline/main.ts')],
    absWorkingDir: ROOT,
    bundle: true,
    platform: 'node',
    target: 'node20',
    write: false,
    legalComments: 'none',
    banner: { js: '// Made from pipeline/ by `make pipeline`; a test compares the two.' },
  });
  return outputFiles[0]!.text;
}
