import { DATABASE_ROLES } from '../../app/config';

/** The roles of the database, as SQL for the superuser. All of it may run again at any time. No I/O. */

export interface Logins {
  /** The role that the service logs in as. */
  readonly user: string;
  readonly password: string;
  readonly ownerPassword: string;
}

/** A failing statement is logged by the server with its text, and some texts hold a password. */
export const QUIETLY =
  'SET log_min_error_statement = panic; SET log_min_duration_statement = -1; SET log_statement = none;';

const { owner, app, readonly, backup } = DATABASE_ROLES;

/**
 * What ends a statement or a transaction that its client forgot. The service sets shorter ones for its requests; these
 * hold for its commands and for people. Nothing bounds a statement of the owner, who builds indexes, or of a backup.
 */
const TIMEOUTS = {
  owner: { statement_timeout: '0', lock_timeout: '10s', idle_in_transaction_session_timeout: '60s' },
  app: { statement_timeout: '5min', lock_timeout: '60s', idle_in_transaction_session_timeout: '60s' },
  readonly: { statement_timeout: '30s', lock_timeout: '1s', idle_in_transaction_session_timeout: '60s' },
  backup: { statement_timeout: '0', lock_timeout: '60s', idle_in_transaction_session_timeout: '0' },
} as const;
const POWERLESS = 'NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS';
/** Temporary tables come last: one never stands in front of a real one. */
const SEARCH_PATH = 'public, pg_temp';

/** For the whole server; run it in the database `postgres`. */
export function makeRoles({ user, password, ownerPassword }: Logins): string {
  const login = quoteIdentifier(user);
  return [
    QUIETLY,
    ...[user, owner, app, readonly].map((role) => createRole(role)),
    // Login, replication and password of a backup's role are those that the operator gave it.
    createRole(backup, 'REPLICATION'),
    `ALTER ROLE ${login} LOGIN NOREPLICATION ${POWERLESS} PASSWORD ${quote(password)};`,
    `ALTER ROLE ${owner} LOGIN NOREPLICATION ${POWERLESS} PASSWORD ${quote(ownerPassword)};`,
    `GRANT ${app} TO ${login};`,
    // So that a migration that gets no lock can say who has it.
    `GRANT pg_read_all_stats TO ${owner};`,
    `GRANT pg_read_all_data TO ${backup};`,
    ...settings(login, TIMEOUTS.app),
    ...settings(owner, TIMEOUTS.owner),
    ...settings(readonly, TIMEOUTS.readonly),
    ...settings(backup, TIMEOUTS.backup),
    `ALTER ROLE ${readonly} SET default_transaction_read_only = on;`,
    // Only the exporter needs this database: it reads the server's statistics there.
    'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO pg_monitor;',
  ].join('\n');
}

/** For psql, or for a client that asks first whether the database is there. */
export function createDatabase(name: string): string {
  return `CREATE DATABASE ${quoteIdentifier(name)} OWNER ${owner}`;
}

/**
 * For the database itself, in one transaction: takes it, and all that is in it, from the role of the service where that
 * role owns it, as in releases before 0013. A running service notices nothing: in the same transaction its role gets
 * what it needs, until `migrate` leaves it exactly that.
 *
 * It takes each table for itself for a moment, so it waits 100 ms at most for others, and for a vacuum only 50 ms
 * before Postgres cancels that: run it again after SQLSTATE 55P03 (lock_not_available).
 */
export function ownDatabase(name: string, user: string): string {
  const [database, login] = [quoteIdentifier(name), quoteIdentifier(user)];
  return `BEGIN;
SET LOCAL lock_timeout = '100ms';
SET LOCAL deadlock_timeout = '50ms';
DO $$
DECLARE
  owned CONSTANT boolean := EXISTS (
    SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner = ${quote(login)}::regrole);
BEGIN
  REASSIGN OWNED BY ${login} TO ${owner};
  IF owned THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${app};
  END IF;
END $$;
ALTER SCHEMA public OWNER TO pg_database_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO ${app}, ${readonly};
REVOKE ALL ON DATABASE ${database} FROM PUBLIC, ${login};
GRANT CONNECT ON DATABASE ${database} TO ${app}, ${readonly}, ${backup};
COMMIT;`;
}

export function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

export function quoteIdentifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

function createRole(name: string, options = ''): string {
  return `DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${quote(name)}) THEN CREATE ROLE ${quoteIdentifier(name)} ${options}; END IF; END $$;`;
}

function settings(role: string, timeouts: Readonly<Record<string, string>>): string[] {
  return [
    ...Object.entries(timeouts).map(([setting, value]) => `ALTER ROLE ${role} SET ${setting} = ${quote(value)};`),
    `ALTER ROLE ${role} SET search_path = ${SEARCH_PATH};`,
  ];
}
