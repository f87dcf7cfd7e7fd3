//! What an owner has deleted and can still restore.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::todo::{Todo, TodoId};

/// Todos in one owner's trash, at most; of more, the oldest are removed.
pub const MAX_TRASH: usize = 10_000;

/// One owner's trash.
#[derive(Debug, Default)]
pub struct Trash {
    todos: BTreeMap<TodoId, Trashed>,
    /// By when they were deleted.
    by_age: BTreeSet<(i64, TodoId)>,
}

#[derive(Debug)]
struct Trashed {
    todo: Arc<Todo>,
    /// When it was deleted, in seconds that the service had been running.
    uptime: i64,
}

impl Trash {
    /// The todo with this id.
    pub fn get(&self, id: TodoId) -> Option<&Arc<Todo>> {
        self.todos.get(&id).map(|trashed| &trashed.todo)
    }

    /// Everything in it, by id.
    pub fn todos(&self) -> impl Iterator<Item = &Arc<Todo>> {
        self.todos.values().map(|trashed| &trashed.todo)
    }

    /// The number of todos in it.
    pub fn count(&self) -> usize {
        self.todos.len()
    }

    /// Adds a todo that was deleted at `uptime`.
    pub fn insert(&mut self, todo: Arc<Todo>, uptime: i64) {
        self.by_age.insert((uptime, todo.id));
        self.todos.insert(todo.id, Trashed { todo, uptime });
    }

    /// Removes a todo, if it is there.
    pub fn remove(&mut self, id: TodoId) {
        if let Some(trashed) = self.todos.remove(&id) {
            self.by_age.remove(&(trashed.uptime, id));
        }
    }

    /// The todos that were deleted before `uptime`, and the oldest of those that are too many; the oldest first.
    pub fn expired(&self, uptime: i64) -> impl Iterator<Item = TodoId> {
        let excess = self.by_age.len().saturating_sub(MAX_TRASH);
        let is_expired = move |(index, (at, _)): &(usize, &(i64, TodoId))| *index < excess || *at < uptime;
        self.by_age.iter().enumerate().take_while(is_expired).map(|(_, (_, id))| *id)
    }
}
