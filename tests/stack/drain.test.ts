import { spawn } from 'node:child_process';
import { Agent, request } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';
import { describeUnless } from '../skip';
import { docker, reasonWithoutEngine, reasonWithoutPulumi, TestEnvironment } from './environment';

/** What is under way when a deploy takes its server away: long downloads, and connections that are kept. */

const reason = reasonWithoutEngine() ?? reasonWithoutPulumi();

jest.setTimeout(300_000);

/** Some 100 MB as NDJSON: far more than all buffers between the API and the client can take. */
const LOANS = 200_000;
/** So that it takes minutes, unless it is hurried; and enough for the gateway, which gives up after 10 s without a byte. */
const SLOW_BYTES_PER_SECOND = 512 * 1024;

describeUnless(reason, 'a deploy that replaces what somebody is using', () => {
  let environment: TestEnvironment;
  let busy: ReturnType<typeof keepAsking>[] = [];

  beforeAll(async () => {
    environment = await TestEnvironment.create('development', (settings) => {
      const api = settings['branchloans:api'] as object;
      settings['branchloans:api'] = { ...api, drain: '2s', shutdown: '3m' };
    });
    await up();
    sql(`INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at, version)
      SELECT gen_random_uuid(), 'usr_' || n || repeat('x', 240), 100, 'KES', 'pending', at, at, 1
      FROM generate_series(1, ${LOANS}) AS n, LATERAL (SELECT now() - n * interval '1 second' AS at) AS moment`);
  });
  afterAll(async () => {
    await Promise.all(busy.map((client) => client.stop()));
    await environment.remove();
  });

  async function up(): Promise<void> {
    const { code, output } = await environment.up();
    if (code !== 0) throw new Error(output);
  }

  function sql(text: string): string {
    const psql = ['psql', '--no-psqlrc', '--quiet', '--tuples-only', '--no-align', '--dbname', 'branchloans_dev'];
    return docker(['exec', `${environment.prefix}-database`, ...psql, '--command', text]).trim();
  }

  it('lets long downloads and kept connections go on', async () => {
    const gateway = environment.containers()[`${environment.prefix}-gateway`]!.Id;
    const [old = ''] = docker(['ps', '--quiet', '--filter', `name=${environment.prefix}-api-`]).split('\n');
    const log = followLog(old);
    const pace = { slow: true };
    const download = startDownload(environment, pace);
    busy = Array.from({ length: 12 }, () => keepAsking(environment));
    const idle = await Promise.all(Array.from({ length: 12 }, () => Connection.open(environment)));
    await Promise.all(idle.map((connection) => connection.ask('GET')));
    await sleep(6_000);

    environment.configure((settings) => {
      settings['branchloans:api'] = { ...(settings['branchloans:api'] as object), maxAmount: '60000' };
    });
    const deployed = up();
    // It has a request under way when it is told to go, and has it still when it serves nothing else any more.
    const told = await Promise.race([log.line('shutting down'), deployed.then(() => ({ in_flight: 0 }))]);
    expect(told.in_flight).toBeGreaterThanOrEqual(1);
    await sleep(10_000);
    expect(log.has('stopped')).toBe(false);
    pace.slow = false;

    const { lines, ...end } = await download;
    expect(end).toEqual({ complete: true });
    await deployed;
    expect(await log.line('stopped')).toMatchObject({ cut_off: 0 });
    expect(lines).toHaveLength(Number(sql('SELECT count(*) FROM loans')));
    expect(new Set(lines.map((line) => (JSON.parse(line) as { id: string }).id)).size).toBe(lines.length);
    expect(docker(['ps', '--all', '--quiet', '--filter', `id=${old}`])).toBe('');
    expect(environment.containers()[`${environment.prefix}-gateway`]!.Id).toBe(gateway);

    const asked = await Promise.all(busy.map((client) => client.stop()));
    expect(asked.flatMap(({ failures }) => failures)).toEqual([]);
    expect(asked.reduce((sum, { answered }) => sum + answered, 0)).toBeGreaterThan(50);
    // Those that had nothing to say were closed, in peace, or are still good.
    for (const connection of idle) {
      if (connection.ended) expect(connection.fault).toBeUndefined();
      else expect(await connection.ask('GET')).toMatchObject({ status: 200 });
      connection.close();
    }
    console.info(`${lines.length} loans in one download, and ${asked.length} connections, across a deploy`);
  });
});

