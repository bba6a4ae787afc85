"""What a schema cannot say about a request: the rules below depend on what is stored, or on two values at once."""

import re

import schemathesis
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

# By the type of the problem, with the reason why a request that fits its schema may get it.
RULES_OF_STATE = {
    "urn:problem:idempotency-key-reused": "the key was used before, with another request",
    "urn:problem:version-mismatch": "the loan is not the version that If-Match names",
    "urn:problem:overpayment": "how much is outstanding",
    "urn:problem:invalid-amount": "how many digits and how much depends on the currency",
}
# The same for parameters.
PARAMETERS_OF_STATE = {
    "cursor": "whoever made it up did not get it from us",
    "sort": "one borrower's loans are sorted by amount only where they are few",
    "start_date": "a loan that is disbursed has its own",
}
# The same for properties of a body.
PROPERTIES_OF_STATE = {
    "/date": "a payment is not made in the future, nor before the money was paid out",
}


def keeps_to_the_pattern(case: Case, name: str) -> bool:
    """The tool has values of its own for some header fields, and does not ask the schema about all of them."""
    for parameter in case.operation.definition.raw.get("parameters", []):
        if parameter["name"] == name and name in case.headers:
            return re.search(parameter["schema"]["pattern"], case.headers[name]) is not None
    return True


@schemathesis.check
def good_data_is_accepted(ctx, response: Response, case: Case):
    """positive_data_acceptance, but for refusals for the reasons above."""
    if response.status_code == 400 and not keeps_to_the_pattern(case, "If-Match"):
        return None
    if response.status_code in (412, 422):
        problem = response.json()
        if problem["type"] in RULES_OF_STATE:
            return None
        if problem["type"] == "urn:problem:invalid-parameter":
            if {fault.get("parameter") for fault in problem["errors"]} <= PARAMETERS_OF_STATE.keys():
                return None
        if problem["type"] == "urn:problem:validation-error":
            if {fault.get("pointer") for fault in problem["errors"]} <= PROPERTIES_OF_STATE.keys():
                return None
    return positive_data_acceptance(ctx, response, case)
