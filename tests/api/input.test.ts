import { BODY_LIMIT_BYTES } from '../../app/config';
import { SECURITY_HEADERS } from '../../app/http/problem';
import { type Answer, LOAN, raw, startService, statuses, type TestService } from './harness';

/** Bad input of every kind, over real HTTP: no 5xx, no wrong 2xx, nothing stored, and always a problem document. */
let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(async () => {
  const [row] = await api.database.sql<{ count: string }>('SELECT count(*) FROM loans');
  await api.stop();
  expect(row?.count).toBe('0');
});

function expectProblem(answer: Answer, status: number, slug: string): void {
  expect({ status: answer.status, body: answer.text }).toEqual({ status, body: expect.any(String) });
  expect(answer.headers['content-type']).toBe('application/problem+json; charset=utf-8');
  const problem = answer.json();
  expect(problem).toMatchObject({
    type: `urn:problem:${slug}`,
    status,
    title: expect.any(String),
    detail: expect.any(String),
  });
  expect(problem.request_id).toBe(answer.headers['x-request-id']);
  expect(answer.text).not.toMatch(/ at .*\.[jt]s|SELECT|INSERT|node_modules/);
}

const loanWith = (property: string, source: string) => {
  const plain: Record<string, string> = { borrower_id: '"b"', amount: '1', currency: '"KES"' };
  const properties = Object.entries({ ...plain, [property]: source }).map(
    ([name, value]) => `${JSON.stringify(name)}:${value}`,
  );
  return `{${properties.join(',')}}`;
};

describe('an amount', () => {
  it.each([
    ...[
      '0',
      '0.00',
      '-0',
      '-5',
      '0.001',
      '1.005',
      '0.30000000000000004',
      '50000.01',
      '50001',
      '12500.0001',
      '1e5',
      '1e20',
      '1e400',
      '1e-3',
    ],
    ...['-1e400', '1e999999999999', '9007199254740993.0', '1000000000000000', '1.25E-400', '9'.repeat(5000)],
    ...[
      '"NaN"',
      '"Infinity"',
      '"-1"',
      '"1e3"',
      '"+1"',
      '" 1"',
      '"1 "',
      '"1,000"',
      '"1_000"',
      '"0x10"',
      '"١٢"',
      '"１２"',
      '"01"',
      '"1."',
      '".5"',
      '""',
      '"abc"',
      '"1.005"',
      '"0"',
    ],
  ])('%s is refused, not rounded', async (source) => {
    const answer = await api.post(loanWith('amount', source));
    expectProblem(answer, 422, 'invalid-amount');
    expect(answer.json().errors).toEqual([{ pointer: '/amount', detail: expect.any(String) }]);
  });

  it.each([
    ['0.5', 'VND', 'must have at most 0 digits after the point in VND'],
    ['"8400.010"', 'VND', 'must have at most 0 digits after the point in VND'],
    ['12500.0010', 'KES', 'must have at most 2 digits after the point in KES'],
    [`1.${'0'.repeat(31)}`, 'KES', 'must have at most 30 digits after the point, zeros included'],
    ['12500.005', 'KES', 'must have at most 2 digits after the point in KES'],
    ['"1.2345"', 'KWD', 'must have at most 3 digits after the point in KWD'],
    ['1.00001', 'CLF', 'must have at most 4 digits after the point in CLF'],
    ['50000.001', 'KWD', 'must be at most 50000'],
  ])('%s %s has more digits than its currency, or is too much', async (amount, currency, detail) => {
    const answer = await api.post(`{"borrower_id":"b","amount":${amount},"currency":"${currency}"}`);
    expectProblem(answer, 422, 'invalid-amount');
    expect(answer.json().errors).toEqual([{ pointer: '/amount', detail }]);
  });

  it.each(['null', 'true', '[1]', '{"value":1}', '[]'])('%s is none', async (source) => {
    expectProblem(await api.post(loanWith('amount', source)), 422, 'validation-error');
  });
});

