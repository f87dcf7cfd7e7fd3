"""Sends the same requests to the reference (`seed_reference/app.py`) and to the service at $BASE_URL, and compares the answers.

It starts the reference. The service must be freshly started, with the demo users and the same SECRET_KEY. Compared are the
status, `Content-Type` (the media type), `WWW-Authenticate`, `Allow` (as a set), `Location` of redirects (resolved), and the
body: JSON by value, todos with the order of their keys. A difference passes only if `intended.py` lists it, and what is listed
there has to differ still.
"""

import json
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from threading import Thread
from urllib.parse import urljoin, urlsplit

import jwt
import uvicorn

from answers import JSON, Answer, normalised
from cases import CASES, LOGIN, Case, Request, bare, delete, post
from intended import INTENDED, Difference
from seed_reference.app import SECRET_KEY, app

# In seconds. Debug builds take a while to check a password.
TIMEOUT = 30.0
PLACEHOLDER = re.compile(r"<[a-z ]+>")

Answers = tuple[Answer, ...]


class Side:
    """One of the two services, and what the placeholders of `cases.py` stand for there."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self.values = {f"<{user}>": self.log_in(user) for user in ("admin", "user", "demo")}
        self.values |= forged(self.values["<demo>"])
        self.values["<foreign>"] = self.new_todo("<user>")
        self.values["<gone>"] = self.new_todo("<demo>")
        self.request(delete("/todos/<gone>"))

    def answers(self, case: Case) -> Answers:
        if any("<todo>" in request.target for request in case.requests):
            self.values["<todo>"] = self.new_todo("<demo>")
        return tuple(self.answer(request, case.times_as_sent) for request in case.requests)

    def answer(self, request: Request, times_as_sent: bool) -> Answer:
        try:
            response, raw = self.request(request)
        except (OSError, HTTPException) as problem:
            return Answer(0, f"no answer: {problem!r}", None)
        media_type = response.headers.get_content_type() if "Content-Type" in response.headers else None
        body: str | None = raw.decode("utf-8", "backslashreplace") or None
        if body and media_type == JSON:
            body = normalised(body, todo_id=self.values.get("<todo>"), times_as_sent=times_as_sent)
        elif media_type == "text/html":
            # Pages are made for people. That there is one is what counts.
            body = "<page>"
        location = response.headers.get("Location") if 300 <= response.status < 400 else None
        if location is not None:
            # The service's are relative, so that they lead somewhere behind a prefix too.
            location = urljoin(self.base + request.target, location).removeprefix(self.base)
            location = location.replace(self.values.get("<todo>", "<todo>"), "<todo>")
        allow = response.headers.get("Allow")
        return Answer(
            response.status,
            body,
            media_type,
            ", ".join(response.headers.get_all("WWW-Authenticate", [])) or None,
            None if allow is None else ", ".join(sorted(re.split(r"\s*,\s*", allow))),
            location,
        )

    def request(self, request: Request) -> tuple[HTTPResponse, bytes]:
        """Sends a request as it is: an HTTP library would refuse, mend or add to the odd ones."""
        url = urlsplit(self.base)
        headers = [("Host", url.netloc), ("Connection", "close"), *request.headers]
        if request.body is not None and "Transfer-Encoding" not in dict(request.headers):
            headers.append(("Content-Length", str(len(request.body))))
        lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        head = PLACEHOLDER.sub(lambda match: self.values[match[0]], "\r\n".join(lines))
        with socket.create_connection((url.hostname, url.port), TIMEOUT) as connection:
            # A body that is too large may be refused before all of it is read: the answer is there already.
            with suppress(ConnectionError):
                connection.sendall(head.encode() + (request.body or b""))
            response = HTTPResponse(connection, method=request.method)
            response.begin()
            return response, response.read()

    def log_in(self, user: str) -> str:
        response, body = self.request(bare("POST", f"{LOGIN}?username={user}&password={user}123"))
        if response.status != 200:
            sys.exit(f"{self.base}: {user} can't log in: {response.status} {body!r}")
        return str(json.loads(body)["access_token"])

    def new_todo(self, user: str) -> str:
        _, body = self.request(post({"title": "Learn", "description": "Master", "completed": False}, user=user))
        return str(json.loads(body)["id"])


def forged(token: str) -> dict[str, str]:
    """Tokens that are unusual in one way each, made from the claims of a good one."""
    claims = jwt.decode(token, options={"verify_signature": False})
    now = int(time.time())

    def sign(changes: dict[str, object], key: str = SECRET_KEY, algorithm: str = "HS256") -> str:
        payload = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        # Not `jwt.encode`, which refuses to sign claims of a wrong type.
        return jwt.PyJWS().encode(json.dumps(payload).encode(), key, algorithm)

    return {
        "<expired>": sign({"iat": now - 7200, "exp": now - 3600}),
        "<another secret>": sign({}, key="x" * 32),
        "<alg none>": sign({}, key="", algorithm="none"),
        "<another algorithm>": sign({}, algorithm="HS384"),
        # The seed goes by the name, the service by the number.
        "<unknown user>": sign({"sub": "nobody", "uid": 999_999}),
        "<no exp>": sign({"exp": None}),
        "<no sub>": sign({"sub": None}),
        "<sub a number>": sign({"sub": 7}),
        "<issued in the future>": sign({"iat": now + 3600, "exp": now + 7200}),
        "<not valid yet>": sign({"nbf": now + 3600}),
        "<seed token>": sign({name: None for name in claims.keys() - {"sub", "exp", "iat"}}),
    }


def problem(intended: Difference | None, reference: Answers, service: Answers) -> str | None:
    """Why a case with these answers fails, if it does."""
    if intended is None:
        return None if reference == service else "they differ, and intended.py does not say why"
    if reference == service:
        return f"they do not differ any more: remove the entry in intended.py ({intended.reason})"
    for name, expected, answers in (("reference", intended.reference, reference), ("service", intended.service, service)):
        if answers != expected:
            return f"intended.py expects another answer of the {name}: ({intended.reason})\n{shown(expected)}"
    return None


def shown(answers: Answers) -> str:
    return "\n".join(f"    {line}" for answer in answers for line in str(answer).splitlines())


def bad_lists() -> list[str]:
    """What would make a case or an entry go unseen."""
    cases, entries = Counter(case.name for case in CASES), Counter(entry.case for entry in INTENDED)
    return (
        [f"{name}: {count} cases have this name" for name, count in cases.items() if count > 1]
        + [f"{name}: intended.py has {count} entries for it" for name, count in entries.items() if count > 1]
        + [f"{name}: intended.py has an entry for it, but there is no such case" for name in entries if name not in cases]
    )


@contextmanager
def reference_at() -> Iterator[str]:
    """Runs the reference; gives its URL. It listens before it runs: nobody has to wait for it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def main() -> int:
    with reference_at() as url:
        return compare(Side(url), Side(os.environ["BASE_URL"]))


def compare(reference: Side, service: Side) -> int:
    failures = bad_lists()
    intended = {entry.case: entry for entry in INTENDED}
    passed = 0
    print(f"{len(CASES)} cases, {len(INTENDED)} intended differences", flush=True)
    for case in CASES:
        expected, answers = reference.answers(case), service.answers(case)
        if (why := problem(intended.get(case.name), expected, answers)) is None:
            passed += 1
        else:
            failures.append(f"{case.name}: {why}\n  reference:\n{shown(expected)}\n  service:\n{shown(answers)}")
    for failure in failures:
        print(f"FAIL {failure}")
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
