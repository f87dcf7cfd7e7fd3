//! SQLite: the schema, how connections are set up, and every statement the store runs.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params};

use super::map::{TodoMap, Users};
use super::outbox::{Discovered, Fed, Found, Marks, Wanted};
use super::{OpenError, OutboxCommand};
use crate::domain::account::{DemoUser, Role, User, UserId};
use crate::domain::change::{Change, Cursor, DeliveryState, Epoch, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::{Field, Todo, TodoId, Version};
use crate::domain::trace::TraceParent;

/// Older versions can corrupt a WAL database when a checkpoint resets the log (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST_SQLITE: i32 = 3_051_003;

/// The schema's versions: `PRAGMA user_version` says how many of these a database has. Append only.
const MIGRATIONS: [&str; 1] = ["
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
        created_at INTEGER NOT NULL,   -- this and every other time: ms since 1970
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
"];

/// Indexes that queries name. One that is missing is made at start: an older version does without, so that they are no
/// version of the schema. Not only of what is pending: then marks would write to it, in a backlog each to another page.
const INDEXES: &str = "CREATE INDEX IF NOT EXISTS changes_by_todo ON changes (todo_id, version)";

/// Changes that one reading looks at for todos that nobody told of, at most: some milliseconds.
const DISCOVER: usize = 10_000;

/// Opens the connection that writes. `durable`: whether a commit waits for the disk.
pub fn open_writer(path: &Path, durable: bool) -> rusqlite::Result<Connection> {
    let connection = open(path)?;
    set_up(&connection)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        // Readers would block the writer, and the writer readers.
        return Err(unsupported(&format!("its file system can't hold a write-ahead log (journal mode {mode})")));
    }
    connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // The writer checkpoints itself: SQLite's own hook throws the errors away.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// Opens a file by its name: SQLite's default would read a name such as `file:x?mode=memory` as a URI.
pub fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags)
}

/// Opens a connection that only reads.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up(&connection)?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_millis(5000))?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// How many of the schema's versions the database has; an error when it has more than there are.
pub fn schema_version(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let version: usize = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|e| OpenError(format!("cannot use the database {}: {e}", path.display())))?;
    if version > MIGRATIONS.len() {
        return Err(OpenError(format!(
            "the database {} was written by a newer todo-backend (schema {version}, this one knows {}); use that one",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    Ok(version)
}

/// Makes the schema or brings it up to date, one transaction a version.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |e: rusqlite::Error| OpenError(format!("cannot use the database {}: {e}", path.display()));
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError(format!(
            "SQLite {} can corrupt its log; 3.51.3 or newer is needed",
            rusqlite::version()
        )));
    }
    let version = schema_version(connection, path)?;
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        transaction.execute_batch(migration).map_err(failed)?;
        if done == 0 {
            let epoch = Epoch(rand::random());
            transaction
                .execute("INSERT INTO meta (epoch, uptime) VALUES (?1, 0)", [epoch.to_string()])
                .map_err(failed)?;
        }
        transaction.pragma_update(None, "user_version", done + 1).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    connection.execute_batch(INDEXES).map_err(failed)
}

/// Adds the demo users whose names nobody has.
pub fn add_demo_users(
    connection: &mut Connection,
    demo_users: &[DemoUser],
    hash: &dyn Fn(&str) -> String,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for user in demo_users {
        let known = transaction
            .query_row("SELECT 1 FROM users WHERE username = ?1", [user.username], |_| Ok(()))
            .optional()?
            .is_some();
        if !known {
            transaction.execute(
                "INSERT INTO users (username, password_hash, role, demo, created_at, revision, last_at, floor)
                 VALUES (?1, ?2, ?3, 1, ?4, 0, 0, 0)",
                params![user.username, hash(user.password), user.role.name(), now.0],
            )?;
        }
    }
    transaction.commit()
}

/// Where an owner's part of the log ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head {
    /// Of the last change; 0 before the first.
    pub revision: Revision,
    /// Of the last change.
    pub last_at: Timestamp,
    /// Changes up to this revision were pruned.
    pub floor: Revision,
}

