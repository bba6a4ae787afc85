import { buildService, startService } from './contenders';
import type { DataSet } from './data';
import { get, saturate } from './load';
import { median } from '../infra/load/quantile';
import { HEADERS } from './contenders';
import type { Stage } from './stage';
import { walkPages } from './workloads';

/** Whether what a request costs grows with the table: one request at a time, the places in turn. */
export interface Timing {
  readonly name: string;
  readonly medianMs: number;
  readonly samples: number;
}

export interface Scaling {
  /** The page in the middle of nowhere; 10,000 unless the table has fewer. */
  readonly page: number;
  readonly timings: readonly Timing[];
  /** Time of the far page by that of the first one; may be 1.5. */
  readonly pages: number;
  /** Time of the statistics of many loans by that of few; may be 2. */
  readonly stats: number;
  readonly failures: readonly string[];
}

const PAGE = 10_000;
const ROUNDS = 10;
const SECONDS = 1;

export async function measureScaling(stage: Stage, small: DataSet, large: DataSet): Promise<Scaling> {
  const program = buildService(stage.directory);
  // No time limit of the statement: the question is how long it takes, not whether it is let.
  const settings = { PROCESSES: '1', DATABASE_STATEMENT_TIMEOUT_MS: '0' } as const;
  const few = await startService(program, stage, small, settings);
  const many = await startService(program, stage, large, settings);
  try {
    const starts = await walkPages(many.port, PAGE - 1);
    const places = [
      { name: 'page 1', port: many.port, path: '/api/loans' },
      { name: `page ${starts.length + 1}`, port: many.port, path: starts.at(-1)?.link ?? '/api/loans' },
      { name: `stats of ${small.rows} loans`, port: few.port, path: '/api/stats' },
      { name: `stats of ${large.rows} loans`, port: many.port, path: '/api/stats' },
    ];
    const latencies = places.map(() => [] as number[]);
    const failures = new Set<string>();
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [index, { name, port, path }] of places.entries()) {
        const result = await saturate(port, () => get(path, HEADERS), { connections: 1, seconds: SECONDS });
        for (const words of result.failures.keys()) failures.add(`${name}: ${words}`);
        if (round > 0) latencies[index]?.push(...result.latenciesMs); // The first one warms up.
      }
    }
    const timings = places.map(({ name }, index) => {
      const samples = latencies[index] ?? [];
      return { name, medianMs: median(samples), samples: samples.length };
    });
    const [first = NaN, far = NaN, statsOfFew = NaN, statsOfMany = NaN] = timings.map(({ medianMs }) => medianMs);
    return {
      page: starts.length + 1,
      timings,
      pages: far / first,
      stats: statsOfMany / statsOfFew,
      failures: [...failures],
    };
  } finally {
    await Promise.all([few.stop(), many.stop()]);
  }
}
