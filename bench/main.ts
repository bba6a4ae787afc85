import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compare, type ComparisonPlan } from './compare';
import { CONTENDERS, type ContenderName } from './contenders';
import { prepareLoans } from './data';
import { NoFlask, type FlaskOriginal, prepareFlask } from './flask';
import { comparisonTables, failuresOf, goalsOf, goalsTable, ratiosOf } from './report';
import { onStage, ROOT, type Stage } from './stage';
import { WORKLOADS } from './workloads';

const USAGE = `usage: main [compare] [options]

  compare    ours side by side with node:http + pg, Fastify + pg and the Flask original (default)

  --rows N            loans in the database (default 1000000, or ROWS)
  --fresh             make the database anew
  --rounds N          (5)     --seconds N   of a round (4)     --connections N   (64)
  --contenders a,b    of ${CONTENDERS.join(', ')}
  --workloads a,b     of ${WORKLOADS.join(', ')}
  --flask DIR         sources of the Flask original (FLASK_ORIGINAL; else they are cloned)
  --strict            exit code 1 if a "must" is missed
`;

interface Options {
  readonly rows: number;
  readonly fresh: boolean;
  readonly flask: string | undefined;
  readonly strict: boolean;
  readonly plan: ComparisonPlan;
}

async function main(): Promise<number> {
  const read = readArguments(process.argv.slice(2));
  if (read === undefined) {
    process.stderr.write(USAGE);
    return 2;
  }
  return onStage((stage) => runCompare(stage, read));
}

function readArguments(args: string[]): Options | undefined {
  try {
    const { positionals, values } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        rows: { type: 'string', default: process.env['ROWS'] || '1000000' },
        fresh: { type: 'boolean', default: false },
        rounds: { type: 'string', default: '5' },
        seconds: { type: 'string', default: '4' },
        connections: { type: 'string', default: '64' },
        contenders: { type: 'string', default: CONTENDERS.join(',') },
        workloads: { type: 'string', default: WORKLOADS.join(',') },
        flask: { type: 'string', default: process.env['FLASK_ORIGINAL'] || undefined },
        strict: { type: 'boolean', default: false },
      },
    });
    if (positionals.length > 1 || (positionals[0] ?? 'compare') !== 'compare') return undefined;
    const contenders = namesIn(values.contenders, CONTENDERS);
    const workloads = namesIn(values.workloads, WORKLOADS);
    const numbers = [values.rows, values.rounds, values.seconds, values.connections].map(Number);
    const [rows = 0, rounds = 0, seconds = 0, connections = 0] = numbers;
    if (contenders === undefined || workloads === undefined || !numbers.every((number) => number > 0)) return undefined;
    const warmUpSeconds = Math.min(2, seconds);
    const plan = { contenders, workloads, rounds, seconds, warmUpSeconds, connections };
    return { rows, fresh: values.fresh, flask: values.flask, strict: values.strict, plan };
  } catch {
    return undefined; // An option that does not exist.
  }
}

function namesIn<Name extends string>(list: string, known: readonly Name[]): Name[] | undefined {
  const names = list.split(',');
  return names.every((name) => (known as readonly string[]).includes(name)) ? (names as Name[]) : undefined;
}

async function runCompare(stage: Stage, { rows, fresh, flask: sources, strict, plan }: Options): Promise<number> {
  say(`The data: ${rows} loans`);
  const data = await prepareLoans(stage.postgres.port, rows, fresh);
  const { flask, contenders } = await withFlask(stage, plan.contenders, rows, sources);
  const measured = await compare(stage, data, flask, { ...plan, contenders }, say);
  const ratios = ratiosOf(measured);
  const goals = goalsOf(ratios);
  const failures = failuresOf(measured);
  const text = [
    `${machine()}\n${rows} loans, ${plan.rounds} rounds of ${plan.seconds} s, ${plan.connections} connections\n\n`,
    comparisonTables(measured, ratios),
    `\n${goalsTable(goals)}`,
    failures.length === 0 ? '\nNo request failed.\n' : `\nFailed requests:\n${failures.join('\n')}\n`,
  ].join('');
  write(stage, `compare-${rows}`, text, { at: new Date().toISOString(), rows, plan, measured, ratios, goals });
  const mustsMissed = goals.some(({ kind, reached }) => kind === 'must' && !reached);
  return failures.length > 0 || (strict && mustsMissed) ? 1 : 0;
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

function write(stage: Stage, name: string, text: string, data: object): void {
  mkdirSync(stage.directory, { recursive: true });
  writeFileSync(join(stage.directory, `${name}.md`), text);
  writeFileSync(join(stage.directory, `${name}.json`), `${JSON.stringify(data, null, 2)}\n`);
  console.log(`\n${text}`);
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
