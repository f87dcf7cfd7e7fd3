//! What the store can be asked to do, as data.

use std::sync::Arc;

use crate::auth::opaque_tokens::RefreshToken;
use crate::domain::account::{Role, TokenEpoch, User, UserId, Username};
use crate::domain::change::{DeliveryState, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::session::{PersonalTokenId, Scope, SessionId, SessionKey, TokenHash};
use crate::domain::todo::input::{NewTodo, TodoPatch};
use crate::domain::todo::{TodoId, Version};
use crate::domain::trace::TraceParent;
use crate::store::idempotency::Idempotency;

/// Who acts, on whose todos, and in which trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// Whose todos the commands are about.
    pub owner: UserId,
    /// The username of whoever acts: the owner's, or that of whoever deleted the owner's account.
    pub actor: Arc<str>,
    /// The token that allows the commands; none: what is left of a deleted account goes.
    pub authority: Option<Authority>,
    /// The request's trace, which its events continue.
    pub trace: TraceParent,
}

impl Context {
    /// An account that changes its own todos.
    pub fn of(account: &User, authority: Authority, trace: TraceParent) -> Self {
        Self { owner: account.id, actor: Arc::clone(&account.username), authority: Some(authority), trace }
    }
}

/// The token that allows a command. It is looked at again when the command is decided.
#[derive(Debug, Clone, Copy)]
pub struct Authority {
    /// Whose token it is.
    pub account: UserId,
    /// Its epoch. A new role ends it, so the account still has the role that was looked at.
    pub epoch: TokenEpoch,
    /// What else it depends on.
    pub means: Means,
}

/// What a token depends on, besides its account.
#[derive(Debug, Clone, Copy)]
pub enum Means {
    /// Nothing: it is an access token without a session, or a password that was just checked.
    Login,
    /// It is an access token of this session.
    Session(SessionId),
    /// It is this personal access token.
    Personal(PersonalTokenId),
}

impl Authority {
    /// The authority of a token of this account.
    pub fn of(account: &User, means: Means) -> Self {
        Self { account: account.id, epoch: account.token_epoch, means }
    }
}

/// What a request asks for: all of its commands, or none.
#[derive(Debug, Default)]
pub struct Commands {
    /// In the order in which they are decided.
    pub commands: Vec<Command>,
    /// Whether the client sees them as one: then their changes say so, and a refusal says which command is refused.
    pub is_batch: bool,
    /// How many live todos more the owner must be allowed to have: what is made in several requests is refused before the
    /// first of them.
    pub room: usize,
    /// Set if the request can be repeated.
    pub idempotency: Option<Idempotency>,
}

impl From<Vec<Command>> for Commands {
    fn from(commands: Vec<Command>) -> Self {
        Self { commands, ..Self::default() }
    }
}

/// A mutation as data: decided by the writer, in commit order.
#[derive(Debug, Clone)]
pub enum Command {
    /// Creates a todo.
    Create(NewTodo),
    /// Replaces the fields that the patch has.
    Update {
        /// The todo.
        todo: Target,
        /// What is replaced.
        patch: TodoPatch,
        /// Whether the todo gets a new version even if nothing is different.
        always: bool,
        /// Under which condition.
        condition: Condition,
    },
    /// Moves a todo to the trash.
    Delete(Target, Condition),
    /// Moves todos to the trash.
    DeleteMany {
        /// Which; those that are not there any more are left out.
        todos: Vec<TodoId>,
        /// And only those that are completed, or only those that are not.
        completed: Option<bool>,
        /// Whether there are more that were asked for.
        more: bool,
        /// Under which condition: about the owner's last change.
        condition: Condition<Revision>,
    },
    /// Takes a todo out of the trash.
    Restore(TodoId, Condition),
    /// Makes the opposite of a change.
    Undo {
        /// The change.
        revision: Revision,
        /// And of all that were made together with it.
        whole_batch: bool,
    },
    /// Removes a todo from the trash for good.
    Purge(TodoId, Condition),
    /// Removes todos from the trash for good.
    EmptyTrash {
        /// Which todos; those that are not there any more are left out.
        todos: Vec<TodoId>,
        /// Whether there are more.
        more: bool,
        /// Under which condition. The trash has no version.
        condition: Condition,
    },
    /// Deletes a todo of an account that is deleted, for good; the change does not say what was in it.
    Erase(TodoId),
}

impl Command {
    /// The number of todos that it is about, at most. Not known of an undo, which begins a group.
    pub fn size(&self) -> usize {
        match self {
            Self::DeleteMany { todos, .. } | Self::EmptyTrash { todos, .. } => todos.len(),
            _ => 1,
        }
    }

