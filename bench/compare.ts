import { type Contender, type ContenderName, startContender } from './contenders';
import { type CpuClock, cpuClock } from './cpu';
import type { DataSet } from './data';
import type { FlaskOriginal } from './flask';
import { saturate } from './load';
import { median, quantile } from '../infra/load/quantile';
import type { Stage } from './stage';
import { checkAnswers, endpointOf, requestsOf, takesPart, walkPages, type WorkloadName } from './workloads';

/** Contenders side by side: every round gives each of them the same load for a moment, so that they share the noise. */
export interface ComparisonPlan {
  readonly contenders: readonly ContenderName[];
  readonly workloads: readonly WorkloadName[];
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  readonly connections: number;
}

export interface Measured {
  readonly contender: ContenderName;
  readonly workload: WorkloadName;
  readonly requests: number;
  /** Requests per second, of each round. */
  readonly rates: readonly number[];
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** CPU seconds per 1,000 requests; undefined where the system does not tell. */
  readonly serviceCpu: number | undefined;
  readonly postgresCpu: number | undefined;
  readonly generatorCpu: number;
  /** What was not answered with 2xx, and how often. */
  readonly failures: Readonly<Record<string, number>>;
}

interface Total {
  requests: number;
  service: number | undefined;
  postgres: number | undefined;
  generator: number;
  readonly rates: number[];
  readonly latenciesMs: number[];
  readonly failures: Record<string, number>;
}

/** Where pages of the list begin: so many that no two requests in a row have to read the same rows. */
const PAGES = 500;

export async function compare(
  stage: Stage,
  data: DataSet,
  flask: FlaskOriginal | undefined,
  plan: ComparisonPlan,
  progress: (line: string) => void,
): Promise<Measured[]> {
  const contenders: Contender[] = [];
  try {
    const starts = plan.contenders.map(async (name) => contenders.push(await startContender(name, stage, data, flask)));
    for (const started of await Promise.allSettled(starts)) if (started.status === 'rejected') throw started.reason;
    const ours = contenders.find(({ name }) => name === 'ours');
    const pages = ours === undefined ? [] : await walkPages(ours.main.port, PAGES);
    for (const contender of contenders) await checkAnswers(contender, data.rows, pages);

    const postgres = cpuClock(stage.postgres.pid);
    const totals = new Map<string, Total>();
    for (let round = 0; round <= plan.rounds; round++) {
      const warmUp = round === 0;
      for (const workload of plan.workloads) {
        // Nobody always comes first, or always after the same one.
        for (const contender of rotated(contenders, round)) {
          if (!takesPart(contender.name, workload)) continue;
          const { pid, port } = endpointOf(contender, workload);
          const clocks = { service: cpuClock(pid), postgres };
          const seconds = warmUp ? plan.warmUpSeconds : plan.seconds;
          const next = requestsOf(workload, contender.name, data.rows, pages);
          const total = await measure(clocks, () => saturate(port, next, { connections: plan.connections, seconds }));
          if (warmUp) continue;
          add(totals, `${contender.name} ${workload}`, total);
          progress(`round ${round} ${workload} ${contender.name}: ${Math.round(total.rates[0] ?? 0)} requests/s`);
        }
      }
    }
    return plan.workloads.flatMap((workload) =>
      plan.contenders.filter((name) => takesPart(name, workload)).map((name) => summaryOf(name, workload, totals)),
    );
  } finally {
    await Promise.all(contenders.map((contender) => contender.stop()));
  }
}

async function measure(
  clocks: { readonly service: CpuClock; readonly postgres: CpuClock },
  load: () => ReturnType<typeof saturate>,
): Promise<Total> {
  clocks.service.read();
  clocks.postgres.read();
  const before = process.cpuUsage();
  const { requests, seconds, latenciesMs, failures } = await load();
  const { user, system } = process.cpuUsage(before);
  return {
    requests,
    service: clocks.service.read(),
    postgres: clocks.postgres.read(),
    generator: (user + system) / 1e6,
    rates: [requests / seconds],
    latenciesMs: [...latenciesMs],
    failures: Object.fromEntries(failures),
  };
}

function add(totals: Map<string, Total>, key: string, round: Total): void {
  const total = totals.get(key);
  if (total === undefined) {
    totals.set(key, round);
    return;
  }
  total.requests += round.requests;
  total.service = sum(total.service, round.service);
  total.postgres = sum(total.postgres, round.postgres);
  total.generator += round.generator;
  total.rates.push(...round.rates);
  for (const latency of round.latenciesMs) total.latenciesMs.push(latency);
  for (const [words, count] of Object.entries(round.failures)) {
    total.failures[words] = (total.failures[words] ?? 0) + count;
  }
}

function summaryOf(contender: ContenderName, workload: WorkloadName, totals: ReadonlyMap<string, Total>): Measured {
  const total = totals.get(`${contender} ${workload}`);
  if (total === undefined) throw new Error(`${contender} was not asked for ${workload}`);
  const { requests, rates, latenciesMs, failures } = total;
  const each = (cpu: number | undefined) => (cpu === undefined ? undefined : (cpu * 1_000) / requests);
  return {
    contender,
    workload,
    requests,
    rates,
    p50Ms: median(latenciesMs),
    p99Ms: quantile(latenciesMs, 0.99),
    serviceCpu: each(total.service),
    postgresCpu: each(total.postgres),
    generatorCpu: (total.generator * 1_000) / requests,
    failures,
  };
}

const sum = (a: number | undefined, b: number | undefined) => (a === undefined || b === undefined ? undefined : a + b);

function rotated<T>(list: readonly T[], by: number): T[] {
  return list.map((_, index) => list[(index + by) % list.length] as T);
}
