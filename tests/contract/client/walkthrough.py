"""Generates a Python client from docs/openapi.json, and goes with it through the life of a todo and of an account on the
service at $BASE_URL.

The client is typed: what it can't read, it does not return. So this passes only if the document is complete enough to be
worked with, and true.
"""

import compileall
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from datetime import UTC, date, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "openapi.json"
PACKAGE = "todo_backend_api_client"
# In seconds. Debug builds take a while to check a password.
TIMEOUT = 30.0


def generate(directory: Path) -> None:
    """Whatever the generator would leave out of the client, it warns about; a warning fails."""
    config = directory / "config.json"
    # Its code is not for people: no formatter runs over it.
    # It does not know NDJSON, which is a file to it.
    types = {"application/x-ndjson": "application/octet-stream"}
    settings = {"post_hooks": [], "package_name_override": PACKAGE, "content_type_overrides": types}
    config.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning"]
    output = directory / PACKAGE
    subprocess.run([*command, "--config", config, "--path", DOCUMENT, "--output-path", output], check=True)


def imported(directory: Path) -> dict[str, ModuleType]:
    """All modules of the client, by their names in it."""
    assert compileall.compile_dir(directory / PACKAGE, quiet=1), "the client has a module that does not compile"
    sys.path.insert(0, str(directory))
    package = importlib.import_module(PACKAGE)
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    return {name.removeprefix(f"{PACKAGE}."): importlib.import_module(name) for name in names}


class Client:
    """The generated client: `call` answers what it made of an answer, which has to have the given status and type."""

    def __init__(self, modules: dict[str, ModuleType], base: str) -> None:
        self.operations = {name.rpartition(".")[2]: module for name, module in modules.items() if name.startswith("api.")}
        self.models = modules["models"]
        self.connection = modules["client"].Client(base_url=base, timeout=TIMEOUT, raise_on_unexpected_status=True)
        self.base, self.make = base, modules["client"].AuthenticatedClient

    def log_in(self, token: str) -> None:
        self.connection = self.make(base_url=self.base, token=token, timeout=TIMEOUT, raise_on_unexpected_status=True)

    def model(self, name: str) -> Any:
        return getattr(self.models, name)

    def call(self, operation: str, status: int, answer: str | None, *args: Any, **kwargs: Any) -> Any:
        response = self.operations[operation].sync_detailed(*args, client=self.connection, **kwargs)
        assert response.status_code == status, f"{operation}: {response.status_code} {response.content!r}, not {status}"
        kind = type(response.parsed).__name__
        assert kind == (answer or "NoneType"), f"{operation}: {response.content!r} was read as {kind}, not {answer}"
        print(f"  {operation}: {status} {answer or ''}".rstrip(), flush=True)
        return response.parsed


