-- Version 5 of the schema: more fields, the trash, requests that can be repeated.

ALTER TABLE todos ADD COLUMN due_at TEXT;          -- 2025-01-31 or 2025-01-31T10:30:00.000Z
ALTER TABLE todos ADD COLUMN priority INTEGER;     -- 0 to 4
ALTER TABLE todos ADD COLUMN tags TEXT;            -- JSON array; NULL: none
ALTER TABLE todos ADD COLUMN sort_order REAL;
ALTER TABLE todos ADD COLUMN field_versions TEXT;  -- the version that last changed title, description, completed, due_at,
                                                   -- priority, tags, order, separated by commas; NULL: 1 for all
ALTER TABLE todos ADD COLUMN deleted_uptime INTEGER;  -- meta.uptime when it was deleted; NULL: it is not in the trash

-- Which version changed which field is not known any more: the last one may have changed all.
UPDATE todos SET field_versions = concat_ws(',', version, version, version, version, version, version, version)
    WHERE version > 1;

ALTER TABLE changes ADD COLUMN due_at TEXT;        -- this and what follows: as in todos, after the change
ALTER TABLE changes ADD COLUMN priority INTEGER;
ALTER TABLE changes ADD COLUMN tags TEXT;
ALTER TABLE changes ADD COLUMN sort_order REAL;
ALTER TABLE changes ADD COLUMN field_versions TEXT;
ALTER TABLE changes ADD COLUMN batch INTEGER;      -- of a request of several operations: the revision of its first change
ALTER TABLE changes ADD COLUMN op TEXT;            -- the idempotency key of the request

CREATE TABLE idempotency (
    id INTEGER PRIMARY KEY,
    owner_id INTEGER NOT NULL REFERENCES users (id),
    request TEXT NOT NULL,         -- method, path and the client's key
    fingerprint BLOB NOT NULL,     -- SHA-256 of method, path, query and body
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,         -- JSON array of names and values
    body BLOB NOT NULL,
    size INTEGER NOT NULL,         -- bytes that the row takes, about
    uptime INTEGER NOT NULL        -- meta.uptime at that moment
);

CREATE UNIQUE INDEX idempotency_by_request ON idempotency (owner_id, request);
CREATE INDEX idempotency_by_owner ON idempotency (owner_id);
CREATE INDEX idempotency_by_age ON idempotency (uptime);
