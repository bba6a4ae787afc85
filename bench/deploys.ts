import { loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { docker } from '../infra/deploy/engine';
import { reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from '../tests/stack/environment';
import { nextRelease, removeReleases } from '../tests/stack/images';
import {
  failuresOf,
  type Figures,
  figuresOf,
  type Load,
  loansOf,
  lostWrites,
  type Outcome,
  startHog,
  startLoad,
} from '../tests/stack/load';
import { ComposeDeployment, findCompose, NoCompose } from './compose';
import { median } from '../infra/load/quantile';
import { table } from './report';

/**
 * Deploys in a row under a constant load, of the stack `staging`. On a host that has time: a changed image and a changed
 * setting in turn, and the same service by Docker Compose alone. On a busy host: changed images, and a rollback after
 * every other one.
 */
export interface Series {
  readonly name: string;
  readonly deploys: readonly Deploy[];
  /** Over the whole load. */
  readonly total: Figures;
  /** Between the deploys. */
  readonly quiet: Figures;
  /** From the start of a deploy until it is done. */
  readonly during: Figures;
  readonly failures: readonly string[];
  readonly lost: readonly string[];
  /** What the deploys left that should not be, in words. */
  readonly faults: readonly string[];
  /** Of the host over a minute, at the end of each deploy. */
  readonly loadAverages: readonly number[];
}

type Change = 'image' | 'setting' | 'rollback';

export interface Deploy {
  readonly change: Change;
  /** Of the command, from its start to its end. */
  readonly seconds: number;
  readonly figures: Figures;
  /** From the first to the last failed request; 0 without any. */
  readonly outageSeconds: number;
  /** Undefined for Compose, whose new containers start when the old ones are gone. */
  readonly switched: Switch | undefined;
}

/** As the gateway's access log has it. */
export interface Switch {
  /** From the start of the last new container until the gateway had a first answer from one. */
  readonly seconds: number;
  /** From there until the last answer of an old one; negative where old and new never answered at the same time. */
  readonly overlapSeconds: number;
  /** From two seconds before the first answer of a new one until two after the last of an old one. */
  readonly figures: Figures;
}

export class CannotDeploy extends Error {}

export const RATE = 100;
export const CONNECTIONS = 64;
export const BUSY_CONNECTIONS = 40;
/** Other processes, and what they and the stack bring the load average to before the first deploy. */
const HOGS = 14;
const BUSY_LOAD_AVERAGE = 15;
const BUSY_WITHIN_MS = 300_000;
const REPLICAS = 2;
const QUIET_MS = 4_000;
const AROUND_MS = 2_000;
/** A few show how it goes: each fails in the same way. */
const COMPOSE_DEPLOYS = 6;

/**
 * @param directory for files of the peer
 * @param count of deploys, without the rollbacks
 * @param busy whether the host is to have other work meanwhile
 * @param say told about each deploy
 * @throws CannotDeploy with the reason
 */
export async function measureDeploys(
  directory: string,
  count: number,
  busy: boolean,
  say: (line: string) => void,
): Promise<Series[]> {
  const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();
  if (reason !== undefined) throw new CannotDeploy(reason);
  const environment = await TestEnvironment.create('staging');
  try {
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
    const base = environment.output('image');
    say(`Ours: ${count} deploys, ${REPLICAS} API containers`);
    const ours = await measureOurs(environment, base, changesOf(count, busy), busy, say);
    if (busy) return [ours];
    const [container = ''] = environment.apiContainers();
    const settings = JSON.parse(
      await docker('looking at the API', ['inspect', '--format', '{{json .Config.Env}}', container]),
    ) as string[];
    // Both on two cores: one at a time.
    await environment.destroy();
    const service = { image: base, replicas: REPLICAS, settings };
    return [ours, ...(await measureCompose(environment, join(directory, 'compose'), service, count, say))];
  } finally {
    await environment.remove();
    removeReleases();
  }
}

async function measureOurs(
  environment: TestEnvironment,
  base: string,
  changes: readonly Change[],
  busy: boolean,
  say: (line: string) => void,
): Promise<Series> {
  const faults: string[] = [];
  const spans: Span[] = [];
  const loadAverages: number[] = [];
  // Built on a quiet host: a deploy gets an image that is there.
  const images = changes.map((change, index) => (change === 'image' ? nextRelease(base, index + 1) : ''));
  const connections = busy ? BUSY_CONNECTIONS : CONNECTIONS;
  const load = startLoad(environment, { rate: RATE, connections, closed: busy });
  const endHog = startHog(busy ? HOGS : 0);
  try {
    if (busy) await untilBusy();
    for (const [index, change] of changes.entries()) {
      const number = index + 1;
      environment.configure((settings) => {
        if (change === 'image') settings['branchloans:image'] = images[index];
        const api = settings['branchloans:api'] as object;
        if (change === 'setting') settings['branchloans:api'] = { ...api, maxAmount: String(50_000 + number) };
      });
      await sleep(QUIET_MS);
      const old = await addressesOf(environment);
      const from = Date.now();
      const { code, output } = await (change === 'rollback' ? environment.verb('rollback') : environment.up());
      const to = Date.now();
      if (code !== 0) faults.push(`deploy ${number} failed:\n${output}`);
      const fresh = await addressesOf(environment);
      if (code === 0 && fresh.addresses.length !== REPLICAS)
        faults.push(`deploy ${number} left ${fresh.addresses.length} containers`);
      const log = await docker('reading the gateway’s log', [
        ...['logs', '--timestamps', '--since', new Date(from).toISOString(), `${environment.prefix}-gateway`],
      ]);
      const moment = switchIn(log, old.addresses, fresh.addresses);
      spans.push({ change, from, to, moment, startedAt: fresh.startedAt });
      const [loadAverage = NaN] = loadavg();
      loadAverages.push(loadAverage);
      say(
        `  ${number}: ${change}, ${((to - from) / 1_000).toFixed(1)} s, load average ${loadAverage.toFixed(1)}, ` +
          `${failuresOf(load.outcomes).length} failed so far`,
      );
    }
    await sleep(QUIET_MS);
  } finally {
    endHog();
  }
  const outcomes = await load.stop();
  const left = await environment.changes();
  if (left !== '') faults.push(`a second up would change something:\n${left}`);
  return { ...seriesOf('ours', outcomes, spans, environment.sql(loansOf(load))), faults, loadAverages };
}

async function untilBusy(): Promise<void> {
  const deadline = Date.now() + BUSY_WITHIN_MS;
  while ((loadavg()[0] ?? 0) <= BUSY_LOAD_AVERAGE) {
    if (Date.now() > deadline) throw new Error(`the load average does not get above ${BUSY_LOAD_AVERAGE}`);
    await sleep(QUIET_MS);
  }
}

async function measureCompose(
  { directory: from }: TestEnvironment,
  directory: string,
  service: { readonly image: string; readonly replicas: number; readonly settings: readonly string[] },
  count: number,
  say: (line: string) => void,
): Promise<Series[]> {
  const certificate = {
    certificateFile: join(from, 'ssl/branchloans.com.pem'),
    keyFile: join(from, 'ssl/branchloans.com.key'),
    caFile: join(from, 'ssl/ca.pem'),
  };
  try {
    findCompose();
  } catch (error) {
    if (!(error instanceof NoCompose)) throw error;
    say(`Compose skipped: ${error.message}`);
    return [];
  }
  const deployment = await ComposeDeployment.create(directory, service, certificate);
  let load: Load | undefined;
  try {
    const some = Math.min(count, COMPOSE_DEPLOYS);
    say(`${deployment.version}: ${some} deploys, ${service.replicas} API containers`);
    load = startLoad(deployment.target, { rate: RATE, connections: CONNECTIONS });
    const spans: Span[] = [];
    let { image, settings } = service;
    const changes = changesOf(some, false);
    for (let number = 1; number <= some; number++) {
      const change = changes[number - 1] ?? 'image';
      if (change === 'image') image = nextRelease(service.image, number);
      else settings = [...settings.filter((one) => !one.startsWith('MAX_AMOUNT=')), `MAX_AMOUNT=${50_000 + number}`];
      await sleep(QUIET_MS);
      const started = Date.now();
      await deployment.up({ ...service, image, settings });
      const to = Date.now();
      // Compose is done when the new containers run; users wait until they answer.
      await sleep(QUIET_MS);
      spans.push({ change, from: started, to, moment: undefined, startedAt: NaN });
      say(
        `  ${number}: ${change}, ${((to - started) / 1_000).toFixed(1)} s, ${failuresOf(load.outcomes).length} failed so far`,
      );
    }
    await sleep(QUIET_MS);
    const outcomes = await load.stop();
    const stored = await deployment.sql(loansOf(load));
    return [{ ...seriesOf(deployment.version, outcomes, spans, stored), faults: [], loadAverages: [] }];
  } finally {
    await load?.stop().catch(() => undefined);
    await deployment.remove();
  }
}

/** @param count of deploys, without the rollbacks */
export function changesOf(count: number, busy: boolean): Change[] {
  return Array.from({ length: count }, (_, index): Change[] => {
    const odd = index % 2 === 0;
    if (busy) return odd ? ['image'] : ['image', 'rollback'];
    return [odd ? 'image' : 'setting'];
  }).flat();
}

/** In milliseconds since 1970. */
interface Span {
  readonly change: Change;
  readonly from: number;
  readonly to: number;
  readonly moment: { readonly firstNew: number; readonly lastOld: number } | undefined;
  /** When the last of the new containers started. */
  readonly startedAt: number;
}

function seriesOf(
  name: string,
  outcomes: readonly Outcome[],
  spans: readonly Span[],
  stored: string,
): Omit<Series, 'faults' | 'loadAverages'> {
  // What fails after Compose is done fails because of the deploy too.
  const within = (span: Span, dueAt: number) => dueAt >= span.from && dueAt <= span.to + QUIET_MS;
  const deploys = spans.map((span): Deploy => {
    const { change, from, to, moment, startedAt } = span;
    const failedAt = outcomes
      .filter(({ failure, dueAt }) => failure !== undefined && within(span, dueAt))
      .map(({ dueAt }) => dueAt);
    return {
      change,
      seconds: (to - from) / 1_000,
      figures: figuresOf(outcomes, [from, to]),
      outageSeconds: failedAt.length === 0 ? 0 : (Math.max(...failedAt) - Math.min(...failedAt)) / 1_000,
      switched: moment && {
        seconds: (moment.firstNew - startedAt) / 1_000,
        overlapSeconds: (moment.lastOld - moment.firstNew) / 1_000,
        figures: figuresOf(outcomes, [moment.firstNew - AROUND_MS, moment.lastOld + AROUND_MS]),
      },
    };
  });
  const during = outcomes.filter(({ dueAt }) => spans.some(({ from, to }) => dueAt >= from && dueAt <= to));
  const quiet = outcomes.filter(({ dueAt }) => !spans.some((span) => within(span, dueAt)));
  return {
    ...{ name, deploys, total: figuresOf(outcomes), quiet: figuresOf(quiet), during: figuresOf(during) },
    ...{ failures: failuresOf(outcomes), lost: lostWrites(outcomes, stored) },
  };
}

/** Where the gateway finds the API's containers, and when the last of them started (milliseconds since 1970). */
async function addressesOf(environment: TestEnvironment): Promise<{ addresses: string[]; startedAt: number }> {
  const format = `{{(index .NetworkSettings.Networks "${environment.prefix}-front").IPAddress}} {{.State.StartedAt}}`;
  const text = await docker('looking at the API', ['inspect', '--format', format, ...environment.apiContainers()]);
  const lines = text.trim().split('\n');
  return {
    addresses: lines.map((line) => line.split(' ')[0] ?? ''),
    startedAt: Math.max(...lines.map((line) => Date.parse(line.split(' ')[1] ?? ''))),
  };
}

/**
 * When the first answer of a new server and the last one of an old one went through the gateway.
 * @param log of nginx, with the engine's timestamps; from before the switch
 */
export function switchIn(
  log: string,
  old: readonly string[],
  fresh: readonly string[],
): { firstNew: number; lastOld: number } | undefined {
  let firstNew: number | undefined;
  let lastOld: number | undefined;
  for (const line of log.split('\n')) {
    // Of several servers that were tried the last one answered.
    const address = /"upstream":"(?:[^"]*[ ,])?([0-9.]+):\d+"/.exec(line)?.[1];
    if (address === undefined) continue;
    const at = Date.parse(line.slice(0, line.indexOf(' ')));
    if (fresh.includes(address)) firstNew ??= at;
    else if (old.includes(address)) lastOld = at;
  }
  return firstNew === undefined || lastOld === undefined ? undefined : { firstNew, lastOld };
}

