import fc from 'fast-check';
import { PassThrough } from 'node:stream';
import { Client } from 'pg';
import { DATABASE_ROLES } from '../../app/config';
import { openDatabase } from '../../app/db/pool';
import { migrate, MigrationError } from '../../app/db/migrate';
import { FUNCTIONS, TABLES } from '../../app/db/privileges';
import { recount } from '../../app/db/recount';
import { minorUnits } from '../../app/domain/currency';
import { allowedMoves, LOAN_STATUSES } from '../../app/domain/loan';
import { createLogger } from '../../app/telemetry/logger';
import { createMetrics } from '../../app/telemetry/metrics';
import { CHECK, DENIED, REFUSED_TO_THE_SERVICE } from '../postgres/walls';
import { CONFIG, LOAN, startService, type TestService } from './harness';
import { borrower } from './ledger';
import { MIGRATIONS, withReleases } from './migrations';

/** What the database refuses: to the service, which owns nothing of it, and to SQL by hand of any role. */

let api: TestService;
/** As the service logs in. */
let service: Client;
/** Of a loan that was repaid by payments. */
let repaid: string;

beforeAll(async () => {
  api = await startService();
  service = await connect(api.database.connection.user);
  const at = borrower(api);
  const path = await at.loan();
  const total = (await at.get(`${path}/balance`)).json().outstanding.total as string;
  expect((await at.pay(path, total)).json().balance.status).toBe('repaid');
  repaid = path.split('/').at(-1)!;
});
afterAll(async () => {
  await service.end();
  await api.stop();
});

async function connect(user: string): Promise<Client> {
  const { host, port, name } = api.database.connection;
  const client = new Client({ host, port, database: name, user, types: { getTypeParser: () => String } });
  await client.connect();
  return client;
}

const codeOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => 'done',
    (error: unknown) => (error as { code?: string }).code,
  );
/** As the superuser, who has every privilege. */
const byHand = (sql: string) => codeOf(api.database.sql(sql));

describe('the service', () => {
  it.each(REFUSED_TO_THE_SERVICE)('is refused %s', async (_what, sql, code) => {
    expect(await codeOf(service.query(sql.replaceAll('ID', repaid)))).toBe(code);
  });

  it('may not migrate, and the error names the role that may', async () => {
    const migrating = migrate(api.database.connection, api.database.secrets);
    await expect(migrating).rejects.toThrow(MigrationError);
    await expect(migrating).rejects.toThrow(/test_service may not .* DATABASE_USER=branchloans_owner/);
  });

  it('corrects the statistics without writing them', async () => {
    await api.database.sql("DELETE FROM loan_totals WHERE status = 'repaid'");
    const telemetry = { metrics: createMetrics(CONFIG), logger: createLogger('error', new PassThrough().resume()) };
    const database = openDatabase(api.database.connection, api.database.secrets, telemetry);
    expect(await recount(database, false)).toMatchObject([{ currency: 'KES', status: 'repaid', loans: 1 }]);
    expect(await recount(database, false)).toEqual([]);
    await database.close();
  });

  it('has bounds of its own on statements, locks and forgotten transactions', async () => {
    const settings = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'search_path'];
    const of = async (client: Client) => {
      const { rows } = await client.query<Record<string, string>>(
        `SELECT ${settings.map((name) => `current_setting('${name}') AS ${name}`).join()}`,
      );
      return Object.values(rows[0]!);
    };
    expect(await of(service)).toEqual(['5min', '1min', '1min', 'public, pg_temp']);
    const owner = await connect(DATABASE_ROLES.owner);
    expect(await of(owner)).toEqual(['0', '10s', '1min', 'public, pg_temp']);
    await owner.end();
  });
});

