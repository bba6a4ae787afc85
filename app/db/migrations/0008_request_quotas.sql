-- How many requests each caller has bought in the last slots of time: the ledger behind the rate limits.
-- UNLOGGED: a row is worth nothing after one window, so a crash of the server may cost callers' counts, and a batch of
-- requests is not worth a write to the log. It holds client addresses, which then are in no log and on no replica.
CREATE UNLOGGED TABLE request_quotas (
  caller         text COLLATE "C" NOT NULL,
  -- Releases with different windows, side by side during a deploy, count apart.
  window_seconds integer NOT NULL CHECK (window_seconds > 0),
  -- Number of the newest slot, of which a window has 60, since 1970.
  slot           bigint NOT NULL,
  -- Bought in that slot, the one before it, and so on.
  used           integer[] NOT NULL,
  -- What the last one to ask got.
  granted        integer NOT NULL,
  PRIMARY KEY (caller, window_seconds)
) WITH (fillfactor = 50);
