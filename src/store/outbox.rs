//! What lies between the writer and the relay: newly committed changes one way, marks the other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::change::Change;
use crate::todos::model::TodoId;

/// Changes that wait for the relay to look; beyond that it reads the log.
const INBOX: usize = 10_000;

/// Changes of one todo that the relay holds at once; with more, one busy todo would keep the others out of memory.
pub const LANE: usize = 100;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The sidecar answered 204.
    Published,
    /// Given up until an operator retries or skips it; blocks its todo.
    Parked,
}

/// The meeting point of writer and relay.
pub struct Outbox {
    inbox: Mutex<Inbox>,
    wake: Notify,
    marks: Mutex<BTreeMap<i64, Mark>>,
    pending: AtomicUsize,
    reload: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    changes: Vec<Arc<Change>>,
    overflowed: bool,
}

/// What the relay already has of one todo: skip up to `last`, and take at most `room` more.
#[derive(Debug, Clone, Copy)]
pub struct Skip {
    /// The highest version in memory.
    pub last: i64,
    /// How many more changes fit.
    pub room: usize,
}

/// Unpublished changes read from the log.
#[derive(Debug, Default)]
pub struct Pending {
    /// In commit order.
    pub changes: Vec<Arc<Change>>,
    /// Todos with more unpublished changes than were taken.
    pub truncated: HashSet<TodoId>,
    /// Whether there are unpublished changes of further todos.
    pub more: bool,
    /// Todos that wait for an operator: they have a parked change.
    pub parked: HashSet<TodoId>,
    /// The last `seq` that the log had. The relay can be told of a change after it has read it.
    pub through: i64,
}

impl Outbox {
    pub(super) fn new(pending: usize) -> Self {
        Self {
            inbox: Mutex::default(),
            wake: Notify::new(),
            marks: Mutex::default(),
            pending: AtomicUsize::new(pending),
            reload: AtomicBool::new(false),
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

    /// Takes what was committed since the last call, and whether anything had to be left to the log.
    pub fn take(&self) -> (Vec<Arc<Change>>, bool) {
        let inbox = std::mem::take(&mut *self.inbox.lock());
        (inbox.changes, inbox.overflowed)
    }

    /// Ends when changes were pushed since the last time it ended.
    pub async fn pushed(&self) {
        self.wake.notified().await;
    }

    /// Notes what became of a change; the writer's next commit makes it durable.
    pub fn mark(&self, seq: i64, mark: Mark) {
        self.marks.lock().insert(seq, mark);
    }

    /// The marks that are not committed yet.
    pub fn marks(&self) -> BTreeMap<i64, Mark> {
        self.marks.lock().clone()
    }

    pub(super) fn has_marks(&self) -> bool {
        !self.marks.lock().is_empty()
    }

    /// Forgets marks that are committed now.
    pub(super) fn marks_committed(&self, committed: &BTreeMap<i64, Mark>) {
        self.marks.lock().retain(|seq, mark| committed.get(seq) != Some(mark));
        self.pending.fetch_sub(committed.len(), Ordering::Relaxed);
    }

    /// An operator made `count` changes pending again: the relay is to begin anew with what the log has.
    pub(super) fn changed_by_operator(&self, count: usize) {
        self.pending.fetch_add(count, Ordering::Relaxed);
        self.reload.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether the relay has to begin anew; true once for each time that it has to.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// How many changes are committed, and neither published nor parked as far as the disk knows.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// What `held` allows of this change, and takes its room.
    pub(super) fn admit(held: &mut HashMap<TodoId, Skip>, todo: TodoId, version: i64) -> Admission {
        match held.get_mut(&todo) {
            Some(skip) if version <= skip.last => Admission::Held,
            Some(skip) if skip.room == 0 => Admission::Full,
            Some(skip) => {
                *skip = Skip { last: version, room: skip.room - 1 };
                Admission::Taken
            }
            None => {
                held.insert(todo, Skip { last: version, room: LANE - 1 });
                Admission::Taken
            }
        }
    }
}

/// Whether a change read from the log is taken.
pub(super) enum Admission {
    /// It is in memory already.
    Held,
    /// Its todo has no room.
    Full,
    /// It is new.
    Taken,
}
