//! The relay's decisions as a pure state machine: which change is sent when, what an outcome means, what is parked.
//! It knows no network and no disk; time is milliseconds that the caller passes in.
//!
//! A *lane* is one todo's unpublished changes. A lane has at most one change in flight, so its events are stored in
//! version order; lanes are served round robin. One breaker stands before all lanes: after a failure it lets one
//! probe at a time through, each of another lane, until one succeeds.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::store::Change;
use crate::store::outbox::{LANE, Pending, Skip};
use crate::todos::model::TodoId;

/// Changes in flight at once, over all lanes.
pub const IN_FLIGHT: usize = 64;
/// Changes in memory at once; the rest stays in the log until there is room.
pub const HELD: usize = 10_000;
/// A change is parked after this many definite refusals, each followed by another lane's success.
pub const REFUSALS: u32 = 5;
/// A refused lane waits this long before it tries again, in milliseconds, doubled with every confirmed refusal: so a
/// partition that is without a leader for some seconds uses up nobody's refusals.
const LANE_BACKOFF: u64 = 1000;
/// The breaker's first wait and its longest, in milliseconds.
const BACKOFF: (u64, u64) = (100, 30_000);

/// What an attempt to publish came to, as far as decisions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Result {
    /// Stored.
    Stored,
    /// This change was definitely refused.
    Refused,
    /// Nothing is wrong with the change: the sidecar is away, or there was no answer.
    Failed,
}

/// What is to be recorded about changes (by their `seq`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// This one is published.
    pub published: Option<i64>,
    /// These are given up until an operator decides.
    pub parked: Vec<i64>,
}

/// The state of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    /// All lanes may send.
    Closed,
    /// After `attempts` failures in a row: nothing before `until`, then one probe.
    Open { attempts: u32, until: u64, probe: Option<TodoId> },
}

#[derive(Debug, Clone, Default)]
struct Lane {
    /// Unpublished changes in version order; the first one may be in flight.
    queue: VecDeque<Arc<Change>>,
    /// The highest version that was ever in the queue.
    last: i64,
    in_flight: bool,
    /// Definite refusals of the first change that another lane's success confirmed.
    confirmed: u32,
    /// Refused since the last success of another lane.
    refused: bool,
    /// The log has more of this todo than the queue.
    truncated: bool,
}

/// How much at once: small in tests, which then reach every limit often.
#[derive(Debug, Clone, Copy)]
struct Limits {
    in_flight: usize,
    held: usize,
    /// Changes in one lane.
    lane: usize,
}

/// The state machine.
#[cfg_attr(test, derive(Clone))]
pub struct Lanes {
    limits: Limits,
    lanes: HashMap<TodoId, Lane>,
    /// Lanes that could send now, in round robin order.
    ready: VecDeque<TodoId>,
    /// Lanes that were refused, and when they may try again.
    waiting: BTreeSet<(u64, TodoId)>,
    /// Lanes with `refused` set.
    refused: HashSet<TodoId>,
    /// Todos whose next change waits for an operator. Their changes stay in the log.
    parked: HashSet<TodoId>,
    /// Those of them that were parked since the log began to be read: what is being read does not know.
    parked_while_reading: HashSet<TodoId>,
    held: usize,
    in_flight: usize,
    /// Empty lanes with more in the log.
    starved: usize,
    /// The log has unpublished changes of todos without a lane.
    behind: bool,
    reading: bool,
    /// The last `seq` that the last reading saw. Whatever is told of the log up to there is told late: it is in a lane,
    /// or the reading left it in the log, or it is published already.
    read_through: i64,
    breaker: Breaker,
    random: SmallRng,
}

impl Lanes {
    /// Empty, and behind: everything unpublished is still in the log.
    pub fn new(seed: u64) -> Self {
        Self::with_limits(seed, Limits { in_flight: IN_FLIGHT, held: HELD, lane: LANE })
    }