/// The numbers that the next todo and the next change get.
#[derive(Debug, Clone, Copy)]
pub struct Next {
    /// Todo id.
    pub id: TodoId,
    /// Place in the log.
    pub place: Place,
}

/// What memory holds of a database.
pub struct Loaded {
    pub epoch: Epoch,
    pub users: Users,
    pub heads: HashMap<UserId, Head>,
    pub todos: TodoMap,
    pub next: Next,
    pub pending: usize,
    /// Seconds that the service has run on this database.
    pub uptime: i64,
}

/// Reads everything that memory holds.
pub fn load(connection: &Connection, demo_users: bool) -> rusqlite::Result<Loaded> {
    let (epoch, uptime): (String, i64) =
        connection.query_row("SELECT epoch, uptime FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let epoch = Epoch(u64::from_str_radix(&epoch, 16).map_err(|_| invalid("meta.epoch"))?);
    let mut users = Users::default();
    let mut heads = HashMap::new();
    let mut statement =
        connection.prepare("SELECT id, username, password_hash, role, demo, revision, last_at, floor FROM users")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id: UserId = row.get(0)?;
        heads.insert(id, Head { revision: row.get(5)?, last_at: Timestamp(row.get(6)?), floor: row.get(7)? });
        if demo_users || !row.get::<_, bool>(4)? {
            let role: String = row.get(3)?;
            users.insert(User {
                id,
                username: row.get::<_, String>(1)?.into(),
                password_hash: row.get::<_, String>(2)?.into(),
                role: Role::from_name(&role).ok_or_else(|| invalid("users.role"))?,
            });
        }
    }
    let mut todos = TodoMap::default();
    let mut statement = connection
        .prepare("SELECT owner_id, id, version, title, description, completed, created_at, updated_at FROM todos")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        todos.insert(Arc::new(todo(row, 0)?));
    }
    Ok(Loaded {
        epoch,
        users,
        heads,
        todos,
        next: Next { id: TodoId(next(connection, "todos")?), place: Place(next(connection, "changes")?) },
        pending: connection.query_row("SELECT count(*) FROM changes WHERE state = 0", [], |row| row.get(0))?,
        // A kill can leave meta behind the last change.
        uptime: connection
            .query_row("SELECT uptime FROM changes ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
            .optional()?
            .map_or(uptime, |last: i64| last.max(uptime)),
    })
}

/// The number after the highest that AUTOINCREMENT ever gave out in `table`.
fn next(connection: &Connection, table: &str) -> rusqlite::Result<i64> {
    let last: Option<i64> = connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table], |row| row.get(0))
        .optional()?;
    Ok(last.unwrap_or(0) + 1)
}

/// A todo from eight columns from `first` on: owner_id, id, version, title, description, completed, created_at,
/// updated_at.
fn todo(row: &Row<'_>, first: usize) -> rusqlite::Result<Todo> {
    Ok(Todo {
        owner: row.get(first)?,
        id: row.get(first + 1)?,
        version: row.get(first + 2)?,
        title: row.get::<_, Box<str>>(first + 3)?,
        description: row.get::<_, Option<Box<str>>>(first + 4)?,
        completed: row.get(first + 5)?,
        created_at: Timestamp(row.get(first + 6)?),
        updated_at: Timestamp(row.get(first + 7)?),
    })
}

fn unsupported(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(why.to_owned()))
}

fn invalid(column: &str) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnName(format!("{column} holds a value that this version does not know"))
}

/// Why a group was not committed.
#[derive(Debug)]
pub enum CommitError {
    /// Nothing of it is in the database.
    NotApplied(rusqlite::Error),
    /// It may be in the database.
    Unknown(rusqlite::Error),
    /// The disk did not confirm a write. Trying again could succeed without the data being there
    /// (<https://wiki.postgresql.org/wiki/Fsync_Errors>): only a restart finds out what is on disk.
    Fsync(rusqlite::Error),
}

