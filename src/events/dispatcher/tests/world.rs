//! The relay's decisions in thousands of simulated worlds: a log, an inbox that overflows, a sidecar that refuses, fails,
//! answers late or not at all, all todos or some, events that nobody takes, and a process that dies. Time is simulated,
//! too.
//!
//! `RELAY_SEEDS=1000000` runs more worlds than usual; a failure names its seed, and `RELAY_SEED=…` runs that one alone.

use std::collections::{BTreeMap, HashSet};
use std::ops::{Range, RangeInclusive};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::*;
use crate::domain::account::UserId;
use crate::domain::change::{Cursor, DeliveryState, Epoch, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::Todo;
use crate::domain::trace::TraceParent;
use crate::store::outbox::Discovered;

/// Worlds in a normal run.
const SEEDS: u64 = 10_000;
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

#[test]
fn every_change_gets_through_in_order_whatever_fails() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("RELAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RELAY_SEEDS").unwrap_or(SEEDS),
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8));
    let totals = std::thread::scope(|scope| {
        let run = |first: usize| {
            let mut total = Totals::default();
            for seed in seeds.clone().skip(first).step_by(threads) {
                let name = NameOnPanic(seed);
                total.add(World::new(seed).run());
                drop(name);
            }
            total
        };
        let threads: Vec<_> = (0..threads).map(|first| scope.spawn(move || run(first))).collect();
        threads.into_iter().fold(Totals::default(), |mut sum, thread| {
            sum.add(thread.join().unwrap());
            sum
        })
    });
    println!("{totals:?}");
    if seeds.end - seeds.start >= SEEDS {
        totals.assert_that_everything_happened();
    }
}

/// Fresh todos, 100 a second for 25 seconds; the service's own limits.
fn fresh_todos(random: &mut SmallRng, latency: u64) -> Plan {
    Plan {
        limits: Limits::REAL,
        inbox: MAX_BUFFERED,
        todos: 0,
        before: 0,
        after: 2_500,
        group: 1,
        pause: 20,
        hot: 0.0,
        refused: 0.0,
        failed: 0.0,
        silent: 0.0,
        latency,
        outages: 0,
        restarts: 0,
        reading: random.random_range(0..20),
        reading_fails: 0.0,
        marks_fail: 0.0,
        told_late: random.random_range(0..20),
    }
}

/// Plays a world of fresh todos in which some are refused, or get no answer, to the end.
fn partial_outage(seed: u64, failure: Failure, every: i64, only: Option<RangeInclusive<i64>>) -> World {
    let mut random = SmallRng::seed_from_u64(seed);
    let latency = random.random_range(1..=50);
    let plan = fresh_todos(&mut random, latency);
    let mut world = World::planned(plan, BTreeMap::new(), random);
    world.bad = only;
    world.at(0, Event::Weather(Weather::Partly(failure, every)));
    world.at(0, Event::Commit);
    world.at(30_000, Event::Quiet);
    let name = NameOnPanic(seed);
    world.play();
    drop(name);
    world
}

#[test]
fn others_are_published_at_once_however_many_are_refused() {
    // One of two, of three, ..., and nineteen of twenty.
    for (seed, every) in [2, 3, 5, 10, -10, -20, -20].into_iter().enumerate() {
        let world = partial_outage(seed as u64, Failure::Refused, every, None);
        assert!(world.longest_wait <= 500, "one of {every} refused: others waited {} ms", world.longest_wait);
    }
}

#[test]
fn others_are_published_at_once_when_many_in_a_row_are_refused() {
    for seed in 0..10 {
        let world = partial_outage(seed, Failure::Refused, 1, Some(500..=540));
        assert!(world.longest_wait <= 500, "the others waited {} ms", world.longest_wait);
    }
}

#[test]
fn others_are_published_at_once_when_a_third_hangs() {
    for seed in 0..3 {
        let world = partial_outage(seed, Failure::Silent, 3, None);
        assert!(world.longest_wait <= 2_500, "the others waited {} ms", world.longest_wait);
    }
}

#[test]
fn new_todos_do_not_wait_behind_a_backlog_that_hangs() {
    let mut random = SmallRng::seed_from_u64(1);
    let plan = Plan { before: 20_000, after: 4_000, ..fresh_todos(&mut random, 20) };
    let mut world = World::planned(plan, BTreeMap::new(), random);
    world.bad = Some(1..=20_000);
    world.at(0, Event::Weather(Weather::Partly(Failure::Silent, 1)));
    world.at(0, Event::Commit);
    world.at(60_000, Event::Quiet);
    world.play();
    assert!(world.longest_wait <= 10_000, "the others waited {} ms", world.longest_wait);
}

#[test]
fn the_backlog_of_a_busy_todo_is_read_once_and_others_do_not_wait_for_it() {
    let mut random = SmallRng::seed_from_u64(1);
    let plan = Plan { before: 50_000, after: 100, hot: 1.0, ..fresh_todos(&mut random, 1) };
    let mut world = World::planned(plan, BTreeMap::new(), random);
    world.plan.hot = 0.0;
    world.looks_far = true;
    world.at(0, Event::Commit);
    world.at(1_000, Event::Quiet);
    world.play();
    let Totals { changes, readings, read, looked_at, .. } = world.totals;
    assert!(read <= changes && looked_at <= changes, "{read} read and {looked_at} looked at of {changes}");
    assert!(readings <= changes / MAX_LANE_LEN as u64 + 100, "{readings} readings of {changes}");
    assert!(world.longest_of_fresh <= 500, "the others waited {} ms", world.longest_of_fresh);
}

#[test]
fn a_backlog_that_does_not_fit_into_memory_is_not_read_change_by_change() {
    // Many todos with a change each: a thousand at a time. And not so many with many: as many as are free at that moment.
    for (todos, most) in [(0, 100), (1000, 1000)] {
        let mut random = SmallRng::seed_from_u64(1);
        let plan = Plan { todos, before: 50_000, after: 0, reading: 5, ..fresh_todos(&mut random, 50) };
        let mut world = World::planned(plan, BTreeMap::new(), random);
        world.looks_far = true;
        world.at(0, Event::Quiet);
        world.play();
        let Totals { changes, readings, .. } = world.totals;
        assert!(readings <= most, "{readings} readings of {changes} changes");
    }
}

