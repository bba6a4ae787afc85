-- The answers of requests that carried an Idempotency-Key, written by the statement that did what they asked for.
-- A body shows a loan, so rows are deleted when they are no longer needed.
CREATE TABLE idempotency_keys (
  principal   text COLLATE "C" NOT NULL,
  operation   text COLLATE "C" NOT NULL,
  key         text COLLATE "C" NOT NULL,
  -- Of path, condition and body: a key names one request.
  fingerprint text NOT NULL,
  status      smallint NOT NULL CHECK (status BETWEEN 200 AND 499),
  headers     jsonb NOT NULL,
  body        text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (principal, operation, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
