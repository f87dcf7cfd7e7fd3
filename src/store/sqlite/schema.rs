//! The schema: migrations, and the demo users of development.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::domain::account::DemoUser;
use crate::domain::change::Epoch;
use crate::domain::clock::Timestamp;
use crate::store::error::DatabaseError;

/// Older versions can corrupt a WAL database when a checkpoint resets the log
/// (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST_SQLITE: i32 = 3_051_003;

/// Migrations in order; `PRAGMA user_version` is the number of those that a database has had. Append only.
const MIGRATIONS: [&str; 6] = [
    include_str!("migrations/0001.sql"),
    include_str!("migrations/0002.sql"),
    include_str!("migrations/0003.sql"),
    include_str!("migrations/0004.sql"),
    include_str!("migrations/0005.sql"),
    include_str!("migrations/0006.sql"),
];

/// The version of the schema that this program writes.
pub const VERSION: usize = MIGRATIONS.len();
/// The version of the schema that has accounts with a state.
pub const WITH_ACCOUNT_STATES: usize = 2;
/// The version of the schema that has sessions.
pub const WITH_SESSIONS: usize = 3;
/// The version of the schema that has a trash and keeps answers.
pub const WITH_TRASH: usize = 5;
/// The version of the schema whose changes say what they have replaced.
pub const WITH_BEFORE: usize = 6;

/// Indexes that queries name. A missing one is created at start: older versions work without it, so it needs no
/// migration. It is not limited to pending changes: if it were, every mark would write to it, and in a backlog each to
/// another page.
const INDEXES: &str = "CREATE INDEX IF NOT EXISTS changes_by_todo ON changes (todo_id, version)";

/// The database's schema version; an error if it is newer than this program.
pub fn schema_version(connection: &Connection, path: &Path) -> Result<usize, DatabaseError> {
    let version: usize =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(DatabaseError::sqlite(path))?;
    if version > VERSION {
        return Err(DatabaseError::NewerSchema {
            database: path.display().to_string(),
            found: version,
            known: VERSION,
        });
    }
    Ok(version)
}

/// Creates the schema or brings it up to date, one transaction per migration. Before that, `keep` is called with the
/// version that an existing database has and the one that it will have: older programs can't use it any more.
pub fn migrate(
    connection: &mut Connection,
    path: &Path,
    keep: impl FnOnce(&Connection, usize, usize) -> Result<(), DatabaseError>,
) -> Result<(), DatabaseError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(DatabaseError::OldSqlite { version: rusqlite::version() });
    }
    let version = schema_version(connection, path)?;
    if (1..VERSION).contains(&version) {
        keep(connection, version, VERSION)?;
    }
    migrate_from(connection, version).map_err(DatabaseError::sqlite(path))
}

fn migrate_from(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    // Else a table that others refer to can't be made anew (https://sqlite.org/lang_altertable.html#otheralter).
    connection.pragma_update(None, "foreign_keys", false)?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(migration)?;
        if index == 0 {
            let epoch = Epoch(rand::random());
            transaction.execute("INSERT INTO meta (epoch, uptime) VALUES (?1, 0)", [epoch.to_string()])?;
        }
        transaction.pragma_update(None, "user_version", index + 1)?;
        transaction.commit()?;
    }
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.execute_batch(INDEXES)
}

/// Whether the database has been used with DEBUG=False, by people with accounts of their own.
pub fn is_production(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT production AND EXISTS (SELECT 1 FROM users WHERE demo = 0 AND state <> 2) FROM meta";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Records that the database is used with DEBUG=False.
pub fn set_production(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("UPDATE meta SET production = 1 WHERE production = 0", []).map(drop)
}

/// Creates the demo users whose names are not taken.
pub fn add_demo_users(
    connection: &mut Connection,
    demo_users: &[DemoUser],
    hash: &(dyn Fn(&str) -> String + Sync),
    now: Timestamp,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for user in demo_users {
        let exists = transaction
            .query_row("SELECT 1 FROM users WHERE username = ?1 COLLATE NOCASE", [user.username], |_| Ok(()))
            .optional()?
            .is_some();
        if !exists {
            transaction.execute(
                "INSERT INTO users (username, password_hash, role, demo, created_at, revision, last_at, floor)
                 VALUES (?1, ?2, ?3, 1, ?4, 0, 0, 0)",
                params![user.username, hash(user.password), user.role.name(), now.0],
            )?;
        }
    }
    transaction.commit()
}
