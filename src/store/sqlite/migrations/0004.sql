-- Version 4 of the schema: from where people have logged in. Times are milliseconds since 1970-01-01T00:00:00Z.

CREATE TABLE login_networks (
    user_id INTEGER NOT NULL REFERENCES users (id),
    network TEXT NOT NULL,         -- an IPv4 address or an IPv6 /64
    used_at INTEGER NOT NULL,      -- at most a minute old
    PRIMARY KEY (user_id, network)
) WITHOUT ROWID;
