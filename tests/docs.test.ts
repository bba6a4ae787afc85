import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parse } from 'yaml';
import { EXPERIMENTS } from '../infra/chaos/experiments';
import images from '../infra/images.json';
import { alertsOf, GROUPS } from './alerts/promtool';

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
  const reserved = (...of: { memoryReservation?: string }[]) =>
    [...new Set(of.map(({ memoryReservation = 'none' }) => memoryReservation))].join(', ');
  expect(cells('memory reserved')).toEqual(of((api, database) => reserved(api, database)));
  const health = ({ healthcheck }: Record<string, { interval: string; timeout: string; retries: number }>) =>
    `${healthcheck!.interval}, ${healthcheck!.timeout}, ${healthcheck!.retries}`;
  expect(cells('health check')).toEqual(of((api) => health(api)));
  const volumes = of((_, { volume }) => String(volume).replace('./', ''));
  cells('database files').forEach((cell, index) => expect(cell).toContain(`\`${volumes[index]}\``));
});

/** Of the tables of a file, the rows that begin with it: their cells. */
const rowsOf = (file: string, begin: RegExp) =>
  read(file)
    .split('\n')
    .filter((line) => line.startsWith('| ') && begin.test(line.slice(2)))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );

describe('an incident is as bad as its alert says', () => {
  const alerts = alertsOf(GROUPS);
  const rows = rowsOf('docs/INCIDENTS.md', /^P\d /);
  const severities = { P0: 'critical', P1: 'critical', P2: 'warning', P3: 'info' };
  const named = rows.flatMap(([level = '', , says = '']) =>
    [...says.matchAll(/`(\w+)`(?: \(([\w, -]+)\))?/g)].map(([, name = '', which]) => ({ level, name, which })),
  );

  it('in four levels, each named by its alerts or their severity', () => {
    expect(rows.map(([level]) => level)).toEqual(Object.keys(severities));
    expect(named.length).toBeGreaterThan(8);
    for (const [level, , says] of rows.slice(1)) {
      expect([level, says]).toEqual([level, expect.stringContaining(severities[level as keyof typeof severities])]);
    }
  });

  it.each(named.map((each) => [each.name, each] as const))('%s', (_, { level, name, which }) => {
    const severity = severities[level as keyof typeof severities];
    const own = alerts.filter(({ alert }) => alert === name);
    const same = own.filter((alert) => alert.severity === severity);
    expect(same).not.toEqual([]);
    // Where a name has more than one severity, the document says which of them it means.
    const burns = [...new Set(same.flatMap(({ labels }) => labels?.['burn'] ?? []))];
    if (burns.length > 0) expect(which?.split(', ')).toEqual(burns);
    else if (own.length > same.length) expect(which).toBeDefined();
  });

  it('the words of its example too', () => {
    const [[, example = ''] = []] = [...read('docs/INCIDENTS.md').matchAll(/\| (\w+) pages/g)];
    expect(alerts.filter(({ alert }) => alert === example)).toMatchObject([{ severity: 'critical' }]);
  });
});

it('the experiments of chaos are those of the document, in order', () => {
  expect(rowsOf('docs/CHAOS.md', /^`/)).toEqual(
    EXPERIMENTS.map(({ name, title, hypothesis }) => [`\`${name}\``, title, hypothesis]),
  );
});

it('one version of Node everywhere', () => {
  const version = read('.nvmrc').trim();
  expect(images.node).toMatch(new RegExp(`^node:${version}-`));
  expect(read('app/Dockerfile')).toContain(`ARG NODE_IMAGE=${images.node.replace(/@.*/, '')}\n`);
});

it('no file names a registry host or a machine', () => {
  const hosts =
    /(deb|security|registry|proxy|sum|files|static|index|repo1?)\.(debian|npmjs|golang|pythonhosted|crates|maven)\./;
  const texts = tracked.filter((file) => !/\.(png|ico)$/.test(file) && file !== 'tests/docs.test.ts');
  expect(texts.filter((file) => hosts.test(read(file)))).toEqual([]);
});
