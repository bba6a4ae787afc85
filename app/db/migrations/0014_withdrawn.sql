-- A loan that is pending or approved can be withdrawn. Every value that the release before writes is still allowed; the
-- rows that are there are not read now. 0015 validates it.
ALTER TABLE loans DROP CONSTRAINT loans_status_check, ADD CONSTRAINT loans_status_check
  CHECK (status IN ('pending', 'approved', 'rejected', 'withdrawn', 'disbursed', 'repaid', 'defaulted')) NOT VALID;