export function deploysTables(series: readonly Series[]): string {
  const ms = (figure: number) => (Number.isNaN(figure) ? '-' : figure.toFixed(0));
  const seconds = (figure: number | undefined) => (figure === undefined ? '-' : figure.toFixed(1));
  const middle = (figures: readonly (number | undefined)[]) => {
    const known = figures.filter((figure) => figure !== undefined);
    return known.length === 0 ? '-' : `${seconds(median(known))} (${seconds(Math.max(...known))})`;
  };
  const summary: readonly (readonly [string, (one: Series) => string])[] = [
    ['deploys', ({ deploys }) => String(deploys.length)],
    ['load average of the host at their ends: median (highest)', ({ loadAverages }) => middle(loadAverages)],
    ['requests', ({ total }) => String(total.requests)],
    ['failed', ({ total }) => String(total.failed)],
    ['of these between deploys', ({ quiet }) => String(quiet.failed)],
    ['failed after one repetition with the same key', ({ total }) => String(total.failedTwice)],
    ['acknowledged writes', ({ total }) => String(total.acknowledged)],
    ['of these lost, or made twice', ({ lost }) => String(lost.length)],
    [
      'from the first to the last failure of a deploy, s: median (longest)',
      ({ deploys }) => middle(deploys.map((one) => one.outageSeconds)),
    ],
    ['whole command, s', ({ deploys }) => middle(deploys.map((one) => one.seconds))],
    [
      'start of the new containers to their first answer, s',
      ({ deploys }) => middle(deploys.map((one) => one.switched?.seconds)),
    ],
    [
      'old and new answer at the same time, s',
      ({ deploys }) => middle(deploys.map((one) => one.switched?.overlapSeconds)),
    ],
    [
      'p50, p99, longest between deploys, ms',
      ({ quiet }) => [quiet.p50Ms, quiet.p99Ms, quiet.maxMs].map(ms).join(', '),
    ],
    [
      'p50, p99, longest during deploys, ms',
      ({ during }) => [during.p50Ms, during.p99Ms, during.maxMs].map(ms).join(', '),
    ],
    ['p99 during a switch, ms', ({ deploys }) => middle(deploys.map((one) => one.switched?.figures.p99Ms))],
    ['longest during a switch, ms', ({ deploys }) => middle(deploys.map((one) => one.switched?.figures.maxMs))],
  ];
  const each = series.flatMap(({ name, deploys }) =>
    deploys.map(({ change, figures, switched, ...deploy }, index) => [
      ...[name, String(index + 1), change, seconds(deploy.seconds), seconds(switched?.seconds)],
      ...[String(figures.requests), String(figures.failed), seconds(deploy.outageSeconds)],
      ...[ms(figures.p99Ms), ms(switched?.figures.p99Ms ?? NaN), ms(figures.maxMs)],
    ]),
  );
  const headings = [
    'whole s',
    'to first answer s',
    'requests',
    'failed',
    'failing s',
    'p99 ms',
    'p99 switch ms',
    'max ms',
  ];
  return [
    table(
      ['', ...series.map(({ name }) => name)],
      summary.map(([what, of]) => [what, ...series.map(of)]),
    ),
    '\n',
    table(['', 'deploy', 'changed', ...headings], each),
  ].join('');
}
