import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EnvironmentSpec } from './environment';
import { alertWarnings, unread } from './preflight';

describe('alerts', () => {
  type Alerts = EnvironmentSpec['alerts'];
  const warnings = (stack: EnvironmentSpec['stack'], alerts: { receivers?: object; runbooks?: string }) =>
    alertWarnings({ stack, alerts: { receivers: {}, runbooks: 'docs/runbooks/', ...alerts } as unknown as Alerts });
  const HEARD = { webhook: true };

  it.each([
    ['production', {}, /^Nobody is told/],
    ['staging', { receivers: HEARD }, /^Alerts of staging name their pages \(docs\/runbooks\/\) and link to none/],
  ] as const)('warns: %s %j', (stack, alerts, warning) => {
    expect(warnings(stack, alerts)).toEqual([expect.stringMatching(warning)]);
  });

  it.each([
    ['development', {}],
    ['production', { receivers: HEARD, runbooks: 'https://git.example/docs/runbooks/' }],
  ] as const)('says nothing: %s %j', (stack, alerts) => {
    expect(warnings(stack, alerts)).toEqual([]);
  });
});

describe('a directory that looks like the database and is not read', () => {
  const root = mkdtempSync(join(tmpdir(), 'branchloans-preflight-'));
  afterAll(() => rmSync(root, { recursive: true }));
  const stored = (volume: EnvironmentSpec['database']['volume']) => ({
    database: { volume } as EnvironmentSpec['database'],
  });

  it('is warned of', () => {
    const volume = stored({ kind: 'volume', name: 'postgres_data_dev' });
    expect(unread(volume, root)).toEqual([]);
    mkdirSync(join(root, 'postgres_data_dev'));
    expect(unread(volume, root)).toEqual([
      expect.stringMatching(/^The directory postgres_data_dev .* docs.UPGRADING.md/),
    ]);
    expect(unread(stored({ kind: 'directory', path: join(root, 'postgres_data_dev') }), root)).toEqual([]);
  });
});
