import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parse, stringify } from 'yaml';
import images from '../../infra/images.json';

/** A real environment of its own: a copy of the program with its own state, names, ports and volumes. */

const ROOT = resolve(__dirname, '../..');
export const PROGRAM = [
  'infra',
  'app',
  'ssl',
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  '.dockerignore',
  'Pulumi.yaml',
];

type Settings = Record<string, unknown>;

const runs = (command: string, args: string[]) => spawnSync(command, args, { encoding: 'utf8', timeout: 30_000 });

/** Why no container can run here; undefined where it can. */
export function reasonWithoutEngine(): string | undefined {
  if (runs('docker', ['info']).status !== 0) return 'no Docker engine answers';
  const missing = Object.entries(images)
    // What it is for, only the tests of `make chaos` use, and they say so themselves.
    .filter(([name]) => name !== 'netshoot')
    .map(([, image]) => image)
    .filter((image) => runs('docker', ['image', 'inspect', image]).status !== 0);
  return missing.length > 0
    ? `the engine lacks ${missing.join(', ')} (make images-offline makes stand-ins)`
    : undefined;
}

/** Why no real stack can, or shall, run here; undefined where one does. */
export function reasonWithoutPulumi(): string | undefined {
  if (process.env['QUICK'])
    return 'QUICK is set, and real stacks take more than an hour: stacks.yml runs them every night';
  if (runs('pulumi', ['version']).status !== 0) return 'the pulumi command is not on the PATH';
  for (const plugin of ['docker', 'command']) {
    const onPath = runs(`pulumi-resource-${plugin}`, ['--version']).error === undefined;
    const listed = runs('pulumi', ['plugin', 'ls', '--json']).stdout.includes(`"${plugin}"`);
    if (!onPath && !listed) return `the Pulumi plugin "${plugin}" is not installed`;
  }
  return undefined;
}

export interface Run {
  readonly code: number;
  readonly output: string;
}

export interface Running {
  readonly ended: Promise<Run>;
  /** What it has printed so far. */
  output(): string;
  /** Resolves when it prints such a text, or ends: whether it did. */
  said(text: RegExp): Promise<boolean>;
  /** SIGTERM; resolves when it has ended. */
  stop(): Promise<Run>;
  /** SIGKILL, to this process alone. */
  kill(): void;
  /** Ends what it has started and what has outlived it. */
  bury(): void;
}

export class TestEnvironment {
  private constructor(
    readonly stack: string,
    readonly directory: string,
    readonly ports: { readonly https: number; readonly http: number; readonly api: number },
  ) {}

  readonly prefix = `bl-test-${process.pid}-${Math.random().toString(36).slice(2, 6)}`;

  get url(): string {
    return `https://localhost:${this.ports.https}`;
  }

  get authority(): string {
    return readFileSync(join(this.directory, 'ssl/ca.pem'), 'utf8');
  }

  /**
   * @param change alters the settings that ship, after names, ports and volume were made free of collisions. Exporters,
   * which take time and which few tests need, are off: without `branchloans:exporters` they are on.
   * @param program another release's
   */
  static async create(
    stack: string,
    change: (settings: Settings) => void = () => undefined,
    program = ROOT,
  ): Promise<TestEnvironment> {
    const directory = mkdtempSync(join(tmpdir(), `branchloans-${stack}-`));
    copyProgram(program, directory);
    symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
    const ports = { https: await freePort(), http: await freePort(), api: await freePort() };
    const environment = new TestEnvironment(stack, directory, ports);
    const file = parse(readFileSync(join(program, `Pulumi.${stack}.yaml`), 'utf8')) as { config: Settings };
    environment.write(file.config, change);
    environment.pulumi(['stack', 'init', stack]);
    return environment;
  }

  private write(settings: Settings, change: (settings: Settings) => void): void {
    const { https, http, api } = this.ports;
    const gateway = settings['branchloans:gateway'] as Settings;
    const database = settings['branchloans:database'] as Settings;
    const relative = String(database['volume']).startsWith('./');
    settings['branchloans:prefix'] = this.prefix;
    settings['branchloans:gateway'] = {
      ...gateway,
      host: 'localhost',
      address: '127.0.0.1',
      ports: { https, http, ...(this.stack === 'development' ? { api } : {}) },
    };
    settings['branchloans:database'] = {
      ...database,
      volume: relative ? `./${this.volume}` : join(this.directory, 'postgres-data'),
    };
    settings['branchloans:exporters'] = { database: false, probes: false, host: false, containers: false };
    change(settings);
    writeFileSync(this.settingsFile, stringify({ config: settings }));
  }

  /** Puts this release's program in the place of the one that it was created with. Settings stay. */
  replaceProgram(): void {
    for (const entry of ['infra', 'app']) rmSync(join(this.directory, entry), { recursive: true });
    copyProgram(ROOT, this.directory);
  }

