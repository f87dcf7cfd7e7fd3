//! A simulated world: a plan, a log, a sidecar and its weather, a process that runs the dispatcher, and time.

mod checks;
mod process;
mod relay;
mod several;
mod surroundings;

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

pub use process::Process;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use crate::domain::account::UserId;
use crate::domain::change::{DeliveryState, Epoch, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::Todo;
use crate::domain::todo::input::NewTodo;
use crate::domain::trace::TraceParent;
use crate::store::leases::Parts;

/// Worlds in a normal run.
pub const SEEDS: u64 = 4_000;
/// Worlds with several processes in a normal run.
pub const SHARED_SEEDS: u64 = 10_000;
/// Every so many worlds, one has the service's own limits and more changes than fit.
const BIG_EVERY: u64 = 400;
/// How long a publish may take, as the client has it.
const TIMEOUT: u64 = 15_000;
/// The longest a frozen broker was seen to sit on a publish before it stored it.
const LATE: u64 = 181_000;
/// How long a log that could not be read is left alone.
const READ_AGAIN: u64 = 1_000;
/// How often marks are committed when nothing else is.
const MARKS: u64 = 1_000;
/// Once nothing fails any more, a todo of its own gets a change this often: a success that confirms refusals.
const PULSE: u64 = 1_000;

/// Says which world it was.
pub struct NameOnPanic(pub &'static str, pub u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this world again: RELAY_SEED={} cargo test --lib {}", self.1, self.0);
        }
    }
}

/// What happened, to see that the worlds are as nasty as they are meant to be.
#[derive(Debug, Default)]
pub struct Totals {
    pub changes: u64,
    pub attempts: u64,
    pub duplicates: u64,
    pub timeouts: u64,
    pub restarts: u64,
    pub readings: u64,
    pub failed_readings: u64,
    pub overflows: u64,
    pub parked: u64,
    pub parked_good: u64,
    pub parked_while_reading: u64,
    pub full: u64,
    pub full_lanes: u64,
    pub crowded: u64,
    pub hanging: u64,
    pub outages: u64,
    pub partial_outages: u64,
    /// Changes that readings gave, and that they looked at to discover todos.
    pub read: u64,
    pub looked_at: u64,
    /// Only where several processes share the work.
    pub moves: u64,
    pub thefts: u64,
    pub pauses: u64,
    pub retried: u64,
    pub parked_in_vain: u64,
    pub together: u64,
    pub found_parked: u64,
}

impl Totals {
    pub fn counts(&mut self) -> [&mut u64; 26] {
        let Self { changes, attempts, duplicates, timeouts, restarts, readings, failed_readings, .. } = self;
        let Self { overflows, parked, parked_good, parked_while_reading, full, full_lanes, crowded, .. } = self;
        let Self { hanging, outages, partial_outages, read, looked_at, .. } = self;
        let Self { moves, thefts, pauses, retried, parked_in_vain, together, found_parked, .. } = self;
        [
            changes,
            attempts,
            duplicates,
            timeouts,
            restarts,
            readings,
            failed_readings,
            overflows,
            parked,
            parked_good,
            parked_while_reading,
            full,
            full_lanes,
            crowded,
            hanging,
            outages,
            partial_outages,
            read,
            looked_at,
            moves,
            thefts,
            pauses,
            retried,
            parked_in_vain,
            together,
            found_parked,
        ]
    }

    pub fn add(&mut self, mut other: Self) {
        for (sum, more) in self.counts().into_iter().zip(other.counts()) {
            *sum += *more;
        }
    }

    pub fn assert_that_everything_happened(mut self, shared: bool) {
        if shared {
            // Only counted where one process is alone.
            (self.parked_good, self.parked_while_reading) = (1, 1);
        }
        let alone = 19;
        let counts = self.counts().into_iter().take(if shared { usize::MAX } else { alone });
        assert!(counts.into_iter().all(|count| *count > 0), "something never happened");
    }
}

