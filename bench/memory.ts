import { buildService, HEADERS, startService } from './contenders';
import type { DataSet } from './data';
import { askOnce, get, saturate } from './load';
import type { Stage } from './stage';
import { mixedRequests } from './workloads';

/** Whether the service keeps what it should let go: an hour's worth of requests in as little time as they take. */
export interface MemoryRun {
  readonly requests: number;
  readonly seconds: number;
  readonly resident: Trend;
  readonly heap: Trend;
  readonly failures: readonly string[];
}

/** Of both processes together, from the run's second third on: what comes before is warm-up. */
export interface Trend {
  readonly firstMiB: number;
  readonly lastMiB: number;
  /** Per 100,000 requests. */
  readonly slopeMiB: number;
  /** Half of the 95 % confidence interval of the slope. */
  readonly plusMinusMiB: number;
}

interface Sample {
  readonly requests: number;
  readonly resident: number;
  readonly heap: number;
}

/** The lowest value of a block is what was left after a collection; blocks are far enough apart to be independent. */
const BLOCKS = 20;
const SAMPLES = 300;
const CONNECTIONS = 32;
/** One MiB a minute at 100 requests a second, per 100,000 requests. */
export const FLAT_MIB = 100_000 / 6_000;
const MIB = 2 ** 20;

export async function measureMemory(
  stage: Stage,
  data: DataSet,
  requests: number,
  progress: (line: string) => void,
): Promise<MemoryRun> {
  const service = await startService(buildService(stage.directory), stage, data);
  try {
    const samples: Sample[] = [];
    const failures = new Map<string, number>();
    const startedAt = performance.now();
    const next = mixedRequests(data.rows);
    let answered = 0;
    const total = Math.ceil(requests / SAMPLES);
    while (answered < requests) {
      const result = await saturate(service.port, next, { connections: CONNECTIONS, total });
      answered += result.requests;
      for (const [words, count] of result.failures) failures.set(words, (failures.get(words) ?? 0) + count);
      if (result.requests === 0) throw new Error(`No request is answered: ${[...failures.keys()].join(', ')}`);
      samples.push({ requests: answered, ...(await memoryOf(service.port)) });
      if (samples.length % 30 === 0) progress(`${Math.round(answered)} requests`);
    }
    const late = samples.slice(Math.floor(samples.length / 3));
    return {
      requests: answered,
      seconds: (performance.now() - startedAt) / 1_000,
      resident: trendOf(late.map((sample) => [sample.requests, sample.resident])),
      heap: trendOf(late.map((sample) => [sample.requests, sample.heap])),
      failures: [...failures].map(([words, count]) => `${count} x ${words}`),
    };
  } finally {
    await service.stop();
  }
}

/** Bytes, of all processes of the service that take requests. */
async function memoryOf(port: number): Promise<{ resident: number; heap: number }> {
  const { body } = await askOnce(port, get('/metrics', HEADERS));
  const valueOf = (name: string) => Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(body)?.[1]);
  return { resident: valueOf('process_resident_memory_bytes'), heap: valueOf('nodejs_heap_size_used_bytes') };
}

/** A straight line through the lowest value of each block, by least squares. */
export function trendOf(samples: readonly (readonly [requests: number, bytes: number])[]): Trend {
  const size = samples.length / BLOCKS;
  const lows = Array.from({ length: BLOCKS }, (_, block) => {
    const own = samples.slice(Math.floor(block * size), Math.floor((block + 1) * size));
    return own.reduce((low, sample) => (sample[1] < low[1] ? sample : low));
  });
  const n = lows.length;
  const meanX = lows.reduce((sum, [x]) => sum + x, 0) / n;
  const meanY = lows.reduce((sum, [, y]) => sum + y, 0) / n;
  const squares = lows.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  const slope = lows.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0) / squares;
  const residuals = lows.reduce((sum, [x, y]) => sum + (y - meanY - slope * (x - meanX)) ** 2, 0);
  /** Student's t for 95 % and 18 degrees of freedom, that is for 20 blocks. */
  const t = 2.101;
  const scale = 100_000 / MIB;
  return {
    firstMiB: (lows[0]?.[1] ?? NaN) / MIB,
    lastMiB: (lows.at(-1)?.[1] ?? NaN) / MIB,
    slopeMiB: slope * scale,
    plusMinusMiB: t * Math.sqrt(residuals / (n - 2) / squares) * scale,
  };
}
