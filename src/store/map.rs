//! All todos and accounts in memory, from which reads are served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::account::{User, UserId};
use crate::domain::change::{Change, Kind, Revision};
use crate::domain::todo::{Todo, TodoId};

/// Every live todo, by owner, ordered by id. Only committed changes get here.
#[derive(Debug, Default)]
pub struct TodoMap {
    owners: HashMap<UserId, Owner>,
    count: usize,
}

#[derive(Debug, Default)]
struct Owner {
    revision: Revision,
    todos: BTreeMap<TodoId, Arc<Todo>>,
}

/// One owner's todos as of a revision.
#[derive(Debug, PartialEq)]
pub struct OwnerView {
    /// The owner's last change that the todos include; 0 before the first.
    pub revision: Revision,
    /// All of them, by id.
    pub todos: Vec<Arc<Todo>>,
}

impl TodoMap {
    /// One todo of `owner`.
    pub fn get(&self, owner: UserId, id: TodoId) -> Option<&Arc<Todo>> {
        self.owners.get(&owner)?.todos.get(&id)
    }

    /// All todos of `owner`.
    pub fn view(&self, owner: UserId) -> OwnerView {
        let Some(Owner { revision, todos }) = self.owners.get(&owner) else {
            return OwnerView { revision: Revision::default(), todos: Vec::new() };
        };
        OwnerView { revision: *revision, todos: todos.values().cloned().collect() }
    }

    /// Applies a committed change.
    pub fn apply(&mut self, change: &Change) {
        let owner = self.owners.entry(change.todo.owner).or_default();
        owner.revision = change.revision;
        self.count -= owner.todos.len();
        match change.kind {
            Kind::Created | Kind::Updated => owner.todos.insert(change.todo.id, Arc::clone(&change.todo)),
            Kind::Deleted => owner.todos.remove(&change.todo.id),
        };
        self.count += owner.todos.len();
    }

    /// Sets the revision that the owner's todos are as of.
    pub fn set_revision(&mut self, owner: UserId, revision: Revision) {
        self.owners.entry(owner).or_default().revision = revision;
    }

    /// Inserts a todo that the database has.
    pub fn insert(&mut self, todo: Arc<Todo>) {
        if self.owners.entry(todo.owner).or_default().todos.insert(todo.id, todo).is_none() {
            self.count += 1;
        }
    }

    /// The number of todos of all owners.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// The accounts in memory, by id and by name.
#[derive(Debug, Default)]
pub struct Users {
    by_id: HashMap<UserId, Arc<User>>,
    by_name: HashMap<Arc<str>, Arc<User>>,
}

impl Users {
    /// The account with this id.
    pub fn by_id(&self, id: UserId) -> Option<&Arc<User>> {
        self.by_id.get(&id)
    }

    /// The account with this name.
    pub fn by_name(&self, username: &str) -> Option<&Arc<User>> {
        self.by_name.get(username)
    }

    /// Adds an account.
    pub fn insert(&mut self, user: User) {
        let user = Arc::new(user);
        self.by_id.insert(user.id, Arc::clone(&user));
        self.by_name.insert(Arc::clone(&user.username), user);
    }
}
