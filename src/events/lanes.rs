//! The relay's decisions as a pure state machine: which change is sent when, what an outcome means, what is parked.
//! It knows no network and no disk; time is milliseconds that the caller passes in.
//!
//! A *lane* is one todo's unpublished changes. A lane has at most one change in flight, so its events are stored in
//! version order; lanes are served round robin. Each lane is in exactly one place: `ready` to send, in flight, `hungry`
//! for what the log has of it, or, after a failure, a *suspect* that waits by itself, ever longer, and keeps nothing in
//! memory. A suspect that may try again takes one of few slots, and is read from the log again.
//!
//! What is refused or hangs is taken to be about that lane as long as others get through. The breaker, which stands
//! before all lanes, opens when the sidecar is away, or when very many lanes failed and none got through. Then one probe
//! at a time is let through, of a lane that is no suspect if there is one.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::domain::change::{Change, Cursor, Place};
use crate::domain::todo::{TodoId, Version};
use crate::store::outbox::{Fed, Found, Want, Wanted};

/// Changes in flight at once, over all lanes, without those that hang.
pub const IN_FLIGHT: usize = 64;
/// So many failures of different lanes, and no success between them, open the breaker: so many that it doesn't happen while
/// some get through, even if that is one of twenty.
const FAILURES: usize = 256;
/// Publishes that hang and go on beside the others, at most.
const HANGING: usize = 512;
/// After this a publish hangs, if another one that began later got through, in milliseconds; but not before this many times
/// what a publish usually takes: a sidecar that is slow for everybody must not get more to do.
const HANGS_AFTER: u64 = 1000;
const HANGS_AFTER_USUAL: u64 = 10;
/// Suspects that try again at once, of those that were refused and of those that hung.
const SUSPECTS: usize = 8;
/// One of so many publishes is of the backlog, while there is both.
const BACKLOG_TURN: u32 = 8;
/// Changes in memory at once, and lanes that are no suspects; the rest stays in the log until there is room.
pub const BUFFERED: usize = 10_000;
/// Changes of one todo in memory at once; with more, one busy todo would keep the others out of memory.
const LANE: usize = 100;
/// Changes in one reading of the log, at most: what is committed meanwhile waits for its end.
const READING: usize = 1000;
/// A change is parked after this many definite refusals, each followed by another lane's success.
pub const MAX_REFUSALS: u32 = 5;
/// A suspect waits this long before it tries again, in milliseconds, doubled with every failure up to 32 times: so a
/// partition that is without a leader for some seconds uses up nobody's refusals.
const LANE_BACKOFF: u64 = 1000;
/// The breaker's first wait and its longest, in milliseconds.
const BACKOFF: (u64, u64) = (100, 30_000);

/// What an attempt to publish came to, as far as decisions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishResult {
    /// Stored.
    Stored,
    /// Definitely refused. About this change, if others are taken.
    Refused,
    /// No answer. About this lane, if others get one.
    Silent,
    /// Nothing is wrong with the change: the sidecar is away, or does not let us in.
    Away,
}

/// What is to be recorded about changes (by their places).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// This one is published.
    pub published: Option<Place>,
    /// These are given up until an operator decides.
    pub parked: Vec<Place>,
}

/// The state of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    /// All lanes may send. So many lanes became suspects since the last success.
    Closed { failed: usize },
    /// After `attempts` failures in a row: nothing before `until`, then one probe, of that todo since then.
    Open { attempts: u32, until: u64, probe: Option<(TodoId, u64)> },
}

#[derive(Debug, Clone, Default)]
struct Lane {
    /// Unpublished changes in version order; the first one may be in flight.
    queue: VecDeque<Arc<Change>>,
    /// Everything up to this version was in the queue, or need not be.
    last: Version,
    /// The log has more of this todo than the queue.
    more: bool,
    /// It was found in the log, not told of when it was committed.
    discovered: bool,
    /// Since when the first change is in flight.
    since: Option<u64>,
    suspect: Option<Suspect>,
}

/// Why a lane's last attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Refused,
    Silent,
}

/// What is known of a lane whose last attempt failed. A success confirms a failure if it began after it.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    /// The change that failed.
    place: Place,
    failure: Failure,
    at: u64,
    /// Failures since the last success of another lane: they may be everybody's.
    unconfirmed: u32,
    /// Whether a refusal is among them.
    refused: bool,
    /// How often another lane's success followed: then they are this lane's, and so are the refusals among them.
    confirmed: u32,
    refusals: u32,
    /// It has one of the slots for suspects.
    active: bool,
}

