import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { createApiKeys, digestOf } from '../../app/db/api-keys';
import { openDatabase } from '../../app/db/pool';
import { formatApiKey, SCOPES, type Scope } from '../../app/domain/api-key';
import { OPERATIONS } from '../../app/http/contract';
import type { Operation } from '../../app/http/contract/operation';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { type Answer, ask, CONFIG, LOAN, startService, type TestService, until } from './harness';

const ID = '00000000-0000-4000-8000-000000000000';
const DAY_MS = 86_400_000;
const START = new Date('2026-11-21T08:00:00Z');
const CACHE_MS = 300;

let api: TestService;
let clock: Date;
let keys: ReturnType<typeof createApiKeys>;
let closeKeys: () => Promise<void>;

beforeAll(async () => {
  clock = START;
  api = await startService(
    { apiKeys: 'required' },
    { now: () => clock, keyCacheMs: CACHE_MS, recordKeyUseEveryMs: 50 },
  );
  const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('info', new PassThrough()) };
  const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
  keys = createApiKeys(database, 'test');
  closeKeys = () => database.close();
});
beforeEach(() => {
  clock = START;
});
afterAll(async () => {
  await closeKeys();
  await api.stop();
});

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const newKey = async (scopes: readonly Scope[] = ['admin'], expiresAt: Date | null = null) =>
  keys.create({ name: 'a test', scopes, expiresAt }, clock);
const list = (key?: string) => api.ask('GET', '/api/v1/loans', { headers: key === undefined ? {} : bearer(key) });
const reasons = () => api.logs().flatMap(({ message, reason }) => (message === 'access refused' ? [reason] : []));
const counted = async (reason: string) =>
  Number(
    new RegExp(`^auth_failures_total{reason="${reason}"} (\\d+)$`, 'm').exec(
      (await api.ask('GET', '/metrics')).text,
    )![1],
  );

/** What a client sees of a refusal, without what differs between any two requests. */
const shape = ({ status, headers, text }: Answer) => {
  const { request_id, ...body } = JSON.parse(text) as Record<string, unknown>;
  expect(request_id).toBe(headers['x-request-id']);
  return { status, body, challenge: headers['www-authenticate'], names: Object.keys(headers).sort() };
};

describe('every operation', () => {
  const operations: readonly Operation[] = OPERATIONS;
  /** Scopes, any one of which is enough. */
  const enough: Record<Scope, readonly Scope[]> = {
    'loans:read': ['loans:read', 'admin'],
    'loans:write': ['loans:write', 'admin'],
    'sre:read': ['sre:read', 'admin'],
    admin: ['admin'],
  };
  const combinations: (readonly Scope[] | undefined)[] = [
    undefined,
    ...SCOPES.map((scope) => [scope]),
    ['loans:read', 'loans:write'],
  ];
  const given = new Map<readonly Scope[], string>();
  beforeAll(async () => {
    for (const scopes of combinations) if (scopes !== undefined) given.set(scopes, (await newKey(scopes)).text);
  });
  const cells = operations.flatMap(({ id, method, paths, access }) =>
    paths.flatMap((path) => combinations.map((scopes) => ({ id, method, path, access, scopes }))),
  );

  it.each(cells)('$method $path ($access) with $scopes', async ({ method, path, access, scopes }) => {
    const headers = { ...(scopes !== undefined && bearer(given.get(scopes)!)), 'content-type': 'application/json' };
    const answer = await api.ask(method, path.replace(':id', ID), {
      headers,
      ...(method === 'POST' && { body: '{}' }),
    });
    if (access === 'public' || scopes?.some((scope) => enough[access].includes(scope)) === true) {
      expect([401, 403]).not.toContain(answer.status);
    } else if (scopes === undefined) {
      expect(answer.status).toBe(401);
      expect(answer.headers['www-authenticate']).toBe('Bearer');
      expect(answer.json()).toMatchObject({ type: 'urn:problem:unauthorized' });
    } else {
      expect(answer.status).toBe(403);
      expect(answer.headers['www-authenticate']).toBe(`Bearer error="insufficient_scope", scope="${access}"`);
      expect(answer.json()).toMatchObject({ type: 'urn:problem:forbidden', scope: access });
    }
  });

  it('asks for a key before it reads anything of the request', async () => {
    const answer = await api.ask('POST', '/api/v1/loans/nonsense/transitions?x=1', { body: 'x' });
    expect(answer.status).toBe(401);
    expect((await api.ask('HEAD', '/api/v1/loans')).status).toBe(401);
  });
});