/** What a container writes, until it is gone. */
function followLog(container: string) {
  const lines: Record<string, unknown>[] = [];
  const child = spawn('docker', ['logs', '--follow', container]);
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    const all = (rest + chunk).split('\n');
    rest = all.pop() ?? '';
    for (const line of all) lines.push(JSON.parse(line) as Record<string, unknown>);
  });
  const find = (message: string) => lines.find((line) => line.message === message);
  return {
    has: (message: string) => find(message) !== undefined,
    async line(message: string): Promise<Record<string, unknown>> {
      const deadline = Date.now() + 150_000;
      for (;;) {
        const line = find(message);
        if (line !== undefined) return line;
        if (Date.now() > deadline) throw new Error(`The container never said "${message}"`);
        await sleep(50);
      }
    },
  };
}

/** An export that is taken no faster than the pace says; it never stands still for so long that it would be cut off. */
function startDownload(
  environment: TestEnvironment,
  pace: { readonly slow: boolean },
): Promise<{ lines: string[]; complete: boolean; fault?: Error }> {
  return new Promise((done) => {
    const url = `${environment.url}/api/v1/loans/export?format=ndjson`;
    const outgoing = request(url, { agent: new Agent({ ca: environment.authority }) }, (incoming) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        if (!pace.slow) return;
        incoming.pause();
        setTimeout(() => incoming.resume(), (chunk.length / SLOW_BYTES_PER_SECOND) * 1_000);
      });
      const finish = (fault?: Error) => {
        const lines = Buffer.concat(chunks).toString().split('\n').slice(0, -1);
        done({ lines, complete: incoming.complete, fault });
      };
      incoming.on('error', finish);
      incoming.on('end', () => finish());
    });
    outgoing.on('error', (fault) => done({ lines: [], complete: false, fault }));
    outgoing.end();
  });
}

/** One HTTP/1.1 connection over TLS that is kept, with its bare events. */
class Connection {
  /** The other side said that it is done. */
  ended = false;
  fault: Error | undefined;
  private received = '';
  private heard: () => void = () => undefined;

  private constructor(private readonly socket: TLSSocket) {
    socket.setEncoding('latin1').on('data', (text: string) => {
      this.received += text;
      this.heard();
    });
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.ended = true;
        this.heard();
      });
    }
    socket.on('error', (error) => {
      this.fault = error;
      this.heard();
    });
  }

  static open({ ports, authority }: TestEnvironment): Promise<Connection> {
    return new Promise((done, fail) => {
      const socket = connect({
        host: '127.0.0.1',
        port: ports.https,
        servername: 'localhost',
        ca: authority,
        ALPNProtocols: ['http/1.1'],
      });
      socket.once('error', fail);
      socket.once('secureConnect', () => {
        socket.off('error', fail);
        done(new Connection(socket));
      });
    });
  }

  /** @throws Error when the connection ends before the whole answer is there */
  async ask(method: 'GET' | 'POST'): Promise<{ status: number; close: boolean }> {
    this.received = '';
    const body = JSON.stringify({ borrower_id: 'usr_kept', amount: '100', currency: 'KES' });
    this.socket.write(
      method === 'GET'
        ? 'GET /api/v1/loans?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n'
        : `POST /api/v1/loans/dry-run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    for (;;) {
      const answer = /^HTTP\/1\.1 (\d{3}) [^]*?\r\n\r\n/.exec(this.received);
      const length = /^content-length: (\d+)\r$/im.exec(answer?.[0] ?? '')?.[1];
      if (answer !== null && length !== undefined && this.received.length >= answer[0].length + Number(length)) {
        return { status: Number(answer[1]), close: /^connection: close\r$/im.test(answer[0]) };
      }
      if (this.fault !== undefined) throw this.fault;
      if (this.ended) throw new Error(`${method}: closed after ${this.received.length} bytes of the answer`);
      await new Promise<void>((resolve) => (this.heard = resolve));
    }
  }

  close(): void {
    this.socket.destroy();
  }
}

/**
 * Asks again and again over one connection, after pauses shorter than the 5 s for which the gateway keeps one that it
 * wants to be rid of, and takes another connection where it is told to.
 */
function keepAsking(environment: TestEnvironment) {
  const failures: string[] = [];
  let answered = 0;
  let running = true;
  const work = (async () => {
    let connection: Connection | undefined;
    const asked = () => running; // Changed by stop() in between.
    for (let turn = 0; asked(); turn++) {
      const method = turn % 2 === 0 ? 'GET' : 'POST';
      try {
        if (connection?.ended === true) connection = undefined;
        connection ??= await Connection.open(environment);
        const { status, close } = await connection.ask(method);
        answered++;
        if (status !== (method === 'GET' ? 200 : 201)) failures.push(`${method}: ${status}`);
        if (close) connection = undefined;
      } catch (error) {
        failures.push(`${new Date().toISOString()} ${method}: ${String(error)}`);
        connection = undefined;
      }
      await sleep(200 + Math.random() * 3_800);
    }
    connection?.close();
  })();
  return {
    async stop() {
      running = false;
      await work;
      return { answered, failures };
    },
  };
}
