import { request, type ClientRequest, type IncomingMessage } from 'node:http';
import { createInterface } from 'node:readline';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { UNDO_PATTERN } from '../../app/http/contract/loan-list';
import { defuse } from '../../app/http/export';
import { LOAN, startService, type TestService, until } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
  await api.database.unguard();
});
afterAll(() => api.stop());

const PATH = '/api/v1/loans/export';
const HEADER = 'id,borrower_id,amount,currency,term_months,interest_rate_apr,status,created_at,updated_at';

/** The answer while its body is still to be read. */
function open(path: string): Promise<{ response: IncomingMessage; sent: ClientRequest }> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port: api.port, path, agent: false }, (response) => {
      resolve({ response, sent });
    });
    sent.once('error', reject).end();
  });
}

const insert = (count: number, borrower = "'b' || n") =>
  api.database.sql(
    `INSERT INTO loans SELECT gen_random_uuid(), ${borrower}, n % 50 + 0.5, CASE WHEN n % 10 = 0 THEN 'VND' ELSE 'KES' END, 6,
      28, CASE WHEN n % 4 = 0 THEN 'repaid' ELSE 'pending' END,
      timestamptz '2026-01-01' + n * interval '1 second', now(), 1 FROM generate_series(1, ${count}) AS n`,
  );
/** Batches of loans that were asked for so far. */
const batches = async () =>
  [
    ...(await api.ask('GET', '/metrics')).text.matchAll(
      /^db_query_duration_seconds_count\{operation="loans_.*"\} (\d+)$/gm,
    ),
  ]
    .map(([, count]) => Number(count))
    .reduce((sum, count) => sum + count, 0);
/** How many batches there are when no more are asked for: what is under way fills the buffers of the system first. */
async function untilAtRest(): Promise<number> {
  let asked = -1;
  await until(async () => {
    const before = asked;
    asked = await batches();
    await sleep(400);
    return asked === before;
  });
  return asked;
}
const logged = (requestId: string, message: string) =>
  api.logs().filter((line) => line.request_id === requestId && line.message === message);

/** RFC 4180. */
function parseCsv(text: string): string[][] {
  expect(text.endsWith('\r\n')).toBe(true);
  const records: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)) {
    records.at(-1)!.push(quoted?.replaceAll('""', '"') ?? plain ?? '');
    if (end === '\r\n') records.push([]);
  }
  return records.slice(0, -1);
}

describe('an export', () => {
  beforeAll(async () => {
    await api.database.sql('TRUNCATE loans');
    await insert(2_500);
  });

  it.each(['/api/loans/export', PATH])(
    'of %s is CSV unless asked otherwise: every loan, newest first',
    async (path) => {
      const answer = await api.ask('GET', path);
      expect([answer.status, answer.headers['content-type'], answer.headers['content-disposition']]).toEqual([
        200,
        'text/csv; charset=utf-8; header=present',
        'attachment; filename="loans.csv"',
      ]);
      const [header, ...loans] = parseCsv(answer.text);
      expect(header?.join(',')).toBe(HEADER);
      const [newest] = (await api.ask('GET', '/api/v1/loans?limit=1')).json() as Record<string, unknown>[];
      expect(loans[0]).toEqual(HEADER.split(',').map((name) => String(newest![name])));
      const expected = await api.database.sql<{ id: string }>('SELECT id FROM loans ORDER BY created_at DESC, id DESC');
      expect(loans.map(([id]) => id)).toEqual(expected.map(({ id }) => id));
    },
  );

  it('is NDJSON where asked for: each line what the API says of that loan', async () => {
    const answer = await api.ask('GET', `${PATH}?format=ndjson`);
    expect([answer.headers['content-type'], answer.headers['content-disposition']]).toEqual([
      'application/x-ndjson; charset=utf-8',
      'attachment; filename="loans.ndjson"',
    ]);
    const lines = answer.text.split('\n');
    expect([lines.length, lines.at(-1)]).toEqual([2_501, '']);
    const page = (await api.ask('GET', '/api/v1/loans?limit=100')).json() as unknown[];
    expect(lines.slice(0, 100).map((line) => JSON.parse(line) as unknown)).toEqual(page);
  });

  it('has what passes the filters of the list, and a header line even if that is nothing', async () => {
    const filters = 'status=repaid&currency=vnd&created_to=2026-01-01T00:20:00Z&max_amount=30.5';
    const { text } = await api.ask('GET', `${PATH}?${filters}`);
    const page = (await api.ask('GET', `/api/v1/loans?limit=100&${filters}`)).json() as { id: string }[];
    expect(page.length).toBeGreaterThan(30);
    const [, ...loans] = parseCsv(text);
    expect(loans.map(([id]) => id)).toEqual(page.map(({ id }) => id));
    expect((await api.ask('GET', `${PATH}?borrower_id=nobody`)).text).toBe(`${HEADER}\r\n`);
    expect((await api.ask('GET', `${PATH}?borrower_id=nobody&format=ndjson`)).text).toBe('');
  });

  it('answers HEAD without a body, and without reading loans', async () => {
    const before = await batches();
    const answer = await api.ask('HEAD', `${PATH}?format=ndjson`);
    expect([answer.status, answer.headers['content-type'], answer.text]).toEqual([
      200,
      'application/x-ndjson; charset=utf-8',
      '',
    ]);
    expect(await batches()).toBe(before);
  });

  it.each([
    'format=xml',
    'format=',
    'format=CSV',
    'format=csv&format=csv',
    'sort=amount',
    'limit=5',
    'cursor=x',
    'status=open',
    'max_amount=x',
    'created_from=x',
    'x=1',
  ])('refuses %s', async (query) => {
    const answer = await api.ask('GET', `${PATH}?${query}`);
    expect([answer.status, answer.json().type, answer.headers['content-disposition']]).toEqual([
      422,
      'urn:problem:invalid-parameter',
      undefined,
    ]);
    expect(answer.json().errors[0].parameter).toBe(query.split('=')[0]);
  });

  it('shows each loan once while others are created', async () => {
    const { response } = await open(`${PATH}?format=ndjson`);
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) {
      text += String(chunk);
      await api.post(LOAN);
    }
    const lines = text.trimEnd().split('\n');
    const loans = lines.map((line) => JSON.parse(line) as { id: string; borrower_id: string });
    expect(new Set(loans.map(({ id }) => id)).size).toBe(loans.length);
    expect(loans.filter((loan) => loan.borrower_id !== LOAN.borrower_id)).toHaveLength(2_500);
  });
});

