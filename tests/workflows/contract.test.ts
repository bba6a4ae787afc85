import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { changesBetween, type Interface, interfaceOf, isAtLeast, RECORD, versionFor, versionNow } from './contract';
import { parseLibrary, readFiles, ROOT } from './files';

const files = readFiles();
const recorded = JSON.parse(readFileSync(RECORD, 'utf8')) as Interface;
const now = interfaceOf(parseLibrary(files), versionNow());

it('the version is one that may have what changed since the last release', () => {
  const changes = changesBetween(recorded, now);
  const lowest = versionFor(recorded.version, changes);
  const told = [...changes.breaking.map((each) => `breaking: ${each}`), ...changes.added];
  // Raise the version in package.json and say it in CHANGELOG.md; `make pipeline RECORD=1` belongs to a release.
  expect(isAtLeast(versionNow(), lowest) ? [] : [`the version must be ${lowest} or more`, ...told]).toEqual([]);
});

it('the changelog tells of what is not released yet, and of every version under its own heading', () => {
  const changelog = readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8');
  const headings = [...changelog.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading);
  expect(headings[0]).toBe('[Unreleased]');
  for (const heading of headings.slice(1)) expect(heading).toMatch(/^\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d$/);
  const kinds = [...changelog.matchAll(/^### (.*)$/gm)].map(([, kind]) => kind);
  const known = ['Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'];
  expect(kinds.filter((kind) => !known.includes(kind!))).toEqual([]);
});

describe('what breaks a caller is found', () => {
  const changed = (file: string, find: string | RegExp, replace: string) => {
    const text = files[file]!;
    const other = text.replace(find, () => replace);
    expect(other).not.toBe(text);
    return changesBetween(now, interfaceOf(parseLibrary({ ...files, [file]: other }), versionNow()));
  };
  const input = (name: string) => new RegExp(` {6}${name}:\\n(?: {8}.*\\n)+`);

  it.each([
    ['an input that is gone', 'workflows/image.yml', input('target'), '', 'workflow image: input target is gone'],
    [
      'an input that is newly required',
      'workflows/image.yml',
      /(target:\n.*\n.*\n)\s+required: false\n\s+default: ''/,
      'target:\n        description: Stage\n        type: string\n        required: true',
      'workflow image: input target is newly required',
    ],
    [
      'another default',
      'workflows/image.yml',
      'default: CRITICAL,HIGH',
      'default: CRITICAL',
      'workflow image: input severity has another default',
    ],
    [
      'another type',
      'workflows/image.yml',
      /type: boolean/,
      'type: string',
      'workflow image: input ignore-unfixed is of another type',
    ],
    [
      'an output that is gone',
      'workflows/image.yml',
      /^ {6}digest:\n(?: {8}.*\n)+/m,
      '',
      'workflow image: output digest is gone',
    ],
    [
      'a secret that is newly required',
      'workflows/deploy.yml',
      /(PULUMI_ACCESS_TOKEN:\n.*\n\s+required: )false/,
      'PULUMI_ACCESS_TOKEN:\n        description: For Pulumi Cloud\n        required: true',
      'workflow deploy: secret PULUMI_ACCESS_TOKEN is newly required',
    ],
    [
      'a permission more',
      'workflows/deploy.yml',
      'contents: read #',
      'contents: write #',
      'workflow deploy: callers must give contents: write',
    ],
    [
      "an action's input under another name",
      'actions/scan/action.yml',
      '  severity:',
      '  severities:',
      'action scan: input severity is gone',
    ],
  ])('%s', (_, file, find, replace, message) => {
    expect(changed(file, find, replace).breaking).toContain(message);
  });

  it('a workflow that is gone', () => {
    const { 'workflow node': gone, ...parts } = now.parts;
    expect(gone).toBeDefined();
    expect(changesBetween(now, { ...now, parts }).breaking).toEqual(['workflow node is gone']);
    expect(changesBetween({ ...now, parts }, now)).toEqual({ breaking: [], added: ['workflow node is new'] });
  });
});

it.each([
  ['0.1.0', ['x'], [], '0.2.0'],
  ['0.1.0', [], ['x'], '0.1.1'],
  ['1.4.2', ['x'], ['y'], '2.0.0'],
  ['1.4.2', [], ['y'], '1.5.0'],
  ['1.4.2', [], [], '1.4.2'],
])('after %s, with breaking %j and added %j, comes %s', (released, breaking, added, next) => {
  expect(versionFor(released, { breaking, added })).toBe(next);
  expect(isAtLeast(next, released)).toBe(true);
  expect(isAtLeast(released, next)).toBe(next === released);
});
