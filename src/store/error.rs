//! How the store fails: when it applies commands, and when it opens or maintains a database file.

use std::io;
use std::path::PathBuf;

use super::decide::Refusal;
use super::postgres::error::PostgresError;

/// Why commands were not applied, or may not have been.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// A rule forbids it. Nothing was changed.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// A rule forbids one of a batch's operations. Nothing was changed.
    #[error("operation {operation} refused: {refusal:?}")]
    OperationRefused {
        /// Its index.
        operation: usize,
        /// The rule.
        refusal: Refusal,
    },
    /// The queue is full. Nothing was changed; try again.
    #[error("too many operations wait")]
    Busy,
    /// The disk is full or failing. Nothing was changed; try again later.
    #[error("nothing could be stored")]
    NotApplied,
    /// What other processes have committed can't be read: what is in memory may be old.
    #[error("the database can't be read")]
    Unreadable,
    /// The disk failed in a way that leaves open whether the change is stored.
    #[error("it is not known whether the change was stored")]
    Unknown,
}

impl StoreError {
    /// The label in the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) | Self::OperationRefused { refusal, .. } => match refusal {
                Refusal::TodoNotFound
                | Refusal::ChangeNotFound
                | Refusal::ChangeGone
                | Refusal::AccountNotFound
                | Refusal::SessionNotFound
                | Refusal::TokenNotFound => "not_found",
                Refusal::NoLongerAllowed | Refusal::InvalidGrant => "not_allowed",
                Refusal::AccountDeleted
                | Refusal::NameTaken
                | Refusal::LastAdmin
                | Refusal::TooManyTokens
                | Refusal::NotInTrash
                | Refusal::TooManyTags
                | Refusal::TooManyTodos { .. }
                | Refusal::ChangedSince { .. }
                | Refusal::CannotMerge
                | Refusal::KeyReused => "conflict",
                Refusal::PreconditionFailed { .. } | Refusal::NoSuchTrash | Refusal::ListChanged => "precondition",
                Refusal::Unanswerable => "unanswerable",
            },
            Self::Busy => "busy",
            Self::NotApplied => "not_applied",
            Self::Unknown => "unknown",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Why a database can't be opened or maintained. Each message is one line that says what to do.