  get settingsFile(): string {
    return join(this.directory, `Pulumi.${this.stack}.yaml`);
  }

  get volume(): string {
    return `${this.prefix}-postgres`;
  }

  /** Changes the settings of the environment; nothing happens until the next `up`. */
  configure(change: (settings: Settings) => void): void {
    const file = parse(readFileSync(this.settingsFile, 'utf8')) as { config: Settings };
    change(file.config);
    writeFileSync(this.settingsFile, stringify(file));
  }

  get processEnvironment(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      PULUMI_CONFIG_PASSPHRASE: 'a passphrase of the tests',
      PULUMI_SKIP_UPDATE_CHECK: 'true',
      NODE_OPTIONS: '',
    };
  }

  /** Runs `pulumi` and waits, blocking; for short commands. */
  pulumi(args: string[], environment: NodeJS.ProcessEnv = {}): Run {
    const { status, stdout, stderr } = spawnSync('pulumi', [...args, '--non-interactive'], {
      cwd: this.directory,
      encoding: 'utf8',
      env: { ...this.processEnvironment, ...environment },
    });
    return { code: status ?? 1, output: stdout + stderr };
  }

  /** Runs `pulumi` in the background of whatever else the test does. */
  run(args: string[], environment: NodeJS.ProcessEnv = {}): Promise<Run> {
    return this.start(args, environment).ended;
  }

  /** The same, for a test that watches or kills it. */
  start(args: string[], environment: NodeJS.ProcessEnv = {}): Running {
    return this.launch('pulumi', [...args, '-s', this.stack, '--non-interactive'], environment);
  }

  private launch(command: string, args: string[], environment: NodeJS.ProcessEnv): Running {
    const child = spawn(command, args, {
      cwd: this.directory,
      env: { ...this.processEnvironment, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A session of its own: by it are found the providers that outlive a `pulumi` that was killed.
      detached: true,
    });
    let output = '';
    const watchers: (() => void)[] = [];
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        output += chunk.toString();
        for (const look of watchers) look();
      });
    const ended = new Promise<Run>((done, fail) => {
      child.on('error', fail);
      child.on('exit', (code) => {
        const end = () => done({ code: code ?? 1, output });
        child.on('close', end);
        // What a killed one has started may keep its output open.
        setTimeout(end, 1_000);
      });
    });
    return {
      ended,
      output: () => output,
      stop: () => (child.kill(), ended),
      said: (text) =>
        new Promise((done) => {
          const look = () => text.test(output) && done(true);
          watchers.push(look);
          look();
          void ended.then(() => done(text.test(output)));
        }),
      kill: () => child.kill('SIGKILL'),
      bury() {
        const { stdout } = spawnSync('ps', ['-eo', 'pid=,sid='], { encoding: 'utf8' });
        for (const [, pid, session] of stdout.matchAll(/^ *(\d+) +(\d+)$/gm)) {
          if (Number(session) === child.pid) runs('kill', ['-9', pid ?? '']);
        }
      },
    };
  }

  /** Reference of one of the images that the environment runs. */
  image(name: keyof typeof images): string {
    return images[name];
  }

  /** An operator's verb, as the Makefile calls it. */
  verb(name: string, args: readonly string[] = [], environment: NodeJS.ProcessEnv = {}): Promise<Run> {
    return this.startVerb(name, args, environment).ended;
  }

  /** The same, for one that runs until it is told to end. */
  startVerb(name: string, args: readonly string[] = [], environment: NodeJS.ProcessEnv = {}): Running {
    const command = ['--import', 'tsx', 'infra/main.ts', name, this.stack, ...args];
    return this.launch(process.execPath, command, environment);
  }

  up(): Promise<Run> {
    return this.run(['up', '--yes', '--skip-preview']);
  }

  refresh(): Promise<Run> {
    return this.run(['refresh', '--yes', '--skip-preview']);
  }

  /** Whatever the second `up` or a refresh would change; empty when all is as described. */
  async changes(): Promise<string> {
    const preview = await this.run(['preview', '--expect-no-changes', '--diff']);
    const refresh = await this.run(['refresh', '--preview-only', '--expect-no-changes', '--diff']);
    return [preview, refresh].map(({ code, output }) => (code === 0 ? '' : output)).join('');
  }

  output(name: string): string {
    return this.pulumi(['stack', 'output', name, '--show-secrets', '-s', this.stack]).output.trim();
  }

  state(): string {
    return this.pulumi(['stack', 'export', '-s', this.stack]).output;
  }

  /** Containers of this environment: name -> what `docker inspect` says. */
  containers(): Record<string, Inspected> {
    const names = docker(['ps', '--all', '--filter', `name=${this.prefix}-`, '--format', '{{.Names}}'])
      .split('\n')
      .filter(Boolean);
    if (names.length === 0) return {};
    const inspected = JSON.parse(docker(['inspect', ...names])) as Inspected[];
    return Object.fromEntries(inspected.map((container) => [container.Name.slice(1), container]));
  }

  /** Names of the API's containers, in order; those that are no longer wanted included. */
  apiContainers(): string[] {
    return Object.entries(this.containers())
      .filter(([, { Config }]) => Config.Labels['org.branchloans.component'] === 'api')
      .map(([name]) => name)
      .sort();
  }

  /** What the superuser's `psql` prints: a row a line, without headings. */
  sql(statement: string): string {
    const { config } = parse(readFileSync(this.settingsFile, 'utf8')) as { config: Settings };
    const { name } = config['branchloans:database'] as { name: string };
    const options = ['--no-psqlrc', '--tuples-only', '--no-align', '--dbname', name, '--command', statement];
    return docker(['exec', `${this.prefix}-database`, 'psql', ...options]);
  }

  private made: string | undefined;

  /** An API key that may read and write loans. */
  get key(): string {
    return (this.made ??= this.makeKey());
  }

  private makeKey(): string {
    const api = docker(['ps', '--quiet', '--filter', `name=${this.prefix}-api-`]).split('\n')[0] ?? '';
    const arguments_ = ['create', '--name', 'the tests', '--scopes', 'loans:read,loans:write'];
    return docker(['exec', api, 'node', '/app/main.js', 'api-key', ...arguments_]).trim();
  }

  /** Everything that carries this environment's name on the engine. */
  leftovers(): string[] {
    const kinds = [
      docker(['ps', '--all', '--filter', `name=${this.prefix}-`, '--format', 'container {{.Names}}']),
      docker(['network', 'ls', '--filter', `name=${this.prefix}-`, '--format', 'network {{.Name}}']),
      docker(['volume', 'ls', '--filter', `name=${this.prefix}-`, '--format', 'volume {{.Name}}']),
    ];
    return kinds.flatMap((text) => text.split('\n').filter(Boolean));
  }

  async destroy(): Promise<Run> {
    return this.run(['destroy', '--yes', '--skip-preview']);
  }

  /** Destroys what is there and removes database, files and the image that was built too. */
  async remove(): Promise<void> {
    await this.destroy();
    const names = Object.keys(this.containers());
    if (names.length > 0) docker(['rm', '--force', ...names]);
    spawnSync('docker', ['volume', 'rm', this.volume]);
    spawnSync('docker', ['rmi', `${this.prefix}-api:build`]);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function copyProgram(from: string, to: string): void {
  for (const entry of PROGRAM) {
    const filter = (source: string) => !/\.(pem|key)$/.test(source);
    cpSync(join(from, entry), join(to, entry), { recursive: true, filter });
  }
}

export interface Inspected {
  readonly Name: string;
  readonly Id: string;
  readonly Image: string;
  readonly State: { readonly Status: string; readonly Health?: { readonly Status: string } };
  readonly Config: {
    readonly User: string;
    readonly Env: string[];
    readonly Labels: Record<string, string>;
    readonly Healthcheck?: { Test: string[]; Interval: number; Timeout: number; Retries: number };
  };
  readonly HostConfig: {
    readonly GroupAdd: string[] | null;
    readonly Memory: number;
    readonly MemorySwap: number;
    readonly CpuQuota: number;
    readonly CpuPeriod: number;
    readonly ReadonlyRootfs: boolean;
    readonly Privileged: boolean;
    readonly CapAdd: string[] | null;
    readonly CapDrop: string[] | null;
    readonly SecurityOpt: string[] | null;
    readonly RestartPolicy: { Name: string };
    readonly LogConfig: { Type: string; Config: Record<string, string> };
    readonly NetworkMode: string;
    readonly PidMode: string;
    readonly IpcMode: string;
    readonly PortBindings: Record<string, { HostIp: string; HostPort: string }[]> | null;
  };
  readonly Mounts: { Type: string; Source: string; Destination: string; RW: boolean }[];
  readonly NetworkSettings: { readonly Networks: Record<string, unknown> };
}

export function docker(args: string[], input?: string): string {
  const { status, stdout, stderr } = spawnSync('docker', args, {
    encoding: 'utf8',
    input,
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(`docker ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Kills the first process of a container from outside, as the kernel does when memory runs out: to the engine a crash. */
export function crash(container: string): void {
  const pid = docker(['inspect', '--format', '{{.State.Pid}}', container]).trim();
  docker(['run', '--rm', '--pid', 'host', '--user', '0', '--entrypoint', 'sh', images.nginx, '-c', `kill -9 ${pid}`]);
}

export function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => done(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
