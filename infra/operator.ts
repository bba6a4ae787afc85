import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import { type Result, StepError, tryDocker } from './deploy/engine';
import { isUp, placeAt } from './embedded/environment';
import { EnvironmentError, type EnvironmentSpec, readEnvironment } from './environment';
import { LABEL } from './labels';
import { inTurn, placeOf, refusedBy, type Turn } from './lock';
import { repair } from './repair';
import defaultImages from './images.json';

/**
 * What an operator's commands have in common: which stacks there are, what this machine lacks to run one, and how
 * Pulumi is called. Nothing here does what plain `pulumi` could not do by hand.
 */
export const ROOT = resolve(__dirname, '..');

/** The stack an operator asked for. @throws StepError when there is no such environment */
export function stackNamed(name: string | undefined): string {
  const stacks = readdirSync(ROOT).flatMap((file) => /^Pulumi\.([a-z0-9-]+)\.yaml$/.exec(file)?.[1] ?? []);
  const stack = name === undefined || name === '' ? 'development' : name;
  if (!stacks.includes(stack))
    throw new StepError(`There is no environment "${stack}": choose one of ${stacks.join(', ')}`);
  return stack;
}

/** What this machine lacks to run the stack in containers, each with its remedy; empty when nothing is missing. */
export async function missingFor(stack: string): Promise<string[]> {
  const tools = await missingTools(stack);
  return tools.length > 0 ? tools : missingImages(stack);
}

/** What this machine lacks to speak of a stack in containers at all: it may be taken down without its images. */
export async function missingTools(stack: string): Promise<string[]> {
  useEngineOf(stack);
  return [...missingPulumi(), ...(await missingEngine())];
}

/** The stack may name its engine; the docker command line then asks the same one as the program. */
export function useEngineOf(stack: string): void {
  const host = settingsOf(stack)['docker:host'];
  if (typeof host === 'string') process.env['DOCKER_HOST'] = host;
}

/** The plugins are part of Pulumi: it fetches them when they are first needed, where it can. */
function missingPulumi(): string[] {
  const run = (args: string[]) => spawnSync('pulumi', args, { cwd: ROOT, encoding: 'utf8', env: pulumiEnvironment() });
  if (run(['version']).error) return ['Pulumi is not installed: https://www.pulumi.com/docs/install'];
  return Object.entries(pluginVersions()).flatMap(([name, version]) => {
    const onPath = spawnSync(`pulumi-resource-${name}`, ['--version'], { stdio: 'ignore' }).error === undefined;
    const installed = onPath || run(['plugin', 'ls', '--json']).stdout.includes(`"name": "${name}"`);
    if (installed || run(['plugin', 'install', 'resource', name, version]).status === 0) return [];
    return [`the Pulumi plugin "${name}" cannot be fetched: pulumi plugin install resource ${name} ${version}`];
  });
}

function pluginVersions(): Record<string, string> {
  const { devDependencies } = JSON.parse(readFileSync(resolve(ROOT, 'package.json'), 'utf8')) as {
    devDependencies: Record<string, string>;
  };
  return { docker: devDependencies['@pulumi/docker'] ?? '', command: devDependencies['@pulumi/command'] ?? '' };
}

async function missingEngine(): Promise<string[]> {
  try {
    const { code, stderr } = await tryDocker(['info', '--format', '{{.ServerVersion}}']);
    if (code === 0) return [];
    const reason = stderr.trim().split('\n').at(-1) ?? '';
    return [`no Docker engine answers (${reason}): start it, or name one by DOCKER_HOST=ssh://user@host`];
  } catch (error) {
    return [`${(error as Error).message}, and an engine: https://docs.docker.com/engine/install`];
  }
}

/** Pulls what the engine lacks, all at once, so that a stack is not half built when a registry is out of reach. */
async function missingImages(stack: string): Promise<string[]> {
  const pulled = await Promise.all(
    imagesFor(settingsOf(stack)).map(async (image) => {
      if ((await tryDocker(['image', 'inspect', image])).code === 0) return [];
      const { code, stderr } = await tryDocker(['pull', '--quiet', image]);
      return code === 0 ? [] : [`the image ${image} cannot be pulled: ${stderr.trim().split('\n').at(-1) ?? ''}`];
    }),
  );
  return pulled.flat();
}

