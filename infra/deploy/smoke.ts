import { OPERATOR_FIELD } from '../ops/maintenance';
import { indent, type Result, sleep, StepError, tryDocker } from './engine';

/** What a release must be able to do before, and after, it gets traffic. */
export interface Smoke {
  /** Paths that must answer 200. They read from the real database. */
  readonly reads: readonly string[];
  /** A loan that is written to the real database, with all that belongs to it, and taken back in the same transaction. */
  readonly dryRun: { readonly path: string; readonly body: string };
  /** In an API container: makes and revokes API keys (`create`, `revoke`), for paths that want one. */
  readonly keyCommand: readonly string[];
}

/** Asks for `path` once: a POST where there is a body, with the API key if there is one. */
export type Ask = (path: string, body: string | undefined, key: string | undefined) => Promise<Answer>;

export interface Answer {
  /** Undefined when there was none. */
  readonly status: number | undefined;
  /** What to show when it is not what was wanted. */
  readonly words: string;
}

/**
 * What a fault says about the release:
 * - `passing`: nothing yet. A busy host or database causes it too: no answer in time, or an answer that means "later".
 * - `lasting`: a wrong answer, such as 500 or 404. A busy host does not cause it.
 * - `final`: the release cannot recover, such as a crash. More questions are of no use.
 */
export type FaultKind = 'passing' | 'lasting' | 'final';

export interface Fault {
  readonly path: string;
  readonly words: string;
  readonly kind: FaultKind;
}

/**
 * Asks all of it once.
 * @param ask the way to the release
 * @param key is made when the release wants one
 * @param done paths that were answered well before, which are not asked again; those that are now are added
 * @returns the first thing that went wrong; undefined when all is well
 */
export async function smokeFault(
  { reads, dryRun }: Smoke,
  ask: Ask,
  key: PassingKey,
  done = new Set<string>(),
): Promise<Fault | undefined> {
  const requests = [...reads.map((path) => ({ path, body: undefined })), dryRun];
  for (const { path, body } of requests) {
    if (done.has(path)) continue;
    // Another container's test may make the key while this one's question is on its way.
    const shown = key.made();
    let answer = await ask(path, body, shown);
    if (answer.status === 401 && shown === undefined) {
      const made = await key.text().catch((error: unknown) => error as Error);
      // The command needs the database too, and a process of its own: on a busy host it may be too slow.
      if (made instanceof Error) return { path, words: made.message, kind: 'passing' };
      answer = await ask(path, body, made);
    }
    const wanted = body === undefined ? 200 : 201;
    if (answer.status !== wanted && !(body !== undefined && isUnknown(answer))) {
      return { path, words: answer.words, kind: mayPass(answer) ? 'passing' : 'lasting' };
    }
    done.add(path);
  }
  return undefined;
}

/** A release that is older than the dry run, and is gone back to, takes its path for that of a loan. */
function isUnknown({ status, words }: Answer): boolean {
  return status === 404 || status === 405 || (status === 400 && words.includes('invalid-id'));
}

/** Statuses by which the API or the gateway says "not now"; the check of the database says so with a 500. */
const LATER = new Set([408, 425, 429, 502, 503, 504]);

function mayPass({ status, words }: Answer): boolean {
  return status === undefined || LATER.has(status) || words.includes('urn:problem:db-check-failed');
}

/** A wrong answer counts only when it comes so often in a row. */
const LASTING_IN_A_ROW = 3;
const FIRST_PAUSE_MS = 250;
/** Each question costs the host a process or two, which a busy one has no time for. */
const LONGEST_PAUSE_MS = 1_000;

export interface Clock {
  /** Milliseconds since any moment. */
  now(): number;
  sleep(milliseconds: number): Promise<void>;
}

const CLOCK: Clock = { now: () => performance.now(), sleep };

export interface Patience {
  /** For how long passing faults are borne. The last question is asked when this time is over. */
  readonly withinMs: number;
  /** Asked once, when that time is over: for how much longer. */
  readonly moreMs?: () => Promise<number>;
  readonly clock?: Clock;
}

/**
 * Asks until there is no fault. What is passing ends it only when time is up, what is lasting when it is there three
 * times in a row, what is final at once. So no passing fault that ends in time refuses a release.
 * @returns the fault that ended it, and after how many milliseconds; undefined when all is well
 */
