import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BODY_LIMIT_BYTES, BULK_BODY_LIMIT_BYTES, BULK_LOANS, readConfig } from '../../app/config';
import { MAX_WRITTEN } from '../../app/domain/money';
import { MAX_TYPE } from '../../app/http/body';
import { MAX_DEPTH, MAX_PROPERTIES, MAX_VALUES } from '../../app/http/json';
import { MAX_ACCEPT } from '../../app/http/problem';
import { LIMITS, LINGER_MS } from '../../app/http/server';
import { MAX_PARAMETERS } from '../../app/http/validate';
import { openApiDocument } from '../../app/http/openapi';
import { PROBLEMS } from '../../app/errors';
import { LOAN, raw, startService, statuses, type TestService } from './harness';

let api: TestService;
beforeAll(async () => {
  api = await startService();
});
afterAll(() => api.stop());

const rows = readFileSync(join(__dirname, '..', '..', 'docs', 'LIMITS.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| '))
  .map((line) => line.split('|').map((cell) => cell.trim()));

it('docs/LIMITS.md says what the code does', () => {
  const limits = Object.fromEntries(rows.map(([, what, limit]) => [what, limit]));
  const schemas = openApiDocument('50000').components.schemas;
  const { database } = readConfig({ DATABASE_NAME: 'a', DATABASE_USER: 'a' }).config;
  const reason = schemas.Transition!.properties!.reason!.anyOf as { maxLength?: number }[];
  expect(limits).toMatchObject({
    'header fields of a request, with its target': `${LIMITS.maxHeaderSize} bytes`,
    'time for the header fields': `${LIMITS.headersTimeout / 1_000} s, looked at every ${LIMITS.connectionsCheckingInterval / 1_000} s`,
    'time for the whole request': `${LIMITS.requestTimeout / 1_000} s (10 s without a byte at the gateway)`,
    'a connection without a request': `${LIMITS.keepAliveTimeout / 1_000} s`,
    body: `${BODY_LIMIT_BYTES} bytes`,
    'body of a bulk request': `${BULK_BODY_LIMIT_BYTES} bytes, ${BULK_LOANS} loans`,
    'values of a body': `${MAX_VALUES}`,
    'properties of a body': `${MAX_PROPERTIES}`,
    'a decimal, as it is written': `${MAX_WRITTEN} characters`,
    'parameters of a query': `${MAX_PARAMETERS}`,
    '`Content-Type`': `${MAX_TYPE} characters`,
    '`Accept`, for the form of a problem': `${MAX_ACCEPT} characters`,
    'a client that still sends when it is refused': `${LINGER_MS / 1_000} s`,
    'nesting of a body': `${MAX_DEPTH} levels`,
    '`borrower_id`': `${String(schemas.NewLoan!.properties!.borrower_id!.maxLength)} characters`,
    '`reason`': `${String(reason[0]!.maxLength)} characters`,
    'wait for a connection to the database, or for a shared statement': `${database.queueMs} ms expected, ${database.connectTimeoutMs} ms at most`,
    'a statement': `${database.statementTimeoutMs} ms; ${database.statementTimeoutMs + 500} ms until the API gives up`,
  });
  for (const [, , , beyond = ''] of rows.slice(1)) {
    const [, status] = /^(\d{3}) /.exec(beyond) ?? [];
    for (const [, slug = ''] of beyond.matchAll(/`([a-z0-9-]+)`/g)) {
      if (slug === 'upstream-timeout') continue; // The gateway's own.
      expect([slug, String(PROBLEMS[slug as keyof typeof PROBLEMS].status)]).toEqual([slug, status]);
    }
  }
});

it('a request that does not arrive in time is told so', async () => {
  const patience = LIMITS.requestTimeout + LIMITS.connectionsCheckingInterval + 3_000;
  const head = 'POST /api/v1/loans HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n';
  const [noEnd, noBody] = await Promise.all([
    raw(api.port, head, patience),
    raw(api.port, `${head}Content-Length: 100\r\n\r\n{"borrower_id":`, patience),
  ]);
  for (const received of [noEnd, noBody]) {
    expect(statuses(received)).toEqual([408]);
    expect(received).toMatch(/content-type: application\/problem\+json/i);
    expect(received).toMatch(/connection: close/i);
    expect(received).toContain('urn:problem:request-timeout');
  }
  expect((await api.post(LOAN)).status).toBe(201);
  const [row] = await api.database.sql<{ count: string }>('SELECT count(*) FROM loans');
  expect(row?.count).toBe('1');
}, 60_000);
