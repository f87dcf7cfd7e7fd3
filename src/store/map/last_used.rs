//! When something was used last. It is not worth a commit of its own: the writer saves it now and then.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::domain::clock::Timestamp;

/// When each of some things was used last.
#[derive(Debug)]
pub struct LastUsed<K> {
    at: HashMap<K, Timestamp>,
    /// What is not on disk as it is here.
    unsaved: HashSet<K>,
}

impl<K: Copy + Eq + Hash> LastUsed<K> {
    /// What the database has.
    pub fn new(at: HashMap<K, Timestamp>) -> Self {
        Self { at, unsaved: HashSet::new() }
    }

    /// When `key` was used last.
    pub fn get(&self, key: K) -> Option<Timestamp> {
        self.at.get(&key).copied()
    }

    /// `key` is used now.
    pub fn put(&mut self, key: K, now: Timestamp) {
        self.at.insert(key, now);
        self.unsaved.insert(key);
    }

    /// Forgets those for which `is_kept` is false; returns them.
    pub fn retain(&mut self, is_kept: impl Fn(&K, Timestamp) -> bool) -> Vec<K> {
        let forgotten: Vec<K> = self.at.iter().filter(|(key, at)| !is_kept(key, **at)).map(|(key, _)| *key).collect();
        for key in &forgotten {
            self.remove(*key);
        }
        forgotten
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: K) {
        self.at.remove(&key);
        self.unsaved.remove(&key);
    }

    /// What is to be saved; from now on it counts as saved.
    pub fn take_unsaved(&mut self) -> Vec<(K, Timestamp)> {
        let unsaved = std::mem::take(&mut self.unsaved);
        unsaved.into_iter().filter_map(|key| Some((key, self.get(key)?))).collect()
    }

    /// They could not be saved.
    pub fn still_unsaved(&mut self, unsaved: Vec<(K, Timestamp)>) {
        let known = unsaved.into_iter().map(|(key, _)| key).filter(|key| self.at.contains_key(key));
        self.unsaved.extend(known.collect::<Vec<_>>());
    }
}
