-- As 0018. Figures of a shard may be negative (0010), and each is a number. One that is not would stop every writer of
-- its shard: 0017 mended those from before.
ALTER TABLE loan_totals
  ADD CONSTRAINT loan_totals_shard_check CHECK (shard BETWEEN -1 AND 1000) NOT VALID,
  ADD CONSTRAINT loan_totals_currency_check CHECK (currency ~ '^[A-Z]{3}$') NOT VALID,
  ADD CONSTRAINT loan_totals_status_check CHECK (
    status IN ('pending', 'approved', 'rejected', 'withdrawn', 'disbursed', 'repaid', 'defaulted')) NOT VALID,
  ADD CONSTRAINT loan_totals_loans_check CHECK (abs(loans) <= 1000000000000) NOT VALID,
  ADD CONSTRAINT loan_totals_amount_check CHECK (amount > '-Infinity' AND amount < 'Infinity') NOT VALID,
  ADD CONSTRAINT loan_totals_principal_paid_check
    CHECK (principal_paid > '-Infinity' AND principal_paid < 'Infinity') NOT VALID;