/// A machine that was told of these changes, and knows that there are no others.
fn told(limits: Limits, log: &[Arc<Change>]) -> Dispatcher {
    let mut lanes = Dispatcher::with_limits(1, limits);
    assert!(lanes.start_reading().is_some());
    let nothing = Discovered { todos: Vec::new(), parked: HashSet::new(), known: Cursor::START, behind: false };
    lanes.finish_reading(Some(Found { fed: Vec::new(), discovered: Some(nothing) }));
    lanes.committed(log.to_vec(), false);
    lanes
}

/// The log of todos that get `rounds` changes each, by turns.
fn log_of(todos: RangeInclusive<i64>, rounds: i64) -> Vec<Arc<Change>> {
    let template = template();
    let by_turns = (1..=rounds).flat_map(|version| todos.clone().map(move |todo| (todo, version)));
    let change = |((id, version), seq): ((i64, i64), i64)| {
        let todo = Arc::new(Todo { id: TodoId(id), version: Version(version), ..Todo::clone(&template.todo) });
        Arc::new(Change { place: Place(seq), revision: Revision(seq), todo, ..Change::clone(&template) })
    };
    by_turns.zip(1..).map(change).collect()
}

/// Reads what is wanted, if something is: of which todos.
fn read(lanes: &mut Dispatcher, log: &[Arc<Change>]) -> Vec<i64> {
    let Some(wanted) = lanes.start_reading() else { return Vec::new() };
    let (mut found, mut room) = (Found::default(), wanted.room);
    for want in &wanted.wants {
        if room == 0 {
            break;
        }
        let pending = log.iter().filter(|change| change.todo.id == want.todo && change.todo.version > want.above);
        let limit = want.limit.min(room);
        let changes: Vec<_> = pending.clone().take(limit).cloned().collect();
        room -= changes.len();
        found.fed.push(Fed { todo: want.todo, changes, more: pending.count() > limit });
    }
    lanes.finish_reading(Some(found));
    wanted.wants.iter().map(|want| want.todo.0).collect()
}

/// What became of the change that was sent of this todo.
fn finish(lanes: &mut Dispatcher, todo: i64, result: PublishResult, now: u64) -> Verdict {
    lanes.finish(TodoId(todo), result, now)
}

/// Sends the next change: its todo.
fn send(lanes: &mut Dispatcher, now: u64) -> Option<i64> {
    lanes.start(now).map(|change| change.todo.id.0)
}

/// Few of everything.
const FEW: Limits = Limits { in_flight: 1, failures: 1, hanging: 0, suspects: 1, buffered: 20, lane: 3, reading: 3 };

#[test]
fn todos_take_turns_in_memory_and_in_what_is_read_of_them() {
    let log = log_of(1..=3, 9);
    let mut lanes = told(FEW, &log);
    let mut sent = Vec::new();
    loop {
        let Some(todo) = send(&mut lanes, 0) else {
            if read(&mut lanes, &log).is_empty() {
                break;
            }
            continue;
        };
        finish(&mut lanes, todo, PublishResult::Stored, 0);
        sent.push(todo);
    }
    let by_reading = [1, 1, 1, 2, 2, 2, 3, 3, 3];
    assert_eq!(sent, [[1, 2, 3, 1, 2, 3, 1, 2, 3], by_reading, by_reading].concat());
}

#[test]
fn a_suspect_is_read_and_sent_before_others_however_many_there_are() {
    let log = log_of(1..=3, 9);
    let mut lanes = told(Limits { in_flight: 2, lane: 1, ..FEW }, &log);
    assert_eq!([send(&mut lanes, 0), send(&mut lanes, 0)], [Some(1), Some(2)]);
    finish(&mut lanes, 1, PublishResult::Refused, 0);
    finish(&mut lanes, 2, PublishResult::Stored, 0);
    assert_eq!(send(&mut lanes, 0), Some(3));
    finish(&mut lanes, 3, PublishResult::Stored, 0);
    assert_eq!(send(&mut lanes, 1000), None, "all have to be read");
    assert_eq!(read(&mut lanes, &log), [1, 2, 3]);
    assert_eq!(send(&mut lanes, 1000), Some(1));
}

#[test]
fn a_lane_that_fails_alone_waits_ever_longer_until_another_gets_through() {
    let log = log_of(1..=1, 1);
    let mut lanes = told(Limits::REAL, &log);
    let (mut now, mut waits) = (0, Vec::new());
    loop {
        assert_eq!(send(&mut lanes, now), Some(1));
        finish(&mut lanes, 1, PublishResult::Refused, now);
        if waits.len() == 8 {
            break;
        }
        let due = lanes.wake_at().unwrap();
        waits.push((due - now) / 1000);
        now = due;
        assert_eq!(send(&mut lanes, now), None, "it is read first");
        assert_eq!(read(&mut lanes, &log), [1]);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
    // All that was one outage, and one failure.
    let other = log_of(1..=2, 1).split_off(1);
    lanes.committed(other, false);
    assert_eq!(send(&mut lanes, now), Some(2));
    finish(&mut lanes, 2, PublishResult::Stored, now);
    assert_eq!(lanes.wake_at(), Some(now + 1000));
}

#[test]
fn a_lane_that_is_parked_while_it_waits_for_its_turn_leaves_nothing_behind() {
    for reads in [false, true] {
        let log = log_of(1..=2, 9);
        let mut lanes = told(Limits { in_flight: 2, lane: 9, ..FEW }, &log);
        let mut now = 0;
        for refusals in 1..=MAX_REFUSALS {
            assert_eq!([send(&mut lanes, now), send(&mut lanes, now)], [Some(1), Some(2)]);
            finish(&mut lanes, 1, PublishResult::Refused, now);
            if refusals < MAX_REFUSALS {
                assert!(finish(&mut lanes, 2, PublishResult::Stored, now).parked.is_empty());
            }
            now += 40_000;
            lanes.activate_suspects(now);
            if refusals < MAX_REFUSALS || reads {
                assert_eq!(read(&mut lanes, &log), [1]);
            }
        }
        // It could be sent, or is to be read, when the other's success parks it.
        let verdict = finish(&mut lanes, 2, PublishResult::Stored, now);
        assert_eq!((verdict.parked, lanes.suspects(), lanes.parked.len()), (vec![Place(1)], 0, 1));
        assert!(lanes.start_reading().is_none());
        assert_eq!(send(&mut lanes, now), Some(2));
    }
}

/// A machine whose breaker has just opened, at 0, because todo 1 was refused; the others wait.
fn opened(seed: u64, log: &[Arc<Change>]) -> (Dispatcher, u64) {
    let mut lanes = Dispatcher { breaker: Breaker::new(seed), ..told(FEW, log) };
    assert_eq!(send(&mut lanes, 0), Some(1));
    finish(&mut lanes, 1, PublishResult::Refused, 0);
    assert!(!lanes.healthy());
    let until = lanes.breaker.admits_at();
    (lanes, until)
}

#[test]
fn the_breaker_waits_a_random_time_or_until_the_sidecar_is_ready() {
    let log = log_of(1..=2, 1);
    let waits: HashSet<u64> = (0..50).map(|seed| opened(seed, &log).1).collect();
    assert!(waits.len() > 10 && waits.iter().all(|wait| (100..=200).contains(wait)), "{waits:?}");
    let (mut lanes, _) = opened(1, &log);
    assert_eq!(send(&mut lanes, 50), None);
    lanes.sidecar_ready(50);
    assert_eq!(send(&mut lanes, 50), Some(2));
}

#[test]
fn the_breaker_waits_longer_after_new_failures_only() {
    let log = log_of(1..=1, 1);
    let (mut lanes, _) = opened(1, &log);
    let mut now = 0;
    for _ in 0..20 {
        now += 40_000;
        assert_eq!(send(&mut lanes, now), None, "it is read first");
        assert_eq!(read(&mut lanes, &log), [1]);
        assert_eq!(send(&mut lanes, now), Some(1));
        finish(&mut lanes, 1, PublishResult::Refused, now);
        let until = lanes.breaker.admits_at();
        assert!((100..=200).contains(&(until - now)), "a suspect's failure made it wait {} ms", until - now);
    }
}

/// Says which world it was.
struct NameOnPanic(u64);

impl Drop for NameOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this world again: RELAY_SEED={} cargo test --lib events::lanes", self.0);
        }
    }
}

