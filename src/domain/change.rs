//! One entry of the change log.

use std::fmt;
use std::sync::Arc;

use crate::domain::clock::Timestamp;
use crate::domain::number::number;
use crate::domain::todo::field::{Field, FieldVersions, Part};
use crate::domain::todo::input::TodoPatch;
use crate::domain::todo::{Todo, Version};
use crate::domain::trace::TraceParent;

/// 64 random bits, created with a database and renewed when a backup is restored: versions and revisions of different
/// epochs are unrelated. Shown as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Reads hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        u64::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

number! {
    /// Counts the changes of one owner: from 1, without gaps, in commit order.
    Revision
}

impl Revision {
    /// Not less than any revision of a change.
    pub const MAX: Self = Self(i64::MAX);

    /// The revision of the owner's change before.
    pub fn previous(self) -> Self {
        Self(self.0 - 1)
    }

    /// The revision of the owner's next change.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A change's place in the log. Only the store may order places: with several writers, those of different owners have
/// no order. Others can compare them for equality, and with a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(pub i64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far the log was read or reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor(i64);

impl Cursor {
    /// Covers nothing.
    pub const START: Self = Self(0);

    /// Covers everything up to this place.
    pub fn up_to(place: Place) -> Self {
        Self(place.0)
    }

    /// Whether this place was read or reported.
    pub fn covers(self, place: Place) -> bool {
        place.0 <= self.0
    }

    /// Covers what either of them covers.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    /// The last place that it covers.
    pub fn place(self) -> Place {
        Place(self.0)
    }
}

/// The state of a change's event. The numbers are those of `changes.state` in the database: only append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Still to be published.
    Pending = 0,
    /// The sidecar confirmed it with a 204.
    Published = 1,
    /// Given up until an operator retries or skips it; blocks its todo.
    Parked = 2,
    /// Given up for good by an operator.
    Skipped = 3,
}

impl DeliveryState {
    /// All states, each at the index that is its number.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Published, Self::Parked, Self::Skipped];
}

/// What a change did to its todo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It was created.
    Created,
    /// Fields were replaced.
    Updated,
    /// It was deleted: it is in the trash, unless its owner's account was deleted.
    Deleted,
    /// It came back from the trash.
    Restored,
}

impl Kind {
    /// All kinds, each at the index that is its number in the database: only append.
    pub const ALL: [Self; 4] = [Self::Created, Self::Updated, Self::Deleted, Self::Restored];

    /// `created`, `updated`, `deleted` or `restored`, as in the types of events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Restored => "restored",
        }
    }
}

/// What a scrubbed change has in place of its todo's title.
pub const SCRUBBED_TITLE: &str = "[deleted]";

/// What a change has replaced.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Before {
    /// The values that the changed fields had.
    pub values: TodoPatch,
    /// Where all parts of the todo were from.
    pub versions: FieldVersions,
}

impl Before {
    /// What is before a creation. Where something is that is not there is not the same as in the trash, or out of it, in
    /// its first version.
    pub fn creation() -> Self {
        let mut versions = FieldVersions::default();
        versions.set_origin(Part::Whereabouts, Version::FIRST.previous());
        Self { values: TodoPatch::default(), versions }
    }
}

/// A committed mutation of one todo.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its place in the log, which is not shown to clients.
    pub place: Place,
    /// The epoch of its database.
    pub epoch: Epoch,
    /// Its number among the changes of the owner.
    pub revision: Revision,
    /// What happened to the todo.
    pub kind: Kind,
    /// When it was committed; never earlier than the owner's change before it.
    pub at: Timestamp,
    /// The username of the account that made the change.
    pub actor: Arc<str>,
    /// The username of the account that owns the todo.
    pub created_by: Arc<str>,
    /// The fields that are different from before. After a creation: title, description, completed, and what was set
    /// besides.
    pub changed: Vec<Field>,
    /// Set if it was made by a request of several operations: the revision of the first change of that request.
    pub batch: Option<Revision>,
    /// The idempotency key of the request.
    pub op: Option<Arc<str>>,
    /// The trace context of the request that made the change.
    pub trace: TraceParent,
    /// The todo has [`SCRUBBED_TITLE`] and no description, because its owner's account was deleted.
    pub scrubbed: bool,
    /// The todo after the change; after a deletion, its last state. Carries owner, id and version.
    pub todo: Arc<Todo>,
}
