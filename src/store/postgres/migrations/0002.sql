-- Version 2: several processes share the database. Their transactions take turns (docs/adr/0018-replicas.md), so the log has one order:
-- `seq`, as on SQLite, without gaps.

ALTER TABLE changes DROP CONSTRAINT changes_pkey;
ALTER TABLE changes ALTER COLUMN pos TYPE bigint USING stream::bigint << 40 | pos;
ALTER TABLE changes RENAME COLUMN pos TO seq;
ALTER TABLE changes DROP COLUMN stream;
ALTER TABLE changes ADD PRIMARY KEY (seq);

ALTER TABLE outbox DROP CONSTRAINT outbox_pkey;
ALTER TABLE outbox ALTER COLUMN pos TYPE bigint USING stream::bigint << 40 | pos;
ALTER TABLE outbox RENAME COLUMN pos TO seq;
ALTER TABLE outbox DROP COLUMN stream;
ALTER TABLE outbox ADD PRIMARY KEY (seq);

-- Every transaction that writes locks the row of `meta` first.
ALTER TABLE meta
    ADD COLUMN head bigint NOT NULL DEFAULT 0,    -- the last change
    ADD COLUMN records bigint NOT NULL DEFAULT 0, -- the number of the last of `records`
    ADD COLUMN turns bigint NOT NULL DEFAULT 0;   -- transactions that have written
UPDATE meta SET head = greatest((SELECT max(seq) FROM changes), (SELECT max(id::bigint << 40 | head) FROM streams), 0);

-- A process that has the database open has a row while it runs.
ALTER TABLE streams RENAME TO processes;
ALTER TABLE processes
    DROP COLUMN head,
    ADD COLUMN name text NOT NULL DEFAULT '',     -- for people
    ADD COLUMN seen_at timestamptz,               -- when it renewed its leases last; none: it never has any
    ADD COLUMN relays boolean NOT NULL DEFAULT false; -- whether it can publish events, as far as it knows
DELETE FROM processes;

-- What the log does not say, and others have to know: which row is new, different or gone. They read it then.
CREATE TABLE records (
    number bigint PRIMARY KEY,                    -- they follow one another
    kind smallint NOT NULL,                       -- 0 account, 1 session, 2 personal access token, 3 todo that was removed from the trash,
                                                  -- 4 delivery states that a relay has not changed: all relays start over
    id bigint NOT NULL,
    user_id bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX records_by_age ON records (at);
CREATE INDEX users_to_erase ON users (id) WHERE state = 2 AND NOT erased;

-- What only one process does at a time: publishing the events of todos whose id is `part` modulo 64, and, as part 64, removing
-- what has had its time.
CREATE TABLE leases (
    part smallint PRIMARY KEY,
    process int,
    until timestamptz NOT NULL DEFAULT '-infinity' -- by the clock of the database
) WITH (fillfactor = 50);
INSERT INTO leases (part) SELECT generate_series(0, 64);