describe('privileges', () => {
  it('are named for every table, view and function, and the owner has them all', async () => {
    const relations = await api.database.sql<{ name: string; owner: string }>(
      `SELECT relname AS name, pg_get_userbyid(relowner) AS owner FROM pg_class
       WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'p', 'm', 'f') ORDER BY 1`,
    );
    expect(relations.map(({ name }) => name)).toEqual(Object.keys(TABLES).sort());
    const functions = await api.database.sql<{ name: string; owner: string; trigger: boolean }>(
      `SELECT oid::regprocedure::text AS name, pg_get_userbyid(proowner) AS owner, prorettype = 'trigger'::regtype AS trigger
       FROM pg_proc WHERE pronamespace = 'public'::regnamespace`,
    );
    const called = functions.filter(({ trigger }) => !trigger).map(({ name }) => name);
    expect(called.sort()).toEqual(Object.keys(FUNCTIONS).sort());
    expect(new Set([...relations, ...functions].map(({ owner }) => owner))).toEqual(new Set([DATABASE_ROLES.owner]));
  });

  it('are none for PUBLIC, anywhere on the server', async () => {
    const granted = await api.database.sql(
      `SELECT relname AS of FROM pg_class, aclexplode(relacl) WHERE grantee = 0 AND relnamespace = 'public'::regnamespace
       UNION SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
         WHERE grantee = 0 AND pronamespace = 'public'::regnamespace
       UNION SELECT nspname FROM pg_namespace, aclexplode(nspacl) WHERE grantee = 0 AND nspname = 'public'
       UNION SELECT datname FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
         WHERE grantee = 0 AND datname IN (current_database(), 'postgres', 'template1')`,
    );
    expect(granted).toEqual([]);
  });

  it('to read are all but secrets', async () => {
    const reader = await connect('postgres');
    await reader.query(`SET SESSION AUTHORIZATION ${DATABASE_ROLES.readonly}`);
    for (const table of ['loans', 'loan_events', 'repayments', 'loan_totals', 'loan_totals_missing']) {
      await reader.query(`SELECT * FROM ${table}`);
    }
    await reader.query('SELECT id, name, scopes, revoked_at FROM api_keys');
    for (const secret of ['SELECT digest FROM api_keys', 'SELECT body FROM idempotency_keys']) {
      expect(await codeOf(reader.query(secret))).toBe(DENIED);
    }
    expect(await codeOf(reader.query("UPDATE loans SET status = 'repaid'"))).toBe(DENIED);
    await reader.end();
  });

  it('of a newer release stay when an older one migrates', async () => {
    await api.database.sql(`GRANT DELETE ON loan_totals TO ${DATABASE_ROLES.app}`);
    const may = async () => (await api.database.sql<{ may: boolean }>(
      `SELECT has_table_privilege('${DATABASE_ROLES.app}', 'loan_totals', 'DELETE') AS may`))[0]!.may; // prettier-ignore
    await api.database.sql("INSERT INTO schema_migrations VALUES (9998, '9998_newer.sql', 'x')");
    await migrate(api.database.owner, api.database.secrets);
    expect(await may()).toBe(true);
    await api.database.sql('DELETE FROM schema_migrations WHERE version = 9998');
    await migrate(api.database.owner, api.database.secrets);
    expect(await may()).toBe(false);
  });
});

describe('functions', () => {
  it('have a search path of their own, which ends with temporary tables', async () => {
    const open = await api.database.sql(
      `SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
       AND proconfig IS DISTINCT FROM '{"search_path=pg_catalog, public, pg_temp"}'`,
    );
    expect(open).toEqual([]);
  });

  it('are not led astray by temporary tables and another search path', async () => {
    const client = await connect('postgres');
    await client.query(`CREATE TEMP TABLE loan_totals (LIKE public.loan_totals INCLUDING ALL);
      CREATE TEMP TABLE loan_events (LIKE public.loan_events INCLUDING ALL);
      CREATE SCHEMA evil; CREATE TABLE evil.loan_totals (LIKE public.loan_totals INCLUDING ALL);
      SET search_path = pg_temp, evil, public;
      INSERT INTO public.loans (id, borrower_id, amount, currency, status, created_at, updated_at)
        VALUES (gen_random_uuid(), 'b', 7, 'CHF', 'pending', now(), now())`);
    await client.query('DROP SCHEMA evil CASCADE');
    await client.end();
    expect(await api.database.sql('SELECT * FROM loan_totals_missing')).toEqual([]);
    expect(await api.database.sql("SELECT loans::int, amount::int FROM loan_totals WHERE currency = 'CHF'")).toEqual([
      { loans: 1, amount: 7 },
    ]);
    expect(await api.database.sql("SELECT FROM loan_events WHERE currency = 'CHF'")).toHaveLength(1);
  });
});

