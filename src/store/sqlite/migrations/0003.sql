-- Version 3 of the schema: sessions and personal access tokens. Times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    created_at INTEGER NOT NULL,
    user_agent TEXT,
    key BLOB NOT NULL,             -- 32 random bytes, with which a token's successor is computed
    latest BLOB NOT NULL,          -- SHA-256 of the latest refresh token
    rotated_at TEXT NOT NULL,      -- when the tokens before it were used first, the last one first, separated by commas
    repeats INTEGER NOT NULL       -- how often the one before was used again after its grace
);

CREATE TABLE personal_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id),
    name TEXT NOT NULL,
    scope TEXT NOT NULL,           -- read or write
    hash BLOB NOT NULL UNIQUE,     -- SHA-256 of the token
    created_at INTEGER NOT NULL,
    expires_at INTEGER,            -- NULL: never
    used_at INTEGER                -- NULL: never; at most a minute old
);

-- So that the next ids can be kept even if the first sessions and tokens end before they are written.
INSERT INTO sqlite_sequence (name, seq) VALUES ('sessions', 0), ('personal_tokens', 0);
