//! Counts what is going on for each user, so that it can be limited.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::account::UserId;

/// Allows each user so much at the same time.
#[derive(Debug, Clone)]
pub struct PerUser {
    counts: Arc<Mutex<HashMap<UserId, usize>>>,
    limit: usize,
}

impl PerUser {
    /// At most `limit` of each user.
    pub fn at_most(limit: usize) -> Self {
        Self { counts: Arc::default(), limit }
    }

    /// Counts something until the slot is dropped; `None` if the user has reached the limit.
    pub fn begin(&self, user: UserId) -> Option<Slot> {
        let mut counts = self.counts.lock();
        let count = counts.entry(user).or_default();
        if *count == self.limit {
            return None;
        }
        *count += 1;
        Some(Slot { all: self.clone(), user })
    }

    /// How much is going on for this user.
    #[cfg(test)]
    pub fn count(&self, user: UserId) -> usize {
        self.counts.lock().get(&user).copied().unwrap_or_default()
    }
}

/// Something that is going on for a user.
#[derive(Debug)]
pub struct Slot {
    all: PerUser,
    user: UserId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.all.counts.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}
