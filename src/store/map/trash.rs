//! What an owner has deleted and can still restore.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::todo::{Todo, TodoId};

/// Todos in one owner's trash, at most, once they have been there for a day; of more, the oldest are removed.
pub const MAX_TRASH: usize = 10_000;

/// What stays in the trash. Times are those of the clock of retention, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct TrashRule {
    /// What was deleted before goes.
    pub keep_from: i64,
    /// What was deleted before goes if it is too much.
    pub keep_any_from: i64,
    /// Todos of one owner, at most, whenever they were deleted; but [`MAX_TRASH`] are always allowed.
    pub most: usize,
}

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
    /// When it was deleted, by the clock of retention, in seconds.
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

    /// The todos that don't stay, the oldest first.
    pub fn expired(&self, rule: TrashRule) -> impl Iterator<Item = TodoId> {
        let beyond = |most: usize| self.by_age.len().saturating_sub(most);
        let (excess, excess_of_all) = (beyond(MAX_TRASH), beyond(rule.most.max(MAX_TRASH)));
        let is_expired = move |(index, (at, _)): &(usize, &(i64, TodoId))| {
            *at < rule.keep_from || (*index < excess && *at < rule.keep_any_from) || *index < excess_of_all
        };
        self.by_age.iter().enumerate().take_while(is_expired).map(|(_, (_, id))| *id)
    }
}
