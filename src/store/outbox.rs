//! What the writer and the relay exchange: newly committed changes one way, delivery states the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::change::{Change, Cursor, DeliveryState, Place};
use crate::domain::todo::{TodoId, Version};
use crate::store::leases::Parts;

/// Changes that wait for the relay, at most; it reads the others from the log.
const MAX_INBOX: usize = 10_000;

/// Changes that one discovery of pending todos looks at, at most: some milliseconds' work.
pub(super) const MAX_DISCOVERY: usize = 10_000;

/// Delivery states that are not stored yet.
pub type Marks = HashMap<Place, DeliveryState>;

/// The exchange between writer and relay.
pub struct Outbox {
    inbox: Mutex<Inbox>,
    wake: Notify,
    marks: Mutex<Marks>,
    pending: Mutex<Pending>,
    reload: AtomicBool,
    /// No change before this place is pending, except behind a parked one.
    oldest: AtomicI64,
}

/// How many changes wait, as far as this process knows: what it does itself is added up, and what others do, the database is asked
/// for now and then.
#[derive(Default)]
struct Pending {
    count: usize,
    /// How often this process has begun to store something, or heard of changes.
    moves: u64,
    /// It is storing something: whether the database counts that already, nobody knows.
    is_storing: bool,
    /// Answers of the database that were of no use, one after the other.
    ignored: u32,
}

/// When the database was asked how many changes wait.
#[derive(Clone, Copy)]
pub(super) struct Asked(u64);

/// Under load there is always something that the database may have counted or not: then its answer is better than none.
const MAX_IGNORED: u32 = 3;

#[derive(Default)]
struct Inbox {
    changes: Vec<Arc<Change>>,
    overflowed: bool,
}

/// What the relay wants to read from the log.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Up to here, changes are in lanes, or their todos were discovered.
    pub read_through: Cursor,
    /// Up to here, changes are not announced again.
    pub announced_through: Cursor,
    /// The todos whose changes to read: those that are pending up to `announced_through`.
    pub wants: Vec<Want>,
    /// Changes to read for all of `wants`, at most.
    pub room: usize,
    /// Todos to discover past `read_through`, at most; 0: don't look for any.
    pub discover: usize,
    /// Only todos of these parts are discovered.
    pub parts: Parts,
}

/// The changes of one todo that are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// The todo.
    pub todo: TodoId,
    /// Only versions after this one.
    pub above: Version,
    /// At most so many changes.
    pub limit: usize,
}

/// The result of a reading.
#[derive(Debug, Default)]
pub struct Found {
    /// What was wanted, in that order, as far as there was room.
    pub fed: Vec<Fed>,
    /// What was discovered past `read_through`, if it was asked for.
    pub discovered: Option<Discovered>,
}

/// Pending changes of a todo that was asked for.
#[derive(Debug)]
pub struct Fed {
    /// The todo.
    pub todo: TodoId,
    /// In version order.
    pub changes: Vec<Arc<Change>>,
    /// Whether the log has more of them.
    pub more: bool,
    /// The next one is parked, by another process; then there are no `changes`.
    pub parked: bool,
}

/// Todos with pending changes that were not announced.
#[derive(Debug)]
pub struct Discovered {
    /// The todos, each with its first pending version past what was read.
    pub todos: Vec<(TodoId, Version)>,
    /// Todos with a parked change; all of them at the first reading, and later if other processes can park as well.
    pub parked: HashSet<TodoId>,
    /// The log was read up to here.
    pub read_through: Cursor,
    /// Whether there may be more past that.
    pub more: bool,
}

/// A discovery under way: whatever database the pending changes are read from, in their order.
pub(super) struct Discovery<'a> {
    discovered: Discovered,
    wanted: &'a Wanted,
    marked: &'a Marks,
    seen: HashSet<TodoId>,
    looked_at: usize,
    is_full: bool,
}

impl<'a> Discovery<'a> {
    /// Past what was read. `parked`: todos with a parked change.
    pub fn new(wanted: &'a Wanted, marked: &'a Marks, parked: HashSet<TodoId>) -> Self {
        let discovered = Discovered { todos: Vec::new(), parked, read_through: wanted.read_through, more: true };
        Self { discovered, wanted, marked, seen: HashSet::new(), looked_at: 0, is_full: false }
    }

    /// Looks at the next pending change; false if there is no room for its todo, which ends it.
    pub fn look_at(&mut self, place: Place, todo: TodoId, version: Version) -> bool {
        if !self.marked.contains_key(&place) && !self.discovered.parked.contains(&todo) && !self.seen.contains(&todo) {
            if self.seen.len() == self.wanted.discover {
                self.is_full = true;
                return false;
            }
            self.seen.insert(todo);
            self.discovered.todos.push((todo, version));
        }
        self.discovered.read_through = Cursor::up_to(place);
        self.looked_at += 1;
        true
    }

    /// What it has come to. `end`: of the log, as of the same moment.
    pub fn finish(self, end: Cursor) -> Discovered {
        if self.is_full || self.looked_at == MAX_DISCOVERY {
            return self.discovered;
        }
        Discovered { read_through: end, more: false, ..self.discovered }
    }
}

