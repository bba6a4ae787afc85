-- The day a loan was paid out, UTC: its schedule counts from it. Not filled for the loans there are, which would lock and
-- rewrite all of them: loan_disbursed_on() knows it, and it is written down with the next change of the loan.
ALTER TABLE loans ADD COLUMN disbursed_on date;

-- Of a loan as it is now. For one of an older release from its events, or else from its last change.
CREATE FUNCTION loan_disbursed_on(loan loans) RETURNS date LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN loan.status IN ('disbursed', 'repaid', 'defaulted') THEN coalesce(
    loan.disbursed_on,
    (SELECT (at AT TIME ZONE 'UTC')::date FROM loan_events
      WHERE loan_id = loan.id AND from_status = 'approved' AND to_status = 'disbursed' ORDER BY version LIMIT 1),
    (loan.updated_at AT TIME ZONE 'UTC')::date) END
$$;

-- Here and not in the service: the release before this one goes on to disburse loans.
CREATE FUNCTION loan_is_disbursed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.disbursed_on := CASE TG_OP WHEN 'UPDATE' THEN loan_disbursed_on(OLD) END;
  IF NEW.disbursed_on IS NULL THEN
    NEW.disbursed_on := (NEW.updated_at AT TIME ZONE 'UTC')::date;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER loan_is_disbursed BEFORE INSERT OR UPDATE ON loans FOR EACH ROW
  WHEN (NEW.disbursed_on IS NULL AND NEW.status IN ('disbursed', 'repaid', 'defaulted'))
  EXECUTE FUNCTION loan_is_disbursed();

-- The ledgers of all loans: what was paid, and what of it was taken back. Written by the statement that makes the change
-- and its event. No foreign key to loans, as for the events: what was paid outlives the loan.
CREATE TABLE repayments (
  id         uuid PRIMARY KEY,
  loan_id    uuid NOT NULL,
  -- Of the loan after the change; gives the order, and is the second wall against two winners of one race.
  version    integer NOT NULL,
  amount     numeric(19, 4) NOT NULL CHECK (amount > 0 AND amount <> 'NaN'),
  currency   text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  -- The day of the payment, as whoever recorded it has it.
  date       date NOT NULL,
  -- The payment that this entry takes back: once, and all of it.
  reverses   uuid UNIQUE,
  -- Of the payer or the bank.
  reference  text CHECK (reference <> ''),
  reason     text CHECK (reason <> ''),
  actor      text NOT NULL CHECK (actor <> ''),
  request_id text,
  created_at timestamptz NOT NULL,
  UNIQUE (loan_id, version),
  UNIQUE (loan_id, id, amount, currency),
  FOREIGN KEY (loan_id, reverses, amount, currency) REFERENCES repayments (loan_id, id, amount, currency),
  CHECK ((reverses IS NULL) = (reason IS NULL))
);

CREATE FUNCTION repayments_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'repayments is append-only: % is not possible', TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER repayments_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON repayments
  FOR EACH STATEMENT EXECUTE FUNCTION repayments_are_final();
ALTER TABLE repayments ENABLE ALWAYS TRIGGER repayments_are_final;
