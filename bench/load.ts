import { connect, type Socket } from 'node:net';

/**
 * The load generator: HTTP/1.1 over plain sockets to 127.0.0.1, one request at a time on each connection. It takes its
 * CPU time from the machine that it measures, so it does no more than it must: no HTTP library, one write a request, and
 * of an answer it reads status, length and whether the connection stays.
 */
export type NextRequest = () => string;

export interface LoadResult {
  /** Answered with 2xx. */
  readonly requests: number;
  /** From the first request until the last answer. */
  readonly seconds: number;
  /** Of each answered request, unsorted. */
  readonly latenciesMs: readonly number[];
  /** What was not answered with 2xx, in words, and how often. */
  readonly failures: ReadonlyMap<string, number>;
}

/** How long a request may go unanswered. */
const TIMEOUT_MS = 60_000;

/** The text of a request. The headers end with a line break each. */
export function get(path: string, headers = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`;
}

/** @param body ASCII */
export function post(path: string, body: string, headers = ''): string {
  return `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n${headers}\r\n${body}`;
}

/** Closed loop: every connection sends its next request when it has its answer. Ends when all are answered. */
export async function saturate(
  port: number,
  next: NextRequest,
  {
    connections,
    ...end
  }: { readonly connections: number } & ({ readonly seconds: number } | { readonly total: number }),
): Promise<LoadResult> {
  const tally = new Tally();
  const startedAt = performance.now();
  let sent = 0;
  const goesOn = () => ('total' in end ? sent++ < end.total : performance.now() < startedAt + end.seconds * 1_000);
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const connection = new Connection(port, tally);
      while (goesOn()) await connection.ask(next(), performance.now());
      connection.close();
    }),
  );
  return tally.result(startedAt);
}

/**
 * Open model: requests come at a constant rate, whether or not earlier ones are answered; each waits for a free
 * connection if it must, and its latency counts from when it was due.
 * @param rate requests per second
 */
export async function keepRate(
  port: number,
  next: NextRequest,
  { rate, seconds, connections }: { readonly rate: number; readonly seconds: number; readonly connections: number },
): Promise<LoadResult> {
  const tally = new Tally();
  const startedAt = performance.now();
  let sent = 0;
  const total = Math.round(rate * seconds);
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const connection = new Connection(port, tally);
      while (sent < total) {
        const dueAt = startedAt + (sent++ / rate) * 1_000;
        const earlyMs = dueAt - performance.now();
        if (earlyMs > 0) await new Promise((resolve) => setTimeout(resolve, earlyMs));
        // A timer fires up to a millisecond late; that is not the server's.
        await connection.ask(next(), earlyMs > 0 ? performance.now() : dueAt);
      }
      connection.close();
    }),
  );
  return tally.result(startedAt);
}

/** One request with its answer's body, for looking at what a contender says. */
export async function askOnce(port: number, text: string): Promise<{ status: number; head: string; body: string }> {
  const tally = new Tally();
  const connection = new Connection(port, tally, true);
  await connection.ask(text, performance.now());
  connection.close();
  const whole = connection.whole;
  const end = whole.indexOf('\r\n\r\n');
  return { status: Number(whole.slice(9, 12)), head: whole.slice(0, end), body: whole.slice(end + 4) };
}

class Tally {
  readonly latenciesMs: number[] = [];
  readonly failures = new Map<string, number>();

  answered(sinceMs: number, status: string, problem: string): void {
    if (status.startsWith('2')) this.latenciesMs.push(performance.now() - sinceMs);
    else this.failed(`status ${status} ${problem}`);
  }

  failed(words: string): void {
    this.failures.set(words, (this.failures.get(words) ?? 0) + 1);
  }

  result(startedAt: number): LoadResult {
    const { latenciesMs, failures } = this;
    const seconds = (performance.now() - startedAt) / 1_000;
    return { requests: latenciesMs.length, seconds, latenciesMs, failures };
  }
}

/** Opened when it is needed, also again after the server has closed it. */
class Connection {
  private socket: Socket | undefined;
  private pending: Buffer | undefined;
  /** Bytes of the body still to come; undefined until the head is complete. */
  private missing: number | undefined;
  private status = '';
  private staysOpen = true;
  private sinceMs = 0;
  private done: (() => void) | undefined;
  /** Of the last answer, where it is kept. */
  whole = '';

  constructor(
    private readonly port: number,
    private readonly tally: Tally,
    private readonly keeps = false,
  ) {}

  /** Resolves when the request is answered, or has failed. */
  ask(text: string, sinceMs: number): Promise<void> {
    this.sinceMs = sinceMs;
    this.socket ??= this.open();
    this.socket.write(text, 'latin1');
    return new Promise((resolve) => (this.done = resolve));
  }

  close(): void {
    this.socket?.destroy();
    this.socket = undefined;
  }

  private open(): Socket {
    const socket = connect(this.port, '127.0.0.1').setNoDelay().setTimeout(TIMEOUT_MS);
    const lost = (words: string) => {
      if (this.socket !== socket) return;
      this.close();
      if (this.done !== undefined) {
        this.tally.failed(words);
        this.finish();
      }
    };
    socket.on('data', (chunk) => this.read(chunk));
    socket.on('timeout', () => lost(`no answer within ${TIMEOUT_MS / 1_000} s`));
    socket.on('error', (error) => lost(error.message));
    socket.on('close', () => lost('connection closed'));
    return socket;
  }

  private read(chunk: Buffer): void {
    if (this.keeps) this.whole += chunk.toString('utf8');
    if (this.missing === undefined) {
      const bytes = this.pending === undefined ? chunk : Buffer.concat([this.pending, chunk]);
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) {
        this.pending = bytes;
        return;
      }
      this.pending = undefined;
      const head = bytes.toString('latin1', 0, end);
      this.status = head.slice(9, 12);
      this.staysOpen = !/\r\nconnection: close/i.test(head);
      const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
      if (length === undefined) throw new Error(`An answer without Content-Length:\n${head}`);
      this.missing = Number(length) - (bytes.length - end - 4);
    } else {
      this.missing -= chunk.length;
    }
    if (this.missing > 0) return;
    const problem = this.status.startsWith('2') ? '' : (/"type":"([^"]+)"/.exec(chunk.toString('utf8'))?.[1] ?? '');
    this.tally.answered(this.sinceMs, this.status, problem);
    if (!this.staysOpen) this.close();
    this.finish();
  }

  private finish(): void {
    const { done } = this;
    this.done = undefined;
    this.missing = undefined;
    this.pending = undefined;
    done?.();
  }
}
