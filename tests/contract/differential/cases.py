"""The requests that both services get: good ones, bad ones and odd ones, for every route of the seed.

`<name>` in a target or a header value stands for what differs between the services: `<demo>` and `<user>` are access tokens,
`<todo>` is a todo of the demo user made for this case alone, `<foreign>` one of the user `user`, `<gone>` a deleted one;
the other names are tokens that `differential.py` forges.
"""

import json
from dataclasses import dataclass
from typing import Any

Headers = tuple[tuple[str, str], ...]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
LOGIN = "/auth/login"
TODO = "/todos/<todo>"


@dataclass(frozen=True)
class Request:
    """One request, byte for byte: nothing is added but Host, Connection and, for a body, its length."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes | None = None


@dataclass(frozen=True)
class Case:
    """Requests sent one after the other; each answer is compared."""

    name: str
    requests: tuple[Request, ...]
    # Compare the form of times too, which elsewhere are only known to be times.
    times_as_sent: bool = False


def bearer(token: str) -> Headers:
    return (("Authorization", f"Bearer {token}"),)


def bare(method: str, target: str, *headers: tuple[str, str], body: bytes | None = None) -> Request:
    """A request with nothing but what is given."""
    return Request(method, target, headers, body)


def get(target: str = TODO, *, user: str = "<demo>", method: str = "GET") -> Request:
    return Request(method, target, bearer(user))


def delete(target: str = TODO) -> Request:
    return get(target, method="DELETE")


def send(method: str, target: str, body: bytes | str, *, content_type: str | None = JSON, user: str = "<demo>") -> Request:
    """A body as it is; no Content-Type if that is None."""
    encoded = body if isinstance(body, bytes) else body.encode()
    kind = () if content_type is None else (("Content-Type", content_type),)
    return Request(method, target, bearer(user) + kind, encoded)


def post(value: Any, *, user: str = "<demo>") -> Request:
    return send("POST", "/todos", json.dumps(value), user=user)


def put(value: Any, target: str = TODO) -> Request:
    return send("PUT", target, json.dumps(value))


def one(name: str, request: Request) -> Case:
    return Case(name, (request,))


def then_read(name: str, request: Request) -> Case:
    """What the todo is like afterwards counts as much as the answer."""
    return Case(name, (request, get()))


# Bodies that are not JSON, or that not every parser takes.
BAD_JSON: dict[str, bytes | str] = {
    "white space": "  ",
    "an open object": "{",
    "an open string": '{"title": "x',
    "an open array": "[1, 2",
    "a key without quotes": '{title: "x"}',
    "single quotes": "{'title': 'x'}",
    "no colon": '{"title" "x"}',
    "no value": '{"title": }',
    "no comma": '{"title": "x" "completed": true}',
    "a trailing comma": '{"title": "x",}',
    "a trailing comma in an array": '{"title": "x", "tags": [1,]}',
    "two objects": '{"title": "x"} {"title": "y"}',
    "a comment": '{"title": "x"} // why',
    "True as Python writes it": '{"title": "x", "completed": True}',
    "a leading zero": '{"title": 01}',
    "an unknown escape": '{"title": "\\x41"}',
    "a short unicode escape": '{"title": "\\u12"}',
    "a line break in a string": '{"title": "a\nb"}',
    "a tab in a string": '{"title": "a\tb"}',
    "an error after umlauts on a second line": '{"ü": "ö",\n "title": ß}',
    "a lone high surrogate": '{"title": "\\ud800"}',
    "a lone low surrogate": '{"title": "a\\udc00b"}',
    "a lone surrogate in an unknown field": '{"title": "x", "other": "\\ud800"}',
    "invalid UTF-8": b'{"title": "\xff"}',
    "UTF-8 cut short": b'{"title": "\xc3',
    "an encoded surrogate": b'{"title": "\xed\xa0\x80"}',
    "Latin-1": '{"title": "Müll"}'.encode("latin-1"),
    "UTF-16": '{"title": "x"}'.encode("utf-16"),
    "a byte order mark": '{"title": "x"}'.encode("utf-8-sig"),
    "NaN": '{"title": NaN}',
    "Infinity": '{"title": -Infinity}',
    "NaN in an unknown field": '{"title": "x", "other": NaN}',
    "a number beyond a double": '{"title": 1e400}',
    "a number beyond a double in an unknown field": '{"title": "x", "other": 1e400}',
    "120 levels of arrays": '{"title": "x", "other": ' + "[" * 120 + "]" * 120 + "}",
    "200 levels of arrays": '{"title": "x", "other": ' + "[" * 200 + "]" * 200 + "}",
    "100,000 open arrays": "[" * 100_000,
    "a form": "title=x&completed=true",
    "text": "hello",
}

# JSON, but not what the route wants. For POST and PUT alike.
WRONG_VALUES: dict[str, Any] = {
    "null": None,
    "an array": [],
    "an array with a todo": [{"title": "x"}],
    "a string": "x",
    "a number": 1,
    "a float": 1.5,
    "true": True,
    "title null": {"title": None},
    "title a number": {"title": 5},
    "title a float": {"title": 1.0},
    "title a boolean": {"title": True},
    "title an array": {"title": ["x"]},
    "title an object": {"title": {"a": [1, None, {"b": "ü"}]}},
    "title empty": {"title": ""},
    "title of 201 characters": {"title": "x" * 201},
    "title of 201 characters beyond the BMP": {"title": "😀" * 201},
    "description a number": {"title": "x", "description": 5},
    "description an array": {"title": "x", "description": []},
    "description of 10,001 characters": {"title": "x", "description": "ü" * 10_001},
    "completed null": {"title": "x", "completed": None},
    "completed an array": {"title": "x", "completed": []},
    "completed an object": {"title": "x", "completed": {}},
    "everything wrong": {"title": "", "description": 1, "completed": None},
    "everything wrong in another order": {"completed": [], "description": {}, "title": 1},
}

# pydantic takes some of these for booleans.
BOOLEANS: dict[str, Any] = {
    '"true"': "true",
    '"yes"': "yes",
    '"off"': "off",
    '"1"': "1",
    "1": 1,
    "0": 0,
    "1.0": 1.0,
    "2": 2,
    "0.5": 0.5,
    '"maybe"': "maybe",
    '"": empty': "",
}

GOOD_VALUES: dict[str, Any] = {
    "only a title": {"title": "Learn FastAPI"},
    "everything": {"title": "Learn FastAPI", "description": "Master FastAPI", "completed": True},
    "description null": {"title": "x", "description": None},
    "description empty": {"title": "x", "description": ""},
    "description of 10,000 characters": {"title": "x", "description": "ü" * 10_000},
    "title of 1 character": {"title": "x"},
    "title of 200 characters": {"title": "ü" * 200},
    "title of 200 characters beyond the BMP": {"title": "😀" * 200},
    "title of spaces": {"title": "   "},
    "title with control characters": {"title": "\x00\x01\n\t\x7f"},
    "title with characters that HTML escapes": {"title": "<b>&amp;'\"\\/</b>\u2028"},
    "title decomposed": {"title": "u\u0308"},
    "title with a byte order mark": {"title": "\ufeffx"},
    "unknown fields": {"title": "x", "priority_": 5, "owner": "admin", "nested": {"title": 1}},
    "fields that the service sets": {"title": "x", "id": 99, "created_at": "then", "updated_at": None},
    "keys in another case": {"title": "x", "Title": 5, "COMPLETED": "no"},
}

CONTENT_TYPES: dict[str, str | None] = {
    "none": None,
    "empty": "",
    "text/plain": "text/plain",
    "a form's": FORM,
    "multipart without a boundary": "multipart/form-data",
    "application/octet-stream": "application/octet-stream",
    "text/json": "text/json",
    "application/jsonp": "application/jsonp",
    "no media type": "json",
    "with charset": "application/json; charset=utf-8",
    "with another charset": "application/json; charset=iso-8859-1",
    "in capitals": "Application/JSON",
    "with a vendor's suffix": "application/vnd.todo+json",
    "merge patch": "application/merge-patch+json",
    "a list": "text/plain, application/json",
}

IDS: dict[str, str] = {
    "a word": "abc",
    "a float": "1.5",
    "hexadecimal": "0x1",
    "an exponent": "1e3",
    "a minus alone": "-",
    "true": "true",
    "null": "null",
    "a comma": "1,2",
    "a quote": "%22",
    "an emoji": "%F0%9F%98%80",
    "an Arabic digit": "%D9%A1",
    "invalid UTF-8": "%ff",
    "a NUL": "%00",
    "a bad escape": "%zz",
    "a space": "%20",
    "0": "0",
    "-1": "-1",
    "i64's largest": "9223372036854775807",
    "beyond i64": "9223372036854775808",
    "far below i64": "-99999999999999999999",
    "100 digits": "9" * 100,
    "5,000 digits": "9" * 5_000,
    "never used": "123456789",
    "a deleted todo's": "<gone>",
    "another user's": "<foreign>",
    "with leading zeros": "000<todo>",
    "with a plus": "+<todo>",
    "with an encoded plus": "%2B<todo>",
    "with spaces": "%20<todo>%20",
    "as a float": "<todo>.0",
    "with an underscore": "0_<todo>",
    "with an encoded slash": "<todo>%2F",
    "with a semicolon": "<todo>;v=1",
    "with a query": "<todo>?fields=id",
    "with an empty query": "<todo>?",
    "with a slash in front": "/<todo>",
    "with a part after it": "<todo>/history_",
}

# Every `Authorization` that is no valid token. Names in <> are forged by differential.py.
AUTHORIZATIONS: dict[str, str] = {
    "empty": "",
    "only the scheme": "Bearer",
    "the scheme and a space": "Bearer ",
    "no scheme": "<demo>",
    "another scheme": "Basic ZGVtbzpkZW1vMTIz",
    "another scheme with a token": "Token <demo>",
    "a misspelt scheme": "Bearers <demo>",
    "scheme and token joined": "Bearer:<demo>",
    "garbage": "Bearer garbage",
    "not ASCII": "Bearer äöü",
    "two tokens": "Bearer <demo> <demo>",
    "a comma after it": "Bearer <demo>,",
    "in quotes": 'Bearer "<demo>"',
    "one dot": "Bearer a.b",
    "three dots": "Bearer <demo>.x",
    "only dots": "Bearer ..",
    "padding": "Bearer <demo>=",
    "expired": "Bearer <expired>",
    "another secret": "Bearer <another secret>",
    "alg none": "Bearer <alg none>",
    "another algorithm": "Bearer <another algorithm>",
    "an unknown user": "Bearer <unknown user>",
    "no exp": "Bearer <no exp>",
    "no sub": "Bearer <no sub>",
    "sub a number": "Bearer <sub a number>",
    "issued in the future": "Bearer <issued in the future>",
    "not valid yet": "Bearer <not valid yet>",
    "5,000 characters": "Bearer " + "a" * 5_000,
}

GOOD_AUTHORIZATIONS: dict[str, str] = {
    "lower case": "bearer <demo>",
    "capitals": "BEARER <demo>",
    "two spaces": "Bearer  <demo>",
    "spaces around": "  Bearer <demo>  ",
    "a tab": "Bearer\t<demo>",
    "a token as the seed issued them": "Bearer <seed token>",
}

LOGINS: dict[str, str] = {
    "right": "?username=demo&password=demo123",
    "in another order": "?password=user123&username=user",
    "wrong password": "?username=demo&password=wrong",
    "unknown user": "?username=nobody&password=demo123",
    "another user's password": "?username=demo&password=user123",
    "user in capitals": "?username=DEMO&password=demo123",
    "password in capitals": "?username=demo&password=DEMO123",
    "a space after the name": "?username=demo%20&password=demo123",
    "no query": "",
    "an empty query": "?",
    "no password": "?username=demo",
    "no username": "?password=demo123",
    "names in capitals": "?Username=demo&Password=demo123",
    "empty values": "?username=&password=",
    "names without values": "?username&password",
    "an empty password": "?username=demo&password=",
    "an extra parameter": "?username=demo&password=demo123&scope=todos&x",
    "the right password last": "?username=demo&password=wrong&password=demo123",
    "the wrong password last": "?username=demo&password=demo123&password=wrong",
    "two users": "?username=user&username=demo&password=demo123",
    "escapes": "?%75sername=d%65mo&password=demo12%33",
    "bad escapes": "?username=demo&password=%zz%",
    "invalid UTF-8": "?username=%ff&password=%fe",
    "not ASCII": "?username=d%C3%A9mo&password=%F0%9F%98%80",
    "a NUL": "?username=demo%00&password=demo123",
    "a plus": "?username=demo&password=demo123+",
    "semicolons": "?username=demo;password=demo123",
    "empty pairs": "?&&username=demo&&password=demo123&",
    "brackets": "?username[]=demo&password[]=demo123",
    "an equals sign in the password": "?username=demo&password=demo123=",
    "a long name": "?username=" + "x" * 5_000 + "&password=demo123",
}

PATHS = ("/", "/health", LOGIN, "/todos", "/todos/1")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
# Methods that a path has, and those that our contract adds to it: other cases, or other tests, have these.
HAS: dict[str, tuple[str, ...]] = {
    "/": ("GET",),
    "/health": ("GET",),
    LOGIN: ("POST",),
    "/todos": ("GET", "HEAD", "POST", "DELETE"),
    "/todos/1": ("GET", "HEAD", "PUT", "PATCH", "DELETE"),
}

UNKNOWN_PATHS = (
    "/nothing", "/todo", "/Todos", "/todos1", "/todos/1/2/3", "/nothing/", "//", "//todos", "/todos//", "/todos/1//",
    "/./todos", "/health/../todos", "/auth", "/auth/", "/auth/login/x", "/todos%2F", "/health%20", "/health;x=1",
)  # fmt: skip


def requests_of_clients() -> list[Case]:
    """What the README's snippets do. The lists of `admin` are complete, as no other case adds to them."""
    login = bare("POST", f"{LOGIN}?username=admin&password=admin123", ("Content-Type", JSON))
    example = {"title": "Test Todo", "description": "Testing the API", "completed": False}
    update = {"title": "Updated Title", "description": "Updated description", "completed": True}
    return [
        one("GET /", bare("GET", "/")),
        one("GET /health", bare("GET", "/health")),
        one("login as the README's curl does", login),
        one("a list of nothing", get("/todos", user="<admin>")),
        one("create as the README's curl does", post(example, user="<admin>")),
        one("a list of one", get("/todos", user="<admin>")),
        Case("a list of more, oldest first", (post({"title": "b"}, user="<admin>"), get("/todos", user="<admin>"))),
        one("nobody else sees them", get("/todos", user="<user>")),
        Case("times in a new todo", (post(example),), times_as_sent=True),
        one("read", get()),
        then_read("update as the README's curl does", put(update)),
        then_read("delete", delete()),
        Case("delete twice", (delete(), delete())),
        Case("update after delete", (delete(), put({"title": "x"}))),
        Case("read, then list, with a body", tuple(send("GET", target, "{") for target in (TODO, "/todos/0"))),
        one("delete with a body", send("DELETE", TODO, "not JSON")),
        one("a query that no route knows", get("/todos?unknown=1", user="<user>")),
        one("/docs", bare("GET", "/docs")),
        one("/redoc", bare("GET", "/redoc")),
        one("/openapi.json", bare("GET", "/openapi.json")),
    ]