describe('the schema', () => {
  const loan = (change: Record<string, string> = {}) => {
    const row = {
      ...{ id: 'gen_random_uuid()', borrower_id: "'b'", amount: '1', currency: "'KES'", status: "'pending'" },
      ...{ created_at: 'now()', updated_at: 'now()', ...change },
    };
    return `INSERT INTO loans (${Object.keys(row).join()}) VALUES (${Object.values(row).join()})`;
  };
  const event = (change: Record<string, string>) => {
    const row = {
      ...{ loan_id: 'gen_random_uuid()', version: '1', at: 'now()', actor: "'a'", action: "'paid'" },
      ...{ from_status: "'disbursed'", to_status: "'disbursed'", amount: '1', currency: "'KES'", ...change },
    };
    return `INSERT INTO loan_events (${Object.keys(row).join()}) VALUES (${Object.values(row).join()})`;
  };
  const payment = (change: Record<string, string>) => {
    const row = {
      ...{ id: 'gen_random_uuid()', loan_id: `'${repaid}'`, version: '900', amount: '1', currency: "'KES'" },
      ...{ date: 'now()', actor: "'a'", created_at: 'now()', ...change },
    };
    return `INSERT INTO repayments (${Object.keys(row).join()}) VALUES (${Object.values(row).join()})`;
  };
  const key = (change: Record<string, string>) => {
    const row = {
      ...{ id: 'substr(md5(random()::text), 1, 12)', digest: "repeat('0', 64)", name: "'n'", scopes: "'{admin}'" },
      ...{ created_at: 'now()', ...change },
    };
    return `INSERT INTO api_keys (${Object.keys(row).join()}) VALUES (${Object.values(row).join()})`;
  };
  const WRONG_TIMES = ["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'1899-12-31'", "'10000-01-01'"];
  const long = (length: number) => `repeat('é', ${length})`;
  const times = (make: (change: Record<string, string>) => string, ...columns: string[]) =>
    columns.flatMap((column) =>
      WRONG_TIMES.map((time) => [`${column} ${time}`, () => make({ [column]: time })] as const),
    );

  it.each<readonly [string, () => string]>([
    ...times(loan, 'created_at', 'updated_at', 'disbursed_on'),
    ['principal NaN', () => loan({ principal_paid: "'NaN'" })],
    ['principal below 0', () => loan({ principal_paid: '-0.01' })],
    ['principal above the amount', () => loan({ principal_paid: '1.01' })],
    ['a version below 0', () => loan({ version: '-1' })],
    ['a long borrower', () => loan({ borrower_id: long(256) })],
    ['a term of 601 months', () => loan({ term_months: '601' })],
    ['half a dong', () => loan({ amount: '1.5', currency: "'VND'" })],
    ['a tenth of a cent', () => loan({ amount: '1.001' })],
    ...times(event, 'at'),
    ['an event of NaN', () => event({ amount: "'NaN'" })],
    ['an event of nothing', () => event({ amount: '0' })],
    ['an event in no currency', () => event({ currency: "'kes'" })],
    ['an event from no status', () => event({ from_status: "'open'" })],
    ['an event to no status', () => event({ to_status: "'open'" })],
    ['an event of version -1', () => event({ version: '-1' })],
    ['a long reason', () => event({ reason: long(1001) })],
    ['a long actor', () => event({ actor: long(256) })],
    ['a long request id', () => event({ request_id: long(129) })],
    ...times(payment, 'date', 'created_at'),
    ['a payment in another currency than its loan', () => payment({ currency: "'USD'" })],
    ['a payment to no loan', () => payment({ loan_id: 'gen_random_uuid()' })],
    ['a payment of a tenth of a cent', () => payment({ amount: '1.001' })],
    ['a payment of NaN', () => payment({ amount: "'NaN'" })],
    ['a payment of version -1', () => payment({ version: '-1' })],
    ['a long reference', () => payment({ reference: long(256) })],
    ...times(key, 'created_at', 'expires_at', 'revoked_at', 'last_used_at'),
    ['a long name of a key', () => key({ name: long(101) })],
    ['no scope', () => key({ scopes: 'ARRAY[NULL]::text[]' })],
    ['totals of NaN', () => "UPDATE loan_totals SET amount = 'NaN'"],
    ['totals of Infinity', () => "UPDATE loan_totals SET principal_paid = 'Infinity'"],
    ['totals of no status', () => "UPDATE loan_totals SET status = 'open'"],
    ['negative quotas', () => "INSERT INTO request_quotas VALUES ('c', 10, 1, '{-1}', 1)"],
    [
      'an answer of infinity',
      () => "INSERT INTO idempotency_keys VALUES ('p', 'o', 'k', '', 200, '{}', '', 'infinity')",
    ],
    ['a long key', () => `INSERT INTO idempotency_keys VALUES ('p', 'o', ${long(256)}, '', 200, '{}', '', now())`],
    ['another amount', () => `UPDATE loans SET amount = amount + 1 WHERE id = '${repaid}'`],
    ['another currency', () => `UPDATE loans SET currency = 'USD' WHERE id = '${repaid}'`],
    ['another id', () => `UPDATE loans SET id = gen_random_uuid() WHERE id = '${repaid}'`],
    ['another term', () => `UPDATE loans SET term_months = 7 WHERE id = '${repaid}'`],
    ['no rate', () => `UPDATE loans SET interest_rate_apr = NULL WHERE id = '${repaid}'`],
    ['another day of disbursement', () => `UPDATE loans SET disbursed_on = '2020-01-01' WHERE id = '${repaid}'`],
    ['no day of disbursement', () => `UPDATE loans SET disbursed_on = NULL WHERE id = '${repaid}'`],
    ['another borrower', () => `UPDATE loans SET borrower_id = 'b' WHERE id = '${repaid}'`],
    ['an older version', () => `UPDATE loans SET version = 1 WHERE id = '${repaid}'`],
  ])('refuses %s from any role', async (_what, sql) => {
    expect(await byHand(sql())).toBe(CHECK);
  });

  it('takes what is at the bounds', async () => {
    const bounds = { created_at: "'1900-01-01Z'", updated_at: "'9999-12-31 23:59:59.999999Z'", term_months: '600' };
    expect(await byHand(loan({ ...bounds, borrower_id: long(255), principal_paid: '1' }))).toBe('done');
    expect(await byHand(event({ reason: long(1000), request_id: long(128), actor: long(255) }))).toBe('done');
  });

  it('has a constraint about every column that holds a number, a time or a text', async () => {
    const unchecked = await api.database.sql(
      `SELECT attrelid::regclass::text AS of, attname FROM pg_attribute
         JOIN pg_class ON pg_class.oid = attrelid JOIN pg_type ON pg_type.oid = atttypid
       WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
         AND typcategory IN ('N', 'D', 'S', 'A') AND NOT EXISTS (
           SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c' AND attnum = ANY (conkey))
       ORDER BY 1, 2`,
    );
    expect(unchecked).toEqual([
      // A reference to another key.
      { of: 'api_keys', attname: 'replaced_by' },
    ]);
  });

  it('counts the digits of each currency as the service does', async () => {
    const letters = Array.from({ length: 26 }, (_, index) => String.fromCharCode(65 + index));
    const codes = letters.flatMap((a) => letters.flatMap((b) => letters.map((c) => a + b + c)));
    const known = codes.flatMap((code) => {
      const digits = minorUnits(code);
      return digits === undefined ? [] : [{ code, digits }];
    });
    expect(known.length).toBeGreaterThan(150);
    const amount = (digits: number) => (digits === 0 ? '1' : `1.${'0'.repeat(digits - 1)}1`);
    await service.query('BEGIN');
    for (const { code, digits } of known) {
      const insert = (of: number) => service.query(loan({ amount: amount(of), currency: `'${code}'` }));
      await insert(digits);
      if (digits === 4) continue; // The column has no more.
      await service.query('SAVEPOINT before');
      expect([code, await codeOf(insert(digits + 1))]).toEqual([code, CHECK]);
      await service.query('ROLLBACK TO before');
    }
    await service.query('ROLLBACK');
  });

  it('lets a loan go where the service lets it go, and nowhere else', async () => {
    const statuses = fc.constantFrom(...LOAN_STATUSES);
    await fc.assert(
      fc.asyncProperty(statuses, statuses, async (from, to) => {
        const client = await connect('postgres');
        try {
          await client.query('BEGIN');
          const { rows } = await client.query<{ id: string }>(
            `${loan({ status: `'${from}'`, version: '1' })} RETURNING id`,
          );
          const move = (withEvent: boolean) => codeOf(
            client.query(`WITH changed AS (UPDATE loans SET status = '${to}', version = 2 WHERE id = '${rows[0]!.id}' RETURNING *)
              INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, amount, currency)
              SELECT id, version, now(), 'a', 'transitioned', '${from}', status, amount, currency FROM changed WHERE ${withEvent}`),
          ); // prettier-ignore
          if (from !== to) {
            await client.query('SAVEPOINT before');
            expect(await move(false)).toBe(CHECK);
            await client.query('ROLLBACK TO before');
          }
          const allowed = from === to || allowedMoves(from).includes(to);
          expect([from, to, await move(true)]).toEqual([from, to, allowed ? 'done' : CHECK]);
        } finally {
          await client.end();
        }
      }),
      { numRuns: 150 },
    );
  });

  it('keeps a key as it was made', async () => {
    const id = 'abcdefghijkl';
    await api.database.sql(
      `INSERT INTO api_keys (id, digest, name, scopes, created_at, expires_at)
       VALUES ('${id}', repeat('0', 64), 'n', '{loans:read}', now(), now() + interval '1 day')`,
    );
    const change = (what: string) => byHand(`UPDATE api_keys SET ${what} WHERE id = '${id}'`);
    for (const what of [
      "id = 'abcdefghijkm'",
      "digest = repeat('1', 64)",
      "name = 'm'",
      "scopes = '{admin}'",
      "created_at = created_at - interval '1 s'",
      'expires_at = NULL',
      "expires_at = expires_at + interval '1 s'",
    ]) {
      expect([what, await change(what)]).toEqual([what, CHECK]);
    }
    expect(await change("expires_at = expires_at - interval '1 s', revoked_at = now(), last_used_at = now()")).toBe(
      'done',
    );
    expect(await change('revoked_at = NULL')).toBe(CHECK);
    expect(await change("revoked_at = revoked_at + interval '1 s'")).toBe(CHECK);
  });
});

