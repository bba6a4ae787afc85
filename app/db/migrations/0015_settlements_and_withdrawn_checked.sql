-- Reads both tables, and lets others write meanwhile. In a file of its own: the locks of 0013 and 0014 are given back.
ALTER TABLE repayments VALIDATE CONSTRAINT repayments_settlement_check;
ALTER TABLE loans VALIDATE CONSTRAINT loans_status_check;
