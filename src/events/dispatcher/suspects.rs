//! Todos whose last publish failed while others may get through. Each waits by itself, longer and longer, and then
//! takes one of a few slots to try again. Another todo's success *confirms* a failure that came before it: the failure
//! was about this todo, not about the sidecar. Enough confirmed refusals park the todo's change.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::MAX_REFUSALS;
use crate::domain::change::Place;
use crate::domain::todo::TodoId;

/// A suspect waits this long before it tries again, in milliseconds, doubled with every failure up to 32 times: so a
/// partition without a leader for some seconds does not use up the refusals after which a change is parked.
pub const BACKOFF_MS: u64 = 1000;
/// The wait is doubled at most this often.
const MAX_DOUBLINGS: u32 = 5;

/// Why a publish failed. The two kinds have slots of their own, so that todos that hang don't
/// hold up todos that are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The sidecar refused the event.
    Refused,
    /// No answer in time.
    NoAnswer,
}

impl Failure {
    pub const ALL: [Self; 2] = [Self::Refused, Self::NoAnswer];
}

/// What is known of a todo whose last publish failed.
#[derive(Debug, Clone, Copy)]
pub struct Suspect {
    /// The change that failed.
    pub place: Place,
    failure: Failure,
    /// When it failed last.
    at: u64,
    /// Failures that no success of another todo has confirmed: all todos may have them.
    unconfirmed: u32,
    /// Whether a refusal is among the unconfirmed failures.
    refused: bool,
    /// How often failures were confirmed, and how often with a refusal among them.
    confirmed: u32,
    refusals: u32,
    /// It has a slot.
    pub active: bool,
}

impl Suspect {
    /// When it may try again.
    fn due(&self) -> u64 {
        self.at + (BACKOFF_MS << (self.confirmed + self.unconfirmed).saturating_sub(1).min(MAX_DOUBLINGS))
    }
}

/// All suspects.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub struct Suspects {
    /// Suspects of each kind that may try again at the same time.
    slots: usize,
    suspects: HashMap<TodoId, Suspect>,
    /// Those without a slot, of each kind, by when they may try again.
    waiting: [BTreeSet<(u64, TodoId)>; 2],
    /// How many of each kind have a slot.
    active: [usize; 2],
    /// Those with unconfirmed failures.
    unconfirmed: HashSet<TodoId>,
}

