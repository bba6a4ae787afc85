import { existsSync, readFileSync, statSync, watchFile } from 'node:fs';
import { relative } from 'node:path';
import { parseArgs } from 'node:util';
import { CertificateError } from '../../ssl/certificates';
import { command, DOMAIN, down, isOutside, placeAt, type Place, type State, status, up } from './environment';
import { EmbeddedError } from './fault';

/** Of app/main.ts: those that end. */
const COMMANDS = ['api-key', 'seed', 'generate', 'retention', 'recount', 'migrate'];

const HELP = `Development without containers: the API with TLS on an embedded Postgres.

  node --import tsx infra/embedded/main.ts <verb>

  up [--https-port 8443] [--api-port 8000] [--reason TEXT]...   start what does not run; a reason is printed at the end
  down [--purge]                                                stop; --purge removes the data as well
  status                                                        what runs; exit code 1 unless all of it does
  logs [--follow]                                               what the API and Postgres wrote
  smoke                                                         ask it as its users do; exit code 1 unless it answers
${COMMANDS.join(' | ')} [-- ARGUMENTS]
                                                                the API's commands that end, on this database

  --directory DIR   keep everything there, certificates included, instead of .local/ and ssl/`;

const OPTIONS = {
  'https-port': { type: 'string' },
  'api-port': { type: 'string' },
  reason: { type: 'string', multiple: true, default: [] as string[] },
  purge: { type: 'boolean', default: false },
  follow: { type: 'boolean', default: false },
  directory: { type: 'string' },
} as const;

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: OPTIONS });
  const place = placeAt(values.directory);
  if (COMMANDS.includes(positionals[0] ?? '')) {
    process.exitCode = command(place, positionals);
    return;
  }
  switch (positionals.join(' ')) {
    case 'up':
      return runUp(place, { https: portOf(values['https-port']), api: portOf(values['api-port']) }, values.reason);
    case 'down':
      return runDown(place, values.purge);
    case 'status':
      return runStatus(place);
    case 'smoke':
      return runSmoke(place);
    case 'logs':
      return runLogs(place, values.follow);
    default:
      throw new EmbeddedError(HELP);
  }
}

function portOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = Number(text);
  if (Number.isInteger(port) && port > 0 && port < 65_536) return port;
  throw new EmbeddedError(`"${text}" is not a port: give a number from 1 to 65535`);
}

async function runUp(place: Place, ports: { https?: number; api?: number }, reasons: readonly string[]): Promise<void> {
  const startedAt = performance.now();
  const { state, alreadyUp } = await up(place, ports);
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
  console.log(alreadyUp ? 'Development is already up and healthy:' : `Development is up, after ${seconds} s:`);
  console.log(access(state));
  if (isOutside(place, state.dataDirectory)) {
    console.log(
      `\nPostgres does not run as root and its user cannot enter ${place.directory}, so the database lies in\n` +
        `${state.dataDirectory}: a cleaned temporary directory takes it along.`,
    );
  }
  if (reasons.length > 0) {
    console.log(
      '\nNot here: nginx with /grafana/ and /prometheus/, container limits and health checks. The full stack needs:',
    );
    for (const reason of reasons) console.log(`  - ${reason}`);
  }
}

function access({ ports, caFile }: State): string {
  const shown = caFile === undefined ? '' : relative(process.cwd(), caFile);
  const secure = `https://localhost:${ports.https}`;
  const curl =
    caFile === undefined
      ? `curl --resolve ${DOMAIN}:${ports.https}:127.0.0.1 https://${DOMAIN}:${ports.https}/health`
      : `curl --cacert ${shown.startsWith('..') ? caFile : shown} ${secure}/health`;
  const lines = [
    ['health', `${secure}/health`],
    ['documents', `${secure}/docs`],
    ['loans', `${secure}/api/loans`],
    ['metrics', `${secure}/metrics`],
    ['clear text', `http://localhost:${ports.api}`],
    ['try', curl],
  ];
  return lines.map(([name = '', text = '']) => `  ${name.padEnd(12)} ${text}`).join('\n');
}

async function runDown(place: Place, purge: boolean): Promise<void> {
  const stopped = await down(place, { purge });
  console.log(stopped.length === 0 ? 'Nothing of development runs here.' : `Stopped ${stopped.join(' and ')}.`);
  if (purge) console.log('Its data is removed.');
  else if (stopped.length > 0) console.log('Its data is kept (down --purge removes it).');
}

async function runStatus(place: Place): Promise<void> {
  const { state, apiSince, postgresSince, healthy } = await status(place);
  const line = (name: string, since: Date | undefined, remark = '') =>
    `${name.padEnd(10)} ${since === undefined ? 'stopped' : `runs since ${since.toISOString()}${remark}`}`;
  console.log(line('API', apiSince, healthy ? '' : ', but is not healthy: see logs'));
  console.log(line('Postgres', postgresSince, ` on port ${state?.ports.postgres ?? 0}`));
  if (state !== undefined && apiSince !== undefined) console.log(access(state));
  if (!healthy) process.exitCode = 1;
}

async function runSmoke(place: Place): Promise<void> {
  const { state, healthy } = await status(place);
  if (state === undefined) throw new EmbeddedError('Development is not up: make up');
  const url = `https://localhost:${state.ports.https}`;
  if (!healthy) throw new EmbeddedError(`Development does not answer at ${url}: make status, make logs, make up`);
  console.log(`Development answers at ${url}: /health, /health-db.`);
}

async function runLogs(place: Place, follow: boolean): Promise<void> {
  const logs = [
    ['API', place.apiLog],
    ['Postgres', place.postgresLog],
  ] as const;
  if (!follow && logs.every(([, file]) => !existsSync(file)))
    throw new EmbeddedError('There are no logs yet: run up first');
  for (const [name, file] of logs) {
    const show = (text: string) => {
      for (const line of text.split('\n')) if (line !== '') console.log(`${name.padEnd(8)} | ${line}`);
    };
    const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
    show(text.split('\n').slice(-100).join('\n'));
    if (follow) followFile(file, Buffer.byteLength(text), show);
  }
  await Promise.resolve();
}

/** Shows whole lines as they come; a file that got shorter was begun anew. */
function followFile(file: string, from: number, show: (text: string) => void): void {
  let shown = from;
  watchFile(file, { interval: 200 }, () => {
    if (!existsSync(file)) return;
    if (statSync(file).size < shown) shown = 0;
    const news = readFileSync(file).subarray(shown);
    const whole = news.subarray(0, news.lastIndexOf('\n') + 1);
    shown += whole.length;
    show(whole.toString('utf8'));
  });
}

// Whoever reads may stop early, as `head` does.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

main().catch((error: unknown) => {
  const isUsage = error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS');
  const known = error instanceof EmbeddedError || error instanceof CertificateError || isUsage;
  console.error(known ? (error as Error).message : error);
  process.exitCode = 1;
});
