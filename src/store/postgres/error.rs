//! What goes wrong with Postgres.

use std::error::Error;
use std::time::Duration;

use tokio_postgres::error::{Severity, SqlState};

use super::tls::TlsError;

/// Why Postgres could not be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// An error of the server, or of the connection to it.
    #[error("{}", in_words(.0))]
    Server(tokio_postgres::Error),
    /// There was no answer in time.
    #[error("it has not answered for {} s", .0.as_secs())]
    Timeout(Duration),
    /// It could not be reached a moment ago, and was not asked again.
    #[error("it could not be reached a moment ago")]
    Unreachable,
    /// The connection can't be made safe.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file that the password is in can't be read.
    #[error("the password can't be read: {0}")]
    Password(#[source] std::io::Error),
    /// A commit has not reached the standby that it has to reach, and the server does not wait for it any more.
    #[error("the commit has not reached the standby")]
    NotReplicated,
    /// Processes that share it are running.
    #[error("a todo-backend that uses it is running; stop all of them first")]
    Taken,
    /// Somebody must be alone with it.
    #[error(
        "a todo-backend uses it that shares it with nobody: an older version, `renew-epoch` or `migrate-to`; stop it, or wait for it"
    )]
    NotShared,
    /// What is stored does not follow from what is in memory.
    #[error("it {0}")]
    LeftBehind(&'static str),
    /// Others have written after a group was decided.
    #[error("others have written meanwhile")]
    Overtaken,
    /// There is no schema that tables can be in.
    #[error("it has no schema that search_path names; create one, or set search_path for the user")]
    NoSchema,
    /// It can't store all texts.
    #[error("its encoding is {0}; create one with the encoding UTF8")]
    Encoding(String),
    /// A stored value that this version does not know.
    #[error("{0} holds a value that this version does not know")]
    Invalid(&'static str),
    /// A stored value that can't be read.
    #[error("a stored value can't be read: {}", in_words(.0))]
    Value(tokio_postgres::Error),
    /// A value that can't be written.
    #[error("a value can't be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// No connection that reads is free.
    #[error("no connection to it became free: {0}")]
    Pool(String),
    /// Whoever reads has ended.
    #[error("the service is stopping")]
    Stopping,
}

impl PostgresError {
    /// Whether it is about one stored value, and not about the database.
    pub fn is_about_a_value(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Value(_))
    }

    /// What the server says, if it was the server.
    pub fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Server(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the same can be tried again: transactions were in each other's way
    /// (<https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html>).
    pub fn is_conflict(&self) -> bool {
        const CONFLICTS: [SqlState; 3] =
            [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE];
        self.code().is_some_and(|code| CONFLICTS.contains(code))
    }

    /// Whether the same can do better later: the server or the way to it was the reason, its resources (class 53) or an operator (57),
    /// and not what it was asked.
    pub fn is_passing(&self) -> bool {
        let is_of = |classes: [&str; 2]| {
            self.code().is_some_and(|code| classes.iter().any(|class| code.code().starts_with(class)))
        };
        matches!(self, Self::Timeout(_) | Self::Unreachable)
            || !self.is_refusal() && matches!(self, Self::Server(_))
            || is_of(["53", "57"])
    }

    /// Whether the process's row is not as it should be: see `commit::FENCE`.
    pub fn is_fenced(&self) -> bool {
        self.code() == Some(&SqlState::DIVISION_BY_ZERO)
    }

    /// Whether the server has refused a statement, and the session goes on.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Server(error) => {
                error.as_db_error().is_some_and(|said| said.parsed_severity() == Some(Severity::Error))
            }
            Self::Unwritable(_) => true,
            _ => false,
        }
    }

    /// Whether what was to be stored does not go with what is stored (class 23): then memory is not what is stored.
    pub fn is_contradiction(&self) -> bool {
        self.code().is_some_and(|code| code.code().starts_with("23"))
    }
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

/// An error with what has caused it: on its own it only says of which kind it is.
fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}