def walk(client: Client) -> None:
    model = client.model
    client.call("get_root", 200, "Running")
    assert client.call("get_health", 200, "Healthy").version == json.loads(DOCUMENT.read_text())["info"]["version"]
    client.call("get_liveness", 200, "Running")
    client.call("get_readiness", 200, "Ready")

    wrong, right = (model("Credentials")(username="demo", password=password) for password in ("wrong", "demo123"))
    assert client.call("login", 401, "Error", body=wrong).detail == "Invalid username or password"
    grant = model("TokenRequest")(grant_type="password", username="demo", password="wrong")
    assert client.call("issue_token", 400, "OAuthError", body=grant).error == "invalid_grant"
    grant.password = "demo123"
    session = client.call("issue_token", 200, "AccessToken", body=grant)
    assert session.expires_in > 0
    refresh = model("TokenRequest")(grant_type="refresh_token", refresh_token=session.refresh_token)
    client.log_in(client.call("issue_token", 200, "AccessToken", body=refresh).access_token)
    [listed] = client.call("list_sessions", 200, "list")
    assert listed.current and listed.created_at <= listed.used_at
    new = model("NewToken")(name="script", scope=model("NewTokenScope").READ)
    script = client.call("create_token", 201, "PersonalTokenDetails", body=new)
    assert script.token.startswith("tdb_") and script.expires_at is None
    assert client.call("list_tokens", 200, "list")[0].name == "script"
    client.call("delete_token", 204, None, script.id)
    client.call("revoke_token", 200, None, body=model("Revocation")(token=session.refresh_token))
    assert client.call("get_account", 401, "Error").detail == "Invalid or expired token"
    query = client.call("login", 200, "AccessToken", username="demo", password="demo123")
    assert query.token_type == "bearer"
    client.log_in("no token")
    assert client.call("list_todos", 401, "Error").detail == "Invalid or expired token"
    client.log_in(client.call("login", 200, "AccessToken", body=right).access_token)

    assert client.call("list_todos", 200, "list") == []
    new = model("NewTodo")(title="Learn Dapr", description="Publish and subscribe")
    made = client.call("create_todo", 201, "Todo", body=new)
    assert (made.title, made.description, made.completed) == ("Learn Dapr", "Publish and subscribe", False)
    assert made.created_at == made.updated_at and made.created_at.astimezone(UTC).utcoffset() == timedelta(0)
    assert made.created_at.tzinfo is not None, "a time without a zone"
    assert not made.additional_properties, f"not in the document: {made.additional_properties}"
    assert client.call("list_todos", 200, "list") == [made]
    assert client.call("get_todo", 200, "Todo", made.id) == made

    changed = client.call("update_todo", 200, "Todo", made.id, body=model("TodoUpdate")(completed=True))
    assert (changed.title, changed.description, changed.completed) == (made.title, made.description, True)
    changed = client.call("update_todo", 200, "Todo", made.id, body=model("TodoUpdate")(description=None))
    assert (changed.title, changed.description, changed.completed) == (made.title, None, True)
    assert client.call("get_todo", 200, "Todo", made.id) == changed

    invalid = client.call("create_todo", 422, "ValidationErrors", body=model("NewTodo")(title=""))
    problem = invalid.detail[0]
    assert (problem.type_, problem.loc, problem.ctx.to_dict()) == ("string_too_short", ["body", "title"], {"min_length": 1})

    patch = model("TodoPatch")(due_at=date(2025, 1, 31), priority=4, tags_add=["dapr"])
    key = {"idempotency_key": "1f6b6b2e-6a5c-4a53-9d3c-7ff1b6b0c9a4"}
    changed = client.call("patch_todo", 200, "Todo", made.id, body=patch, **key)
    assert (changed.due_at, changed.priority, changed.tags) == (date(2025, 1, 31), 4, ["dapr"])
    assert client.call("patch_todo", 200, "Todo", made.id, body=patch, **key) == changed, "it is not applied again"
    stale = client.call("patch_todo", 412, "PreconditionFailedBody", made.id, body=patch, if_match='"x"')
    assert stale.current == changed
    [tagged] = client.call("list_todos", 200, "list", etags=True)
    query = {"q": "LEARN", "tag": ["dapr"], "priority": [3, 4], "due_before": date(2025, 2, 1), "sort": "-priority,id", "limit": 1}
    assert client.call("list_todos", 200, "list", completed=True, **query) == [changed]
    assert client.call("list_todos", 200, "list", completed=False, **query) == []
    assert client.call("list_todos", 422, "ValidationErrors", limit=1001).detail[0].loc == ["query", "limit"]
    operations = [
        model("CreateOperation")(op=model("CreateOperationOp")("create"), ref="a", todo=new),
        model("DeleteCreatedOperation")(op=model("DeleteCreatedOperationOp")("delete"), ref="a"),
        model("UpdateOperation")(
            op=model("UpdateOperationOp")("update"), id=made.id, if_match=tagged.etag, todo=model("TodoPatch")(priority=None)
        ),
    ]
    results = client.call("apply_batch", 200, "BatchResult", body=model("Batch")(operations=operations)).results
    assert [result.status for result in results] == [201, 204, 200]
    assert not results[2].todo.priority and results[1].todo is None

    client.call("delete_todo", 204, None, made.id)
    trash = client.call("list_trash", 200, "list")
    assert [todo.title for todo in trash] == ["Learn Dapr", "Learn Dapr"] and trash[0].deleted_at == trash[0].updated_at
    assert client.call("restore_todo", 200, "Todo", made.id).title == "Learn Dapr"
    assert client.call("restore_todo", 409, "Error", made.id).detail == "Todo is not deleted"
    client.call("purge_todo", 204, None, trash[1].id)
    client.call("delete_todo", 204, None, made.id)
    assert client.call("empty_trash", 200, "Deleted").deleted == 1
    for operation, body in [("get_todo", {}), ("update_todo", {"body": model("TodoUpdate")()}), ("delete_todo", {})]:
        assert client.call(operation, 404, "Error", made.id, **body).detail == "Todo not found"
    assert client.call("list_todos", 200, "list") == []

    file = importlib.import_module(f"{PACKAGE}.types").File
    todos = [{"title": title, "completed": title == "done"} for title in ("done", "open")]
    array = file(payload=BytesIO(json.dumps(todos).encode()))
    assert client.call("import_todos", 200, "Imported", body=array).imported == 2
    lines = client.call("export_todos", 200, "File").payload.read().splitlines()
    assert [json.loads(line)["title"] for line in lines[:2]] == ["done", "open"]
    client.call("delete_todos", 422, "ValidationErrors")
    assert client.call("delete_todos", 200, "Deleted", completed=True).deleted == 1
    revision = json.loads(lines[-1])["revision"] + 1
    [undone] = client.call("undo_change", 200, "UndoResult", revision, batch=True).changes
    assert (undone.event, undone.revision) == ("restored", revision + 1)
    [redone] = client.call("undo_change", 200, "UndoResult", undone.revision).changes
    assert (redone.event, redone.todo, redone.etag) == ("deleted", None, None)
    [undone] = client.call("undo_change", 200, "UndoResult", redone.revision).changes
    assert undone.todo.title == "done"
    conflict = client.call("undo_change", 409, "UndoConflictBody", revision)
    assert (conflict.conflict, conflict.current.title) == (["deleted_at"], "done")
    assert client.call("undo_change", 404, "Error", 9999).detail == "Change not found"
    epoch = json.loads(lines[0])["etag"].strip('"').split("-")[0]
    page = client.call("list_changes", 200, "Changes", since=f"{epoch}-{redone.revision - 1}", net=True, limit=10)
    assert [(entry.event, entry.revision) for entry in page.changes] == [("restored", redone.revision + 1)]
    assert (page.changes[0].todo.title, page.has_more, page.next_) == ("done", False, f"{epoch}-{redone.revision + 1}")
    assert client.call("list_changes", 410, "SyncGap", since=f"{epoch}-9999").reason == "ahead"
    history = client.call("get_todo_history", 200, "list", undone.id)
    assert [entry.event for entry in history] == ["created", "deleted", "restored", "deleted", "restored"]
    assert history[0].changes["completed"] == [None, True] and history[0].actor == "demo"
    # It can't read streams.
    assert client.call("follow_changes", 422, "ValidationErrors", since="x").detail[0].loc == ["query", "since"]
    exported = file(payload=BytesIO(b"".join(line + b"\n" for line in lines)))
    imported = client.call("import_todos", 200, "Imported", body=exported)
    assert (imported.imported, imported.skipped) == (2, len(lines) - 2)
    assert client.call("delete_todos", 200, "Deleted", all_=True).deleted == 4


