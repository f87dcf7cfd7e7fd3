//! One entry of the change log.

use std::fmt;
use std::sync::Arc;

use crate::domain::clock::Timestamp;
use crate::domain::todo::{Field, Todo};
use crate::domain::trace::TraceParent;

/// Random 64 bits made with a database and renewed when a backup is restored: versions and revisions of one epoch
/// say nothing about those of another. Shown as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a change did to its todo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was made.
    Created,
    /// Fields were replaced.
    Updated,
    /// It is gone.
    Deleted,
}

impl Kind {
    /// All kinds; a kind's place is its number in the database: append only.
    pub const ALL: [Self; 3] = [Self::Created, Self::Updated, Self::Deleted];

    /// `created`, `updated`, `deleted`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
        }
    }
}

/// A committed mutation of one todo.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Commit order over all owners. Stays inside the service.
    pub seq: i64,
    /// Which database.
    pub epoch: Epoch,
    /// Per owner, contiguous from 1, in commit order.
    pub revision: i64,
    /// What happened.
    pub kind: Kind,
    /// When; never earlier than the owner's change before it.
    pub at: Timestamp,
    /// The username of who did it.
    pub actor: Arc<str>,
    /// Which fields are different from before.
    pub changed: Vec<Field>,
    /// The trace of the request that did it.
    pub trace: TraceParent,
    /// The todo after the change; after a deletion, its last state. Carries owner, id and version.
    pub todo: Arc<Todo>,
}
