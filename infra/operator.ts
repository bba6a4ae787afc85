import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { parse } from 'yaml';
import { type Result, StepError, tryDocker } from './deploy/engine';
import { LABEL } from './labels';
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
    imagesOf(stack).map(async (image) => {
      if ((await tryDocker(['image', 'inspect', image])).code === 0) return [];
      const { code, stderr } = await tryDocker(['pull', '--quiet', image]);
      return code === 0 ? [] : [`the image ${image} cannot be pulled: ${stderr.trim().split('\n').at(-1) ?? ''}`];
    }),
  );
  return pulled.flat();
}

/** The stack's settings as they stand in its file; checked by the program, not here. */
function settingsOf(stack: string): Record<string, unknown> {
  const file = parse(readFileSync(resolve(ROOT, `Pulumi.${stack}.yaml`), 'utf8')) as {
    config?: Record<string, unknown>;
  };
  return file.config ?? {};
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

function imagesOf(stack: string): string[] {
  const settings = settingsOf(stack);
  const images = { ...defaultImages, ...(settings['branchloans:images'] as Record<string, string> | undefined) };
  const api = settings['branchloans:image'];
  const { node, ...rest } = images;
  return [...Object.values(rest), typeof api === 'string' ? api : node];
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

/** @throws StepError when the stack's secrets could be neither written nor read */
export function requirePassphrase(stack: string): void {
  const {
    PULUMI_CONFIG_PASSPHRASE: phrase,
    PULUMI_CONFIG_PASSPHRASE_FILE: file,
    PULUMI_BACKEND_URL: backend,
  } = process.env;
  const settings = readFileSync(resolve(ROOT, `Pulumi.${stack}.yaml`), 'utf8');
  const otherProvider = /^secretsprovider:/m.test(settings) || (backend !== undefined && !SELF_MANAGED.test(backend));
  if (stack === 'development' || phrase || file || otherProvider) return;
  throw new StepError(
    `${stack} keeps its secrets encrypted and no key was given, nothing was changed:\n` +
      '  set PULUMI_CONFIG_PASSPHRASE (or PULUMI_CONFIG_PASSPHRASE_FILE), or choose another secrets provider:\n' +
      `  pulumi stack init ${stack} --secrets-provider=…`,
  );
}

/** Runs `pulumi` with the terminal of the caller. @throws StepError when it fails */
export function pulumi(stack: string, args: readonly string[]): Promise<void> {
  return new Promise((done, fail) => {
    const child = spawn('pulumi', args, { cwd: ROOT, stdio: 'inherit', env: pulumiEnvironment(stack) });
    child.on('error', fail);
    child.on('close', (code) =>
      code === 0 ? done() : fail(new StepError(`pulumi ${args.join(' ')} ended with exit code ${code ?? 1}`)),
    );
  });
}

/** Runs `pulumi` and returns whatever it says. */
export function pulumiOutput(stack: string, args: readonly string[]): Promise<Result> {
  return new Promise((done, fail) => {
    const child = spawn('pulumi', [...args, '--non-interactive'], {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: pulumiEnvironment(stack),
    });
    const read = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    child.stdout.on('data', (chunk: Buffer) => read.stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => read.stderr.push(chunk));
    child.on('error', fail);
    const text = (chunks: Buffer[]) => Buffer.concat(chunks).toString('utf8');
    child.on('close', (code) => done({ code: code ?? 1, stdout: text(read.stdout), stderr: text(read.stderr) }));
  });
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
