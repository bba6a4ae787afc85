import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { standardArgs } from './layout';

const DOCKERFILE = ['INTERVAL', 'TIMEOUT', 'RETRIES'].map((name) => `ARG HEALTHCHECK_${name}`).join('\n');

let context: string;
beforeEach(() => (context = mkdtempSync(join(tmpdir(), 'layout-'))));
afterEach(() => rmSync(context, { recursive: true }));

const argsFor = (healthcheck: string, dockerfile = DOCKERFILE) => {
  writeFileSync(join(context, 'Pulumi.staging.yaml'), `config:\n  branchloans:api: { healthcheck: ${healthcheck} }\n`);
  return standardArgs(dockerfile, { environment: 'staging', commit: 'c0ffee', context });
};

it.each([
  ['{ interval: 20s, timeout: 4s, retries: 4 }', ['20s', '4s', '4']],
  // What a probe that counts seconds cannot read.
  ['{ interval: 2m, timeout: 1m, retries: 3 }', ['120s', '60s', '3']],
])('the health check of the stack file, in seconds: %s', (healthcheck, [interval, timeout, retries]) => {
  expect(argsFor(healthcheck)).toEqual([
    `HEALTHCHECK_INTERVAL=${interval}`,
    `HEALTHCHECK_TIMEOUT=${timeout}`,
    `HEALTHCHECK_RETRIES=${retries}`,
  ]);
});

it('hands over what a Dockerfile declares, and nothing that is not known', () => {
  expect(argsFor('{ timeout: 4s }', `${DOCKERFILE}\nARG COMMIT\nARG OTHER`)).toEqual([
    'COMMIT=c0ffee',
    'HEALTHCHECK_TIMEOUT=4s',
  ]);
});
