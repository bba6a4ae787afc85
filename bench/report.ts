import type { ContenderName } from './contenders';
import type { Measured } from './compare';
import { median } from '../infra/load/quantile';
import { TITLES, type WorkloadName } from './workloads';

/** What the measurements say: ratios within a round, goals, tables. */
export interface Ratio {
  readonly workload: WorkloadName;
  readonly against: ContenderName;
  /** Requests per second of ours divided by those of the other: median, smallest and largest of the rounds. */
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface Goal {
  readonly kind: 'must' | 'goal';
  readonly workload: WorkloadName;
  readonly against: ContenderName;
  readonly bound: string;
  readonly measured: number;
  readonly reached: boolean;
}

/** Of the issue: every workload, with everything on. */
const GOALS: readonly {
  readonly kind: Goal['kind'];
  readonly against: ContenderName;
  readonly bound: number;
  /** Whether the bound itself is enough. */
  readonly inclusive: boolean;
}[] = [
  { kind: 'must', against: 'bare', bound: 0.85, inclusive: true },
  { kind: 'goal', against: 'bare', bound: 1, inclusive: true },
  { kind: 'goal', against: 'fastify', bound: 1, inclusive: false },
  { kind: 'goal', against: 'flask', bound: 12, inclusive: true },
];

export function ratiosOf(measured: readonly Measured[]): Ratio[] {
  return measured
    .filter(({ contender }) => contender !== 'ours')
    .flatMap(({ workload, contender, rates }) => {
      const ours = measured.find((one) => one.contender === 'ours' && one.workload === workload);
      if (ours === undefined) return [];
      const ratios = rates.map((rate, round) => (ours.rates[round] ?? 0) / rate);
      const [min, max] = [Math.min(...ratios), Math.max(...ratios)];
      return [{ workload, against: contender, median: median(ratios), min, max }];
    });
}

export function goalsOf(ratios: readonly Ratio[]): Goal[] {
  return GOALS.flatMap(({ kind, against, bound, inclusive }) =>
    ratios
      .filter((ratio) => ratio.against === against)
      .map((ratio) => ({
        kind,
        workload: ratio.workload,
        against,
        bound: `${inclusive ? '>=' : '>'} ${bound}`,
        measured: ratio.median,
        reached: inclusive ? ratio.median >= bound : ratio.median > bound,
      })),
  );
}

/** All failures of all contenders, each in a line. */
export function failuresOf(measured: readonly Measured[]): string[] {
  return measured.flatMap(({ contender, workload, failures }) =>
    Object.entries(failures).map(([words, count]) => `${contender}, ${TITLES[workload]}: ${count} x ${words}`),
  );
}

export function comparisonTables(measured: readonly Measured[], ratios: readonly Ratio[]): string {
  const cpu = (seconds: number | undefined) => (seconds === undefined ? 'n/a' : seconds.toFixed(3));
  const figures = measured.map(({ contender, workload, rates, p50Ms, p99Ms, serviceCpu, postgresCpu, ...rest }) => [
    TITLES[workload],
    contender,
    median(rates).toFixed(median(rates) < 10 ? 1 : 0),
    p50Ms.toFixed(1),
    p99Ms.toFixed(1),
    cpu(serviceCpu),
    cpu(postgresCpu),
    cpu(rest.generatorCpu),
  ]);
  const compared = ratios.map(({ workload, against, median: middle, min, max }) => {
    const costOf = (name: ContenderName) => {
      const one = measured.find(({ contender, workload: its }) => contender === name && its === workload);
      return (one?.serviceCpu ?? NaN) + (one?.postgresCpu ?? NaN);
    };
    const byCpu = costOf(against) / costOf('ours');
    return [
      TITLES[workload],
      against,
      middle.toFixed(2),
      `${min.toFixed(2)} to ${max.toFixed(2)}`,
      Number.isNaN(byCpu) ? 'n/a' : byCpu.toFixed(2),
    ];
  });
  return [
    table(
      [
        'workload',
        'contender',
        'requests/s',
        'p50 ms',
        'p99 ms',
        'CPU s: service',
        'CPU s: Postgres',
        'CPU s: generator',
      ],
      figures,
    ),
    '\nCPU seconds are per 1,000 requests. By CPU time: theirs of service and Postgres, by ours.\n\n',
    table(['workload', 'ours against', 'requests/s, ratio', 'spread over the rounds', 'ratio by CPU time'], compared),
  ].join('');
}

export function goalsTable(goals: readonly Goal[]): string {
  return table(
    ['', 'workload', 'ours against', 'bound', 'measured', ''],
    goals.map(({ kind, workload, against, bound, measured, reached }) => {
      return [kind, TITLES[workload], against, bound, measured.toFixed(2), reached ? 'reached' : 'MISSED'];
    }),
  );
}

/** In Markdown, aligned so that it can be read as it is. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) =>
    Math.max(3, heading.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |\n`;
  return [line(headings), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('');
}