/// What happened, to see that the worlds are as nasty as they are meant to be.
#[derive(Debug, Default)]
struct Totals {
    changes: u64,
    attempts: u64,
    duplicates: u64,
    timeouts: u64,
    restarts: u64,
    readings: u64,
    failed_readings: u64,
    overflows: u64,
    parked: u64,
    parked_good: u64,
    parked_while_reading: u64,
    full: u64,
    full_lanes: u64,
    crowded: u64,
    hanging: u64,
    outages: u64,
    partial_outages: u64,
    /// Changes that readings gave, and that they looked at to discover todos.
    read: u64,
    looked_at: u64,
}

impl Totals {
    fn counts(&mut self) -> [&mut u64; 19] {
        let Self { changes, attempts, duplicates, timeouts, restarts, readings, failed_readings, .. } = self;
        let Self { overflows, parked, parked_good, parked_while_reading, full, full_lanes, crowded, .. } = self;
        let Self { hanging, outages, partial_outages, read, looked_at, .. } = self;
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
        ]
    }

    fn add(&mut self, mut other: Self) {
        for (sum, more) in self.counts().into_iter().zip(other.counts()) {
            *sum += *more;
        }
    }

    fn assert_that_everything_happened(mut self) {
        assert!(self.counts().into_iter().all(|count| *count > 0), "something never happened");
    }
}

/// What a world is like.
struct Plan {
    limits: Limits,
    /// Changes that the inbox takes before it overflows.
    inbox: usize,
    /// How many todos there are; 0: each change is of a new one.
    todos: i64,
    /// How many changes of todos there are before the relay first starts, and after.
    before: usize,
    after: usize,
    /// Changes in one commit, at most, and the longest pause between commits.
    group: usize,
    pause: u64,
    /// How often a commit is about todo 1.
    hot: f64,
    /// How often an attempt is refused, fails at once, or gets no answer.
    refused: f64,
    failed: f64,
    silent: f64,
    /// How long an answer takes, at most.
    latency: u64,
    outages: usize,
    restarts: usize,
    reading: u64,
    reading_fails: f64,
    marks_fail: f64,
    /// How long a commit can be in the log before the relay is told.
    told_late: u64,
}

impl Plan {
    fn new(random: &mut SmallRng, big: bool) -> Self {
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
            told_late: *choose(random, &[0, 0, 1, 300]),
        }
    }
}

fn choose<'a, T>(random: &mut SmallRng, all: &'a [T]) -> &'a T {
    &all[random.random_range(0..all.len())]
}

/// What the log has of a change, and what is known of it besides.
struct Entry {
    change: Arc<Change>,
    committed: u64,
    state: Option<DeliveryState>,
    /// No sidecar ever takes it.
    poison: bool,
    /// How often another todo's success followed on failures, and on refusals; of this process.
    confirmed: u32,
    refusals: u32,
    /// After a failure: when it may be sent again, at the earliest.
    again: u64,
    /// The process that was told that it is stored.
    acknowledged_by: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Fine,
    /// All are refused.
    Refusing,
    /// Nobody listens.
    Away,
    /// Nobody answers.
    Silent,
    /// Every so many todos are refused, or get no answer; negative: all but those.
    Partly(Failure, i64),
}

