import { describeUnless } from '../skip';
import { readFiles } from './files';
import { lint, missing, rewritten } from './linters';

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
    ['workflows/nightly.yml', '"$BRANCH"', '"${{ github.head_ref }}"', 'template-injection'],
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
