-- Before the constraints that refuse such a figure. The service never wrote one: SQL by hand may have.
-- What was paid of the principal is then as unknown as before 0012: the next payment or `recount` works it out.
-- It reads all loans, and changes and locks only the broken ones, of which there are none or a few.
-- squawk-ignore rewrites-rows
UPDATE loans SET principal_paid = 0 WHERE principal_paid = 'NaN';
SELECT FROM correct_loan_totals();
