-- As 0018. No event ever changes, so old ones that break a rule are in nobody's way.
ALTER TABLE loan_events
  ADD CONSTRAINT loan_events_sequence_check CHECK (sequence > 0) NOT VALID,
  ADD CONSTRAINT loan_events_version_check CHECK (version >= 0) NOT VALID,
  ADD CONSTRAINT loan_events_at_check
    CHECK (at BETWEEN '1900-01-01 00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
  ADD CONSTRAINT loan_events_actor_length CHECK (char_length(actor) <= 255) NOT VALID,
  ADD CONSTRAINT loan_events_action_length CHECK (char_length(action) <= 64) NOT VALID,
  ADD CONSTRAINT loan_events_from_status_check CHECK (
    from_status IN ('pending', 'approved', 'rejected', 'withdrawn', 'disbursed', 'repaid', 'defaulted')) NOT VALID,
  ADD CONSTRAINT loan_events_to_status_check CHECK (
    to_status IN ('pending', 'approved', 'rejected', 'withdrawn', 'disbursed', 'repaid', 'defaulted')) NOT VALID,
  ADD CONSTRAINT loan_events_reason_length CHECK (char_length(reason) <= 1000) NOT VALID,
  ADD CONSTRAINT loan_events_request_id_length CHECK (char_length(request_id) <= 128) NOT VALID,
  ADD CONSTRAINT loan_events_amount_check CHECK (amount > 0 AND amount <> 'NaN') NOT VALID,
  ADD CONSTRAINT loan_events_currency_check CHECK (currency ~ '^[A-Z]{3}$') NOT VALID;