describe('rows from before that break a constraint', () => {
  it('stop no migration, are named, and are validated once they are right', async () => {
    await withReleases(async (database, upTo) => {
      await upTo(12);
      await database.sql(`INSERT INTO loans (id, borrower_id, amount, currency, status, created_at, updated_at, principal_paid)
        VALUES ('00000000-0000-0000-0000-000000000001', 'b', 100, 'KES', 'pending', '0044-03-15 BC', now(), 0),
          ('00000000-0000-0000-0000-000000000002', repeat('b', 300), 8.5, 'VND', 'disbursed', now(), now(), 0),
          ('00000000-0000-0000-0000-000000000003', 'b', 100, 'KES', 'disbursed', now(), now(), 'NaN')`);
      const wrong = { table: 'loans', constraint: 'loans_created_at_check', rows: 1, keys: ['00000000-0000-0000-0000-000000000001'] }; // prettier-ignore
      const of = (table: string) => ({ ...wrong, table, constraint: `${table}_at_check`, keys: ['1'] });
      const result = await migrate(database.owner, database.secrets);
      expect(result).toMatchObject({ version: MIGRATIONS.length, violated: [of('loan_events'), wrong] });

      // What was no number is one, and the statistics are right.
      expect(await database.sql('SELECT * FROM loan_totals_missing')).toEqual([]);
      expect(await database.sql("SELECT FROM loans WHERE principal_paid = 'NaN'")).toEqual([]);
      // What was never allowed to be made can still be moved.
      const moved =
        database.sql(`WITH changed AS (UPDATE loans SET status = 'defaulted', version = 1 WHERE amount = 8.5 RETURNING *)
        INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, amount, currency)
        SELECT id, version, now(), 'a', 'transitioned', 'disbursed', status, amount, currency FROM changed`);
      expect(await codeOf(moved)).toBe('done');

      await database.sql("UPDATE loans SET created_at = now() WHERE created_at < '1900-01-01'");
      expect((await migrate(database.owner, database.secrets)).violated).toMatchObject([of('loan_events')]);
    });
  });
});

it('a loan is made as ever by the service that owns nothing', async () => {
  expect((await api.post(LOAN)).status).toBe(201);
});
