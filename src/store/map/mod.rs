//! All todos, accounts and sessions in memory, from which reads are served.

pub mod login_networks;
pub mod sessions;
pub mod users;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::account::UserId;
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

    /// The ids of the first todos of `owner`, at most `limit`.
    pub fn first(&self, owner: UserId, limit: usize) -> Vec<TodoId> {
        self.owners.get(&owner).map(|owner| owner.todos.keys().take(limit).copied().collect()).unwrap_or_default()
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