def bodies() -> list[Case]:
    cases = [one(f"POST {name}", post(value)) for name, value in GOOD_VALUES.items()]
    cases += [one(f"POST {name}", post(value)) for name, value in WRONG_VALUES.items()]
    cases += [then_read(f"PUT {name}", put(value)) for name, value in {**GOOD_VALUES, **WRONG_VALUES}.items()]
    cases += [one(f"POST completed {name}", post({"title": "x", "completed": v})) for name, v in BOOLEANS.items()]
    cases += [one(f"POST bad JSON: {name}", send("POST", "/todos", body)) for name, body in BAD_JSON.items()]
    cases += [
        one(f"POST Content-Type: {name}", send("POST", "/todos", '{"title": "ü"}', content_type=kind))
        for name, kind in CONTENT_TYPES.items()
    ]
    chunked = bearer("<demo>") + (("Content-Type", JSON), ("Transfer-Encoding", "chunked"))
    expect = bearer("<demo>") + (("Content-Type", JSON), ("Expect", "100-continue"))
    return cases + [
        one("POST {}", post({})),
        one("POST missing title", post({"description": "ü", "completed": True, "other": [1, {"a": None}]})),
        one("POST missing title and more", post({"description": 1, "completed": None})),
        one("POST no body", bare("POST", "/todos", *bearer("<demo>"))),
        one("POST empty body", send("POST", "/todos", "")),
        one("POST a key twice", send("POST", "/todos", '{"title": "a", "title": "b"}')),
        one("POST a key twice, the last one wrong", send("POST", "/todos", '{"title": "a", "title": 1}')),
        one("POST a key twice, the first one wrong", send("POST", "/todos", '{"title": 1, "title": "a"}')),
        one("POST a surrogate pair", send("POST", "/todos", '{"title": "\\ud83d\\ude00"}')),
        one("POST escaped keys", send("POST", "/todos", '{"\\u0074itle": "\\u0041\\/"}')),
        one("POST white space around", send("POST", "/todos", ' \r\n\t{"title": "x"}\n ')),
        one("POST a large integer", send("POST", "/todos", '{"title": 123456789012345678901234567890}')),
        one("POST u64's largest", send("POST", "/todos", '{"title": 18446744073709551615}')),
        one("POST a long float", send("POST", "/todos", '{"title": 0.1234567890123456789}')),
        one("POST minus zero", send("POST", "/todos", '{"title": -0}')),
        one("POST 300 KiB", post({"title": "x", "other": "x" * (300 << 10)})),
        one("POST 250 KiB", post({"title": "x", "other": "x" * (250 << 10)})),
        one("POST Expect: 100-continue", Request("POST", "/todos", expect, b'{"title": "x"}')),
        one("POST chunked", Request("POST", "/todos", chunked, b'5\r\n{"tit\r\n9\r\nle": "x"}\r\n0\r\n\r\n')),
        one("POST text with invalid UTF-8", send("POST", "/todos", b"\xff", content_type="text/plain")),
        one("POST 1 as text", send("POST", "/todos", "1", content_type="text/plain")),
        one("POST empty body of a form", send("POST", "/todos", "", content_type=FORM)),
        then_read("PUT {}", put({})),
        then_read("PUT only completed", put({"completed": True})),
        then_read("PUT only a description", put({"description": "new"})),
        then_read("PUT only description null", put({"description": None})),
        then_read("PUT one good and one bad field", put({"title": "new", "completed": None})),
        then_read("PUT what it is already", put({"title": "Learn", "description": "Master", "completed": False})),
        then_read("PUT no body", Request("PUT", TODO, bearer("<demo>"))),
        then_read("PUT bad JSON", send("PUT", TODO, "{")),
        then_read("PUT invalid UTF-8", send("PUT", TODO, b'{"title": "\xff"}')),
        then_read("PUT as text", send("PUT", TODO, '{"title": "new"}', content_type="text/plain")),
        one("PUT a bad body to a todo that is not there", put({"title": 1}, "/todos/0")),
        one("PUT a good body to a todo that is not there", put({"title": "x"}, "/todos/0")),
        one("PUT a bad body to a bad id", put({"title": 1}, "/todos/abc")),
        one("PUT no object to a bad id", put([], "/todos/abc")),
        one("PUT bad JSON to a bad id", send("PUT", "/todos/abc", "{")),
        one("PUT no body to a bad id", Request("PUT", "/todos/abc", bearer("<demo>"))),
        one("PUT to a huge id", put({"title": "x"}, "/todos/99999999999999999999")),
        one("PUT a bad body to a huge id", put({"title": 1}, "/todos/99999999999999999999")),
        Case("PUT to another user's", (put({"title": "x"}, "/todos/<foreign>"), get("/todos/<foreign>", user="<user>"))),
    ]


