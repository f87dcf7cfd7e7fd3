//! The relay's decisions in thousands of simulated worlds: a log, an inbox that overflows, a sidecar that refuses, fails,
//! answers late or not at all, events that nobody takes, and a process that dies. Time is simulated, too.
//!
//! `RELAY_SEEDS=1000000` runs more worlds than usual; a failure names its seed, and `RELAY_SEED=…` runs that one alone.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::*;
use crate::clock::Timestamp;
use crate::store::outbox::Mark;
use crate::store::{Epoch, Kind};
use crate::todos::model::Todo;
use crate::trace::TraceParent;

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
    outages: u64,
}

impl Totals {
    fn counts(&mut self) -> [&mut u64; 14] {
        let Self { changes, attempts, duplicates, timeouts, restarts, readings, failed_readings, .. } = self;
        let Self { overflows, parked, parked_good, parked_while_reading, full, full_lanes, outages, .. } = self;
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
            outages,
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
        let held = lane * random.random_range(2..=6);
        let limits = match big {
            true => Limits { in_flight: IN_FLIGHT, held: HELD, lane: LANE },
            false => Limits { in_flight: random.random_range(1..=8), held, lane },
        };
        let changes = if big { HELD + random.random_range(0..HELD / 2) } else { random.random_range(1..60) };
        let before = if random.random_bool(0.5) { random.random_range(0..=changes) } else { 0 };
        Self {
            limits,
            inbox: if big { HELD } else { random.random_range(2..40) },
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
    state: Option<Mark>,
    /// No sidecar ever takes it.
    poison: bool,
    /// Refusals that another todo's success followed, and whether there was one since; of this process.
    confirmed: u32,
    refused: bool,
    /// After a refusal: when it may be sent again, at the earliest.
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
    Answer(i64, Result),
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
    limit: usize,
    skip: HashMap<TodoId, Skip>,
    marked: BTreeMap<i64, Mark>,
    pending: Option<Pending>,
}

/// A publish that the process waits for.
struct Flight {
    seq: i64,
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
    lanes: Lanes,
    inbox: Vec<Arc<Change>>,
    overflowed: bool,
    told: usize,
    marks: BTreeMap<i64, Mark>,
    marks_planned: bool,
    reading: Option<Reading>,
    flights: BTreeMap<TodoId, Flight>,
    refused: HashSet<i64>,
    /// After a failure: when a probe may start, at the earliest, and the todo of the one that did.
    open: Option<(u64, Option<TodoId>)>,
    /// Attempts of this outage that were let through by the breaker, its begin, and how often it was opened from outside.
    probes: u64,
    outage_began: u64,
    ready_signals: u64,
    totals: Totals,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let plan = Plan::new(&mut random, seed % BIG_EVERY == BIG_EVERY - 1);
        let lanes = Lanes::with_limits(random.random(), plan.limits);
        // More changes behind poison than half of what is held would keep the rest in the log.
        let most = plan.limits.held / 2 / plan.limits.lane;
        let poisoned = match random.random_bool(0.5) {
            true => random.random_range(0..=most.min(6)),
            false => 0,
        };
        let todos = plan.todos;
        let poisoned = (0..poisoned).map(|_| (random.random_range(1..=todos), random.random_range(1..6))).collect();
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
            refused: HashSet::new(),
            open: None,
            probes: 0,
            outage_began: 0,
            ready_signals: 0,
            totals: Totals::default(),
            plan,
            random,
        };
        for _ in 0..world.plan.before {
            world.commit_one();
        }
        world.told = world.log.len();
        world.plan_events();
        world
    }

    fn plan_events(&mut self) {
        self.at(0, Event::Commit);
        let mut end = 1 + self.plan.pause * (self.plan.after / self.plan.group) as u64;
        for _ in 0..self.plan.outages {
            let from = self.random.random_range(0..2 * end);
            let most = *choose(&mut self.random, &[1_000, 20_000, 300_000]);
            let until = from + self.random.random_range(1..most);
            let weather = *choose(&mut self.random, &[Weather::Refusing, Weather::Away, Weather::Silent]);
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
        self.totals
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
            let changes = std::mem::take(&mut self.inbox);
            self.lanes.committed(changes, std::mem::take(&mut self.overflowed));
            self.start_reading();
        }
        while let Some(change) = self.lanes.start(self.now) {
            self.publish(&change);
        }
        assert!(self.lanes.held() <= self.plan.limits.held, "holds too much");
        assert!(self.lanes.in_flight() <= self.plan.limits.in_flight, "too many in flight");
        assert_eq!(self.lanes.in_flight(), self.flights.len());
        assert!(self.lanes.wake_at().is_none_or(|wake| wake > self.now), "woken for nothing");
        self.totals.full += u64::from(self.lanes.held() == self.plan.limits.held);
        if self.random.random_ratio(1, if self.lanes.held() > 100 { 4096 } else { 32 }) {
            self.assert_consistent();
        }
        if self.flights.is_empty() && self.reading.is_none() && self.lanes.wake_at().is_none() {
            self.assert_nothing_to_do();
        }
    }