/// What a world is like.
pub struct Plan {
    pub limits: Limits,
    /// Changes that the inbox takes before it overflows.
    pub inbox: usize,
    /// How many todos there are; 0: each change is of a new one.
    pub todos: i64,
    /// How many changes of todos there are before the relay first starts, and after.
    pub before: usize,
    pub after: usize,
    /// Changes in one commit, at most, and the longest pause between commits.
    pub group: usize,
    pub pause: u64,
    /// How often a commit is about todo 1.
    pub hot: f64,
    /// How often an attempt is refused, fails at once, or gets no answer.
    pub refused: f64,
    pub failed: f64,
    pub silent: f64,
    /// How long an answer takes, at most.
    pub latency: u64,
    pub outages: usize,
    pub restarts: usize,
    pub reading: u64,
    pub reading_fails: f64,
    pub marks_fail: f64,
    /// How long a commit can be in the log before it is announced to the relay.
    pub announced_late: u64,
    /// How long it takes until other processes hear of a commit, at most.
    pub tail: u64,
    /// How often leases are renewed, at most; how often they are lost without notice; how often they are believed to be;
    /// how often a process stands still, and how often an operator retries what is parked.
    pub renew: u64,
    pub thefts: usize,
    pub lapses: usize,
    pub pauses: usize,
    pub retries: usize,
    /// How often each process gets a todo of its own through.
    pub pulse: u64,
}

impl Plan {
    /// One process, which nothing but the worlds' own faults happens to.
    pub const ALONE: Self = Self {
        limits: Limits::REAL,
        inbox: MAX_BUFFERED,
        todos: 0,
        before: 0,
        after: 0,
        group: 1,
        pause: 20,
        hot: 0.0,
        refused: 0.0,
        failed: 0.0,
        silent: 0.0,
        latency: 1,
        outages: 0,
        restarts: 0,
        reading: 0,
        reading_fails: 0.0,
        marks_fail: 0.0,
        announced_late: 0,
        tail: 0,
        renew: 0,
        thefts: 0,
        lapses: 0,
        pauses: 0,
        retries: 0,
        pulse: PULSE,
    };

    pub fn new(random: &mut SmallRng, big: bool) -> Self {
        let mut often = |chance: f64, most: f64| match random.random_bool(chance) {
            true => random.random_range(0.0..most),
            false => 0.0,
        };
        let (refused, failed, silent) = (often(0.3, 0.5), often(0.4, 0.3), often(0.3, 0.15));
        let (reading_fails, marks_fail, hot) = (often(0.3, 0.7), often(0.3, 0.9), often(0.5, 1.0));
        let lane = random.random_range(1..=6);
        let buffered = lane * random.random_range(2..=6);
        let limits = match big {
            true => Limits::REAL,
            false => Limits {
                in_flight: random.random_range(1..=8),
                failures: random.random_range(1..=8),
                hanging: random.random_range(0..=8),
                suspects: random.random_range(1..=3),
                buffered,
                lane,
                reading: random.random_range(1..=buffered),
            },
        };
        let changes =
            if big { MAX_BUFFERED + random.random_range(0..MAX_BUFFERED / 2) } else { random.random_range(1..60) };
        let before = if random.random_bool(0.5) { random.random_range(0..=changes) } else { 0 };
        Self {
            limits,
            inbox: if big { MAX_BUFFERED } else { random.random_range(2..40) },
            todos: if big { random.random_range(100..5000) } else { random.random_range(1..15) },
            before,
            after: changes - before,
            group: if big { 512 } else { random.random_range(1..10) },
            pause: *choose(random, &[1, 20, 500, 5_000]),
            hot,
            refused,
            failed,
            silent,
            latency: *choose(random, &[1, 20, 100, 3_000]),
            outages: random.random_range(0..=3),
            restarts: if random.random_bool(0.5) { random.random_range(0..=3) } else { 0 },
            reading: *choose(random, &[0, 5, 50, 1_000]),
            reading_fails,
            marks_fail,
            announced_late: *choose(random, &[0, 0, 1, 300]),
            ..Self::ALONE
        }
    }
}

fn choose<'a, T>(random: &mut SmallRng, all: &'a [T]) -> &'a T {
    &all[random.random_range(0..all.len())]
}

/// What the log has of a change, and what is known of it besides.
pub struct Entry {
    pub change: Arc<Change>,
    pub committed: u64,
    pub state: Option<DeliveryState>,
    /// No sidecar ever takes it.
    pub poison: bool,
    /// How often it may be repeated, if no lease is stolen; and how often it was.
    pub excused: u32,
    pub repeats: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    Fine,
    /// All are refused.
    Refusing,
    /// Nobody listens.
    Unavailable,
    /// Nobody answers.
    NoAnswer,
    /// Every so many todos are refused, or get no answer; negative: all but those.
    Partly(Failure, i64),
}