export async function faultAfterPatience<F extends Fault>(
  ask: () => Promise<F | undefined>,
  { withinMs, moreMs, clock = CLOCK }: Patience,
): Promise<(F & { readonly afterMs: number }) | undefined> {
  const begun = clock.now();
  let deadline = begun + withinMs;
  let more = moreMs;
  let lasting = 0;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    const askedAt = clock.now();
    const fault = await ask();
    if (fault === undefined) return undefined;
    lasting = fault.kind === 'lasting' ? lasting + 1 : 0;
    const refused = fault.kind === 'final' || lasting === LASTING_IN_A_ROW;
    if (!refused && askedAt >= deadline && more !== undefined) {
      deadline += await more();
      more = undefined;
    }
    if (refused || askedAt >= deadline) return { ...fault, afterMs: clock.now() - begun };
    await clock.sleep(Math.max(0, Math.min(pauseMs, deadline - clock.now())));
  }
}

export interface PassingKey {
  /** Of a key that may read and write loans, made at the first call. After a failure the next call tries again. */
  text(): Promise<string>;
  /** Undefined when there is none yet. */
  made(): string | undefined;
  /** If there is one. One that could not be revoked expires within a day. */
  revoke(): Promise<void>;
}

/**
 * @param container where the key is made
 * @param name of the key in lists
 */
export function passingKey(
  container: string,
  command: readonly string[],
  { name, purpose } = { name: 'deploy-smoke', purpose: 'the smoke test' },
): PassingKey {
  let making: Promise<string> | undefined;
  let made: string | undefined;
  const make = async () => {
    const args = ['create', '--name', name, '--scopes', 'loans:read,loans:write', '--expires-days', '1'];
    const { code, stdout, stderr } = await tryDocker(['exec', container, ...command, ...args]);
    if (code !== 0) throw new StepError(`No API key for ${purpose} could be made:\n${indent(stderr)}`);
    return (made = stdout.trim());
  };
  return {
    text: () =>
      (making ??= make().catch((error: unknown) => {
        making = undefined;
        throw error;
      })),
    made: () => made,
    async revoke() {
      if ((await making?.catch(() => undefined)) === undefined) return;
      const [, , id = ''] = made?.split('_') ?? [];
      await tryDocker(['exec', container, ...command, 'revoke', '--id', id]);
    },
  };
}

/** Asks by the image's own probe, inside the container: `probe <path>`, a POST where there is a body. */
export function askByProbe(container: string, probe: string): Ask {
  return async (path, body, key) => {
    const environment: Record<string, string> = {
      ...(key !== undefined && { PROBE_KEY: key }),
      ...(body !== undefined && { PROBE_BODY: body }),
    };
    const names = Object.keys(environment).flatMap((name) => ['--env', name]);
    const result = await tryDocker(['exec', ...names, container, probe, path], undefined, environment);
    return { status: statusOf(result, body), words: result.stdout + result.stderr };
  };
}

function statusOf({ code, stdout }: Result, body: string | undefined): number | undefined {
  if (code === 0) return body === undefined ? 200 : 201;
  const said = /HTTP\/1\.1 (\d{3}) /.exec(stdout)?.[1];
  return said === undefined ? undefined : Number(said);
}

/** The way that users take: through TLS and the gateway. Asked from inside its container, where no name is needed. */
export interface Entrance {
  readonly container: string;
  /** Where it listens for https, in the container. */
  readonly port: number;
  readonly domain: string;
  /** Path in the container; what it shows must be this, and valid for the domain. */
  readonly certificate: string;
  /** Lets it in while the environment is closed for maintenance. */
  readonly operatorToken: string;
}

export function askByEntrance({ container, port, domain, certificate, operatorToken }: Entrance): Ask {
  return async (path, body, key) => {
    // On standard input: no secret stands in a list of processes.
    const configuration = [
      'silent',
      'show-error',
      'max-time = 5',
      `resolve = "${domain}:${port}:127.0.0.1"`,
      `cacert = "${certificate}"`,
      `url = "https://${domain}:${port}${path}"`,
      String.raw`write-out = "\n%{http_code}"`,
      `header = "${OPERATOR_FIELD}: ${operatorToken}"`,
      ...(key === undefined ? [] : [`header = "Authorization: Bearer ${key}"`]),
      ...(body === undefined ? [] : ['header = "Content-Type: application/json"', `data = ${JSON.stringify(body)}`]),
    ];
    const args = ['exec', '--interactive', container, 'curl', '--config', '-'];
    const { stdout, stderr } = await tryDocker(args, configuration.join('\n'));
    const end = stdout.lastIndexOf('\n');
    const status = Number(stdout.slice(end + 1));
    return { status: status || undefined, words: `${status || 'no answer'}: ${stdout.slice(0, end)}${stderr}` };
  };
}
