//! All todos and accounts in memory, from which reads are served.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::account::User;
use crate::domain::account::UserId;
use crate::domain::change::{Change, Kind};
use crate::domain::todo::{Todo, TodoId};

/// Every live todo, by owner, ordered by id. Only committed changes get here.
#[derive(Debug, Default)]
pub struct TodoMap {
    owners: HashMap<UserId, BTreeMap<TodoId, Arc<Todo>>>,
    len: usize,
}

impl TodoMap {
    /// One todo of `owner`.
    pub fn get(&self, owner: UserId, id: TodoId) -> Option<&Arc<Todo>> {
        self.owners.get(&owner)?.get(&id)
    }

    /// All todos of `owner`, by id.
    pub fn list(&self, owner: UserId) -> Vec<Arc<Todo>> {
        self.owners.get(&owner).map(|todos| todos.values().cloned().collect()).unwrap_or_default()
    }

    /// Applies a committed change.
    pub fn apply(&mut self, change: &Change) {
        match change.kind {
            Kind::Created | Kind::Updated => self.insert(Arc::clone(&change.todo)),
            Kind::Deleted => self.remove(change.todo.owner, change.todo.id),
        }
    }

    /// Inserts a todo, or replaces its earlier version.
    pub fn insert(&mut self, todo: Arc<Todo>) {
        if self.owners.entry(todo.owner).or_default().insert(todo.id, todo).is_none() {
            self.len += 1;
        }
    }

    fn remove(&mut self, owner: UserId, id: TodoId) {
        if let Some(todos) = self.owners.get_mut(&owner)
            && todos.remove(&id).is_some()
        {
            self.len -= 1;
        }
    }

    /// The number of todos of all owners.
    pub fn count(&self) -> usize {
        self.len
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
