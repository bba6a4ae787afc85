-- A loan that is moved to repaid by hand is settled: what was outstanding becomes an entry of its ledger, at the version
-- of that move. It stands in the same table as payments, so that the release before, which adds up all entries, knows
-- the same outstanding amount. It shows the entry as a payment.
ALTER TABLE repayments ADD COLUMN settlement boolean NOT NULL DEFAULT false;
-- A settlement takes nothing back, and is no payment that a bank has a reference for. 0015 validates it.
ALTER TABLE repayments ADD CONSTRAINT repayments_settlement_check
  CHECK (NOT settlement OR (reverses IS NULL AND reference IS NULL)) NOT VALID;

-- The events that change the status of their loan, its creation included. Others keep it: a payment, a reversal of one,
-- a pseudonym. What a loan was before is asked for here, and nowhere else.
CREATE VIEW loan_status_changes AS
  SELECT sequence, loan_id, version, at, actor, action, from_status, to_status, reason, request_id
  FROM loan_events WHERE from_status IS DISTINCT FROM to_status;
