import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Experiment, EXPERIMENTS, type Facts } from '../chaos/experiments';
import { factsOf } from '../chaos/facts';
import { withdrawLeftovers } from '../chaos/injection';
import { renderChaosPage, renderChaosTable, renderSummary, type Result, summarize } from '../chaos/report';
import { tryOut, Unsteady } from '../chaos/run';
import type { SteadyState } from '../chaos/verdict';
import { StepError } from '../deploy/engine';
import { requireConfirmation, withEntrance } from '../load/entrance';
import { renderJson, writeReport } from '../load/report';
import { inTurn, placeOf } from '../lock';
import { list, prefixOf, ROOT, useEngineOf } from '../operator';

/**
 * `make chaos`: faults in a running stack under load, one after the other, and whether the service bears them as it should.
 * It ends at the first one that it does not bear. No deploy of ours begins meanwhile, and none may be under way.
 */
export async function chaos(stack: string, args: readonly string[]): Promise<void> {
  const options = readOptions(args);
  if (options.list) {
    const width = Math.max(...EXPERIMENTS.map(({ name }) => name.length));
    for (const { name, title } of EXPERIMENTS) console.log(`  ${name.padEnd(width)}  ${title}`);
    return;
  }
  requireConfirmation(stack, 'chaos', 'break parts, and add loans to the book');
  useEngineOf(stack);
  // Whoever deploys now is not waited for: what he brings is not what was to be tried.
  await inTurn(placeOf(ROOT, stack), 0, async (turn) => {
    await turn.free();
    const leftovers = await withdrawLeftovers(prefixOf(stack), options.undo);
    if (leftovers.length > 0) console.log(`Taken back from an earlier run:\n${list(leftovers)}`);
    if (options.undo) {
      if (leftovers.length === 0) console.log(`Nothing of an experiment is left in ${stack}.`);
      return;
    }
    await runAll(stack, options);
  });
}

interface Options {
  readonly experiments: readonly Experiment[];
  readonly rate: number;
  readonly steady: SteadyState;
  readonly undo: boolean;
  readonly list: boolean;
}

/** For each request of a second: as many as wait where each takes some seconds to be refused. More wait here, and count as well. */
const CONNECTIONS_PER_REQUEST = 4;

async function runAll(stack: string, { experiments, rate, steady }: Options): Promise<void> {
  const end = new AbortController();
  const stop = () => {
    console.error('Told to end: the fault is taken back.');
    end.abort();
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  const startedAt = Date.now();
  const results: Result[] = [];
  try {
    const facts = await factsOf(stack);
    console.log(
      `${stack}: ${facts.api.length} API containers, ${rate} requests per second, ${experiments.length} experiments.`,
    );
    await withEntrance(stack, async (target) => {
      for (const experiment of experiments) {
        if (end.signal.aborted) return;
        const { name, title, hypothesis, seconds } = experiment;
        const fault = experiment.fault(facts, seconds);
        if ('impossible' in fault) {
          results.push({ name, title, hypothesis, impossible: fault.impossible });
          console.log(`SKIP  ${name}: not possible here: ${fault.impossible}`);
          continue;
        }
        console.log(`      ${name}: ${fault.means}, for ${seconds} s`);
        const around = {
          facts,
          target,
          rate,
          connections: CONNECTIONS_PER_REQUEST * rate,
          steady,
          end: end.signal,
          say: console.log,
        };
        try {
          const result = summarize(experiment, await tryOut(experiment, fault, around));
          results.push(result);
          console.log(renderSummary(result));
          if (result.faults.length > 0) return;
        } catch (error) {
          if (!(error instanceof Unsteady)) throw error;
          results.push({ name, title, hypothesis, impossible: `not begun: ${error.message}`, unsteady: true });
          console.log(`STOP  ${name}: the steady state does not hold before, nothing was done: ${error.message}`);
          return;
        }
      }
    });
    writeResults(stack, startedAt, facts, rate, results);
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop);
  }
  requireSuccess(stack, experiments, results, end.signal.aborted);
}

function writeResults(stack: string, startedAt: number, facts: Facts, rate: number, results: readonly Result[]): void {
  if (results.length === 0) return;
  const about = { stack, startedAt, containers: facts.api.length, rate };
  const pictures = results.flatMap((result) =>
    'picture' in result ? [[`${result.name}.svg`, result.picture] as const] : [],
  );
  const directory = writeReport(ROOT, `chaos-${stack}`, startedAt, {
    'index.html': renderChaosPage(about, results),
    'report.json': renderJson({ ...about, results: results.map((result) => ({ ...result, picture: undefined })) }),
    'summary.md': renderChaosTable(results),
    ...Object.fromEntries(pictures),
  });
  console.log(`\nReport: ${join(directory, 'index.html')}`);
}

function requireSuccess(
  stack: string,
  wanted: readonly Experiment[],
  results: readonly Result[],
  ended: boolean,
): void {
  const failed = results.filter((result) => ('faults' in result ? result.faults.length > 0 : result.unsteady === true));
  if (failed.length > 0) {
    throw new StepError(
      `${stack} did not bear ${failed.map(({ name }) => name).join(', ')}; the fault was taken back.`,
    );
  }
  if (ended) throw new StepError(`Ended after ${results.length} of ${wanted.length} experiments.`);
  const skipped = results.filter((result) => 'impossible' in result).length;
  console.log(
    `${results.length - skipped} experiments went as expected${skipped > 0 ? `, ${skipped} are not possible here` : ''}.`,
  );
}

const HELP = `make chaos STACK=staging                     all experiments, some minutes; LIST=1 names them
make chaos STACK=staging EXPERIMENT=api-kill,database-kill
  [RATE=30] requests per second, [P95=200ms] what counts as steady
make chaos STACK=staging UNDO=1              takes back what a run left that was killed`;

function readOptions(args: readonly string[]): Options {
  const fail = (what: string) => new StepError(`${what}, nothing was done.\n${HELP}`);
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const read = () => {
    try {
      const options = { experiment: text, rate: text, p95: text, undo: flag, list: flag };
      return parseArgs({ args: [...args], options }).values;
    } catch (error) {
      throw fail((error as Error).message);
    }
  };
  const values = read();
  const names = (values.experiment ?? '').split(',').filter(Boolean);
  const unknown = names.filter((name) => !EXPERIMENTS.some((experiment) => experiment.name === name));
  if (unknown.length > 0) {
    throw fail(
      `There is no experiment ${unknown.join(', ')}: choose of ${EXPERIMENTS.map(({ name }) => name).join(', ')}`,
    );
  }
  const rate = values.rate ?? '30';
  if (!/^[1-9]\d{0,2}$/.test(rate) || Number(rate) < 10)
    throw fail(`RATE=${rate} is not a whole number from 10 to 999`);
  const p95 = values.p95 ?? '200ms';
  const [, amount = '', unit] = /^([1-9]\d{0,4})(ms|s)$/.exec(p95) ?? [];
  if (unit === undefined) throw fail(`P95=${p95} is not a time such as 200ms or 1s`);
  return {
    experiments: names.length === 0 ? EXPERIMENTS : EXPERIMENTS.filter(({ name }) => names.includes(name)),
    rate: Number(rate),
    steady: { failedShare: 0.01, anyP95Ms: Number(amount) * (unit === 's' ? 1_000 : 1) },
    ...{ undo: values.undo === true, list: values.list === true },
  };
}
