-- The loans from before 0010, in a migration of its own, so that loans can be written while they are counted: whatever
-- is written is in the totals already. One statement sees loans and totals at one moment, and adds the difference.
SELECT pg_advisory_xact_lock(7214403, -1); -- As for every correction: two would add the same difference.
INSERT INTO loan_totals (shard, currency, status, loans, amount)
  SELECT -1, currency, status, loans, amount FROM loan_totals_missing;
