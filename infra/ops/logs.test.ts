import fc from 'fast-check';
import {
  createFilter,
  createParser,
  describe as inWords,
  type Entry,
  inOrder,
  LEVELS,
  merge,
  sinceWhen,
  toJson,
} from './logs';

const API = { container: 'loans-staging-api-1', component: 'api' };
const parse = (line: string) => createParser(API)(line);

describe('a line becomes an entry', () => {
  it.each([
    [
      'of the API',
      '2026-11-21T18:21:55.776784818Z {"timestamp":"2026-11-21T18:21:55.776Z","level":"warn","request_id":"r-1","message":"slow query","operation":"loan_list","duration_ms":212.5}',
      {
        time: '2026-11-21T18:21:55.776784818Z',
        level: 'warn',
        message: 'slow query',
        fields: { request_id: 'r-1', operation: 'loan_list', duration_ms: 212.5 },
      },
    ],
    [
      "of the gateway's access log",
      '2026-11-21T18:21:55.78Z {"timestamp":"2026-11-21T18:21:55.780Z","level":"info","message":"GET /api/loans 200","request_id":"r-1","method":"GET","path":"/api/loans","status":"200"}',
      { time: '2026-11-21T18:21:55.780000000Z', level: 'info', message: 'GET /api/loans 200' },
    ],
    [
      'of it, as releases before wrote it',
      '{"time":"2026-11-21T18:21:55+00:00","request_id":"r-1","method":"GET","path":"/api/loans","status":"200"}',
      { time: '2026-11-21T18:21:55.000000000Z', level: 'info', message: 'GET /api/loans 200' },
    ],
    ['of it, refused by us', '{"method":"GET","path":"/","status":"503"}', { level: 'error', message: 'GET / 503' }],
    [
      "of the gateway's error log",
      '2026/11/21 18:20:00 [crit] 7#7: *1 no live upstreams',
      { time: '2026-11-21T18:20:00.000000000Z', level: 'error', message: '7#7: *1 no live upstreams' },
    ],
    [
      'of Postgres',
      '2026-11-21 18:20:53.601 UTC [86] LOG:  database system was shut down',
      { time: '2026-11-21T18:20:53.601000000Z', level: 'info', message: 'database system was shut down' },
    ],
    [
      'of Postgres, bad',
      '2026-11-21 18:20:53.602 UTC [87] FATAL:  the database system is starting up',
      { level: 'error' },
    ],
    [
      'of Prometheus',
      '{"time":"2026-11-21T18:20:50.693190537Z","level":"INFO","source":"main.go:1479","msg":"Completed loading"}',
      {
        time: '2026-11-21T18:20:50.693190537Z',
        level: 'info',
        message: 'Completed loading',
        fields: { source: 'main.go:1479' },
      },
    ],
    ['of what speaks logfmt', 'logger=settings t=2026-11-21 level=warn msg="no such file"', { level: 'warn' }],
    ['that is words', 'hello { world', { time: '', level: 'info', message: 'hello { world', fields: {} }],
    ['that is half JSON', '{"level":"error"', { level: 'info', message: '{"level":"error"' }],
    ['that is no object', '2026-11-21T18:21:55Z [1]', { time: '2026-11-21T18:21:55.000000000Z', message: '[1]' }],
    ['that is empty', '', { message: '' }],
  ])('%s', (_what, line, expected) => {
    expect(parse(line)).toMatchObject({ ...API, ...expected });
  });

  it('what continues another line has its level and time', () => {
    const read = createParser(API);
    const [error, detail, indented, next] = [
      '2026-11-21 18:20:53.601 UTC [86] ERROR:  deadlock detected',
      '2026-11-21 18:20:53.601 UTC [86] DETAIL:  Process 1 waits',
      '    at Object.<anonymous> (main.js:1:1)',
      'something else',
    ].map(read);
    expect([error, detail, indented, next].map((entry) => entry?.level)).toEqual(['error', 'error', 'error', 'info']);
    expect(indented?.time).toBe(error?.time);
  });

  it('whatever it is, it is one entry and is written as one line', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.json()), (line) => {
        const entry = parse(line);
        expect(LEVELS).toContain(entry.level);
        expect(inWords(entry, 'loans-staging')).not.toMatch(/[\n\r\u001b]/);
        expect(toJson(entry)).not.toContain('\n');
        expect(JSON.parse(toJson(entry))).toMatchObject({ container: API.container, level: entry.level });
      }),
    );
  });
});

