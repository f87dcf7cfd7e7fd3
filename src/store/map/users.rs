//! The accounts in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::domain::account::{User, UserId, name_key};

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
