//! The relay's decisions in thousands of simulated worlds: a log, an inbox that overflows, a sidecar that refuses,
//! fails, answers late or not at all, all todos or some, events that nobody takes, and a process that dies. Time is
//! simulated, too.
//!
//! Or several processes on one log, which share the todos by leases that move at any moment, also without notice.
//!
//! `RELAY_SEEDS=1000000` runs more worlds than usual; a failure names its seed, and `RELAY_SEED=…` runs that one alone.

mod cases;
mod world;

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use world::{Event, NameOnPanic, Plan, SEEDS, SHARED_SEEDS, Totals, Weather, World, template};

/// Plays worlds from `RELAY_SEED`, or as many as `RELAY_SEEDS` says.
fn play_worlds(usual: u64, name: &'static str, world: impl Fn(u64) -> World + Sync) -> (Totals, bool) {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("RELAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RELAY_SEEDS").unwrap_or(usual),
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8));
    let totals = std::thread::scope(|scope| {
        let run = |first: usize| {
            let mut total = Totals::default();
            for seed in seeds.clone().skip(first).step_by(threads) {
                let name = NameOnPanic(name, seed);
                total.add(world(seed).run());
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
    (totals, seeds.end - seeds.start >= usual)
}

#[test]
fn every_change_gets_through_in_order_whatever_fails() {
    let (totals, usual) = play_worlds(SEEDS, "every_change", World::new);
    if usual {
        totals.assert_that_everything_happened(false);
    }
}

#[test]
fn processes_that_share_the_work_keep_the_order_whoever_has_the_leases() {
    let (totals, usual) = play_worlds(SHARED_SEEDS, "share_the_work", World::shared);
    if usual {
        totals.assert_that_everything_happened(true);
    }
}

/// Fresh todos, 100 a second for 25 seconds; the service's own limits.
fn fresh_todos(random: &mut SmallRng, latency: u64) -> Plan {
    Plan {
        after: 2_500,
        latency,
        reading: random.random_range(0..20),
        announced_late: random.random_range(0..20),
        ..Plan::ALONE
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
    let name = NameOnPanic("", seed);
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
        let world = partial_outage(seed, Failure::NoAnswer, 3, None);
        assert!(world.longest_wait <= 2_500, "the others waited {} ms", world.longest_wait);
    }
}

#[test]
fn new_todos_do_not_wait_behind_a_backlog_that_hangs() {
    let mut random = SmallRng::seed_from_u64(1);
    let plan = Plan { before: 20_000, after: 4_000, ..fresh_todos(&mut random, 20) };
    let mut world = World::planned(plan, BTreeMap::new(), random);
    world.bad = Some(1..=20_000);
    world.at(0, Event::Weather(Weather::Partly(Failure::NoAnswer, 1)));
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
    // Many todos with a change each: a thousand at a time. And not so many with many: as many as are free at that
    // moment.
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
