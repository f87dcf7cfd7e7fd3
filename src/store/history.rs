//! What is read of an owner's changes: by clients that catch up, by exports, by whoever looks at the history of a todo.

use std::collections::HashMap;

use crate::domain::account::UserId;
use crate::domain::change::{Before, Change, Epoch, Kind, Revision};
use crate::domain::sync_token::SyncToken;
use crate::domain::todo::TodoId;
use crate::store::decide::Undone;
use crate::store::error::DatabaseError;

/// Changes that are looked at for a page, at most: some tens of milliseconds' work.
pub(super) const MAX_LOOKED_AT: usize = 10_000;

/// What a change takes in memory besides its texts, in bytes, about.
const CHANGE_LEN: usize = 500;

/// Some of an owner's changes.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Whose.
    pub owner: UserId,
    /// Those after this one…
    pub after: Revision,
    /// … up to this one.
    pub through: Revision,
    /// Of several changes of a todo, only the last one.
    pub only_last: bool,
    /// How many at once.
    pub limit: Limit,
}

/// How much is read at once. What reaches one of both is the last.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Changes.
    pub changes: usize,
    /// What they take in memory, in bytes.
    pub bytes: usize,
}

impl Limit {
    /// Whether changes reach it.
    pub(super) fn is_reached(&self, changes: usize, bytes: usize) -> bool {
        changes >= self.changes || bytes >= self.bytes
    }
}

/// What a change takes in memory, about.
pub(super) fn size(change: &Change) -> usize {
    CHANGE_LEN + change.todo.text_len()
}

/// The next of some changes.
#[derive(Debug)]
pub struct Page {
    /// In commit order. Can be none although there are more: superseded ones are left out.
    pub changes: Vec<Change>,
    /// Up to here, all that were wanted are in this page or in those before.
    pub through: Revision,
    /// Whether there are more.
    pub more: bool,
}

/// A change of a todo, and what it has replaced, if that is known.
#[derive(Debug)]
pub struct Past {
    /// The change.
    pub change: Change,
    /// What it has replaced.
    pub before: Option<Before>,
}

/// Why a client can't catch up from where it is: it has to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The log does not have the next changes any more.
    Pruned,
    /// It knows changes of another database, or of this one before a backup was restored.
    Foreign,
    /// It knows changes that this owner has not had.
    Ahead,
}

impl Gap {
    /// `pruned`, `foreign` or `ahead`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pruned => "pruned",
            Self::Foreign => "foreign",
            Self::Ahead => "ahead",
        }
    }
}

/// Why changes can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is a gap between what the client knows and what there is.
    #[error("a client can't catch up: {}", .0.name())]
    Gap(Gap),
    /// The database can't be read.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What a client knows, as a revision of an owner whose last change is `head`.
pub(super) fn known(token: SyncToken, epoch: Epoch, head: Revision) -> Result<Revision, Gap> {
    if token.epoch != epoch {
        Err(Gap::Foreign)
    } else if token.revision > head {
        Err(Gap::Ahead)
    } else {
        Ok(token.revision)
    }
}

/// Changes that are undone together and what each has replaced, by todo, in the order of the first of each. `None`: what one of
/// them has replaced is not known.
pub(super) fn by_todo(changes: Vec<(Change, Option<Before>)>) -> Option<Vec<Undone>> {
    let mut undone: Vec<Undone> = Vec::new();
    let mut places: HashMap<TodoId, usize> = HashMap::new();
    for (change, before) in changes {
        let before = before.or_else(|| (change.kind == Kind::Created).then(Before::creation))?;
        let place = *places.entry(change.todo.id).or_insert(undone.len());
        match undone.get_mut(place) {
            Some(of_todo) => of_todo.changes.push((change, before)),
            None => undone.push(Undone { changes: vec![(change, before)] }),
        }
    }
    Some(undone)
}