    fn start_reading(&mut self) {
        let Some((limit, skip)) = self.lanes.start_reading() else { return };
        assert!(limit > 0 && limit <= self.plan.limits.held);
        self.totals.readings += 1;
        self.reading = Some(Reading { limit, skip, marked: self.marks.clone(), pending: None });
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
        let (todo, seq) = (change.todo.id, change.seq);
        self.totals.attempts += 1;
        self.check_breaker(todo);
        let before = self.stored.get(&todo).copied().unwrap_or(0);
        assert!(before >= change.todo.version - 1, "{todo}-{} is sent before an earlier one", change.todo.version);
        let entry = &self.log[seq as usize - 1];
        let poison = entry.poison;
        assert!(self.now >= entry.again, "a refused change is sent again at once");
        let again = entry.acknowledged_by == Some(self.process);
        assert!(!again, "{todo}-{} is sent again after it was stored", change.todo.version);
        let quiet = self.quiet.is_some();
        let bad_luck: f64 = if quiet { 1.0 } else { self.random.random() };
        let (refused, failed) = (self.plan.refused, self.plan.refused + self.plan.failed);
        let latency = 1 + self.up_to(self.plan.latency);
        // What the client sees, when, and when it lands in Kafka, if it does.
        let (result, answer, land) = match self.weather {
            Weather::Silent => (Result::Failed, TIMEOUT, self.up_to(2 * LATE)),
            Weather::Refusing => (Result::Refused, latency, u64::MAX),
            Weather::Away => (Result::Failed, latency, u64::MAX),
            Weather::Fine if poison || bad_luck < refused => (Result::Refused, latency, u64::MAX),
            Weather::Fine if bad_luck < failed => (Result::Failed, latency, u64::MAX),
            Weather::Fine if bad_luck < failed + self.plan.silent => (Result::Failed, TIMEOUT, self.up_to(2 * LATE)),
            Weather::Fine => (Result::Stored, latency, self.up_to(latency)),
        };
        self.totals.timeouts += u64::from(answer == TIMEOUT);
        // Whatever is later than it ever was is taken as never.
        let land = (land <= LATE && !poison).then(|| self.at(self.now + land, Event::Land(seq)));
        let answer = self.at(self.now + answer, Event::Answer(seq, result));
        let other = self.flights.insert(todo, Flight { seq, answer, land });
        assert!(other.is_none(), "two changes of todo {todo} are in flight");
    }

    /// With the breaker open, only one probe at a time, not at once, and ever less often.
    fn check_breaker(&mut self, todo: TodoId) {
        let Some((until, probe)) = &mut self.open else { return };
        assert!(self.now >= *until, "probes {} ms too early", *until - self.now);
        assert!(probe.is_none(), "probes while another probe is in flight");
        *probe = Some(todo);
        self.probes += 1;
        let lasted = self.now - self.outage_began;
        let most = 25 + lasted / 5_000 + 2 * self.ready_signals;
        assert!(self.probes <= most, "{} probes in an outage of {lasted} ms", self.probes);
    }

    fn answered(&mut self, seq: i64, result: Result) {
        let todo = self.log[seq as usize - 1].change.todo.id;
        self.flights.remove(&todo);
        let before = self.lanes.parked();
        let verdict = self.lanes.finish(todo, result, self.now);
        match result {
            Result::Stored => {
                assert_eq!(verdict.published, Some(seq));
                self.log[seq as usize - 1].acknowledged_by = Some(self.process);
                self.marks.insert(seq, Mark::Published);
                self.refused.remove(&seq);
                let others: Vec<i64> =
                    self.refused.extract_if(|refused| self.log[*refused as usize - 1].change.todo.id != todo).collect();
                for other in others {
                    let entry = &mut self.log[other as usize - 1];
                    entry.confirmed += 1;
                    entry.refused = false;
                    let parks = entry.confirmed >= REFUSALS && !self.flights.contains_key(&entry.change.todo.id);
                    assert_eq!(verdict.parked.contains(&other), parks);
                }
                self.open = None;
                assert!(self.lanes.healthy());
            }
            Result::Refused | Result::Failed => {
                assert_eq!(verdict.published, None);
                if result == Result::Refused {
                    let entry = &mut self.log[seq as usize - 1];
                    entry.refused = true;
                    entry.again = self.now + (BACKOFF.0 << entry.confirmed.min(REFUSALS));
                    self.refused.insert(seq);
                    assert_eq!(!verdict.parked.is_empty(), entry.confirmed >= REFUSALS);
                }
                let probe = match self.open {
                    None => {
                        (self.probes, self.outage_began, self.ready_signals) = (0, self.now, 0);
                        true
                    }
                    Some((_, probe)) => probe == Some(todo),
                };
                if probe {
                    self.open = Some((self.now + BACKOFF.0, None));
                }
                assert!(!self.lanes.healthy());
            }
        }
        assert!(result != Result::Failed || verdict.parked.is_empty(), "a timeout parks");
        assert_eq!(self.lanes.parked(), before + verdict.parked.len());
        for &seq in &verdict.parked {
            self.parked(seq);
        }
        self.plan_marks();
    }

