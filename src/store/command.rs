//! What the store can be asked to do, as data.

use std::sync::Arc;

use crate::domain::account::{Role, TokenEpoch, User, UserId, Username};
use crate::domain::change::Revision;
use crate::domain::todo::{NewTodo, TodoId, TodoPatch, Version};
use crate::domain::trace::TraceParent;

/// Who acts, on whose todos, and in which trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose todos the commands are about.
    pub owner: UserId,
    /// The username of whoever acts: the owner's, or that of whoever deleted the owner's account.
    pub actor: Arc<str>,
    /// The epoch of the owner's tokens: the commands are refused if that is over.
    pub epoch: TokenEpoch,
    /// The request's trace, which its events continue.
    pub trace: TraceParent,
}

impl Context {
    /// An account that changes its own todos.
    pub fn of(account: &User, trace: TraceParent) -> Self {
        let actor = Arc::clone(&account.username);
        Self { owner: account.id, actor, epoch: account.token_epoch, trace }
    }
}

/// The token that allows a command about an account.
#[derive(Debug, Clone, Copy)]
pub struct Authority {
    /// Whose token it is.
    pub account: UserId,
    /// Its epoch. A new role ends it, so the account still has the role that was looked at.
    pub epoch: TokenEpoch,
}

impl Authority {
    /// The authority of a token of this account.
    pub fn of(account: &User) -> Self {
        Self { account: account.id, epoch: account.token_epoch }
    }

    /// Whether the token is still valid; `account` is the one whose token it is, as it is now.
    pub fn is_valid(self, account: &User) -> bool {
        account.id == self.account && account.is_active() && account.token_epoch == self.epoch
    }
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
    /// Deletes a todo of an account that is deleted; the change does not say what was in it.
    Erase(TodoId),
}

/// A mutation of an account as data.
#[derive(Debug, Clone)]
pub enum AccountCommand {
    /// Creates an account.
    Create(NewAccount),
    /// Replaces a hash by a better one of the same password.
    Rehash {
        /// The account.
        id: UserId,
        /// The hash that is replaced, if the account still has it.
        old: Box<str>,
        /// The better one.
        new: Box<str>,
    },
    /// Changes what an account may do, whether it can be used, or its password. Ends its tokens.
    Update(UserId, AccountUpdate),
    /// Deletes an account and, in the groups that follow, what it has.
    Delete(UserId),
}

/// What a new account has.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its name, for good.
    pub username: Username,
    /// The hash of its password.
    pub password_hash: Box<str>,
    /// What it may do.
    pub role: Role,
}

/// What changes about an account; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct AccountUpdate {
    /// What it may do.
    pub role: Option<Role>,
    /// Whether it can be used.
    pub enabled: Option<bool>,
    /// The hash of its password.
    pub password_hash: Option<Box<str>>,
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
