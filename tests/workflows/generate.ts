import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { bundle } from './bundle';
import { interfaceOf, RECORD, versionNow } from './contract';
import { parseLibrary, readFiles, ROOT } from './files';
import { reference } from './interfaces';

/** `make pipeline`: what is made from other files, and tested to be what they make. */
writeFileSync(join(ROOT, '.github/pipeline.js'), bundle());
writeFileSync(join(ROOT, 'docs/PIPELINE-REFERENCE.md'), reference());
// At a release: what callers rely on from now on.
if (process.argv.includes('--record')) {
  const recorded = JSON.stringify(interfaceOf(parseLibrary(readFiles()), versionNow()));
  void resolveConfig(RECORD)
    .then((options) => format(recorded, { ...options, filepath: RECORD }))
    .then((text) => writeFileSync(RECORD, text));
}
