//! The relay's decisions as a pure state machine: which change is sent when, what its outcome means, and what is
//! parked. It uses no network and no disk; time is milliseconds that the caller passes in.
//!
//! A *lane* is one todo's unpublished changes. As long as others get through, a refusal or a publish that hangs is
//! taken to be about its lane, which becomes a suspect and waits by itself (`suspects`). One circuit `breaker`
//! serves all lanes: it opens when the sidecar is away, or when very many lanes failed and none got through.

mod breaker;
mod suspects;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::domain::change::{Change, Cursor, Place};
use crate::domain::todo::{TodoId, Version};
use crate::store::leases::Parts;
use crate::store::outbox::{Fed, Found, Want, Wanted};
use breaker::{Admission, Breaker};
use suspects::{Failure, Suspects};

/// Changes in flight at the same time, over all lanes, not counting those that hang.
pub const MAX_IN_FLIGHT: usize = 64;
/// Failures of different lanes, without a success in between, that open the breaker: so many that it stays closed while
/// any get through, even if only one in twenty does.
const MAX_FAILURES: usize = 256;
/// Hanging publishes that continue beside the others, at most.
const MAX_HANGING: usize = 512;
/// A publish hangs after this many milliseconds, if one that began later got through; but not before it has taken this
/// many times as long as usual: a sidecar that is slow for everybody must not be given more work.
const HANGS_AFTER_MS: u64 = 1000;
/// See [`HANGS_AFTER_MS`].
const HANGS_AFTER_TIMES_USUAL: u64 = 10;
/// Suspects that are retried at the same time, for each kind of failure.
const MAX_ACTIVE_SUSPECTS: usize = 8;
/// While new changes and a backlog both wait, one in this many publishes is from the backlog.
const BACKLOG_TURN: u32 = 8;
/// Changes in memory, and lanes that are not suspects, at most; the rest stays in the log until there is room.
pub const MAX_BUFFERED: usize = 10_000;
/// Changes of one todo in memory, at most: a busy todo must not keep the others out of memory.
const MAX_LANE_LEN: usize = 100;
/// Changes in one read of the log, at most: what is committed meanwhile waits until it has ended.
const MAX_READING: usize = 1000;
/// A change is parked after this many definite refusals, each confirmed by another lane's success.
pub const MAX_REFUSALS: u32 = 5;

/// The outcome of an attempt to publish, as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishResult {
    /// Kafka has it.
    Stored,
    /// Refused: because of this change, if others get through.
    Refused,
    /// No answer in time: because of this lane, if others get one.
    NoAnswer,
    /// Not because of the change: the sidecar is not reachable, or its set-up does not admit us.
    Unavailable,
}

/// What to record about changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// This one is published.
    pub published: Option<Place>,
    /// These are given up until an operator decides.
    pub parked: Vec<Place>,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    /// Unpublished changes in version order; the first one may be in flight.
    queue: VecDeque<Arc<Change>>,
    /// Everything up to this version was in the queue, or need not be.
    last: Version,
    /// The log has more of this todo than the queue.
    more_in_log: bool,
    /// It was found in the log, not announced when it was committed.
    discovered: bool,
    /// When the first change was sent, while it is in flight.
    since: Option<u64>,
}

/// The limits above; tests use smaller ones, to reach all of them often.
#[derive(Debug, Clone, Copy)]
struct Limits {
    in_flight: usize,
    failures: usize,
    hanging: usize,
    suspects: usize,
    buffered: usize,
    /// Changes in one lane.
    lane: usize,
    reading: usize,
}

impl Limits {
    const REAL: Self = Self {
        in_flight: MAX_IN_FLIGHT,
        failures: MAX_FAILURES,
        hanging: MAX_HANGING,
        suspects: MAX_ACTIVE_SUSPECTS,
        buffered: MAX_BUFFERED,
        lane: MAX_LANE_LEN,
        reading: MAX_READING,
    };
}

