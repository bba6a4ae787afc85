import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest, type Agent } from 'node:https';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import { MAINTENANCE_FLAG, renderOperators } from '../../infra/ops/maintenance';
import {
  type GatewayOptions,
  htpasswd,
  renderGateway,
  renderUpstream,
  type Server,
  WIND_DOWN,
} from '../../infra/ops/nginx';
import { image, run } from './binaries';

export const PASSWORD = 'correct-horse';
export const DOMAIN = 'branchloans.test';
export const METRICS_PORT = 9113;
export const OPERATOR_TOKEN = 'the-Operators-token_of-a-test';

export interface Answer {
  readonly status: number;
  /** Lower-case name -> every value in its order; twice on the wire is twice here. */
  readonly headers: Readonly<Record<string, readonly string[]>>;
  readonly body: string;
}

type Listener = 'https' | 'http' | 'api';

interface RequestOptions {
  readonly listener?: Listener;
  readonly method?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly agent?: Agent;
}

interface RawScript {
  readonly clear?: boolean;
  readonly untilSeen?: RegExp;
  readonly milliseconds?: number;
  readonly later?: string;
  readonly halfClose?: boolean;
}

/** The gateway in a container of its real image on a network of its own, and what stands behind it. */
export class Stage {
  readonly #directory = mkdtempSync(join(tmpdir(), 'gateway-'));
  readonly #id = `gateway-test-${randomBytes(4).toString('hex')}`;
  readonly #containers = new Set<string>();
  #ports: Readonly<Record<Listener, number>> | undefined;

