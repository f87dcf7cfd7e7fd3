-- Version 2 of the schema: accounts. The table is made anew because names are now compared without case, and because a
-- demo user that is gone must not hold its name. Ids stay, and AUTOINCREMENT goes on after them.

CREATE TABLE new_users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL,
    password_hash TEXT NOT NULL,   -- PHC string or imported bcrypt; empty: the account is deleted
    role TEXT NOT NULL,
    demo INTEGER NOT NULL,         -- 1: exists only with DEBUG=True
    created_at INTEGER NOT NULL,   -- milliseconds
    revision INTEGER NOT NULL,     -- of the last change of this owner
    last_at INTEGER NOT NULL,      -- time of that change
    floor INTEGER NOT NULL,        -- changes up to this revision were pruned
    state INTEGER NOT NULL DEFAULT 0,        -- 0 active, 1 disabled, 2 deleted
    token_epoch INTEGER NOT NULL DEFAULT 0,  -- tokens of an earlier epoch are not valid
    deleted_by TEXT,                         -- the username of whoever deleted it
    erased INTEGER NOT NULL DEFAULT 0        -- 1: deleted, and nothing that its owner wrote is left
);

INSERT INTO new_users (id, username, password_hash, role, demo, created_at, revision, last_at, floor)
    SELECT id, username, password_hash, role, demo, created_at, revision, last_at, floor FROM users;

DELETE FROM sqlite_sequence WHERE name = 'new_users';
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_users', seq FROM sqlite_sequence WHERE name = 'users';

DROP TABLE users;
ALTER TABLE new_users RENAME TO users;

-- NOCASE compares ASCII letters without case, and names have no others.
CREATE UNIQUE INDEX users_by_name ON users (username COLLATE NOCASE) WHERE demo = 0 OR state <> 2;

-- 1: it was used with DEBUG=False. If people have accounts in it, demo users with published passwords must not get into it.
ALTER TABLE meta ADD COLUMN production INTEGER NOT NULL DEFAULT 0;

-- 1: title and description were replaced, because the owner's account was deleted.
ALTER TABLE changes ADD COLUMN scrubbed INTEGER NOT NULL DEFAULT 0;
