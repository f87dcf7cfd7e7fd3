"""An answer as it is compared: without what differs by nature, and as text, so that 1, 1.0 and true are not the same."""

import json
import re
from dataclasses import dataclass, fields
from typing import Any

JSON = "application/json"
# Naive as the seed's or with an offset; the exact form counts only where a case says so.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
# Longer texts are cut when they are shown.
SHOWN = 500


@dataclass(frozen=True)
class Answer:
    """What a client gets, normalised. `None`: no such header, no body."""

    status: int
    body: str | None = None
    content_type: str | None = JSON
    www_authenticate: str | None = None
    allow: str | None = None
    location: str | None = None

    def __str__(self) -> str:
        """For people: the status, then whatever is there."""
        lines = [str(self.status)]
        for field in fields(self)[1:]:
            if (value := getattr(self, field.name)) is not None:
                shown = value if len(value) <= SHOWN else f"{value[:SHOWN]}… ({len(value)} characters)"
                lines.append(f"  {field.name}: {shown}")
        return "\n".join(lines)


def as_text(value: Any) -> str:
    """JSON as text that is equal if the values are. The order of keys does not count, except in todos (see `todo`)."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def todo(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A todo with its keys in order: as a list, which `as_text` does not sort."""
    return {"todo": [list(pair) for pair in pairs]}


def normalised(text: str, *, todo_id: str | None = None, times_as_sent: bool = False) -> str:
    """A JSON body as text. Ids, tokens, times and documents are replaced; only the digits of times, if their form counts."""

    def time(value: Any) -> Any:
        if not isinstance(value, str) or not TIME.fullmatch(value):
            return value
        return re.sub(r"\d", "0", value) if times_as_sent else "<time>"

    def replace(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        if "openapi" in value:
            return "<document>"
        if value.get("loc") == ["path", "id"] and todo_id is not None:
            return {**value, "input": value["input"].replace(todo_id, "<todo>")}
        if TOKEN.fullmatch(str(value.get("access_token"))):
            return {**value, "access_token": "<token>"}
        if {"title", "created_at"} <= value.keys() and type(value.get("id")) is int:
            shown = {**value, "id": "<id>"} | {key: time(value.get(key)) for key in ("created_at", "updated_at")}
            return todo([(key, shown[key]) for key, _ in pairs])
        return value

    return as_text(json.loads(text, object_pairs_hook=replace))
