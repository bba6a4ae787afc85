import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { StepError } from '../deploy/engine';
import { placeAt } from '../embedded/environment';
import { LABEL } from '../labels';
import { ourContainers, prefixOf } from '../operator';
import {
  createFilter,
  createParser,
  describe,
  type Entry,
  inOrder,
  type Level,
  LEVELS,
  merge,
  type Origin,
  type Query,
  sinceWhen,
  toJson,
} from '../ops/logs';

interface Options extends Query {
  /** A component or a part of a container's name. */
  readonly container: string | undefined;
  /** ISO 8601; undefined for all that is kept. */
  readonly since: string | undefined;
  readonly follow: boolean;
  readonly json: boolean;
}

/** Where lines come from: a program that writes them, oldest first. */
interface Source extends Origin {
  readonly command: readonly string[];
}

/** How far back is looked when nobody says so; for one request, as far as there are logs. */
const USUALLY = '15m';
const WHEN_FOLLOWED = '1m';
/** How long a followed line waits for those that were written before it and come later. */
const SETTLE_MS = 300;

/** The logs of all containers of a stack as one, in order of time. */
export async function logs(stack: string, args: readonly string[]): Promise<void> {
  const options = readOptions(args);
  const sources = await sourcesOf(stack, options);
  const wanted = createFilter(options);
  const shown = options.json ? toJson : (entry: Entry) => describe(entry, prefixOf(stack));
  // Whoever reads may stop early, as `head` does.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  let found = 0;
  const isOld = (entry: Entry) => options.since !== undefined && entry.time !== '' && entry.time < options.since;
  for await (const entry of options.follow ? settled(sources) : merge(sources.map(entriesOf))) {
    if (isOld(entry) || !wanted(entry)) continue;
    found++;
    process.stdout.write(`${shown(entry)}\n`);
  }
  if (found === 0 && !options.follow) {
    const where = options.since === undefined ? 'in the logs that are kept' : `since ${options.since}`;
    console.error(`Nothing was found ${where}, in ${sources.map(({ container }) => container).join(', ')}.`);
  }
}

const HELP = `make logs [STACK=…] [REQUEST=id] [LEVEL=${LEVELS.join('|')}] [CONTAINER=api] [SINCE=1h] [FOLLOW=1] [JSON=1]`;

/** @throws StepError that names the option */
function readOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      request: { type: 'string' },
      level: { type: 'string' },
      container: { type: 'string' },
      since: { type: 'string' },
      follow: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  });
  const { request, level, container, follow, json } = values;
  const isLevel = (text: string): text is Level => (LEVELS as readonly string[]).includes(text);
  if (level !== undefined && !isLevel(level)) {
    throw new StepError(`LEVEL=${level} is none of ${LEVELS.join(', ')}; it shows that one and worse ones\n  ${HELP}`);
  }
  const from = values.since ?? (follow ? WHEN_FOLLOWED : request === undefined ? USUALLY : undefined);
  const since = from === undefined ? undefined : sinceWhen(from, new Date());
  if (from !== undefined && since === undefined) {
    throw new StepError(
      `SINCE=${from} is not valid: must be a time such as 15m, 2h, 1d or 2026-11-21T18:00:00Z\n  ${HELP}`,
    );
  }
  return { ...(request && { request }), ...(level && { level }), container, since, follow, json };
}

async function sourcesOf(stack: string, { container, since, follow }: Options): Promise<Source[]> {
  const format = `{{.Names}}\t{{.Label "${LABEL}.component"}}`;
  const rows = (await ourContainers(stack, ['--all', '--format', format])).split('\n').filter(Boolean);
  const all = rows.length > 0 ? rows.map((row) => ofContainer(row, since, follow)) : ofFiles(stack, follow);
  if (all.length === 0) throw new StepError(`${stack} is not running here: make up STACK=${stack}`);
  const chosen = all.filter(
    (each) => container === undefined || each.component === container || each.container.includes(container),
  );
  if (chosen.length === 0) {
    const names = all.map((each) => `${each.component} (${each.container})`);
    throw new StepError(`No container of ${stack} is called ${container}: ${names.join(', ')}`);
  }
  return chosen;
}

function ofContainer(row: string, since: string | undefined, follow: boolean): Source {
  const [container = '', component = ''] = row.split('\t');
  const window = [...(since === undefined ? [] : ['--since', since]), ...(follow ? ['--follow'] : [])];
  return { container, component, command: ['docker', 'logs', '--timestamps', ...window, container] };
}

/** Of development without containers. */
function ofFiles(stack: string, follow: boolean): Source[] {
  if (stack !== 'development') return [];
  const { apiLog, postgresLog } = placeAt(undefined);
  const files = [
    { container: 'api', component: 'api', file: apiLog },
    { container: 'postgres', component: 'database', file: postgresLog },
  ];
  return files
    .filter(({ file }) => existsSync(file))
    .map(({ file, ...origin }) => ({ ...origin, command: ['tail', '-n', '+1', ...(follow ? ['-F'] : []), file] }));
}

/**
 * Both of its streams come through one pipe: read from two, one that is full would hold up the other.
 * @throws StepError with what the program said, where it fails
 */
async function* entriesOf({ command, ...origin }: Source): AsyncGenerator<Entry, void> {
  const child = spawn('sh', ['-c', 'exec "$@" 2>&1', 'sh', ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise<number | null>((done, fail) => child.once('error', fail).once('close', done));
  ended.catch(() => undefined);
  const parse = createParser(origin);
  let last = '';
  try {
    for await (const line of linesOf(child.stdout)) {
      last = line;
      yield parse(line);
    }
  } finally {
    child.kill();
  }
  const code = await ended;
  // Told to end, it was: by us, or by Ctrl-C.
  if (code !== 0 && code !== null && code < 128) {
    throw new StepError(`The log of ${origin.container} cannot be read: ${last}`);
  }
}

async function* linesOf(stream: NodeJS.ReadableStream): AsyncGenerator<string, void> {
  stream.setEncoding('utf8');
  let rest = '';
  for await (const chunk of stream) {
    const lines = (rest + String(chunk)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) yield line.replace(/\r$/, '');
  }
  if (rest !== '') yield rest;
}

/** For as long as any of them writes. A quiet one holds up nobody, so that order holds within SETTLE_MS. */
async function* settled(sources: readonly Source[]): AsyncGenerator<Entry, void> {
  let waiting: { readonly entry: Entry; readonly cameAt: number }[] = [];
  const failures: unknown[] = [];
  let reading = sources.length;
  for (const source of sources) {
    void (async () => {
      for await (const entry of entriesOf(source)) waiting.push({ entry, cameAt: performance.now() });
    })()
      // A container that is gone, as after a deploy, ends its own log and no other.
      .catch((error: unknown) => failures.push(error))
      .finally(() => reading--);
  }
  for (;;) {
    const over = reading === 0;
    const ripe = waiting.filter(({ cameAt }) => over || performance.now() - cameAt > SETTLE_MS);
    waiting = waiting.filter((each) => !ripe.includes(each));
    yield* inOrder(ripe.map(({ entry }) => entry));
    if (over) break;
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS / 3));
  }
  const [failure] = failures;
  if (failure instanceof Error) throw failure;
}