  constructor(
    certificate: { readonly certificate: string; readonly key: string },
    /** A change counts from the next start or reload on. */
    public options: Partial<GatewayOptions> = {},
  ) {
    chmodSync(this.#directory, 0o755);
    this.#write('tls.pem', certificate.certificate);
    this.#write('tls.key', certificate.key);
    this.#write('htpasswd', `${htpasswd('admin', PASSWORD)}\n`);
    this.#write('operators.conf', renderOperators(OPERATOR_TOKEN));
    copyFileSync(join(__dirname, '../../infra/exporters/gateway.js'), join(this.#directory, 'gateway.js'));
    docker(['network', 'create', this.#id]);
  }

  /** Starts something that answers to these names on the network. */
  startUpstream(name: string, aliases: readonly string[]): void {
    const container = `${this.#id}-${name}`;
    this.#containers.add(container);
    docker([
      ...['run', '--detach', '--name', container, '--network', this.#id, '--env', `NAME=${name}`],
      ...aliases.flatMap((alias) => ['--network-alias', alias]),
      ...['--volume', `${join(__dirname, 'upstream.mjs')}:/srv/upstream.mjs:ro`, '--entrypoint', 'node'],
      ...[image('node'), '/srv/upstream.mjs'],
    ]);
  }

  /** Starts something that leads from port 8000 of this name on the network to a Unix socket of this machine. */
  startForwarder(name: string, socket: string): void {
    const container = `${this.#id}-${name}`;
    this.#containers.add(container);
    const program = `const net = require('node:net');
      net.createServer((client) => {
        const service = net.connect('/srv/forward/${basename(socket)}');
        client.pipe(service).pipe(client);
        for (const socket of [client, service]) socket.on('error', () => (client.destroy(), service.destroy()));
      }).listen(8000);`;
    docker([
      ...['run', '--detach', '--name', container, '--network', this.#id, '--network-alias', name],
      ...['--volume', `${dirname(socket)}:/srv/forward`, '--entrypoint', 'node', image('node'), '-e', program],
    ]);
  }

  stopUpstream(name: string): void {
    docker(['rm', '--force', `${this.#id}-${name}`]);
    this.#containers.delete(`${this.#id}-${name}`);
  }

  killUpstream(name: string): void {
    docker(['kill', `${this.#id}-${name}`]);
  }

  reviveUpstream(name: string): void {
    docker(['start', `${this.#id}-${name}`]);
  }

  /** Starts the gateway as the stack does: user 101, read-only, no capability, only /tmp to write to. */
  async startGateway(servers: readonly (string | Server)[]): Promise<void> {
    this.#writeConfiguration(servers);
    const container = `${this.#id}-nginx`;
    this.#containers.add(container);
    docker([
      ...['run', '--detach', '--name', container, '--network', this.#id, '--user', '101:101', '--read-only'],
      ...['--cap-drop', 'ALL', '--security-opt', 'no-new-privileges:true', '--tmpfs', '/tmp'],
      ...['--volume', `${this.#directory}:/srv/gateway:ro`],
      ...['8443', '8080', '8000'].flatMap((port) => ['--publish', `127.0.0.1::${port}`]),
      ...['--entrypoint', 'nginx', image('nginx'), '-c', '/srv/gateway/nginx.conf', '-g', 'daemon off;'],
    ]);
    await this.#untilReady();
  }

  async restartGateway(): Promise<void> {
    docker(['restart', `${this.#id}-nginx`]);
    await this.#untilReady();
  }

  /** Gives the gateway another list of servers and waits until only new workers take connections. */
  async reload(servers: readonly (string | Server)[]): Promise<void> {
    const container = `${this.#id}-nginx`;
    const workers = () =>
      docker(['top', container, '-o', 'pid,args'])
        .split('\n')
        .filter((line) => line.includes('worker process') && !line.includes('shutting down'));
    const before = workers();
    this.#writeConfiguration(servers);
    docker(['kill', '--signal', 'HUP', container]);
    for (let attempt = 0; attempt < 200; attempt += 1) {
      await sleep(50);
      const now = workers();
      if (now.length > 0 && now.every((worker) => !before.includes(worker))) return;
    }
    throw new Error(`the gateway did not take over its new configuration:\n${this.#lastLines()}`);
  }

  /** As `make maintenance` does, beside the files that the gateway has loaded. */
  setMaintenance(on: boolean): void {
    if (on) this.#write(MAINTENANCE_FLAG, '');
    else rmSync(join(this.#directory, MAINTENANCE_FLAG), { force: true });
  }

  async windDown(): Promise<void> {
    await promisify(execFile)('docker', ['exec', `${this.#id}-nginx`, 'sh', '-c', WIND_DOWN]);
  }

  /** Processes of the gateway that only finish what they have. */
  finishing(): string[] {
    return docker(['top', `${this.#id}-nginx`, '-o', 'pid,args'])
      .split('\n')
      .filter((line) => line.includes('shutting down'));
  }

  port(listener: Listener): number {
    if (this.#ports === undefined) throw new Error('the gateway was not started');
    return this.#ports[listener];
  }

  /** Everything that the gateway printed. */
  logs(): string {
    return run('docker', ['logs', `${this.#id}-nginx`]).output;
  }

  /** The access log's entries for a request id; waits until there are as many. */
  async logged(requestId: string, count = 1): Promise<Record<string, string>[]> {
    for (let attempt = 0; attempt < 50; attempt += 1) {
      const lines = this.logs().split('\n');
      const own = lines.filter((line) => line.startsWith('{') && line.includes(`"request_id":"${requestId}"`));
      if (own.length >= count) return own.map((line) => JSON.parse(line) as Record<string, string>);
      await sleep(50);
    }
    return [];
  }

  /** What it tells Prometheus at a path: `name{labels}` -> value. */
  metrics(path: string): Record<string, number> {
    const { output } = this.exec(['curl', '--silent', '--fail', `http://127.0.0.1:${METRICS_PORT}${path}`]);
    const samples = output.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    return Object.fromEntries(samples.map((line) => [line.replace(/ \S+$/, ''), Number(line.replace(/^.* /, ''))]));
  }

  isRunning(): boolean {
    return docker(['inspect', '--format', '{{.State.Running}}', `${this.#id}-nginx`]).trim() === 'true';
  }

  exec(command: readonly string[]): { status: number | null; output: string } {
    return run('docker', ['exec', `${this.#id}-nginx`, ...command]);
  }

  async untilAnswered(): Promise<void> {
    for (let attempt = 0; attempt < 200; attempt += 1) {
      if ((await this.request('/api/loans')).status === 200) return;
      await sleep(100);
    }
    throw new Error(`nothing behind the gateway answers:\n${this.#lastLines()}`);
  }

  request(path: string, { listener = 'https', host = DOMAIN, ...options }: RequestOptions = {}): Promise<Answer> {
    const send = listener === 'https' ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const request = send(
        {
          host: '127.0.0.1',
          port: this.port(listener),
          path,
          method: options.method ?? 'GET',
          headers: { Host: host, ...options.headers },
          rejectUnauthorized: false,
          agent: options.agent ?? false,
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const headers: Record<string, string[]> = {};
            for (let index = 0; index < response.rawHeaders.length; index += 2) {
              const name = (response.rawHeaders[index] ?? '').toLowerCase();
              (headers[name] ??= []).push(response.rawHeaders[index + 1] ?? '');
            }
            resolve({ status: response.statusCode ?? 0, headers, body: Buffer.concat(chunks).toString() });
          });
        },
      );
      request.on('error', reject);
      request.end(options.body);
    });
  }

  /**
   * Sends bytes that no HTTP library would to the https port, and reads until the gateway closes or `untilSeen` came.
   * @param script `later`: bytes that follow after a moment; `halfClose`: the client's side is closed after the last byte
   */
  raw(
    text: string,
    { clear = false, untilSeen = /$^/, milliseconds = 3_000, later = '', halfClose = false }: RawScript = {},
  ): Promise<string> {
    const at = { host: '127.0.0.1', port: this.port('https'), allowHalfOpen: halfClose };
    return new Promise((resolve) => {
      const begin = async () => {
        socket.write(text);
        if (later !== '') {
          await sleep(100);
          socket.write(later);
        }
        if (halfClose) socket.end();
      };
      const socket: Socket = clear
        ? connectTcp(at, () => void begin())
        : connectTls({ ...at, rejectUnauthorized: false }, () => void begin());
      let received = '';
      const finish = () => {
        clearTimeout(timer);
        socket.destroy();
        resolve(received);
      };
      const timer = setTimeout(finish, milliseconds);
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString('latin1');
        if (untilSeen.test(received)) finish();
      });
      for (const event of ['end', 'close', 'error']) socket.on(event, finish);
    });
  }

  close(): void {
    for (const container of this.#containers) run('docker', ['rm', '--force', '--volumes', container]);
    run('docker', ['network', 'rm', this.#id]);
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #writeConfiguration(servers: readonly (string | Server)[]): void {
    this.#write('upstream.conf', renderUpstream(servers));
    this.#write('nginx.conf', renderGateway(gatewayOptions('/srv/gateway', this.options)));
  }

  #lastLines(): string {
    return this.logs().split('\n').slice(-8).join('\n');
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.#directory, name), text, { mode: 0o644 });
  }

  async #untilReady(): Promise<void> {
    const port = (inside: number) =>
      Number(
        docker(['port', `${this.#id}-nginx`, String(inside)])
          .trim()
          .split(':')
          .pop(),
      );
    this.#ports = { https: port(8443), http: port(8080), api: port(8000) };
    for (let attempt = 0; attempt < 200; attempt += 1) {
      const answer = await this.request('/docs', { listener: 'http' }).catch(() => undefined);
      if (answer?.status === 308) return;
      await sleep(100);
    }
    throw new Error(`the gateway does not answer:\n${this.#lastLines()}`);
  }
}

export function gatewayOptions(directory: string, overrides: Partial<GatewayOptions> = {}): GatewayOptions {
  return {
    domain: DOMAIN,
    listen: { https: 8443, http: 8080, api: 8000 },
    publicHttpsPort: 8443,
    files: {
      certificate: `${directory}/tls.pem`,
      key: `${directory}/tls.key`,
      htpasswd: `${directory}/htpasswd`,
      upstream: `${directory}/upstream.conf`,
      maintenance: `${directory}/${MAINTENANCE_FLAG}`,
      operators: `${directory}/operators.conf`,
    },
    workerShutdownTimeoutSeconds: 15,
    metrics: { port: METRICS_PORT, script: `${directory}/gateway.js` },
    ...overrides,
  };
}

function docker(args: readonly string[]): string {
  const { status, output } = run('docker', args);
  if (status !== 0) throw new Error(`docker ${args.join(' ')}\n${output}`);
  return output;
}
