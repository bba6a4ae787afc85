import { spawn } from 'node:child_process';
import { sleep, tryDocker } from '../deploy/engine';
import { LABEL } from '../labels';
import { prefixOf, useEngineOf } from '../operator';
import { Keeper, type Stopped } from '../ops/keeper';
import { serversOf } from '../ops/nginx';

/** `make keep`: runs until it is told to end, in the foreground, with a line for everything that it does. */
export async function keep(stack: string): Promise<void> {
  useEngineOf(stack);
  const end = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => end.abort());
  const say = (sentence: string) => console.log(`${new Date().toISOString()} ${sentence}`);
  say(`The containers of ${stack} are kept running.`);
  await keepRunning(prefixOf(stack), end.signal, say);
  say(`The containers of ${stack} are left to themselves.`);
}

/**
 * Starts again what was killed (ops/keeper.ts says what that is). It listens to the engine's events, and looks at all
 * containers every now and then besides. It needs no lock: it starts only what was not asked to stop and what the
 * gateway sends requests to, and neither is true of what a deploy removes.
 * @param prefix of the environment
 * @param say takes a sentence for the operator
 */
export async function keepRunning(prefix: string, end: AbortSignal, say: (sentence: string) => void): Promise<void> {
  const keeper = new Keeper(prefix);
  const look = looking(keeper, prefix, say);
  const timer = setInterval(() => look.soon(0), LOOK_MS);
  await listen(prefix, end, say, (event) => {
    keeper.observe(event);
    // To see when it stopped, and when nobody else can be about to start or remove it any more.
    if (event.action === 'die') for (const wait of [0, AFTER_DEATH_MS]) look.soon(wait);
  });
  clearInterval(timer);
  await look.done();
}

const LOOK_MS = 5_000;
/** A little more than the keeper's grace. */
const AFTER_DEATH_MS = 2_100;
const MAX_PAUSE_MS = 30_000;
/** How far back the engine is asked what happened before; it remembers its last 256 events only. */
const PAST_SECONDS = 900;

interface DockerEvent {
  readonly Action: string;
  readonly timeNano: number;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
}

/** Reads the engine's events until the end, also after the engine went away and came back. */
async function listen(
  prefix: string,
  end: AbortSignal,
  say: (sentence: string) => void,
  observe: (event: { container: string; action: string; signal?: number }) => void,
): Promise<void> {
  let since = Date.now() / 1000 - PAST_SECONDS;
  let pause = 1_000;
  const isOver = () => end.aborted;
  while (!isOver()) {
    const filters = ['type=container', `label=${LABEL}.environment=${prefix}`].concat(
      ['start', 'kill', 'die', 'stop', 'destroy'].map((action) => `event=${action}`),
    );
    const args = ['events', '--since', since.toFixed(9), '--format', '{{json .}}'];
    const reason = await lines([...args, ...filters.flatMap((filter) => ['--filter', filter])], end, (line) => {
      const { Action: action, Actor: actor, timeNano } = JSON.parse(line) as DockerEvent;
      since = timeNano / 1e9;
      pause = 1_000;
      const signal = actor.Attributes['signal'];
      observe({ container: actor.ID, action, ...(signal === undefined ? {} : { signal: Number(signal) }) });
    });
    if (isOver()) return;
    say(`The engine tells no more (${reason}); asked again in ${pause / 1000} s.`);
    await sleep(pause);
    pause = Math.min(MAX_PAUSE_MS, 2 * pause);
  }
}

/** Runs `docker` and hands on each line; resolves to why it ended. */
function lines(args: readonly string[], end: AbortSignal, take: (line: string) => void): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn('docker', args, { stdio: ['ignore', 'pipe', 'pipe'], signal: end });
    let rest = '';
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (rest + chunk).split('\n');
      rest = parts.pop() ?? '';
      for (const line of parts) if (line !== '') take(line);
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (said = chunk.trim() || said));
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => resolve(said || `exit code ${code ?? 'none'}`));
  });
}

/** Looks one after the other, however many are asked for. */
function looking(keeper: Keeper, prefix: string, say: (sentence: string) => void) {
  let last: Promise<unknown> = Promise.resolve();
  let waiting = false;
  const soon = (wait: number): void => {
    if (wait > 0) {
      setTimeout(() => soon(0), wait).unref();
      return;
    }
    if (waiting) return;
    waiting = true;
    last = last.then(() => {
      waiting = false;
      return look(keeper, prefix, say).catch((error: unknown) => say(`Looking failed: ${String(error)}`));
    });
  };
  return { soon, done: () => last };
}

async function look(keeper: Keeper, prefix: string, say: (sentence: string) => void): Promise<void> {
  const stopped = await stoppedContainers(prefix);
  if (stopped.length === 0) return;
  const verdicts = keeper.judge(stopped, await served(prefix), performance.now());
  for (const { container, start, reason } of verdicts) {
    if (!start) {
      say(
        `${container.name} ${reason}: left alone until somebody starts it (docker start ${container.name}) or a deploy replaces it.`,
      );
      continue;
    }
    keeper.tried(container.id, performance.now());
    const { code, stderr } = await tryDocker(['start', container.id]);
    say(
      code === 0
        ? `${container.name} ${reason}: started again.`
        : `${container.name} ${reason}, and cannot be started: ${stderr.trim()}`,
    );
  }
}

/** Those that exited and that the engine would restart after a crash: not the one-shot steps of a deploy. */
async function stoppedContainers(prefix: string): Promise<Stopped[]> {
  const filters = ['--filter', `label=${LABEL}.environment=${prefix}`, '--filter', 'status=exited'];
  const ids = (await tryDocker(['ps', '--all', '--quiet', '--no-trunc', ...filters])).stdout
    .split('\n')
    .filter(Boolean);
  if (ids.length === 0) return [];
  const fields = ['.Id', '.Name', `index .Config.Labels "${LABEL}.component"`, '.State.ExitCode'];
  const format = [...fields, '.State.Status', '.HostConfig.RestartPolicy.Name']
    .map((field) => `{{${field}}}`)
    .join('\t');
  // One that is gone meanwhile makes the command fail, the others are printed all the same.
  const { stdout } = await tryDocker(['inspect', '--format', format, ...ids]);
  return stdout.split('\n').flatMap((line) => {
    const [id = '', name = '', component = '', exitCode, status, policy] = line.split('\t');
    if (status !== 'exited' || policy !== 'unless-stopped') return [];
    return [{ id, name: name.slice(1), component, exitCode: Number(exitCode) }];
  });
}

/** Whom the gateway sends requests to; undefined while it does not run. */
async function served(prefix: string): Promise<string[] | undefined> {
  const command = ['exec', `${prefix}-gateway`, 'cat', '/etc/branchloans/current/upstream.conf'];
  const { code, stdout } = await tryDocker(command);
  return code === 0 ? serversOf(stdout) : undefined;
}
