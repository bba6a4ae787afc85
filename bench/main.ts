import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compare, type ComparisonPlan } from './compare';
import { CONTENDERS, type ContenderName } from './contenders';
import { type DataSet, prepareLoans } from './data';
import { BUSY_CONNECTIONS, CannotDeploy, CONNECTIONS, deploysTables, measureDeploys, RATE } from './deploys';
import { buildImage, LIMITS, NoDocker, withLimitedPostgres } from './docker';
import { type FlaskOriginal, NoFlask, prepareFlask } from './flask';
import { BOUND_MS, measureLimits, SHARE } from './limits';
import { FLAT_MIB, measureMemory, type Trend } from './memory';
import { comparisonTables, failuresOf, goalsOf, goalsTable, ratiosOf, table } from './report';
import { measureScaling } from './scale';
import { onStage, ROOT, type Stage } from './stage';
import { measureStart } from './start';
import { WORKLOADS } from './workloads';

const USAGE = `usage: main [command] [options]

  compare    ours side by side with node:http + pg, Fastify + pg and the Flask original (default)
  limits     latency at ${SHARE * 100} % of saturation, in containers with ${LIMITS.cpus} CPU and ${LIMITS.memory} each
  memory     what the service keeps over many requests
  start      from start to ready, and the size of the image
  scale      the far end of a long list, and the statistics of many loans
  deploys    deploys in a row under load, beside Docker Compose

  --rows N            loans in the database (default 1000000, scale 10000000; or ROWS)
  --fresh             make the database anew
  --rounds N          (5)     --seconds N   of a round (4)     --connections N   (64)
  --requests N        of memory (360000: an hour at 100 a second)
  --deploys N         in a row (20; with --hog 10, and their rollbacks)
  --hog               deploys: other processes keep the host busy, and a rollback follows every other deploy; no Compose
                      (or HOG)
  --contenders a,b    of ${CONTENDERS.join(', ')}
  --workloads a,b     of ${WORKLOADS.join(', ')}
  --flask DIR         sources of the Flask original (FLASK_ORIGINAL; else they are cloned)
  --strict            exit code 1 if a "must" is missed

Results are printed, and written to .local/bench.
`;

interface Options {
  readonly command: keyof typeof COMMANDS;
  readonly rows: number | undefined;
  readonly fresh: boolean;
  readonly flask: string | undefined;
  readonly requests: number;
  readonly deploys: number;
  readonly hog: boolean;
  readonly strict: boolean;
  readonly plan: ComparisonPlan;
}

interface Result {
  readonly text: string;
  readonly data: object;
  readonly failures: readonly string[];
  readonly mustsMissed?: boolean;
}

const COMMANDS = {
  ...{ compare: runCompare, limits: runLimits, memory: runMemory, start: runStart, scale: runScale },
  deploys: runDeploys,
};
const ROWS = 1_000_000;
const MANY_ROWS = 10_000_000;
const FEW_ROWS = 1_000;
/** Of the constant load of one trial. */
const STEADY_SECONDS = 15;

async function main(): Promise<number> {
  const options = readArguments(process.argv.slice(2));
  if (options === undefined) {
    process.stderr.write(USAGE);
    return 2;
  }
  return onStage(async (stage) => {
    const { text, data, failures, mustsMissed } = await COMMANDS[options.command](stage, options);
    const failed = failures.length === 0 ? 'No request failed.' : `Failed:\n${failures.join('\n')}`;
    const whole = `${machine()}\n\n${text}\n${failed}\n`;
    const file = join(stage.directory, options.command);
    writeFileSync(`${file}.md`, whole);
    writeFileSync(`${file}.json`, `${JSON.stringify({ machine: machine(), ...data, failures }, null, 2)}\n`);
    say(`\n${whole}`);
    return failures.length > 0 || (options.strict && mustsMissed === true) ? 1 : 0;
  });
}

