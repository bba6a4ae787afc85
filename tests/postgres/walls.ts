/** Statements that the role of the service may not run, and statements that the schema refuses from any role. */

export const DENIED = '42501';
export const CHECK = '23514';

const EVENT = `loan_events (loan_id, version, at, actor, action, to_status, amount, currency)`;

/** On a database with a loan that is repaid, an event and a payment. `ID` stands for the loan's. */
export const REFUSED_TO_THE_SERVICE: readonly [what: string, sql: string, sqlstate: string][] = [
  ['to make a table', 'CREATE TABLE mine (id int)', DENIED],
  ['to make a temporary table', 'CREATE TEMP TABLE loan_totals (id int)', DENIED],
  ['to make a schema', 'CREATE SCHEMA mine', DENIED],
  ['to make a function', 'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$', DENIED],
  ['to change a table', 'ALTER TABLE loans ADD COLUMN mine int', DENIED],
  ['to drop a table', 'DROP TABLE repayments', DENIED],
  ['to drop a constraint', 'ALTER TABLE loans DROP CONSTRAINT loans_status_check', DENIED],
  ['to disable a trigger', 'ALTER TABLE loan_events DISABLE TRIGGER loan_events_are_final', DENIED],
  ['to disable all triggers', 'ALTER TABLE loans DISABLE TRIGGER ALL', DENIED],
  ['to drop a trigger', 'DROP TRIGGER repayments_are_final ON repayments', DENIED],
  ['to silence triggers', 'SET session_replication_role = replica', DENIED],
  ['to make an index', 'CREATE INDEX mine ON loans (updated_at)', DENIED],
  ['to take a table over', 'ALTER TABLE loans OWNER TO CURRENT_USER', DENIED],
  ['to become the owner', 'SET ROLE branchloans_owner', DENIED],
  ['to make a role', 'CREATE ROLE mine', DENIED],
  ['to give privileges', 'GRANT branchloans_owner TO CURRENT_USER', DENIED],
  ['to delete a loan', "DELETE FROM loans WHERE id = 'ID'", DENIED],
  ['to empty the loans', 'TRUNCATE loans', DENIED],
  ['to delete an event', "DELETE FROM loan_events WHERE loan_id = 'ID'", DENIED],
  ['to change an event', "UPDATE loan_events SET reason = 'another' WHERE loan_id = 'ID'", DENIED],
  ['to empty the events', 'TRUNCATE loan_events', DENIED],
  ['to delete a payment', "DELETE FROM repayments WHERE loan_id = 'ID'", DENIED],
  ['to change a payment', "UPDATE repayments SET amount = 1 WHERE loan_id = 'ID'", DENIED],
  ['to change the statistics', 'UPDATE loan_totals SET loans = 0', DENIED],
  ['to delete statistics', 'DELETE FROM loan_totals', DENIED],
  ['to delete an API key', 'DELETE FROM api_keys', DENIED],
  ['to change the secret of an API key', "UPDATE api_keys SET digest = repeat('0', 64)", DENIED],
  ['to widen an API key', "UPDATE api_keys SET scopes = '{admin}'", DENIED],
  ['to rewrite an answer', "UPDATE idempotency_keys SET body = ''", DENIED],
  ['to forget a migration', 'DELETE FROM schema_migrations', DENIED],
  ['to change an amount', "UPDATE loans SET amount = 1 WHERE id = 'ID'", DENIED],
  ['to change a currency', "UPDATE loans SET currency = 'USD' WHERE id = 'ID'", DENIED],
  ['to change when a loan was made', "UPDATE loans SET created_at = now() WHERE id = 'ID'", DENIED],
  ['to take a status back', "UPDATE loans SET status = 'pending' WHERE id = 'ID'", CHECK],
  ['to take a status back with a new version', "UPDATE loans SET status = 'disbursed', version = version + 1 WHERE id = 'ID'", CHECK], // prettier-ignore
  [
    'to take a status back with an event of its own',
    `WITH changed AS (UPDATE loans SET status = 'disbursed', version = version + 1 WHERE id = 'ID' RETURNING *)
     INSERT INTO loan_events (loan_id, version, at, actor, action, from_status, to_status, amount, currency)
     SELECT id, version, now(), 'a', 'transitioned', 'repaid', status, amount, currency FROM changed`,
    CHECK,
  ],
  ['to move a loan back in its history', "UPDATE loans SET version = 0 WHERE id = 'ID'", CHECK],
  ['to give a loan another borrower', "UPDATE loans SET borrower_id = 'usr_other' WHERE id = 'ID'", CHECK],
  ['to write the history of no one', `INSERT INTO ${EVENT} VALUES (gen_random_uuid(), 1, now(), '', 'created', 'pending', 1, 'KES')`, CHECK], // prettier-ignore
  ['to pay what is no number', "UPDATE loans SET principal_paid = 'NaN' WHERE id = 'ID'", CHECK],
];
