import { execFile } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

/** The time limit of the probe. What it sends, and what it makes of an answer: tests/api/keys.test.ts. */

let server: Server;
let delayMs = 0;

beforeAll((done) => {
  server = createServer((_, answer) => void setTimeout(() => answer.end('{}'), delayMs).unref()).listen(
    0,
    '127.0.0.1',
    done,
  );
});
afterAll((done) => {
  server.closeAllConnections();
  server.close(done);
});

const probe = (environment: Record<string, string>) =>
  new Promise<string>((done) => {
    const env = { PATH: process.env['PATH'], PORT: String((server.address() as AddressInfo).port), ...environment };
    execFile(join(__dirname, 'probe'), { env }, (error, stdout) => done(error === null ? 'passed' : stdout.trim()));
  });

it.each([undefined, '3', '3s', '1m', '600s'])('waits as long as HEALTHCHECK_TIMEOUT says: %s', async (limit) => {
  delayMs = 100;
  expect(await probe(limit === undefined ? {} : { HEALTHCHECK_TIMEOUT: limit })).toBe('passed');
});

it('gives up after that, and says so', async () => {
  delayMs = 10_000;
  expect(await probe({ HEALTHCHECK_TIMEOUT: '1s' })).toBe('probe /health/live: no answer within 1 s');
});

it.each(['0s', '1h', 'soon', '5 s', '-1', '1m30s', '500ms'])('names a limit that is no time: %s', async (limit) => {
  delayMs = 0;
  expect(await probe({ HEALTHCHECK_TIMEOUT: limit })).toBe(
    `probe /health/live: HEALTHCHECK_TIMEOUT is "${limit}", which is no time such as 5s or 1m`,
  );
});