impl CommitError {
    fn before_commit(error: rusqlite::Error) -> Self {
        if is_fsync(&error) { Self::Fsync(error) } else { Self::NotApplied(error) }
    }

    fn at_commit(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            _ if is_fsync(&error) => Self::Fsync(error),
            // The log could not take the frames: without the last one, the commit frame, they are nothing.
            Some(ffi::ErrorCode::DiskFull | ffi::ErrorCode::DatabaseBusy) => Self::NotApplied(error),
            _ => Self::Unknown(error),
        }
    }
}

/// Whether a flush to the disk failed.
pub fn is_fsync(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(code, _)
        if [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&code.extended_code))
}

/// Commits a group: its changes, the heads of its owners, and the relay's marks, all or nothing. `uptime` is kept with
/// each change; `save_uptime`: by itself, too.
pub fn commit(
    connection: &mut Connection,
    changes: &[Arc<Change>],
    heads: &HashMap<UserId, Head>,
    marks: &Marks,
    uptime: i64,
    save_uptime: bool,
) -> Result<(), CommitError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(CommitError::before_commit)?;
    // Dropping the transaction rolls it back.
    write(&transaction, changes, heads, marks, uptime).map_err(CommitError::before_commit)?;
    if save_uptime {
        // A page is written even if the value stays the same.
        let mut save = transaction.prepare_cached("UPDATE meta SET uptime = ?1").map_err(CommitError::before_commit)?;
        save.execute([uptime]).map_err(CommitError::before_commit)?;
    }
    transaction.commit().map_err(CommitError::at_commit)
}

fn write(
    transaction: &Transaction<'_>,
    changes: &[Arc<Change>],
    heads: &HashMap<UserId, Head>,
    marks: &Marks,
    uptime: i64,
) -> rusqlite::Result<()> {
    let mut put = transaction.prepare_cached(
        "INSERT INTO todos (id, owner_id, version, title, description, completed, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (id) DO UPDATE SET version = excluded.version, title = excluded.title,
             description = excluded.description, completed = excluded.completed, updated_at = excluded.updated_at",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM todos WHERE id = ?1")?;
    let mut log = transaction.prepare_cached(
        "INSERT INTO changes (seq, owner_id, revision, todo_id, version, kind, at, actor, changed, trace,
             title, description, completed, created_at, updated_at, uptime)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?;
    for change in changes {
        let todo = &change.todo;
        match change.kind {
            Kind::Created | Kind::Updated => put.execute(params![
                todo.id,
                todo.owner,
                todo.version,
                todo.title,
                todo.description,
                todo.completed,
                todo.created_at.0,
                todo.updated_at.0
            ])?,
            Kind::Deleted => delete.execute([todo.id])?,
        };
        let changed = change.changed.iter().map(|field| field.name()).collect::<Vec<_>>().join(",");
        log.execute(params![
            change.place,
            todo.owner,
            change.revision,
            todo.id,
            todo.version,
            change.kind as u8,
            change.at.0,
            change.actor,
            changed,
            change.trace.as_str(),
            todo.title,
            todo.description,
            todo.completed,
            todo.created_at.0,
            todo.updated_at.0,
            uptime
        ])?;
    }
    let mut set_head = transaction.prepare_cached("UPDATE users SET revision = ?2, last_at = ?3 WHERE id = ?1")?;
    for (owner, head) in heads {
        set_head.execute(params![owner, head.revision, head.last_at.0])?;
    }
    let mut set_state = transaction.prepare_cached("UPDATE changes SET state = ?2 WHERE seq = ?1 AND state = 0")?;
    // In the log's order: neighbours share a page.
    let mut marks: Vec<_> = marks.iter().collect();
    marks.sort_unstable_by_key(|(place, _)| place.0);
    for (place, state) in marks {
        set_state.execute(params![place, state])?;
    }
    Ok(())
}

/// What pruning did to an owner's part of the log.
pub struct Pruned {
    pub owner: UserId,
    pub floor: Revision,
    /// There may be more to remove: it had its share.
    pub more: bool,
}

