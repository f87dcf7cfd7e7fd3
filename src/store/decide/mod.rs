//! What commands change: the one place for these rules. Pure: no database, no thread, no lock, no clock.
//!
//! A group is what one commit makes durable. Each of its requests is decided on top of the committed [`State`] and of
//! what the group's earlier requests have decided; a request that is refused leaves no trace. Deciding the requests one
//! at a time, each in a group of its own, gives the same changes: the tests compare both.
//!
//! A store prepares what a group needs before it decides: the state of the owners that it names, the [`Facts`], and what
//! was before each request, its [`Prior`]. So nothing here ever waits, and each store fetches in its own
//! way: SQLite's writer has almost everything in memory, one that shares its database locks the owners first.

mod accounts;
pub mod sessions;
#[cfg(test)]
mod tests;
pub mod todos;
mod undo;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::idempotency::{Kept, Known};
use crate::domain::account::{User, UserId};
use crate::domain::change::{Before, Change, Epoch, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::etag::EntityTag;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId};
use crate::domain::todo::field::Field;
use crate::domain::todo::{Todo, TodoId};
use todos::Whereabouts;

/// The committed state that a group is decided on.
pub trait State {
    /// Where the owner's part of the log ends.
    fn head(&self, owner: UserId) -> Head;

    /// A live todo of this owner.
    fn todo(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>>;

    /// A todo in this owner's trash.
    fn trashed(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>>;

    /// The number of live todos of this owner.
    fn todo_count(&self, owner: UserId) -> usize;

    /// The account with this id, whatever its state.
    fn account(&self, id: UserId) -> Option<Arc<User>>;

    /// The account that has this name, whatever its state and without regard to case.
    fn account_named(&self, username: &str) -> Option<Arc<User>>;

    /// All active accounts of the role admin.
    fn active_admins(&self) -> Vec<Arc<User>>;

    /// The session with this id.
    fn session(&self, id: SessionId) -> Option<Arc<Session>>;

    /// The sessions of this account.
    fn sessions(&self, user: UserId) -> Vec<Arc<Session>>;

    /// A personal access token of this account.
    fn personal_token(&self, user: UserId, id: PersonalTokenId) -> Option<Arc<PersonalToken>>;

    /// The personal access tokens of this account.
    fn personal_tokens(&self, user: UserId) -> Vec<Arc<PersonalToken>>;
}

/// Where an owner's part of the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The last change's revision; 0 before the first.
    pub revision: Revision,
    /// The last change's time.
    pub last_at: Timestamp,
    /// Retention has removed the changes up to and including this revision.
    pub pruned_through: Revision,
}

/// The numbers that the next account, todo and so on get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// The id of the next account.
    pub user: UserId,
    /// The id of the next session.
    pub session: SessionId,
    /// The id of the next personal access token.
    pub personal_token: PersonalTokenId,
    /// The id of the next todo.
    pub id: TodoId,
    /// The place of the next change.
    pub place: Place,
}

/// What a group is decided with, besides the state; the same for all its commands.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The database's epoch, which every change carries.
    pub epoch: Epoch,
    /// The wall clock's time. A change is never earlier than the owner's last one, whatever the clock says.
    pub now: Timestamp,
    /// The first unused numbers.
    pub next: Next,
    /// Whether the demo users exist: only in development.
    pub demo_users: bool,
    /// Live todos of an owner, at most.
    pub max_todos: usize,
}

/// What earlier groups have left that a request is about.
#[derive(Debug, Default)]
pub struct Prior {
    /// What is known of the request, if it can be repeated.
    pub answer: Option<Known>,
    /// What it undoes, by todo; none: the log does not have all of it, or not all that it has replaced. The group has not changed anything of that owner
    /// before.
    pub undone: Vec<Undone>,
}

/// What the log has about a todo of which changes are undone.
#[derive(Debug, Clone, PartialEq)]
pub struct Undone {
    /// The changes that are undone, and what each has replaced: in commit order, at least one, all of one todo, without
    /// others in between.
    pub changes: Vec<(Change, Before)>,
}

/// The answers that are kept of requests that can be repeated, by their users and names.
pub type KeptAnswers = BTreeMap<(UserId, Arc<str>), Kept>;

