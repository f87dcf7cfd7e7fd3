//! Marks, and what the relay reads.

use super::*;

#[test]
fn a_mark_is_committed_with_the_next_change() {
    let f = Fixture::new();
    f.create(1, "a");
    f.mark(1, DeliveryState::Published);
    f.create(1, "b");
    assert_eq!(states(&f), [1, 0]);
    assert!(f.outbox().marks().is_empty());
    assert_eq!(f.outbox().pending(), 1);
}

#[test]
fn a_mark_is_committed_soon_even_if_nothing_changes() {
    let f = Fixture::new();
    f.create(1, "a");
    f.mark(1, DeliveryState::Published);
    f.wait_until("the mark", |f| states(f) == [1] && f.outbox().marks().is_empty() && f.outbox().pending() == 0);
}

#[test]
fn refused_commands_do_not_keep_marks_waiting() {
    let f = Fixture::new();
    f.create(1, "a");
    f.mark(1, DeliveryState::Published);
    assert_eq!(f.apply(1, vec![delete(9)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(states(&f), [1]);
}

#[test]
fn parked_changes_are_not_counted_as_pending_before_and_after_a_restart() {
    let mut f = Fixture::new();
    f.apply(1, vec![create("published"), create("parked"), create("waits"), rename(2, "waits behind")]).unwrap();
    f.mark(1, DeliveryState::Published);
    f.mark(2, DeliveryState::Parked);
    f.apply(1, vec![delete(9)]).unwrap_err();
    assert_eq!(states(&f), [1, 2, 0, 0]);
    assert_eq!(f.outbox().pending(), 2);
    f.reopen();
    assert_eq!(f.outbox().pending(), 2);
}

/// A log entry as the model of [`Store::read_outbox`] sees it.
struct Logged {
    seq: i64,
    todo: i64,
    version: i64,
    durable: Option<DeliveryState>,
    marked: Option<DeliveryState>,
}

#[test]
fn the_relay_reads_what_it_wants_and_discovers_what_it_does_not_know() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let f = Fixture::new();
        let todos = random.random_range(1..6);
        let mut log: Vec<Logged> = Vec::new();
        let mut batch: Vec<Command> = (0..todos).map(|_| create("new")).collect();
        // Some todos get more changes than fit into a lane.
        batch.extend((0..random.random_range(0..400)).map(|_| rename(random.random_range(1..=todos), "again")));
        for change in f.apply(1, batch).unwrap() {
            log.push(Logged {
                seq: nth(change.place),
                todo: change.todo.id.0,
                version: change.todo.version.0,
                durable: None,
                marked: None,
            });
        }
        // Of each todo, a beginning is published and then maybe one is parked; part of that is durable.
        for todo in 1..=todos {
            let mut of_todo: Vec<&mut Logged> = log.iter_mut().filter(|entry| entry.todo == todo).collect();
            let published = random.random_range(0..=of_todo.len());
            of_todo[..published].iter_mut().for_each(|entry| entry.marked = Some(DeliveryState::Published));
            if published < of_todo.len() && random.random_bool(0.3) {
                of_todo[published].marked = Some(DeliveryState::Parked);
            }
            let durable = random.random_range(0..=of_todo.len());
            for entry in &mut of_todo[..durable] {
                entry.durable = entry.marked.take();
            }
        }
        for entry in &log {
            entry.durable.into_iter().for_each(|mark| f.mark(entry.seq, mark));
        }
        assert_eq!(f.apply(1, vec![rename(99, "commits the marks")]), Err(StoreError::Refused(Refusal::TodoNotFound)));
        // Held: so that no tick commits what is to be uncommitted.
        let (gate, held) = f.hold();
        for entry in &log {
            entry.marked.into_iter().for_each(|mark| f.mark(entry.seq, mark));
        }
        let read = if random.random_bool(0.3) { 0 } else { random.random_range(0..=log.len() as i64) };
        let want = |todo| Want {
            todo: TodoId(todo),
            above: Version(random.random_range(0..120)),
            limit: random.random_range(1..=100),
        };
        let wants: Vec<Want> = (1..=todos).map(want).collect();
        let (room, discover) = (random.random_range(1..=400), random.random_range(0..=todos as usize));
        let announced = random.random_range(read..=log.len() as i64);
        let [read, announced] =
            [read, announced].map(|place| if place == 0 { Cursor::START } else { Cursor::up_to(Place(place)) });
        let wanted =
            Wanted { read_through: read, announced_through: announced, wants, room, discover, parts: Parts::ALL };
        compare(&f.read_outbox(&wanted).unwrap(), &log, &wanted, seed, f.is_shared());
        drop(gate);
        held.blocking_recv().unwrap().unwrap();
    }
}

/// Compares with what [`Store::read_outbox`] promises, todo by todo.
fn compare(found: &Found, log: &[Logged], wanted: &Wanted, seed: u64, is_shared: bool) {
    let Wanted { room, discover, .. } = *wanted;
    let (read, announced) = (nth(wanted.read_through.place()), nth(wanted.announced_through.place()));
    let mut left = room;
    for (index, want) in wanted.wants.iter().enumerate() {
        let Some(fed) = found.fed.get(index) else {
            assert_eq!(left, 0, "seed {seed}: {} was left out", want.todo);
            continue;
        };
        let mut expected: Vec<i64> = log
            .iter()
            .filter(|e| e.todo == want.todo.0 && e.version > want.above.0 && e.seq <= announced)
            .filter(|e| e.durable.or(e.marked).is_none())
            .map(|entry| entry.seq)
            .collect();
        let stops = log.iter().find(|e| {
            let is_wanted = e.todo == want.todo.0 && e.version > want.above.0 && e.seq <= announced;
            is_wanted && e.durable == Some(DeliveryState::Parked) && is_shared
        });
        if let Some(parked) = stops {
            expected.retain(|seq| *seq < parked.seq);
        }
        let limit = want.limit.min(left);
        assert_eq!(fed.parked, stops.is_some() && expected.is_empty(), "seed {seed}");
        assert_eq!(fed.more, expected.len() > limit || stops.is_some(), "seed {seed}");
        expected.truncate(limit);
        assert_eq!((fed.todo, seqs(&fed.changes)), (want.todo, expected), "seed {seed}");
        left -= fed.changes.len();
    }
    let Some(discovered) = &found.discovered else {
        assert_eq!(discover, 0);
        return;
    };
    let mut expected: Vec<(TodoId, Version)> = Vec::new();
    // Whoever has read the log up to some place has read what is parked, too, or parked it; or another process has.
    let is_parked = |e: &&Logged| e.durable.or(e.marked) == Some(DeliveryState::Parked);
    let parked: HashSet<TodoId> = log
        .iter()
        .filter(|e| read == 0 || (is_shared && e.durable.is_some()))
        .filter(is_parked)
        .map(|entry| TodoId(entry.todo))
        .collect();
    assert_eq!(discovered.parked, parked, "seed {seed}");
    for entry in
        log.iter().filter(|e| e.seq > read && e.seq <= nth(discovered.read_through.place()) && e.durable.is_none())
    {
        let new = entry.marked.is_none() && expected.iter().all(|(todo, _)| todo.0 != entry.todo);
        if new && !parked.contains(&TodoId(entry.todo)) {
            expected.push((TodoId(entry.todo), Version(entry.version)));
        }
    }
    assert_eq!(discovered.todos, expected, "seed {seed}");
    if discovered.more {
        assert_eq!(discovered.todos.len(), discover, "seed {seed}");
    } else {
        assert_eq!(nth(discovered.read_through.place()), log.len() as i64, "seed {seed}");
    }
}

#[test]
fn a_todo_that_is_parked_but_not_durably_is_known_as_parked_however_little_the_first_look_sees() {
    let f = Fixture::new();
    let [_, _, poison] = ["one is enough", "stops the look", "poison"].map(|title| f.create(1, title));
    f.apply(1, vec![rename(poison.id.0, "behind it")]).unwrap();
    let look = |read| {
        f.read_outbox(&Wanted {
            read_through: read,
            announced_through: read,
            wants: Vec::new(),
            room: 0,
            discover: 1,
            parts: Parts::ALL,
        })
        .unwrap()
        .discovered
        .unwrap()
    };
    let (gate, held) = f.hold();
    f.mark(3, DeliveryState::Parked);
    let first = look(Cursor::START);
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    f.wait_until("the mark to be committed", |f| f.outbox().marks().is_empty());
    let mut parked = first.parked;
    parked.extend(look(first.read_through).parked);
    assert!(parked.contains(&poison.id), "what is behind it would be published");
}

#[test]
fn looking_for_todos_stops_after_a_bounded_number_of_changes_and_goes_on_from_there() {
    let f = Fixture::new();
    let todo = f.create(1, "busy");
    for _ in 0..21 {
        f.apply(1, (0..500).map(|_| rename(todo.id.0, "again")).collect()).unwrap();
    }
    let last = f.create(1, "late");
    let look = |read| {
        f.read_outbox(&Wanted {
            read_through: read,
            announced_through: read,
            wants: Vec::new(),
            room: 0,
            discover: 10,
            parts: Parts::ALL,
        })
        .unwrap()
        .discovered
        .unwrap()
    };
    let first = look(Cursor::START);
    assert_eq!(
        (&first.todos[..], nth(first.read_through.place()), first.more),
        (&[(todo.id, Version(1))][..], 10_000, true)
    );
    let second = look(first.read_through);
    assert_eq!((&second.todos[..], second.more), (&[(todo.id, Version(10_001)), (last.id, Version(1))][..], false));
}

fn seqs(changes: &[Arc<Change>]) -> Vec<i64> {
    changes.iter().map(|change| nth(change.place)).collect()
}