def ids() -> list[Case]:
    cases = [one(f"GET id {name}", get(f"/todos/{id}")) for name, id in IDS.items()]
    for name in ("a word", "a float", "-1", "beyond i64", "another user's", "a deleted todo's", "with leading zeros"):
        cases.append(one(f"DELETE id {name}", delete(f"/todos/{IDS[name]}")))
    return cases


def authorization() -> list[Case]:
    cases = [
        one(f"Authorization {name}", bare("GET", "/todos/0", ("Authorization", value)))
        for name, value in {**AUTHORIZATIONS, **GOOD_AUTHORIZATIONS}.items()
    ]
    kind = ("Content-Type", JSON)
    return cases + [
        *(one(f"{method} {path} without Authorization", bare(method, path)) for method, path in (
            ("GET", "/todos"), ("POST", "/todos"), ("GET", "/todos/1"), ("PUT", "/todos/1"), ("DELETE", "/todos/1"),
            ("GET", "/todos/abc"), ("GET", "/nothing"),
        )),
        one("POST {} without Authorization", bare("POST", "/todos", kind, body=b"{}")),
        one("POST bad JSON without Authorization", bare("POST", "/todos", kind, body=b"{")),
        one("POST bad JSON with a bad token", send("POST", "/todos", "{", user="garbage")),
        one("POST a bad body with a bad token", send("POST", "/todos", "[]", user="garbage")),
        one("GET a bad id with a bad token", get("/todos/abc", user="garbage")),
        one("the name of the header in lower case", bare("GET", "/todos/0", ("authorization", "Bearer <demo>"))),
        one("two headers, the first good", bare("GET", "/todos/0", *bearer("<demo>"), *bearer("garbage"))),
        one("two headers, the first bad", bare("GET", "/todos/0", *bearer("garbage"), *bearer("<demo>"))),
        one("a token in the query", bare("GET", "/todos/0?access_token=<demo>")),
        one("a token where none is needed", get("/health", user="garbage")),
    ]  # fmt: skip