function readArguments(args: string[]): Options | undefined {
  try {
    const { positionals, values } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        rows: { type: 'string', default: process.env['ROWS'] || undefined },
        fresh: { type: 'boolean', default: false },
        rounds: { type: 'string', default: '5' },
        seconds: { type: 'string', default: '4' },
        connections: { type: 'string', default: '64' },
        requests: { type: 'string', default: '360000' },
        deploys: { type: 'string' },
        hog: { type: 'boolean', default: Boolean(process.env['HOG']) },
        contenders: { type: 'string', default: CONTENDERS.join(',') },
        workloads: { type: 'string', default: WORKLOADS.join(',') },
        flask: { type: 'string', default: process.env['FLASK_ORIGINAL'] || undefined },
        strict: { type: 'boolean', default: false },
      },
    });
    const [command = 'compare', ...rest] = positionals;
    const contenders = namesIn(values.contenders, CONTENDERS);
    const workloads = namesIn(values.workloads, WORKLOADS);
    const { rounds: r, seconds: s, connections: c, requests: q, hog } = values;
    const d = values.deploys ?? (hog ? '10' : '20');
    const numbers = [r, s, c, q, d, values.rows ?? '1'].map(Number);
    const [rounds = 0, seconds = 0, connections = 0, requests = 0, deploys = 0, rows = 0] = numbers;
    if (rest.length > 0 || !isCommand(command) || contenders === undefined || workloads === undefined) return undefined;
    if (!numbers.every((number) => number > 0)) return undefined;
    const plan = { contenders, workloads, rounds, seconds, warmUpSeconds: Math.min(2, seconds), connections };
    const { fresh, flask, strict } = values;
    return {
      command,
      rows: values.rows === undefined ? undefined : rows,
      fresh,
      flask,
      requests,
      deploys,
      hog,
      strict,
      plan,
    };
  } catch {
    return undefined; // An option that does not exist.
  }
}

function isCommand(name: string): name is keyof typeof COMMANDS {
  return Object.hasOwn(COMMANDS, name);
}

function namesIn<Name extends string>(list: string, known: readonly Name[]): Name[] | undefined {
  const names = list.split(',');
  return names.every((name) => (known as readonly string[]).includes(name)) ? (names as Name[]) : undefined;
}

async function runCompare(stage: Stage, options: Options): Promise<Result> {
  const { flask: sources, plan } = options;
  const data = await loans(stage, options, ROWS);
  const { flask, contenders } = await withFlask(stage, plan.contenders, data.rows, sources);
  const measured = await compare(stage, data, flask, { ...plan, contenders }, say);
  const ratios = ratiosOf(measured);
  const goals = goalsOf(ratios);
  const text = [
    `${data.rows} loans, ${plan.rounds} rounds of ${plan.seconds} s, ${plan.connections} connections\n\n`,
    comparisonTables(measured, ratios),
    `\n${goalsTable(goals)}`,
  ].join('');
  return {
    text,
    data: { rows: data.rows, plan, measured, ratios, goals },
    failures: failuresOf(measured),
    mustsMissed: goals.some(({ kind, reached }) => kind === 'must' && !reached),
  };
}

async function runLimits(stage: Stage, options: Options): Promise<Result> {
  try {
    const image = await buildImage();
    return await withLimitedPostgres(stage, async (limited) => {
      const data = await loans(limited, options, ROWS);
      const { trials, p95Ms, failures } = await measureLimits(image, limited, data, STEADY_SECONDS);
      const rows = trials.map(({ saturation, rate, ...latency }) =>
        [saturation, rate, latency.p50Ms, latency.p95Ms, latency.p99Ms].map((figure) => figure.toFixed(0)),
      );
      const text = [
        `${data.rows} loans; API and Postgres in containers with ${LIMITS.cpus} CPU and ${LIMITS.memory} each; `,
        `of 10 requests 7 GET by id, 2 list, 1 POST with key\n\n`,
        table(['saturation, requests/s', `${SHARE * 100} % of it`, 'p50 ms', 'p95 ms', 'p99 ms'], rows),
        `\np95, median of the trials: ${p95Ms.toFixed(0)} ms; under ${BOUND_MS}: ${verdict(p95Ms < BOUND_MS)}\n`,
      ].join('');
      return { text, data: { rows: data.rows, trials, p95Ms }, failures };
    });
  } catch (error) {
    if (!(error instanceof NoDocker)) throw error;
    return { text: `limits: skipped: ${error.message}\n`, data: { skipped: error.message }, failures: [] };
  }
}

async function runMemory(stage: Stage, options: Options): Promise<Result> {
  const data = await loans(stage, options, ROWS);
  const run = await measureMemory(stage, data, options.requests, say);
  const line = (name: string, { firstMiB, lastMiB, slopeMiB, plusMinusMiB }: Trend) => [
    name,
    firstMiB.toFixed(1),
    lastMiB.toFixed(1),
    `${slopeMiB.toFixed(2)} ± ${plusMinusMiB.toFixed(2)}`,
    verdict(slopeMiB + plusMinusMiB < FLAT_MIB),
  ];
  const text = [
    `${run.requests} requests in ${run.seconds.toFixed(0)} s, two processes together, first third left out\n\n`,
    table(
      ['', 'MiB at first', 'MiB at last', 'MiB per 100,000 requests (95 %)', `surely under ${FLAT_MIB.toFixed(1)}`],
      [line('resident', run.resident), line('heap in use', run.heap)],
    ),
  ].join('');
  return { text, data: run, failures: run.failures };
}

