-- As 0018. No entry of a ledger ever changes, so old ones that break a rule are in nobody's way.
ALTER TABLE repayments
  ADD CONSTRAINT repayments_version_check CHECK (version >= 0) NOT VALID,
  ADD CONSTRAINT repayments_date_check CHECK (date BETWEEN '1900-01-01' AND '9999-12-31') NOT VALID,
  ADD CONSTRAINT repayments_created_at_check
    CHECK (created_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT repayments_reference_length CHECK (char_length(reference) <= 255) NOT VALID,
  ADD CONSTRAINT repayments_reason_length CHECK (char_length(reason) <= 1000) NOT VALID,
  ADD CONSTRAINT repayments_actor_length CHECK (char_length(actor) <= 255) NOT VALID,
  ADD CONSTRAINT repayments_request_id_length CHECK (char_length(request_id) <= 128) NOT VALID,
  -- The digits of loan_is_sound.
  ADD CONSTRAINT repayments_amount_digits CHECK (scale(trim_scale(amount)) <= CASE
    WHEN currency IN ('ADP', 'BEF', 'BIF', 'BYB', 'BYR', 'CLP', 'DJF', 'ESP', 'GNF', 'GRD', 'ISK', 'ITL', 'JPY', 'KMF',
      'KRW', 'LUF', 'MGF', 'PTE', 'PYG', 'ROL', 'RWF', 'TPE', 'TRL', 'UGX', 'UYI', 'VND', 'VUV', 'XAF', 'XOF', 'XPF') THEN 0
    WHEN currency IN ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') THEN 3
    WHEN currency IN ('CLF', 'UYW') THEN 4
    ELSE 2 END) NOT VALID;

-- No foreign key does this: what was paid outlives the loan (0006).
CREATE FUNCTION repayment_is_of_its_loan() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM loans WHERE id = NEW.loan_id AND currency = NEW.currency) THEN
    RAISE EXCEPTION 'row of "repayments" violates constraint "%": there is no loan % in %', TG_NAME, NEW.loan_id, NEW.currency
      USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = TG_NAME;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER repayment_is_of_its_loan BEFORE INSERT ON repayments
  FOR EACH ROW EXECUTE FUNCTION repayment_is_of_its_loan();