/// Removes what retention doesn't keep, for each of `owners`: a prefix of its part of the log, up to the first change
/// that is not published. At most `limit` changes in all, of which each owner has a fair share.
pub fn prune(
    connection: &mut Connection,
    owners: &[(UserId, Head)],
    keep_from_uptime: i64,
    keep_per_owner: i64,
    limit: usize,
) -> Result<Vec<Pruned>, CommitError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(CommitError::before_commit)?;
    let pruned = delete_prefixes(&transaction, owners, keep_from_uptime, keep_per_owner, limit)
        .map_err(CommitError::before_commit)?;
    transaction.commit().map_err(CommitError::at_commit)?;
    Ok(pruned)
}

fn delete_prefixes(
    transaction: &Transaction<'_>,
    owners: &[(UserId, Head)],
    keep_from_uptime: i64,
    keep_per_owner: i64,
    limit: usize,
) -> rusqlite::Result<Vec<Pruned>> {
    let mut read = transaction.prepare_cached(
        "SELECT revision, uptime, state FROM changes WHERE owner_id = ?1 AND revision > ?2 ORDER BY revision",
    )?;
    let mut delete = transaction.prepare_cached("DELETE FROM changes WHERE owner_id = ?1 AND revision <= ?2")?;
    let mut set_floor = transaction.prepare_cached("UPDATE users SET floor = ?2 WHERE id = ?1")?;
    let (mut pruned, mut left) = (Vec::new(), limit);
    for (index, &(owner, head)) in owners.iter().enumerate() {
        let mut share = left.div_ceil(owners.len() - index);
        let (mut floor, mut more) = (head.floor, false);
        let mut rows = read.query(params![owner, head.floor])?;
        while let Some(row) = rows.next()? {
            let (revision, uptime, state): (Revision, i64, DeliveryState) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let too_many = revision.0 <= head.revision.0 - keep_per_owner;
            if ![DeliveryState::Published, DeliveryState::Skipped].contains(&state)
                || !(too_many || uptime < keep_from_uptime)
            {
                break;
            }
            if share == 0 {
                more = true;
                break;
            }
            floor = revision;
            share -= 1;
            left -= 1;
        }
        drop(rows);
        if floor > head.floor {
            delete.execute(params![owner, floor])?;
            set_floor.execute(params![owner, floor])?;
            pruned.push(Pruned { owner, floor, more });
        }
    }
    Ok(pruned)
}