    fn with_limits(seed: u64, limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            refused: HashSet::new(),
            parked: HashSet::new(),
            parked_while_reading: HashSet::new(),
            held: 0,
            in_flight: 0,
            starved: 0,
            behind: true,
            reading: false,
            read_through: 0,
            breaker: Breaker::Closed,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Changes in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Changes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Todos whose next change is parked.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Whether the breaker is closed: the last thing known of the sidecar is good.
    pub fn healthy(&self) -> bool {
        self.breaker == Breaker::Closed
    }

    /// Takes newly committed changes, in commit order; `overflowed`: others were left to the log.
    /// Not to be called between [`Self::start_reading`] and [`Self::finish_reading`].
    pub fn committed(&mut self, changes: Vec<Arc<Change>>, overflowed: bool) {
        debug_assert!(!self.reading);
        for change in changes {
            if change.seq <= self.read_through {
                continue;
            }
            self.offer(change, false);
        }
        self.behind |= overflowed;
    }

    /// Whether the log should be read: how many changes to read at most, and what to skip.
    pub fn start_reading(&mut self) -> Option<(usize, HashMap<TodoId, Skip>)> {
        let wanted =
            (self.behind && self.held <= self.limits.held / 2) || (self.starved > 0 && self.held < self.limits.held);
        if self.reading || !wanted {
            return None;
        }
        self.reading = true;
        let skip = |(&todo, lane): (&TodoId, &Lane)| {
            (todo, Skip { last: lane.last, room: self.limits.lane - lane.queue.len() })
        };
        Some((self.limits.held - self.held, self.lanes.iter().map(skip).collect()))
    }

    /// Takes what was read from the log; `None`: reading failed, it is tried again.
    pub fn finish_reading(&mut self, pending: Option<Pending>) {
        self.reading = false;
        let Some(pending) = pending else {
            self.parked_while_reading.clear();
            return;
        };
        self.behind = pending.more;
        self.read_through = pending.through;
        self.parked = pending.parked;
        self.parked.extend(self.parked_while_reading.drain());
        for lane in self.lanes.values_mut() {
            // Whatever the log had more of is told by `pending` now.
            lane.truncated = false;
        }
        self.starved = 0;
        for change in pending.changes {
            self.offer(change, true);
        }
        for todo in pending.truncated {
            if let Some(lane) = self.lanes.get_mut(&todo) {
                lane.truncated = true;
            }
        }
        self.starved = self.lanes.values().filter(|lane| lane.truncated && lane.queue.is_empty()).count();
        let idle: Vec<TodoId> =
            self.lanes.iter().filter(|(_, lane)| lane.queue.is_empty()).map(|(id, _)| *id).collect();
        for todo in idle {
            self.drop_if_done(todo);
        }
    }

    /// Puts a change into its lane if it is the next one; otherwise it stays in the log, and that is noted.
    fn offer(&mut self, change: Arc<Change>, from_log: bool) {
        let (todo, version) = (change.todo.id, change.todo.version);
        if self.parked.contains(&todo) {
            return;
        }
        if !self.lanes.contains_key(&todo) {
            // Behind, the log may hold earlier changes of this todo: only the log may open its lane.
            if self.held >= self.limits.held || (self.behind && !from_log) {
                self.behind = true;
                return;
            }
            self.lanes.insert(todo, Lane { last: version - 1, ..Lane::default() });
        }
        let full = self.held >= self.limits.held;
        let Some(lane) = self.lanes.get_mut(&todo) else { return };
        if version <= lane.last {
            return;
        }
        // The log tells everything unpublished in order: versions that it leaves out were published or given up. What
        // comes from the writer may come after changes that are only in the log.
        let gap = !from_log && version != lane.last + 1;
        if full || lane.queue.len() >= self.limits.lane || lane.truncated || gap {
            if !lane.truncated && lane.queue.is_empty() {
                self.starved += 1;
            }
            lane.truncated = true;
            return;
        }
        lane.last = version;
        lane.queue.push_back(change);
        self.held += 1;
        if lane.queue.len() == 1 {
            self.ready.push_back(todo);
        }
    }

    /// The next change to send now, if there is one. Call it until it returns `None`.
    pub fn start(&mut self, now: u64) -> Option<Arc<Change>> {
        while let Some(&(at, todo)) = self.waiting.first().filter(|(at, _)| *at <= now) {
            self.waiting.remove(&(at, todo));
            self.ready.push_back(todo);
        }
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        if let Breaker::Open { until, probe, .. } = self.breaker
            && (probe.is_some() || now < until)
        {
            return None;
        }
        let todo = self.ready.pop_front()?;
        if let Breaker::Open { probe, .. } = &mut self.breaker {
            *probe = Some(todo);
        }
        let lane = self.lanes.get_mut(&todo)?;
        lane.in_flight = true;
        self.in_flight += 1;
        lane.queue.front().cloned()
    }

    /// Notes what the change that [`Self::start`] gave out for `todo` came to.
    pub fn finish(&mut self, todo: TodoId, result: Result, now: u64) -> Verdict {
        let mut verdict = Verdict::default();
        let Some(lane) = self.lanes.get_mut(&todo).filter(|lane| lane.in_flight) else { return verdict };
        lane.in_flight = false;
        self.in_flight -= 1;
        match result {
            Result::Stored => {
                verdict.published = lane.queue.pop_front().map(|change| change.seq);
                self.held -= 1;
                lane.confirmed = 0;
                lane.refused = false;
                if lane.queue.is_empty() {
                    self.starved += usize::from(lane.truncated);
                } else {
                    self.ready.push_back(todo);
                }
                self.refused.remove(&todo);
                self.breaker = Breaker::Closed;
                self.drop_if_done(todo);
                verdict.parked = self.confirm_refusals();
            }
            Result::Refused => {
                lane.refused = true;
                let again = now + (LANE_BACKOFF << lane.confirmed.min(REFUSALS));
                self.refused.insert(todo);
                if lane.confirmed >= REFUSALS {
                    verdict.parked.extend(self.park(todo));
                } else {
                    self.waiting.insert((again, todo));
                }
                self.trip(todo, now);
            }
            Result::Failed => {
                self.ready.push_back(todo);
                self.trip(todo, now);
            }
        }
        verdict
    }

    /// A lane succeeded: what others were refused meanwhile was about their changes, not about the sidecar.
    fn confirm_refusals(&mut self) -> Vec<i64> {
        let mut parked = Vec::new();
        for todo in std::mem::take(&mut self.refused) {
            let Some(lane) = self.lanes.get_mut(&todo) else { continue };
            lane.refused = false;
            lane.confirmed += 1;
            // In flight: its outcome decides.
            if lane.confirmed >= REFUSALS && !lane.in_flight {
                parked.extend(self.park(todo));
            }
        }
        parked
    }

    /// Takes a todo's lane out of memory; its first change is parked, the others stay in the log behind it.
    fn park(&mut self, todo: TodoId) -> Option<i64> {
        let lane = self.lanes.remove(&todo)?;
        self.parked.insert(todo);
        if self.reading {
            self.parked_while_reading.insert(todo);
        }
        self.refused.remove(&todo);
        self.waiting.retain(|&(_, waiting)| waiting != todo);
        self.ready.retain(|&ready| ready != todo);
        self.held -= lane.queue.len();
        lane.queue.front().map(|change| change.seq)
    }

    fn drop_if_done(&mut self, todo: TodoId) {
        // While the log is read, an empty lane tells what the reading must not bring back.
        if !self.reading && self.lanes.get(&todo).is_some_and(|lane| lane.queue.is_empty() && !lane.truncated) {
            self.lanes.remove(&todo);
        }
    }

    /// A failure: opens the breaker, or keeps it open longer if it was the probe that failed.
    fn trip(&mut self, todo: TodoId, now: u64) {
        let attempts = match self.breaker {
            Breaker::Closed => 1,
            Breaker::Open { attempts, probe: Some(probe), .. } if probe == todo => attempts + 1,
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

    /// When [`Self::start`] may return something again without anything else happening.
    pub fn wake_at(&self) -> Option<u64> {
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        let lane = if self.ready.is_empty() { self.waiting.first().map(|(at, _)| *at) } else { Some(0) };
        match self.breaker {
            Breaker::Closed => lane,
            Breaker::Open { probe: Some(_), .. } => None,
            Breaker::Open { until, .. } => lane.map(|at| at.max(until)),
        }
    }
}

#[cfg(test)]
mod tests;
