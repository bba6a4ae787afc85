import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { StepError } from '../deploy/engine';
import { environmentOf, list, ourContainers, ROOT } from '../operator';
import { LABEL } from '../labels';
import { renderChart } from '../load/chart';
import { requireConfirmation, withEntrance } from '../load/entrance';
import { type Figures, figuresOf, kindsOf, lagOf, type Outcome, type Span, spanOf } from '../load/figures';
import { BORROWER_PREFIX, type Load, type Mix, startLoad } from '../load/load';
import { capacityOf, faultOf, nextRate, OBJECTIVE, patienceMs, type Stage, unendedOf } from '../load/ramp';
import {
  chartsOf,
  figuresTable,
  Html,
  html,
  milliseconds,
  renderJson,
  renderPage,
  timelineFor,
  writeReport,
} from '../load/report';
import { changeSettings, inTurnOf } from '../settings';

/**
 * `make load`: a load through the stack's own entrance at a constant rate, or at rising ones until the objectives are no
 * longer kept (`RAMP=1`), with a report. Ctrl-C ends it early, with the report of what was.
 */
export async function load(stack: string, args: readonly string[]): Promise<void> {
  const options = readOptions(stack, args);
  requireConfirmation(stack, 'load', 'put a load upon the users');
  requireWithinQuota(stack, options);
  const end = new AbortController();
  const stop = () => end.abort();
  process.on('SIGINT', stop).on('SIGTERM', stop);
  try {
    await withEntrance(stack, async (target) => {
      const { rate, connections, mix, dryRun } = options;
      const running = startLoad(target, { rate: options.ramp ? FIRST : rate, connections, mix, dryRun });
      await running.begun;
      const startedAt = Date.now();
      const stages = options.ramp
        ? await ramp(running, options, end.signal)
        : await hold(running, options.seconds, end.signal).then(() => []);
      const outcomes = await running.stop();
      const containers = await apiContainers(stack);
      report(stack, { startedAt, options, stages, outcomes, containers, name: running.name });
      if (options.ramp && !end.signal.aborted) await settle(stack, stages, containers, options.apply);
    });
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
}

interface Options {
  readonly rate: number;
  readonly connections: number;
  readonly seconds: number;
  readonly mix: Mix;
  readonly dryRun: boolean;
  readonly ramp: boolean;
  /** The highest rate of a ramp. */
  readonly most: number;
  readonly apply: boolean;
}

/** Before a ramp says its first rate. */
const FIRST = 1;
const SAY_MS = 10_000;
/** After a change of the rate, before it counts. */
const SETTLE_MS = 3_000;
/** The newest outcomes come twice a second. */
const NEWS_MS = 700;
/** All outcomes are kept in memory until the end. */
const MOST_REQUESTS = 2_000_000;

async function hold(running: Load, seconds: number, end: AbortSignal): Promise<void> {
  const until = Date.now() + seconds * 1_000;
  while (Date.now() < until && !end.aborted) {
    const from = Date.now();
    await pause(Math.min(SAY_MS, until - from), end);
    const outcomes = running.outcomes;
    console.log(
      `${clock()}  ${sentence(figuresOf(outcomes, [from - NEWS_MS, Date.now()]), (Date.now() - from) / 1_000)}`,
    );
  }
}

async function ramp(running: Load, { rate: from, most, seconds }: Options, end: AbortSignal): Promise<Stage[]> {
  const stages: Stage[] = [];
  const isOver = () => end.aborted;
  for (;;) {
    const tried = stages.map((stage) => ({ rate: stage.rate, borne: faultOf(stage) === undefined }));
    const rate = nextRate(tried, { from, most });
    if (rate === undefined || isOver()) return stages;
    running.setRate(rate);
    await pause(SETTLE_MS, end);
    const begin = Date.now();
    await pause(seconds * 1_000, end);
    const span: Span = [begin, Date.now()];
    // What does not end by itself ends at the gateway's limit; until then nobody knows how it ended.
    running.setRate(FIRST);
    await untilEnded(running, span, Date.now() + patienceMs(seconds), end);
    if (isOver()) return stages;
    const within = running.outcomes.filter(({ dueAt }) => dueAt >= span[0] && dueAt <= span[1]);
    const unended = unendedOf(rate, span, running.endedUntil(), within.length);
    const stage: Stage = { rate, figures: figuresOf(within), lagMs: lagOf(within), unended };
    stages.push(stage);
    const fault = faultOf(stage);
    console.log(`${clock()}  ${rate}/s: ${fault ?? `kept, p95 ${milliseconds(stage.figures.anyP95Ms)}`}`);
    // What still waits would be the next rate's burden; it ends, since each request has its time.
    await untilEnded(running, span, Infinity, end);
  }
}

/** Until every request of the span has ended. */
async function untilEnded(running: Load, [, to]: Span, until: number, end: AbortSignal): Promise<void> {
  while (running.endedUntil() <= to && Date.now() < until && !end.aborted) await pause(NEWS_MS, end);
}

/** Ends early, and without an error, when it is told to. */
async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(milliseconds, undefined, { signal }).catch(() => undefined);
}

