import { StepError, tryDocker } from '../deploy/engine';
import { queryPrometheus } from '../deploy/prometheus';
import { environmentOf, ourContainers, prefixOf } from '../operator';
import { format, recommend, type Signal, type SignalQuery, signalQueries } from '../ops/autoscale';
import { inTurnOf } from '../settings';
import { scaleTo } from './scale';

/**
 * `make autoscale`: how many API containers the load wants, and why; with `--apply` it makes it so, as `make scale`
 * would. It keeps nothing between two calls: what was before is asked of Prometheus and the engine.
 */
export function autoscale(stack: string, args: readonly string[]): Promise<void> {
  // How many run now is read in turn, too: a deploy before may change it.
  return args.includes('--apply') ? inTurnOf(stack, () => decide(stack, true)) : decide(stack, false);
}

async function decide(stack: string, apply: boolean): Promise<void> {
  const { api } = environmentOf(stack);
  if (api.autoscale === undefined) {
    throw new StepError(
      `${stack} has no range to choose from. Add it to branchloans:api in Pulumi.${stack}.yaml, for instance\n` +
        `    autoscale: { min: ${api.replicas}, max: ${Math.max(4, 2 * api.replicas)}, cpu: 70, latency: 200ms }`,
    );
  }
  const current = api.replicas;
  const prometheus = `${prefixOf(stack)}-prometheus`;
  const started = await newestStart(stack);
  if (started === undefined) throw new StepError(`${stack} does not run here: make up STACK=${stack}`);

  const queries = signalQueries(api.autoscale, api.limits, current);
  const signals = await Promise.all(queries.map((query) => measure(prometheus, query)));
  // By the clock of the engine's host, which the containers' times are of.
  const now = await valueOf(prometheus, 'time()', 'the time');
  const { min, max } = api.autoscale;
  const secondsSinceChange = (now ?? Date.now() / 1000) - started;
  const { replicas, reason, wanted } = recommend({ current, min, max, signals, secondsSinceChange });

  console.log(`${stack}: ${current} API containers; the settings allow ${min} to ${max}.\n`);
  const show = (value: number | undefined, unit: Signal['unit']) => (value === undefined ? '-' : format(value, unit));
  const rows = signals.map((signal) => [
    signal.name,
    show(signal.now, signal.unit),
    show(signal.target, signal.unit),
    wanted[signal.name]?.toString() ?? '-',
  ]);
  for (const row of [['signal', 'now', 'aim', 'wants'], ...rows]) {
    console.log(`  ${row.map((cell, column) => cell.padEnd([10, 12, 12, 0][column] ?? 0)).join('')}`);
  }
  console.log(`\nRecommended: ${replicas}. Reason: ${reason}.`);
  if (replicas === current) return;
  if (apply) await scaleTo(stack, replicas);
  else
    console.log(`To do it: make autoscale STACK=${stack} APPLY=1, or make scale STACK=${stack} REPLICAS=${replicas}`);
}

async function measure(prometheus: string, { name, unit, target, now, peak }: SignalQuery): Promise<Signal> {
  const [value, highest] = await Promise.all([now, peak].map((query) => valueOf(prometheus, query, name)));
  return { name, unit, target, now: value, peak: highest };
}

/** Undefined where there is none. */
async function valueOf(prometheus: string, query: string, name: string): Promise<number | undefined> {
  const samples = await queryPrometheus(prometheus, query);
  if (samples.length > 1) {
    throw new StepError(
      `The query of ${name} gives ${samples.length} series instead of one: put sum(…) or max(…) around it\n    ${query}`,
    );
  }
  const value = samples[0]?.value;
  return Number.isFinite(value) ? value : undefined;
}

/** When the newest of the API's containers started, in seconds since 1970; undefined where none runs. */
async function newestStart(stack: string): Promise<number | undefined> {
  const ids = await ourContainers(stack, ['--filter', 'label=org.branchloans.component=api', '--quiet']);
  if (ids === '') return undefined;
  const { stdout } = await tryDocker(['inspect', '--format', '{{.State.StartedAt}}', ...ids.split('\n')]);
  return Math.max(
    ...stdout
      .trim()
      .split('\n')
      .map((time) => Date.parse(time) / 1000),
  );
}
