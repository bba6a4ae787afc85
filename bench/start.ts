import { buildService, startService } from './contenders';
import type { DataSet } from './data';
import { median } from '../infra/load/quantile';
import type { Stage } from './stage';

/** From the start of the process until it has answered a request from the database. */
export interface StartRun {
  readonly processes: number;
  readonly milliseconds: readonly number[];
  readonly medianMs: number;
}

const STARTS = 10;

export async function measureStart(stage: Stage, data: DataSet): Promise<StartRun[]> {
  const program = buildService(stage.directory);
  const runs = [1, 2].map((processes) => ({ processes, milliseconds: [] as number[] }));
  for (let start = 0; start < STARTS; start++) {
    for (const { processes, milliseconds } of runs) {
      const startedAt = performance.now();
      const service = await startService(program, stage, data, { PROCESSES: String(processes) });
      milliseconds.push(performance.now() - startedAt);
      await service.stop();
    }
  }
  return runs.map(({ processes, milliseconds }) => ({ processes, milliseconds, medianMs: median(milliseconds) }));
}