describe('a key that is not in force', () => {
  it('gets one answer, whatever is wrong with it; the log and the metric know', async () => {
    const valid = await newKey();
    const expired = await newKey(['admin'], new Date(START.getTime() - 1));
    const revoked = await newKey();
    await keys.revoke(revoked.stored.id, clock);
    const otherEnvironment = formatApiKey({ environment: 'production', id: valid.stored.id }, 'x'.repeat(32));
    const otherSecret = formatApiKey({ environment: 'test', id: valid.stored.id }, 'x'.repeat(32));
    const unknown = formatApiKey({ environment: 'test', id: '000000000000' }, 'x'.repeat(32));
    const garbled = `${valid.text.slice(0, -1)}${valid.text.endsWith('0') ? '1' : '0'}`;
    const before = await counted('malformed');

    const table: [string, string, string | undefined][] = [
      ['expired', `Bearer ${expired.text}`, expired.stored.id],
      ['revoked', `Bearer ${revoked.text}`, revoked.stored.id],
      ['environment', `Bearer ${otherEnvironment}`, valid.stored.id],
      ['secret', `Bearer ${otherSecret}`, valid.stored.id],
      ['unknown', `Bearer ${unknown}`, '000000000000'],
      ['unknown', `Bearer ${unknown}`, '000000000000'], // From the cache.
      ['malformed', `Bearer ${garbled}`, undefined],
      ['malformed', 'Bearer', undefined],
      ['malformed', 'Bearer ', undefined],
      ['malformed', '', undefined],
      ['malformed', `Basic ${Buffer.from(`x:${valid.text}`).toString('base64')}`, undefined],
      ['malformed', valid.text, undefined],
      ['malformed', `Bearer ${valid.text} ${valid.text}`, undefined],
      ['malformed', `Bearer ${'x'.repeat(8_000)}`, undefined],
    ];
    const answers: Answer[] = [];
    for (const [, authorization] of table) {
      answers.push(await api.ask('GET', '/api/v1/loans', { headers: { authorization } }));
    }
    expect(shape(answers[0]!)).toMatchObject({ status: 401, challenge: 'Bearer error="invalid_token"' });
    for (const answer of answers) expect(shape(answer)).toEqual(shape(answers[0]!));
    for (const [index, [reason, , id]] of table.entries()) {
      const { request_id } = answers[index]!.json() as { request_id: string };
      expect(api.logs()).toContainEqual(
        expect.objectContaining({
          message: 'access refused',
          request_id,
          reason,
          ...(id !== undefined && { key_id: id }),
        }),
      );
    }
    expect(await counted('malformed')).toBe(before + 8);
    expect((await list(valid.text)).status).toBe(200);
  });

  it('is refused from the moment it expires, also where it was read before', async () => {
    const { text } = await newKey(['loans:read'], new Date(START.getTime() + 1_000));
    clock = new Date(START.getTime() + 999);
    expect((await list(text)).status).toBe(200);
    clock = new Date(START.getTime() + 1_000);
    expect((await list(text)).status).toBe(401);
  });

  it('is refused within the cache time of its revocation, and works until then at the latest', async () => {
    const { text, stored } = await newKey();
    expect((await list(text)).status).toBe(200);
    await keys.revoke(stored.id, clock);
    const revokedAt = performance.now();
    await until(async () => (await list(text)).status === 401, 5 * CACHE_MS);
    expect(performance.now() - revokedAt).toBeLessThan(CACHE_MS + 250);
  });

  it('may be made after it was asked for', async () => {
    const { text, stored } = await newKey();
    await api.database.sql('DELETE FROM api_keys WHERE id = $1', [stored.id]);
    expect((await list(text)).status).toBe(401);
    const columns = [stored.id, stored.digest.toString('hex')];
    await api.database.sql(
      "INSERT INTO api_keys (id, digest, name, scopes, created_at) VALUES ($1, $2, 'late', '{loans:read}', now())",
      columns,
    );
    await until(async () => (await list(text)).status === 200, 5 * CACHE_MS);
  });
});