#[derive(Debug)]
enum Event {
    /// Commit a group; afterwards, plan the next one.
    Commit,
    /// The relay is told of what was committed, up to this `seq`.
    Told(i64),
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

struct Reading {
    wanted: Wanted,
    marked: BTreeMap<i64, DeliveryState>,
    found: Option<Found>,
}

/// A publish that the process waits for.
struct Flight {
    seq: i64,
    since: u64,
    answer: (u64, u64),
    land: Option<(u64, u64)>,
}

struct World {
    random: SmallRng,
    plan: Plan,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    planned: u64,
    weather: Weather,
    quiet: Option<u64>,
    template: Arc<Change>,
    /// The log: a change's place is its `seq` - 1.
    log: Vec<Entry>,
    /// Everything before this is settled.
    settled: usize,
    /// By todo: its changes' `seq`, by version; how far Kafka has them.
    todos: BTreeMap<TodoId, Vec<i64>>,
    stored: BTreeMap<TodoId, i64>,
    /// Todos that get an event that nobody takes, and the version that it is.
    poisoned: BTreeMap<TodoId, i64>,
    to_commit: usize,
    // The process.
    process: u32,
    lanes: Dispatcher,
    inbox: Vec<Arc<Change>>,
    overflowed: bool,
    told: usize,
    marks: BTreeMap<i64, DeliveryState>,
    marks_planned: bool,
    reading: Option<Reading>,
    flights: BTreeMap<TodoId, Flight>,
    /// What failed, and no success of another todo began after it: when it last did, and whether it was ever refused.
    failed: BTreeMap<i64, (u64, bool)>,
    /// Todos whose last attempt failed, and how many became such since the last success.
    suspects: HashSet<TodoId>,
    failed_in_a_row: usize,
    /// When the youngest attempt that got through began.
    got_through: u64,
    /// The breaker is open: when a probe may start, at the earliest, and the todo of the one that did.
    open: Option<(u64, Option<(TodoId, u64)>)>,
    /// Attempts of this outage that the breaker let through, of todos that had not failed, its begin, and how often it was
    /// opened from outside.
    probes: u64,
    outage_began: u64,
    ready_signals: u64,
    /// The only todos that partial outages are about, if not all.
    bad: Option<RangeInclusive<i64>>,
    /// One reading looks at the whole log for todos.
    looks_far: bool,
    /// The longest time from a commit to the answer that it is stored, of todos that no partial outage is about.
    longest_wait: u64,
    /// The same, but not of todo 1.
    longest_of_fresh: u64,
    totals: Totals,
}

impl World {
    fn new(seed: u64) -> Self {
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

    fn planned(plan: Plan, poisoned: BTreeMap<TodoId, i64>, mut random: SmallRng) -> Self {
        let lanes = Dispatcher::with_limits(random.random(), plan.limits);
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
            process: 0,
            lanes,
            inbox: Vec::new(),
            overflowed: false,
            told: 0,
            marks: BTreeMap::new(),
            marks_planned: false,
            reading: None,
            flights: BTreeMap::new(),
            failed: BTreeMap::new(),
            suspects: HashSet::new(),
            failed_in_a_row: 0,
            got_through: 0,
            open: None,
            probes: 0,
            outage_began: 0,
            ready_signals: 0,
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
        world.told = world.log.len();
        world
    }

    fn plan_events(&mut self) {
        self.at(0, Event::Commit);
        let mut end = 1 + self.plan.pause * (self.plan.after / self.plan.group) as u64;
        for _ in 0..self.plan.outages {
            let from = self.random.random_range(0..2 * end);
            let most = *choose(&mut self.random, &[1_000, 20_000, 300_000]);
            let until = from + self.random.random_range(1..most);
            let every = self.random.random_range(2..5);
            let weather = [
                Weather::Refusing,
                Weather::Away,
                Weather::Silent,
                Weather::Partly(Failure::Refused, every),
                Weather::Partly(Failure::Silent, every),
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
            self.at(at, Event::Restart(all));
        }
        self.at(2 * end, Event::Quiet);
    }

    /// Runs to the end of the world: everything that can be published is, and is known to be.
    fn run(mut self) -> Totals {
        self.play();
        self.totals
    }

    fn play(&mut self) {
        let mut awake = true;
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 100_000 + 100 * self.log.len(), "turns in circles");
            if awake {
                self.turn();
            }
            let wake = self.lanes.wake_at();
            let next = self.events.first_key_value().map(|(&key, _)| key);
            let next = next.filter(|(at, _)| wake.is_none_or(|wake| *at <= wake));
            self.look_into_the_future(wake);
            awake = match (next, wake) {
                (Some(key), _) => {
                    self.now = key.0;
                    let event = self.events.remove(&key).unwrap();
                    self.happen(event, key)
                }
                (None, Some(at)) => {
                    self.now = at;
                    true
                }
                (None, None) => break,
            };
            if let Some(quiet) = self.quiet {
                assert!(
                    self.now < quiet + self.patience(),
                    "not done after {} s without faults",
                    self.patience() / 1000
                );
            }
        }
        self.assert_done();
    }

    /// How long it may take until everything is published once nothing fails any more: what is in the air, a breaker
    /// that waits and probes poison first, a log that is read for a single change at a time.
    fn patience(&self) -> u64 {
        let poisoned = self.poisoned.len() as u64;
        let each = 50 + 2 * self.plan.latency + 3 * self.plan.reading + self.plan.told_late;
        LATE + 60_000 * (poisoned + 2) + each * self.log.len() as u64
    }

    // The relay's loop, but for the polling, which would hide wake-ups that get lost.

    fn turn(&mut self) {
        if self.reading.is_none() {
            let told = self.lanes.announced_through();
            let changes =
                std::mem::take(&mut self.inbox).into_iter().filter(|change| !told.covers(change.place)).collect();
            let before = self.lanes_of_no_suspects();
            self.lanes.committed(changes, std::mem::take(&mut self.overflowed));
            let most = before.max(self.plan.limits.buffered);
            assert!(self.lanes_of_no_suspects() <= most, "too many lanes");
        }
        while let Some(change) = self.lanes.start(self.now) {
            self.publish(&change);
        }
        if self.reading.is_none() {
            self.start_reading();
        }
        let limits = self.plan.limits;
        assert!(self.lanes.buffered <= limits.buffered, "too much in memory");
        let hanging = |after: u64| {
            let hangs = |flight: &&Flight| self.now - flight.since >= after && flight.since < self.got_through;
            self.flights.values().filter(hangs).count().min(limits.hanging)
        };
        // What is usual changes, and what was once found to hang stays so.
        assert!(self.flights.len() <= limits.in_flight + hanging(HANGS_AFTER_MS), "too many in flight");
        let full = self.flights.len()
            >= limits.in_flight + hanging(HANGS_AFTER_MS.max(HANGS_AFTER_TIMES_USUAL * self.lanes.usual));
        assert!(self.lanes.nothing_is_ready() || full || self.open.is_some(), "something that could be sent waits");
        let suspects = self.flights.keys().filter(|todo| self.suspects.contains(todo)).count();
        assert!(suspects <= 2 * limits.suspects, "too many suspects in flight");
        assert_eq!(self.lanes.in_flight(), self.flights.len());
        assert_eq!(self.lanes.suspects(), self.suspects.len());
        assert!(self.lanes.wake_at().is_none_or(|wake| wake > self.now), "woken for nothing");
        self.totals.full += u64::from(self.lanes.buffered == limits.buffered);
        self.totals.hanging += u64::from(self.flights.len() > limits.in_flight);
        self.totals.crowded += u64::from(self.lanes.room_for_lanes() == 0);
        if self.random.random_ratio(1, if self.lanes.buffered > 100 { 4096 } else { 32 }) {
            self.assert_consistent();
        }
        if self.flights.is_empty() && self.reading.is_none() && self.lanes.wake_at().is_none() {
            self.assert_nothing_to_do();
        }
    }