async function runStart(stage: Stage, options: Options): Promise<Result> {
  const data = await loans(stage, options, FEW_ROWS);
  const runs = await measureStart(stage, data);
  const rows = runs.map(({ processes, milliseconds, medianMs }) => [
    String(processes),
    medianMs.toFixed(0),
    `${Math.min(...milliseconds).toFixed(0)} to ${Math.max(...milliseconds).toFixed(0)}`,
    verdict(medianMs < 1_000),
  ]);
  const image = await buildImage().catch((error: unknown) => {
    if (error instanceof NoDocker) return error;
    throw error;
  });
  const mb = (bytes: number) => (bytes / 1e6).toFixed(1);
  const size =
    image instanceof NoDocker
      ? `Image size: skipped: ${image.message}\n`
      : `Image: ${mb(image.bytes)} MB, of which Node's own image ${mb(image.baseBytes)} MB\n`;
  const text = `${table(['processes', 'start to first answer, median ms', 'spread', 'under 1 s'], rows)}\n${size}`;
  return { text, data: { runs, image: image instanceof NoDocker ? undefined : image }, failures: [] };
}

async function runScale(stage: Stage, options: Options): Promise<Result> {
  const large = await loans(stage, options, MANY_ROWS);
  const small = await loans(stage, { ...options, rows: FEW_ROWS }, FEW_ROWS);
  const { page, timings, pages, stats, failures } = await measureScaling(stage, small, large);
  const text = [
    table(
      ['one request at a time', 'median ms', 'requests'],
      timings.map(({ name, medianMs, samples }) => [name, medianMs.toFixed(2), String(samples)]),
    ),
    `\npage ${page} by page 1: ${pages.toFixed(2)}; at most 1.5: ${verdict(pages <= 1.5)}\n`,
    `stats of ${large.rows} by stats of ${small.rows}: ${stats.toFixed(2)}; at most 2: ${verdict(stats <= 2)}\n`,
  ].join('');
  return { text, data: { rows: large.rows, page, timings, pages, stats }, failures };
}

async function runDeploys(stage: Stage, { deploys, hog }: Options): Promise<Result> {
  try {
    const series = await measureDeploys(stage.directory, deploys, hog, say);
    const [ours] = series;
    const connections = hog ? BUSY_CONNECTIONS : CONNECTIONS;
    const text = [
      `${RATE} requests/s (one of three a POST with key) on ${connections} connections over TLS, `,
      hog ? 'fewer while all are in use\n\n' : 'due at fixed times\n\n',
      deploysTables(series),
    ].join('');
    // What the peer fails is a result, not a fault of the run.
    const failures = [...(ours?.failures ?? []), ...(ours?.lost ?? []), ...(ours?.faults ?? [])];
    return { text, data: { series }, failures };
  } catch (error) {
    if (!(error instanceof CannotDeploy)) throw error;
    return { text: `deploys: skipped: ${error.message}\n`, data: { skipped: error.message }, failures: [] };
  }
}

function verdict(reached: boolean): string {
  return reached ? 'reached' : 'MISSED';
}

async function loans(stage: Stage, { rows, fresh }: Options, otherwise: number): Promise<DataSet> {
  const wanted = rows ?? otherwise;
  say(`The data: ${wanted} loans`);
  return prepareLoans(stage.postgres.port, wanted, fresh);
}

async function withFlask(
  stage: Stage,
  contenders: readonly ContenderName[],
  rows: number,
  sources: string | undefined,
): Promise<{ flask: FlaskOriginal | undefined; contenders: readonly ContenderName[] }> {
  if (!contenders.includes('flask')) return { flask: undefined, contenders };
  try {
    return { flask: await prepareFlask(stage, rows, sources), contenders };
  } catch (error) {
    if (!(error instanceof NoFlask)) throw error;
    say(`Flask original skipped: ${error.message}`);
    return { flask: undefined, contenders: contenders.filter((name) => name !== 'flask') };
  }
}

function machine(): string {
  const commit = execFileSync('git', ['describe', '--always', '--dirty'], { cwd: ROOT, encoding: 'utf8' }).trim();
  const memory = Math.round(totalmem() / 2 ** 30);
  return (
    `${new Date().toISOString().slice(0, 16)}Z, commit ${commit}, Node ${process.version}, ` +
    `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), ${memory} GiB`
  );
}

function say(line: string): void {
  console.log(line);
}

main().then(
  (code) => (process.exitCode = code),
  (error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  },
);