    fn parked(&mut self, seq: i64) {
        let entry = &self.log[seq as usize - 1];
        let todo = &entry.change.todo;
        assert!(entry.confirmed >= REFUSALS, "parked after {} confirmed refusals", entry.confirmed);
        assert!(!self.flights.contains_key(&todo.id), "parked while in flight");
        // It may be stored, too: by an attempt that nobody heard of again.
        let stored = self.stored.get(&todo.id).copied().unwrap_or(0);
        assert!(stored == todo.version - 1 || stored == todo.version, "not the first change is parked");
        // Each outage confirms one refusal when it ends.
        let enough_outages = self.plan.outages >= REFUSALS as usize;
        assert!(entry.poison || self.plan.refused > 0.0 || enough_outages, "a good change is parked");
        self.totals.parked += 1;
        self.totals.parked_good += u64::from(!entry.poison);
        self.totals.parked_while_reading += u64::from(self.reading.is_some());
        self.refused.remove(&seq);
        self.marks.insert(seq, Mark::Parked);
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
                let pending = self.reading.take().unwrap().pending;
                self.totals.full_lanes += pending.as_ref().map_or(0, |pending| pending.truncated.len() as u64);
                self.lanes.finish_reading(pending);
                return true;
            }
            Event::Weather(weather) => {
                self.weather = weather;
                self.totals.outages += u64::from(weather != Weather::Fine);
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
                    self.append(0);
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
        let todo = if hot { 1 } else { self.random.random_range(1..=self.plan.todos) };
        self.append(todo);
    }