    fn lanes_of_no_suspects(&self) -> usize {
        self.lanes.lanes.len() - self.lanes.suspects()
    }

    fn start_reading(&mut self) {
        let Some(wanted) = self.lanes.start_reading() else { return };
        assert!(wanted.discover > 0 || (wanted.room > 0 && !wanted.wants.is_empty()), "reads for nothing");
        assert!(wanted.room <= self.plan.limits.reading && wanted.discover <= self.plan.limits.buffered);
        assert!(wanted.wants.len() <= wanted.room, "reads for more todos than there can be changes");
        let one_each =
            wanted.wants.iter().filter(|want| self.suspects.contains(&want.todo)).all(|want| want.limit == 1);
        assert!(one_each, "more is read of a suspect than it may send");
        self.totals.readings += 1;
        self.reading = Some(Reading { wanted, marked: self.marks.clone(), found: None });
        let (wait, more) = (self.up_to(self.plan.reading), self.up_to(self.plan.reading));
        if self.quiet.is_none() && self.random.random_bool(self.plan.reading_fails) {
            self.totals.failed_readings += 1;
            self.after(wait + READ_AGAIN, Event::ReadingEnds);
        } else {
            self.after(wait, Event::Snapshot);
            self.after(wait + more, Event::ReadingEnds);
        }
    }

    fn publish(&mut self, change: &Arc<Change>) {
        let (todo, seq) = (change.todo.id, change.place.0);
        self.totals.attempts += 1;
        self.check_breaker(todo);
        let before = self.stored.get(&todo).copied().unwrap_or(0);
        assert!(before >= change.todo.version.0 - 1, "{todo}-{} is sent before an earlier one", change.todo.version);
        let entry = &self.log[seq as usize - 1];
        let poison = entry.poison;
        assert!(self.now >= entry.again, "a change that failed is sent again {} ms too early", entry.again - self.now);
        let again = entry.acknowledged_by == Some(self.process);
        assert!(!again, "{todo}-{} is sent again after it was stored", change.todo.version);
        let quiet = self.quiet.is_some();
        let bad_luck: f64 = if quiet { 1.0 } else { self.random.random() };
        let (refused, failed) = (self.plan.refused, self.plan.refused + self.plan.failed);
        let latency = 1 + self.up_to(self.plan.latency);
        // What the client sees, when, and when it lands in Kafka, if it does.
        let (result, answer, land) = match self.weather {
            Weather::Silent => (PublishResult::Silent, TIMEOUT, self.up_to(2 * LATE)),
            Weather::Refusing => (PublishResult::Refused, latency, u64::MAX),
            Weather::Away => (PublishResult::Away, latency, u64::MAX),
            Weather::Partly(Failure::Silent, _) if self.is_hit(todo) => {
                (PublishResult::Silent, TIMEOUT, self.up_to(2 * LATE))
            }
            Weather::Partly(Failure::Refused, _) if self.is_hit(todo) => (PublishResult::Refused, 100, u64::MAX),
            _ if poison || bad_luck < refused => (PublishResult::Refused, latency, u64::MAX),
            _ if bad_luck < failed => (PublishResult::Away, latency, u64::MAX),
            _ if bad_luck < failed + self.plan.silent => (PublishResult::Silent, TIMEOUT, self.up_to(2 * LATE)),
            _ => (PublishResult::Stored, latency, self.up_to(latency)),
        };
        self.totals.timeouts += u64::from(answer == TIMEOUT);
        // Whatever is later than it ever was is taken as never.
        let land = (land <= LATE && !poison).then(|| self.at(self.now + land, Event::Land(seq)));
        let answer = self.at(self.now + answer, Event::Answer(seq, result));
        let other = self.flights.insert(todo, Flight { seq, since: self.now, answer, land });
        assert!(other.is_none(), "two changes of todo {todo} are in flight");
    }

    /// Whether there is a partial outage, and it is about this todo.
    fn is_hit(&self, todo: TodoId) -> bool {
        let Weather::Partly(_, every) = self.weather else { return false };
        // Not in turn, as partitions are not either: many hit in a row happen.
        let scattered = todo.0.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let one = scattered.is_multiple_of(every.unsigned_abs());
        self.bad.as_ref().is_none_or(|bad| bad.contains(&todo.0)) && (one == (every > 0))
    }

    /// With the breaker open, only one probe at a time, not at once, and ever less often.
    fn check_breaker(&mut self, todo: TodoId) {
        let Some((until, probe)) = &mut self.open else { return };
        assert!(self.now >= *until, "probes {} ms too early", *until - self.now);
        let hangs = probe.is_none_or(|(_, since)| self.now >= since + HANGS_AFTER_MS);
        assert!(hangs, "probes while another probe is in flight, and does not hang");
        *probe = Some((todo, self.now));
        if self.suspects.contains(&todo) {
            let others = self.lanes.ready.len() + self.lanes.backlog.len();
            assert!(others == 0, "a suspect is probed although there is another");
            return;
        }
        self.probes += 1;
        let lasted = self.now - self.outage_began;
        let most = 25 + lasted / 5_000 + 2 * self.ready_signals;
        assert!(self.probes <= most, "{} probes in an outage of {lasted} ms", self.probes);
    }