/** The stack's settings as they stand in its file; checked by the program, not here. */
export function settingsOf(stack: string): Record<string, unknown> {
  const file = parse(readFileSync(resolve(ROOT, `Pulumi.${stack}.yaml`), 'utf8')) as {
    config?: Record<string, unknown>;
  };
  return file.config ?? {};
}

/** The stack's settings, checked as the program checks them. @throws StepError with every fault */
export function environmentOf(stack: string): EnvironmentSpec {
  const settings = settingsOf(stack);
  const text = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  const configuration = Object.fromEntries(Object.entries(settings).map(([key, value]) => [key, text(value)]));
  const isSecret = (key: string) => Object.hasOwn(settings[key] ?? {}, 'secure');
  try {
    return readEnvironment('branchloans', stack, configuration, isSecret);
  } catch (error) {
    throw error instanceof EnvironmentError ? new StepError(error.message) : error;
  }
}

/** What the names of the stack's containers begin with, and their label `environment`. */
export function prefixOf(stack: string): string {
  const prefix = settingsOf(stack)['branchloans:prefix'];
  return typeof prefix === 'string' ? prefix : `branchloans-${stack}`;
}

/** Where the environment without containers listens: on the ports of the one with containers. */
export function embeddedPorts(): string[] {
  const gateway = settingsOf('development')['branchloans:gateway'] as { ports?: Record<string, number> } | undefined;
  const { https, api } = gateway?.ports ?? {};
  return [
    ...(https === undefined ? [] : ['--https-port', String(https)]),
    ...(api === undefined ? [] : ['--api-port', String(api)]),
  ];
}

/** Reference of one of the stack's images. */
export function imageOf(stack: string, name: keyof typeof defaultImages): string {
  return componentImages(settingsOf(stack))[name];
}

function componentImages(settings: Record<string, unknown>): typeof defaultImages {
  return { ...defaultImages, ...(settings['branchloans:images'] as Partial<typeof defaultImages> | undefined) };
}

/** Image of each exporter, by the setting that switches it off. */
const EXPORTER_IMAGES = {
  database: 'postgres-exporter',
  probes: 'blackbox-exporter',
  host: 'node-exporter',
  containers: 'node',
} as const satisfies Partial<Record<keyof EnvironmentSpec['exporters'], keyof typeof defaultImages>>;

/** References of what the stack with these settings runs, or is built from. */
export function imagesFor(settings: Record<string, unknown>): string[] {
  const images = componentImages(settings);
  const api = settings['branchloans:image'];
  const canary = (settings['branchloans:canary'] as { image?: string } | undefined)?.image;
  const exporters = settings['branchloans:exporters'] as Record<string, unknown> | undefined;
  const wanted = Object.entries(EXPORTER_IMAGES).flatMap(([name, image]) =>
    exporters?.[name] === false ? [] : [images[image]],
  );
  // The tools of `make chaos` are pulled when they are wanted.
  const { postgres, nginx, prometheus, grafana, alertmanager } = images;
  return [
    ...new Set([
      ...[postgres, nginx, prometheus, grafana, alertmanager],
      ...wanted,
      // Without an image of its own it is built from that of Node.
      typeof api === 'string' ? api : images.node,
      ...(canary === undefined ? [] : [canary]),
    ]),
  ];
}

/**
 * The environment that Pulumi is called with. Development has no secret worth a passphrase; every other stack
 * names its own.
 */
export function pulumiEnvironment(stack?: string): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { ...process.env, PULUMI_SKIP_UPDATE_CHECK: 'true' };
  const { PULUMI_CONFIG_PASSPHRASE: phrase, PULUMI_CONFIG_PASSPHRASE_FILE: file } = process.env;
  if (stack === 'development' && phrase === undefined && file === undefined) {
    environment['PULUMI_CONFIG_PASSPHRASE'] = '';
  }
  // Plugins go into the project's folder unless this user has a place for them already.
  if (process.env['PULUMI_HOME'] === undefined && !existsSync(resolve(homedir(), '.pulumi'))) {
    environment['PULUMI_HOME'] = resolve(ROOT, '.pulumi/home');
  }
  return environment;
}

