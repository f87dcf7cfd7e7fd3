//! How much is kept of the answers to requests that can be repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::account::UserId;
use crate::store::decide::KeptAnswers;
use crate::store::idempotency::KeptAnswer;

/// Answers of one user, in bytes, at most; of more, the oldest are removed before their time.
const MAX_KEPT: u64 = 64 << 20;
/// What an answer takes besides its texts, in bytes: its row and its places in three indexes.
const ROW: u64 = 150;
/// How much an answer takes in the database, about: the request is in an index, too.
pub fn size(request: &str, answer: &KeptAnswer) -> u64 {
    let headers: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    (answer.body.len() + headers + 2 * request.len()) as u64 + ROW
}

/// How much is kept of each user's answers, in bytes.
#[derive(Debug, Default)]
pub struct KeptSizes {
    of: HashMap<UserId, u64>,
    /// Of all users, for the metrics.
    total: Arc<AtomicU64>,
}

impl KeptSizes {
    /// What the database has.
    pub fn new(sizes: impl IntoIterator<Item = (UserId, u64)>) -> Self {
        let mut all = Self::default();
        all.replace(sizes);
        all
    }

    /// What the database has now.
    pub fn replace(&mut self, sizes: impl IntoIterator<Item = (UserId, u64)>) {
        self.clear();
        for (owner, bytes) in sizes {
            self.add(owner, bytes);
        }
    }

    /// Somebody else counts them.
    pub fn clear(&mut self) {
        self.of.clear();
        self.total.store(0, Ordering::Relaxed);
    }

    /// The size of all, kept up to date.
    pub fn total(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.total)
    }

    /// Answers are kept from now on; whether that is more of a user than may be.
    pub fn added(&mut self, answers: &KeptAnswers) -> bool {
        answers.iter().fold(false, |excess, ((owner, request), kept)| {
            self.add(*owner, size(request, &kept.answer)) > MAX_KEPT || excess
        })
    }

    fn add(&mut self, owner: UserId, bytes: u64) -> u64 {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        let of = self.of.entry(owner).or_default();
        *of += bytes;
        *of
    }

    /// Answers were removed.
    pub fn removed(&mut self, removed: &[(UserId, u64)]) {
        for &(owner, bytes) in removed {
            if let Some(of) = self.of.get_mut(&owner) {
                let bytes = bytes.min(*of);
                *of -= bytes;
                self.total.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        self.of.retain(|_, bytes| *bytes > 0);
    }

    /// So much is kept of this user: a commit whose outcome is not known may have changed it.
    pub fn set(&mut self, owner: UserId, bytes: u64) {
        self.total.fetch_sub(self.of.remove(&owner).unwrap_or_default(), Ordering::Relaxed);
        if bytes > 0 {
            self.add(owner, bytes);
        }
    }

    /// A user of whom more is kept than may be, and how much more.
    pub fn excess(&self) -> Option<(UserId, u64)> {
        self.of.iter().find(|(_, bytes)| **bytes > MAX_KEPT).map(|(owner, bytes)| (*owner, bytes - MAX_KEPT))
    }
}