describe('a cell', () => {
  it.each([
    ['plain', 'plain'],
    ['=1+1', `"'=1+1"`],
    ['+49', `"'+49"`],
    ['-1', `"'-1"`],
    ['@SUM(A1)', `"'@SUM(A1)"`],
    ["'=1+1", `"''=1+1"`],
    ["''=1", `"'''=1"`],
    ["'plain", "'plain"],
    ['  =1', `"  '=1"`],
    ['\tx', `"'\tx"`],
    ['\t=1', `"'\t'=1"`],
    ['x;=1+41', `"x;'=1+41"`],
    ['x\t@a', `"x\t'@a"`],
    ['x|-1', `"x|'-1"`],
    ['x,"=1"', `"x,""'=1"""`],
    ['x;  +1', `"x;  '+1"`],
    ['x\n＝1', `"x\n'＝1"`],
    ['x:﹫1', `"x:'﹫1"`],
    ['x;y', '"x;y"'],
    ['Meyer-Schmidt, +49 30', `"Meyer-Schmidt, '+49 30"`],
    ['＝1', `"'＝1"`],
    ['=HYPERLINK("http://x","y")', `"'=HYPERLINK(""http://x"",""y"")"`],
    ['a "b", c', '"a ""b"", c"'],
    ['a\r\nb', '"a\r\nb"'],
    ['a-b=c', 'a-b=c'],
    ['Ünï 👩‍👩‍👧', 'Ünï 👩‍👩‍👧'],
  ])('with %j is written as %j, and as it is in NDJSON', async (borrower_id, cell) => {
    await api.database.sql('TRUNCATE loans');
    expect((await api.post({ borrower_id, amount: 1, currency: 'KES' })).status).toBe(201);
    const csv = (await api.ask('GET', PATH)).text;
    expect(csv).toContain(`,${cell},1.00,KES,,,pending,`);
    expect(parseCsv(csv)).toHaveLength(2);
    const line = (await api.ask('GET', `${PATH}?format=ndjson`)).text;
    expect(JSON.parse(line)).toMatchObject({ borrower_id, term_months: null });
  });
});