/// The changes that a command is about, the latest first, at most `limit`: their `seq` and revisions, all below
/// `below`, which is a revision.
pub fn read_affected(
    connection: &Connection,
    command: &OutboxCommand,
    below: Revision,
    limit: usize,
) -> rusqlite::Result<Vec<(Place, Revision)>> {
    let (sql, target): (&str, [i64; 2]) = match *command {
        OutboxCommand::Retry { todo, version } | OutboxCommand::Skip { todo, version } => {
            ("todo_id = ?1 AND version = ?2 AND state = 2", [todo.0, version.0])
        }
        OutboxCommand::Republish { owner, from_revision } => {
            ("owner_id = ?1 AND revision >= ?2 AND state = 1", [owner.0, from_revision.0])
        }
    };
    let sql =
        format!("SELECT seq, revision FROM changes WHERE {sql} AND revision < ?3 ORDER BY revision DESC LIMIT ?4");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map(params![target[0], target[1], below, limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// What a command makes of a change.
fn state_after(command: &OutboxCommand) -> DeliveryState {
    match command {
        OutboxCommand::Retry { .. } | OutboxCommand::Republish { .. } => DeliveryState::Pending,
        OutboxCommand::Skip { .. } => DeliveryState::Skipped,
    }
}

/// Does with changes what an operator asks.
pub fn operate(connection: &mut Connection, command: &OutboxCommand, places: &[Place]) -> Result<(), CommitError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(CommitError::before_commit)?;
    let set = || -> rusqlite::Result<()> {
        let mut statement = transaction.prepare_cached("UPDATE changes SET state = ?2 WHERE seq = ?1")?;
        places.iter().try_for_each(|place| statement.execute(params![place, state_after(command)]).map(drop))
    };
    set().map_err(CommitError::before_commit)?;
    transaction.commit().map_err(CommitError::at_commit)
}

/// Whether a command was done with a change.
pub fn is_done(connection: &Connection, command: &OutboxCommand, place: Place) -> rusqlite::Result<bool> {
    let state: DeliveryState =
        connection.query_row("SELECT state FROM changes WHERE seq = ?1", [place], |row| row.get(0))?;
    Ok(state == state_after(command))
}

/// Changes that wait for an operator, oldest first.
pub fn read_parked(connection: &Connection, epoch: Epoch, limit: usize) -> rusqlite::Result<Vec<Change>> {
    let sql = format!("SELECT {CHANGE_COLUMNS} FROM changes WHERE state = 2 ORDER BY seq LIMIT ?1");
    connection.prepare_cached(&sql)?.query_map([limit], |row| change(row, epoch))?.collect()
}

/// What the metrics show of the log.
pub struct LogSamples {
    /// Time of the oldest pending change, without those that wait behind a parked one of their todo.
    pub oldest_pending: Option<Timestamp>,
    /// None of those comes before this.
    pub oldest_from: Place,
    /// Parked changes.
    pub parked: i64,
    /// Changes in the log, without counting them one by one.
    pub changes: i64,
}

/// Looks up what the metrics show of the log. The oldest pending change is looked for from `from` on.
pub fn sample_log(connection: &Connection, from: Place) -> rusqlite::Result<LogSamples> {
    let sql = "SELECT seq, at FROM changes WHERE state = 0 AND seq >= ?1
         AND todo_id NOT IN (SELECT todo_id FROM changes WHERE state = 2) ORDER BY seq LIMIT 1";
    // Asked for before: what is committed meanwhile comes after it.
    let end = end(connection)?.place();
    let oldest = |row: &Row<'_>| Ok((row.get(0)?, Timestamp(row.get(1)?)));
    let oldest = connection.prepare_cached(sql)?.query_row([from], oldest).optional()?;
    Ok(LogSamples {
        oldest_pending: oldest.map(|(_, at)| at),
        oldest_from: oldest.map_or(end, |(place, _)| place),
        parked: connection.query_row("SELECT count(*) FROM changes WHERE state = 2", [], |row| row.get(0))?,
        changes: connection.query_row("SELECT coalesce(sum(revision - floor), 0) FROM users", [], |row| row.get(0))?,
    })
}

/// Past everything that the log holds.
fn end(connection: &Connection) -> rusqlite::Result<Cursor> {
    let last = connection.query_row("SELECT coalesce(max(seq), 0) FROM changes", [], |row| row.get(0));
    last.map(Cursor::up_to)
}

/// Whether the log holds this change.
pub fn is_logged(connection: &Connection, place: Place) -> rusqlite::Result<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM changes WHERE seq = ?1)", [place], |row| row.get(0))
}

/// Moves committed pages from the log into the database file, as far as readers allow.
pub fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// See [`super::Store::read_outbox`].
pub fn read_outbox(connection: &Connection, epoch: Epoch, wanted: &Wanted, marked: &Marks) -> rusqlite::Result<Found> {
    let snapshot = connection.unchecked_transaction()?;
    let mut found = Found::default();
    let mut pending = snapshot.prepare_cached(&format!(
        "SELECT {CHANGE_COLUMNS} FROM changes INDEXED BY changes_by_todo
         WHERE todo_id = ?1 AND version > ?2 AND seq <= ?3 AND state = 0 ORDER BY version"
    ))?;
    let mut room = wanted.room;
    for want in &wanted.wants {
        if room == 0 {
            break;
        }
        let limit = want.limit.min(room);
        let (mut changes, mut more) = (Vec::new(), false);
        let mut rows = pending.query(params![want.todo, want.above, wanted.told.place()])?;
        while let Some(row) = rows.next()? {
            let change = change(row, epoch)?;
            if marked.contains_key(&change.place) {
                continue;
            }
            if changes.len() == limit {
                more = true;
                break;
            }
            changes.push(Arc::new(change));
        }
        room -= changes.len();
        found.fed.push(Fed { todo: want.todo, changes, more });
    }
    if wanted.discover > 0 {
        found.discovered = Some(discover(&snapshot, wanted, marked)?);
    }
    Ok(found)
}

