//! What requests about todos did.

use std::slice;
use std::sync::Arc;

use crate::domain::change::{Change, Revision};
use crate::domain::todo::Todo;

/// What a request did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// What became of each command.
    pub outcomes: Vec<Outcome>,
    /// The owner's last change after it.
    pub revision: Revision,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It made this change.
    Changed(Arc<Change>),
    /// The todo was already as it should be.
    Unchanged(Arc<Todo>),
    /// It made these changes, or none.
    Several {
        /// In commit order.
        changes: Vec<Arc<Change>>,
        /// Whether there are more that were asked for.
        more: bool,
    },
    /// Todos were removed from the trash for good.
    Purged {
        /// How many.
        count: usize,
        /// Whether there are more that were asked for.
        more: bool,
    },
}

impl Outcome {
    /// The changes that it made.
    pub fn changes(&self) -> &[Arc<Change>] {
        match self {
            Self::Changed(change) => slice::from_ref(change),
            Self::Several { changes, .. } => changes,
            Self::Unchanged(_) | Self::Purged { .. } => &[],
        }
    }

    /// The todo after it, if it was about one that is still there.
    pub fn todo(&self) -> Option<&Arc<Todo>> {
        match self {
            Self::Changed(change) => Some(&change.todo),
            Self::Unchanged(todo) => Some(todo),
            Self::Several { .. } | Self::Purged { .. } => None,
        }
    }
}
