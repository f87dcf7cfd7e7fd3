//! Single decisions, one at a time.

use super::*;
use crate::domain::change::{Place, Revision};
use crate::domain::todo::Todo;
use crate::store::outbox::Discovered;

/// A dispatcher to which these changes were announced, and which knows that there are no others.
fn with_announced(limits: Limits, log: &[Arc<Change>]) -> Dispatcher {
    let mut dispatcher = Dispatcher::with_limits(1, Parts::ALL, limits);
    assert!(dispatcher.start_reading().is_some());
    let nothing = Discovered { todos: Vec::new(), parked: HashSet::new(), read_through: Cursor::START, more: false };
    dispatcher.finish_reading(Some(Found { fed: Vec::new(), discovered: Some(nothing) }));
    dispatcher.committed(log.to_vec(), false);
    dispatcher
}

/// The log of todos that get `rounds` changes each, by turns.
fn log_of(todos: RangeInclusive<i64>, rounds: i64) -> Vec<Arc<Change>> {
    let template = template();
    let by_turns = (1..=rounds).flat_map(|version| todos.clone().map(move |todo| (todo, version)));
    let change = |((id, version), place): ((i64, i64), i64)| {
        let todo = Arc::new(Todo { id: TodoId(id), version: Version(version), ..Todo::clone(&template.todo) });
        Arc::new(Change { place: Place(place), revision: Revision(place), todo, ..Change::clone(&template) })
    };
    by_turns.zip(1..).map(change).collect()
}

/// Reads what is wanted, if something is: of which todos.
fn read(dispatcher: &mut Dispatcher, log: &[Arc<Change>]) -> Vec<i64> {
    let Some(wanted) = dispatcher.start_reading() else { return Vec::new() };
    let (mut found, mut room) = (Found::default(), wanted.room);
    for want in &wanted.wants {
        if room == 0 {
            break;
        }
        let pending = log.iter().filter(|change| change.todo.id == want.todo && change.todo.version > want.above);
        let limit = want.limit.min(room);
        let changes: Vec<_> = pending.clone().take(limit).cloned().collect();
        room -= changes.len();
        found.fed.push(Fed { todo: want.todo, changes, more: pending.count() > limit, parked: false });
    }
    dispatcher.finish_reading(Some(found));
    wanted.wants.iter().map(|want| want.todo.0).collect()
}

/// What became of the change that was sent of this todo.
fn finish(dispatcher: &mut Dispatcher, todo: i64, result: PublishResult, now: u64) -> Verdict {
    dispatcher.finish(TodoId(todo), result, now)
}

/// Sends the next change: its todo.
fn send(dispatcher: &mut Dispatcher, now: u64) -> Option<i64> {
    dispatcher.start(now).map(|change| change.todo.id.0)
}

/// Few of everything.
const FEW: Limits = Limits { in_flight: 1, failures: 1, hanging: 0, suspects: 1, buffered: 20, lane: 3, reading: 3 };

#[test]
fn todos_take_turns_in_memory_and_in_what_is_read_of_them() {
    let log = log_of(1..=3, 9);
    let mut dispatcher = with_announced(FEW, &log);
    let mut sent = Vec::new();
    loop {
        let Some(todo) = send(&mut dispatcher, 0) else {
            if read(&mut dispatcher, &log).is_empty() {
                break;
            }
            continue;
        };
        finish(&mut dispatcher, todo, PublishResult::Stored, 0);
        sent.push(todo);
    }
    let by_reading = [1, 1, 1, 2, 2, 2, 3, 3, 3];
    assert_eq!(sent, [[1, 2, 3, 1, 2, 3, 1, 2, 3], by_reading, by_reading].concat());
}

#[test]
fn a_suspect_is_read_and_sent_before_others_however_many_there_are() {
    let log = log_of(1..=3, 9);
    let mut dispatcher = with_announced(Limits { in_flight: 2, lane: 1, ..FEW }, &log);
    assert_eq!([send(&mut dispatcher, 0), send(&mut dispatcher, 0)], [Some(1), Some(2)]);
    finish(&mut dispatcher, 1, PublishResult::Refused, 0);
    finish(&mut dispatcher, 2, PublishResult::Stored, 0);
    assert_eq!(send(&mut dispatcher, 0), Some(3));
    finish(&mut dispatcher, 3, PublishResult::Stored, 0);
    assert_eq!(send(&mut dispatcher, 1000), None, "all have to be read");
    assert_eq!(read(&mut dispatcher, &log), [1, 2, 3]);
    assert_eq!(send(&mut dispatcher, 1000), Some(1));
}