    fn append(&mut self, todo: TodoId) {
        let versions = self.todos.entry(todo).or_default();
        let (seq, version) = (self.log.len() as i64 + 1, versions.len() as i64 + 1);
        versions.push(seq);
        let poison = self.poisoned.get(&todo) == Some(&version);
        let todo = Arc::new(Todo { id: todo, version, ..Todo::clone(&self.template.todo) });
        let change = Arc::new(Change { seq, revision: seq, todo, ..Change::clone(&self.template) });
        self.log.push(Entry {
            change,
            state: None,
            poison,
            confirmed: 0,
            refused: false,
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
        while self.log.get(self.settled).is_some_and(|entry| entry.state == Some(Mark::Published)) {
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
        assert!(todo.version <= *last + 1, "{}-{} comes after version {last}", todo.id, todo.version);
        self.totals.duplicates += u64::from(todo.version <= *last);
        *last = todo.version.max(*last);
    }

    /// Reads the log, as [`crate::store::Store::pending`] is documented.
    fn snapshot(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        let unsettled = &self.log[self.settled..];
        let parked = unsettled.iter().filter(|entry| entry.state == Some(Mark::Parked));
        let mut pending = Pending {
            parked: parked.map(|e| e.change.todo.id).collect(),
            through: self.log.len() as i64,
            ..Pending::default()
        };
        for entry in unsettled.iter().filter(|entry| entry.state.is_none()) {
            let (seq, todo) = (entry.change.seq, &entry.change.todo);
            match reading.marked.get(&seq) {
                Some(Mark::Published) => continue,
                Some(Mark::Parked) => pending.parked.insert(todo.id),
                None => false,
            };
            if pending.parked.contains(&todo.id) || pending.truncated.contains(&todo.id) {
                continue;
            }
            if pending.changes.len() == reading.limit {
                pending.more = true;
                break;
            }
            let skip = reading.skip.entry(todo.id).or_insert(Skip { last: 0, room: self.plan.limits.lane });
            if todo.version <= skip.last {
                continue;
            }
            if skip.room == 0 {
                pending.truncated.insert(todo.id);
            } else {
                *skip = Skip { last: todo.version, room: skip.room - 1 };
                pending.changes.push(Arc::clone(&entry.change));
            }
        }
        reading.pending = Some(pending);
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
        self.lanes = Lanes::with_limits(self.random.random(), self.plan.limits);
        self.process += 1;
        self.open = None;
        self.refused.clear();
        for entry in &mut self.log[self.settled..] {
            (entry.confirmed, entry.refused, entry.again) = (0, false, 0);
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
        let left = |seq: &&i64| self.log[**seq as usize - 1].state != Some(Mark::Published);
        self.todos.get(&todo)?.iter().find(left).map(|seq| &self.log[*seq as usize - 1])
    }

    /// Whether everything is published, but for what waits for an operator and what is of the pulse.
    fn done(&self) -> bool {
        let mut parked = HashSet::from([0]);
        self.log[self.settled..].iter().filter(|entry| entry.state != Some(Mark::Published)).all(|entry| {
            let todo = entry.change.todo.id;
            parked.contains(&todo) || (entry.state.is_some() && parked.insert(todo))
        })
    }

    fn assert_done(&self) {
        assert!(self.quiet.is_some() && self.to_commit == 0);
        assert!(self.done() && self.first_left(0).is_none(), "the world ends with changes that are not published");
        for (todo, versions) in &self.todos {
            let parked = self.first_left(*todo).map(|entry| entry.change.todo.version);
            let stored = self.stored.get(todo).copied().unwrap_or(0);
            let expected = parked.map_or(versions.len() as i64, |version| version - 1);
            let unheard = parked.is_some_and(|version| stored == version);
            assert!(stored == expected || unheard, "of todo {todo}, Kafka has {stored} of {expected}");
            if let Some(&poison) = self.poisoned.get(todo).filter(|poison| **poison <= versions.len() as i64) {
                assert!(parked.is_some_and(|version| version <= poison), "poison is not parked");
            }
        }
        assert_eq!((self.lanes.held(), self.lanes.in_flight()), (0, 0));
        assert!(self.lanes.lanes.is_empty(), "lanes are left behind");
    }

    /// The relay sleeps for good: all that it was told of waits for an operator.
    fn assert_nothing_to_do(&self) {
        let known = |seq: i64| self.log[seq as usize - 1].state.or_else(|| self.marks.get(&seq).copied());
        for entry in &self.log[self.settled.min(self.told)..self.told] {
            if known(entry.change.seq).is_none() {
                let versions = &self.todos[&entry.change.todo.id];
                let parked = versions.iter().any(|seq| known(*seq) == Some(Mark::Parked));
                assert!(parked || !self.inbox.is_empty(), "change {} is forgotten", entry.change.seq);
            }
        }
    }

    /// `wake_at` is when `start` has something again: not before, and then really.
    fn look_into_the_future(&mut self, wake: Option<u64>) {
        if !self.random.random_ratio(1, if self.lanes.held() > 100 { 4096 } else { 32 }) {
            return;
        }
        let mut future = self.lanes.clone();
        match wake {
            Some(wake) if wake > self.now => {
                assert!(future.start(wake - 1).is_none(), "something to send before {wake}");
                assert!(future.start(wake).is_some(), "nothing to send at {wake}");
            }
            Some(_) => assert!(future.start(self.now).is_some()),
            None => assert!(future.start(u64::MAX / 2).is_none(), "something to send, and no wake-up"),
        }
    }

    /// The machine's own books.
    fn assert_consistent(&self) {
        let Lanes { lanes, ready, waiting, .. } = &self.lanes;
        assert_eq!(self.lanes.held, lanes.values().map(|lane| lane.queue.len()).sum::<usize>());
        assert_eq!(self.lanes.in_flight, lanes.values().filter(|lane| lane.in_flight).count());
        let starved = lanes.values().filter(|lane| lane.queue.is_empty() && lane.truncated).count();
        assert_eq!(self.lanes.starved, starved);
        let mut sendable: Vec<TodoId> = ready.iter().copied().chain(waiting.iter().map(|(_, todo)| *todo)).collect();
        sendable.sort_unstable();
        let mut expected: Vec<TodoId> =
            lanes.iter().filter(|(_, lane)| !lane.in_flight && !lane.queue.is_empty()).map(|(todo, _)| *todo).collect();
        expected.sort_unstable();
        assert_eq!(sendable, expected);
        for (todo, lane) in lanes {
            assert!(lane.queue.len() <= self.plan.limits.lane);
            assert!(!self.lanes.parked.contains(todo));
            let versions: Vec<i64> = lane.queue.iter().map(|change| change.todo.version).collect();
            let contiguous: Range<i64> = lane.last + 1 - versions.len() as i64..lane.last + 1;
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
        id: 0,
        owner: 1,
        version: 0,
        title: "t".into(),
        description: None,
        completed: false,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    };
    Arc::new(Change {
        seq: 0,
        epoch: Epoch(1),
        revision: 0,
        kind: Kind::Updated,
        at: Timestamp(0),
        actor: "a".into(),
        changed: Vec::new(),
        trace: TraceParent::random(),
        todo: Arc::new(todo),
    })
}
