"""What the document can't say about requests."""

import re
import uuid

import schemathesis

NAME = "Idempotency-Key"
VALID = r"""("[ !#-\[\]-~]{1,255}"|[!#-~]([ -~]{0,253}[!-~])?)"""


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key is for one request: of the keys that are made up, the valid ones are made unique."""
    key = (case.headers or {}).get(NAME)
    if isinstance(key, str) and re.fullmatch(VALID, key):
        case.headers[NAME] = str(uuid.uuid4())
