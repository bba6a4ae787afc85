-- As 0018, for the tables of the service itself.
ALTER TABLE api_keys
  ADD CONSTRAINT api_keys_name_length CHECK (char_length(name) <= 100) NOT VALID,
  ADD CONSTRAINT api_keys_scopes_length CHECK (cardinality(scopes) <= 20 AND array_position(scopes, NULL) IS NULL) NOT VALID,
  ADD CONSTRAINT api_keys_created_at_check
    CHECK (created_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT api_keys_expires_at_check
    CHECK (expires_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT api_keys_revoked_at_check
    CHECK (revoked_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT api_keys_last_used_at_check
    CHECK (last_used_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;

-- A key is what it was made as. It can be ended, never brought back or made to last longer.
CREATE TRIGGER api_key_facts_are_final BEFORE UPDATE ON api_keys FOR EACH ROW
  WHEN (NEW.id <> OLD.id OR NEW.digest <> OLD.digest OR NEW.name <> OLD.name OR NEW.scopes <> OLD.scopes
    OR NEW.created_at <> OLD.created_at
    OR (OLD.expires_at IS NOT NULL AND (NEW.expires_at IS NULL OR NEW.expires_at > OLD.expires_at))
    OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
    OR (OLD.replaced_by IS NOT NULL AND NEW.replaced_by IS DISTINCT FROM OLD.replaced_by))
  EXECUTE FUNCTION refuse_row('id, digest, name, scopes and created_at of a key never change, and its end is never taken back or put off');

ALTER TABLE idempotency_keys
  ADD CONSTRAINT idempotency_keys_principal_length CHECK (char_length(principal) <= 255) NOT VALID,
  ADD CONSTRAINT idempotency_keys_operation_length CHECK (char_length(operation) <= 255) NOT VALID,
  ADD CONSTRAINT idempotency_keys_key_length CHECK (char_length(key) BETWEEN 1 AND 255) NOT VALID,
  ADD CONSTRAINT idempotency_keys_fingerprint_length CHECK (char_length(fingerprint) <= 255) NOT VALID,
  -- An answer to 1000 loans has less than 1 MB.
  ADD CONSTRAINT idempotency_keys_body_length CHECK (octet_length(body) <= 16777216) NOT VALID,
  ADD CONSTRAINT idempotency_keys_created_at_check
    CHECK (created_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;

ALTER TABLE request_quotas
  ADD CONSTRAINT request_quotas_caller_length CHECK (char_length(caller) <= 255) NOT VALID,
  ADD CONSTRAINT request_quotas_slot_check CHECK (slot >= 0) NOT VALID,
  ADD CONSTRAINT request_quotas_used_check CHECK (cardinality(used) <= 1000 AND 0 <= ALL (used)) NOT VALID,
  ADD CONSTRAINT request_quotas_granted_check CHECK (granted >= 0) NOT VALID;

ALTER TABLE schema_migrations
  ADD CONSTRAINT schema_migrations_version_check CHECK (version > 0) NOT VALID,
  ADD CONSTRAINT schema_migrations_name_length CHECK (char_length(name) BETWEEN 1 AND 255) NOT VALID,
  ADD CONSTRAINT schema_migrations_checksum_length CHECK (char_length(checksum) BETWEEN 1 AND 255) NOT VALID,
  ADD CONSTRAINT schema_migrations_applied_at_check
    CHECK (applied_at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