def logins() -> list[Case]:
    cases = [one(f"login {name}", bare("POST", LOGIN + query)) for name, query in LOGINS.items()]
    right, form, as_json = LOGINS["right"], b"username=demo&password=demo123", b'{"username":"demo","password":"demo123"}'
    return cases + [
        one("login with a form and a query", bare("POST", LOGIN + right, ("Content-Type", FORM), body=b"username=x")),
        one("login with bad JSON and a query", bare("POST", LOGIN + right, ("Content-Type", JSON), body=b"{")),
        one("login with half a query and a form", bare("POST", f"{LOGIN}?username=demo", ("Content-Type", FORM), body=form)),
        one("login with a form", bare("POST", LOGIN, ("Content-Type", FORM), body=form)),
        one("login with JSON", bare("POST", LOGIN, ("Content-Type", JSON), body=as_json)),
        one("login with bad JSON", bare("POST", LOGIN, ("Content-Type", JSON), body=b"{")),
        one("login with a bad Authorization", bare("POST", LOGIN + right, *bearer("garbage"))),
    ]


def routing() -> list[Case]:
    cases = [
        one(f"{method} {path}", Request(method, path, bearer("<demo>")))
        for path in PATHS
        for method in METHODS
        if method not in HAS[path]
    ]
    cases += [one(f"GET unknown path {path}", get(path)) for path in UNKNOWN_PATHS]
    slashes = [
        ("GET", "/health/"), ("HEAD", "/health/"), ("GET", "/todos/"), ("GET", "/todos/?a=1&b=%20"), ("HEAD", "/todos/"),
        ("POST", "/todos/"), ("DELETE", "/todos/"), ("GET", "/todos/1/"), ("PUT", "/todos/1/"), ("DELETE", "/todos/1/"),
        ("POST", "/auth/login/?username=demo&password=demo123"), ("GET", "/auth/login/"), ("GET", "/todos/abc/"),
    ]  # fmt: skip
    cases += [one(f"a slash at the end: {method} {path}", Request(method, path, bearer("<demo>"))) for method, path in slashes]
    return cases + [
        one("HEAD /todos", get("/todos", user="<user>", method="HEAD")),
        one("HEAD a todo", get(method="HEAD")),
        one("HEAD a todo that is not there", get("/todos/0", method="HEAD")),
        one("HEAD without Authorization", bare("HEAD", "/todos")),
        one("HEAD an unknown path", bare("HEAD", "/nothing")),
        one("POST an unknown path", bare("POST", "/nothing")),
        one("an encoded path", get("/%74%6Fdos/0")),
        one("an encoded slash between the parts", get("/todos%2F0")),
        one("a query on /", bare("GET", "/?x=1")),
        one("a full URL as target", bare("GET", "http://127.0.0.1/health")),
        one("Accept of something else", bare("GET", "/todos/0", *bearer("<demo>"), ("Accept", "application/xml"))),
        one("GET in lower case", bare("get", "/health")),
    ]


CASES: list[Case] = requests_of_clients() + bodies() + ids() + authorization() + logins() + routing()