describe('rotation', () => {
  it('keeps name, scopes and lifetime; both keys work until the overlap ends, then the new one', async () => {
    const old = await newKey(['loans:read'], new Date(START.getTime() + 90 * DAY_MS));
    clock = new Date(START.getTime() + 80 * DAY_MS);
    const next = await keys.rotate(old.stored.id, 2 * DAY_MS, clock);
    expect(next.stored).toMatchObject({
      name: old.stored.name,
      scopes: ['loans:read'],
      expiresAt: new Date(START.getTime() + 170 * DAY_MS).toISOString(),
      replacedBy: null,
    });
    expect([(await list(old.text)).status, (await list(next.text)).status]).toEqual([200, 200]);
    clock = new Date(START.getTime() + 82 * DAY_MS);
    expect([(await list(old.text)).status, (await list(next.text)).status]).toEqual([401, 200]);
  });

  it('never makes the old key last longer', async () => {
    const old = await newKey(['admin'], new Date(START.getTime() + DAY_MS));
    await keys.rotate(old.stored.id, 5 * DAY_MS, clock);
    const stored = (await keys.find([old.stored.id])).get(old.stored.id)!;
    expect(stored.expiresAt).toBe(old.stored.expiresAt);
  });

  it('takes effect within the cache time where there is no overlap', async () => {
    const old = await newKey();
    expect((await list(old.text)).status).toBe(200);
    await keys.rotate(old.stored.id, 0, clock);
    await until(async () => (await list(old.text)).status === 401, 5 * CACHE_MS);
  });

  it('is refused for a key that is unknown, revoked, expired or rotated, and changes nothing', async () => {
    const revoked = await newKey();
    await keys.revoke(revoked.stored.id, clock);
    const expired = await newKey(['admin'], new Date(START.getTime() - 1));
    const rotated = await newKey();
    const next = await keys.rotate(rotated.stored.id, DAY_MS, clock);
    const before = await keys.list();
    for (const [id, message] of [
      ['nobody', 'There is no key "nobody"'],
      [revoked.stored.id, 'was revoked at 2026'],
      [expired.stored.id, 'expired at 2026'],
      [rotated.stored.id, `was rotated already: ${next.stored.id} follows it`],
    ] as const) {
      await expect(keys.rotate(id, 0, clock)).rejects.toThrow(message);
    }
    expect(await keys.list()).toEqual(before);
  });

  it('of one key by ten at the same time has one successor', async () => {
    const { stored } = await newKey();
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => keys.rotate(stored.id, 0, clock)));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });
});

it('who asks is in the audit trail, in the log, and part of the name of an Idempotency-Key', async () => {
  const [one, other] = [await newKey(['loans:write']), await newKey()];
  const create = (key: string) => api.post(LOAN, { ...bearer(key), 'idempotency-key': 'the-same' });
  const [first, again, byOther] = [await create(one.text), await create(one.text), await create(other.text)];
  expect([first.status, again.headers['idempotent-replayed'], byOther.headers['idempotent-replayed']]).toEqual([
    201,
    'true',
    undefined,
  ]);
  const { id } = first.json() as { id: string };
  const events = await api.ask('GET', `/api/v1/loans/${id}/events`, { headers: bearer(other.text) });
  expect(events.json()).toMatchObject([{ actor: `key:${one.stored.id}`, action: 'created' }]);
  expect(api.logs()).toContainEqual(
    expect.objectContaining({
      message: 'request',
      request_id: first.headers['x-request-id'],
      principal: `key:${one.stored.id}`,
    }),
  );
});

it('a key that may be left out must still be a valid one', async () => {
  const open = await startService({ apiKeys: 'optional' });
  try {
    const status = async (authorization?: string) =>
      (await open.ask('GET', '/api/stats', { headers: authorization === undefined ? {} : { authorization } })).status;
    expect(await status()).toBe(200);
    expect(await status(`Bearer ${formatApiKey({ environment: 'test', id: '0'.repeat(12) }, 'x'.repeat(32))}`)).toBe(
      401,
    );
    expect(await status('Bearer x')).toBe(401);
    const { headers } = await open.post(LOAN);
    expect((await open.ask('GET', `${headers.location!}/events`)).json()).toMatchObject([{ actor: 'unauthenticated' }]);
    expect((await open.ask('GET', '/health', { headers: bearer('x') })).status).toBe(200);
  } finally {
    await open.stop();
  }
});