/** Backends that keep no secrets themselves: a stack there encrypts with a key that somebody must give. */
const SELF_MANAGED = /^(file|s3|azblob|gs|postgres):/;

/** Whether Pulumi's backend has a key of its own for the secrets of a stack. */
export function backendKeepsSecrets(): boolean {
  const { PULUMI_BACKEND_URL: backend } = process.env;
  return backend !== undefined && !SELF_MANAGED.test(backend);
}

/** @throws StepError when the stack's secrets could be neither written nor read */
export function requirePassphrase(stack: string): void {
  const { PULUMI_CONFIG_PASSPHRASE: phrase, PULUMI_CONFIG_PASSPHRASE_FILE: file } = process.env;
  const settings = readFileSync(resolve(ROOT, `Pulumi.${stack}.yaml`), 'utf8');
  const otherProvider = /^secretsprovider:/m.test(settings) || backendKeepsSecrets();
  if (stack === 'development' || phrase || file || otherProvider) return;
  throw new StepError(
    `${stack} keeps its secrets encrypted and no key was given, nothing was changed:\n` +
      '  set PULUMI_CONFIG_PASSPHRASE (or PULUMI_CONFIG_PASSPHRASE_FILE), or choose another secrets provider:\n' +
      `  pulumi stack init ${stack} --secrets-provider=…`,
  );
}

/**
 * Runs `pulumi` with the terminal of the caller. What changes the stack waits for its turn, and first repairs what a
 * deploy that was killed has left.
 * @throws StepError when it fails, or another one is still at work after WAIT
 */
export async function pulumi(stack: string, args: readonly string[]): Promise<void> {
  if (!CHANGING.includes(args[0] ?? '') || args.includes('--preview-only')) {
    ended(args, (await runPulumi(stack, args)).code);
    return;
  }
  const place = placeOf(ROOT, stack);
  await inTurn(place, waitSeconds(), async (turn) => {
    for (;;) {
      // Where only Pulumi knows of locks, nobody can tell the work of a living deploy from what a dead one left.
      const repaired = place.locks.length > 0 ? await repairIn(turn, stack) : [];
      if (repaired.length > 0) console.log(`A deploy of ${stack} was cut off. Repaired:\n${list(repaired)}`);
      const { code, stderr } = await runPulumi(stack, args);
      const refused = code === 0 ? undefined : refusedBy(stderr);
      if (refused === undefined) {
        ended(args, code);
        return;
      }
      await turn.refused(refused.owner);
    }
  });
}

const CHANGING = ['up', 'destroy', 'refresh'];

function ended(args: readonly string[], code: number): void {
  if (code !== 0) throw new StepError(`pulumi ${args.join(' ')} ended with exit code ${code}`);
}

/** Repairs what a deploy that was killed or cut off has left; see repair.ts. @returns what was done */
export function repairIn(turn: Turn, stack: string): Promise<string[]> {
  useEngineOf(stack);
  const quietly = async (args: readonly string[]): Promise<Result> => {
    for (;;) {
      const result = await runPulumi(stack, [...args, '-s', stack, '--non-interactive'], 'pipe');
      const refused = result.code === 0 ? undefined : refusedBy(result.stderr);
      if (refused === undefined) return result;
      await turn.refused(refused.owner);
    }
  };
  return repair({ stack, prefix: prefixOf(stack), pulumi: quietly, limitSeconds: waitSeconds() }, turn);
}

/** How long to wait for others, from WAIT: `90s`, `30m` (the default) or `1h`; 0s does not wait. */
export function waitSeconds(): number {
  const text = process.env['WAIT'] || '30m';
  const [, number, unit] = /^(\d+)(s|m|h)$/.exec(text) ?? [];
  if (number === undefined) throw new StepError(`WAIT=${text} is not valid: must be a time such as 90s, 30m or 1h`);
  return Number(number) * (unit === 'h' ? 3600 : unit === 'm' ? 60 : 1);
}

/** Runs `pulumi` where nobody can answer it, and returns whatever it says. Nothing that changes the stack. */
export function pulumiOutput(stack: string, args: readonly string[]): Promise<Result> {
  return runPulumi(stack, [...args, '--non-interactive'], 'pipe');
}