    fn answered(&mut self, seq: i64, result: PublishResult) {
        let todo = self.log[seq as usize - 1].change.todo.id;
        let flight = self.flights.remove(&todo).unwrap();
        let before = self.lanes.parked.len();
        let verdict = self.lanes.finish(todo, result, self.now);
        if result == PublishResult::Stored {
            assert_eq!(verdict.published, Some(Place(seq)));
            self.stored(seq, flight.since, &verdict);
        } else {
            assert_eq!(verdict.published, None);
            self.not_stored(seq, result, &verdict);
        }
        assert_eq!(self.lanes.healthy(), self.open.is_none());
        assert_eq!(self.lanes.parked.len(), before + verdict.parked.len());
        for &Place(seq) in &verdict.parked {
            self.parked(seq);
        }
        self.plan_marks();
    }

    fn stored(&mut self, seq: i64, since: u64, verdict: &Verdict) {
        let todo = self.log[seq as usize - 1].change.todo.id;
        let hit = self.is_hit(todo);
        let entry = &mut self.log[seq as usize - 1];
        entry.acknowledged_by = Some(self.process);
        let waited = self.now - entry.committed;
        if self.quiet.is_none() && !hit {
            self.longest_wait = self.longest_wait.max(waited);
        }
        if todo.0 != 1 {
            self.longest_of_fresh = self.longest_of_fresh.max(waited);
        }
        self.marks.insert(seq, DeliveryState::Published);
        self.failed.remove(&seq);
        self.suspects.remove(&todo);
        self.got_through = self.got_through.max(since);
        (self.open, self.failed_in_a_row) = (None, 0);
        for (other, (at, refused)) in std::mem::take(&mut self.failed) {
            if at > since {
                self.failed.insert(other, (at, refused));
                continue;
            }
            let entry = &mut self.log[other as usize - 1];
            entry.confirmed += 1;
            entry.refusals += u32::from(refused);
            let parks = entry.refusals >= MAX_REFUSALS && !self.flights.contains_key(&entry.change.todo.id);
            assert_eq!(verdict.parked.contains(&Place(other)), parks);
        }
    }

    fn not_stored(&mut self, seq: i64, result: PublishResult, verdict: &Verdict) {
        let entry = &mut self.log[seq as usize - 1];
        let todo = entry.change.todo.id;
        let away = result == PublishResult::Away;
        let first = !away && self.suspects.insert(todo);
        if !away {
            entry.again = self.now + (suspects::BACKOFF_MS << entry.confirmed.min(5));
            let (at, refused) = self.failed.entry(seq).or_default();
            *at = self.now;
            *refused |= result == PublishResult::Refused;
        }
        let parks = result == PublishResult::Refused && entry.refusals >= MAX_REFUSALS;
        assert_eq!(verdict.parked, if parks { vec![Place(seq)] } else { vec![] });
        self.failed_in_a_row += usize::from(first);
        let opens = match self.open {
            None if away || (first && self.failed_in_a_row >= self.plan.limits.failures) => {
                (self.probes, self.outage_began, self.ready_signals) = (0, self.now, 0);
                true
            }
            None => false,
            Some((_, probe)) => probe.is_some_and(|(probe, since)| probe == todo && self.now < since + HANGS_AFTER_MS),
        };
        if opens {
            self.open = Some((self.now + breaker::BACKOFF_MS.0, None));
        }
    }

    fn parked(&mut self, seq: i64) {
        let entry = &self.log[seq as usize - 1];
        let todo = &entry.change.todo;
        assert!(entry.refusals >= MAX_REFUSALS, "parked after {} confirmed refusals", entry.refusals);
        assert!(!self.flights.contains_key(&todo.id), "parked while in flight");
        // It may be stored, too, by an attempt that nobody heard of again; and later ones, by a process that died before
        // it was committed.
        let stored = self.stored.get(&todo.id).copied().unwrap_or(0);
        assert!(stored >= todo.version.0 - 1, "not the first change is parked");
        // Each outage confirms one refusal when it ends.
        let partly = self.totals.partial_outages > 0 || self.totals.outages >= u64::from(MAX_REFUSALS);
        assert!(entry.poison || self.plan.refused > 0.0 || partly, "a good change is parked");
        self.totals.parked += 1;
        self.totals.parked_good += u64::from(!entry.poison);
        self.totals.parked_while_reading += u64::from(self.reading.is_some());
        self.suspects.remove(&todo.id);
        self.failed.remove(&seq);
        self.marks.insert(seq, DeliveryState::Parked);
    }

    // The world around it.

    /// Makes an event happen; true if it wakes the relay.
    fn happen(&mut self, event: Event, key: (u64, u64)) -> bool {
        match event {
            Event::Commit => self.commit(),
            Event::Told(seq) => {
                let until = self.told.max(seq as usize);
                let news: Vec<_> = self.log[self.told..until].iter().map(|e| Arc::clone(&e.change)).collect();
                self.told = until;
                if self.overflowed || self.inbox.len() + news.len() > self.plan.inbox {
                    self.totals.overflows += 1;
                    self.overflowed = true;
                } else {
                    self.inbox.extend(news);
                }
                // While the log is read, news wait.
                return self.reading.is_none();
            }
            Event::Marks => {
                self.marks_planned = false;
                if self.quiet.is_some() || !self.random.random_bool(self.plan.marks_fail) {
                    self.commit_marks();
                }
                self.plan_marks();
            }
            Event::Answer(seq, result) => {
                debug_assert!(self.flights.values().any(|flight| flight.seq == seq && flight.answer == key));
                self.answered(seq, result);
                return true;
            }
            Event::Land(seq) => self.land(seq),
            Event::Snapshot => self.snapshot(),
            Event::ReadingEnds => {
                let found = self.reading.take().unwrap().found;
                let fed = found.iter().flat_map(|found| &found.fed);
                self.totals.full_lanes += fed.filter(|fed| fed.more).count() as u64;
                self.lanes.finish_reading(found);
                return true;
            }
            Event::Weather(weather) => {
                self.weather = weather;
                self.totals.outages += u64::from(weather != Weather::Fine);
                self.totals.partial_outages += u64::from(matches!(weather, Weather::Partly(..)));
            }
            Event::SidecarReady => {
                self.lanes.sidecar_ready(self.now);
                self.ready_signals += 1;
                if let Some((until, _)) = &mut self.open {
                    *until = (*until).min(self.now);
                }
                return true;
            }
            Event::Restart(all) => {
                self.restart(all);
                return true;
            }
            Event::Quiet => {
                self.quiet = Some(self.now);
                self.weather = Weather::Fine;
                self.after(0, Event::Pulse);
            }
            Event::Pulse => {
                if self.to_commit > 0 || !self.done() {
                    self.append(TodoId(0));
                    self.tell();
                    self.after(PULSE, Event::Pulse);
                }
            }
        }
        false
    }

