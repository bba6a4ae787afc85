import { execFileSync } from 'node:child_process';
import { join, resolve } from 'node:path';

/** The layers of docs/ARCHITECTURE.md are kept by a lint rule; this is what it refuses. */

const ROOT = resolve(__dirname, '..');

interface Rule {
  readonly patterns: { readonly regex: string; readonly message: string }[];
}

function refusals(file: string, imported: string): string[] {
  const text = execFileSync(join(ROOT, 'node_modules/.bin/eslint'), ['--print-config', file], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  const [, { patterns }] = (JSON.parse(text) as { rules: { 'no-restricted-imports': [number, Rule] } }).rules[
    'no-restricted-imports'
  ];
  return patterns.filter(({ regex }) => new RegExp(regex, 'u').test(imported)).map(({ message }) => message);
}

it.each([
  ['app/domain/money.ts', 'node:fs', 1],
  ['app/domain/money.ts', '../db/pool', 1],
  ['app/domain/money.ts', '../../infra/container', 1],
  ['app/domain/money.ts', './loan', 0],
  ['app/db/pool.ts', '../http/app', 1],
  ['app/db/pool.ts', '../../infra/container', 1],
  ['app/db/pool.ts', '../domain/loan', 0],
  ['app/http/app.ts', '../service', 1],
  ['app/http/app.ts', '../db/loans', 0],
  ['app/service.ts', '../infra/step', 1],
  ['infra/index.ts', '../app/service', 1],
  ['infra/components/api.ts', '../../app/config', 0],
  ['infra/ops/dashboards/builder.ts', '../../../app/telemetry/names', 0],
])('%s importing %s: %i refusal(s)', (file, imported, count) => {
  expect(refusals(file, imported)).toHaveLength(count);
});
