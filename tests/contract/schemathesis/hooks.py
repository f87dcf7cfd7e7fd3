"""What the document can't say about requests."""

import re
import uuid

import schemathesis

KEY = "Idempotency-Key"


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key is for one request: of the keys that are made up, the valid ones are made unique."""
    key = (case.headers or {}).get(KEY)
    if isinstance(key, str) and re.fullmatch("[!#-~]([ -~]*[!-~])?", key):
        case.headers[KEY] = str(uuid.uuid4())
