//! The change log for those who read it, whatever database it is in.

use std::sync::Arc;
use std::time::Duration;

use super::error::{DatabaseError, StoreError};
use super::history::{Limit, Page, Past, Span};
use super::leases::Leases;
use super::outbox::{Found, Marks, Wanted};
use super::{Shared, postgres, sqlite};
use crate::domain::account::UserId;
use crate::domain::change::{Change, Place};
use crate::domain::clock::Timestamp;
use crate::domain::todo::{TodoId, Version};

/// The metrics' view of the log.
pub struct LogSamples {
    /// The time of the oldest pending change, not counting those behind a parked change of their todo.
    pub oldest_pending: Option<Timestamp>,
    /// No such change comes before this place.
    pub oldest_from: Place,
    /// The number of pending changes, if it has to be counted.
    pub pending: Option<i64>,
    /// The number of parked changes.
    pub parked: i64,
    /// The number of changes in the log, computed from the owners' heads.
    pub changes: i64,
    /// The size of the database.
    pub database_bytes: i64,
    /// The size of a write-ahead log of its own.
    pub wal_bytes: i64,
}

/// A file has one process.
static ALL: Leases = Leases::all();

/// The databases that it can be in.
pub enum ChangeLog {
    /// A file.
    Sqlite(sqlite::database::Database),
    /// A server's.
    Postgres(postgres::database::Database),
}

impl ChangeLog {
    /// Where the data is, for people.
    pub fn location(&self) -> String {
        match self {
            Self::Sqlite(database) => database.location(),
            Self::Postgres(database) => database.location(),
        }
    }

    /// Follows what other processes commit, if there can be any.
    pub(super) fn follow(&self, shared: &Arc<Shared>) {
        if let Self::Postgres(database) = self {
            database.follow(shared);
        }
    }

    /// What only one process does at a time, and which of it this one does.
    pub fn leases(&self) -> &Leases {
        match self {
            Self::Sqlite(_) => &ALL,
            Self::Postgres(database) => database.leases(),
        }
    }

    /// Begins to take part in what only one process does at a time.
    pub(super) fn take_leases(&self, shared: &Arc<Shared>) {
        if let Self::Postgres(database) = self {
            database.take_leases(shared);
        }
    }

    /// Waits until memory has what was committed before, by whatever process.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(database) => database.catch_up().await,
        }
    }

    /// Memory has what was committed until so long ago.
    pub fn age(&self) -> Duration {
        match self {
            Self::Sqlite(_) => Duration::ZERO,
            Self::Postgres(database) => database.age(),
        }
    }

    /// Checks what is stored; returns the violations. Blocks.
    pub fn check(&self) -> Result<Vec<String>, DatabaseError> {
        match self {
            Self::Sqlite(database) => database.check(),
            Self::Postgres(database) => database.check(),
        }
    }

    /// Reads what the relay asks for, without what is `marked`. Blocks.
    pub fn read_outbox(&self, wanted: &Wanted, marked: &Marks) -> Result<Found, DatabaseError> {
        match self {
            Self::Sqlite(database) => database.read_outbox(wanted, marked),
            Self::Postgres(database) => database.read_outbox(wanted, marked),
        }
    }

    /// Parked changes, oldest first. Blocks.
    pub fn parked(&self, limit: usize) -> Result<Vec<Change>, DatabaseError> {
        match self {
            Self::Sqlite(database) => database.parked(limit),
            Self::Postgres(database) => database.parked(limit),
        }
    }

    /// Samples the log. The search for the oldest pending change starts at `from`. Blocks.
    pub fn sample(&self, from: Place) -> Result<LogSamples, DatabaseError> {
        match self {
            Self::Sqlite(database) => database.sample(from),
            Self::Postgres(database) => database.sample(from),
        }
    }

    /// The next of some changes; `None` if the log does not have all of them any more.
    pub async fn whole_page(&self, span: Span) -> Result<Option<Page>, DatabaseError> {
        match self {
            Self::Sqlite(database) => database.whole_page(span).await,
            Self::Postgres(database) => database.whole_page(span).await,
        }
    }

    /// The next of some changes that the log has.
    pub async fn page(&self, span: Span) -> Result<Page, DatabaseError> {
        match self {
            Self::Sqlite(database) => database.page(span).await,
            Self::Postgres(database) => database.page(span).await,
        }
    }

    /// The changes of a todo of `owner` after a version, and whether there are more; none of another's.
    pub async fn of_todo(
        &self,
        owner: UserId,
        todo: TodoId,
        after: Version,
        limit: Limit,
    ) -> Result<(Vec<Past>, bool), DatabaseError> {
        match self {
            Self::Sqlite(database) => database.of_todo(owner, todo, after, limit).await,
            Self::Postgres(database) => database.of_todo(owner, todo, after, limit).await,
        }
    }

    /// Closes it, so that another process can open it. Nothing is written any more. Blocks.
    pub fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close(),
            Self::Postgres(database) => database.close(),
        }
    }
}