#[test]
fn a_lane_that_fails_alone_waits_ever_longer_until_another_gets_through() {
    let log = log_of(1..=1, 1);
    let mut dispatcher = with_announced(Limits::REAL, &log);
    let (mut now, mut waits) = (0, Vec::new());
    loop {
        assert_eq!(send(&mut dispatcher, now), Some(1));
        finish(&mut dispatcher, 1, PublishResult::Refused, now);
        if waits.len() == 8 {
            break;
        }
        let due = dispatcher.wake_at().unwrap();
        waits.push((due - now) / 1000);
        now = due;
        assert_eq!(send(&mut dispatcher, now), None, "it is read first");
        assert_eq!(read(&mut dispatcher, &log), [1]);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
    // All that was one outage, and one failure.
    let other = log_of(1..=2, 1).split_off(1);
    dispatcher.committed(other, false);
    assert_eq!(send(&mut dispatcher, now), Some(2));
    finish(&mut dispatcher, 2, PublishResult::Stored, now);
    assert_eq!(dispatcher.wake_at(), Some(now + 1000));
}

#[test]
fn a_lane_that_is_parked_while_it_waits_for_its_turn_leaves_nothing_behind() {
    for reads in [false, true] {
        let log = log_of(1..=2, 9);
        let mut dispatcher = with_announced(Limits { in_flight: 2, lane: 9, ..FEW }, &log);
        let mut now = 0;
        for refusals in 1..=MAX_REFUSALS {
            assert_eq!([send(&mut dispatcher, now), send(&mut dispatcher, now)], [Some(1), Some(2)]);
            finish(&mut dispatcher, 1, PublishResult::Refused, now);
            if refusals < MAX_REFUSALS {
                assert!(finish(&mut dispatcher, 2, PublishResult::Stored, now).parked.is_empty());
            }
            now += 40_000;
            dispatcher.activate_suspects(now);
            if refusals < MAX_REFUSALS || reads {
                assert_eq!(read(&mut dispatcher, &log), [1]);
            }
        }
        // It could be sent, or is to be read, when the other's success parks it.
        let verdict = finish(&mut dispatcher, 2, PublishResult::Stored, now);
        assert_eq!((verdict.parked, dispatcher.suspects(), dispatcher.parked.len()), (vec![Place(1)], 0, 1));
        assert!(dispatcher.start_reading().is_none());
        assert_eq!(send(&mut dispatcher, now), Some(2));
    }
}

/// A machine whose breaker has just opened, at 0, because todo 1 was refused; the others wait.
fn opened(seed: u64, log: &[Arc<Change>]) -> (Dispatcher, u64) {
    let mut dispatcher = Dispatcher { breaker: Breaker::new(seed), ..with_announced(FEW, log) };
    assert_eq!(send(&mut dispatcher, 0), Some(1));
    finish(&mut dispatcher, 1, PublishResult::Refused, 0);
    assert!(!dispatcher.healthy());
    let until = dispatcher.breaker.admits_at();
    (dispatcher, until)
}

#[test]
fn the_breaker_waits_a_random_time_or_until_the_sidecar_is_ready() {
    let log = log_of(1..=2, 1);
    let waits: HashSet<u64> = (0..50).map(|seed| opened(seed, &log).1).collect();
    assert!(waits.len() > 10 && waits.iter().all(|wait| (100..=200).contains(wait)), "{waits:?}");
    let (mut dispatcher, _) = opened(1, &log);
    assert_eq!(send(&mut dispatcher, 50), None);
    dispatcher.sidecar_ready(50);
    assert_eq!(send(&mut dispatcher, 50), Some(2));
}

#[test]
fn the_breaker_waits_longer_after_new_failures_only() {
    let log = log_of(1..=1, 1);
    let (mut dispatcher, _) = opened(1, &log);
    let mut now = 0;
    for _ in 0..20 {
        now += 40_000;
        assert_eq!(send(&mut dispatcher, now), None, "it is read first");
        assert_eq!(read(&mut dispatcher, &log), [1]);
        assert_eq!(send(&mut dispatcher, now), Some(1));
        finish(&mut dispatcher, 1, PublishResult::Refused, now);
        let until = dispatcher.breaker.admits_at();
        assert!((100..=200).contains(&(until - now)), "a suspect's failure made it wait {} ms", until - now);
    }
}
