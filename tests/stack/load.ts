import { randomUUID } from 'node:crypto';
import { Agent, request } from 'node:https';

/**
 * A steady mixed load over TLS: every third request is a POST, the others read. Three quarters of the workers keep
 * their connection, the others make a new one for each request, so that a switch is seen from both sides.
 */
export interface LoadResult {
  readonly requests: number;
  /** What was not answered by a 2xx, in words. */
  readonly failures: readonly string[];
  /** Ids of the loans whose creation was acknowledged. */
  readonly created: readonly string[];
}

export interface Load {
  stop(): Promise<LoadResult>;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** For 20 workers; more of them pause longer, and make as many requests together. */
const PAUSE_MS = 40;

/**
 * @param key an API key that may read and write loans
 * @param connections how many requests are under way at any time, at most
 * @param keyed whether each POST has an Idempotency-Key of its own
 */
export function startLoad(url: string, authority: string, key: string, connections = 20, keyed = false): Load {
  const agent = new Agent({ keepAlive: true, maxSockets: connections, ca: authority });
  const failures: string[] = [];
  const created: string[] = [];
  let requests = 0;
  let running = true;

  const once = async (worker: number, turn: number): Promise<void> => {
    requests += 1;
    const write = (worker + turn) % 3 === 0;
    const name = write ? 'POST /api/v1/loans' : turn % 2 === 0 ? 'GET /api/v1/loans?limit=5' : 'GET /api/v1/stats';
    const [method = '', path = ''] = name.split(' ');
    const loan = { borrower_id: `load_${worker}_${turn}`, amount: '100.25', currency: 'KES' };
    try {
      const { status, body } = await send(
        worker % 4 === 0 ? new Agent({ ca: authority }) : agent,
        url + path,
        method,
        write ? loan : undefined,
        key,
        write && keyed ? randomUUID() : undefined,
      );
      if (status < 200 || status > 299)
        failures.push(`${new Date().toISOString()} ${name}: ${status} ${body.slice(0, 200)}`);
      else if (write) created.push((JSON.parse(body) as { id: string }).id);
    } catch (error) {
      failures.push(`${new Date().toISOString()} ${name}: ${String(error)}`);
    }
  };
  const workers = Array.from({ length: connections }, async (_, worker) => {
    for (let turn = 0; running; turn += 1) {
      await once(worker, turn);
      await new Promise((done) => setTimeout(done, PAUSE_MS * Math.max(1, connections / 20)));
    }
  });
  return {
    async stop() {
      running = false;
      await Promise.all(workers);
      agent.destroy();
      return { requests, failures, created };
    },
  };
}

function send(agent: Agent, url: string, method: string, body?: object, key?: string, once?: string): Promise<Answer> {
  const headers = {
    ...(once !== undefined && { 'idempotency-key': once }),
    ...(body && { 'content-type': 'application/json' }),
    ...(key !== undefined && { authorization: `Bearer ${key}` }),
  };
  return new Promise((done, fail) => {
    const outgoing = request(url, { agent, method, headers, timeout: 20_000 }, (incoming) => {
      let text = '';
      incoming.setEncoding('utf8');
      incoming.on('data', (chunk: string) => (text += chunk));
      incoming.on('end', () => done({ status: incoming.statusCode ?? 0, body: text }));
      incoming.on('error', fail);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 20 s')));
    outgoing.on('error', fail);
    outgoing.end(body ? JSON.stringify(body) : undefined);
  });
}

/** One request through the public entrance, trusting only the environment's own authority. */
export async function ask(
  url: string,
  authority: string,
  { method = 'GET', body, user, key }: { method?: string; body?: object; user?: string; key?: string } = {},
): Promise<Answer> {
  const agent = new Agent({ ca: authority });
  try {
    return await send(agent, user === undefined ? url : url.replace('https://', `https://${user}@`), method, body, key);
  } finally {
    agent.destroy();
  }
}
