-- Number and amount of the loans by currency and status, so that statistics need not read the loans. Kept by triggers in
-- the transaction that changes loans: exact at every moment, whoever writes, releases that know nothing of it included.
-- 0011 adds the loans that are there already.
--
-- A group's figures are the sum over its shards, so that writers need not wait for each other: each has a shard of its
-- own until its transaction ends. A shard's figures may be negative: what one has counted another may take back.
-- Shard -1 holds what was not counted by a trigger: the loans from before, and corrections.
CREATE TABLE loan_totals (
  shard    integer NOT NULL,
  currency text NOT NULL,
  status   text NOT NULL,
  loans    bigint NOT NULL,
  amount   numeric NOT NULL,
  PRIMARY KEY (shard, currency, status)
)
-- Every write leaves a dead row. With room on its page the next one replaces it there (HOT), without vacuum and index.
WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Once for each statement, however many loans it changes.
CREATE FUNCTION count_changed_loans() RETURNS trigger LANGUAGE plpgsql AS $$
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
    INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount)
      SELECT mine, currency, status, count(*), sum(amount) FROM added GROUP BY currency, status
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount)
      SELECT mine, currency, status, sum(loans), sum(amount) FROM (
          SELECT currency, status, 1 AS loans, amount FROM added
          UNION ALL SELECT currency, status, -1, -amount FROM removed) AS change
        GROUP BY currency, status HAVING sum(loans) <> 0 OR sum(amount) <> 0
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount;
  ELSE
    INSERT INTO loan_totals AS kept (shard, currency, status, loans, amount)
      SELECT mine, currency, status, -count(*), -sum(amount) FROM removed GROUP BY currency, status
      ON CONFLICT (shard, currency, status) DO UPDATE
        SET loans = kept.loans + excluded.loans, amount = kept.amount + excluded.amount;
  END IF;
  RETURN NULL;
END $$;

-- These wait for the writers of this moment, and hold new ones up only until this migration is through, at once.
CREATE TRIGGER count_inserted_loans AFTER INSERT ON loans
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_changed_loans();
CREATE TRIGGER count_updated_loans AFTER UPDATE ON loans
  REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_changed_loans();
CREATE TRIGGER count_deleted_loans AFTER DELETE ON loans
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_changed_loans();

CREATE FUNCTION count_no_loans() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM loan_totals;
  RETURN NULL;
END $$;
CREATE TRIGGER count_no_loans AFTER TRUNCATE ON loans FOR EACH STATEMENT EXECUTE FUNCTION count_no_loans();

-- What a full count finds beyond the totals: nothing, at every moment, since one statement sees both at the same one.
CREATE VIEW loan_totals_missing AS
  SELECT currency, status, sum(loans)::bigint AS loans, sum(amount) AS amount FROM (
      SELECT currency, status, count(*) AS loans, sum(amount) AS amount FROM loans GROUP BY currency, status
      UNION ALL SELECT currency, status, -loans, -amount FROM loan_totals) AS both_counts
    GROUP BY currency, status HAVING sum(loans) <> 0 OR sum(amount) <> 0;
