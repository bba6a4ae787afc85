import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';

const read = (path: string) => readFileSync(join(__dirname, path), 'utf8');

it('builds on the Node image that the stack names', () => {
  const images = JSON.parse(read('../infra/images.json')) as { node: string };
  expect(/^ARG NODE_IMAGE=(.+)$/m.exec(read('Dockerfile'))?.[1]).toBe(images.node.replace(/@sha256:.*/, ''));
});

it('needs no frontend image and runs as nobody', () => {
  const dockerfile = read('Dockerfile');
  expect(dockerfile).not.toMatch(/^#\s*syntax/im);
  expect(dockerfile).toMatch(/^USER 10001:10001$/m);
});

it('has every file that a browser gets', () => {
  const [copied = ''] = /install .* -t out\/browser .*/.exec(read('Dockerfile')) ?? [];
  const files = readdirSync(join(__dirname, 'http/browser')).filter((file) => file !== 'tsconfig.json');
  expect(files).toContain('try-it.js');
  for (const file of files) expect(copied).toContain(` app/http/browser/*${extname(file)}`);
});

/** A line with continuations is one. */
const instructions = read('Dockerfile')
  .replace(/\\\n\s*/g, ' ')
  .split('\n');
const instruction = (name: string) => instructions.filter((line) => line.startsWith(`${name} `)).join('\n');

it.each(['INTERVAL', 'TIMEOUT', 'RETRIES'])('tells by a label which health check it was built for: %s', (name) => {
  const [, value] = new RegExp(`^ARG HEALTHCHECK_${name}=(\\S+)$`, 'm').exec(instruction('ARG')) ?? [];
  const own = new RegExp(`--${name.toLowerCase()}=(\\S+)`).exec(instruction('HEALTHCHECK'))?.[1];
  // The default of the argument is the number of the instruction, which takes no arguments.
  expect([value, own]).toEqual([own, expect.stringMatching(/^\d+s?$/)]);
  expect(instruction('LABEL')).toContain(`org.branchloans.healthcheck.${name.toLowerCase()}="\${HEALTHCHECK_${name}}"`);
});

it('gives the probe the time limit that it was built for', () => {
  expect(instruction('ENV')).toContain('HEALTHCHECK_TIMEOUT=${HEALTHCHECK_TIMEOUT}');
});
