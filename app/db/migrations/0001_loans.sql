-- Limits that a business may change (largest amount, digits per currency) are settings of the service.
-- What must hold for every row, whoever writes it, is here. 'NaN' is greater than every number for Postgres.
CREATE TABLE loans (
  id                uuid PRIMARY KEY,
  borrower_id       text NOT NULL CHECK (borrower_id <> ''),
  amount            numeric(19, 4) NOT NULL CHECK (amount > 0 AND amount <> 'NaN'),
  currency          text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
  term_months       integer CHECK (term_months >= 1),
  interest_rate_apr numeric(5, 2) CHECK (interest_rate_apr BETWEEN 0 AND 100),
  status            text NOT NULL
    CHECK (status IN ('pending', 'approved', 'rejected', 'disbursed', 'repaid', 'defaulted')),
  created_at        timestamptz NOT NULL,
  updated_at        timestamptz NOT NULL
);

-- The list of loans, newest first, and every page of it.
CREATE INDEX loans_newest_first ON loans (created_at DESC, id DESC);
