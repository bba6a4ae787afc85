import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parse } from 'yaml';
import images from '../infra/images.json';

/** What the documents say is so. */

const ROOT = resolve(__dirname, '..');
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8');
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file !== '' && existsSync(join(ROOT, file)));
const documents = tracked.filter((file) => file.endsWith('.md'));

it.each(documents)('every link of %s leads somewhere', (file) => {
  const links = [...read(file).matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map(([, link]) => link!);
  const local = links.filter((link) => !/^[a-z]+:/.test(link));
  expect(local.filter((link) => !existsSync(join(ROOT, dirname(file), link)))).toEqual([]);
});

it.each(documents)('every make verb that %s names exists', (file) => {
  const verbs = [...read('Makefile').matchAll(/^([a-z-]+):/gm)].map(([, verb]) => verb);
  const named = [...read(file).matchAll(/(?:`|^)make ([a-z-]+)/gm)].map(([, verb]) => verb);
  expect(named.filter((verb) => !verbs.includes(verb))).toEqual([]);
});

it('the README has the numbers of the environments', () => {
  const cells = (start: string) =>
    read('README.md')
      .split('\n')
      .find((line) => line.startsWith(`| ${start}`))!
      .split('|')
      .slice(2, 5)
      .map((cell) => cell.trim());
  const stacks = ['development', 'staging', 'production'].map(
    (stack) => (parse(read(`Pulumi.${stack}.yaml`)) as { config: Record<string, Record<string, never>> }).config,
  );
  const of = (write: (api: Record<string, never>, database: Record<string, never>) => string) =>
    stacks.map((config) => write(config['branchloans:api']!, config['branchloans:database']!));
  expect(cells('API containers')).toEqual(of(({ replicas }) => String(replicas)));
  expect(cells('CPU, memory')).toEqual(of(({ cpus, memory }) => `${String(cpus)}, ${String(memory)}`));
  expect(cells('CPU, memory')).toEqual(of((_, { cpus, memory }) => `${String(cpus)}, ${String(memory)}`));
  const health = ({ healthcheck }: Record<string, { interval: string; timeout: string; retries: number }>) =>
    `${healthcheck!.interval}, ${healthcheck!.timeout}, ${healthcheck!.retries}`;
  expect(cells('health check')).toEqual(of((api) => health(api)));
  const volumes = of((_, { volume }) => String(volume).replace('./', ''));
  cells('database files').forEach((cell, index) => expect(cell).toContain(`\`${volumes[index]}\``));
});

it('one version of Node everywhere', () => {
  const version = read('.nvmrc').trim();
  expect(images.node).toMatch(new RegExp(`^node:${version}-`));
  expect(read('app/Dockerfile')).toContain(
    `ARG NODE_IMAGE=default\nFROM ${images.node.replace(/@.*/, '')} AS default\n`,
  );
});

it('no file names a registry host or a machine', () => {
  const hosts =
    /(deb|security|registry|proxy|sum|files|static|index|repo1?)\.(debian|npmjs|golang|pythonhosted|crates|maven)\./;
  const texts = tracked.filter((file) => !/\.(png|ico)$/.test(file) && file !== 'tests/docs.test.ts');
  expect(texts.filter((file) => hosts.test(read(file)))).toEqual([]);
});
