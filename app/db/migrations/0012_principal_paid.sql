-- What was paid back of each loan's principal, and the sum of it beside the other totals (see 0010). The service works it
-- out from the schedule and writes it with every entry of the ledger, as a whole and not as a difference: an entry of the
-- release before, which does not know of it, is made up for by the next one. Loans with payments from before are at 0
-- until then, or until `recount`.
ALTER TABLE loans ADD COLUMN principal_paid numeric(19, 4) NOT NULL DEFAULT 0;
ALTER TABLE loan_totals ADD COLUMN principal_paid numeric NOT NULL DEFAULT 0;

-- As in 0010, with one figure more.
CREATE OR REPLACE FUNCTION count_changed_loans() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  -- Names the advisory locks of shards; any number that nothing else uses as the first of two.
  locks CONSTANT integer := 7214403;
  shards CONSTANT integer := 64;
  mine integer;
BEGIN
  -- A shard is taken as a whole, by a lock that is tried and not waited for: no two writers meet on a row, and none
  -- can lock rows in another order than its neighbour. The search begins among the first few, so that only as many
  -- shards exist as there ever were writers at once.
  FOR step IN 0 .. shards - 1 LOOP
    mine := (pg_backend_pid() % 8 + step) % shards;
    EXIT WHEN pg_try_advisory_xact_lock(locks, mine);
    mine := NULL;
  END LOOP;
  IF mine IS NULL THEN
    mine := pg_backend_pid() % shards;
    PERFORM pg_advisory_xact_lock(locks, mine);
  END IF;

  IF TG_OP = 'INSERT' THEN
    INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount, principal_paid)
      SELECT mine, currency, status, count(*), sum(amount), sum(principal_paid) FROM added GROUP BY currency, status
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount,
          principal_paid = kept.principal_paid + excluded.principal_paid;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount, principal_paid)
      SELECT mine, currency, status, sum(loans), sum(amount), sum(principal_paid) FROM (
          SELECT currency, status, 1 AS loans, amount, principal_paid FROM added
          UNION ALL SELECT currency, status, -1, -amount, -principal_paid FROM removed) AS change
        GROUP BY currency, status HAVING sum(loans) <> 0 OR sum(amount) <> 0 OR sum(principal_paid) <> 0
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount,
          principal_paid = kept.principal_paid + excluded.principal_paid;
  ELSE
    INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount, principal_paid)
      SELECT mine, currency, status, -count(*), -sum(amount), -sum(principal_paid) FROM removed GROUP BY currency, status
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount,
          principal_paid = kept.principal_paid + excluded.principal_paid;
  END IF;
  RETURN NULL;
END $$;

CREATE OR REPLACE VIEW loan_totals_missing AS
  SELECT currency, status, sum(loans)::bigint AS loans, sum(amount) AS amount, sum(principal_paid) AS principal_paid FROM (
      SELECT currency, status, count(*) AS loans, sum(amount) AS amount, sum(principal_paid) AS principal_paid
        FROM loans GROUP BY currency, status
      UNION ALL SELECT currency, status, -loans, -amount, -principal_paid FROM loan_totals) AS both_counts
    GROUP BY currency, status HAVING sum(loans) <> 0 OR sum(amount) <> 0 OR sum(principal_paid) <> 0;