describe('a filter', () => {
  const entry = parse('{"level":"warn","request_id":"load-1","request_ids":["load-1","x.y-2"],"message":"m"}');
  it.each([
    [{}, true],
    [{ level: 'debug' }, true],
    [{ level: 'warn' }, true],
    [{ level: 'error' }, false],
    [{ request: 'load-1' }, true],
    [{ request: 'x.y-2' }, true],
    [{ request: 'load' }, false],
    [{ request: 'x.y' }, false],
    [{ request: 'xzy-2' }, false],
    [{ request: 'load-1', level: 'error' }, false],
  ] as const)('%j: %j', (query, wanted) => {
    expect(createFilter(query)(entry)).toBe(wanted);
  });

  it('finds an id between others in a line of any kind', () => {
    const wanted = createFilter({ request: 'a+b(c' });
    expect(wanted(parse('ERROR: request a+b(c failed'))).toBe(true);
    expect(wanted(parse('ERROR: request a+b(cd failed'))).toBe(false);
  });
});

describe('several logs as one', () => {
  const logs = fc.array(
    fc.array(fc.nat(1_000)).map((times) => times.sort((a, b) => a - b)),
    { maxLength: 6 },
  );
  const entries = (times: readonly number[], container: string): Entry[] =>
    times.map((time) => createParser({ ...API, container })(`${new Date(time).toISOString()} x`));
  // eslint-disable-next-line @typescript-eslint/require-await -- stands for what reads
  async function* read(from: readonly Entry[]): AsyncGenerator<Entry, void> {
    yield* from;
  }

  it('have all entries, in order of time, and each log in its own', async () => {
    await fc.assert(
      fc.asyncProperty(logs, async (given) => {
        const sources = given.map((times, index) => entries(times, `c${index}`));
        const merged: Entry[] = [];
        for await (const entry of merge(sources.map(read))) merged.push(entry);
        expect(merged.map(({ time }) => time)).toEqual(inOrder(sources.flat()).map(({ time }) => time));
        sources.forEach((source, index) => {
          expect(merged.filter(({ container }) => container === `c${index}`)).toEqual(source);
        });
      }),
    );
  });

  it('a read that fails fails all', async () => {
    async function* broken(): AsyncGenerator<Entry, void> {
      yield* read(entries([1], 'c'));
      throw new Error('gone');
    }
    const all = async () => {
      for await (const entry of merge([read(entries([1, 2], 'a')), broken()])) expect(entry.time).not.toBe('');
    };
    await expect(all()).rejects.toThrow('gone');
  });
});

it('words for people: when, who, how bad, which request, what', () => {
  const access = parse(
    '2026-11-21T18:21:55.784226519Z {"timestamp":"2026-11-21T18:21:55.784Z","level":"info","message":"GET /a 200","request_id":"r-1","client":"10.0.0.1","method":"GET","path":"/a","status":"200","upstream":""}',
  );
  expect(inWords(access, 'loans-staging')).toBe(
    '2026-11-21 18:21:55.784  api-1             info   r-1  GET /a 200 client=10.0.0.1',
  );
  const ours = parse(
    '{"level":"info","request_id":"r-1","message":"request","method":"GET","path":"/a","status":200,"duration_ms":1.5}',
  );
  expect(inWords(ours, 'other')).toBe(
    '-                        loans-staging-api-1  info   r-1  request GET /a 200 duration_ms=1.5',
  );
});

it.each([
  ['15m', '2026-11-21T17:45:00.000000000Z'],
  ['90s', '2026-11-21T17:58:30.000000000Z'],
  ['1d', '2026-11-20T18:00:00.000000000Z'],
  ['2026-11-21T10:00:00+02:00', '2026-11-21T08:00:00.000000000Z'],
  ['yesterday', undefined],
  ['15', undefined],
  ['', undefined],
])('since %j is %j', (text, time) => {
  expect(sinceWhen(text, new Date('2026-11-21T18:00:00Z'))).toBe(time);
});