describe('the database', () => {
  const queries = async (port: number, operation: string) => {
    const { text } = await ask(port, 'GET', '/metrics');
    return Number(new RegExp(`db_query_duration_seconds_count{operation="${operation}"} (\\d+)`).exec(text)?.[1] ?? 0);
  };

  it('is asked once for many requests with one key, never for what is no key, and never again for made-up ones', async () => {
    const { text } = await newKey();
    const other = await startService({ apiKeys: 'required', database: api.database.connection, environment: 'test' });
    try {
      const get = (key: string) => ask(other.port, 'GET', '/api/stats', { headers: bearer(key) });
      for (let turn = 0; turn < 20; turn++) expect((await get(text)).status).toBe(200);
      expect(await queries(other.port, 'api_key_find')).toBe(1);

      await get(`${text}x`);
      await get(formatApiKey({ environment: 'staging', id: 'aaaaaaaaaaaa' }, 'x'.repeat(32)));
      expect(await queries(other.port, 'api_key_find')).toBe(1);

      const madeUp = (index: number) =>
        formatApiKey({ environment: 'test', id: String(index).padStart(12, '0') }, 'x'.repeat(32));
      const answers = await Promise.all(Array.from({ length: 200 }, (_, index) => get(madeUp(index))));
      expect(answers.every(({ status }) => status === 401)).toBe(true);
      const asked = await queries(other.port, 'api_key_find');
      await Promise.all(Array.from({ length: 200 }, (_, index) => get(madeUp(index))));
      expect(await queries(other.port, 'api_key_find')).toBe(asked);
    } finally {
      await other.stop();
    }
  });

  it('may be away while a key is cached; after that the answer is 503, never 401', async () => {
    const other = await startService({ apiKeys: 'required' }, { keyCacheMs: 1_000 });
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('info', new PassThrough()) };
    const database = openDatabase(other.database.connection, other.database.secrets, telemetry);
    const write = await createApiKeys(database, 'test').create(
      { name: 'n', scopes: ['loans:write'], expiresAt: null },
      START,
    );
    await database.close();
    const status = async (key: string) => (await other.ask('GET', '/api/stats', { headers: bearer(key) })).status;
    try {
      expect(await status(write.text)).toBe(403);
      await other.database.drop();
      expect(await status(write.text)).toBe(403); // It was known well enough to be refused for its scope.
      await until(async () => (await status(write.text)) === 503, 3_000);
      expect(await status(formatApiKey({ environment: 'test', id: '0'.repeat(12) }, 'x'.repeat(32)))).toBe(503);
      expect(await status('garbled')).toBe(401);
    } finally {
      await other.service.stop();
    }
  });

  it('learns when a key was used last, and never of an earlier time', async () => {
    const { text, stored } = await newKey();
    const used = async () => (await keys.find([stored.id])).get(stored.id)!.lastUsedAt;
    clock = new Date('2026-11-22T10:00:00.000Z');
    await list(text);
    await until(async () => (await used()) === '2026-11-22T10:00:00.000Z');
    await keys.recordUse(new Map([[stored.id, START.getTime()]]));
    expect(await used()).toBe('2026-11-22T10:00:00.000Z');
  });
});

