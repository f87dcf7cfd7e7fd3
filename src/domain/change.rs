//! One entry of the change log.

use std::fmt;
use std::sync::Arc;

use crate::domain::clock::Timestamp;
use crate::domain::number::number;
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

number! {
    /// Counts the changes of one owner, from 1, contiguous, in commit order.
    Revision
}

impl Revision {
    /// After every other.
    pub const MAX: Self = Self(i64::MAX);

    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A change's place in the log. The order of places over all owners is the business of the store alone: with several
/// writers there is none. Everybody else can tell places apart, and not which one is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(pub i64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far the log was read, or heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(i64);

impl Cursor {
    /// Before the first change.
    pub const START: Self = Self(0);

    /// Everything up to this place.
    pub fn up_to(place: Place) -> Self {
        Self(place.0)
    }

    /// Whether it is past this place.
    pub fn covers(self, place: Place) -> bool {
        place.0 <= self.0
    }

    /// What either of them covers.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    /// The last place that it covers.
    pub fn place(self) -> Place {
        Place(self.0)
    }
}

/// What became of a change's event. The numbers are those of `changes.state`: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is to be published.
    Pending = 0,
    /// The sidecar has it: 204.
    Published = 1,
    /// Given up until an operator retries or skips it; blocks its todo.
    Parked = 2,
    /// Given up for good by an operator.
    Skipped = 3,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Published, Self::Parked, Self::Skipped];
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
    /// Where it stands in the log. Stays inside the service.
    pub place: Place,
    /// Which database.
    pub epoch: Epoch,
    /// Per owner, contiguous from 1, in commit order.
    pub revision: Revision,
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
