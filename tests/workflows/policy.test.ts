import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { bundle } from './bundle';
import { parseLibrary, readFiles, ROOT } from './files';
import { reference } from './interfaces';
import { RULES } from './rules';

const files = readFiles();

describe.each(RULES)('$name', ({ faults, mutants }) => {
  it('holds', () => expect(faults(parseLibrary(files))).toEqual([]));

  it.each(mutants.map(([file, find, replace], index) => ({ file, find, replace, number: index + 1 })))(
    'finds mutant $number, in $file',
    ({ file, find, replace }) => {
      const text = files[file]!;
      // As a function, so that a dollar sign stands for itself.
      const broken = text.replace(find, () => replace);
      expect(broken).not.toBe(text);
      expect(faults(parseLibrary({ ...files, [file]: broken }))).not.toEqual([]);
    },
  );
});

describe('what is made from other files is what they make', () => {
  it('.github/pipeline.js', () => {
    expect(bundle() === readFileSync(join(ROOT, '.github/pipeline.js'), 'utf8') || 'run make pipeline').toBe(true);
  });
  it('docs/PIPELINE-REFERENCE.md', () => {
    expect(readFileSync(join(ROOT, 'docs/PIPELINE-REFERENCE.md'), 'utf8')).toBe(reference());
  });
});

it('no linter and no gate is silenced beside the files that it looks at', () => {
  const quiet = ['.trivyignore', '.github/zizmor.yml', '.github/actionlint.yaml', 'zizmor.yml'];
  expect(quiet.filter((file) => existsSync(join(ROOT, file)))).toEqual([]);
  expect(Object.entries(files).filter(([, text]) => /zizmor: ignore|shellcheck disable/.test(text))).toEqual([]);
});

it('Dependabot looks wherever it can find something, and nowhere else', () => {
  const { updates } = parse(readFileSync(join(ROOT, '.github/dependabot.yml'), 'utf8')) as {
    updates: { 'package-ecosystem': string; directory?: string }[];
  };
  // What it reads of each kind of file: of a Dockerfile, a version that is written out and no argument.
  const read: Record<string, [RegExp, RegExp]> = {
    npm: [/(^|\/)package-lock\.json$/, /./],
    docker: [/(^|\/)Dockerfile$/, /^FROM [a-z\d][\w./-]*:[\w.-]+/m],
    pip: [/(^|\/)requirements\.txt$/, /==/],
    gomod: [/(^|\/)go\.mod$/, /^require /m],
  };
  const tracked = execFileSync('git', ['ls-files'], { cwd: ROOT, encoding: 'utf8' }).trim().split('\n');
  const there = Object.entries(read).flatMap(([ecosystem, [name, text]]) =>
    tracked.flatMap((file) =>
      name.test(file) && text.test(readFileSync(join(ROOT, file), 'utf8'))
        ? [`${ecosystem} /${file.replace(/\/?[^/]+$/, '')}`]
        : [],
    ),
  );
  const looked = updates.flatMap(({ 'package-ecosystem': ecosystem, directory }) =>
    directory === undefined ? [] : [`${ecosystem} ${directory}`],
  );
  expect(looked.sort()).toEqual(there.sort());
});