/// The state machine.
///
/// # Invariants
///
/// - **Order.** A lane has at most one change in flight, the first of its queue; the next one follows only when that is
///   stored. The queue's versions are contiguous and end with `last`. (Tests: `World::publish`, `World::land`.)
/// - **One place.** Each lane is in exactly one of: `ready` or `backlog` (it can send), `retrying` (a suspect that
///   can), `hungry` (it has nothing in memory, and the log has more), `reading` (the log is being read for it), in
///   flight, or waiting in `suspects`. `settle` puts a lane that has left its place into the next one.
///   (`World::assert_consistent`)
/// - **Nothing forgotten.** A pending change that was announced is in its lane's queue; or it is newer than its lane's
///   `last` and `more_in_log` is set; or its todo is in `parked`; or it lies past `read_through` and `behind` is set.
///   So what `offer` has no room for is read later. (`World::assert_nothing_to_do`, `World::assert_done`)
/// - **Read once.** `read_through` only moves forwards, and never past a change whose todo was neither offered nor
///   discovered. (`the_backlog_of_a_busy_todo_is_read_once_and_others_do_not_wait_for_it`)
/// - **Bounded memory.** Queues hold at most [`MAX_BUFFERED`] changes, `MAX_LANE_LEN` of a lane. A lane is only added
///   while fewer than [`MAX_BUFFERED`] are not suspects; suspects that get through can make them a few more. A suspect
///   keeps nothing in memory until it is its turn. `suspects` and `parked` have no limit. (`World::turn`)
/// - **Suspects.** A todo is in `suspects` from a failure until its own next success, until its change is parked, or
///   until its lane ends. A parked todo has no lane. (`World::assert_consistent`)
/// - **Places have no order here.** They are compared only for equality; positions in the log are [`Cursor`]s.
///
/// The tests are in `tests/world`, which plays thousands of worlds; after every step, or after one in 32 where that
/// costs too much.
#[cfg_attr(test, derive(Clone))]
pub struct Dispatcher {
    limits: Limits,
    lanes: HashMap<TodoId, Lane>,
    /// Lanes that could send now, in round robin order.
    ready: VecDeque<TodoId>,
    /// The same, of those that were discovered in the log: what is new does not wait behind a backlog, which may be all
    /// of one partition that hangs.
    backlog: VecDeque<TodoId>,
    /// Counts publishes, modulo [`BACKLOG_TURN`]; at 0 it is the backlog's turn.
    turn: u32,
    /// Active suspects that could send now.
    retrying: VecDeque<TodoId>,
    /// Lanes with nothing in memory and more in the log; active suspects first.
    hungry: VecDeque<TodoId>,
    /// While the log is read, the lanes that it is read for.
    reading: Option<Vec<TodoId>>,
    suspects: Suspects,
    /// Todos whose next change waits for an operator. Their changes stay in the log.
    parked: HashSet<TodoId>,
    /// Changes in memory.
    buffered: usize,
    in_flight: usize,
    /// What is in flight and does not hang, by when it began.
    prompt: BTreeSet<(u64, TodoId)>,
    /// When the youngest publish that got through began.
    got_through: u64,
    /// How long a publish that gets through usually takes, in milliseconds.
    usual: u64,
    /// Lanes that ended while the log is being read, and their last versions: the read may have seen less.
    ended: HashMap<TodoId, Version>,
    /// Everything up to here was offered to the lanes; the log is read on from here.
    read_through: Cursor,
    /// Nothing up to here is announced again.
    announced_through: Cursor,
    /// The log has changes past `read_through` that are not announced any more.
    behind: bool,
    /// The parts whose todos it is for.
    parts: Parts,
    breaker: Breaker,
}

impl Dispatcher {
    /// Empty, and behind: everything unpublished is still in the log. It is for the todos of `parts`.
    pub fn new(seed: u64, parts: Parts) -> Self {
        Self::with_limits(seed, parts, Limits::REAL)
    }

