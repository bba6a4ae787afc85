-- In a migration of its own, so that loans can be written while it runs: those have their event from 0003 on.
INSERT INTO loan_events (loan_id, version, at, actor, action, to_status, amount, currency)
  SELECT id, version, created_at, 'migration', 'created', status, amount, currency FROM loans
  WHERE NOT EXISTS (SELECT FROM loan_events WHERE loan_id = loans.id)
  ORDER BY created_at, id;
