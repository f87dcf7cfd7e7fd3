//! What only one process does at a time, and which of it this one does.
//!
//! Todos are in parts, by their ids. Whoever holds the lease of a part publishes the events of its todos. Another lease is for
//! keeping house: removing what has had its time. With SQLite, one process has all of them, for ever.

use std::time::Instant;

use parking_lot::{Mutex, const_mutex};
use tokio::sync::Notify;

use crate::domain::todo::TodoId;

/// The number of parts.
pub const PARTS: usize = 64;

/// Some of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts(u64);

impl Parts {
    /// All of them.
    pub const ALL: Self = Self(u64::MAX);
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether the part that a todo is in is one of them.
    pub fn have(self, todo: TodoId) -> bool {
        self.0 >> todo.0.rem_euclid(PARTS as i64) & 1 == 1
    }

    /// The number of them.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = i16> {
        (0..64).filter(move |part| self.0 >> part & 1 == 1)
    }

    /// Those of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// At most so many of them. Those that are `preferred` come first.
    #[must_use]
    pub fn at_most(self, count: usize, preferred: Self) -> Self {
        let (first, others) = (Self(self.0 & preferred.0), Self(self.0 & !preferred.0));
        first.numbers().chain(others.numbers()).take(count).collect()
    }
}

impl FromIterator<i16> for Parts {
    fn from_iter<I: IntoIterator<Item = i16>>(parts: I) -> Self {
        Self(parts.into_iter().filter(|part| (0..64).contains(part)).fold(0, |all, part| all | 1 << part))
    }
}

/// The fair share of one of so many that publish.
pub fn share(publishing: usize) -> usize {
    PARTS.div_ceil(publishing.max(1))
}

/// The leases that this process has.
pub struct Leases {
    held: Mutex<Held>,
    /// Something has changed on which they depend.
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// The parts whose events are to be published.
    parts: Parts,
    /// Those whose events are being published: what is in flight for a part ends before its lease is given up.
    used: Parts,
    keep_house: bool,
    /// Nothing is begun after this; none: they never end.
    until: Option<Instant>,
    /// Whether events can be published, as far as is known.
    can_publish: bool,
}

impl Held {
    fn is_good(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl Leases {
    /// All of them, for ever.
    pub const fn all() -> Self {
        let (parts, used) = (Parts::ALL, Parts::NONE);
        let held = Held { parts, used, keep_house: true, until: None, can_publish: false };
        Self { held: const_mutex(held), changed: Notify::const_new() }
    }

    /// None yet.
    pub fn none() -> Self {
        let (parts, used) = (Parts::NONE, Parts::NONE);
        let held = Held { parts, used, keep_house: false, until: Some(Instant::now()), can_publish: false };
        Self { held: const_mutex(held), changed: Notify::new() }
    }

    /// The parts whose events this process is to publish now.
    pub fn parts(&self) -> Parts {
        let held = *self.held.lock();
        if held.is_good() { held.parts } else { Parts::NONE }
    }

    /// Whether this process keeps house now.
    pub fn keep_house(&self) -> bool {
        let held = *self.held.lock();
        held.keep_house && held.is_good()
    }

    /// From now on, events of these parts are published, and of no others.
    pub fn used(&self, parts: Parts) {
        self.held.lock().used = parts;
        self.changed.notify_one();
    }

    /// Whether events can be published from here. If not, others that can take its parts.
    pub fn can_publish(&self, can: bool) {
        if std::mem::replace(&mut self.held.lock().can_publish, can) != can {
            self.changed.notify_one();
        }
    }

    /// The leases were renewed.
    pub(super) fn renewed(&self, parts: Parts, keep_house: bool, until: Instant) {
        let mut held = self.held.lock();
        (held.parts, held.keep_house, held.until) = (parts, keep_house, Some(until));
    }

    /// The parts that are still used or are to be used, and whether events can be published.
    pub(super) fn state(&self) -> (Parts, bool) {
        let held = *self.held.lock();
        (held.parts.and(held.used), held.can_publish)
    }

    /// Somebody else has published what this process has, too: who holds which is looked up at once, and not only when they
    /// are renewed the next time.
    pub(super) fn look_again(&self) {
        self.changed.notify_one();
    }

    /// Waits until something has changed on which they depend.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_todo_is_in_one_part() {
        for id in [1, 63, 64, 65, i64::MAX] {
            let of: Vec<i16> = (0..64).filter(|part| [*part].into_iter().collect::<Parts>().have(TodoId(id))).collect();
            assert_eq!(of, [i16::try_from(id % 64).unwrap()]);
        }
        assert_eq!((Parts::ALL.count(), Parts::NONE.count()), (64, 0));
        assert_eq!(Parts::ALL.numbers().collect::<Parts>(), Parts::ALL);
        assert_eq!([-1, 64, 3].into_iter().collect::<Parts>().numbers().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_share_is_fair_and_what_is_used_is_kept() {
        assert_eq!([0, 1, 2, 3, 64, 65].map(share), [64, 64, 32, 22, 1, 1]);
        let held: Parts = [1, 2, 3, 4].into_iter().collect();
        let used: Parts = [3, 4, 9].into_iter().collect();
        assert_eq!(held.at_most(3, used).numbers().collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(held.at_most(0, used), Parts::NONE);
        assert_eq!(held.and(used).count(), 5);
    }

    #[test]
    fn what_has_ended_is_not_begun() {
        let leases = Leases::none();
        assert_eq!((leases.parts(), leases.keep_house()), (Parts::NONE, false));
        let later = Instant::now() + std::time::Duration::from_secs(60);
        leases.renewed(Parts::ALL, true, later);
        assert_eq!((leases.parts(), leases.keep_house()), (Parts::ALL, true));
        leases.renewed(Parts::ALL, true, Instant::now());
        assert_eq!((leases.parts(), leases.keep_house()), (Parts::NONE, false));
    }
}
