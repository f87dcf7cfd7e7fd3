//! All todos in memory: what lists and single reads are served from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::model::{Todo, TodoId, UserId};

/// Every live todo, by owner, ordered by id. Holds only what is committed.
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

    /// Puts a todo in, in the place of its earlier version.
    pub fn insert(&mut self, todo: Arc<Todo>) {
        if self.owners.entry(todo.owner).or_default().insert(todo.id, todo).is_none() {
            self.len += 1;
        }
    }

    /// Takes a todo out.
    pub fn remove(&mut self, owner: UserId, id: TodoId) {
        if let Some(todos) = self.owners.get_mut(&owner)
            && todos.remove(&id).is_some()
        {
            self.len -= 1;
        }
    }

    /// How many todos there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
