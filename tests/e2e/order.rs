//! What every test with faults checks of the topic: nothing is missing, and first occurrences are in version order.

use std::collections::BTreeMap;

use crate::stack::Event;

/// The last version of each todo so far.
#[derive(Default)]
pub struct Versions(pub BTreeMap<i64, i64>);

impl Versions {
    /// Takes the next event, and returns whether it is a repeated one; panics if its version came before an earlier one.
    pub fn take(&mut self, event: &Event) -> bool {
        let (todo, version) = (event.number("id"), event.number("version"));
        let seen = self.0.entry(todo).or_default();
        assert!(version <= *seen + 1, "todo {todo}: version {version} came first after version {seen}");
        let is_repeated = version <= *seen;
        *seen = version.max(*seen);
        is_repeated
    }
}

/// The last version of each todo, from its events; panics if a version came first before an earlier one.
pub fn versions_in_order(events: &[Event]) -> BTreeMap<i64, i64> {
    let mut versions = Versions::default();
    for event in events {
        versions.take(event);
    }
    versions.0
}

/// Whether each of `expected` (todo to number of changes) has arrived up to its last version.
pub fn all_arrived(events: &[Event], expected: &BTreeMap<i64, i64>) -> bool {
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for event in events {
        let seen = last.entry(event.number("id")).or_default();
        *seen = event.number("version").max(*seen);
    }
    expected.iter().all(|(todo, version)| last.get(todo).is_some_and(|seen| seen >= version))
}