def accounts(client: Client) -> None:
    """From a registration to a deletion, and what an admin sees of it."""
    model, password = client.model, "a long and private sentence"
    registration = model("Registration")(username="alice", password="password")
    problem = client.call("register", 422, "ValidationErrors", body=registration).detail[0]
    assert (problem.type_, problem.loc, problem.input_) == ("value_error", ["body", "password"], None)
    registration.password = password
    account = client.call("register", 201, "Account", body=registration)
    assert (account.username, account.role.value, account.additional_properties) == ("alice", "user", {})
    assert client.call("register", 409, "Error", body=registration).detail == "Username is taken"
    credentials = model("Credentials")(username="Alice", password=password)
    client.log_in(client.call("login", 200, "AccessToken", body=credentials).access_token)
    assert client.call("get_account", 200, "Account") == account
    assert client.call("list_users", 403, "Error").detail == "Not enough permissions"

    change = model("PasswordChange")(current_password="wrong", new_password="another private sentence")
    assert client.call("change_password", 403, "Error", body=change).detail == "Wrong password"
    change.current_password = password
    client.log_in(client.call("change_password", 200, "AccessToken", body=change).access_token)
    client.call("delete_account", 204, None, body=model("Confirmation")(password="another private sentence"))
    assert client.call("get_account", 401, "Error").detail == "Invalid or expired token"

    admin = model("Credentials")(username="admin", password="admin123")
    client.log_in(client.call("login", 200, "AccessToken", body=admin).access_token)
    names = [(user.username, user.state.value) for user in client.call("list_users", 200, "list")]
    assert names == [("admin", "active"), ("user", "active"), ("demo", "active"), ("alice", "deleted")], names
    bob = client.call("create_user", 201, "AccountDetails", body=model("NewUser")(username="bob", password=password))
    assert client.call("get_user", 200, "AccountDetails", bob.id) == bob
    disabled = client.call("update_user", 200, "AccountDetails", bob.id, body=model("UserChange")(state="disabled"))
    assert disabled.state.value == "disabled"
    client.call("delete_user", 204, None, bob.id)
    assert client.call("delete_user", 409, "Error", bob.id).detail == "The account is deleted"
    assert client.call("get_user", 404, "Error", 99).detail == "User not found"


def main() -> None:
    base = os.environ["BASE_URL"]
    with urlopen(f"{base}/openapi.json", timeout=TIMEOUT) as response:
        served = json.load(response)
    update = "todo-backend openapi > docs/openapi.json"
    assert served == json.loads(DOCUMENT.read_text()), f"docs/openapi.json is not what the service serves: {update}"
    with TemporaryDirectory() as directory:
        generate(Path(directory))
        modules = imported(Path(directory))
        print(f"{len(modules)} modules of the generated client are imported", flush=True)
        client = Client(modules, base)
        walk(client)
        accounts(client)


if __name__ == "__main__":
    main()