    fn commit(&mut self) {
        let group = self.random.random_range(1..=self.plan.group).min(self.to_commit);
        for _ in 0..group {
            self.commit_one();
        }
        self.to_commit -= group;
        if group > 0 {
            self.tell();
        }
        if self.to_commit > 0 {
            let wait = self.up_to(self.plan.pause);
            self.after(wait, Event::Commit);
        }
    }

    fn commit_one(&mut self) {
        let hot = self.random.random_bool(self.plan.hot);
        let fresh = self.todos.len() as i64 + 1;
        let todo = match self.plan.todos {
            _ if hot => 1,
            0 => fresh,
            todos => self.random.random_range(1..=todos),
        };
        self.append(TodoId(todo));
    }

    fn append(&mut self, todo: TodoId) {
        let versions = self.todos.entry(todo).or_default();
        let (seq, version) = (self.log.len() as i64 + 1, versions.len() as i64 + 1);
        versions.push(seq);
        let poison = self.poisoned.get(&todo) == Some(&version);
        let todo = Arc::new(Todo { id: todo, version: Version(version), ..Todo::clone(&self.template.todo) });
        let change =
            Arc::new(Change { place: Place(seq), revision: Revision(seq), todo, ..Change::clone(&self.template) });
        self.log.push(Entry {
            change,
            committed: self.now,
            state: None,
            poison,
            confirmed: 0,
            refusals: 0,
            again: 0,
            acknowledged_by: None,
        });
        self.totals.changes += 1;
    }

    /// A group was committed, and marks with it.
    fn tell(&mut self) {
        self.commit_marks();
        let late = self.up_to(self.plan.told_late);
        self.after(late, Event::Told(self.log.len() as i64));
    }

    fn commit_marks(&mut self) {
        for (seq, mark) in std::mem::take(&mut self.marks) {
            self.log[seq as usize - 1].state.get_or_insert(mark);
        }
        while self.log.get(self.settled).is_some_and(|entry| entry.state == Some(DeliveryState::Published)) {
            self.settled += 1;
        }
    }

    fn plan_marks(&mut self) {
        if !self.marks_planned && !self.marks.is_empty() {
            self.marks_planned = true;
            self.after(MARKS, Event::Marks);
        }
    }

    fn land(&mut self, seq: i64) {
        let todo = &self.log[seq as usize - 1].change.todo;
        let last = self.stored.entry(todo.id).or_insert(0);
        assert!(todo.version.0 <= *last + 1, "{}-{} comes after version {last}", todo.id, todo.version);
        self.totals.duplicates += u64::from(todo.version.0 <= *last);
        *last = todo.version.0.max(*last);
    }

    /// Reads the log, as [`crate::store::Store::read_outbox`] is documented.
    fn snapshot(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        let wanted = &reading.wanted;
        let (mut found, mut room) = (Found::default(), wanted.room);
        for want in &wanted.wants {
            if room == 0 {
                break;
            }
            let versions = self.todos.get(&want.todo).map_or(&[][..], |versions| &versions[..]);
            let entries =
                versions.iter().filter(|seq| **seq <= wanted.told.place().0).map(|seq| &self.log[*seq as usize - 1]);
            let pending = entries.filter(|entry| entry.state.is_none() && entry.change.todo.version > want.above);
            let mut changes: Vec<_> = pending.map(|entry| Arc::clone(&entry.change)).collect();
            let limit = want.limit.min(room);
            let more = changes.len() > limit;
            changes.truncate(limit);
            room -= changes.len();
            self.totals.read += changes.len() as u64;
            found.fed.push(Fed { todo: want.todo, changes, more });
        }
        if wanted.discover > 0 {
            let unsettled = &self.log[self.settled..];
            let marked = |entry: &Entry| entry.state.or_else(|| reading.marked.get(&entry.change.place.0).copied());
            let parked = unsettled
                .iter()
                .filter(|entry| wanted.known == Cursor::START && marked(entry) == Some(DeliveryState::Parked));
            let parked = parked.map(|entry| entry.change.todo.id).collect();
            let end = Cursor::up_to(Place(self.log.len() as i64));
            let mut discovered = Discovered { todos: Vec::new(), parked, known: end, behind: false };
            let mut seen = HashSet::new();
            // Never far: looking goes on where it ended.
            let far = if self.looks_far { usize::MAX } else { self.random.random_range(1..=50) };
            let beyond =
                unsettled.iter().filter(|entry| entry.state.is_none() && !wanted.known.covers(entry.change.place));
            for (looked_at, entry) in beyond.enumerate() {
                let (seq, todo) = (entry.change.place.0, &entry.change.todo);
                let new = marked(entry).is_none() && !discovered.parked.contains(&todo.id) && !seen.contains(&todo.id);
                if (new && seen.len() == wanted.discover) || looked_at == far {
                    discovered.behind = true;
                    discovered.known = Cursor::up_to(Place(seq - 1));
                    break;
                }
                if new {
                    seen.insert(todo.id);
                    discovered.todos.push((todo.id, todo.version));
                }
                self.totals.looked_at += 1;
            }
            found.discovered = Some(discovered);
        }
        reading.found = Some(found);
    }

    /// The process dies, or only the relay's task: then inbox and marks are still there.
    fn restart(&mut self, process: bool) {
        self.totals.restarts += 1;
        for flight in std::mem::take(&mut self.flights).into_values() {
            self.events.remove(&flight.answer);
            if let Some(land) = flight.land.filter(|_| self.random.random_bool(0.5)) {
                self.events.remove(&land);
            }
        }
        self.events.retain(|_, event| !matches!(event, Event::Snapshot | Event::ReadingEnds));
        self.reading = None;
        self.lanes = Dispatcher::with_limits(self.random.random(), self.plan.limits);
        self.process += 1;
        self.open = None;
        self.failed.clear();
        self.suspects.clear();
        (self.failed_in_a_row, self.got_through) = (0, 0);
        for entry in &mut self.log[self.settled..] {
            (entry.confirmed, entry.refusals, entry.again) = (0, 0, 0);
        }
        if process {
            self.inbox.clear();
            self.overflowed = false;
            self.marks.clear();
            self.told = self.log.len();
            self.events.retain(|_, event| !matches!(event, Event::Told(_)));
        }
    }

