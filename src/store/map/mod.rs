//! All todos, accounts and sessions in memory, from which reads are served.

pub mod login_networks;
pub mod select;
pub mod sessions;
mod texts;
pub mod todos;
pub mod trash;
pub mod users;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::account::UserId;
use crate::domain::change::{Change, Kind, Revision};
use crate::domain::todo::{Todo, TodoId};
use texts::Budget;
use todos::Todos;
use trash::{Trash, TrashRule};

/// Every todo, by owner, ordered by id. Only committed changes get here.
#[derive(Debug, Default)]
pub struct TodoMap {
    owners: HashMap<UserId, Owner>,
    count: usize,
    /// Memory for the texts that are searched.
    budget: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Owner {
    revision: Revision,
    todos: Todos,
    trash: Trash,
}

/// One owner's todos as of a revision.
#[derive(Debug, Default)]
pub struct OwnerView {
    /// The owner's last change that the todos include; 0 before the first.
    pub revision: Revision,
    /// All of them.
    pub todos: Todos,
}

/// One owner's trash as of a revision.
#[derive(Debug, Default)]
pub struct TrashView {
    /// The owner's last change that the todos include; 0 before the first.
    pub revision: Revision,
    /// All of them, by id.
    pub todos: Vec<Arc<Todo>>,
}

impl TrashView {
    /// The one that was deleted last comes first.
    #[must_use]
    pub fn last_deleted_first(mut self) -> Self {
        self.todos.sort_unstable_by_key(|todo| Reverse((todo.updated_at, todo.id)));
        self
    }
}

impl TodoMap {
    /// One todo of `owner`.
    pub fn get(&self, owner: UserId, id: TodoId) -> Option<&Arc<Todo>> {
        self.owners.get(&owner)?.todos.get(id)
    }

    /// The last change of `owner` that the todos include; 0 before the first.
    pub fn revision(&self, owner: UserId) -> Revision {
        self.owners.get(&owner).map_or(Revision::default(), |owner| owner.revision)
    }

    /// All todos of `owner`. Takes the same short time for any number of them, nearly.
    pub fn view(&self, owner: UserId) -> OwnerView {
        let Some(Owner { revision, todos, .. }) = self.owners.get(&owner) else { return OwnerView::default() };
        OwnerView { revision: *revision, todos: todos.clone() }
    }

    /// All todos in the trash of `owner`.
    pub fn trash_view(&self, owner: UserId) -> TrashView {
        let Some(Owner { revision, trash, .. }) = self.owners.get(&owner) else { return TrashView::default() };
        TrashView { revision: *revision, todos: trash.todos().cloned().collect() }
    }

    /// The ids of the first todos of `owner`, at most `limit`.
    pub fn first(&self, owner: UserId, limit: usize) -> Vec<TodoId> {
        let of = |owner: &Owner| owner.todos.iter().take(limit).map(|todo| todo.id).collect();
        self.owners.get(&owner).map(of).unwrap_or_default()
    }

    /// The ids of the first todos in the trash of `owner`, at most `limit`.
    pub fn first_trashed(&self, owner: UserId, limit: usize) -> Vec<TodoId> {
        let of = |trash: &Trash| trash.todos().take(limit).map(|todo| todo.id).collect();
        self.trash(owner).map(of).unwrap_or_default()
    }

    /// The trash of `owner`, if anything ever was in it.
    pub fn trash(&self, owner: UserId) -> Option<&Trash> {
        self.owners.get(&owner).map(|owner| &owner.trash)
    }

    /// Todos that don't stay in the trash, at most `limit`.
    pub fn expired_trash(&self, rule: TrashRule, limit: usize) -> Vec<(UserId, TodoId)> {
        let expired = self.owners.iter().flat_map(|(&owner, of)| of.trash.expired(rule).map(move |id| (owner, id)));
        expired.take(limit).collect()
    }

    /// Applies a committed change, made at `uptime`, by the clock of retention, in seconds.
    pub fn apply(&mut self, change: &Change, uptime: i64) {
        let (id, todo) = (change.todo.id, &change.todo);
        let owner = self.owner(todo.owner);
        owner.revision = change.revision;
        let before = owner.todos.count();
        match change.kind {
            Kind::Created | Kind::Updated => owner.todos.insert(Arc::clone(todo)),
            Kind::Deleted => {
                owner.todos.remove(id);
                if !change.scrubbed {
                    owner.trash.insert(Arc::clone(todo), uptime);
                }
            }
            Kind::Restored => {
                owner.trash.remove(id);
                owner.todos.insert(Arc::clone(todo));
            }
        }
        let after = owner.todos.count();
        self.count = self.count - before + after;
    }

    /// Removes a todo from the trash.
    pub fn purge(&mut self, owner: UserId, id: TodoId) {
        if let Some(owner) = self.owners.get_mut(&owner) {
            owner.trash.remove(id);
        }
    }

    /// Sets the revision that the owner's todos are as of.
    pub fn set_revision(&mut self, owner: UserId, revision: Revision) {
        self.owner(owner).revision = revision;
    }

    /// Inserts a todo that the database has in the trash since `uptime`.
    pub fn insert_trashed(&mut self, todo: Arc<Todo>, uptime: i64) {
        self.owner(todo.owner).trash.insert(todo, uptime);
    }

    /// Inserts a todo that the database has.
    pub fn insert(&mut self, todo: Arc<Todo>) {
        let owner = self.owner(todo.owner);
        let before = owner.todos.count();
        owner.todos.insert(todo);
        let after = owner.todos.count();
        self.count = self.count - before + after;
    }

    fn owner(&mut self, id: UserId) -> &mut Owner {
        let new = || Owner { todos: Todos::new(&self.budget), ..Owner::default() };
        self.owners.entry(id).or_insert_with(new)
    }

    /// Forgets the folded texts of todos that nobody has searched since the last call.
    pub fn forget_texts(&self) {
        self.owners.values().for_each(|owner| owner.todos.forget_texts());
    }

    /// How much memory the folded texts of todos take, in bytes.
    pub fn texts_size(&self) -> usize {
        self.budget.used()
    }

    /// The number of todos in the trash of all owners.
    pub fn trashed(&self) -> usize {
        self.owners.values().map(|owner| owner.trash.count()).sum()
    }

    /// The number of live todos of `owner`.
    pub fn count_of(&self, owner: UserId) -> usize {
        self.owners.get(&owner).map_or(0, |owner| owner.todos.count())
    }

    /// The number of live todos of all owners.
    pub fn count(&self) -> usize {
        self.count
    }
}
