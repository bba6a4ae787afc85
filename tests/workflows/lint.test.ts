import { describeUnless } from '../skip';
import { readFiles } from './files';
import { lint, lintDockerfile, lintScript, missing, read, rewritten } from './linters';

// Programs are started; the machine may have other work.
jest.setTimeout(60_000);

const files = readFiles();
const copies = Object.fromEntries(Object.entries(files).map(([file, text]) => [file, rewritten(text)]));
const broken = (from: typeof files, file: string, find: string, replace: string) => {
  expect(from[file]).toContain(find);
  return { ...from, [file]: from[file]!.replace(find, () => replace) };
};

describeUnless(missing('zizmor'), 'zizmor at its strictest (auditor), on the files as they are', () => {
  it('finds nothing', () => expect(lint('zizmor', files)).toBe(''));

  it.each([
    ['workflows/nightly.yml', '"$branch"', '"${{ github.head_ref }}"', 'template-injection'],
    ['workflows/cd.yml', 'persist-credentials: false', 'persist-credentials: true', 'artipacked'],
    ['workflows/cd.yml', '@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1', '@main', 'unpinned-uses'],
  ])('finds what is put into %s', (file, find, replace, audit) => {
    expect(lint('zizmor', broken(files, file, find, replace))).toContain(audit);
  });
});

describeUnless(missing('actionlint'), 'actionlint, on a copy in the words that it knows', () => {
  it('finds nothing', () => expect(lint('actionlint', copies)).toBe(''));

  it.each([
    [
      'workflows/cd.yml',
      'dockerfile: app/Dockerfile',
      'docker-file: app/Dockerfile',
      'input "docker-file" is not defined',
    ],
    [
      'workflows/cd.yml',
      'needs.image.outputs.ref',
      'needs.image.outputs.reference',
      'property "reference" is not defined',
    ],
    [
      'workflows/image.yml',
      'dockerfile: ${{ inputs.dockerfile }}',
      'file: ${{ inputs.dockerfile }}',
      'input "file" is not defined',
    ],
    ['workflows/rollback.yml', 'DOCKER_PASSWORD: ${{', 'DOCKER_TOKEN: ${{', 'secret "DOCKER_TOKEN" is not defined'],
  ])('finds what is put into %s', (file, find, replace, message) => {
    expect(lint('actionlint', broken(copies, file, find, replace))).toContain(message);
  });
});

describeUnless(missing('check-jsonschema'), "the runner's own schema, on the files as they are", () => {
  it('fits', () => expect(lint('check-jsonschema', files)).toBe(''));

  it.each([
    ['workflows/cd.yml', 'timeout-minutes: 45', 'timeout: 45', 'timeout'],
    ['workflows/deploy.yml', 'queue: max', 'queue: all', 'all'],
    ['actions/plan/action.yml', 'using: composite', 'using: composed', 'composed'],
  ])('finds what is put into %s', (file, find, replace, message) => {
    expect(lint('check-jsonschema', broken(files, file, find, replace))).toContain(message);
  });
});

describeUnless(missing('yamllint'), 'yamllint', () => {
  it('finds nothing', () => expect(lint('yamllint', files)).toBe(''));

  it.each([
    ['workflows/cd.yml', '    name: image\n', '    name: image\n    name: other\n', 'duplication of key'],
    ['workflows/cd.yml', 'push: true', 'push: yes', 'truthy value'],
  ])('finds what is put into %s', (file, find, replace, message) => {
    expect(lint('yamllint', broken(files, file, find, replace))).toContain(message);
  });
});

describeUnless(missing('hadolint'), 'hadolint', () => {
  const dockerfile = read('app/Dockerfile');
  it('finds nothing in the Dockerfile that ships', () => expect(lintDockerfile(dockerfile)).toBe(''));
  it.each([
    ['FROM node\n', 'DL3006'],
    ['FROM node:latest\n', 'DL3007'],
    ['FROM debian:12\nRUN apt-get install curl\n', 'DL3008'],
    ['FROM debian:12\nRUN curl -s x | sh\n', 'DL4006'],
  ])('finds %j', (text, rule) => expect(lintDockerfile(text)).toContain(rule));
});

describeUnless(missing('shellcheck'), 'shellcheck', () => {
  const scripts = ['.ci/browser', '.ci/engine', '.ci/run', '.githooks/pre-commit', 'tests/run'];
  const workflows = ['tests/workflows/run', 'tests/workflows/tools'];
  it.each([...scripts, ...workflows])('finds no fault in %s', (file) => {
    expect(lintScript(read(file))).toBe('');
  });
  it('finds one', () => expect(lintScript('#!/bin/bash\nrm -rf $1/*\n')).toContain('SC2115'));
});
