import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');
let directory: string;
beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'coverage-'))));
afterEach(() => rmSync(directory, { recursive: true }));

/** Of ten lines of a file so many were run. */
function linesOf(path: string, covered: number): object {
  const lines = Array.from({ length: 10 }, (_, index) => [index, index + 1] as const);
  const statementMap = Object.fromEntries(
    lines.map(([index, line]) => [index, { start: { line, column: 0 }, end: { line, column: 9 } }]),
  );
  const s = Object.fromEntries(lines.map(([index]) => [index, index < covered ? 1 : 0]));
  return { path, statementMap, s, fnMap: {}, f: {}, branchMap: {}, b: {} };
}

/** What jest leaves of a run, and what became of some tests. */
function run(name: string, shares: Record<string, number>, tests: Record<string, readonly string[]> = {}): string {
  const folder = join(directory, name);
  mkdirSync(folder);
  const files = Object.entries(shares).map(([part, covered]) => [join(ROOT, part, 'x.ts'), covered] as const);
  const map = Object.fromEntries(files.map(([path, covered]) => [path, linesOf(path, covered)]));
  writeFileSync(join(folder, 'coverage-final.json'), JSON.stringify(map));
  const testResults = Object.entries(tests).map(([file, states]) => ({
    name: join(ROOT, file),
    assertionResults: states.map((status) => ({ status })),
  }));
  writeFileSync(`${folder}.json`, JSON.stringify({ testResults }));
  return folder;
}

function report(...folders: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(join(__dirname, 'report'), folders, { encoding: 'utf8' });
  return { status, said: stdout + stderr };
}

const PUBLISHED = { 'tests/workflows/publish.test.ts': ['passed'] };

it('a part of which too little is run fails, with its name and the bound', () => {
  const { status, said } = report(run('plain', { app: 8, infra: 9, pipeline: 9, ssl: 7 }, PUBLISHED));
  expect(status).toBe(1);
  expect(said.match(/^FAILED.*$/gm)).toEqual([
    expect.stringMatching(/coverage of ssl is 70.0 %, at least 80 % is wanted/),
  ]);
});

it('what was not measured is not enough', () => {
  const { status, said } = report(run('plain', { app: 9, pipeline: 9 }, PUBLISHED));
  expect([status, said]).toEqual([1, expect.stringContaining('FAILED: coverage of ssl was not measured')]);
});

it('where its tests cannot run, a part is not judged, and that is said', () => {
  const plain = run('plain', { app: 9, infra: 7, pipeline: 7, ssl: 9 });
  const skipped = run(
    'engine',
    {},
    { 'tests/stack/up.test.ts': ['pending', 'pending', 'pending', 'pending', 'passed'] },
  );
  const { status, said } = report(plain, skipped);
  expect([status, said]).toEqual([0, expect.stringContaining('infra is not judged: tests/stack/ was not run here')]);
  expect(said).toContain('pipeline is not judged');
});

it('where they did run, it is, by the lines of all', () => {
  const plain = run('plain', { app: 9, infra: 7, pipeline: 9, ssl: 9 }, PUBLISHED);
  const tests = { 'tests/stack/up.test.ts': ['pending', 'passed'] };
  expect(report(plain, run('engine', { infra: 8 }, tests))).toMatchObject({ status: 0 });
  rmSync(join(directory, 'engine'), { recursive: true });
  const { status, said } = report(plain, run('engine', { infra: 7 }, tests));
  expect([status, said]).toEqual([1, expect.stringContaining('FAILED: coverage of infra is 70.0 %')]);
});
