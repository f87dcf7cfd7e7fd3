//! What commands change: the one place for these rules. Pure: no database, no thread, no lock, no clock.
//!
//! A group is what one commit makes durable. Each of its requests is decided on top of the committed [`State`] and of
//! what the group's earlier requests have decided; a request that is refused leaves no trace. Deciding the requests one
//! at a time, each in a group of its own, gives the same changes: the tests compare both.
//!
//! A store prepares what a group needs before it decides: the state of the owners that it names, and the [`Facts`]. So
//! nothing here ever waits, and each store fetches in its own way: SQLite's writer has everything in memory, one that
//! shares its database locks the owners first.

mod accounts;
pub mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Command, Context};
use crate::domain::account::{AccountState, User, UserId};
use crate::domain::change::{Change, Epoch, Kind, Place, Revision, SCRUBBED_TITLE};
use crate::domain::clock::Timestamp;
use crate::domain::session::{PersonalToken, PersonalTokenId, Session, SessionId};
use crate::domain::todo::{Field, Todo, TodoId, Version};

/// The committed state that a group is decided on.
pub trait State {
    /// Where the owner's part of the log ends.
    fn head(&self, owner: UserId) -> Head;

    /// A live todo of this owner.
    fn todo(&self, owner: UserId, id: TodoId) -> Option<Arc<Todo>>;

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
}

/// Why a request changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The owner has no such todo; somebody else may.
    TodoNotFound,
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
    /// The accounts that are new or different.
    pub accounts: BTreeMap<UserId, Arc<User>>,
    /// The sessions that are new or different; `None`: over.
    pub sessions: BTreeMap<SessionId, Option<Arc<Session>>>,
    /// The personal access tokens that are new, by their users and ids; `None`: revoked.
    pub personal_tokens: BTreeMap<(UserId, PersonalTokenId), Option<Arc<PersonalToken>>>,
    /// The owners' heads after these changes.
    pub heads: HashMap<UserId, Head>,
    /// The first numbers that are unused after these changes.
    pub next: Next,
    /// The changed todos; `None`: deleted.
    todos: HashMap<TodoId, Option<Arc<Todo>>>,
}

impl Decided {
    /// What a group without requests decides.
    pub fn nothing(next: Next) -> Self {
        Self {
            changes: Vec::new(),
            accounts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            personal_tokens: BTreeMap::new(),
            heads: HashMap::new(),
            next,
            todos: HashMap::new(),
        }
    }

    /// Whether nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.accounts.is_empty()
            && self.sessions.is_empty()
            && self.personal_tokens.is_empty()
    }

    fn merge(&mut self, later: Self) {
        self.changes.extend(later.changes);
        self.accounts.extend(later.accounts);
        self.sessions.extend(later.sessions);
        self.personal_tokens.extend(later.personal_tokens);
        self.heads.extend(later.heads);
        self.next = later.next;
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

    /// What a request changes: all of its commands, or nothing.
    pub fn decide(&mut self, context: &Context, commands: Vec<Command>) -> Result<Vec<Arc<Change>>, Refusal> {
        if let Some(authority) = context.authority {
            self.still_valid(authority)?;
        }
        let account = self.account(context.owner).ok_or(Refusal::NoLongerAllowed)?;
        let mut request = Decided::nothing(self.decided.next);
        for command in commands {
            self.decide_one(&mut request, context, &account, command)?;
        }
        let changes = request.changes.clone();
        self.decided.merge(request);
        Ok(changes)
    }

    /// What the group has decided.
    pub fn finish(self) -> Decided {
        self.decided
    }

    fn decide_one(
        &self,
        request: &mut Decided,
        context: &Context,
        account: &User,
        command: Command,
    ) -> Result<(), Refusal> {
        let owner = account.id;
        let erases = matches!(command, Command::Erase(_));
        if account.state != if erases { AccountState::Deleted } else { AccountState::Active } {
            return Err(Refusal::NoLongerAllowed);
        }
        let head = self.head(request, owner);
        let at = self.facts.now.max(head.last_at);
        let (kind, todo, changed) = match command {
            Command::Create(new) => {
                let id = request.next.id;
                request.next.id = TodoId(id.0 + 1);
                let todo = Todo {
                    id,
                    owner,
                    version: Version::FIRST,
                    title: new.title,
                    description: new.description,
                    completed: new.completed,
                    created_at: at,
                    updated_at: at,
                };
                (Kind::Created, todo, Field::ALL.to_vec())
            }
            Command::Update(id, patch) => {
                let mut todo = self.next_version(request, owner, id, at)?;
                let changed = patch.apply(&mut todo);
                (Kind::Updated, todo, changed)
            }
            Command::Delete(id) => (Kind::Deleted, self.next_version(request, owner, id, at)?, Vec::new()),
            Command::Erase(id) => {
                let todo = self.next_version(request, owner, id, at)?;
                (Kind::Deleted, Todo { title: SCRUBBED_TITLE.into(), description: None, ..todo }, Vec::new())
            }
        };
        let (todo, revision) = (Arc::new(todo), head.revision.next());
        request.todos.insert(todo.id, (kind != Kind::Deleted).then(|| Arc::clone(&todo)));
        request.heads.insert(owner, Head { revision, last_at: at, ..head });
        request.changes.push(Arc::new(Change {
            place: request.next.place,
            epoch: self.facts.epoch,
            revision,
            kind,
            at,
            actor: Arc::clone(&context.actor),
            created_by: Arc::clone(&account.username),
            changed,
            trace: context.trace.clone(),
            scrubbed: erases,
            todo,
        }));
        request.next.place = Place(request.next.place.0 + 1);
        Ok(())
    }

    fn head(&self, request: &Decided, owner: UserId) -> Head {
        let decided = request.heads.get(&owner).or_else(|| self.decided.heads.get(&owner));
        decided.copied().unwrap_or_else(|| self.state.head(owner))
    }

    /// The owner's todo in its next version, still to be changed; its time is `at`.
    fn next_version(&self, request: &Decided, owner: UserId, id: TodoId, at: Timestamp) -> Result<Todo, Refusal> {
        let todo = match request.todos.get(&id).or_else(|| self.decided.todos.get(&id)) {
            Some(decided) => decided.clone().filter(|todo| todo.owner == owner),
            None => self.state.todo(owner, id),
        };
        let todo = todo.ok_or(Refusal::TodoNotFound)?;
        Ok(Todo { version: todo.version.next(), updated_at: at, ..Todo::clone(&todo) })
    }
}
