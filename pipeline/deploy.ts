import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import { COMMIT, type History, isOvertaken } from './history';
import { DIGEST } from './layout';
import { output, PipelineError, type Run, type RunOptions } from './run';

/**
 * A deploy by the program's own commands: `make up`, `make smoke`, `make rollback` and `make drift`, with STACK. This
 * decides only in which order, and what is said at the end. Any repository whose Makefile has them can use it.
 */
export interface Commands {
  /** What has the traffic before anything is touched; undefined on the first deploy. */
  current(): Promise<Current | undefined>;
  /** Whether what is to be deployed was overtaken by what runs. */
  overtakenBy(running: Current): Promise<boolean>;
  up(): Promise<boolean>;
  /** Through the public entrance, as users do. */
  smoke(): Promise<boolean>;
  rollback(to: Pick<Current, 'release'>): Promise<boolean>;
  /** Whether somebody asked us to stop: then nothing new is begun. */
  cancelled(): boolean;
}

export interface Current {
  /** `name@sha256:…`, or the engine's own id. */
  readonly image: string;
  /** What `make rollback TO=` takes: the release's id where the program has one, else the image. */
  readonly release: string;
  /** That it was built from, where the program says so. */
  readonly commit: string | undefined;
}

export interface Outcome {
  /**
   * - `deployed`: the new release has the traffic and answers
   * - `kept`: it never took over, the one before answers
   * - `rolled-back`: it had taken over and was taken back, the one before answers
   * - `failed`: nobody knows that anything answers: a person is needed
   * - `cancelled`: stopped half-way; the next deploy repairs what is left
   * - `superseded`: nothing was done, since what runs has this commit in its history
   */
  readonly outcome: 'deployed' | 'superseded' | 'kept' | 'rolled-back' | 'failed' | 'cancelled';
  readonly previous: Current | undefined;
  readonly words: string;
}

/** What ends green: what was pushed runs, or something that contains it. All else is red, for whoever pushed to see. */
export const isGreen = (outcome: Outcome['outcome']) => outcome === 'deployed' || outcome === 'superseded';

export async function deploy(commands: Commands): Promise<Outcome> {
  const previous = await commands.current();
  const end = (outcome: Outcome['outcome'], words: string): Outcome => ({ outcome, previous, words });
  const cancelled = () => end('cancelled', 'The deploy was stopped; the next one repairs what is left.');

  if (previous !== undefined && (await commands.overtakenBy(previous))) {
    return end(
      'superseded',
      `A later run was faster: what runs has this commit in its history, and nothing was touched. Going back is a rollback.`,
    );
  }
  const up = await commands.up();
  if (commands.cancelled()) return cancelled();
  if (up && (await commands.smoke())) return end('deployed', 'The new release has the traffic and answers.');
  if (commands.cancelled()) return cancelled();

  const fault = up ? 'The new release took over and does not answer' : 'The deploy failed';
  if (previous === undefined) {
    return end('failed', `${fault}. It was the first one: there is no release to go back to.`);
  }
  // A deploy that fails has gone back by itself, unless it was cut off between two steps.
  if (!up && (await commands.smoke())) return end('kept', `${fault}; ${previous.image} still has the traffic.`);
  if (commands.cancelled()) return cancelled();
  if (!(await commands.rollback(previous))) {
    return end('failed', `${fault}, and so did going back to ${previous.image}: act now.`);
  }
  if (!(await commands.smoke())) {
    return end('failed', `${fault}. ${previous.image} was brought back and does not answer either: act now.`);
  }
  return end('rolled-back', `${fault}; ${previous.image} has the traffic again and answers.`);
}

export interface Target {
  readonly directory: string;
  readonly stack: string;
  /** `name@sha256:…`; undefined for what names no image, such as a rollback. */
  readonly ref: string | undefined;
  /** `key=value`, set beside the image. */
  readonly settings: readonly string[];
}

