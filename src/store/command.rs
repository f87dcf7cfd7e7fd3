//! What the store can be asked to do, as data.

use std::sync::Arc;

use crate::domain::account::UserId;
use crate::domain::change::Revision;
use crate::domain::todo::{NewTodo, TodoId, TodoPatch, Version};
use crate::domain::trace::TraceParent;

/// Who acts, on whose todos, and in which trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose todos the commands are about.
    pub owner: UserId,
    /// The username of whoever acts; today always the owner's.
    pub actor: Arc<str>,
    /// The request's trace, which its events continue.
    pub trace: TraceParent,
}

/// A mutation as data: decided by the writer, in commit order.
#[derive(Debug, Clone)]
pub enum Command {
    /// Creates a todo.
    Create(NewTodo),
    /// Replaces the fields that the patch has.
    Update(TodoId, TodoPatch),
    /// Deletes a todo.
    Delete(TodoId),
}

/// What an operator can do about events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxCommand {
    /// Queues a parked change for publishing again.
    Retry {
        /// The todo whose change is parked.
        todo: TodoId,
        /// The version that is parked.
        version: Version,
    },
    /// Gives up a parked change: its event is never published, the todo's later ones are.
    Skip {
        /// The todo whose change is parked.
        todo: TodoId,
        /// The version that is parked.
        version: Version,
    },
    /// Publishes again what the log still has of one owner's changes.
    Republish {
        /// The owner.
        owner: UserId,
        /// The first revision to publish.
        from_revision: Revision,
    },
}