describe('a property', () => {
  it.each([
    ['borrower_id', '""'],
    ['borrower_id', '"  "'],
    ['borrower_id', '1'],
    ['borrower_id', 'null'],
    ['borrower_id', '{}'],
    ['borrower_id', '["b"]'],
    ['borrower_id', `"${'x'.repeat(60_000)}"`],
    ['currency', '"KE"'],
    ['currency', '"KESS"'],
    ['currency', '"K3S"'],
    ['currency', '"\u212AES"'], // The sign of the unit kelvin, which is a K to a case-insensitive pattern.
    ['currency', '"KES\\u0000"'],
    ['currency', '"QQQ"'],
    ['currency', '"DEM"'], // No longer active.
    ['currency', '"XAU"'], // Gold has no minor unit.
    ['currency', '"XXX"'],
    ['currency', '1'],
    ['currency', 'null'],
    ['term_months', '0'],
    ['term_months', '-1'],
    ['term_months', '1.5'],
    ['term_months', '601'],
    ['term_months', '15e-1'],
    ['term_months', '1.00000000000000001'],
    ['term_months', '1e400'],
    ['term_months', '1e-400'],
    ['term_months', '2147483648'],
    ['term_months', '99999999999999999999'],
    ['term_months', '"6"'],
    ['term_months', 'true'],
    ['interest_rate_apr', '-0.01'],
    ['interest_rate_apr', '100.01'],
    ['interest_rate_apr', '28.005'],
    ['interest_rate_apr', '"NaN"'],
    ['interest_rate_apr', '[]'],
  ])('%s refuses %s', async (property, source) => {
    const answer = await api.post(loanWith(property, source));
    expectProblem(answer, 422, 'validation-error');
    expect(answer.json().errors).toMatchObject([{ pointer: `/${property}` }]);
  });

  it.each(['\\u0000', 'a\\u0000b', '\\ud800', '\\udc00x', 'x\\udbff'])(
    'borrower_id refuses the text %s',
    async (text) => {
      expectProblem(await api.post(loanWith('borrower_id', `"${text}"`)), 422, 'invalid-text');
    },
  );

  it.each([
    'foo',
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'status',
    'id',
    'created_at',
    'Amount',
    '\\u0000',
  ])('that is not known, %s, is refused', async (name) => {
    const answer = await api.post(`{"borrower_id":"b","amount":1,"currency":"KES","${name}":{"polluted":true}}`);
    expectProblem(answer, 422, 'unknown-property');
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it('gets a JSON pointer, and every fault is named', async () => {
    const answer = await api.post('{"amount":0.00001,"currency":"x","a/b~c":1}');
    expectProblem(answer, 422, 'validation-error');
    expect((answer.json().errors as { pointer: string }[]).map(({ pointer }) => pointer).sort()).toEqual([
      '/amount',
      '/a~1b~0c',
      '/borrower_id',
      '/currency',
    ]);
  });

  it('gets at most 20 faults and 100 characters of each name', async () => {
    const names = Array.from({ length: 1_000 }, (_, index) => `"${'n'.repeat(40)}${index}":1`);
    const answer = await api.post(`{${names.join(',')}}`);
    expectProblem(answer, 422, 'validation-error');
    expect(answer.json().errors).toHaveLength(20);
    expect((await api.post(`{"${'n'.repeat(60_000)}":1}`)).text.length).toBeLessThan(2_000);
  });
});

describe('a body', () => {
  it.each([
    ['nothing', ''],
    ['only space', ' \n '],
    ['a truncated object', '{"borrower_id":'],
    ['a trailing comma', '{"borrower_id":"b",}'],
    ['a comment', '{/* */}'],
    ['single quotes', "{'borrower_id':'b'}"],
    ['NaN', loanWith('amount', 'NaN')],
    ['Infinity', loanWith('amount', 'Infinity')],
    ['a leading plus', loanWith('amount', '+1')],
    ['a leading zero', loanWith('amount', '01')],
    ['a leading point', loanWith('amount', '.5')],
    ['a hexadecimal number', loanWith('amount', '0x10')],
    ['a raw line break in a string', '{"borrower_id":"a\nb"}'],
    ['a bad escape', '{"borrower_id":"\\x"}'],
    ['two values', '{} {}'],
    ['a byte order mark', '\uFEFF{}'],
    ['a repeated name', '{"amount":1,"amount":2}'],
    ['a repeated name with equal values', '{"amount":1,"amount":1}'],
    ['a repeated name, spelled otherwise', '{"amount":1,"\\u0061mount":2}'],
    ['a repeated name further in', '{"x":[{"a":1,"b":{},"a":2}]}'],
    ['33 levels', '['.repeat(33) + ']'.repeat(33)],
    ['30,000 levels', '['.repeat(30_000)],
    ['30,000 levels of objects', '{"a":'.repeat(10_000)],
    ['30,000 levels after a bad string', '"\\\n"' + '['.repeat(30_000)],
  ])('of %s is malformed', async (_name, body) => {
    expectProblem(await api.post(body), 400, 'malformed-json');
  });

  it.each(['null', '[]', '"text"', '1', 'true', '['.repeat(32) + ']'.repeat(32), `[${'1,'.repeat(20_000)}1]`])(
    'that is no object is refused: %.20s',
    async (body) => {
      expectProblem(await api.post(body), 422, 'validation-error');
    },
  );

  it('with an empty object names what is missing', async () => {
    const answer = await api.post({});
    expectProblem(answer, 422, 'validation-error');
    expect(answer.json().errors).toHaveLength(3);
  });

  it.each([
    ['a stray byte', [0x22, 0xff, 0x22]],
    ['an overlong encoding', [0x22, 0xc0, 0x80, 0x22]],
    ['half of a surrogate pair', [0x22, 0xed, 0xa0, 0x80, 0x22]],
    ['a truncated character', [0x22, 0xe2, 0x82]],
  ])('with %s is not UTF-8', async (_name, bytes) => {
    expectProblem(await api.post(Buffer.from(bytes)), 400, 'invalid-utf8');
  });

  it('in UTF-16 is refused', async () => {
    expect((await api.post(Buffer.from(JSON.stringify(LOAN), 'utf16le'))).status).toBe(400);
  });

  it.each([
    'text/plain',
    'application/xml',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/json; charset=utf-16',
    'application/jsonx',
    'application/json, text/plain',
    'application/problem+json',
    'json',
    '',
  ])('of the media type "%s" is not supported', async (type) => {
    expectProblem(await api.post(LOAN, { 'content-type': type }), 415, 'unsupported-media-type');
  });

  it('without a media type is not supported', async () => {
    expectProblem(await api.ask('POST', '/api/loans', { body: '{}' }), 415, 'unsupported-media-type');
  });

  it.each(['gzip', 'br', 'deflate', 'identity, gzip', 'nonsense'])(
    'in the encoding %s is not supported',
    async (encoding) => {
      expectProblem(await api.post(LOAN, { 'content-encoding': encoding }), 415, 'unsupported-media-type');
    },
  );

  it('is too large beyond 64 KiB, whether it says so or not', async () => {
    const exactly = (bytes: number) => `{"foo":"${'x'.repeat(bytes - 10)}"}`;
    expectProblem(await api.post(exactly(BODY_LIMIT_BYTES)), 422, 'validation-error');
    expectProblem(await api.post(exactly(BODY_LIMIT_BYTES + 1)), 413, 'payload-too-large');
    expectProblem(await api.post(exactly(2_000_000)), 413, 'payload-too-large');
    const chunked = { 'transfer-encoding': 'chunked' };
    expectProblem(await api.post(exactly(BODY_LIMIT_BYTES + 1), chunked), 413, 'payload-too-large');
    expectProblem(await api.post(exactly(2_000_000), chunked), 413, 'payload-too-large');
  });

  it('of the worst shape takes little time', async () => {
    const worst = [
      '{"a":[' + '{"b":1},'.repeat(7_000) + '1]}',
      `{${Array.from({ length: 5_000 }, (_, n) => `"k${n}":${n}`).join(',')}}`,
      `"${'\\u0041'.repeat(10_000)}"`,
    ];
    for (const body of worst) {
      const startedAt = performance.now();
      expect((await api.post(body)).status).toBe(422);
      expect(performance.now() - startedAt).toBeLessThan(200);
    }
  });
});

describe('a target', () => {
  it.each([
    ['/', 404],
    ['/api', 404],
    ['/api/loans/', 404],
    ['/API/loans', 404],
    ['/api/v2/loans', 404],
    ['/api/loans/x/y', 404],
    ['//api/loans', 404],
    ['/api/../health', 404],
    ['/api%2floans', 404],
    ['/health;x=1', 404],
    ['/health/../health', 404],
    ['/health.', 404],
    ['/\u2215health', 404],
    ['/%00', 404],
    ['/%zz', 404],
    [`/${'x'.repeat(9_000)}`, 404],
  ])('%.30s answers with a problem', async (path, status) => {
    const [received] = statuses(
      await raw(api.port, Buffer.from(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`)),
    );
    expect([status, 400]).toContain(received);
    if (/^[\x21-\x7e]+$/.test(path)) expectProblem(await api.ask('GET', path), status, 'not-found');
  });
});

describe('a method', () => {
  it.each(['TRACE', 'PUT', 'PATCH', 'DELETE', 'PROPFIND'])(
    '%s is not allowed, and the answer says what is',
    async (method) => {
      for (const [path, allow] of [
        ['/api/loans', 'GET, HEAD, POST'],
        ['/api/v1/loans/x', 'GET, HEAD'],
        ['/health', 'GET, HEAD'],
      ] as const) {
        const answer = await api.ask(method, path);
        expectProblem(answer, 405, 'method-not-allowed');
        expect(answer.headers.allow).toBe(allow);
      }
      expectProblem(await api.ask(method, '/nowhere'), 404, 'not-found');
    },
  );

  it.each(['BREW', 'FOO', 'get'])('%s, which HTTP does not know, is not allowed either', async (method) => {
    const received = await raw(api.port, `${method} /health HTTP/1.1\r\nHost: a\r\n\r\n`);
    expect(statuses(received)).toEqual([405]);
    expect(received).toContain('Allow: GET, HEAD, POST');
    expect(received).toContain('application/problem+json');
  });

  it('CONNECT opens no tunnel', async () => {
    expect(statuses(await raw(api.port, 'CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n'))).toEqual([
      405,
    ]);
  });

  it('POST to a resource that can only be read is not allowed', async () => {
    expect((await api.ask('POST', '/health')).headers.allow).toBe('GET, HEAD');
  });

  it('OPTIONS says what is allowed', async () => {
    const answer = await api.ask('OPTIONS', '/api/loans');
    expect([answer.status, answer.headers.allow, answer.text]).toEqual([204, 'GET, HEAD, POST', '']);
  });

  it('HEAD is GET without the body', async () => {
    for (const path of [
      '/health/live',
      '/api/loans',
      '/api/stats',
      '/docs',
      '/openapi.json',
      '/nowhere',
      '/api/loans/x',
    ]) {
      const [get, head] = [await api.ask('GET', path), await api.ask('HEAD', path)];
      expect(head.text).toBe('');
      expect(head.status).toBe(get.status);
      expect(Object.keys(head.headers)).toEqual(Object.keys(get.headers));
      expect(head.headers['content-length']).toBe(get.headers['content-length']);
    }
  });

  it('is not overridden by a header', async () => {
    const answer = await api.ask('GET', '/api/loans', { headers: { 'x-http-method-override': 'DELETE' } });
    expect(answer.status).toBe(200);
  });
});

describe('a request id', () => {
  it('is repeated when it is safe', async () => {
    const id = 'aZ09._-'.padEnd(128, 'x');
    const answer = await api.ask('GET', '/health/live', { headers: { 'x-request-id': id } });
    expect(answer.headers['x-request-id']).toBe(id);
  });

  it.each(['', 'a b', 'a"b', 'é', 'x'.repeat(129), '{"a":1}', 'a,b'])('is replaced when it is "%.20s"', async (id) => {
    const answer = await api.ask('GET', '/health/live', { headers: { 'x-request-id': id } });
    expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('is refused when there are two', async () => {
    const answer = await api.ask('GET', '/health/live', { headers: { 'x-request-id': ['a', 'b'] } });
    expectProblem(answer, 400, 'malformed-request');
    expect(answer.headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/);
  });
});

describe('bytes that are no good HTTP', () => {
  const get = 'GET /health/live HTTP/1.1\r\nHost: a\r\n';
  it.each([
    ['nonsense', 'nonsense\r\n\r\n', 400],
    ['TLS on the clear-text port', Buffer.from('16030100a5010000a1', 'hex'), 400],
    ['HTTP/0.9', 'GET /health\r\n\r\n', 400],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
    ['no Host', 'GET /health/live HTTP/1.1\r\n\r\n', 400],
    ['two Hosts', `${get}Host: b\r\n\r\n`, 400],
    ['two Hosts in other case', `${get}hOST: a\r\n\r\n`, 400],
    ['an absolute target', 'GET http://evil.example/health HTTP/1.1\r\nHost: a\r\n\r\n', 400],
    ['no target', 'GET  HTTP/1.1\r\nHost: a\r\n\r\n', 400],
    ['a bare line feed', 'GET /health HTTP/1.1\nHost: a\n\n', 400],
    ['a folded header', `${get}X: a\r\n b\r\n\r\n`, 400],
    ['a space before the colon', `${get}X : a\r\n\r\n`, 400],
    ['NUL in a header', `${get}X: a\0b\r\n\r\n`, 400],
    [
      'a length and chunks',
      'POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['two lengths', 'POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello', 400],
    ['a negative length', 'POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n', 400],
    ['a signed length', 'POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello', 400],
    ['an unknown transfer encoding', 'POST /api/loans HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n', 400],
    [
      'a bad chunk',
      'POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
      400,
    ],
    [
      'a huge chunk',
      'POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n',
      400,
    ],
    ['20 kB of headers', `${get}X: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
    ['a 20 kB target', `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, 431],
  ])('%s: one problem document', async (_name, bytes, status) => {
    const received = await raw(api.port, bytes);
    expect(statuses(received)).toEqual([status]);
    expect(received).toContain('Content-Type: application/problem+json; charset=utf-8');
    expect(JSON.parse(received.slice(received.indexOf('\r\n\r\n') + 4))).toMatchObject({
      status,
      request_id: expect.any(String),
    });
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) expect(received).toContain(`${name}: ${value}`);
  });

  it.each([
    ['no host', 'http://a[b/'],
    ['a fragment, and no host', '//u@a[b/#x'],
    ['no path', 'foo://a'],
  ])('refuses, counts and logs a target with %s', async (name, target) => {
    const counted = async () =>
      /^http_requests_refused_total\{route="unmatched",status_code="400"\} (\d+)$/m.exec(
        (await api.ask('GET', '/metrics')).text,
      )?.[1] ?? '0';
    const [before, id] = [Number(await counted()), name.replaceAll(/\W/g, '-')];
    const received = await raw(
      api.port,
      `GET ${target} HTTP/1.1\r\nHost: a\r\nX-Request-ID: ${id}\r\nConnection: close\r\n\r\n`,
    );
    expect(statuses(received)).toEqual([400]);
    expect(received).toContain(`X-Request-ID: ${id}\r\n`);
    expect(JSON.parse(received.slice(received.indexOf('\r\n\r\n') + 4))).toMatchObject({
      type: 'urn:problem:malformed-request',
      request_id: id,
    });
    expect(Number(await counted())).toBe(before + 1);
    expect(api.logs().filter((line) => line.request_id === id)).toEqual([
      expect.objectContaining({ message: 'request', status: 400, problem: 'malformed-request' }),
    ]);
  });

  it('answers each of several requests on one connection once, in order', async () => {
    const received = await raw(
      api.port,
      `${get}\r\n${get}\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`,
    );
    expect(statuses(received)).toEqual([200, 200, 404]);
  });

  it('does not take what follows a refused body for a request', async () => {
    const smuggled = 'GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n';
    const received = await raw(
      api.port,
      `POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
      300,
    );
    expect(statuses(received)).toEqual([415]);
  });

  it('refuses an expectation it does not know, and honours the one it does', async () => {
    expect(statuses(await raw(api.port, `${get}Expect: tea\r\nConnection: close\r\n\r\n`))).toEqual([417]);
    const body = JSON.stringify({ ...LOAN, amount: 0 });
    const answer = await api.post(body, { expect: '100-continue' });
    expect(answer.status).toBe(422);
  });

  it('does not wait for ever for the rest of a body', async () => {
    const head = `POST /api/loans HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`;
    expect(await raw(api.port, head, 200)).toBe('');
    expect((await api.ask('GET', '/health/live')).status).toBe(200);
  });
});

it('protects every kind of answer with the same headers', async () => {
  const answers = [
    await api.ask('GET', '/health'),
    await api.ask('GET', '/api/loans'),
    await api.ask('GET', '/nowhere'),
    await api.ask('TRACE', '/health'),
    await api.ask('OPTIONS', '/health'),
    await api.post('{'),
    await api.ask('GET', '/metrics'),
    await api.ask('GET', '/docs'),
  ];
  for (const [index, { headers }] of answers.entries()) {
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) {
      const ofPage = name === 'Content-Security-Policy' || name === 'Cache-Control';
      if (ofPage && index === answers.length - 1) continue; // The page has its own.
      expect(headers[name.toLowerCase()]).toBe(value);
    }
    expect(headers['x-powered-by']).toBeUndefined();
    expect(headers.server).toBeUndefined();
  }
});

it('keeps the number of time series bounded, whatever is asked for', async () => {
  const series = async () =>
    (await api.ask('GET', '/metrics')).text.split('\n').filter((line) => /^http_/.test(line)).length;
  await api.ask('GET', '/nowhere');
  const before = await series();
  await Promise.all(Array.from({ length: 300 }, (_, index) => api.ask('GET', `/nowhere/${index}?q=${index}`)));
  await Promise.all(Array.from({ length: 50 }, (_, index) => raw(api.port, `M${index} / HTTP/1.1\r\n\r\n`)));
  expect((await series()) - before).toBeLessThan(40);
});

it('writes one line of JSON for each request, whatever was in it', async () => {
  await api.ask('GET', '/evil%0a{"level":"error"}', { headers: { 'user-agent': 'x"y', 'x-request-id': 'log-probe' } });
  const lines = api.logs().filter((line) => line.request_id === 'log-probe');
  expect(lines).toEqual([
    expect.objectContaining({
      level: 'info',
      message: 'request',
      method: 'GET',
      route: 'unmatched',
      status: 404,
      problem: 'not-found',
    }),
  ]);
  expect(Object.keys(lines[0]!).slice(0, 4)).toEqual(['timestamp', 'level', 'request_id', 'message']);
  expect(lines[0]!.timestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(api.logs().filter((line) => line.level === 'error')).toEqual([]);
});
