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
