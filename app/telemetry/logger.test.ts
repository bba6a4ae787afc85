import { PassThrough, Writable } from 'node:stream';
import { createLogger } from './logger';

const nextTurn = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

it('writes one JSON object a line, in order, and the lines of one turn at once', async () => {
  const writes: string[] = [];
  const destination = new Writable({
    decodeStrings: false,
    write(chunk: string, _encoding, done) {
      writes.push(chunk);
      done();
    },
  });
  const logger = createLogger('info', destination);
  logger.log('info', 'first\nline', { a: 1, request_id: 'r' });
  logger.log('debug', 'not written');
  logger.log('error', 'second');
  await nextTurn();
  logger.log('warn', 'third');
  await nextTurn();
  expect(writes).toHaveLength(2);
  const lines = writes
    .join('')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines.map(({ timestamp, ...rest }) => (expect(timestamp).toMatch(/Z$/), rest))).toEqual([
    { level: 'info', request_id: 'r', message: 'first\nline', a: 1 },
    { level: 'error', message: 'second' },
    { level: 'warn', message: 'third' },
  ]);
  expect([logger.writes('debug'), logger.writes('info')]).toEqual([false, true]);
});

it('outlives a destination that fails', async () => {
  const destination = new PassThrough();
  const logger = createLogger('info', destination);
  destination.destroy(new Error('no space left'));
  for (let line = 0; line < 3; line++) {
    logger.log('info', 'lost');
    await nextTurn();
  }
});
