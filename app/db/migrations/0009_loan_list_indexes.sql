-- outside a transaction
-- What a page of the list goes along (app/db/loan-pages.ts) besides loans_newest_first. Each costs every insert, so
-- there is none for what those can do that are here. Measured with 10 million loans: see docs/decisions/0011.
CREATE INDEX CONCURRENTLY loans_in_status ON loans (status, created_at, id);
CREATE INDEX CONCURRENTLY loans_of_borrower ON loans (borrower_id, created_at, id);
CREATE INDEX CONCURRENTLY loans_by_amount ON loans (amount, id);