/**
 * Standard error passes through here, since it says who holds the lock; whether Pulumi asks and uses colours is decided
 * by the other two. Ctrl-C is Pulumi's: it ends what it has begun, and we wait for that.
 */
function runPulumi(stack: string, args: readonly string[], output: 'inherit' | 'pipe' = 'inherit'): Promise<Result> {
  return new Promise((done, fail) => {
    const env = pulumiEnvironment(stack);
    const child = spawn('pulumi', args, { cwd: ROOT, env, stdio: ['inherit', output, 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
      if (output === 'inherit') process.stderr.write(text);
    });
    const patience = () => undefined;
    const pass = () => child.kill('SIGTERM');
    process.on('SIGINT', patience).on('SIGTERM', pass);
    child.on('error', fail);
    child.on('close', (code) => {
      process.off('SIGINT', patience).off('SIGTERM', pass);
      done({ code: code ?? 1, stdout, stderr });
    });
  });
}

/**
 * The ordinary `pulumi up`, with its preview and question where somebody can answer.
 * @param options further ones, as of the command line
 * @throws StepError when it fails
 */
export function pulumiUp(stack: string, options: readonly string[] = []): Promise<void> {
  const unattended = stack === 'development' || !process.stdin.isTTY;
  return pulumi(stack, ['up', '-s', stack, ...options, ...(unattended ? ['--yes', '--skip-preview'] : [])]);
}

/** Stack outputs, secrets hidden; undefined when the stack does not exist. */
export function outputsOf(stack: string): Record<string, unknown> | undefined {
  const { status, stdout } = spawnSync('pulumi', ['stack', 'output', '--json', '-s', stack], {
    cwd: ROOT,
    encoding: 'utf8',
    env: pulumiEnvironment(stack),
  });
  return status === 0 ? (JSON.parse(stdout) as Record<string, unknown>) : undefined;
}

/** Asked without opening secrets, so that a missing passphrase does not look like a missing stack. */
export function stackExists(stack: string): boolean {
  const { status, stdout, stderr } = spawnSync('pulumi', ['stack', 'ls', '--json'], {
    cwd: ROOT,
    encoding: 'utf8',
    env: pulumiEnvironment(stack),
  });
  if (status !== 0) throw new StepError(`pulumi cannot list the stacks:\n${stderr.trim()}`);
  return (JSON.parse(stdout) as { name: string }[]).some(({ name }) => name.split('/').at(-1) === stack);
}

/** What `docker ps` prints of the environment's containers; empty when there is no engine. */
export async function ourContainers(stack: string, args: readonly string[]): Promise<string> {
  useEngineOf(stack);
  const { stdout } = await tryDocker([
    'ps',
    '--filter',
    `label=${LABEL}.environment=${prefixOf(stack)}`,
    ...args,
  ]).catch(() => ({
    stdout: '',
  }));
  return stdout.trim();
}

/** One of the API's containers; undefined where none runs. */
export async function apiContainer(stack: string): Promise<string | undefined> {
  const found = await ourContainers(stack, ['--filter', `label=${LABEL}.component=api`, '--quiet']);
  return found.split('\n')[0] || undefined;
}

export function list(lines: readonly string[]): string {
  return lines.map((line) => `  - ${line}`).join('\n');
}

/** Whether the stack is up here without containers, as `make up` brings development up where there is no engine. */
export async function runsEmbedded(stack: string): Promise<boolean> {
  return stack === 'development' && isUp(placeAt(undefined)) && (await ourContainers(stack, ['--quiet'])) === '';
}

/** The environment without containers is a program of its own: it must run where the Docker parts cannot. */
export function runEmbedded(...args: string[]): number | null {
  const program = ['--import', 'tsx', 'infra/embedded/main.ts'];
  return spawnSync(process.execPath, [...program, ...args], { cwd: ROOT, stdio: 'inherit' }).status;
}

export async function embedded(...args: string[]): Promise<void> {
  if (runEmbedded(...args) !== 0) throw new StepError(`The embedded environment: ${args[0] ?? ''} failed`);
  await Promise.resolve();
}