/// Why a request changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The owner has no such todo; somebody else may.
    TodoNotFound,
    /// The todo can't be restored: it is not deleted.
    NotInTrash,
    /// The todo is not as the client expects.
    PreconditionFailed {
        /// As it is.
        current: Arc<Todo>,
        /// The version that this is.
        etag: EntityTag,
        /// Which of the sent fields have changed since the version that the client knows, if it asked to merge.
        conflict: Vec<Field>,
    },
    /// The todo would have too many tags.
    TooManyTags,
    /// The owner has as many live todos as it may.
    TooManyTodos {
        /// So many.
        limit: usize,
    },
    /// The owner has made no such change.
    ChangeNotFound,
    /// The log does not have the change any more, or not what it has replaced; or its todo was removed for good.
    ChangeGone,
    /// A later change is about the same as one that is to be undone.
    ChangedSince {
        /// The todo as it is.
        current: Arc<Todo>,
        /// Whether it is in the trash.
        is_trashed: bool,
        /// The version that this is.
        etag: EntityTag,
        /// What both are about: names of fields, and `deleted_at`.
        conflict: Vec<&'static str>,
    },
    /// The list is not as the client expects.
    ListChanged,
    /// Another request had this idempotency key.
    KeyReused,
    /// What is answered to the request can't be written, or what it needs of the database can't be read.
    Unanswerable,
    /// The condition is about a version of the trash, which has none; or that there is none.
    NoSuchTrash,
    /// Merging needs exactly one version that the client knows.
    CannotMerge,
    /// The account of whoever acts was disabled or deleted, or its tokens were ended, since the request was allowed.
    NoLongerAllowed,
    /// There is no such account.
    AccountNotFound,
    /// The account is deleted, and stays so.
    AccountDeleted,
    /// Another account has this name, or had it.
    NameTaken,
    /// Nobody would be left who can administer accounts.
    LastAdmin,
    /// The refresh token is not valid, or not any more.
    InvalidGrant,
    /// The account has no such session.
    SessionNotFound,
    /// The account has no such personal access token.
    TokenNotFound,
    /// The account has as many personal access tokens as it may.
    TooManyTokens,
}

/// What a group has decided, and nobody else sees yet.
#[derive(Debug)]
pub struct Decided {
    /// In commit order.
    pub changes: Vec<Arc<Change>>,
    /// What each of them has replaced; none: it has created its todo.
    pub before: Vec<Option<Before>>,
    /// The accounts that are new or different.
    pub accounts: BTreeMap<UserId, Arc<User>>,
    /// The sessions that are new or different; `None`: over.
    pub sessions: BTreeMap<SessionId, Option<Arc<Session>>>,
    /// The personal access tokens that are new, by their users and ids; `None`: revoked.
    pub personal_tokens: BTreeMap<(UserId, PersonalTokenId), Option<Arc<PersonalToken>>>,
    /// Todos that are removed from the trash for good.
    pub purged: BTreeSet<(UserId, TodoId)>,
    /// Answers that are kept from now on.
    pub answers: KeptAnswers,
    /// The owners' heads after these changes.
    pub heads: HashMap<UserId, Head>,
    /// The first numbers that are unused after these changes.
    pub next: Next,
    /// Whether the relays of all processes start over with what the log has: delivery states were changed by an operator, or for
    /// a deleted account.
    pub restarts_relays: bool,
    /// How many live todos more the owners have after these changes, or fewer.
    grown: HashMap<UserId, isize>,
    /// Where the todos are that were changed or purged, and whose they are.
    todos: HashMap<TodoId, (UserId, Whereabouts)>,
}

impl Decided {
    /// What a group without requests decides.
    pub fn nothing(next: Next) -> Self {
        Self {
            changes: Vec::new(),
            before: Vec::new(),
            accounts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            personal_tokens: BTreeMap::new(),
            purged: BTreeSet::new(),
            answers: BTreeMap::new(),
            heads: HashMap::new(),
            next,
            restarts_relays: false,
            grown: HashMap::new(),
            todos: HashMap::new(),
        }
    }

    /// Only these todos are removed from the trash.
    pub fn only_purged(purged: BTreeSet<(UserId, TodoId)>, next: Next) -> Self {
        Self { purged, ..Self::nothing(next) }
    }

    /// Only that relays start over. See [`Self::restarts_relays`].
    pub fn only_restart_relays(next: Next) -> Self {
        Self { restarts_relays: true, ..Self::nothing(next) }
    }

    /// The number of things that it changes besides what its changes say. Other processes are told of each.
    pub fn records(&self) -> usize {
        let restarts = usize::from(self.restarts_relays);
        self.accounts.len() + self.sessions.len() + self.personal_tokens.len() + self.purged.len() + restarts
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.accounts.is_empty()
            && self.sessions.is_empty()
            && self.personal_tokens.is_empty()
            && self.purged.is_empty()
            && self.answers.is_empty()
            && !self.restarts_relays
    }

    fn merge(&mut self, later: Self) {
        self.changes.extend(later.changes);
        self.before.extend(later.before);
        self.accounts.extend(later.accounts);
        self.sessions.extend(later.sessions);
        self.personal_tokens.extend(later.personal_tokens);
        self.purged.extend(later.purged);
        self.answers.extend(later.answers);
        self.heads.extend(later.heads);
        self.next = later.next;
        self.restarts_relays |= later.restarts_relays;
        later.grown.into_iter().for_each(|(owner, by)| *self.grown.entry(owner).or_default() += by);
        self.todos.extend(later.todos);
    }
}

/// Decides the requests of one group, in their order.
pub struct Group<'a, S> {
    state: &'a S,
    facts: Facts,
    decided: Decided,
}

impl<'a, S: State> Group<'a, S> {
    /// A group on top of `state`.
    pub fn new(state: &'a S, facts: Facts) -> Self {
        Self { state, facts, decided: Decided::nothing(facts.next) }
    }

    /// What the group has decided.
    pub fn finish(self) -> Decided {
        self.decided
    }
}
