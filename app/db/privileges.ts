import type { Client } from 'pg';
import { DATABASE_ROLES } from '../config';

/**
 * Who may do what with each table, view and function, over what its owner may. PUBLIC may do nothing, and neither may a
 * role that is not named here.
 *
 * A release that needs more brings a migration with it, even an empty one, so that the release before it does not take
 * that away again while both are deployed (see grantPrivileges). One that needs less says so a release later.
 */
interface Privileges {
  readonly app: string;
  /** Undefined: none. */
  readonly readonly?: string;
}

export const TABLES: Readonly<Record<string, Privileges>> = {
  loans: {
    app: 'SELECT, INSERT, UPDATE (borrower_id, status, updated_at, version, principal_paid)',
    readonly: 'SELECT',
  },
  loan_events: { app: 'SELECT, INSERT', readonly: 'SELECT' },
  loan_status_changes: { app: 'SELECT', readonly: 'SELECT' },
  repayments: { app: 'SELECT, INSERT', readonly: 'SELECT' },
  loan_totals: { app: 'SELECT', readonly: 'SELECT' },
  loan_totals_missing: { app: 'SELECT', readonly: 'SELECT' },
  api_keys: {
    app: 'SELECT, INSERT, UPDATE (expires_at, revoked_at, last_used_at, replaced_by)',
    readonly: 'SELECT (id, name, scopes, created_at, expires_at, revoked_at, last_used_at, replaced_by)',
  },
  // FOR UPDATE needs the right to update some column. An answer cannot be rewritten.
  idempotency_keys: {
    app: 'SELECT, INSERT, DELETE, UPDATE (created_at)',
    readonly: 'SELECT (principal, operation, key, status, created_at)',
  },
  request_quotas: { app: 'SELECT, INSERT, UPDATE, DELETE', readonly: 'SELECT' },
  schema_migrations: { app: 'SELECT', readonly: 'SELECT' },
};

/** Functions of triggers are not here: a trigger needs no privilege to run. */
export const FUNCTIONS: Readonly<Record<string, Privileges>> = {
  'loan_disbursed_on(loans)': { app: 'EXECUTE', readonly: 'EXECUTE' },
  'correct_loan_totals()': { app: 'EXECUTE' },
};

/**
 * Gives the roles exactly these privileges, in the transaction of the caller. Does nothing where the database has no
 * such roles: there one role owns and does everything.
 */
export async function grantPrivileges(client: Client): Promise<void> {
  const { rows } = await client.query<{ roles: string }>(
    'SELECT count(*) AS roles FROM pg_roles WHERE rolname IN ($1, $2, $3)',
    [DATABASE_ROLES.owner, DATABASE_ROLES.app, DATABASE_ROLES.readonly],
  );
  if (rows[0]?.roles !== '3') return;
  await client.query(NOTHING_FOR_PUBLIC);
  for (const [name, privileges] of Object.entries(TABLES)) {
    if (await isThere(client, 'to_regclass', name)) await grant(client, `TABLE ${name}`, privileges);
  }
  for (const [name, privileges] of Object.entries(FUNCTIONS)) {
    if (await isThere(client, 'to_regprocedure', name)) await grant(client, `FUNCTION ${name}`, privileges);
  }
}

/** Postgres lets PUBLIC call each new function: this revokes it, for functions of the owner only. */
const NOTHING_FOR_PUBLIC = `DO $$
DECLARE made record;
BEGIN
  FOR made IN SELECT oid::regprocedure AS name FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace AND pg_has_role(current_user, proowner, 'USAGE') LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made.name);
  END LOOP;
END $$`;

async function isThere(client: Client, lookUp: 'to_regclass' | 'to_regprocedure', name: string): Promise<boolean> {
  const { rows } = await client.query<{ oid: string | null }>(`SELECT ${lookUp}($1) AS oid`, [`public.${name}`]);
  return rows[0]?.oid !== null;
}

async function grant(client: Client, what: string, { app, readonly }: Privileges): Promise<void> {
  await client.query(`REVOKE ALL ON ${what} FROM PUBLIC, ${DATABASE_ROLES.app}, ${DATABASE_ROLES.readonly}`);
  await client.query(`GRANT ${app} ON ${what} TO ${DATABASE_ROLES.app}`);
  if (readonly !== undefined) await client.query(`GRANT ${readonly} ON ${what} TO ${DATABASE_ROLES.readonly}`);
}
