//! Recognizes repeated events: a consumer drops what is not newer than the last version that it saw (docs/events.md).

use std::collections::HashMap;

use crate::domain::change::Epoch;
use crate::domain::todo::{TodoId, Version};

/// Todos to remember: at least this many, at most twice as many.
const REMEMBERED: usize = 50_000;

/// A todo of any database.
type Key = (Epoch, TodoId);

/// The last version seen of each todo. Bounded by two generations: the todos that have not changed for longest are
/// forgotten.
#[derive(Default)]
pub struct LastVersions {
    young: HashMap<Key, Version>,
    old: HashMap<Key, Version>,
}

impl LastVersions {
    /// Records a version; false if it is not newer than the last one.
    pub fn advance(&mut self, key: Key, version: Version) -> bool {
        let last = self.young.get(&key).or_else(|| self.old.get(&key)).copied();
        if last.is_some_and(|last| version <= last) {
            return false;
        }
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, version);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_versions_are_new() {
        let mut seen = LastVersions::default();
        let news: Vec<bool> =
            [1, 1, 2, 1, 4, 3, 5].map(|version| seen.advance((Epoch(1), TodoId(1)), Version(version))).to_vec();
        assert_eq!(news, [true, false, true, false, true, false, true]);
        assert!(seen.advance((Epoch(2), TodoId(1)), Version::FIRST), "another epoch has its own versions");
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_kept() {
        let mut seen = LastVersions::default();
        let remembered = REMEMBERED as i64;
        let mut is_new = |todo| seen.advance((Epoch(1), TodoId(todo)), Version::FIRST);
        for todo in 0..5 * remembered {
            assert!(is_new(todo));
        }
        assert!(!is_new(5 * remembered - 1));
        assert!(!is_new(4 * remembered));
        assert!(seen.young.len() + seen.old.len() <= 2 * REMEMBERED);
    }
}