/** What a job knows of its surroundings. */
export interface Surroundings {
  readonly hosted: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What would make the deploy fail, or worse, succeed on a machine that is thrown away; each with its remedy. */
export function deployFaults({ directory, stack, ref }: Target, { hosted, env }: Surroundings): string[] {
  const file = join(directory, `Pulumi.${stack}.yaml`);
  if (!/^[a-z][a-z0-9-]*$/.test(stack) || !existsSync(file)) return [`there is no ${file}: name one of its stacks`];
  const settings = readFileSync(file, 'utf8');
  const { config } = (parse(settings) ?? {}) as { config?: Record<string, unknown> };
  const engine = engineOf(config, env);
  const backend = env['PULUMI_BACKEND_URL'] || backendOf(directory);
  const selfManaged = backend !== undefined && /^(file|s3|azblob|gs|postgres):/.test(backend);
  const ssh = typeof engine === 'string' && engine.startsWith('ssh://');
  return [
    ...(ref === undefined || /^[\w.\-/:]+@sha256:[0-9a-f]{64}$/.test(ref)
      ? []
      : [`"${ref}" is not name@sha256:…: a tag may be another image tomorrow`]),
    ...(hosted && engine === undefined
      ? [
          'this runner and its Docker engine are thrown away after the job: set the variable DOCKER_HOST of the ' +
            'environment (ssh://user@host), or run the job on a runner of your own (the input runs-on)',
        ]
      : []),
    ...(hosted && (backend === undefined || backend.startsWith('file:')) && !env['PULUMI_ACCESS_TOKEN']
      ? [
          "the stack's state would be lost with this runner: set the variable PULUMI_BACKEND_URL of the environment, or " +
            'the secret PULUMI_ACCESS_TOKEN',
        ]
      : []),
    ...(ssh && hosted && !env['DOCKER_HOST_KEY'] ? ['the secret DOCKER_HOST_KEY (a private SSH key) is missing'] : []),
    ...(ssh && hosted && !env['DOCKER_HOST_KNOWN_HOSTS']
      ? ['the variable DOCKER_HOST_KNOWN_HOSTS is missing (ssh-keyscan, compared by a person)']
      : []),
    ...(selfManaged && !/^(encryptionsalt|secretsprovider):/m.test(settings)
      ? [
          `${file} has no encryptionsalt: a new one, made here, would be lost with this checkout. Run ` +
            `pulumi stack init ${stack} once by hand and commit the line that it writes`,
        ]
      : []),
  ];
}

/** The stack's own setting wins, as it does in the program. */
function engineOf(config: Record<string, unknown> | undefined, env: Surroundings['env']): string | undefined {
  const named = config?.['docker:host'];
  return typeof named === 'string' && named !== '' ? named : env['DOCKER_HOST'] || undefined;
}

/** The engine that a stack is deployed to; undefined for the one that the docker command asks by itself. */
export function engineOfStack(directory: string, stack: string, env: Surroundings['env']): string | undefined {
  const { config } = (parse(readFileSync(join(directory, `Pulumi.${stack}.yaml`), 'utf8')) ?? {}) as {
    config?: Record<string, unknown>;
  };
  return engineOf(config, env);
}

function backendOf(directory: string): string | undefined {
  const file = join(directory, 'Pulumi.yaml');
  if (!existsSync(file)) return undefined;
  return (parse(readFileSync(file, 'utf8')) as { backend?: { url?: string } } | null)?.backend?.url;
}

/**
 * The real commands. A secret goes into a file of this process alone, and to nobody's command line.
 * @param revisionOf commit that an image says it was built from; undefined where it says none
 */
export function commandsOf(
  target: Target,
  run: Run,
  cancelled: () => boolean,
  history: History = () => Promise.resolve('unknown'),
  revisionOf: (ref: string) => Promise<string | undefined> = () => Promise.resolve(undefined),
): Commands & { drift(): Promise<boolean>; preview(): Promise<{ readonly done: boolean; readonly words: string }> } {
  const { directory, stack, ref, settings } = target;
  const options: RunOptions = { cwd: directory, show: true };
  const make = async (verb: string, ...more: readonly string[]) =>
    (await run('make', [verb, `STACK=${stack}`, ...more], options)).code === 0;
  const setAll = async (all: readonly string[]) => {
    for (const setting of all) {
      const end = setting.indexOf('=');
      const pair = [setting.slice(0, end), setting.slice(end + 1)];
      await output(run, 'pulumi', ['config', 'set', '--stack', stack, ...pair], { cwd: directory });
    }
  };
  const project = () => projectOf(directory);
  const told = ['stack', 'output', '--json', '--stack', stack];
  const current = async (): Promise<Current | undefined> => {
    const { code, stdout } = await run('pulumi', told, { cwd: directory });
    return code === 0 ? currentIn(stdout) : undefined;
  };
  // Of the setting, where the caller names it: then no registry is asked.
  const named = settings.map((setting) => /^[^=]+:commit=([0-9a-f]{40})$/.exec(setting)?.[1]).find(Boolean);
  // What must have the traffic, after an `up` that went well and until something is taken back.
  let wanted: string | undefined;
  return {
    current,
    cancelled,
    async overtakenBy(running) {
      if (ref === undefined) return false;
      const [base, head] = [running.commit ?? (await revisionOf(running.image)), named ?? (await revisionOf(ref))];
      const order = base === undefined || head === undefined ? 'unknown' : await history(base, head);
      if (order === 'unknown') {
        const of = (commit: string | undefined) => commit ?? 'a commit that it does not say';
        console.log(`Nobody can say which is newer: what runs is of ${of(base)}, this of ${of(head)}. It is deployed.`);
      }
      return isOvertaken(order);
    },
    async up() {
      await setAll([...(ref === undefined ? [] : [`${project()}:image=${ref}`]), ...settings]);
      const done = await make('up');
      if (done) wanted = ref?.split('@')[1];
      return done;
    },
    async smoke() {
      const found = wanted === undefined ? undefined : digestIn((await current())?.image);
      if (found !== wanted) console.error(`The program says that it deployed ${found ?? ''}, not ${wanted ?? ''}`);
      return found === wanted && make('smoke');
    },
    rollback({ release }) {
      wanted = undefined;
      return make('rollback', `TO=${release}`);
    },
    drift: () => make('drift'),
    async preview() {
      // A state that cannot be read, or has no such stack, would look like one where all is new.
      const { code: unread, stdout: outputs, stderr: why } = await run('pulumi', told, { cwd: directory });
      if (unread !== 0) {
        throw new PipelineError(
          `${stack} cannot be previewed: its state cannot be read, or has no such stack. Check PULUMI_BACKEND_URL and its keys; ` +
            `before the first deploy, pulumi stack init ${stack} makes it:\n${why.trim()}`,
        );
      }
      const running = currentIn(outputs);
      // No image is made for a preview: with the one that runs it says what the program and its settings change.
      const same = [
        ...(running?.image.includes('@') ? [`${project()}:image=${inFull(running.image)}`] : []),
        ...(running?.commit === undefined ? [] : [`${project()}:commit=${running.commit}`]),
      ];
      await setAll([...same, ...settings]);
      const { code, stdout, stderr } = await run('make', ['preview', `STACK=${stack}`, '--silent'], { cwd: directory });
      return { done: code === 0, words: (code === 0 ? stdout : `${stdout}${stderr}`).trim() };
    },
  };
}

/** Docker leaves out the host of its own registry; the setting has it, and another name would be another image. */
function inFull(image: string): string {
  const [host = ''] = image.split('/');
  return /[.:]|^localhost$/.test(host) && image.includes('/') ? image : `docker.io/${image}`;
}

/** @param outputs of the stack, as JSON */
function currentIn(outputs: string): Current | undefined {
  const { image, release } = JSON.parse(outputs) as { image?: unknown; release?: Record<string, unknown> };
  if (typeof image !== 'string') return undefined;
  const [id, commit] = ['id', 'commit'].map((name) => release?.[name]);
  return {
    image,
    release: typeof id === 'string' ? id : image,
    commit: typeof commit === 'string' && COMMIT.test(commit) ? commit : undefined,
  };
}

function digestIn(image: string | undefined): string {
  const [, digest = ''] = image?.split('@') ?? [];
  return DIGEST.test(digest) ? digest : `"${image ?? 'nothing'}"`;
}

function projectOf(directory: string): string {
  const { name } = parse(readFileSync(join(directory, 'Pulumi.yaml'), 'utf8')) as { name?: string };
  if (name === undefined) throw new PipelineError(`${directory}/Pulumi.yaml names no project`);
  return name;
}

export interface Pull {
  readonly ref: string;
  readonly user: string;
  readonly token: string;
  /** Undefined for the one that the docker command asks by itself. */
  readonly engine: string | undefined;
}

/** With a login of these two commands alone: what the repository starts next cannot read it. */
async function pull({ ref, user, token, engine }: Pull, run: Run): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'login-'));
  const env = { DOCKER_CONFIG: directory, ...(engine !== undefined && { DOCKER_HOST: engine }) };
  try {
    const login = ['login', '--username', user, '--password-stdin', ref.split('/')[0] ?? ''];
    await output(run, 'docker', login, { input: token, env });
    await output(run, 'docker', ['pull', '--quiet', ref], { env });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Lets this process, and what it starts, speak to the engine and to the registry; for the time of `work` only.
 * @param credentials of the registry that the engine pulls from, and the image that it pulls: a program finds it on its
 * engine then, and needs no login of its own. They are gone before `work` begins
 */
export async function withAccess<T>(
  env: Surroundings['env'],
  credentials: Pull | undefined,
  run: Run,
  work: () => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'deploy-'));
  let agent: string | undefined;
  try {
    const key = env['DOCKER_HOST_KEY'];
    if (key) {
      const said = await output(run, 'ssh-agent', ['-s']);
      const value = (name: string) => new RegExp(`${name}=([^;]+);`).exec(said)?.[1];
      agent = value('SSH_AGENT_PID');
      process.env['SSH_AUTH_SOCK'] = value('SSH_AUTH_SOCK');
      await output(run, 'ssh-add', ['-q', '-'], { input: `${key.trim()}\n` });
    }
    const hosts = env['DOCKER_HOST_KNOWN_HOSTS'];
    if (hosts) trust(hosts, directory);
    if (credentials !== undefined) await pull(credentials, run);
    return await work();
  } finally {
    if (agent !== undefined) process.kill(Number(agent));
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * The docker command and Pulumi's provider both start `ssh`, and neither takes options for it: so one of that name comes first on
 * the PATH, which trusts these hosts and no other, and sends all of Docker's requests, hundreds in a deploy, through one connection.
 * Nothing is left in anybody's home.
 */
function trust(hosts: string, directory: string): void {
  const [known, bin] = [join(directory, 'known_hosts'), join(directory, 'bin')];
  const path = process.env['PATH'] ?? '';
  writeFileSync(known, `${hosts.trim()}\n`);
  mkdirSync(bin);
  const settings = {
    BatchMode: 'yes',
    StrictHostKeyChecking: 'yes',
    UserKnownHostsFile: known,
    GlobalKnownHostsFile: known,
    ControlMaster: 'auto',
    ControlPath: join(directory, '%C'),
    // After the last request; then it ends by itself.
    ControlPersist: '20',
  };
  const options = Object.entries(settings).map(([name, value]) => `-o ${name}=${value}`);
  const script = `#!/bin/sh\nPATH='${path.replaceAll("'", "'\\''")}' exec ssh ${options.join(' ')} "$@"\n`;
  writeFileSync(join(bin, 'ssh'), script, { mode: 0o700 });
  process.env['PATH'] = `${bin}:${path}`;
}

/** Of the stores that Pulumi keeps its state in. */
const STORE = /^(AWS|AZURE|ARM|GOOGLE)_[A-Z0-9_]+$/;

/**
 * Keys of the store that has the state, as one secret: a workflow cannot be given secrets that it has no name for.
 * @param text `NAME=value`, one a line
 * @throws PipelineError for a line that is no such key, without showing it
 */
export function storeKeysOf(text: string): Readonly<Record<string, string>> {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const pairs = lines.map((line, index) => {
    const [, name = '', value = ''] = /^\s*(\w+)=(.+?)\s*$/.exec(line) ?? [];
    if (STORE.test(name)) return [name, value] as const;
    throw new PipelineError(
      `PULUMI_BACKEND_KEYS, line ${index + 1}: must be NAME=value with a name of AWS_, AZURE_, ARM_ or GOOGLE_`,
    );
  });
  return Object.fromEntries(pairs);
}

/** A certificate that is no file of the repository, put where the program looks for it. */
export function placeCertificate(directory: string, path: string, env: Surroundings['env']): void {
  const { TLS_CERTIFICATE: certificate, TLS_KEY: key } = env;
  if (!certificate || !key) return;
  writeFileSync(join(directory, `${path}.pem`), `${certificate.trim()}\n`, { mode: 0o600 });
  writeFileSync(join(directory, `${path}.key`), `${key.trim()}\n`, { mode: 0o600 });
}
