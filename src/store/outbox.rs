//! What lies between the writer and the relay: newly committed changes one way, marks the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::change::{Change, Cursor, DeliveryState, Place};
use crate::domain::todo::{TodoId, Version};

/// Changes that wait for the relay to look; beyond that it reads the log.
const INBOX: usize = 10_000;

/// What became of changes, before it is on disk.
pub type Marks = HashMap<Place, DeliveryState>;

/// The meeting point of writer and relay.
pub struct Outbox {
    inbox: Mutex<Inbox>,
    wake: Notify,
    marks: Mutex<Marks>,
    pending: AtomicUsize,
    reload: AtomicBool,
    /// No change below this `seq` is pending but those that wait behind a parked one.
    oldest: AtomicI64,
}

#[derive(Default)]
struct Inbox {
    changes: Vec<Arc<Change>>,
    overflowed: bool,
}

/// What the relay wants to read of the log.
#[derive(Debug)]
pub struct Wanted {
    /// Changes up to this `seq` are in lanes, or their todos were discovered.
    pub known: Cursor,
    /// Changes up to this `seq` are not told of again.
    pub told: Cursor,
    /// Of these todos, what is pending up to `told`.
    pub wants: Vec<Want>,
    /// Changes to read for them, at most.
    pub room: usize,
    /// Todos to discover beyond `known`, at most; 0: none are looked for.
    pub discover: usize,
}

/// What is wanted of one todo.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// The todo.
    pub todo: TodoId,
    /// Only later versions.
    pub above: Version,
    /// Changes at most.
    pub limit: usize,
}

/// What a reading of the log found.
#[derive(Debug, Default)]
pub struct Found {
    /// What was wanted, as far as there was room, in that order.
    pub fed: Vec<Fed>,
    /// What there is beyond what was known, if it was looked for.
    pub discovered: Option<Discovered>,
}

/// The pending changes of a todo that was asked for.
#[derive(Debug)]
pub struct Fed {
    /// The todo.
    pub todo: TodoId,
    /// In version order.
    pub changes: Vec<Arc<Change>>,
    /// Whether there are more of them.
    pub more: bool,
}

/// Todos with pending changes that nobody told of.
#[derive(Debug)]
pub struct Discovered {
    /// The todo, and its first pending version beyond what was known.
    pub todos: Vec<(TodoId, Version)>,
    /// Todos that wait for an operator: all that have a parked change, when nothing was known before; else none.
    pub parked: HashSet<TodoId>,
    /// Changes up to this `seq` are known now.
    pub known: Cursor,
    /// Whether there are more beyond that.
    pub behind: bool,
}

impl Outbox {
    pub(super) fn new(pending: usize) -> Self {
        Self {
            inbox: Mutex::default(),
            wake: Notify::new(),
            marks: Mutex::default(),
            pending: AtomicUsize::new(pending),
            reload: AtomicBool::new(false),
            oldest: AtomicI64::new(0),
        }
    }

    /// Hands newly committed changes to the relay, in commit order.
    pub(super) fn push(&self, changes: &[Arc<Change>]) {
        self.pending.fetch_add(changes.len(), Ordering::Relaxed);
        let mut inbox = self.inbox.lock();
        if inbox.overflowed || inbox.changes.len() + changes.len() > INBOX {
            inbox.overflowed = true;
        } else {
            inbox.changes.extend_from_slice(changes);
        }
        drop(inbox);
        self.wake.notify_one();
    }

    /// Takes what was committed since the last call, and whether anything had to be left to the log. Changes up to
    /// `told` are left out: the relay can be told of a change after it has read it.
    pub fn take(&self, told: Cursor) -> (Vec<Arc<Change>>, bool) {
        let mut inbox = std::mem::take(&mut *self.inbox.lock());
        inbox.changes.retain(|change| !told.covers(change.place));
        (inbox.changes, inbox.overflowed)
    }

    /// Ends when changes were pushed since the last time it ended.
    pub async fn pushed(&self) {
        self.wake.notified().await;
    }

    /// Notes what became of a change; the writer's next commit makes it durable.
    pub fn mark(&self, place: Place, state: DeliveryState) {
        self.marks.lock().insert(place, state);
    }

    /// The marks that are not committed yet.
    pub fn marks(&self) -> Marks {
        self.marks.lock().clone()
    }

    pub(super) fn has_marks(&self) -> bool {
        !self.marks.lock().is_empty()
    }

    /// Forgets marks that are committed now.
    pub(super) fn marks_committed(&self, committed: &Marks) {
        self.marks.lock().retain(|place, state| committed.get(place) != Some(state));
        self.pending.fetch_sub(committed.len(), Ordering::Relaxed);
    }

    /// An operator made `count` changes pending again.
    pub(super) fn pending_again(&self, count: usize) {
        self.pending.fetch_add(count, Ordering::Relaxed);
    }

    /// An operator is done with changes: the relay is to begin anew with what the log has.
    pub(super) fn reload(&self) {
        self.oldest.store(0, Ordering::Relaxed);
        self.reload.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// From which `seq` on the oldest pending change is to be looked for. It only moves up, unless an operator is at work.
    pub(super) fn oldest_from(&self) -> Place {
        Place(self.oldest.load(Ordering::Relaxed))
    }

    /// Notes where it was found; nothing, if an operator was at work since `from` was asked for.
    pub(super) fn oldest_is(&self, from: Place, place: Place) {
        let _ = self.oldest.compare_exchange(from.0, place.0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the relay has to begin anew; true once for each time that it has to.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// How many changes are committed, and neither published nor parked as far as the disk knows.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}
