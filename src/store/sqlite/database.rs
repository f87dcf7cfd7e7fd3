//! An SQLite database that is open: its lock, and the connections that read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tempfile::TempDir;

use super::backend::Sqlite;
use super::database_file::{DatabaseLock, make_parent, with_suffix};
use super::readers::Readers;
use super::{admin, history, load, maintenance, open_reader, open_writer, reader, schema};
use crate::domain::account::{DEMO_USERS, UserId};
use crate::domain::change::{Change, Epoch, Place};
use crate::domain::todo::{TodoId, Version};
use crate::store::change_log::LogSamples;
use crate::store::error::DatabaseError;
use crate::store::history::{Limit, Page, Past, Span};
use crate::store::loaded::Loaded;
use crate::store::outbox::{Found, Marks, Wanted};
use crate::store::{DemoUsers, Options};

/// An open database, for those who read.
pub struct Database {
    path: PathBuf,
    epoch: Epoch,
    /// The relay does not wait for clients that read what they did.
    relay: Mutex<Connection>,
    clients: Arc<Readers>,
    /// Until it is closed: the lock on the database, and the directory of a temporary one.
    lock: Mutex<Option<(DatabaseLock, Option<TempDir>)>>,
}

impl Database {
    /// Opens the database `named`, or a temporary one, creating or migrating it if needed.
    pub fn open(named: Option<&Path>, options: &Options<'_>) -> Result<(Self, Loaded, Sqlite), DatabaseError> {
        let (named, directory) = match named {
            Some(path) => (path.to_owned(), None),
            None => {
                let directory = tempfile::tempdir().map_err(DatabaseError::TemporaryDirectory)?;
                (directory.path().join("todos.db"), Some(directory))
            }
        };
        make_parent(&named)?;
        let lock = DatabaseLock::take_or_create(&named)?;
        let path = lock.path().to_owned();
        maintenance::refuse_moved(&path)?;
        let failed = DatabaseError::sqlite(path.clone());
        let mut connection = open_writer(&path, directory.is_none()).map_err(&failed)?;
        schema::migrate(&mut connection, &path, |connection, found, version| {
            if !options.may_upgrade {
                return Err(DatabaseError::OlderSchema { database: path.display().to_string(), found, known: version });
            }
            let kept = maintenance::copy_before_migration(connection, &path, version)?;
            log::warn!("the database gets a new schema; as it was, it is kept as {}", kept.display());
            Ok(())
        })?;
        let is_production = schema::is_production(&connection).map_err(&failed)?;
        let demo_users = match options.demo_users {
            DemoUsers::None => {
                schema::set_production(&connection).map_err(&failed)?;
                false
            }
            DemoUsers::Existing => !is_production,
            DemoUsers::Created(_) if is_production => {
                return Err(DatabaseError::Production { database: path.display().to_string() });
            }
            DemoUsers::Created(hash) => {
                schema::add_demo_users(&mut connection, &DEMO_USERS, hash, options.clock.now()).map_err(&failed)?;
                true
            }
        };
        let loaded = load::load(&connection, demo_users).map_err(&failed)?;
        let relay = Mutex::new(open_reader(&path).map_err(&failed)?);
        let clients = Arc::new(Readers::open(&path).map_err(&failed)?);
        let epoch = loaded.epoch;
        let database = Self { path, epoch, relay, clients, lock: Mutex::new(Some((lock, directory))) };
        Ok((database, loaded, Sqlite::new(connection, epoch)))
    }

    /// Where the data is, for the log.
    pub fn location(&self) -> String {
        match &*self.lock.lock() {
            Some((_, Some(_))) => "a temporary database, deleted on exit".to_owned(),
            _ => self.path.display().to_string(),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks what is on disk; returns the violations. Blocks on the disk.
    pub fn check(&self) -> Result<Vec<String>, DatabaseError> {
        maintenance::check(&self.path)
    }

    /// Reads what the relay asks for, without what is `marked`. Blocks on the disk.
    pub fn read_outbox(&self, wanted: &Wanted, marked: &Marks) -> Result<Found, DatabaseError> {
        reader::read_outbox(&self.relay.lock(), self.epoch, wanted, marked).map_err(DatabaseError::sqlite(&self.path))
    }

    /// Parked changes, oldest first. Blocks on the disk.
    pub fn parked(&self, limit: usize) -> Result<Vec<Change>, DatabaseError> {
        admin::read_parked(&self.relay.lock(), self.epoch, limit).map_err(DatabaseError::sqlite(&self.path))
    }

    /// Samples the log; see [`reader::sample_log`]. Blocks on the disk.
    pub fn sample(&self, from: Place) -> Result<LogSamples, DatabaseError> {
        let size =
            |path: &Path| std::fs::metadata(path).map_or(0, |file| i64::try_from(file.len()).unwrap_or(i64::MAX));
        let log = reader::sample_log(&self.relay.lock(), from).map_err(DatabaseError::sqlite(&self.path))?;
        Ok(LogSamples { database_bytes: size(&self.path), wal_bytes: size(&with_suffix(&self.path, "-wal")), ..log })
    }

    /// The next of some changes; `None` if the log does not have all of them any more.
    pub async fn whole_page(&self, span: Span) -> Result<Option<Page>, DatabaseError> {
        let epoch = self.epoch;
        self.clients.read(move |connection| history::whole_page(connection, epoch, &span)).await
    }

    /// The next of some changes that the log has.
    pub async fn page(&self, span: Span) -> Result<Page, DatabaseError> {
        let epoch = self.epoch;
        self.clients.read(move |connection| history::page(connection, epoch, &span)).await
    }

    /// The changes of a todo of `owner` after a version, and whether there are more; none of another's.
    pub async fn of_todo(
        &self,
        owner: UserId,
        todo: TodoId,
        after: Version,
        limit: Limit,
    ) -> Result<(Vec<Past>, bool), DatabaseError> {
        let epoch = self.epoch;
        self.clients.read(move |connection| history::of_todo(connection, epoch, owner, todo, after, limit)).await
    }

    /// Closes it, so that another process can open it. Nothing is written any more.
    pub fn close(&self) {
        let Some(lock) = self.lock.lock().take() else { return };
        // Closing any descriptor of a file gives up all of the process's POSIX locks on it, SQLite's too
        // (https://sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_): the
        // last connection goes before the lock.
        for reader in self.clients.connections().chain([&self.relay]) {
            match Connection::open_in_memory() {
                Ok(nothing) => *reader.lock() = nothing,
                Err(error) => log::warn!("a connection that reads is closed late: {error}"),
            }
        }
        drop(lock);
    }
}
