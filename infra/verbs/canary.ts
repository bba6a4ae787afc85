import { parseArgs } from 'node:util';
import { reasonOfFailure, sleep, StepError } from '../deploy/engine';
import { queryPrometheus } from '../deploy/prometheus';
import { LABEL } from '../labels';
import { list, missingFor, ourContainers, prefixOf, pulumi, requirePassphrase, settingsOf } from '../operator';
import { COUNTERS, describe, judge, Tally, type Tolerance, type Verdict } from '../ops/canary';
import { TRACK_NAMES } from '../ops/prometheus';
import { inTurnOf, withSettings } from '../settings';

const POLL_MS = 5_000;
/** Prometheus itself may be replaced meanwhile. */
const SILENCE_MS = 60_000;

interface Options {
  readonly image: string | undefined;
  readonly percent: number | undefined;
  readonly windowSeconds: number;
  readonly tolerance: Tolerance;
  readonly decision: 'promote' | 'abort' | undefined;
}

/** The setting of a stack that has a canary. */
interface Setting {
  readonly image: string;
  readonly percent: number;
  readonly replicas?: number;
}

/**
 * Gives a release a share of the requests, watches it beside the stable one, and promotes or aborts it. Everything
 * it does is a change of the stack's settings and an ordinary `pulumi up`; a watcher that dies leaves the canary as it
 * is, and the next one begins its window anew.
 */
export async function canary(stack: string, args: readonly string[]): Promise<void> {
  const options = readOptions(args);
  const missing = await missingFor(stack);
  if (missing.length > 0) throw new StepError(`A canary runs in containers, nothing was changed:\n${list(missing)}`);
  requirePassphrase(stack);

  const current = settingOf(stack);
  if (options.decision !== undefined) {
    if (current === undefined) throw new StepError(`${stack} has no canary, nothing was changed`);
    await (options.decision === 'promote' ? promote(stack, current) : abort(stack, current));
    console.log(`The canary ${current.image} was ${options.decision === 'promote' ? 'promoted' : 'aborted'} by hand.`);
    return;
  }
  const wanted = wantedSetting(stack, current, options);
  if (wanted.image !== current?.image || wanted.percent !== current.percent) {
    await start(stack, current, wanted);
  }
  const { what, reason } = await watch(stack, wanted, options);
  if (what === 'promote') {
    console.log(`The canary is promoted: ${reason}.`);
    await promote(stack, wanted);
    console.log(`${stack} runs ${wanted.image}.`);
  } else {
    console.error(`The canary is aborted: ${reason}.`);
    await abort(stack, wanted);
    throw new StepError(`The canary ${wanted.image} was aborted, the stable release has all requests: ${reason}.`);
  }
}

function wantedSetting(stack: string, current: Setting | undefined, { image, percent }: Options): Setting {
  if (current === undefined && image === undefined) {
    throw new StepError(`${stack} has no canary to watch, nothing was changed. ${HELP}`);
  }
  if (current !== undefined && image !== undefined && image !== current.image) {
    throw new StepError(
      `${stack} has a canary already, ${current.image}, nothing was changed:\n` +
        `  make canary STACK=${stack}              go on watching it\n` +
        `  make canary STACK=${stack} ABORT=1      end it (PROMOTE=1: make it the stack's release)`,
    );
  }
  return { image: image ?? current?.image ?? '', percent: percent ?? current?.percent ?? 10 };
}

/** The first that does not run well, and why. */
async function failureOf(containers: readonly string[]): Promise<string | undefined> {
  for (const container of containers) {
    const reason = await reasonOfFailure(container);
    if (reason !== undefined) return `${container} ${reason}`;
  }
  return undefined;
}

/** Those that another deploy put in the place of the canary's containers; undefined where fewer run well than are wanted. */
async function successorsOf(stack: string): Promise<string[] | undefined> {
  const running: string[] = [];
  for (const container of await canaries(stack)) {
    if ((await reasonOfFailure(container)) === undefined) running.push(container);
  }
  return running.length < (settingOf(stack)?.replicas ?? 1) ? undefined : running;
}

/**
 * @param current what the wanted one was decided by
 * @throws StepError after which the stack is as it was, when the canary does not get through its gate
 */
function start(stack: string, current: Setting | undefined, { image, percent }: Setting): Promise<void> {
  return inTurnOf(stack, async () => {
    requireStill(stack, current);
    const changes = [
      [['canary', 'image'], image],
      [['canary', 'percent'], percent],
    ] as const;
    try {
      await withSettings(stack, changes, () => up(stack));
    } catch (error) {
      // Settings that were refused have touched nothing.
      if ((await canaries(stack)).length > 0) await up(stack);
      throw new StepError(
        `The canary ${image} did not start, the settings are what they were: ${(error as Error).message}`,
      );
    }
  });
}

