import { setTimeout as sleep } from 'node:timers/promises';
import { tryDocker } from '../deploy/engine';
import { type Figures, figuresOf, lostWrites, type Span } from '../load/figures';
import { ask, loansOf, startLoad, type Target } from '../load/load';
import type { Experiment, Facts, Fault } from './experiments';
import { inject } from './injection';
import { type Expectation, judge, type Observation, type Probe, type SteadyState, tooMuch, unsteady } from './verdict';

/** One experiment under load: the steady state, the fault, the way back, and what became of every request. */

export interface Surroundings {
  readonly facts: Facts;
  readonly target: Target;
  readonly rate: number;
  readonly connections: number;
  readonly steady: SteadyState;
  /** Ends the experiment early; the fault is taken back all the same. */
  readonly end: AbortSignal;
  readonly say: (line: string) => void;
}

export interface Trial {
  readonly experiment: string;
  readonly means: string;
  readonly observation: Observation;
  /** In milliseconds since 1970. */
  readonly faultSpan: Span;
  /** Empty when all was as expected. */
  readonly faults: readonly string[];
}

/** Before the load counts: connections are made, caches are warm. */
const WARM_UP_MS = 4_000;
const QUIET_MS = 6_000;
/** How often the steady state may be waited for before. */
const ATTEMPTS = 4;
const PROBE_MS = 500;
/** Known outcomes are that old at most, unless the request or its repetition takes long. */
const NEWS_MS = 1_500;
/** The steady state must have held for so long. */
const CALM_MS = 3_000;
const LOOK_MS = 500;
/** For more load: as many as wait where each that fails is repeated half a second later, and the gateway can keep. */
const MORE_CONNECTIONS = 640;

/** @throws Unsteady when the steady state does not hold before; then nothing was done */
export async function tryOut(experiment: Experiment, fault: Fault, around: Surroundings): Promise<Trial> {
  const { facts, target, rate, connections, steady, end, say } = around;
  const expectation = experiment.expects(facts);
  const more = fault.rate === undefined ? undefined : Math.max(fault.rate, 2 * rate);
  const load = startLoad(target, {
    rate,
    connections: more === undefined ? connections : Math.max(connections, MORE_CONNECTIONS),
  });
  const probes = startProbing(target);
  const figuresIn = (span: Span) => figuresOf(load.outcomes, span);
  const isSteady = (span: Span) => stateOf(figuresIn(span), span, rate, steady);
  const now = () => Date.now();
  try {
    await load.begun;
    await pause(WARM_UP_MS, end);
    const before = await untilSteady(isSteady, end);

    const injection = await inject(facts.prefix, experiment.name, fault, experiment.seconds);
    // What fails while the fault is being made or taken back is the fault's, too.
    const from = injection.since;
    let stopped: string | undefined;
    try {
      if (more !== undefined) load.setRate(more);
      stopped = await endure(experiment.seconds, expectation, () => figuresIn([from, now()]), end);
    } finally {
      load.setRate(rate);
      await injection.withdraw();
    }
    const to = now();
    say(`  ${experiment.name}: the fault is taken back after ${((to - from) / 1_000).toFixed(1)} s`);
    const recoveredAt = await untilCalm(to, expectation.recoverSeconds, isSteady, end);
    const afterFrom = now() - NEWS_MS;
    await pause(QUIET_MS, end);
    const after: Span = [recoveredAt === undefined ? afterFrom : Math.max(recoveredAt, to), now()];
    const outcomes = await load.stop();
    const stored = await storedLoans(facts, loansOf(load));
    const lost = stored === undefined ? undefined : lostWrites(outcomes, stored);
    const observation: Observation = {
      ...{ outcomes, probes: probes.seen, before, during: [from, to], recoveredAt, after, lost, stopped },
    };
    const faults = judge(observation, expectation, steady);
    return { experiment: experiment.name, means: fault.means, observation, faultSpan: [from, to], faults };
  } finally {
    probes.stop();
    await load.stop().catch(() => undefined);
  }
}

export class Unsteady extends Error {}

/** What happens on a busy machine now and then is waited for; what does not go is no state to begin from. */
async function untilSteady(isSteady: Look, end: AbortSignal): Promise<Span> {
  let reason: string | undefined = 'it was ended';
  for (let tried = 0; tried < ATTEMPTS; tried++) {
    const from = Date.now();
    await pause(QUIET_MS + NEWS_MS, end);
    if (end.aborted) break;
    const span: Span = [from, Date.now() - NEWS_MS];
    reason = isSteady(span);
    if (reason === undefined) return span;
  }
  throw new Unsteady(reason);
}

/** Why the steady state did not hold; undefined where it did. */
type Look = (span: Span) => string | undefined;

/** A failure is known only after its repetition: what is not known yet may be one. */
function stateOf(figures: Figures, [from, to]: Span, rate: number, steady: SteadyState): string | undefined {
  const due = ((to - from) / 1_000) * rate;
  const fault = unsteady(figures, steady);
  return (
    fault ??
    (figures.requests < due * 0.95 - 1
      ? `only ${figures.requests} of ${Math.floor(due)} requests have ended`
      : undefined)
  );
}

/** @returns why it was cut short; undefined when it was not */
async function endure(
  seconds: number,
  expectation: Expectation,
  figures: () => Figures,
  end: AbortSignal,
): Promise<string | undefined> {
  for (const until = Date.now() + seconds * 1_000; Date.now() < until;) {
    await pause(Math.min(LOOK_MS, until - Date.now()), end);
    if (end.aborted) return 'it was ended';
    const reason = tooMuch(figures(), expectation);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

/** @returns since when the steady state holds, undefined when it does not come back in time */
async function untilCalm(
  since: number,
  seconds: number,
  isSteady: Look,
  end: AbortSignal,
): Promise<number | undefined> {
  const until = since + seconds * 1_000 + CALM_MS + NEWS_MS;
  while (Date.now() < until && !end.aborted) {
    await pause(LOOK_MS / 2, end);
    const to = Date.now() - NEWS_MS;
    const from = to - CALM_MS;
    if (from >= since && isSteady([from, to]) === undefined) return from;
  }
  return undefined;
}

function startProbing({ url, authority }: Target) {
  const seen: Probe[] = [];
  const look = async () => {
    const at = Date.now();
    const status = await ask(`${url}/health/ready`, authority).then(
      (answer) => answer.status,
      () => 0,
    );
    seen.push({ at, status });
  };
  const timer = setInterval(() => void look(), PROBE_MS);
  return { seen, stop: () => clearInterval(timer) };
}

/** @returns undefined where the database does not answer */
async function storedLoans({ database, databaseName }: Facts, statement: string): Promise<string | undefined> {
  const options = ['--no-psqlrc', '--tuples-only', '--no-align', '--dbname', databaseName, '--command', statement];
  for (let tried = 0; tried < 20; tried++) {
    const { code, stdout } = await tryDocker(['exec', database.name, 'psql', ...options]);
    if (code === 0) return stdout;
    await sleep(1_000);
  }
  return undefined;
}

async function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  await sleep(Math.max(0, milliseconds), undefined, { signal }).catch(() => undefined);
}