    /// Whether it can make several changes, which are one for the client.
    pub fn makes_several_changes(&self) -> bool {
        matches!(self, Self::DeleteMany { .. } | Self::Undo { whole_batch: true, .. })
    }
}

/// Which todo a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one with this id.
    Id(TodoId),
    /// The one that the command with this index, of the same request, creates.
    CreatedBy(usize),
}

impl From<TodoId> for Target {
    fn from(id: TodoId) -> Self {
        Self::Id(id)
    }
}

/// Under which condition a command is applied, or a todo is read (RFC 9110, section 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition<V = Version> {
    /// `If-Match`: the todo has one of these versions.
    pub if_match: Option<Versions<V>>,
    /// `If-None-Match`: it has none of these.
    pub if_none_match: Option<Versions<V>>,
    /// Whether a change is merged with those of others.
    pub merge: Merge,
}

/// Whether a change is merged with those that others have made since the version that the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Merge {
    /// It is not.
    #[default]
    No,
    /// `if_match` is one version, and need only hold for the fields that are sent: none of them has changed since.
    Asked,
    /// That was asked for, but `if_match` is not one version.
    Impossible,
}

/// Versions of a todo that a client knows, or revisions of all that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions<V = Version> {
    /// Whatever there is: `*`.
    Any,
    /// These.
    Of(Vec<V>),
}

impl<V: PartialEq> Versions<V> {
    /// Whether this version is one of them.
    pub fn include(&self, version: V) -> bool {
        match self {
            Self::Any => true,
            Self::Of(versions) => versions.contains(&version),
        }
    }
}

impl<V> Default for Condition<V> {
    fn default() -> Self {
        Self { if_match: None, if_none_match: None, merge: Merge::No }
    }
}

impl<V: PartialEq> Condition<V> {
    /// Whether `If-Match` allows this version.
    pub fn matches(&self, version: V) -> bool {
        self.if_match.as_ref().is_none_or(|versions| versions.include(version))
    }

    /// Whether `If-None-Match` allows this version.
    pub fn is_new(&self, version: V) -> bool {
        !self.if_none_match.as_ref().is_some_and(|versions| versions.include(version))
    }
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
    /// Changes what an account may do, whether it can be used, or its password. Ends its access tokens; a password or a
    /// state also ends its sessions, and being disabled revokes its personal access tokens.
    Update(UserId, AccountUpdate),
    /// Replaces a password by its owner's will: ends the account's access tokens, and its sessions but for one.
    ChangePassword {
        /// The account.
        id: UserId,
        /// The hash of the new password.
        password_hash: Box<str>,
        /// The session in which it was asked for, if there is one.
        keep: Option<SessionId>,
    },
    /// Ends all access tokens and sessions.
    LogOut(UserId),
    /// Deletes an account and, in the groups that follow, what it has.
    Delete(UserId),
}

/// A mutation of sessions and personal access tokens as data.
#[derive(Debug, Clone)]
pub enum SessionCommand {
    /// Begins a session.
    Start(NewSession),
    /// Uses a refresh token.
    Refresh(RefreshToken),
    /// Ends a session of this user.
    End {
        /// Whose session it is.
        user: UserId,
        /// The session.
        session: SessionId,
    },
    /// Creates a personal access token.
    CreateToken(NewPersonalToken),
    /// Revokes a personal access token of this user.
    RevokeToken {
        /// Whose token it is.
        user: UserId,
        /// The token.
        token: PersonalTokenId,
    },
}

/// What a new session has.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Who has logged in.
    pub user: UserId,
    /// 32 random bytes.
    pub key: SessionKey,
    /// The hash of its first refresh token.
    pub first: TokenHash,
    /// The client's `User-Agent`, cut to 100 characters.
    pub user_agent: Option<Arc<str>>,
}

/// What a new personal access token has.
#[derive(Debug, Clone)]
pub struct NewPersonalToken {
    /// Whose token it is.
    pub user: UserId,
    /// What its owner calls it.
    pub name: Arc<str>,
    /// What it allows.
    pub scope: Scope,
    /// Its hash.
    pub hash: TokenHash,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
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

impl OutboxCommand {
    /// The delivery state that it gives a change.
    pub(super) fn state_after(&self) -> DeliveryState {
        match self {
            Self::Retry { .. } | Self::Republish { .. } => DeliveryState::Pending,
            Self::Skip { .. } => DeliveryState::Skipped,
        }
    }
}
