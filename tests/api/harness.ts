import { connect } from 'node:net';
import { request as httpRequest, type Agent, type IncomingHttpHeaders } from 'node:http';
import { PassThrough } from 'node:stream';
import type { Config } from '../../app/config';
import type { Scope } from '../../app/domain/api-key';
import { createApiKeys } from '../../app/db/api-keys';
import { openDatabase } from '../../app/db/pool';
import { createService, type Overrides, type Service } from '../../app/service';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { createDatabase, type TestDatabase } from '../postgres/database';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body as JSON. */
  json(): any; // eslint-disable-line @typescript-eslint/no-explicit-any -- what a test expects of it, it says itself
}

export interface TestService {
  readonly service: Service;
  readonly database: TestDatabase;
  readonly port: number;
  /** Lines of the log so far, each parsed. */
  logs(): Record<string, unknown>[];
  ask(method: string, path: string, options?: AskOptions): Promise<Answer>;
  post(body: unknown, headers?: Record<string, string>): Promise<Answer>;
  stop(): Promise<void>;
}

interface AskOptions {
  readonly headers?: Record<string, string | string[]>;
  readonly body?: string | Buffer;
  readonly agent?: Agent;
}

export const CONFIG: Config = {
  environment: 'test',
  version: '1.2.3',
  commit: 'abc',
  release: '',
  host: '127.0.0.1',
  port: 0,
  tls: undefined,
  database: {
    host: '127.0.0.1',
    port: 1,
    name: 'none',
    user: 'postgres',
    poolSize: 5,
    connectTimeoutMs: 1_000,
    queueMs: 500,
    statementTimeoutMs: 1_500,
    slowQueryMs: 200,
  },
  processes: 1,
  drainMs: 0,
  shutdownTimeoutMs: 2_000,
  logLevel: 'debug',
  maxAmount: '50000',
  retentionYears: 7,
  apiKeys: 'optional',
  corsOrigins: [],
  allowedHosts: [],
  rateLimit: undefined,
  clientAddress: 'connection',
  prometheusUrl: undefined,
  capacityRps: undefined,
  promises: {},
  tracing: undefined,
};

export const LOAN = {
  borrower_id: 'usr_kenya_001',
  amount: '12500.00',
  currency: 'KES',
  term_months: 6,
  interest_rate_apr: '28.00',
};

/** The service in this process, on a database of its own, behind a real port. */
export async function startService(
  changes: Partial<Config> = {},
  overrides: Partial<Overrides> = {},
): Promise<TestService> {
  const database = await createDatabase();
  const log = new PassThrough();
  let written = '';
  log.setEncoding('utf8').on('data', (chunk: string) => (written += chunk));
  const config = { ...CONFIG, database: database.connection, ...changes };
  const service = createService(config, database.secrets, { logDestination: log, ...overrides });
  await service.start();
  const [port = 0] = service.ports();
  return {
    service,
    database,
    port,
    logs: () =>
      written
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
    ask: (method, path, options) => ask(port, method, path, options),
    post: (body, headers = {}) =>
      ask(port, 'POST', '/api/v1/loans', {
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
      }),
    async stop() {
      await service.stop();
      await database.drop();
    },
  };
}

/** A new API key for the service of a test. */
export async function newKey({ database }: TestService, scopes: readonly Scope[]): Promise<string> {
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough()) };
  const connected = openDatabase(database.connection, database.secrets, telemetry);
  const order = { name: 'a test', scopes, expiresAt: null };
  const { text } = await createApiKeys(connected, CONFIG.environment).create(order, new Date());
  await connected.close();
  return text;
}

export function ask(port: number, method: string, path: string, options: AskOptions = {}): Promise<Answer> {
  const { headers = {}, body, agent } = options;
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: '127.0.0.1', port, method, path, headers, agent }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('error', reject);
      response.once('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          json: () => JSON.parse(text) as unknown,
        }),
      );
    });
    request.once('error', reject);
    request.end(body);
  });
}

/** Sends bytes as they are and resolves to all that came back until the connection closed, or to what came in a second. */
export function raw(port: number, bytes: string | Buffer, waitMs = 1_000): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    const socket = connect(port, '127.0.0.1', () => void socket.write(bytes));
    const finish = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(received);
    };
    const timer = setTimeout(finish, waitMs);
    socket.setEncoding('latin1').on('data', (chunk: string) => (received += chunk));
    socket.once('close', finish);
    socket.once('error', finish);
  });
}

/** The status codes of the answers in what came back over one connection. */
export function statuses(received: string): number[] {
  return [...received.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
}

/** Waits for a condition that comes true by itself. */
export async function until(condition: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Still not so after ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
