import { OPERATOR_FIELD } from '../ops/maintenance';
import { indent, type Result, StepError, tryDocker } from './engine';

/** What a release must be able to do before, and after, it gets traffic. */
export interface Smoke {
  /** Paths that must answer 200. They read from the real database. */
  readonly reads: readonly string[];
  /** A loan that is written to the real database, with all that belongs to it, and taken back in the same transaction. */
  readonly dryRun: { readonly path: string; readonly body: string };
  /** In an API container: makes and revokes API keys (`create`, `revoke`), for paths that want one. */
  readonly keyCommand: readonly string[];
}

/** One answer, as whoever asked puts it into words; `key` was shown if there was one. */
export type Ask = (path: string, body: string | undefined, key: string | undefined) => Promise<Answer>;

export interface Answer {
  /** Undefined when there was none. */
  readonly status: number | undefined;
  /** What to show when it is not what was wanted. */
  readonly words: string;
}

/**
 * Asks all of it once.
 * @param ask the way to the release
 * @param key is made when the release wants one
 * @returns what went wrong, in words; undefined when all is well
 */
export async function smokeFault({ reads, dryRun }: Smoke, ask: Ask, key: PassingKey): Promise<Fault | undefined> {
  const requests = [...reads.map((path) => ({ path, body: undefined })), dryRun];
  for (const { path, body } of requests) {
    // Another container's test may make the key while this one's question is on its way.
    const shown = key.made();
    let answer = await ask(path, body, shown);
    if (answer.status === 401 && shown === undefined) answer = await ask(path, body, await key.text());
    if (body !== undefined && isUnknown(answer)) continue;
    const wanted = body === undefined ? 200 : 201;
    if (answer.status !== wanted) return { path, words: answer.words };
  }
  return undefined;
}

/** A release that is older than the dry run, and is gone back to, takes its path for that of a loan. */
function isUnknown({ status, words }: Answer): boolean {
  return status === 404 || status === 405 || (status === 400 && words.includes('invalid-id'));
}

export interface Fault {
  readonly path: string;
  readonly words: string;
}

export interface PassingKey {
  /** Of a key that may read and write loans, made at the first call. */
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
    text: () => (making ??= make()),
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
