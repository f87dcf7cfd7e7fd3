//! What the writer is asked to do.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::account::User;
use crate::domain::change::Revision;
use crate::store::backend::Asked;
use crate::store::decide::sessions::SessionOutcome;
use crate::store::error::StoreError;
use crate::store::idempotency::Answered;
use crate::store::{AccountCommand, Authority, Command, Commands, Context, OutboxCommand, SessionCommand};

/// What the writer is asked to do.
pub enum Job {
    /// Apply commands, with what else is waiting.
    Apply(Request),
    /// Run a command of an operator.
    RunAdminCommand {
        authority: Option<Authority>,
        command: OutboxCommand,
        reply: oneshot::Sender<Result<usize, StoreError>>,
    },
    /// Commit the last marks and end.
    Close,
    /// Make the database fail, or stop failing.
    #[cfg(test)]
    InjectFault(fn(&mut rusqlite::Connection)),
    /// Do what is due every minute now.
    #[cfg(test)]
    MinuteIsOver,
}

/// What a group is made of.
pub enum Request {
    /// Commands to be applied all or none; the answer is what they did.
    Todos { context: Context, commands: Commands, reply: oneshot::Sender<Answer<Answered>> },
    /// A command about sessions; the answer is what became of it.
    Session { authority: Option<Authority>, command: SessionCommand, reply: oneshot::Sender<Answer<SessionOutcome>> },
    /// A command about an account; the answer is what the account is then.
    Account { authority: Option<Authority>, command: AccountCommand, reply: oneshot::Sender<Answer<Arc<User>>> },
}

impl Request {
    /// The number of todos that it is about, at most; at least one: a group of requests without any has a limit, too.
    pub fn operations(&self) -> usize {
        match self {
            Self::Todos { commands, .. } => {
                commands.commands.iter().map(Command::size).fold(0, usize::saturating_add).max(1)
            }
            Self::Account { .. } | Self::Session { .. } => 1,
        }
    }

    /// The change that it undoes, and whether with all that were made together with it.
    pub fn undoes(&self) -> Option<(Revision, bool)> {
        let Self::Todos { commands, .. } = self else { return None };
        commands.commands.iter().find_map(|command| match command {
            &Command::Undo { revision, whole_batch } => Some((revision, whole_batch)),
            _ => None,
        })
    }

    /// What has to be known before it is decided, if anything.
    pub fn asks(&self) -> Option<Asked<'_>> {
        let Self::Todos { context: Context { owner, .. }, commands, .. } = self else { return None };
        let (request, undoes) = (commands.idempotency.as_ref(), self.undoes());
        (request.is_some() || undoes.is_some()).then_some(Asked { owner: *owner, request, undoes })
    }

    /// Answers a request that was not decided.
    pub fn fail(self, error: StoreError) {
        // The receiver is gone if the client disconnected.
        match self {
            Self::Todos { reply, .. } => drop(reply.send(Err(error))),
            Self::Account { reply, .. } => drop(reply.send(Err(error))),
            Self::Session { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// What was decided, once it is durable.
pub type Answer<T> = Result<T, StoreError>;

/// A decided request that waits for its group's commit.
pub enum Decision {
    Todos(Answer<Answered>, oneshot::Sender<Answer<Answered>>),
    Account(Answer<Arc<User>>, oneshot::Sender<Answer<Arc<User>>>),
    Session(Answer<SessionOutcome>, oneshot::Sender<Answer<SessionOutcome>>),
}

impl Decision {
    /// Answers the request. After a failure all members of a group get the same answer: refusals, too, were decided on
    /// what is gone then.
    pub fn answer(self, failure: Option<StoreError>) {
        // The receiver is gone if the client disconnected.
        match self {
            Self::Todos(answer, reply) => drop(reply.send(failure.map_or(answer, Err))),
            Self::Account(answer, reply) => drop(reply.send(failure.map_or(answer, Err))),
            Self::Session(answer, reply) => drop(reply.send(failure.map_or(answer, Err))),
        }
    }
}

/// An operator's command in progress, one part per commit.
pub struct Operation {
    pub command: OutboxCommand,
    /// The token that allows it, if one has to.
    pub authority: Option<Authority>,
    /// The next part lies below this revision. Parts go from the latest change down, so that what a todo has pending is
    /// always its end.
    pub below: Revision,
    /// Changes that earlier parts affected.
    pub done: usize,
    reply: oneshot::Sender<Result<usize, StoreError>>,
}

impl Operation {
    /// A command that has not begun.
    pub fn new(
        authority: Option<Authority>,
        command: OutboxCommand,
        reply: oneshot::Sender<Result<usize, StoreError>>,
    ) -> Self {
        Self { command, authority, below: Revision::MAX, done: 0, reply }
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
