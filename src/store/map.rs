//! All todos and accounts in memory, from which reads are served.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::domain::account::{User, UserId, name_key};
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

/// The accounts in memory, by id and by name, in whatever state they are.
#[derive(Debug)]
pub struct Users {
    by_id: BTreeMap<UserId, Arc<User>>,
    /// By what names are compared by.
    by_name: HashMap<String, Arc<User>>,
    demo_users: bool,
    count: usize,
}

impl Users {
    /// No accounts. `demo_users`: whether the demo users exist.
    pub fn new(demo_users: bool) -> Self {
        Self { by_id: BTreeMap::new(), by_name: HashMap::new(), demo_users, count: 0 }
    }

    /// Whether the demo users exist.
    pub fn demo_users(&self) -> bool {
        self.demo_users
    }

    /// The account with this id, if it exists.
    pub fn by_id(&self, id: UserId) -> Option<&Arc<User>> {
        self.stored(id).filter(|user| self.exists(user))
    }

    /// The account with this name, if it exists.
    pub fn by_name(&self, username: &str) -> Option<&Arc<User>> {
        self.stored_named(username).filter(|user| self.exists(user))
    }

    /// As [`Self::by_id`], also a demo user that doesn't exist.
    pub fn stored(&self, id: UserId) -> Option<&Arc<User>> {
        self.by_id.get(&id)
    }

    /// As [`Self::by_name`], also a demo user that doesn't exist.
    pub fn stored_named(&self, username: &str) -> Option<&Arc<User>> {
        self.by_name.get(&name_key(username))
    }

    /// The accounts that exist, by id.
    pub fn all(&self) -> impl Iterator<Item = &Arc<User>> {
        self.by_id.values().filter(|user| self.exists(user))
    }

    /// The number of accounts that exist, also of deleted ones.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The accounts that exist and come after an id, by id.
    pub fn after(&self, id: UserId) -> impl Iterator<Item = &Arc<User>> {
        let after = self.by_id.range((Bound::Excluded(id), Bound::Unbounded));
        after.map(|(_, user)| user).filter(|user| self.exists(user))
    }

    /// Adds an account, or replaces it by what it is now.
    pub fn put(&mut self, user: Arc<User>) {
        if self.by_id.insert(user.id, Arc::clone(&user)).is_none() && self.exists(&user) {
            self.count += 1;
        }
        let name = name_key(&user.username);
        // A demo user that made room does not come back.
        let has_successor = user.is_demo && self.by_name.get(&name).is_some_and(|holder| !holder.is_demo);
        if !has_successor {
            self.by_name.insert(name, user);
        }
    }

    fn exists(&self, user: &User) -> bool {
        user.exists(self.demo_users)
    }
}