    fn with_limits(seed: u64, parts: Parts, limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            backlog: VecDeque::new(),
            turn: 0,
            retrying: VecDeque::new(),
            hungry: VecDeque::new(),
            reading: None,
            suspects: Suspects::new(limits.suspects),
            parked: HashSet::new(),
            buffered: 0,
            in_flight: 0,
            prompt: BTreeSet::new(),
            got_through: 0,
            usual: 0,
            ended: HashMap::new(),
            read_through: Cursor::START,
            announced_through: Cursor::START,
            behind: true,
            parts,
            breaker: Breaker::new(seed),
        }
    }

    /// Changes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Todos whose last attempt failed.
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// Whether the breaker is closed: as far as we know, the sidecar works.
    pub fn healthy(&self) -> bool {
        self.breaker.is_closed()
    }

    /// The parts whose todos it is for.
    pub fn parts(&self) -> Parts {
        self.parts
    }

    /// What [`Self::committed`] takes comes after this.
    pub fn announced_through(&self) -> Cursor {
        self.announced_through
    }

    /// Takes newly committed changes, in commit order and without gaps; `overflowed`: others were left to the log. Must
    /// not be called between [`Self::start_reading`] and [`Self::finish_reading`].
    pub fn committed(&mut self, changes: Vec<Arc<Change>>, overflowed: bool) {
        debug_assert!(self.reading.is_none());
        for change in changes {
            self.announced_through = Cursor::up_to(change.place);
            if self.behind {
                // The log may have earlier changes of this todo that were not read yet.
                if self.is_next(&change) {
                    self.offer(change);
                }
            } else if self.offer(change) {
                self.read_through = self.announced_through;
            } else {
                self.behind = true;
            }
        }
        self.behind |= overflowed;
    }

    /// Whether no unread change of its todo can come before this one.
    fn is_next(&self, change: &Change) -> bool {
        match self.lanes.get(&change.todo.id) {
            Some(lane) => lane.last.next() == change.todo.version,
            None => change.todo.version == Version::FIRST,
        }
    }

    /// Adds a change to its todo's lane; false if there is no room for another lane.
    fn offer(&mut self, change: Arc<Change>) -> bool {
        let (todo, version) = (change.todo.id, change.todo.version);
        if self.parked.contains(&todo) {
            return true;
        }
        let (full, crowded) = (self.buffered >= self.limits.buffered, self.room_for_lanes() == 0);
        match self.lanes.get_mut(&todo) {
            Some(lane) => {
                lane.more_in_log |= full || lane.queue.len() >= self.limits.lane;
                if !lane.more_in_log {
                    // Those between them, if any, were published by another process.
                    debug_assert!(version > lane.last);
                    lane.last = version;
                    lane.queue.push_back(change);
                    self.buffered += 1;
                }
            }
            None if crowded => return false,
            None if full => {
                self.lanes.insert(todo, Lane { last: version.previous(), more_in_log: true, ..Lane::default() });
                self.hungry.push_back(todo);
            }
            None => {
                let lane = Lane { last: version, queue: VecDeque::from([change]), ..Lane::default() };
                self.lanes.insert(todo, lane);
                self.buffered += 1;
                self.settle(todo);
            }
        }
        true
    }

    fn room_for_lanes(&self) -> usize {
        self.limits.buffered.saturating_sub(self.lanes.len() - self.suspects.len())
    }

    /// What to read from the log now. Only one read goes on at a time.
    pub fn start_reading(&mut self) -> Option<Wanted> {
        debug_assert!(self.reading.is_none());
        let free = self.limits.buffered.saturating_sub(self.buffered);
        let room = free.min(self.limits.reading);
        // Every lane gets a share: what is read together, and marked later, lies close together in the log.
        let share = (free / self.hungry.len().max(1)).clamp(1, self.limits.lane);
        // Not for every lane that ends: discovery goes on where it stopped, and looks at many changes.
        let enough = self.room_for_lanes() * 2 < self.limits.buffered;
        let discover = if self.behind && !enough { self.room_for_lanes() } else { 0 };
        // Nor for every change that ends while memory is full; but a suspect needs room for one change only.
        let is_suspect = |todo| self.suspects.contains(todo);
        let feed = room > 0 && self.hungry.front().is_some_and(|&todo| room == self.limits.reading || is_suspect(todo));
        if !feed && discover == 0 {
            return None;
        }
        let feeding: Vec<TodoId> = self.hungry.drain(..self.hungry.len().min(room)).collect();
        let want = |&todo: &TodoId| {
            let lane = self.lanes.get(&todo)?;
            let limit = if is_suspect(todo) { 1 } else { share };
            Some(Want { todo, above: lane.last, limit })
        };
        let wants = feeding.iter().filter_map(want).collect();
        self.reading = Some(feeding);
        Some(Wanted {
            read_through: self.read_through,
            announced_through: self.announced_through,
            wants,
            room,
            discover,
            parts: self.parts,
        })
    }

    /// Takes what was read from the log; `None`: the read failed, and is repeated.
    pub fn finish_reading(&mut self, found: Option<Found>) {
        let reading = self.reading.take().unwrap_or_default();
        let ended = std::mem::take(&mut self.ended);
        let found = found.unwrap_or_default();
        let mut unread: HashSet<TodoId> = reading.iter().copied().collect();
        for Fed { todo, changes, more, parked } in found.fed {
            unread.remove(&todo);
            if parked && self.lanes.remove(&todo).is_some() {
                self.suspects.remove(todo);
                self.parked.insert(todo);
                continue;
            }
            let Some(lane) = self.lanes.get_mut(&todo) else { continue };
            self.buffered += changes.len();
            lane.last = changes.last().map_or(lane.last, |change| change.todo.version);
            lane.queue.extend(changes);
            lane.more_in_log = more;
            self.settle(todo);
        }
        for &todo in reading.iter().rev().filter(|todo| unread.contains(todo) && self.lanes.contains_key(todo)) {
            self.hungry.push_front(todo);
        }
        let Some(discovered) = found.discovered else { return };
        for todo in discovered.parked {
            match self.lanes.get_mut(&todo) {
                // Another process has parked one that this lane may not have: it is read how far it goes.
                Some(lane) => lane.more_in_log = true,
                None => drop(self.parked.insert(todo)),
            }
        }
        for (todo, version) in discovered.todos {
            match self.lanes.get_mut(&todo) {
                _ if self.parked.contains(&todo) => {}
                Some(lane) => lane.more_in_log = true,
                None => {
                    let last = ended.get(&todo).map_or(version.previous(), |&last| last.max(version.previous()));
                    self.lanes.insert(todo, Lane { last, more_in_log: true, discovered: true, ..Lane::default() });
                    self.hungry.push_back(todo);
                }
            }
        }
        (self.read_through, self.behind) = (discovered.read_through, discovered.more);
        self.announced_through = self.announced_through.join(self.read_through);
    }

    /// Puts a lane that has left its place into the one where it belongs now.
    fn settle(&mut self, todo: TodoId) {
        let Some(lane) = self.lanes.get(&todo) else { return };
        if !lane.queue.is_empty() {
            let queue = match (self.suspects.contains(todo), lane.discovered) {
                (true, _) => &mut self.retrying,
                (false, true) => &mut self.backlog,
                (false, false) => &mut self.ready,
            };
            queue.push_back(todo);
        } else if lane.more_in_log {
            self.hungry.push_back(todo);
        } else {
            if self.reading.is_some() {
                self.ended.insert(todo, lane.last);
            }
            self.suspects.remove(todo);
            self.lanes.remove(&todo);
        }
    }

    /// The next change to send. To be called until it returns `None`.
    pub fn start(&mut self, now: u64) -> Option<Arc<Change>> {
        self.activate_suspects(now);
        self.release_hanging_slots(now);
        if self.prompt.len() >= self.limits.in_flight || self.nothing_is_ready() {
            return None;
        }
        self.breaker.give_up_hanging_probe(now);
        let todo = match self.breaker.admits(now) {
            Admission::All => self.retrying.pop_front().or_else(|| self.next_ready())?,
            Admission::Nothing => return None,
            Admission::Probe => {
                let todo = self.next_ready().or_else(|| self.retrying.pop_front())?;
                self.breaker.probe(todo, now);
                todo
            }
        };
        let lane = self.lanes.get_mut(&todo)?;
        lane.since = Some(now);
        self.prompt.insert((now, todo));
        self.in_flight += 1;
        lane.queue.front().cloned()
    }

    fn nothing_is_ready(&self) -> bool {
        self.ready.is_empty() && self.backlog.is_empty() && self.retrying.is_empty()
    }

    fn next_ready(&mut self) -> Option<TodoId> {
        self.turn = (self.turn + 1) % BACKLOG_TURN;
        let (first, second) = match self.turn {
            0 => (&mut self.backlog, &mut self.ready),
            _ => (&mut self.ready, &mut self.backlog),
        };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// Has the changes of suspects that have waited long enough read, as far as there are slots.
    fn activate_suspects(&mut self, now: u64) {
        while let Some(todo) = self.suspects.activate_next(now) {
            self.hungry.push_front(todo);
        }
    }

    /// A publish that hangs while later ones get through gives up its slot among [`MAX_IN_FLIGHT`].
    fn release_hanging_slots(&mut self, now: u64) {
        while self.next_to_hang().is_some_and(|at| at <= now) {
            self.prompt.pop_first();
        }
    }

    /// When the oldest publish counts as hanging, if nothing else happens.
    fn next_to_hang(&self) -> Option<u64> {
        let hanging = self.in_flight - self.prompt.len();
        let &(since, _) = self.prompt.first()?;
        let hangs_at = since + HANGS_AFTER_MS.max(HANGS_AFTER_TIMES_USUAL * self.usual);
        (since < self.got_through && hanging < self.limits.hanging).then_some(hangs_at)
    }

    /// Takes the outcome of the change of `todo` that [`Self::start`] returned.
    pub fn finish(&mut self, todo: TodoId, result: PublishResult, now: u64) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(lane) = self.lanes.get_mut(&todo) else { return verdict };
        let Some(since) = lane.since.take() else { return verdict };
        self.in_flight -= 1;
        self.prompt.remove(&(since, todo));
        match result {
            PublishResult::Stored => {
                verdict.published = lane.queue.pop_front().map(|change| change.place);
                self.buffered -= 1;
                self.got_through = self.got_through.max(since);
                self.usual = (7 * self.usual + (now - since)) / 8;
                self.breaker.succeeded();
                self.suspects.remove(todo);
                self.settle(todo);
                for todo in self.suspects.confirm(since) {
                    verdict.parked.extend(self.park_if_refused_for_good(todo));
                }
            }
            PublishResult::Refused => {
                let first = self.suspect(todo, Failure::Refused, now);
                verdict.parked.extend(self.park_if_refused_for_good(todo));
                self.breaker.failed(todo, first, self.limits.failures, now);
            }
            PublishResult::NoAnswer => {
                let first = self.suspect(todo, Failure::NoAnswer, now);
                self.breaker.failed(todo, first, self.limits.failures, now);
            }
            PublishResult::Unavailable => {
                self.settle(todo);
                self.breaker.failed(todo, true, 1, now);
            }
        }
        verdict
    }

    /// Makes a lane whose attempt failed a suspect, with nothing in memory; false if it was one before.
    fn suspect(&mut self, todo: TodoId, failure: Failure, now: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(&todo) else { return false };
        let Some(change) = lane.queue.front() else { return false };
        let (place, version) = (change.place, change.todo.version);
        self.buffered -= lane.queue.len();
        *lane = Lane { last: version.previous(), more_in_log: true, ..Lane::default() };
        self.suspects.failed(todo, place, failure, now)
    }

    /// Parks a suspect's change if it was refused for good; the todo's later changes stay in the log behind it. Not
    /// while it is in flight: then the outcome decides.
    fn park_if_refused_for_good(&mut self, todo: TodoId) -> Option<Place> {
        let in_flight = self.lanes.get(&todo).is_some_and(|lane| lane.since.is_some());
        if in_flight || !self.suspects.is_refused_for_good(todo) {
            return None;
        }
        let suspect = self.suspects.remove(todo)?;
        if suspect.active {
            self.retrying.retain(|&other| other != todo);
            self.hungry.retain(|&other| other != todo);
        }
        self.buffered -= self.lanes.remove(&todo)?.queue.len();
        self.parked.insert(todo);
        Some(suspect.place)
    }

    /// The sidecar reports that it is ready: the next probe need not wait.
    pub fn sidecar_ready(&mut self, now: u64) {
        self.breaker.sidecar_ready(now);
    }

    /// When [`Self::start`] has something to do again, if nothing else happens.
    pub fn wake_at(&self) -> Option<u64> {
        self.suspects.wake_at().into_iter().chain(self.sends_at()).min()
    }

    /// When the next change can be sent.
    fn sends_at(&self) -> Option<u64> {
        if self.nothing_is_ready() {
            return None;
        }
        let slot = if self.prompt.len() < self.limits.in_flight { 0 } else { self.next_to_hang()? };
        Some(slot.max(self.breaker.admits_at()))
    }
}
