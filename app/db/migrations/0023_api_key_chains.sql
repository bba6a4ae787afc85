-- outside a transaction
-- Which key follows which is looked up both ways, since a client is the whole chain of keys that rotations made: the
-- primary key leads on, and this leads back. See decision 45.
CREATE INDEX CONCURRENTLY api_keys_by_successor ON api_keys (replaced_by);