impl Suspect {
    /// When it may try again.
    fn due(&self) -> u64 {
        self.at + (LANE_BACKOFF << (self.confirmed + self.unconfirmed).saturating_sub(1).min(5))
    }
}

/// How much at once: small in tests, which then reach every limit often.
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
        in_flight: IN_FLIGHT,
        failures: FAILURES,
        hanging: HANGING,
        suspects: SUSPECTS,
        buffered: BUFFERED,
        lane: LANE,
        reading: READING,
    };
}

/// The state machine.
#[cfg_attr(test, derive(Clone))]
pub struct Lanes {
    limits: Limits,
    lanes: HashMap<TodoId, Lane>,
    /// Lanes that could send now, in round robin order.
    ready: VecDeque<TodoId>,
    /// The same, of those that were discovered in the log: what is new does not wait behind a backlog, which may be all
    /// of one partition that hangs.
    backlog: VecDeque<TodoId>,
    /// Counts what was sent; at 0 it is the backlog's turn.
    turn: u32,
    /// The same, of suspects.
    retrying: VecDeque<TodoId>,
    /// Lanes with nothing in memory and more in the log; the active suspects first.
    hungry: VecDeque<TodoId>,
    /// Lanes that are read for, while the log is read.
    reading: Option<Vec<TodoId>>,
    /// Suspects that wait, by when they may try again; see [`Failure`].
    waiting: [BTreeSet<(u64, TodoId)>; 2],
    /// How many suspects are active; see [`Failure`].
    active: [usize; 2],
    /// Suspects with failures that no success of another lane followed yet.
    unconfirmed: HashSet<TodoId>,
    suspects: usize,
    /// Todos whose next change waits for an operator. Their changes stay in the log.
    parked: HashSet<TodoId>,
    /// Changes in memory.
    buffered: usize,
    in_flight: usize,
    /// What is in flight and does not hang, by when it began.
    prompt: BTreeSet<(u64, TodoId)>,
    /// When the youngest publish that got through began, and what such a publish usually takes.
    got_through: u64,
    usual: u64,
    /// Todos that were done with while the log is read, and their last version: what is being read does not know.
    done: HashMap<TodoId, Version>,
    /// Everything up to here was offered to the lanes; the log is read on from here.
    known: Cursor,
    /// Nothing up to here is told of again.
    told: Cursor,
    /// The log has changes beyond `known` that nobody will tell of again.
    behind: bool,
    breaker: Breaker,
    random: SmallRng,
}

impl Lanes {
    /// Empty, and behind: everything unpublished is still in the log.
    pub fn new(seed: u64) -> Self {
        Self::with_limits(seed, Limits::REAL)
    }

