-- A function finds the tables of this schema, whatever the session that calls it has set: a temporary table of the same
-- name stays out of the way (pg_temp comes last).
ALTER FUNCTION loan_events_are_final() SET search_path = pg_catalog, public, pg_temp;
ALTER FUNCTION repayments_are_final() SET search_path = pg_catalog, public, pg_temp;
ALTER FUNCTION loan_of_older_release() SET search_path = pg_catalog, public, pg_temp;
ALTER FUNCTION loan_disbursed_on(loans) SET search_path = pg_catalog, public, pg_temp;
ALTER FUNCTION loan_is_disbursed() SET search_path = pg_catalog, public, pg_temp;
-- Only these write the totals: with the rights of the owner, so that the role of the service needs none.
ALTER FUNCTION count_changed_loans() SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;
ALTER FUNCTION count_no_loans() SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp;

-- Adds to the totals what a full count finds beyond them, and returns it. A figure that is no number begins anew.
CREATE FUNCTION correct_loan_totals()
  RETURNS TABLE (currency text, status text, loans bigint, amount numeric, principal_paid numeric)
  LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
  -- Two corrections at once would both add the same difference.
  SELECT pg_advisory_xact_lock(7214403, -1);
  UPDATE loan_totals SET amount = 0 WHERE amount IN ('NaN', 'Infinity', '-Infinity');
  UPDATE loan_totals SET principal_paid = 0 WHERE principal_paid IN ('NaN', 'Infinity', '-Infinity');
  WITH missing AS MATERIALIZED (
      SELECT currency, status, loans, amount, principal_paid FROM loan_totals_missing ORDER BY currency, status),
    corrected AS (
      INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount, principal_paid)
      SELECT -1, currency, status, loans, amount, principal_paid FROM missing
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount,
          principal_paid = kept.principal_paid + excluded.principal_paid)
    SELECT * FROM missing
$$;