const clock = () => new Date().toISOString().slice(11, 19);

function sentence({ requests, failed, p50Ms, p95Ms, p99Ms }: Figures, seconds: number): string {
  const rate = `${(requests / seconds).toFixed(requests / seconds < 10 ? 1 : 0)}/s`;
  return `${rate}  p50 ${milliseconds(p50Ms)}  p95 ${milliseconds(p95Ms)}  p99 ${milliseconds(p99Ms)}  ${failed} failed`;
}

interface Measured {
  readonly startedAt: number;
  readonly options: Options;
  readonly stages: readonly Stage[];
  readonly outcomes: readonly Outcome[];
  /** How many API containers ran at the end; 0 where they cannot be seen from here. */
  readonly containers: number;
  readonly name: string;
}

function report(stack: string, measured: Measured): void {
  const { startedAt, options, stages, outcomes, containers, name } = measured;
  const span = spanOf(outcomes);
  if (span === undefined) throw new StepError('Nothing was asked: the load ended before it began');
  const total = figuresOf(outcomes);
  const timeline = timelineFor(outcomes, span);
  const kinds = kindsOf(outcomes);
  const lagMs = lagOf(outcomes);
  const verdicts = stages.map((stage) => ({ ...stage, fault: faultOf(stage) }));
  const objective = { value: OBJECTIVE.p95Ms, label: `${OBJECTIVE.p95Ms} ms` };
  const picture = renderChart(...chartsOf(timeline, span, { threshold: objective }));
  const { reads, writes } = options.mix;
  const how = `${options.ramp ? 'rising rates' : `${options.rate}/s`}, up to ${options.connections} at a time, ${reads} reads to ${writes} writes${options.dryRun ? ' (dry runs)' : ''}`;
  const page = renderPage(`Load upon ${stack}`, [
    html`<p>
      ${new Date(startedAt).toISOString()}, ${how}; ${containers} API containers. Latencies count from when a request
      was due, so that one that had to wait is slow even if it was answered soon. The generator itself was at most
      ${milliseconds(lagMs)} late (p99).
    </p>`,
    figuresTable([['all', total]]),
    new Html(picture),
    ...(stages.length > 0
      ? [
          html`<h2>Rates</h2>`,
          figuresTable(verdicts.map(({ rate, figures, fault }) => [`${rate}/s: ${fault ?? 'kept'}`, figures])),
        ]
      : []),
    ...(kinds.length > 0
      ? [
          html`<h2>Failures</h2>
            <ul>
              ${kinds.map(({ kind, count }) => html`<li>${count} × ${kind}</li>`)}
            </ul>`,
        ]
      : []),
    options.dryRun
      ? html`<p>No loan was kept.</p>`
      : html`<p>Its ${total.acknowledged} loans are those whose borrower begins with <code>${name}-</code>.</p>`,
  ]);
  const directory = writeReport(ROOT, `load-${stack}`, startedAt, {
    'index.html': page,
    'report.json': renderJson({
      stack,
      startedAt,
      ...options,
      containers,
      name,
      total,
      lagMs,
      kinds,
      stages: verdicts,
      timeline,
    }),
    'load.svg': picture,
  });
  console.log(`\n${stack}: ${sentence(total, (span[1] - span[0]) / 1_000)}`);
  if (kinds.length > 0) console.log(list(kinds.map(({ kind, count }) => `${count} x ${kind}`)));
  if (lagMs > 50)
    console.log(
      `The generator itself was up to ${milliseconds(lagMs)} late: this machine has too much to do to measure well.`,
    );
  if (!options.dryRun) {
    console.log(`Loans of this load: borrower_id LIKE '${name}-%' (of all loads: '${BORROWER_PREFIX}%').`);
  }
  console.log(`Report: ${join(directory, 'index.html')}`);
}

