import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundle } from './bundle';
import { ROOT } from './files';
import { reference } from './interfaces';

/** `make pipeline`: what is made from other files, and tested to be what they make. */
writeFileSync(join(ROOT, '.github/pipeline.js'), bundle());
writeFileSync(join(ROOT, 'docs/PIPELINE-REFERENCE.md'), reference());
