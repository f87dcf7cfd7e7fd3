"""What the document can't say about requests."""

import json
import re
import uuid

import schemathesis
from hypothesis import strategies

NAME = "Idempotency-Key"
VALID = r"""("[ !#-\[\]-~]{1,255}"|[!#-~]([ -~]{0,253}[!-~])?)"""


# Of another database: where it is sent, the stream ends with a `reset` instead of never.
FOREIGN = "0123456789abcdef-1"


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key is for one request: of the keys that are made up, the valid ones are made unique. A stream has to end."""
    if case.operation.path == "/events" and not (case.headers or {}).get("Last-Event-ID"):
        case.headers["Last-Event-ID"] = FOREIGN
    key = (case.headers or {}).get(NAME)
    if isinstance(key, str) and re.fullmatch(VALID, key):
        case.headers[NAME] = str(uuid.uuid4())


# Lines of an import: todos, lines of an export about changes, and empty ones.
TITLE = strategies.text(strategies.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
TODO = strategies.fixed_dictionaries({"title": TITLE}, optional={"completed": strategies.booleans()})
CHANGE = strategies.fixed_dictionaries({"revision": strategies.integers(), "event": strategies.just("created"), "todo": TODO})
LINES = strategies.lists(strategies.one_of(TODO, CHANGE).map(json.dumps) | strategies.just(""), min_size=1, max_size=9)
schemathesis.openapi.media_type("application/x-ndjson", LINES.map(lambda lines: ("\n".join(lines) + "\n").encode()))
