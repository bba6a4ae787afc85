-- Every change of every loan: who, when, what, with which request. Written by the statement that makes the change.
-- No foreign key: the history of a loan outlives it. No personal data but what somebody writes into a reason.
CREATE TABLE loan_events (
  -- The order of events. Clocks can be set back, this cannot.
  sequence    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  loan_id     uuid NOT NULL,
  -- Of the loan after the change.
  version     integer NOT NULL,
  at          timestamptz NOT NULL,
  actor       text NOT NULL CHECK (actor <> ''),
  action      text NOT NULL CHECK (action <> ''),
  from_status text,
  to_status   text NOT NULL,
  reason      text,
  request_id  text,
  amount      numeric(19, 4) NOT NULL,
  currency    text NOT NULL,
  -- The second wall against two winners of one race.
  UNIQUE (loan_id, version),
  CHECK ((action = 'created') = (from_status IS NULL))
);

-- Nobody changes what has happened: not the service, not the owner of the table, not a superuser in a hurry.
CREATE FUNCTION loan_events_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'loan_events is append-only: % is not possible', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER loan_events_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON loan_events
  FOR EACH STATEMENT EXECUTE FUNCTION loan_events_are_final();
-- Also in a session that plays the part of a replica, where ordinary triggers are silent.
ALTER TABLE loan_events ENABLE ALWAYS TRIGGER loan_events_are_final;

-- A release that knows of no events inserts loans (with version 0) while this one is rolled out, and after a roll-back.
CREATE FUNCTION loan_of_older_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, amount, currency)
    VALUES (NEW.id, NEW.version, NEW.created_at, 'unrecorded', 'created', NEW.status, NEW.amount, NEW.currency);
  RETURN NULL;
END $$;
CREATE TRIGGER loan_of_older_release AFTER INSERT ON loans
  FOR EACH ROW WHEN (NEW.version = 0) EXECUTE FUNCTION loan_of_older_release();