    // What must hold.

    /// The first change that is not known to be published; `None`: all are.
    fn first_left(&self, todo: TodoId) -> Option<&Entry> {
        let left = |seq: &&i64| self.log[**seq as usize - 1].state != Some(DeliveryState::Published);
        self.todos.get(&todo)?.iter().find(left).map(|seq| &self.log[*seq as usize - 1])
    }

    /// Whether everything is published, but for what waits for an operator and what is of the pulse.
    fn done(&self) -> bool {
        let mut parked = HashSet::from([TodoId(0)]);
        self.log[self.settled..].iter().filter(|entry| entry.state != Some(DeliveryState::Published)).all(|entry| {
            let todo = entry.change.todo.id;
            parked.contains(&todo) || (entry.state.is_some() && parked.insert(todo))
        })
    }

    fn assert_done(&self) {
        assert!(self.quiet.is_some() && self.to_commit == 0);
        assert!(
            self.done() && self.first_left(TodoId(0)).is_none(),
            "the world ends with changes that are not published"
        );
        for (todo, versions) in &self.todos {
            let parked = self.first_left(*todo).map(|entry| entry.change.todo.version.0);
            let stored = self.stored.get(todo).copied().unwrap_or(0);
            let expected = parked.map_or(versions.len() as i64, |version| version - 1);
            let unheard = parked.is_some_and(|version| stored >= version);
            assert!(stored == expected || unheard, "of todo {todo}, Kafka has {stored} of {expected}");
            if let Some(&poison) = self.poisoned.get(todo).filter(|poison| **poison <= versions.len() as i64) {
                assert!(parked.is_some_and(|version| version <= poison), "poison is not parked");
            }
        }
        assert_eq!((self.lanes.buffered, self.lanes.in_flight(), self.lanes.suspects()), (0, 0, 0));
        assert!(self.lanes.lanes.is_empty(), "lanes are left behind");
    }

    /// The relay sleeps for good: all that it was told of waits for an operator.
    fn assert_nothing_to_do(&self) {
        let known = |seq: i64| self.log[seq as usize - 1].state.or_else(|| self.marks.get(&seq).copied());
        for entry in &self.log[self.settled.min(self.told)..self.told] {
            if known(entry.change.place.0).is_none() {
                let versions = &self.todos[&entry.change.todo.id];
                let parked = versions.iter().any(|seq| known(*seq) == Some(DeliveryState::Parked));
                assert!(parked || !self.inbox.is_empty(), "change {} is forgotten", entry.change.place.0);
            }
        }
    }

    /// `wake_at` is when `start` has something to do again: not before, and then really.
    fn look_into_the_future(&mut self, wake: Option<u64>) {
        if !self.random.random_ratio(1, if self.lanes.buffered > 100 { 4096 } else { 32 }) {
            return;
        }
        let mut future = self.lanes.clone();
        let mut does = |at: u64| {
            let (hungry, breaker) = (future.hungry.len(), future.breaker.clone());
            future.start(at).is_some() || future.hungry.len() > hungry || future.breaker != breaker
        };
        match wake {
            Some(wake) if wake > self.now => {
                assert!(!does(wake - 1), "something to do before {wake}");
                assert!(does(wake), "nothing to do at {wake}");
            }
            Some(_) => assert!(does(self.now)),
            None => assert!(!does(u64::MAX / 2), "something to do, and no wake-up"),
        }
    }

    /// The machine's own books.
    fn assert_consistent(&self) {
        let Dispatcher { lanes, ready, backlog, retrying, hungry, reading, suspects, .. } = &self.lanes;
        assert_eq!(self.lanes.buffered, lanes.values().map(|lane| lane.queue.len()).sum::<usize>());
        assert_eq!(self.lanes.in_flight, lanes.values().filter(|lane| lane.since.is_some()).count());
        suspects.assert_consistent();
        let is_suspect = |todo: &TodoId| suspects.contains(*todo);
        assert!(lanes.keys().filter(|todo| is_suspect(todo)).count() == suspects.len(), "a suspect has no lane");
        assert!(retrying.iter().all(is_suspect) && !ready.iter().chain(backlog).any(is_suspect));
        // Every lane is in one place.
        let queued = [ready, backlog, retrying, hungry].into_iter().flatten().copied();
        let waiting = suspects.waiting();
        // A lane that was parked while it was read for is gone.
        let read_for = reading.iter().flatten().copied().filter(|todo| lanes.contains_key(todo));
        let flying = lanes.iter().filter(|(_, lane)| lane.since.is_some()).map(|(todo, _)| *todo);
        let mut places: Vec<TodoId> = queued.chain(waiting).chain(read_for).chain(flying).collect();
        places.sort_unstable();
        let mut all: Vec<TodoId> = lanes.keys().copied().collect();
        all.sort_unstable();
        assert_eq!(places, all);
        for (todo, lane) in lanes {
            assert!(lane.queue.len() <= self.plan.limits.lane);
            assert!(!self.lanes.parked.contains(todo));
            let versions: Vec<i64> = lane.queue.iter().map(|change| change.todo.version.0).collect();
            let contiguous: Range<i64> = lane.last.0 + 1 - versions.len() as i64..lane.last.0 + 1;
            assert!(versions.iter().copied().eq(contiguous), "versions {versions:?} up to {}", lane.last);
        }
    }

    // Chance and time.

    /// From 0 to `most`; always 0 if that is 0.
    fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..=most)
    }

    fn after(&mut self, wait: u64, event: Event) -> (u64, u64) {
        self.at(self.now + wait, event)
    }

    fn at(&mut self, at: u64, event: Event) -> (u64, u64) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
        (at, self.planned)
    }
}

fn template() -> Arc<Change> {
    let todo = Todo {
        id: TodoId(0),
        owner: UserId(1),
        version: Version(0),
        title: "t".into(),
        description: None,
        completed: false,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    Arc::new(Change {
        place: Place(0),
        epoch: Epoch(1),
        revision: Revision(0),
        kind: Kind::Updated,
        at: Timestamp(0),
        actor: "a".into(),
        changed: Vec::new(),
        trace: TraceParent::random(),
        todo: Arc::new(todo),
    })
}