#[derive(Debug)]
pub enum Event {
    /// Commit a group; afterwards, plan the next one.
    Commit,
    /// What was committed up to this place is announced to the relay.
    Announced(i64),
    /// Leases are renewed, or are believed to have ended, or are somebody else's from now on.
    Renew,
    Lapse,
    Steal,
    /// The process stands still for so long.
    Pause(u64),
    /// An operator retries what is parked; and a process hears of it.
    Retry,
    Reload,
    /// Marks are committed.
    Marks,
    /// An attempt ends for the client.
    Answer(i64, PublishResult),
    /// An attempt reaches Kafka.
    Land(i64),
    /// The log is seen as it is now.
    Snapshot,
    ReadingEnds,
    Weather(Weather),
    SidecarReady,
    /// The process dies; `false`: only the relay's task does.
    Restart(bool),
    /// From now on, nothing fails.
    Quiet,
    Pulse,
}

pub struct Reading {
    pub wanted: Wanted,
    pub marked: BTreeMap<i64, DeliveryState>,
    pub found: Option<Found>,
}

/// A publish that the process waits for.
pub struct Flight {
    pub place: i64,
    pub since: u64,
    pub answer: (u64, u64),
    pub land: Option<(u64, u64)>,
}

pub struct World {
    pub random: SmallRng,
    pub plan: Plan,
    pub now: u64,
    /// With the process that each is about.
    pub events: BTreeMap<(u64, u64), (usize, Event)>,
    pub planned: u64,
    pub weather: Weather,
    pub quiet: Option<u64>,
    pub template: Arc<Change>,
    /// The log: the change at place n has the index n - 1.
    pub log: Vec<Entry>,
    /// Everything before this is settled.
    pub settled: usize,
    /// By todo: the places of its changes, by version; how far Kafka has them.
    pub todos: BTreeMap<TodoId, Vec<i64>>,
    pub stored: BTreeMap<TodoId, i64>,
    /// Todos that get an event that nobody takes, and the version that it is.
    pub poisoned: BTreeMap<TodoId, i64>,
    pub to_commit: usize,
    /// The process whose turn it is, and the others.
    pub me: Process,
    pub others: Vec<Process>,
    /// Who holds which part's lease, as the database has it.
    pub leases: Vec<Option<usize>>,
    /// The only todos that partial outages are about, if not all.
    pub bad: Option<RangeInclusive<i64>>,
    /// One reading looks at the whole log for todos.
    pub looks_far: bool,
    /// The longest time from a commit to the answer that it is stored, of todos that no partial outage is about.
    pub longest_wait: u64,
    /// The same, but not of todo 1.
    pub longest_of_fresh: u64,
    pub totals: Totals,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let plan = Plan::new(&mut random, seed % BIG_EVERY == BIG_EVERY - 1);
        let poisoned = if random.random_bool(0.5) { random.random_range(0..=6) } else { 0 };
        let todos = plan.todos;
        let poisoned =
            (0..poisoned).map(|_| (TodoId(random.random_range(1..=todos)), random.random_range(1..6))).collect();
        let mut world = Self::planned(plan, poisoned, random);
        world.plan_events();
        world
    }

    pub fn planned(plan: Plan, poisoned: BTreeMap<TodoId, i64>, mut random: SmallRng) -> Self {
        let me = Process::new(0, Parts::ALL, Dispatcher::with_limits(random.random(), Parts::ALL, plan.limits));
        let (me, others, leases) = (me, Vec::new(), Vec::new());
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            planned: 0,
            weather: Weather::Fine,
            quiet: None,
            template: template(),
            log: Vec::new(),
            settled: 0,
            todos: BTreeMap::new(),
            stored: BTreeMap::new(),
            poisoned,
            to_commit: plan.after,
            me,
            others,
            leases,
            bad: None,
            looks_far: false,
            longest_wait: 0,
            longest_of_fresh: 0,
            totals: Totals::default(),
            plan,
            random,
        };
        for _ in 0..world.plan.before {
            world.commit_one();
        }
        world.me.announced = world.log.len();
        world
    }

    /// Returns when the last of it happens.
    pub fn plan_events(&mut self) -> u64 {
        self.at(0, Event::Commit);
        let mut end = 1 + self.plan.pause * (self.plan.after / self.plan.group) as u64;
        for _ in 0..self.plan.outages {
            let from = self.random.random_range(0..2 * end);
            let most = *choose(&mut self.random, &[1_000, 20_000, 300_000]);
            let until = from + self.random.random_range(1..most);
            let every = self.random.random_range(2..5);
            let weather = [
                Weather::Refusing,
                Weather::Unavailable,
                Weather::NoAnswer,
                Weather::Partly(Failure::Refused, every),
                Weather::Partly(Failure::NoAnswer, every),
            ];
            let weather = *choose(&mut self.random, &weather);
            self.at(from, Event::Weather(weather));
            self.at(until, Event::Weather(Weather::Fine));
            if self.random.random_bool(0.3) {
                let at = self.random.random_range(from..until + 100);
                self.at(at, Event::SidecarReady);
            }
            end = end.max(until);
        }
        for _ in 0..self.plan.restarts {
            let at = self.random.random_range(0..2 * end);
            let all = self.random.random_bool(0.7);
            let number = self.any_process();
            self.switch(number);
            self.at(at, Event::Restart(all));
        }
        self.at(2 * end, Event::Quiet);
        end
    }

    /// Runs to the end of the world: everything that can be published is, and is known to be.
    pub fn run(mut self) -> Totals {
        self.play();
        self.totals
    }

    pub fn play(&mut self) {
        let mut awake = true;
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 100_000 + 100 * self.log.len(), "turns in circles");
            if awake {
                self.turn();
            }
            self.look_into_the_future();
            let wake = self.processes().filter_map(|process| Some((process.wake_at()?, process.number))).min();
            let (wake, sleeper) = wake.unzip();
            let next = self.events.first_key_value().map(|(&key, _)| key);
            let next = next.filter(|(at, _)| wake.is_none_or(|wake| *at <= wake));
            awake = match (next, wake) {
                (Some(key), _) => {
                    self.now = key.0;
                    let (number, event) = self.events.remove(&key).unwrap();
                    self.switch(number);
                    self.happen(event, key)
                }
                (None, Some(at)) => {
                    self.now = at;
                    self.switch(sleeper.unwrap_or_default());
                    true
                }
                (None, None) => break,
            };
            if let Some(quiet) = self.quiet {
                assert!(
                    self.now < quiet + self.patience(),
                    "not done after {} s without faults{}",
                    self.patience() / 1000,
                    self.left()
                );
            }
        }
        self.assert_done();
    }

    /// How long it may take until everything is published once nothing fails any more: what is in the air, a breaker
    /// that waits and probes poison first, a log that is read for a single change at a time.
    pub fn patience(&self) -> u64 {
        let poisoned = self.poisoned.len() as u64;
        let each = 50 + 2 * self.plan.latency + 3 * self.plan.reading + self.plan.announced_late;
        let again = self.plan.retries as u64 + 4 * self.others.len() as u64;
        LATE + 60_000 * (poisoned + 2 + again) + self.plan.tail + each * self.log.len() as u64
    }

    // Chance and time.

    /// From 0 to `most`; always 0 if that is 0.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..=most)
    }

    pub fn after(&mut self, wait: u64, event: Event) -> (u64, u64) {
        self.at(self.now + wait, event)
    }

    pub fn at(&mut self, at: u64, event: Event) -> (u64, u64) {
        self.planned += 1;
        self.events.insert((at, self.planned), (self.me.number, event));
        (at, self.planned)
    }
}

pub fn template() -> Arc<Change> {
    let new = NewTodo { title: "t".into(), ..NewTodo::default() };
    let todo = Todo { version: Version(0), ..new.create(TodoId(0), UserId(1), Timestamp(0)) };
    Arc::new(Change {
        place: Place(0),
        epoch: Epoch(1),
        revision: Revision(0),
        kind: Kind::Updated,
        at: Timestamp(0),
        actor: "a".into(),
        created_by: "a".into(),
        scrubbed: false,
        changed: Vec::new(),
        batch: None,
        op: None,
        trace: TraceParent::random(),
        todo: Arc::new(todo),
    })
}
