//! What the writer is asked to do.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::change::{Change, Revision};
use crate::store::error::StoreError;
use crate::store::{Command, Context, OutboxCommand};

/// What the writer is asked to do.
pub enum Job {
    /// Apply commands.
    Apply(Request),
    /// Run a command of an operator.
    RunAdminCommand { command: OutboxCommand, reply: oneshot::Sender<Result<usize, StoreError>> },
    /// Commit the last marks and end.
    Close,
    /// Make the database fail, or stop failing.
    #[cfg(test)]
    InjectFault(fn(&mut rusqlite::Connection)),
}

/// Commands to be applied all or none.
pub struct Request {
    pub context: Context,
    pub commands: Vec<Command>,
    pub reply: oneshot::Sender<Answer>,
}

/// The changes, once they are durable.
pub type Answer = Result<Vec<Arc<Change>>, StoreError>;

/// An operator's command in progress, one part per commit.
pub struct Operation {
    pub command: OutboxCommand,
    /// The next part lies below this revision. Parts go from the latest change down, so that what a todo has pending is
    /// always its end.
    pub below: Revision,
    /// Changes that earlier parts affected.
    pub done: usize,
    reply: oneshot::Sender<Result<usize, StoreError>>,
}

impl Operation {
    /// A command that has not begun.
    pub fn new(command: OutboxCommand, reply: oneshot::Sender<Result<usize, StoreError>>) -> Self {
        Self { command, below: Revision::MAX, done: 0, reply }
    }

    /// Whether a part of it has been committed.
    pub fn has_begun(&self) -> bool {
        self.done > 0
    }

    /// Answers it.
    pub fn end(self, outcome: Result<usize, StoreError>) {
        // The receiver is gone if the client disconnected.
        let _ = self.reply.send(outcome);
    }
}
