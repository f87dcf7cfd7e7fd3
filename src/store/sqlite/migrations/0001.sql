-- Version 1 of the schema. Times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE meta (
    epoch TEXT NOT NULL,           -- 16 hex digits
    uptime INTEGER NOT NULL        -- seconds that the service has run on this database
);

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,   -- PHC string, argon2id
    role TEXT NOT NULL,
    demo INTEGER NOT NULL,         -- 1: exists only with DEBUG=True
    created_at INTEGER NOT NULL,   -- milliseconds
    revision INTEGER NOT NULL,     -- of the last change of this owner
    last_at INTEGER NOT NULL,      -- time of that change
    floor INTEGER NOT NULL         -- changes up to this revision were pruned
);

CREATE TABLE todos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    owner_id INTEGER NOT NULL REFERENCES users (id),
    version INTEGER NOT NULL,
    title TEXT NOT NULL,
    description TEXT,
    completed INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    owner_id INTEGER NOT NULL REFERENCES users (id),
    revision INTEGER NOT NULL,
    todo_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    kind INTEGER NOT NULL,         -- 0 created, 1 updated, 2 deleted
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    changed TEXT NOT NULL,         -- names of fields, separated by commas
    trace TEXT NOT NULL,           -- traceparent
    title TEXT NOT NULL,           -- this and what follows: the todo after the change
    description TEXT,
    completed INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    uptime INTEGER NOT NULL,       -- meta.uptime at that moment: what retention goes by
    state INTEGER NOT NULL DEFAULT 0  -- 0 pending, 1 published, 2 parked, 3 skipped
);

CREATE UNIQUE INDEX changes_by_owner ON changes (owner_id, revision);
CREATE INDEX changes_pending ON changes (seq, todo_id, version) WHERE state = 0;
CREATE INDEX changes_parked ON changes (todo_id) WHERE state = 2;
