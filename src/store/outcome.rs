//! What requests about todos did.

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
    /// Todos were removed from the trash for good.
    Purged {
        /// How many.
        count: usize,
        /// Whether there are more that were asked for.
        more: bool,
    },
}

impl Outcome {
    /// The change, if it made one.
    pub fn change(&self) -> Option<&Arc<Change>> {
        match self {
            Self::Changed(change) => Some(change),
            Self::Unchanged(_) | Self::Purged { .. } => None,
        }
    }

    /// The todo after it, unless it was removed for good.
    pub fn todo(&self) -> Option<&Arc<Todo>> {
        match self {
            Self::Changed(change) => Some(&change.todo),
            Self::Unchanged(todo) => Some(todo),
            Self::Purged { .. } => None,
        }
    }
}