    fn with_limits(seed: u64, limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            backlog: VecDeque::new(),
            turn: 0,
            retrying: VecDeque::new(),
            hungry: VecDeque::new(),
            reading: None,
            waiting: Default::default(),
            active: [0; 2],
            unconfirmed: HashSet::new(),
            suspects: 0,
            parked: HashSet::new(),
            buffered: 0,
            in_flight: 0,
            prompt: BTreeSet::new(),
            got_through: 0,
            usual: 0,
            done: HashMap::new(),
            known: Cursor::START,
            told: Cursor::START,
            behind: true,
            breaker: Breaker::Closed { failed: 0 },
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Changes in memory.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Changes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Todos whose next change is parked.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Todos whose last attempt failed.
    pub fn suspects(&self) -> usize {
        self.suspects
    }

    /// Whether the breaker is closed: the last thing known of the sidecar is good.
    pub fn healthy(&self) -> bool {
        matches!(self.breaker, Breaker::Closed { .. })
    }

    /// What [`Self::committed`] takes comes after this.
    pub fn told(&self) -> Cursor {
        self.told
    }

    /// Takes newly committed changes, in commit order, without gaps; `overflowed`: others were left to the log.
    /// Not to be called between [`Self::start_reading`] and [`Self::finish_reading`].
    pub fn committed(&mut self, changes: Vec<Arc<Change>>, overflowed: bool) {
        debug_assert!(self.reading.is_none());
        for change in changes {
            self.told = Cursor::up_to(change.place);
            if self.behind {
                // The log may have earlier changes of its todo that nobody knows of yet.
                if self.is_next(&change) {
                    self.offer(change);
                }
            } else if self.offer(change) {
                self.known = self.told;
            } else {
                self.behind = true;
            }
        }
        self.behind |= overflowed;
    }

    /// Whether nothing of its todo can be between what is known and this change.
    fn is_next(&self, change: &Change) -> bool {
        match self.lanes.get(&change.todo.id) {
            Some(lane) => lane.last.next() == change.todo.version && !lane.more,
            None => change.todo.version == Version::FIRST,
        }
    }

    /// Puts a change behind what is known of its todo; false if there is no room for another lane.
    fn offer(&mut self, change: Arc<Change>) -> bool {
        let (todo, version) = (change.todo.id, change.todo.version);
        if self.parked.contains(&todo) {
            return true;
        }
        let (full, crowded) = (self.buffered >= self.limits.buffered, self.room_for_lanes() == 0);
        match self.lanes.get_mut(&todo) {
            Some(lane) => {
                lane.more |= full || lane.queue.len() >= self.limits.lane;
                if !lane.more {
                    debug_assert_eq!(version, lane.last.next());
                    lane.last = version;
                    lane.queue.push_back(change);
                    self.buffered += 1;
                }
            }
            None if crowded => return false,
            None if full => {
                self.lanes.insert(todo, Lane { last: version.previous(), more: true, ..Lane::default() });
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
        self.limits.buffered.saturating_sub(self.lanes.len() - self.suspects)
    }

    /// What should be read from the log now. Only one reading goes on at a time.
    pub fn start_reading(&mut self) -> Option<Wanted> {
        debug_assert!(self.reading.is_none());
        let free = self.limits.buffered.saturating_sub(self.buffered);
        let room = free.min(self.limits.reading);
        // All get something, so that what is read, and marked later, lies close together in the log.
        let share = (free / self.hungry.len().max(1)).clamp(1, self.limits.lane);
        // Not for every lane that ends: looking for others starts where the last look ended, and goes far.
        let enough = self.room_for_lanes() * 2 < self.limits.buffered;
        let discover = if self.behind && !enough { self.room_for_lanes() } else { 0 };
        // Nor for every change that ends, with memory full; but a suspect needs no more room than for one.
        let is_suspect = |todo| self.lanes.get(todo).is_some_and(|lane| lane.suspect.is_some());
        let feed = room > 0 && self.hungry.front().is_some_and(|todo| room == self.limits.reading || is_suspect(todo));
        if !feed && discover == 0 {
            return None;
        }
        let feeding: Vec<TodoId> = self.hungry.drain(..self.hungry.len().min(room)).collect();
        let want = |&todo: &TodoId| {
            let lane = self.lanes.get(&todo)?;
            let limit = if lane.suspect.is_some() { 1 } else { share };
            Some(Want { todo, above: lane.last, limit })
        };
        let wants = feeding.iter().filter_map(want).collect();
        self.reading = Some(feeding);
        Some(Wanted { known: self.known, told: self.told, wants, room, discover })
    }

    /// Takes what was read from the log; `None`: reading failed, it is tried again.
    pub fn finish_reading(&mut self, found: Option<Found>) {
        let reading = self.reading.take().unwrap_or_default();
        let done = std::mem::take(&mut self.done);
        let found = found.unwrap_or_default();
        let mut unread: HashSet<TodoId> = reading.iter().copied().collect();
        for Fed { todo, changes, more } in found.fed {
            unread.remove(&todo);
            let Some(lane) = self.lanes.get_mut(&todo) else { continue };
            self.buffered += changes.len();
            lane.last = changes.last().map_or(lane.last, |change| change.todo.version);
            lane.queue.extend(changes);
            lane.more = more;
            self.settle(todo);
        }
        for &todo in reading.iter().rev().filter(|todo| unread.contains(todo) && self.lanes.contains_key(todo)) {
            self.hungry.push_front(todo);
        }
        let Some(discovered) = found.discovered else { return };
        self.parked.extend(discovered.parked);
        for (todo, version) in discovered.todos {
            match self.lanes.get_mut(&todo) {
                _ if self.parked.contains(&todo) => {}
                Some(lane) => lane.more = true,
                None => {
                    let last = done.get(&todo).map_or(version.previous(), |&last| last.max(version.previous()));
                    self.lanes.insert(todo, Lane { last, more: true, discovered: true, ..Lane::default() });
                    self.hungry.push_back(todo);
                }
            }
        }
        (self.known, self.behind) = (discovered.known, discovered.behind);
        self.told = self.told.join(self.known);
    }

    /// Puts a lane that is nowhere where it belongs now.
    fn settle(&mut self, todo: TodoId) {
        let Some(lane) = self.lanes.get(&todo) else { return };
        if !lane.queue.is_empty() {
            let queue = match (lane.suspect.is_some(), lane.discovered) {
                (true, _) => &mut self.retrying,
                (false, true) => &mut self.backlog,
                (false, false) => &mut self.ready,
            };
            queue.push_back(todo);
        } else if lane.more {
            self.hungry.push_back(todo);
        } else {
            if self.reading.is_some() {
                self.done.insert(todo, lane.last);
            }
            self.acquit(todo);
            self.lanes.remove(&todo);
        }
    }

    /// The next change to send now, if there is one. Call it until it returns `None`.
    pub fn start(&mut self, now: u64) -> Option<Arc<Change>> {
        self.activate_suspects(now);
        self.look_past_hanging(now);
        if self.prompt.len() >= self.limits.in_flight || self.nothing_is_ready() {
            return None;
        }
        if let Breaker::Open { probe: Some((todo, since)), .. } = self.breaker
            && since + HANGS_AFTER <= now
        {
            // Another one may get through.
            self.trip(todo, true, 1, now);
        }
        let todo = match self.breaker {
            Breaker::Closed { .. } => self.retrying.pop_front().or_else(|| self.next_ready())?,
            Breaker::Open { until, probe, .. } if probe.is_some() || now < until => return None,
            Breaker::Open { attempts, until, .. } => {
                let todo = self.next_ready().or_else(|| self.retrying.pop_front())?;
                self.breaker = Breaker::Open { attempts, until, probe: Some((todo, now)) };
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

    /// Lets suspects that have waited long enough try again, as far as there are slots.
    fn activate_suspects(&mut self, now: u64) {
        for failure in [Failure::Refused, Failure::Silent] {
            let waiting = &mut self.waiting[failure as usize];
            while self.active[failure as usize] < self.limits.suspects
                && let Some((_, todo)) = waiting.first().copied().filter(|(due, _)| *due <= now)
            {
                waiting.pop_first();
                if let Some(suspect) = self.lanes.get_mut(&todo).and_then(|lane| lane.suspect.as_mut()) {
                    suspect.active = true;
                    self.active[failure as usize] += 1;
                    self.hungry.push_front(todo);
                }
            }
        }
    }

    /// A publish that hangs, while later ones get through, does not keep another one waiting.
    fn look_past_hanging(&mut self, now: u64) {
        while self.next_to_hang().is_some_and(|at| at <= now) {
            self.prompt.pop_first();
        }
    }

    /// When the oldest publish is one that hangs, if nothing else happens.
    fn next_to_hang(&self) -> Option<u64> {
        let hanging = self.in_flight - self.prompt.len();
        let &(since, _) = self.prompt.first()?;
        let hangs_at = since + HANGS_AFTER.max(HANGS_AFTER_USUAL * self.usual);
        (since < self.got_through && hanging < self.limits.hanging).then_some(hangs_at)
    }

    /// Notes what the change that [`Self::start`] gave out for `todo` came to.
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
                self.breaker = Breaker::Closed { failed: 0 };
                self.acquit(todo);
                self.settle(todo);
                verdict.parked = self.confirm(since);
            }
            PublishResult::Refused => {
                let first = self.suspect(todo, Failure::Refused, now);
                if self.is_refused_for_good(todo) {
                    verdict.parked.extend(self.park(todo));
                }
                self.trip(todo, first, self.limits.failures, now);
            }
            PublishResult::Silent => {
                let first = self.suspect(todo, Failure::Silent, now);
                self.trip(todo, first, self.limits.failures, now);
            }
            PublishResult::Away => {
                self.settle(todo);
                self.trip(todo, true, 1, now);
            }
        }
        verdict
    }

    /// A lane whose attempt failed waits, with nothing in memory; true if it was no suspect before.
    fn suspect(&mut self, todo: TodoId, failure: Failure, now: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(&todo) else { return false };
        let Some(change) = lane.queue.front() else { return false };
        let (place, version) = (change.place, change.todo.version);
        let before = lane.suspect.take();
        if let Some(before) = before {
            self.active[before.failure as usize] -= usize::from(before.active);
        }
        let none = Suspect {
            place,
            failure,
            at: now,
            unconfirmed: 0,
            refused: false,
            confirmed: 0,
            refusals: 0,
            active: false,
        };
        let earlier = before.unwrap_or(none);
        let suspect = Suspect {
            failure,
            at: now,
            unconfirmed: earlier.unconfirmed + 1,
            refused: earlier.refused || failure == Failure::Refused,
            active: false,
            ..earlier
        };
        self.buffered -= lane.queue.len();
        *lane = Lane { last: version.previous(), more: true, suspect: Some(suspect), ..Lane::default() };
        self.suspects += usize::from(before.is_none());
        self.waiting[failure as usize].insert((suspect.due(), todo));
        self.unconfirmed.insert(todo);
        before.is_none()
    }

    /// A lane is no suspect any more.
    fn acquit(&mut self, todo: TodoId) {
        let Some(suspect) = self.lanes.get_mut(&todo).and_then(|lane| lane.suspect.take()) else { return };
        self.suspects -= 1;
        self.active[suspect.failure as usize] -= usize::from(suspect.active);
        self.waiting[suspect.failure as usize].remove(&(suspect.due(), todo));
        self.unconfirmed.remove(&todo);
    }

    /// A publish that began at `since` got through: what others failed with before was about them, not about the sidecar.
    /// Each of them counts as one failure, however long nobody got through.
    fn confirm(&mut self, since: u64) -> Vec<Place> {
        let mut parked = Vec::new();
        for todo in std::mem::take(&mut self.unconfirmed) {
            let Some(lane) = self.lanes.get_mut(&todo) else { continue };
            let Some(suspect) = &mut lane.suspect else { continue };
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
            // In flight: its outcome decides.
            if lane.since.is_none() && self.is_refused_for_good(todo) {
                parked.extend(self.park(todo));
            }
        }
        parked
    }

    fn is_refused_for_good(&self, todo: TodoId) -> bool {
        let suspect = self.lanes.get(&todo).and_then(|lane| lane.suspect.as_ref());
        suspect.is_some_and(|suspect| suspect.refusals >= MAX_REFUSALS)
    }

    /// Takes a suspect's lane out of memory; its first change is parked, the others stay in the log behind it.
    fn park(&mut self, todo: TodoId) -> Option<Place> {
        let suspect = *self.lanes.get(&todo)?.suspect.as_ref()?;
        self.acquit(todo);
        if suspect.active {
            self.retrying.retain(|&other| other != todo);
            self.hungry.retain(|&other| other != todo);
        }
        self.buffered -= self.lanes.remove(&todo)?.queue.len();
        self.parked.insert(todo);
        Some(suspect.place)
    }

    /// A failure: opens the breaker after `limit` that count, or keeps it open if it was the probe that failed.
    fn trip(&mut self, todo: TodoId, counts: bool, limit: usize, now: u64) {
        let attempts = match &mut self.breaker {
            Breaker::Closed { failed } => {
                *failed += usize::from(counts);
                if *failed < limit {
                    return;
                }
                1
            }
            Breaker::Open { attempts, probe: Some((probe, _)), .. } if *probe == todo => *attempts + u32::from(counts),
            // Sent before the breaker opened: nothing new.
            Breaker::Open { .. } => return,
        };
        let longest = (BACKOFF.0 << attempts.min(16)).min(BACKOFF.1);
        // Full jitter, but never at once (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
        let until = now + self.random.random_range(BACKOFF.0..=longest);
        self.breaker = Breaker::Open { attempts, until, probe: None };
    }

    /// The sidecar was seen to be ready: the next probe needs not wait.
    pub fn sidecar_ready(&mut self, now: u64) {
        if let Breaker::Open { until, .. } = &mut self.breaker {
            *until = (*until).min(now);
        }
    }

    /// When [`Self::start`] has something to do again without anything else happening.
    pub fn wake_at(&self) -> Option<u64> {
        let suspects = [Failure::Refused, Failure::Silent].into_iter().filter_map(|failure| {
            let slot = self.active[failure as usize] < self.limits.suspects;
            self.waiting[failure as usize].first().filter(|_| slot).map(|(due, _)| *due)
        });
        suspects.chain(self.sends_at()).min()
    }

    /// When the next change can be sent.
    fn sends_at(&self) -> Option<u64> {
        if self.nothing_is_ready() {
            return None;
        }
        let slot = if self.prompt.len() < self.limits.in_flight { 0 } else { self.next_to_hang()? };
        match self.breaker {
            Breaker::Closed { .. } => Some(slot),
            Breaker::Open { until, probe, .. } => {
                Some(slot.max(until).max(probe.map_or(0, |(_, since)| since + HANGS_AFTER)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