/// Todos with pending changes beyond what is known. Looks at a bounded number of changes, each of them once.
fn discover(snapshot: &Transaction<'_>, wanted: &Wanted, marked: &Marks) -> rusqlite::Result<Discovered> {
    let mut parked = HashSet::new();
    if wanted.known == Cursor::START {
        let mut statement = snapshot.prepare_cached("SELECT DISTINCT todo_id FROM changes WHERE state = 2")?;
        parked = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        // A mark that is committed before a later reading gets that far would be seen by neither.
        let mut todo_of = snapshot.prepare_cached("SELECT todo_id FROM changes WHERE seq = ?1")?;
        for (place, _) in marked.iter().filter(|(_, state)| **state == DeliveryState::Parked) {
            parked.extend(todo_of.query_row([place], |row| row.get::<_, TodoId>(0)).optional()?);
        }
    }
    let end = end(snapshot)?;
    let mut discovered = Discovered { todos: Vec::new(), parked, known: wanted.known, behind: true };
    // Answered from the partial index alone.
    let mut index = snapshot.prepare_cached(
        "SELECT seq, todo_id, version FROM changes WHERE state = 0 AND seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = index.query(params![wanted.known.place(), DISCOVER])?;
    let (mut seen, mut looked_at) = (HashSet::new(), 0);
    while let Some(row) = rows.next()? {
        let (place, todo, version): (Place, TodoId, Version) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !marked.contains_key(&place) && !discovered.parked.contains(&todo) && !seen.contains(&todo) {
            if seen.len() == wanted.discover {
                return Ok(discovered);
            }
            seen.insert(todo);
            discovered.todos.push((todo, version));
        }
        discovered.known = Cursor::up_to(place);
        looked_at += 1;
    }
    if looked_at < DISCOVER {
        (discovered.known, discovered.behind) = (end, false);
    }
    Ok(discovered)
}

/// What [`change`] reads, in its order.
const CHANGE_COLUMNS: &str = "owner_id, todo_id, version, title, description, completed, created_at, updated_at, \
    seq, revision, kind, at, actor, changed, trace";

fn change(row: &Row<'_>, epoch: Epoch) -> rusqlite::Result<Change> {
    let kind: usize = row.get(10)?;
    let changed: String = row.get(13)?;
    let trace: String = row.get(14)?;
    Ok(Change {
        place: row.get(8)?,
        epoch,
        revision: row.get(9)?,
        kind: *Kind::ALL.get(kind).ok_or_else(|| invalid("changes.kind"))?,
        at: Timestamp(row.get(11)?),
        actor: row.get::<_, String>(12)?.into(),
        changed: Field::ALL.into_iter().filter(|field| changed.split(',').any(|name| name == field.name())).collect(),
        trace: TraceParent::parse(&trace).ok_or_else(|| invalid("changes.trace"))?,
        todo: Arc::new(todo(row, 0)?),
    })
}

/// Numbers of the domain as SQLite's integers.
macro_rules! as_integer {
    ($($number:ident),+) => {
        $(
            impl ToSql for $number {
                fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                    self.0.to_sql()
                }
            }

            impl FromSql for $number {
                fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                    i64::column_result(value).map($number)
                }
            }
        )+
    };
}

as_integer!(UserId, TodoId, Version, Revision, Place);

impl ToSql for DeliveryState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for DeliveryState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = i64::column_result(value)?;
        Self::ALL.into_iter().find(|state| *state as i64 == number).ok_or(FromSqlError::OutOfRange(number))
    }
}