#[allow(missing_docs, reason = "the messages say what the fields are")]
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Another process has it.
    #[error("another todo-backend uses {}; stop it, or set DATABASE_URL to another file", path.display())]
    Locked { path: PathBuf },
    /// Another process reads it, and it has to be replaced.
    #[error("another process reads {}; stop it first", path.display())]
    InUse { path: PathBuf },
    /// Its write-ahead log may lie beside another of its names, which is not known here.
    #[error(
        "the database {} has another name (a hard link), and the log of its last changes may lie beside that one; \
         start with that name, or remove it if it is a copy",
        path.display()
    )]
    UnknownName { path: PathBuf },
    /// A later version of the service has changed its schema.
    #[error(
        "the database {database} was written by a newer todo-backend (schema {found}, this one knows {known}); use that one"
    )]
    NewerSchema { database: String, found: usize, known: usize },
    /// An earlier version of the service has written it.
    #[error(
        "the database {database} has schema {found}, and this todo-backend knows {known}: start the service once, which \
         upgrades it"
    )]
    OlderSchema { database: String, found: usize, known: usize },
    /// Demo users would get into a database of production.
    #[error(
        "DEBUG is True, but people have accounts in the database {database}, which was used with DEBUG=False: users with \
         published passwords would get into it; set DEBUG=False, or set DATABASE_URL to another file"
    )]
    Production { database: String },
    /// The SQLite that is linked can corrupt databases.
    #[error("SQLite {version} can corrupt its log; 3.51.3 or newer is needed")]
    OldSqlite { version: &'static str },
    /// There is no file.
    #[error("there is no database at {}", path.display())]
    Missing { path: PathBuf },
    /// The service has never used it.
    #[error(
        "{database} has no tables of todo-backend; check DATABASE_URL, or start the service once, which creates them"
    )]
    Empty { database: String },
    /// Another one was being copied into it.
    #[error(
        "a copy into the database {database} was begun and is not finished: run the same `todo-backend migrate-to` again"
    )]
    Unfinished { database: String },
    /// Another copy into it was begun.
    #[error(
        "a copy of another database, or of what this one was earlier, was begun in {database}: empty that (DROP SCHEMA, \
         CREATE SCHEMA), and begin again"
    )]
    OtherCopy { database: String },
    /// Another one is the copy that goes on.
    #[error(
        "what is in the database {database} was moved to {target}: set DATABASE_URL to that; or, if that was never used, {undo}"
    )]
    Moved { database: String, target: String, undo: String },
    /// It is a copy already.
    #[error("{database} is a finished copy of this database: start the service with that as DATABASE_URL")]
    Copied { database: String },
    /// There is something in it already.
    #[error("{database} has data already: migrate-to copies into an empty database (DROP SCHEMA, CREATE SCHEMA)")]
    NotEmpty { database: String },
    /// A copy is not what it is a copy of.
    #[error(
        "the copy in {database} is not good, and no service starts on it: {violation}; empty it (DROP SCHEMA, CREATE \
         SCHEMA), and begin again"
    )]
    DifferentCopy { database: String, violation: String },
    /// A database violates an invariant.
    #[error("{database} is not good, nothing was changed: {violation}")]
    BadDatabase { database: String, violation: String },
    /// A backup would overwrite something.
    #[error("{} exists already; name another file", path.display())]
    Exists { path: PathBuf },
    /// A name that can't be a database's.
    #[error("{} is no {what}", path.display())]
    BadName { path: PathBuf, what: &'static str },
    /// A new copy violates an invariant.
    #[error("the copy is not good, so it was left at {}: {violation}", path.display())]
    BadCopy { path: PathBuf, violation: String },
    /// A backup violates an invariant.
    #[error("{} is not good, nothing was changed: {violation}", path.display())]
    BadBackup { path: PathBuf, violation: String },
    /// SQLite can't work with it.
    #[error("cannot use the database {}: {source}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// Postgres can't work with it.
    #[error("cannot use the database {location}: {source}")]
    Postgres { location: String, source: PostgresError },
    /// SQLite can't copy it.
    #[error("cannot copy {} to {}: {source}", from.display(), to.display())]
    Copy { from: PathBuf, to: PathBuf, source: rusqlite::Error },
    /// The file system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `create the database`.
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A finished file can't get its name.
    #[error("cannot put {} in place: {source}", path.display())]
    InPlace { path: PathBuf, source: io::Error },
    /// There is nowhere to put a temporary database.
    #[error("cannot create a temporary directory: {0}")]
    TemporaryDirectory(#[source] io::Error),
    /// A read did not come to its end.
    #[error("reading the database was broken off: {0}")]
    Interrupted(#[source] tokio::task::JoinError),
    /// The system can't start a thread.
    #[error("cannot start the writer thread: {0}")]
    Thread(#[source] io::Error),
}

impl DatabaseError {
    /// Whether the database can't be reached just now: nothing is wrong with what was asked, or with what is stored.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Postgres { source, .. } if !source.is_about_a_value())
    }

    /// For `map_err`: an error of SQLite with the database at `path`.
    pub(super) fn sqlite(path: impl Into<PathBuf>) -> impl Fn(rusqlite::Error) -> Self {
        let path = path.into();
        move |source| Self::Sqlite { path: path.clone(), source }
    }

    /// For `map_err`: an error of Postgres with the database there.
    pub(super) fn postgres(location: &str) -> impl Fn(PostgresError) -> Self + use<> {
        let location = location.to_owned();
        move |source| Self::Postgres { location: location.clone(), source }
    }

    /// For `map_err`: an error of the file system.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
