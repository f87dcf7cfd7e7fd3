//! What the store can be asked to do, as data.

use std::sync::Arc;

use crate::domain::account::UserId;
use crate::domain::change::Revision;
use crate::domain::todo::{NewTodo, TodoId, TodoPatch, Version};
use crate::domain::trace::TraceParent;

/// Who does something, and in which trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose todos are meant.
    pub owner: UserId,
    /// The username of who acts.
    pub actor: Arc<str>,
    /// Goes on in the event.
    pub trace: TraceParent,
}

/// A mutation as data: decided by the writer, in commit order.
#[derive(Debug, Clone)]
pub enum Command {
    /// Creates a todo.
    Create(NewTodo),
    /// Changes what the patch holds.
    Update(TodoId, TodoPatch),
    /// Deletes it.
    Delete(TodoId),
}

/// What an operator does about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxCommand {
    /// Publishes a parked change after all.
    Retry {
        /// The todo.
        todo: TodoId,
        /// Its parked version.
        version: Version,
    },
    /// Gives a parked change up: its event is never published, later ones of the todo are.
    Skip {
        /// The todo.
        todo: TodoId,
        /// Its parked version.
        version: Version,
    },
    /// Publishes what was published before, again.
    Republish {
        /// Whose changes.
        owner: UserId,
        /// The first of them.
        from_revision: Revision,
    },
}
