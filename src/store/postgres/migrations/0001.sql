-- Version 1 of the schema on Postgres: what version 6 is on SQLite (src/store/sqlite/migrations), where columns are explained
-- that are not explained here. Times are milliseconds since 1970-01-01T00:00:00Z. No table refers to another one with a
-- foreign key: each would lock a row of `users` for every change; `todo-backend check` looks at the same rules.

-- One row.
CREATE TABLE meta (
    version int NOT NULL,                -- of the schema
    epoch text NOT NULL,
    uptime bigint NOT NULL DEFAULT 0,    -- seconds since 1970 by the database's clock: what was seen last, so that it never goes back
    production boolean NOT NULL DEFAULT false,
    next_user bigint NOT NULL DEFAULT 1, -- ids that are not used yet
    next_todo bigint NOT NULL DEFAULT 1,
    next_session bigint NOT NULL DEFAULT 1,
    next_personal_token bigint NOT NULL DEFAULT 1
);

-- A process that writes has one while it runs.
CREATE TABLE streams (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    head bigint NOT NULL DEFAULT 0,      -- the last position in `changes`
    commits bigint NOT NULL DEFAULT 0,   -- transactions that were committed: what tells whether one was whose answer got lost
    fence bigint NOT NULL DEFAULT 0      -- connections of the process: an earlier one can't commit any more
);

CREATE TABLE users (
    id bigint PRIMARY KEY,
    username text NOT NULL,
    password_hash text NOT NULL,
    role text NOT NULL,
    demo boolean NOT NULL,
    created_at bigint NOT NULL,
    revision bigint NOT NULL,
    last_at bigint NOT NULL,
    floor bigint NOT NULL,
    state smallint NOT NULL,
    token_epoch bigint NOT NULL,
    deleted_by text,
    erased boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);                -- every change updates its owner's row

-- Names have no letters but ASCII's.
CREATE UNIQUE INDEX users_by_name ON users (lower(username COLLATE "C")) WHERE NOT demo OR state <> 2;

CREATE TABLE sessions (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL,
    created_at bigint NOT NULL,
    user_agent text,
    key bytea NOT NULL,
    latest bytea NOT NULL,
    rotated_at text NOT NULL,
    repeats bigint NOT NULL
);

CREATE TABLE personal_tokens (
    id bigint PRIMARY KEY,
    user_id bigint NOT NULL,
    name text NOT NULL,
    scope text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    created_at bigint NOT NULL,
    expires_at bigint,
    used_at bigint
);

CREATE TABLE login_networks (
    user_id bigint NOT NULL,
    network text NOT NULL,
    used_at bigint NOT NULL,
    PRIMARY KEY (user_id, network)
);

-- A text of a user has U+FFFF before what Postgres can't store: U+0000 is U+FFFF 0, U+FFFF itself is U+FFFF 1.
CREATE TABLE todos (
    id bigint PRIMARY KEY,
    owner_id bigint NOT NULL,
    version bigint NOT NULL,
    title text NOT NULL,
    description text,
    completed boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    due_at text,
    priority smallint,
    tags text,
    sort_order double precision,
    field_versions text,
    deleted_uptime bigint
);

CREATE INDEX todos_by_owner ON todos (owner_id);

CREATE TABLE changes (
    stream int NOT NULL,                 -- this and the next: its place
    pos bigint NOT NULL,
    owner_id bigint NOT NULL,
    revision bigint NOT NULL,
    todo_id bigint NOT NULL,
    version bigint NOT NULL,
    kind smallint NOT NULL,
    at bigint NOT NULL,
    actor text NOT NULL,
    changed text NOT NULL,
    trace text NOT NULL,
    title text NOT NULL,
    description text,
    completed boolean NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    due_at text,
    priority smallint,
    tags text,
    sort_order double precision,
    field_versions text,
    uptime bigint NOT NULL,
    scrubbed boolean NOT NULL,
    batch bigint,
    op text,
    before text,
    PRIMARY KEY (stream, pos)
);

CREATE UNIQUE INDEX changes_by_owner ON changes (owner_id, revision);
CREATE INDEX changes_by_todo ON changes (todo_id, version);

-- The changes whose events are not published: a change that is published has no row, so that the log itself is written once.
CREATE TABLE outbox (
    stream int NOT NULL,
    pos bigint NOT NULL,
    todo_id bigint NOT NULL,
    version bigint NOT NULL,
    owner_id bigint NOT NULL,
    revision bigint NOT NULL,
    state smallint NOT NULL DEFAULT 0,   -- 0 pending, 2 parked, 3 skipped
    PRIMARY KEY (stream, pos)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000);

CREATE INDEX outbox_by_todo ON outbox (todo_id, version);
CREATE INDEX outbox_by_owner ON outbox (owner_id, revision);
CREATE INDEX outbox_parked ON outbox (todo_id) WHERE state = 2;

CREATE TABLE idempotency (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id bigint NOT NULL,
    request text NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    headers text NOT NULL,
    body bytea NOT NULL,
    size bigint NOT NULL,
    uptime bigint NOT NULL,
    UNIQUE (owner_id, request)
);

CREATE INDEX idempotency_by_owner ON idempotency (owner_id, id);
CREATE INDEX idempotency_by_age ON idempotency (uptime);
