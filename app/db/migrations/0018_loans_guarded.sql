-- The schema is the second wall: what must hold for every loan holds for SQL by hand too. The constraints here are about
-- columns that change; what never changes is looked at once, when a loan is inserted, so that a loan from before that
-- breaks such a rule can still be moved and paid. `migrate` validates constraints that are NOT VALID, and names the rows
-- that break one.
ALTER TABLE loans
  -- 'NaN' is greater than every amount.
  ADD CONSTRAINT loans_principal_paid_check CHECK (principal_paid BETWEEN 0 AND amount) NOT VALID,
  ADD CONSTRAINT loans_version_check CHECK (version >= 0) NOT VALID,
  ADD CONSTRAINT loans_created_at_check
    CHECK (created_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT loans_updated_at_check
    CHECK (updated_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT loans_disbursed_on_check CHECK (disbursed_on BETWEEN '1900-01-01' AND '9999-12-31') NOT VALID;

CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'row of "%" violates constraint "%": %', TG_TABLE_NAME, TG_NAME, TG_ARGV[0]
    USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;

-- Loans that were made elsewhere may break a rule: whoever owns the table says `SET branchloans.import = on` first
-- (docs/UPGRADING.md).
CREATE FUNCTION loan_is_sound() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF current_setting('branchloans.import', true) = 'on' AND pg_has_role(current_user, (
      SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'row of "loans" violates constraint "%": borrower_id has at most 255 characters, term_months is at most 600, and amount has no more digits after the point than its currency', TG_NAME
    USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
END $$;
-- The bounds are those of the API. Digits after the point are those of ISO 4217 as in app/domain/currency.ts, withdrawn
-- codes included; a code that is not known has two.
CREATE TRIGGER loan_is_sound BEFORE INSERT ON loans FOR EACH ROW
  WHEN (char_length(NEW.borrower_id) > 255 OR NEW.term_months > 600
    OR scale(trim_scale(NEW.amount)) > CASE
      WHEN NEW.currency IN ('ADP', 'BEF', 'BIF', 'BYB', 'BYR', 'CLP', 'DJF', 'ESP', 'GNF', 'GRD', 'ISK', 'ITL', 'JPY', 'KMF',
        'KRW', 'LUF', 'MGF', 'PTE', 'PYG', 'ROL', 'RWF', 'TPE', 'TRL', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF') THEN 0
      WHEN NEW.currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') THEN 3
      WHEN NEW.currency IN ('CLF', 'UYW') THEN 4
      ELSE 2 END)
  EXECUTE FUNCTION loan_is_sound();

-- What a client was told, and what its schedule follows from. Tables and balances of years stand on it.
CREATE TRIGGER loan_facts_are_final BEFORE UPDATE ON loans FOR EACH ROW
  WHEN (NEW.id <> OLD.id OR NEW.amount <> OLD.amount OR NEW.currency <> OLD.currency
    OR NEW.term_months IS DISTINCT FROM OLD.term_months OR NEW.interest_rate_apr IS DISTINCT FROM OLD.interest_rate_apr
    OR (OLD.disbursed_on IS NOT NULL AND NEW.disbursed_on IS DISTINCT FROM OLD.disbursed_on) OR NEW.version < OLD.version)
  EXECUTE FUNCTION refuse_row('id, amount, currency, term_months, interest_rate_apr and a day of disbursement never change, and version never falls');

-- Runs when the statement that changes the loan is through, so it sees the event and the entry of the ledger that the
-- same statement wrote. A loan goes back only with the reversal of a payment.
CREATE FUNCTION loan_moves_as_allowed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF (OLD.status, NEW.status) NOT IN (
      ('pending', 'approved'), ('pending', 'rejected'), ('pending', 'withdrawn'), ('approved', 'withdrawn'),
      ('approved', 'disbursed'), ('disbursed', 'repaid'), ('disbursed', 'defaulted'), ('defaulted', 'repaid'))
    AND NOT (OLD.status = 'repaid' AND NEW.status IN ('disbursed', 'defaulted') AND EXISTS (
      SELECT FROM repayments WHERE loan_id = NEW.id AND version = NEW.version AND reverses IS NOT NULL)) THEN
    RAISE EXCEPTION 'row of "loans" violates constraint "%": % does not become %', TG_NAME, OLD.status, NEW.status
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
  END IF;
  IF NOT EXISTS (SELECT FROM loan_events
      WHERE loan_id = NEW.id AND version = NEW.version AND from_status = OLD.status AND to_status = NEW.status) THEN
    RAISE EXCEPTION 'row of "loans" violates constraint "%": % becomes % without an event', TG_NAME, OLD.status, NEW.status
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER loan_moves_as_allowed AFTER UPDATE ON loans FOR EACH ROW
  WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION loan_moves_as_allowed();

CREATE FUNCTION loan_becomes_a_pseudonym() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NEW.borrower_id !~ '^pseudonym_[0-9a-f]{32}$' OR NOT EXISTS (SELECT FROM loan_events
      WHERE loan_id = NEW.id AND version = NEW.version AND action = 'pseudonymised') THEN
    RAISE EXCEPTION 'row of "loans" violates constraint "%": a borrower becomes nothing but a pseudonym, with an event', TG_NAME
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER loan_becomes_a_pseudonym AFTER UPDATE ON loans FOR EACH ROW
  WHEN (NEW.borrower_id <> OLD.borrower_id) EXECUTE FUNCTION loan_becomes_a_pseudonym();
