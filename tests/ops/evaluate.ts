import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findProgram } from './binaries';

/** Expressions against series whose truth is known, by a real Prometheus' own evaluation. */

const promtool = findProgram('prometheus', 'promtool', '--version', '2.42.0');
export const noPromtool = promtool === undefined ? 'no image and no promtool >= 2.42' : undefined;
export const promtoolLabel = promtool?.label ?? 'promtool';

export interface Expected {
  readonly expr: string;
  /** Minutes from the beginning. */
  readonly at: number;
  /** Labels of a series without its name -> value. */
  readonly is: Readonly<Record<string, number>>;
}

/** @param series with the values of every 15 s, as promtool writes them */
export function expectOf(series: Readonly<Record<string, string>>, expected: readonly Expected[]): void {
  const directory = mkdtempSync(join(tmpdir(), 'evaluate-'));
  chmodSync(directory, 0o755);
  const file = join(directory, 'test.yml');
  const test = {
    interval: '15s',
    input_series: Object.entries(series).map(([name, values]) => ({ series: name, values })),
    promql_expr_test: expected.map(({ expr, at, is }) => ({
      expr,
      eval_time: `${at}m`,
      exp_samples: Object.entries(is).map(([labels, value]) => ({ labels, value })),
    })),
  };
  try {
    writeFileSync(file, JSON.stringify({ rule_files: [], evaluation_interval: '15s', tests: [test] }), { mode: 0o644 });
    const { status, output } = promtool!.run(directory, ['test', 'rules', file]);
    expect({ status, output }).toEqual({ status: 0, output: expect.stringContaining('SUCCESS') });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
