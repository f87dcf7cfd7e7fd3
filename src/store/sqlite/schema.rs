//! The schema: its versions, and what a new database begins with.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::domain::account::DemoUser;
use crate::domain::change::Epoch;
use crate::domain::clock::Timestamp;
use crate::store::error::DatabaseError;

/// Older versions can corrupt a WAL database when a checkpoint resets the log (<https://sqlite.org/wal.html#walresetbug>).
const OLDEST_SQLITE: i32 = 3_051_003;

/// The schema's versions: `PRAGMA user_version` says how many of these a database has. Append only.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001.sql")];

/// Indexes that queries name. One that is missing is made at start: an older version does without, so that they are no
/// version of the schema. Not only of what is pending: then marks would write to it, in a backlog each to another page.
const INDEXES: &str = "CREATE INDEX IF NOT EXISTS changes_by_todo ON changes (todo_id, version)";

/// How many of the schema's versions the database has; an error when it has more than there are.
pub fn schema_version(connection: &Connection, path: &Path) -> Result<usize, DatabaseError> {
    let version: usize =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(DatabaseError::sqlite(path))?;
    if version > MIGRATIONS.len() {
        return Err(DatabaseError::NewerSchema { path: path.to_owned(), found: version, known: MIGRATIONS.len() });
    }
    Ok(version)
}

/// Makes the schema or brings it up to date, one transaction a version.
pub fn migrate(connection: &mut Connection, path: &Path) -> Result<(), DatabaseError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(DatabaseError::OldSqlite { version: rusqlite::version() });
    }
    let version = schema_version(connection, path)?;
    migrate_from(connection, version).map_err(DatabaseError::sqlite(path))
}

fn migrate_from(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
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
    connection.execute_batch(INDEXES)
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
