import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EnvironmentSpec } from './environment';
import { unread } from './preflight';

const root = mkdtempSync(join(tmpdir(), 'branchloans-preflight-'));
afterAll(() => rmSync(root, { recursive: true }));

const stored = (volume: EnvironmentSpec['database']['volume']) => ({
  database: { volume } as EnvironmentSpec['database'],
});

it('warns of a directory that looks like the database and is not read', () => {
  const volume = stored({ kind: 'volume', name: 'postgres_data_dev' });
  expect(unread(volume, root)).toEqual([]);
  mkdirSync(join(root, 'postgres_data_dev'));
  expect(unread(volume, root)).toEqual([expect.stringMatching(/^The directory postgres_data_dev .* docs.UPGRADING.md/)]);
  expect(unread(stored({ kind: 'directory', path: join(root, 'postgres_data_dev') }), root)).toEqual([]);
});