async function watch(stack: string, { image, percent }: Setting, options: Options): Promise<Verdict> {
  const { windowSeconds, tolerance } = options;
  let containers = await canaries(stack);
  if (containers.length === 0) {
    throw new StepError(`${stack} has the setting of a canary but none runs: make up STACK=${stack}, then again`);
  }
  const ask = () => queryPrometheus(`${prefixOf(stack)}-prometheus`, COUNTERS);
  let tally: Tally | undefined = new Tally(await ask());
  let began = Date.now();
  let answered = began;
  let line = '';
  console.log(
    `Watching ${image} with ${percent} % of the requests for ${windowSeconds} s (Ctrl-C leaves it as it is).`,
  );
  for (;;) {
    await sleep(POLL_MS);
    requireStill(stack, { image, percent });
    const failure = await failureOf(containers);
    if (failure !== undefined) {
      const successors = await successorsOf(stack);
      if (successors === undefined) return { what: 'abort', reason: `its container ${failure}` };
      console.log(`  Its containers were replaced meanwhile (${failure}): the ${windowSeconds} s begin anew.`);
      containers = successors;
      tally = undefined;
    }
    try {
      const answer = await ask();
      answered = Date.now();
      if (tally === undefined) {
        tally = new Tally(answer);
        began = answered;
      } else tally.add(answer);
    } catch (error) {
      if (Date.now() - answered < SILENCE_MS) continue;
      return { what: 'abort', reason: `it cannot be judged: ${(error as Error).message}` };
    }
    const elapsedSeconds = (Date.now() - began) / 1000;
    const trial = { stable: tally.of('stable'), canary: tally.of('canary'), percent, elapsedSeconds, windowSeconds };
    const verdict = judge(trial, tolerance);
    const seen = describe(trial);
    // Counters change with a scrape.
    if (seen !== line || verdict.what !== 'wait') console.log(`  ${Math.round(elapsedSeconds)} s: ${(line = seen)}`);
    if (verdict.what !== 'wait') return verdict;
  }
}

function promote(stack: string, current: Setting): Promise<void> {
  return inTurnOf(stack, async () => {
    requireStill(stack, current);
    const changes = [
      [['image'], current.image],
      // The commit of the release that goes; the image knows its own.
      [['commit'], undefined],
      [['canary'], undefined],
    ] as const;
    try {
      await withSettings(stack, changes, () => up(stack));
    } catch (error) {
      throw new StepError(
        `The canary could not be promoted, it stays beside the stable release: ${(error as Error).message}`,
      );
    }
  });
}

function abort(stack: string, current: Setting): Promise<void> {
  return inTurnOf(stack, async () => {
    requireStill(stack, current);
    const whyKept = () => Promise.resolve('the canary is not wanted any more.');
    try {
      await withSettings(stack, [[['canary'], undefined]], () => up(stack), whyKept);
    } catch (error) {
      throw new StepError(
        `The canary may still get requests although the settings have none: make up STACK=${stack} removes it. ` +
          (error as Error).message,
      );
    }
  });
}

/** Others may have had their turn since the canary was looked at. */
function requireStill(stack: string, wanted: Setting | undefined): void {
  const setting = settingOf(stack);
  if (setting?.image === wanted?.image && setting?.percent === wanted?.percent) return;
  throw new StepError(`The canary of ${stack} was changed by someone else meanwhile; nothing was decided here`);
}

const up = (stack: string) => pulumi(stack, ['up', '-s', stack, '--yes', '--skip-preview']);

function settingOf(stack: string): Setting | undefined {
  return settingsOf(stack)['branchloans:canary'] as Setting | undefined;
}

/** Names of the canary's containers. */
async function canaries(stack: string): Promise<string[]> {
  const filter = `label=${LABEL}.component=${TRACK_NAMES.canary}`;
  const names = await ourContainers(stack, ['--all', '--filter', filter, '--format', '{{.Names}}']);
  return names.split('\n').filter(Boolean);
}

const HELP = `A canary is a release that gets a part of the requests, and is promoted or aborted by what it does with them:
  make canary STACK=staging IMAGE=me/loans:1.4.0 [PERCENT=10] [WINDOW=5m]
    [ERRORS=1] percentage points of failed requests (5xx) that it may have more than the stable release
    [LATENCY=1.5] its p95 may be that many times the stable release's, and 50 ms on top
  make canary STACK=staging                go on watching the one that is there
  make canary STACK=staging PROMOTE=1      decide by hand; ABORT=1 as well`;

function readOptions(args: readonly string[]): Options {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const fail = (what: string) => new StepError(`${what}, nothing was changed. ${HELP}`);
  const read = () => {
    try {
      return parseArgs({
        args: [...args],
        options: { image: text, percent: text, window: text, errors: text, latency: text, promote: flag, abort: flag },
      }).values;
    } catch (error) {
      throw fail((error as Error).message);
    }
  };
  const values = read();
  const number = (name: 'percent' | 'errors' | 'latency', least: number, most: number) => {
    const value = values[name];
    if (value === undefined) return undefined;
    if (!/^\d+(\.\d+)?$/.test(value) || Number(value) < least || Number(value) > most) {
      throw fail(`${name.toUpperCase()}=${value} is not a number from ${least} to ${most}`);
    }
    return Number(value);
  };
  const window = values.window ?? '5m';
  const [, amount = '', unit] = /^([1-9]\d*)(s|m|h)$/.exec(window) ?? [];
  const windowSeconds = Number(amount) * { s: 1, m: 60, h: 3600 }[unit === 'h' || unit === 'm' ? unit : 's'];
  // Two scrapes of each container are the least that can be compared.
  if (windowSeconds < 30) throw fail(`WINDOW=${window} is not a time of at least 30s, such as 90s, 5m or 1h`);
  if (values.promote === true && values.abort === true) throw fail('PROMOTE and ABORT exclude each other');
  return {
    image: values.image,
    percent: number('percent', 1, 50),
    windowSeconds,
    tolerance: {
      errorPoints: number('errors', 0, 100) ?? 1,
      latencyFactor: number('latency', 1, 100) ?? 1.5,
      latencyMs: 50,
    },
    decision: values.promote === true ? 'promote' : values.abort === true ? 'abort' : undefined,
  };
}
