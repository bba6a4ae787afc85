/**
 * What Postgres writes to its log: that something failed or was slow, and which statement, but never a value: borrowers,
 * keys and references are no business of a log. Whoever needs the values finds the request by its time in the API's log.
 */
export const POSTGRES_LOG: Readonly<Record<string, string>> = {
  log_min_duration_statement: '500ms',
  // Else a slow statement is logged with all that it was given.
  log_parameter_max_length: '0',
  log_parameter_max_length_on_error: '0',
  // Without DETAIL and CONTEXT, which name the key that is taken and the row that fails.
  log_error_verbosity: 'terse',
  // The service's own statements have no value in their text; those of a person at psql do.
  log_min_error_statement: 'panic',
  log_timezone: 'UTC',
};