describe('the probe of the image', () => {
  const probe = (path: string, environment: Record<string, string> = {}) =>
    new Promise<string>((done) => {
      const env = { PATH: process.env.PATH, PORT: String(api.port), ...environment };
      execFile(join(__dirname, '../../app/probe'), [path], { env }, (error, stdout) =>
        done(error === null ? 'passed' : stdout),
      );
    });

  it('shows a key where it is given one', async () => {
    const { text } = await newKey(['loans:read']);
    const path = '/api/v1/loans?limit=1';
    // What the gate of a deploy looks for.
    expect(await probe(path)).toMatch(/^probe \/api\/v1\/loans\?limit=1: HTTP\/1\.1 401 Unauthorized \{/);
    expect(await probe(path, { PROBE_KEY: text })).toBe('passed');
  });

  it('posts a body where it is given one, and wants 2xx', async () => {
    const { text } = await newKey(['loans:read', 'loans:write']);
    const post = (path: string, body: string, environment = {}) =>
      probe(path, { PROBE_KEY: text, PROBE_BODY: body, ...environment });
    // More bytes than characters, and characters that a shell would have a meaning for.
    const loan = { ...LOAN, borrower_id: 'Wanjikũ 100% "$HOME" \\n `id`' };
    for (const LC_ALL of ['C', 'C.UTF-8']) {
      expect(await post('/api/v1/loans/dry-run', JSON.stringify(loan), { LC_ALL })).toBe('passed');
    }
    expect(await post('/api/v1/loans', JSON.stringify(loan))).toBe('passed');
    // Not the first one: others were made by the clock of the day, which goes on while this one stands still.
    const borrowers = ((await list(text)).json() as { borrower_id: string }[]).map((each) => each.borrower_id);
    expect(borrowers.filter((each) => each !== LOAN.borrower_id)).toEqual([loan.borrower_id]);
    expect(await post('/api/v1/loans', '{}')).toMatch(
      /^probe \/api\/v1\/loans: HTTP\/1\.1 422 .*urn:problem:validation-error/,
    );
    expect(await post('/api/v1/loans', JSON.stringify(loan), { PROBE_KEY: '' })).toMatch(/: HTTP\/1\.1 401 /);
  });
});

it('keeps no secret: neither in the database, nor in the logs, nor in the metrics', async () => {
  const { text, stored } = await newKey();
  await list(text);
  await list(`${text}x`);
  await api.ask('GET', '/nowhere', { headers: bearer(text) });
  const secret = text.split('_')[3]!;
  const tables = await api.database.sql<{ name: string }>(
    "SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'",
  );
  const rows = await Promise.all(tables.map(({ name }) => api.database.sql(`SELECT * FROM ${name}`)));
  const places = [JSON.stringify(rows), JSON.stringify(api.logs()), (await api.ask('GET', '/metrics')).text];
  expect(places[0]).toContain(stored.id);
  expect(places[0]).toContain(digestOf(text).toString('hex'));
  expect(places[1]).toContain(stored.id);
  for (const place of places) expect(place.includes(secret) || place.includes(secret.slice(0, 20))).toBe(false);
});

it('keeps no secret that a client puts where it does not belong: into a path, a request id or another field', async () => {
  const { text, stored } = await newKey();
  const secret = text.split('_')[3]!;
  const encoded = Array.from(text, (character) => `%${character.charCodeAt(0).toString(16)}`).join('');
  const shown = `bl_test_${stored.id}_***`;
  const paths = [
    `/api/v1/loans/${text}`,
    `/api/v1/loans/${encoded}/events`,
    `/${text}`,
    `/api/${secret}`,
    `/${text}/x`,
  ];
  for (const path of paths) {
    const answer = await api.ask('GET', path, { headers: bearer(text) });
    expect(answer.text).not.toContain(secret);
    expect(answer.json().instance).toContain('***');
  }
  const page = await api.ask('GET', `/${text}`, { headers: { accept: 'text/html' } });
  expect(page.text).toContain('<html');
  expect(page.text).not.toContain(secret);
  const fields = {
    ...bearer(text),
    'x-request-id': text.replaceAll('_', '.').replace(/^bl\./, 'bl_'),
    referer: `https://desk.example/${text}`,
    'user-agent': text,
    tracestate: `desk=${text}`,
    cookie: text,
  };
  const answer = await api.ask('POST', `/api/v1/loans?api_key=${text}`, { headers: fields, body: '{}' });
  expect(answer.headers['x-request-id']).not.toContain('bl_');
  expect((await api.ask('GET', `/api/v1/loans/${ID}?access_token=${text}`, { headers: bearer(text) })).status).toBe(
    422,
  );
  const log = JSON.stringify(api.logs());
  expect(log).not.toContain(secret);
  expect(log).not.toContain(encoded);
  expect(log).toContain(`/api/v1/loans/${shown}`);
});

it('tells every reason in one log line and one counter', () => {
  expect([...new Set(reasons())].sort()).toEqual(
    ['environment', 'expired', 'malformed', 'missing', 'revoked', 'scope', 'secret', 'unknown'].sort(),
  );
});
