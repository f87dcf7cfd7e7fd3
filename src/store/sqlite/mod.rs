//! The SQLite store: how connections are opened, and a file for each kind of work on them.

pub mod admin;
pub mod backend;
mod commit;
pub mod database;
pub mod database_file;
mod erase;
pub mod history;
mod idempotency;
pub mod load;
pub mod maintenance;
pub mod reader;
pub mod readers;
pub mod retention;
mod rows;
pub mod schema;
mod used;

use std::path::Path;

use rusqlite::{Connection, OpenFlags, ffi};

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
    // The writer checkpoints itself: SQLite's own hook discards errors.
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

fn unsupported(why: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CANTOPEN), Some(why.to_owned()))
}