describe('a text in a cell', () => {
  const FORMULA = '=+-@＝＋－＠﹦﹢﹣﹫';
  /** What a reader of the contract does. */
  const restored = (cell: string) =>
    cell.replace(new RegExp(UNDO_PATTERN, 'gu'), (apostrophes) => apostrophes.slice(1));
  const hostile = Array.from(`${FORMULA}'\";,|\t\r\n :/\\ax1é😀\u3000\u200b`);
  const text = fc.oneof(
    fc.array(fc.constantFrom(...hostile), { maxLength: 12 }).map((characters) => characters.join('')),
    fc.string({ maxLength: 30 }),
    fc.string({ unit: 'binary', maxLength: 30 }),
  );
  /** The cells of a line in a program that knows of no quotes, or takes them off. */
  const splitAt = (line: string, separators: readonly string[]) =>
    separators.reduce((cells, one) => cells.flatMap((cell) => cell.split(one)), [line]);
  const DROPPED = /^[\s"\u200b\ufeff\0-\x1f]+/u;

  it('can be read back, so no two texts look alike', () => {
    fc.assert(
      fc.property(text, (value) => expect(restored(defuse(value))).toBe(value)),
      { numRuns: 5_000 },
    );
  });

  it('begins no formula, wherever a program splits it, and whatever it drops at the start', () => {
    fc.assert(
      fc.property(text, (value) => {
        const written = `id,"${defuse(value).replaceAll('"', '""')}",1.00`;
        const single = [...new Set(written)].filter(
          (one) => /[^\p{L}\p{M}\p{N}_']/u.test(one) && !FORMULA.includes(one),
        );
        for (const separators of [[], [',', ';', '\t'], single, ...single.map((one) => [one])]) {
          for (const cell of splitAt(written, separators)) {
            const [first = 'x'] = cell.replace(DROPPED, '');
            if (FORMULA.includes(first)) throw new Error(JSON.stringify({ written, separators, cell }));
          }
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('an export of 200,000 loans', () => {
  const LOANS = 200_000;
  beforeAll(async () => {
    await api.database.sql('TRUNCATE loans');
    await insert(LOANS, "'a borrower with a name of some length, so that there is something to send ' || n");
  }, 60_000);
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const usedBytes = () => {
    collect();
    const { heapUsed, external, arrayBuffers } = process.memoryUsage();
    return heapUsed + external + arrayBuffers;
  };

  it('takes constant memory, and a client that stops takes no connection and no further batch', async () => {
    const before = await batches();
    const used = usedBytes();
    let most = 0;
    let bytes = 0;
    const { response } = await open(`${PATH}?format=ndjson`);
    let lines = 0;
    let stopped = false;
    let chunks = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      for (const byte of chunk) if (byte === 10) lines++;
      if (++chunks % 100 === 0) most = Math.max(most, usedBytes() - used);
      if (!stopped && lines > LOANS / 4) {
        stopped = true;
        expect((await untilAtRest()) - before).toBeLessThan((0.75 * LOANS) / 1_000);
        const [row] = await api.database.sql<{ busy: string }>(
          "SELECT count(*) AS busy FROM pg_stat_activity WHERE application_name = 'branchloans' AND datname = current_database() AND state <> 'idle'",
        );
        expect(Number(row?.busy)).toBe(0);
        most = Math.max(most, usedBytes() - used);
      }
    }
    expect([lines, stopped]).toEqual([LOANS, true]);
    expect(bytes).toBeGreaterThan(60e6);
    expect(most).toBeLessThan(20e6);
  }, 60_000);

  it('ends when its client goes away', async () => {
    const before = await batches();
    const { response, sent } = await open(PATH);
    await new Promise((resolve) => response.once('data', resolve));
    sent.destroy();
    expect((await untilAtRest()) - before).toBeLessThan((0.5 * LOANS) / 1_000);
  });

  it('goes on when the database was away for some seconds: nothing is missing, and nothing comes twice', async () => {
    const { response } = await open(`${PATH}?format=ndjson`);
    const ids = new Set<string>();
    let lines = 0;
    let away = false;
    for await (const line of createInterface({ input: response })) {
      ids.add((JSON.parse(line) as { id: string }).id);
      if (++lines < LOANS / 4 || away) continue;
      away = true;
      await api.database.sql('ALTER TABLE loans RENAME TO gone');
      setTimeout(() => void api.database.sql('ALTER TABLE gone RENAME TO loans'), 2_000);
    }
    expect([lines, ids.size, response.complete]).toEqual([LOANS, LOANS, true]);
    expect(logged(String(response.headers['x-request-id']), 'request failed')).toEqual([]);
  }, 60_000);

  it('that cannot be ended breaks the connection, says so in the log, and is no success', async () => {
    const { response } = await open(PATH);
    const reading = buffer(response);
    response.once('data', () => void api.database.sql('ALTER TABLE loans RENAME TO gone'));
    await expect(reading).rejects.toThrow('aborted');
    await api.database.sql('ALTER TABLE gone RENAME TO loans');
    const requestId = String(response.headers['x-request-id']);
    await until(() => logged(requestId, 'request').length === 1);
    expect(logged(requestId, 'request')).toEqual([expect.objectContaining({ status: 503, problem: 'db-unavailable' })]);
    expect(logged(requestId, 'request failed')).toEqual([expect.objectContaining({ code: '42P01' })]);
  }, 60_000);

  it('that cannot begin is a problem document', async () => {
    await api.database.sql('ALTER TABLE loans RENAME TO gone');
    const answer = await api.ask('GET', PATH);
    await api.database.sql('ALTER TABLE gone RENAME TO loans');
    expect([answer.status, answer.json().type, answer.headers['content-disposition']]).toEqual([
      503,
      'urn:problem:db-unavailable',
      undefined,
    ]);
  });

  it('is refused while four others run, and others are served', async () => {
    const running = await Promise.all(Array.from({ length: 4 }, () => open(PATH)));
    const refused = await api.ask('GET', PATH);
    expect([refused.status, refused.json().type, refused.headers['retry-after']]).toEqual([
      503,
      'urn:problem:overloaded',
      '10',
    ]);
    expect((await api.ask('GET', '/api/v1/loans')).status).toBe(200);
    for (const { sent } of running) sent.destroy();
    await until(async () => (await api.ask('HEAD', PATH)).status === 200);
  });
});
