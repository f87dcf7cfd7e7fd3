"""Where the service differs from FastAPI on purpose: the case, what each side answers, and why.

An entry passes only while both sides answer exactly this, and differ.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from answers import Answer, as_text, todo
from cases import AUTHORIZATIONS, BOOLEANS, HAS, METHODS

# `Allow` of the service, sorted. What the contract adds to a path is added here.
ALLOW = {"/": "GET, HEAD", "/health": "GET, HEAD", "/todos": "DELETE, GET, HEAD, POST", "/todos/1": "DELETE, GET, HEAD, PATCH, PUT"}
# FastAPI names only the methods of the first route with the path.
ALLOW_FIRST = {"/": "GET", "/health": "GET", "/todos": "POST", "/todos/1": "GET"}


@dataclass(frozen=True)
class Difference:
    """One entry: an answer for each request of the case."""

    case: str
    reason: str
    reference: tuple[Answer, ...]
    service: tuple[Answer, ...]


def differs(case: str, reason: str, reference: Answer, service: Answer) -> Difference:
    """A case of one request."""
    return Difference(case, reason, (reference,), (service,))


def detail(status: int, value: Any, **headers: str) -> Answer:
    return Answer(status, as_text({"detail": value}), **headers)


def invalid(kind: str, loc: Sequence[str | int], msg: str, value: Any, **ctx: Any) -> dict[str, Any]:
    """One problem of a 422."""
    return {"type": kind, "loc": loc, "msg": msg, "input": value} | ({"ctx": ctx} if ctx else {})


def not_json(offset: int, error: str) -> Answer:
    return detail(422, [invalid("json_invalid", ["body", offset], "JSON decode error", {}, error=error)])


def a_todo(
    status: int, title: str = "x", description: str | None = None, completed: bool = False, time: str = "<time>"
) -> Answer:
    fields = {"title": title, "description": description, "completed": completed}
    return Answer(status, as_text(todo([("id", "<id>"), *fields.items(), ("created_at", time), ("updated_at", time)])))


CRASH = Answer(500, "Internal Server Error", "text/plain")
NOT_FOUND = detail(404, "Not Found")
TODO_NOT_FOUND = detail(404, "Todo not found")
NOT_AUTHENTICATED = detail(401, "Not authenticated", www_authenticate="Bearer")
BAD_TOKEN_OF_FASTAPI = detail(401, "Invalid or expired token", www_authenticate="Bearer")
BAD_TOKEN = detail(
    401,
    "Invalid or expired token",
    www_authenticate='Bearer error="invalid_token", error_description="Invalid or expired token"',
)
UNREADABLE = detail(400, "There was an error parsing the body")


def booleans() -> Iterable[Difference]:
    why = "booleans are only true and false, so that the document tells the truth"
    accepted = {'"true"': True, '"yes"': True, '"off"': False, '"1"': True, "1": True, "0": False, "1.0": True}
    loc, message = ["body", "completed"], "Input should be a valid boolean"
    for name, sent in BOOLEANS.items():
        if name in accepted:
            reference = a_todo(201, completed=accepted[name])
        elif name == "0.5":
            continue  # A float that is neither 0 nor 1 is no boolean for pydantic either.
        else:
            reference = detail(422, [invalid("bool_parsing", loc, f"{message}, unable to interpret input", sent)])
        yield differs(f"POST completed {name}", why, reference, detail(422, [invalid("bool_type", loc, message, sent)]))


def malformed_json() -> Iterable[Difference]:
    why = "json_invalid has our parser's message, and the offset where our parser stopped; clients go by the type"
    property_name, control = "Expecting property name enclosed in double quotes", "control character (\\u0000-\\u001F) found"
    rows = [
        ("white space", 2, "Expecting value", 2, "EOF while parsing a value"),
        ("an open object", 1, property_name, 1, "EOF while parsing an object"),
        ("an open string", 10, "Unterminated string starting at", 12, "EOF while parsing a string"),
        ("an open array", 5, "Expecting ',' delimiter", 5, "EOF while parsing a list"),
        ("a key without quotes", 1, property_name, 1, "key must be a string"),
        ("single quotes", 1, property_name, 1, "key must be a string"),
        ("no colon", 9, "Expecting ':' delimiter", 9, "expected `:`"),
        ("no value", 10, "Expecting value", 10, "expected value"),
        ("no comma", 14, "Expecting ',' delimiter", 14, "expected `,` or `}`"),
        ("a trailing comma", 14, property_name, 14, "trailing comma"),
        ("a trailing comma in an array", 26, "Expecting value", 26, "trailing comma"),
        ("two objects", 15, "Extra data", 15, "trailing characters"),
        ("a comment", 15, "Extra data", 15, "trailing characters"),
        ("True as Python writes it", 28, "Expecting value", 28, "expected value"),
        ("a leading zero", 11, "Expecting ',' delimiter", 11, "invalid number"),
        ("an unknown escape", 11, "Invalid \\escape", 12, "invalid escape"),
        ("a short unicode escape", 12, "Invalid \\uXXXX escape", 16, "invalid escape"),
        ("a line break in a string", 12, "Invalid control character at", 12, f"{control} while parsing a string"),
        ("a tab in a string", 12, "Invalid control character at", 12, f"{control} while parsing a string"),
        ("an error after umlauts on a second line", 21, "Expecting value", 21, "expected value"),
        ("a form", 0, "Expecting value", 1, "expected ident"),
        ("text", 0, "Expecting value", 0, "expected value"),
    ]
    for name, offset, error, our_offset, our_error in rows:
        yield differs(f"POST bad JSON: {name}", why, not_json(offset, error), not_json(our_offset, our_error))
    reference, service = not_json(1, property_name), not_json(1, "EOF while parsing an object")
    unchanged = a_todo(200, "Learn", "Master")
    yield Difference("PUT bad JSON", why, (reference, unchanged), (service, unchanged))
    yield differs("PUT bad JSON to a bad id", why, reference, service)


def not_quite_json() -> Iterable[Difference]:
    surrogate = "\\ud800 is 422 (FastAPI fails, or overlooks it)"
    end, lone = "unexpected end of hex escape", "lone leading surrogate in hex escape"
    yield differs("POST bad JSON: a lone high surrogate", surrogate, CRASH, not_json(17, end))
    yield differs("POST bad JSON: a lone low surrogate", surrogate, CRASH, not_json(17, lone))
    yield differs("POST bad JSON: a lone surrogate in an unknown field", surrogate, a_todo(201), not_json(31, end))

    number = "bad JSON is json_invalid, and NaN and Infinity are no JSON (RFC 8259, section 6)"
    yield differs("POST bad JSON: NaN", number, CRASH, not_json(10, "expected value"))
    yield differs("POST bad JSON: Infinity", number, CRASH, not_json(11, "invalid number"))
    yield differs("POST bad JSON: NaN in an unknown field", number, a_todo(201), not_json(24, "expected value"))

    double = "numbers are doubles, and one that is larger can't be kept (FastAPI reads infinity, and fails when it echoes it)"
    beyond = "number out of range"
    yield differs("POST bad JSON: a number beyond a double", double, CRASH, not_json(14, beyond))
    yield differs("POST bad JSON: a number beyond a double in an unknown field", double, a_todo(201), not_json(28, beyond))

    echo = "numbers are doubles or 64-bit integers, which is how a wrong value is shown again; clients go by the type"
    string_type = partial(invalid, "string_type", ["body", "title"], "Input should be a valid string")
    for case, sent, shown in [
        ("POST a large integer", 123456789012345678901234567890, 123456789012345678901234567890.0),
        ("POST minus zero", 0, -0.0),
    ]:
        yield differs(case, echo, detail(422, [string_type(sent)]), detail(422, [string_type(shown)]))

    depth, exceeded = "arrays and objects are at most 127 deep, so that no body overflows the stack", "recursion limit exceeded"
    yield differs("POST bad JSON: 200 levels of arrays", depth, a_todo(201), not_json(150, exceeded))
    yield differs("POST bad JSON: 100,000 open arrays", depth, UNREADABLE, not_json(127, exceeded))

    crash = "FastAPI fails here; a body that is not called JSON is told as for any other text"
    dictionary = "Input should be a valid dictionary or object to extract fields from"
    text = detail(422, [invalid("model_attributes_type", ["body"], dictionary, "\ufffd")])
    yield differs("POST text with invalid UTF-8", crash, CRASH, text)

    utf8 = "JSON is UTF-8 (RFC 8259, section 8.1)"
    yield differs("POST bad JSON: an encoded surrogate", utf8, CRASH, UNREADABLE)
    yield differs("POST bad JSON: UTF-16", utf8, a_todo(201), UNREADABLE)


def not_an_id(sent: str) -> dict[str, Any]:
    message = "Input should be a valid integer, unable to parse string as an integer"
    return invalid("int_parsing", ["path", "id"], message, sent)


def limits() -> Iterable[Difference]:
    yield differs(
        "POST 300 KiB",
        "a JSON body has at most 256 KiB",
        a_todo(201),
        detail(413, "Request body is larger than 262144 bytes"),
    )
    shown, long = "a 422 shows at most 1,024 bytes of a value", "ü" * 10_001
    too_long = partial(
        invalid, "string_too_long", ["body", "description"], "String should have at most 10000 characters", max_length=10_000
    )
    reference, service = detail(422, [too_long(long)]), detail(422, [too_long(long[:512] + "…")])
    unchanged = a_todo(200, "Learn", "Master")
    yield differs("POST description of 10,001 characters", shown, reference, service)
    yield Difference("PUT description of 10,001 characters", shown, (reference, unchanged), (service, unchanged))
    message = "Unable to parse input string as an integer, exceeded maximum size"
    yield differs(
        "GET id 5,000 digits",
        "an id beyond i64 is 404",
        detail(422, [invalid("int_parsing_size", ["path", "id"], message, "9" * 5_000)]),
        TODO_NOT_FOUND,
    )
    why = "an id is digits, perhaps with a sign (pydantic also takes what Python's int() takes, and whole floats)"
    for name, sent in [("with spaces", " <todo> "), ("as a float", "<todo>.0"), ("with an underscore", "0_<todo>")]:
        yield differs(f"GET id {name}", why, a_todo(200, "Learn", "Master"), detail(422, [not_an_id(sent)]))


def authorization() -> Iterable[Difference]:
    codes = "RFC 6750 error codes where a token was sent"
    # What only FastAPI takes for a token, or for no token, differs in more than the header.
    same = {"empty", "only the scheme", "the scheme and a space", "no scheme", "another scheme", "another scheme with a token",
            "a misspelt scheme", "scheme and token joined", "not ASCII", "padding"}  # fmt: skip
    cases = [f"Authorization {name}" for name in AUTHORIZATIONS if name not in same]
    for case in [*cases, "POST a bad body with a bad token", "GET a bad id with a bad token"]:
        yield differs(case, codes, BAD_TOKEN_OF_FASTAPI, BAD_TOKEN)

    malformed = "a malformed Authorization is Not authenticated"
    yield differs("Authorization not ASCII", malformed, BAD_TOKEN_OF_FASTAPI, NOT_AUTHENTICATED)
    yield differs("two headers, the first good", malformed, TODO_NOT_FOUND, NOT_AUTHENTICATED)
    yield differs("two headers, the first bad", malformed, BAD_TOKEN_OF_FASTAPI, NOT_AUTHENTICATED)

    padded = "a JWT has no base64 padding (RFC 7515, section 2): a token has one spelling"
    yield differs("Authorization padding", padded, TODO_NOT_FOUND, BAD_TOKEN)
    unnumbered = (
        "a token names the account by its number (uid), as a name may change hands; the seed's tokens end within 30 minutes"
    )
    yield differs("Authorization a token as the seed issued them", unnumbered, TODO_NOT_FOUND, BAD_TOKEN)

    first = "without a good Authorization 401, whatever the body (FastAPI reads the body first)"
    reference = not_json(1, "Expecting property name enclosed in double quotes")
    yield differs("POST bad JSON without Authorization", first, reference, NOT_AUTHENTICATED)
    yield differs("POST bad JSON with a bad token", first, reference, BAD_TOKEN)


def logins() -> Iterable[Difference]:
    why = "/auth/login also takes a form or JSON body"
    missing = [invalid("missing", ["query", name], "Field required", None) for name in ("username", "password")]
    token = Answer(200, as_text({"access_token": "<token>", "token_type": "bearer"}))
    case = "names that differ only in case are one name, so that nobody can register as somebody else's look-alike"
    refused = detail(401, "Invalid username or password", www_authenticate="Bearer")
    yield differs("login user in capitals", case, refused, token)
    yield differs("login with a form", why, detail(422, missing), token)
    yield differs("login with JSON", why, detail(422, missing), token)
    yield differs("login with half a query and a form", why, detail(422, missing[1:]), token)
    yield differs("login with bad JSON", why, detail(422, missing), not_json(1, "EOF while parsing an object"))


def methods() -> Iterable[Difference]:
    full, head = "405 with the full Allow", "HEAD works where GET does"
    for path, allow in ALLOW.items():
        for method in METHODS:
            case, refused = f"{method} {path}", detail(405, "Method Not Allowed", allow=ALLOW_FIRST[path])
            if method in HAS[path]:
                continue
            if method == "HEAD":
                yield differs(case, head, Answer(405, allow=ALLOW_FIRST[path]), Answer(200))
            else:
                yield differs(case, full, refused, detail(405, "Method Not Allowed", allow=allow))
    yield differs(
        "GET in lower case",
        full,
        detail(405, "Method Not Allowed", allow="GET"),
        detail(405, "Method Not Allowed", allow=ALLOW["/health"]),
    )
    yield differs("HEAD /todos", head, Answer(405, allow="POST"), Answer(200))
    yield differs("HEAD a todo", head, Answer(405, allow="GET"), Answer(200))
    yield differs("HEAD a todo that is not there", head, Answer(405, allow="GET"), Answer(404))
    yield differs("HEAD without Authorization", head, Answer(405, allow="POST"), Answer(401, www_authenticate="Bearer"))


def paths() -> Iterable[Difference]:
    why = "307 only on GET and HEAD, or DELETE /todos/ with an empty id would delete all"
    login = "/auth/login/?username=demo&password=demo123"
    for method, path in [
        ("POST", "/todos/"), ("DELETE", "/todos/"), ("PUT", "/todos/1/"), ("DELETE", "/todos/1/"), ("POST", login),
    ]:  # fmt: skip
        redirect = Answer(307, content_type=None, location=path.replace("/?", "?").removesuffix("/"))
        yield differs(f"a slash at the end: {method} {path}", why, redirect, NOT_FOUND)

    full = "a server MUST take a full URL (RFC 9112, section 3.2.2), uvicorn does not"
    health = {"status": "healthy", "version": "2.0.0", "app": "Todo Backend API with Auth"}
    yield differs("a full URL as target", full, NOT_FOUND, Answer(200, as_text(health)))

    encoded = "%2F is not / (RFC 3986, section 2.2)"
    yield differs("an encoded slash between the parts", encoded, TODO_NOT_FOUND, NOT_FOUND)
    yield differs("GET unknown path /todos%2F", encoded, Answer(307, content_type=None, location="/todos"), NOT_FOUND)
    yield differs(
        "GET id with an encoded slash",
        encoded,
        Answer(307, content_type=None, location="/todos/<todo>"),
        detail(422, [not_an_id("<todo>/")]),
    )


def times() -> Iterable[Difference]:
    example = ("Test Todo", "Testing the API", False)
    yield differs(
        "times in a new todo",
        "times are UTC with Z and milliseconds; naive times break generated clients",
        a_todo(201, *example, "0000-00-00T00:00:00"),
        a_todo(201, *example, "0000-00-00T00:00:00.000Z"),
    )


INTENDED: list[Difference] = [
    *times(),
    *booleans(),
    *malformed_json(),
    *not_quite_json(),
    *limits(),
    *authorization(),
    *logins(),
    *methods(),
    *paths(),
]
