import { connect } from 'node:net';
import { statuses } from './harness';

/** A busy machine and a collection of garbage cost processor time too: what is over the bound is measured again. */
const ATTEMPTS = 7;

/** Processor time of this process, of all its threads, in milliseconds. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/** The most processor time that passed between two turns of the event loop, in milliseconds. */
async function longestTurn(work: () => Promise<unknown>): Promise<number> {
  let longest = 0;
  let running = true;
  let before = processorMs();
  const look = () => {
    const now = processorMs();
    longest = Math.max(longest, now - before);
    before = now;
    if (running) setImmediate(look);
  };
  const turn = () => new Promise<void>((resolve) => setImmediate(resolve));
  setImmediate(look);
  await turn();
  await work();
  await turn();
  running = false;
  return longest;
}

/** Of several measurements the least: what is slow by itself is slow each time. */
export async function held(work: () => Promise<unknown>, boundMs: number): Promise<number> {
  let least = Infinity;
  for (let attempt = 0; attempt < ATTEMPTS && least > boundMs; attempt++) {
    least = Math.min(least, await longestTurn(work));
  }
  return least;
}

/** Sends one request, and resolves to its status. The bytes are ready, so that this side costs next to nothing. */
function exchange(port: number, bytes: Uint8Array): Promise<number> {
  return new Promise((resolve, reject) => {
    let received = '';
    const socket = connect(port, '127.0.0.1', () => void socket.write(bytes));
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      if (received.length < 100) received += chunk;
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(statuses(received)[0] ?? 0));
  });
}

export interface Trial {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Those that held the event loop for longer than the bound, or got no answer of a client's fault. */
export async function tooLong(port: number, trials: readonly Trial[], boundMs: number): Promise<string[]> {
  const found: string[] = [];
  for (const { name, bytes } of trials) {
    let status = 0;
    const milliseconds = await held(async () => (status = await exchange(port, bytes)), boundMs);
    if (milliseconds > boundMs) found.push(`${name}: ${milliseconds.toFixed(1)} ms`);
    if (status === 0 || status >= 500) found.push(`${name}: status ${status}`);
  }
  return found;
}