impl Outbox {
    pub(super) fn new(pending: usize) -> Self {
        Self {
            inbox: Mutex::default(),
            wake: Notify::new(),
            marks: Mutex::default(),
            pending: Mutex::new(Pending { count: pending, ..Pending::default() }),
            reload: AtomicBool::new(false),
            oldest: AtomicI64::new(0),
        }
    }

    /// Hands newly committed changes to the relay, in commit order.
    pub(super) fn push(&self, changes: &[Arc<Change>]) {
        self.pending_again(changes.len());
        let mut inbox = self.inbox.lock();
        if inbox.overflowed || inbox.changes.len() + changes.len() > MAX_INBOX {
            inbox.overflowed = true;
        } else {
            inbox.changes.extend_from_slice(changes);
        }
        drop(inbox);
        self.wake.notify_one();
    }

    /// Takes what was committed since the last call, and whether anything was left to the log. Leaves out changes up to
    /// `announced_through`, because the relay may have read a change before it is announced, and those of other parts.
    pub fn take(&self, announced_through: Cursor, parts: Parts) -> (Vec<Arc<Change>>, bool) {
        let mut inbox = std::mem::take(&mut *self.inbox.lock());
        inbox.changes.retain(|change| !announced_through.covers(change.place) && parts.have(change.todo.id));
        (inbox.changes, inbox.overflowed)
    }

    /// Completes once changes were pushed since it last completed.
    pub async fn pushed(&self) {
        self.wake.notified().await;
    }

    /// Records what became of a change's event; the writer's next commit makes it durable.
    pub fn mark(&self, place: Place, state: DeliveryState) {
        self.marks.lock().insert(place, state);
    }

    /// Marks that are not committed yet.
    pub fn marks(&self) -> Marks {
        self.marks.lock().clone()
    }

    pub(super) fn has_marks(&self) -> bool {
        !self.marks.lock().is_empty()
    }

    /// Forgets marks that have been committed.
    pub(super) fn marks_committed(&self, committed: &Marks) {
        self.marks.lock().retain(|place, state| committed.get(place) != Some(state));
        let mut pending = self.pending.lock();
        pending.count = pending.count.saturating_sub(committed.len());
        pending.moves += 1;
    }

    /// Before the database is asked how many changes wait.
    pub(super) fn ask_for_pending(&self) -> Asked {
        Asked(self.pending.lock().moves)
    }

    /// So many changes wait in the database, or did when it was asked.
    pub(super) fn set_pending(&self, count: usize, asked: Asked) {
        let mut pending = self.pending.lock();
        if (pending.is_storing || pending.moves != asked.0) && pending.ignored < MAX_IGNORED {
            pending.ignored += 1;
        } else {
            (pending.count, pending.ignored) = (count, 0);
        }
    }

    /// What comes is stored, or was.
    pub(super) fn storing(&self, is_storing: bool) {
        let mut pending = self.pending.lock();
        pending.is_storing = is_storing;
        pending.moves += 1;
    }

    /// `count` changes wait that are new, or that an operator made wait again.
    pub(super) fn pending_again(&self, count: usize) {
        let mut pending = self.pending.lock();
        pending.count += count;
        pending.moves += 1;
    }

    /// Delivery states were changed by an operator, or for a deleted account, or are not what the relay takes them for: it must
    /// start over with what is in the log.
    pub(super) fn reload(&self) {
        self.oldest.store(0, Ordering::Relaxed);
        self.reload.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Where the search for the oldest pending change starts. Moves only forwards, except after an operator's command.
    pub(super) fn oldest_from(&self) -> Place {
        Place(self.oldest.load(Ordering::Relaxed))
    }

    /// Records where it was found, unless an operator's command has ended since `from` was asked for.
    pub(super) fn set_oldest(&self, from: Place, place: Place) {
        let _ = self.oldest.compare_exchange(from.0, place.0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the relay must start over; reports each request to do so once.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// The number of committed changes that are pending according to the database.
    pub fn pending(&self) -> usize {
        self.pending.lock().count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_what_waits_is_not_taken_for_true_once_it_may_be_old() {
        let outbox = Outbox::new(2);
        let asked = outbox.ask_for_pending();
        outbox.set_pending(3, asked);
        assert_eq!(outbox.pending(), 3, "another process has made one");
        // It is asked, then one more is stored, then it answers.
        outbox.storing(true);
        outbox.pending_again(1);
        outbox.storing(false);
        outbox.set_pending(3, asked);
        assert_eq!(outbox.pending(), 4);
        // One is being stored: the database has it, and it is not announced yet.
        outbox.storing(true);
        outbox.set_pending(5, outbox.ask_for_pending());
        outbox.pending_again(1);
        outbox.storing(false);
        assert_eq!(outbox.pending(), 5);
        // Who is never at rest believes it in the end.
        outbox.set_pending(9, asked);
        assert_eq!(outbox.pending(), 5);
        outbox.set_pending(9, asked);
        assert_eq!(outbox.pending(), 9);
    }
}