/** What the ramp found, said or written into the settings. */
async function settle(stack: string, stages: readonly Stage[], containers: number, apply: boolean): Promise<void> {
  const tried = stages.map((stage) => ({ rate: stage.rate, borne: faultOf(stage) === undefined }));
  const capacity = capacityOf(tried, containers);
  if (capacity === undefined) {
    throw new StepError(
      containers === 0
        ? `No API container of ${stack} is seen from here, so what one bears is not known`
        : `No rate was borne (p95 under ${OBJECTIVE.p95Ms} ms, errors under ${OBJECTIVE.failedShare * 100} %): begin lower, RATE=…`,
    );
  }
  console.log(`Capacity: ${capacity} requests per second per API container (${containers} ran).`);
  if (!apply) {
    console.log(`To write it into Pulumi.${stack}.yaml: make load STACK=${stack} RAMP=1 APPLY=1`);
    return;
  }
  await inTurnOf(stack, async () => {
    const putBack = changeSettings(ROOT, stack, [[['api', 'capacity'], capacity]]);
    try {
      environmentOf(stack);
    } catch (error) {
      putBack();
      throw new StepError(`The capacity was not written: ${(error as Error).message}`);
    }
    console.log(
      `Pulumi.${stack}.yaml says so now (api.capacity): commit it. It counts from the next make up STACK=${stack}.`,
    );
    return Promise.resolve();
  });
}

async function apiContainers(stack: string): Promise<number> {
  const ids = await ourContainers(stack, ['--filter', `label=${LABEL}.component=api`, '--quiet']);
  return ids.split('\n').filter(Boolean).length;
}

/** One caller is all that a load is. */
function requireWithinQuota(stack: string, { rate, most, ramp }: Options): void {
  const limit = quotaOf(stack);
  const highest = ramp ? Math.max(rate, most) : rate;
  if (limit === undefined || highest <= limit) return;
  throw new StepError(
    `${stack} allows one caller ${limit} requests per second (api.rateLimit), nothing was done: ` +
      `stay below it (${ramp ? 'MOST' : 'RATE'}=${Math.floor(limit * 0.9)}), or raise the limit`,
  );
}

/** Requests per second; undefined for no limit. */
function quotaOf(stack: string): number | undefined {
  const [requests, seconds] = (environmentOf(stack).api.rateLimit ?? '').split('/').map(Number);
  return requests !== undefined && seconds !== undefined ? requests / seconds : undefined;
}

const HELP = `make load STACK=staging [RATE=50] [DURATION=60s] [CONNECTIONS=64] [MIX=2:1] [DRY_RUN=1]
  RATE requests per second, of them 2 reads to 1 write; DRY_RUN=1: no loan is kept
make load STACK=staging RAMP=1 [RATE=25] [MOST=1000] [DURATION=20s] [APPLY=1]
  rising rates from RATE to MOST, DURATION each, until the objectives are no longer kept; APPLY=1 writes api.capacity`;

function readOptions(stack: string, args: readonly string[]): Options {
  const fail = (what: string) => new StepError(`${what}, nothing was done.\n${HELP}`);
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const read = () => {
    try {
      return parseArgs({
        args: [...args],
        options: {
          ...{ rate: text, most: text, connections: text, duration: text, mix: text },
          ...{ ramp: flag, apply: flag, 'dry-run': flag },
        },
      }).values;
    } catch (error) {
      throw fail((error as Error).message);
    }
  };
  const values = read();
  const number = (name: 'rate' | 'most' | 'connections', fallback: number, most: number) => {
    const value = values[name] ?? String(fallback);
    if (!/^[1-9]\d{0,5}$/.test(value) || Number(value) > most) {
      throw fail(`${name.toUpperCase()}=${value} is not a whole number from 1 to ${most}`);
    }
    return Number(value);
  };
  const ramp = values.ramp === true;
  if (values.apply === true && !ramp) throw fail('APPLY writes what a ramp found: RAMP=1 is missing');
  const duration = values.duration ?? (ramp ? '20s' : '60s');
  const [, amount = '', unit] = /^([1-9]\d{0,4})(s|m|h)$/.exec(duration) ?? [];
  const seconds = Number(amount) * (unit === 'h' ? 3_600 : unit === 'm' ? 60 : 1);
  if (seconds < 1) throw fail(`DURATION=${duration} is not a time such as 90s, 5m or 1h`);
  const mix = values.mix ?? '2:1';
  const [, reads, writes] = /^(\d{1,3}):(\d{1,3})$/.exec(mix) ?? [];
  if (Number(reads) + Number(writes) < 1 || reads === undefined) {
    throw fail(`MIX=${mix} is not reads to writes, such as 2:1 or 1:0`);
  }
  const rate = number('rate', ramp ? 25 : 50, 100_000);
  const limit = quotaOf(stack);
  const most = number('most', limit === undefined ? 5_000 : Math.max(rate, Math.floor(limit * 0.9)), 100_000);
  if (rate * seconds > MOST_REQUESTS) {
    throw fail(
      `${rate} requests per second for ${duration} are more than ${MOST_REQUESTS} requests, which is the most`,
    );
  }
  return {
    ...{ rate, seconds, ramp, most, connections: number('connections', 64, 2_000) },
    ...{ mix: { reads: Number(reads), writes: Number(writes) }, apply: values.apply === true },
    // Figures of the business are made from production's loans.
    dryRun: values['dry-run'] === true || stack === 'production',
  };
}