impl Suspects {
    /// None yet.
    pub fn new(slots: usize) -> Self {
        Self { slots, ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.suspects.len()
    }

    /// Whether this todo is one.
    pub fn contains(&self, todo: TodoId) -> bool {
        self.suspects.contains_key(&todo)
    }

    /// A publish failed; true if the todo was not a suspect before.
    pub fn failed(&mut self, todo: TodoId, place: Place, failure: Failure, now: u64) -> bool {
        let before = self.remove(todo);
        let mut suspect = before.unwrap_or(Suspect {
            place,
            failure,
            at: now,
            unconfirmed: 0,
            refused: false,
            confirmed: 0,
            refusals: 0,
            active: false,
        });
        (suspect.failure, suspect.at, suspect.active) = (failure, now, false);
        suspect.unconfirmed += 1;
        suspect.refused |= failure == Failure::Refused;
        self.suspects.insert(todo, suspect);
        self.waiting[failure as usize].insert((suspect.due(), todo));
        self.unconfirmed.insert(todo);
        before.is_none()
    }

    /// The todo is not a suspect any more; returns what was known of it.
    pub fn remove(&mut self, todo: TodoId) -> Option<Suspect> {
        let suspect = self.suspects.remove(&todo)?;
        self.active[suspect.failure as usize] -= usize::from(suspect.active);
        self.waiting[suspect.failure as usize].remove(&(suspect.due(), todo));
        self.unconfirmed.remove(&todo);
        Some(suspect)
    }

    /// Gives a slot to the next suspect that has waited long enough, if there are both.
    pub fn activate_next(&mut self, now: u64) -> Option<TodoId> {
        Failure::ALL.into_iter().map(|failure| failure as usize).find_map(|kind| {
            let &(due, todo) = self.waiting[kind].first()?;
            if due > now || self.active[kind] >= self.slots {
                return None;
            }
            self.waiting[kind].pop_first();
            self.active[kind] += 1;
            self.suspects.get_mut(&todo)?.active = true;
            Some(todo)
        })
    }

    /// When [`Self::activate_next`] has something to do, if nothing else happens.
    pub fn wake_at(&self) -> Option<u64> {
        let kinds = (0..Failure::ALL.len()).filter(|kind| self.active[*kind] < self.slots);
        kinds.filter_map(|kind| self.waiting[kind].first().map(|(due, _)| *due)).min()
    }

    /// A publish of another todo that began at `since` succeeded: it confirms the failures before that. However long
    /// nobody got through, they count as one for each suspect. Returns the suspects that it confirmed.
    pub fn confirm(&mut self, since: u64) -> Vec<TodoId> {
        let mut confirmed = Vec::new();
        for todo in std::mem::take(&mut self.unconfirmed) {
            let Some(suspect) = self.suspects.get_mut(&todo) else { continue };
            if suspect.at > since {
                self.unconfirmed.insert(todo);
                continue;
            }
            let due = suspect.due();
            suspect.confirmed += 1;
            suspect.refusals += u32::from(suspect.refused);
            (suspect.unconfirmed, suspect.refused) = (0, false);
            let waiting = &mut self.waiting[suspect.failure as usize];
            if waiting.remove(&(due, todo)) {
                waiting.insert((suspect.due(), todo));
            }
            confirmed.push(todo);
        }
        confirmed
    }

    /// Whether a todo's change was refused so often that it is to be parked.
    pub fn is_refused_for_good(&self, todo: TodoId) -> bool {
        self.suspects.get(&todo).is_some_and(|suspect| suspect.refusals >= MAX_REFUSALS)
    }

    /// Panics if the collections disagree.
    #[cfg(test)]
    pub fn assert_consistent(&self) {
        let count = |failure| self.suspects.values().filter(|s| s.active && s.failure == failure).count();
        assert_eq!(self.active, Failure::ALL.map(count));
        let unconfirmed = self.suspects.iter().filter(|(_, suspect)| suspect.unconfirmed > 0);
        assert_eq!(self.unconfirmed, unconfirmed.map(|(todo, _)| *todo).collect());
    }

    /// Those that wait for a slot.
    #[cfg(test)]
    pub fn waiting(&self) -> impl Iterator<Item = TodoId> + '_ {
        self.waiting.iter().flatten().map(|(_, todo)| *todo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODO: TodoId = TodoId(1);
    const PLACE: Place = Place(9);

    #[test]
    fn each_failure_doubles_the_wait_up_to_32_times() {
        let mut suspects = Suspects::new(1);
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 32, 32, 32] {
            suspects.failed(TODO, PLACE, Failure::NoAnswer, now);
            assert_eq!(suspects.activate_next(now + wait * 1000 - 1), None);
            now += wait * 1000;
            assert_eq!((suspects.wake_at(), suspects.activate_next(now)), (Some(now), Some(TODO)));
        }
    }

    #[test]
    fn only_a_success_that_began_after_a_failure_confirms_it_and_each_confirms_it_once() {
        let mut suspects = Suspects::new(1);
        suspects.failed(TODO, PLACE, Failure::Refused, 10);
        assert!(suspects.confirm(9).is_empty());
        for refusals in 1..=MAX_REFUSALS {
            assert!(!suspects.is_refused_for_good(TODO));
            assert_eq!(suspects.confirm(10 * u64::from(refusals)), [TODO]);
            assert!(suspects.confirm(u64::MAX).is_empty());
            if refusals < MAX_REFUSALS {
                suspects.failed(TODO, PLACE, Failure::Refused, 10 * u64::from(refusals + 1));
            }
        }
        assert!(suspects.is_refused_for_good(TODO));
        assert_eq!(suspects.remove(TODO).map(|suspect| suspect.place), Some(PLACE));
        assert_eq!((suspects.len(), suspects.wake_at()), (0, None));
        suspects.assert_consistent();
    }

    #[test]
    fn silence_never_parks_and_each_kind_has_its_own_slots() {
        let mut suspects = Suspects::new(1);
        for now in 0..20 {
            suspects.failed(TODO, PLACE, Failure::NoAnswer, now);
            suspects.confirm(now);
        }
        assert!(!suspects.is_refused_for_good(TODO));
        for (todo, failure) in [(2, Failure::NoAnswer), (3, Failure::Refused), (4, Failure::Refused)] {
            suspects.failed(TodoId(todo), PLACE, failure, 20);
        }
        let later = 1_000_000;
        let active: Vec<_> = std::iter::from_fn(|| suspects.activate_next(later)).collect();
        assert_eq!(active, [TodoId(3), TodoId(2)], "one that was refused, and the silent one that was due first");
        suspects.remove(TodoId(3));
        assert_eq!(suspects.activate_next(later), Some(TodoId(4)));
        suspects.assert_consistent();
    }
}
