"""The seed's HTTP interface, written again from its README: what clients of the service were made for.

Where the README is silent, this is plain FastAPI, so that its behaviour is FastAPI's and not ours. Only what HTTP shows is
here: no events, no database. Two limits come from our contract, because the README has none: title and description lengths.
"""

import os
from datetime import UTC, datetime, timedelta
from hmac import compare_digest
from itertools import count
from typing import Annotated

import jwt
from fastapi import Depends, FastAPI, HTTPException, Response, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

SECRET_KEY = os.environ.get("SECRET_KEY", "your-super-secret-key-change-this-in-production-environment")
ALGORITHM = "HS256"
TOKEN_LIFETIME = timedelta(minutes=30)
# Not hashed: these are published, and nothing else is ever stored here.
PASSWORDS = {"admin": "admin123", "user": "user123", "demo": "demo123"}

Title = Annotated[str, Field(min_length=1, max_length=200)]
Description = Annotated[str | None, Field(max_length=10_000)]


class TodoCreate(BaseModel):
    title: Title
    description: Description = None
    completed: bool = False


class TodoUpdate(BaseModel):
    """Every field may be left out, but has the type that it has in a todo: only a description can be null."""

    title: Title = ""
    description: Description = None
    completed: bool = False


class Todo(BaseModel):
    id: int
    title: str
    description: str | None
    completed: bool
    created_at: datetime
    updated_at: datetime


app = FastAPI(title="Todo Backend API with Auth", version="2.0.0")
# By owner and id: somebody else's todo is not found, exactly as one that never was.
todos: dict[tuple[str, int], Todo] = {}
ids = count(1)


def now() -> datetime:
    """Naive and in whole seconds, as in the README's examples."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


def unauthorized(detail: str) -> HTTPException:
    return HTTPException(status.HTTP_401_UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def current_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    try:
        claims = jwt.decode(
            credentials.credentials, SECRET_KEY, algorithms=[ALGORITHM], options={"require": ["sub", "exp", "iat"]}
        )
    except jwt.PyJWTError:
        raise unauthorized("Invalid or expired token") from None
    if claims["sub"] not in PASSWORDS:
        raise unauthorized("Invalid or expired token")
    return str(claims["sub"])


User = Annotated[str, Depends(current_user)]


def existing(user: str, id: int) -> Todo:
    if (todo := todos.get((user, id))) is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "Todo not found")
    return todo


@app.get("/")
async def root() -> dict[str, str]:
    return {"status": "Todo backend running"}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy", "version": "2.0.0", "app": "Todo Backend API with Auth"}


@app.post("/auth/login")
async def login(username: str, password: str) -> dict[str, str]:
    if not compare_digest(PASSWORDS.get(username, "").encode(), password.encode()) or username not in PASSWORDS:
        raise unauthorized("Invalid username or password")
    issued = datetime.now(UTC)
    claims = {"sub": username, "exp": issued + TOKEN_LIFETIME, "iat": issued}
    return {"access_token": jwt.encode(claims, SECRET_KEY, ALGORITHM), "token_type": "bearer"}


@app.post("/todos", status_code=status.HTTP_201_CREATED)
async def create_todo(new: TodoCreate, user: User) -> Todo:
    made = now()
    todo = Todo(id=next(ids), **new.model_dump(), created_at=made, updated_at=made)
    todos[user, todo.id] = todo
    return todo


@app.get("/todos")
async def list_todos(user: User) -> list[Todo]:
    return [todo for (owner, _), todo in todos.items() if owner == user]


@app.get("/todos/{id}")
async def read_todo(id: int, user: User) -> Todo:
    return existing(user, id)


@app.put("/todos/{id}")
async def update_todo(id: int, update: TodoUpdate, user: User) -> Todo:
    changes = update.model_dump(exclude_unset=True)
    todos[user, id] = existing(user, id).model_copy(update={**changes, "updated_at": now()})
    return todos[user, id]


@app.delete("/todos/{id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
async def delete_todo(id: int, user: User) -> None:
    """FastAPI's own response class would send a Content-Type, for no content."""
    existing(user, id)
    del todos[user, id]
