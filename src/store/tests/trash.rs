//! What was deleted: restored, removed for good, and what becomes of it with time.

use super::*;
use crate::domain::todo::field::Part;
use crate::store::map::trash::MAX_TRASH;

#[test]
fn what_is_restored_is_as_it_was_but_for_its_version() {
    let mut f = Fixture::new();
    let new = NewTodo { title: "a".into(), priority: Some(3), order: Some(0.5), ..NewTodo::default() };
    let before = Arc::clone(&f.apply(1, vec![Command::Create(new)]).unwrap()[0].todo);
    f.clock.set(5);
    f.apply(1, vec![delete(1)]).unwrap();
    assert_eq!((f.todos(1).len(), f.trash(1)[0].version), (0, Version(2)));
    f.reopen();
    f.clock.set(9);
    let restored = f.apply(1, vec![restore(1)]).unwrap();
    let mut field_versions = before.field_versions.clone();
    field_versions.set([Part::Whereabouts], Version(3));
    let expected = Todo { version: Version(3), field_versions, updated_at: Timestamp(9), ..Todo::clone(&before) };
    assert_eq!((restored[0].kind, &*restored[0].todo, &*restored[0].changed), (Kind::Restored, &expected, &[][..]));
    f.reopen();
    assert_eq!(*f.todo(1, TodoId(1)).unwrap(), expected);
    assert_eq!(f.apply(1, vec![restore(1)]), Err(StoreError::Refused(Refusal::NotInTrash)));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn the_last_one_that_was_deleted_is_listed_first() {
    let f = Fixture::new();
    f.apply(1, (0..4).map(|n| create(&n.to_string())).collect()).unwrap();
    for (now, id) in [(1, 3), (2, 1), (2, 4), (3, 2)] {
        f.clock.set(now);
        f.apply(1, vec![delete(id)]).unwrap();
    }
    let ids: Vec<i64> = f.trash(1).iter().map(|todo| todo.id.0).collect();
    assert_eq!(ids, [2, 4, 1, 3]);
}

#[test]
fn what_is_removed_for_good_stays_away_and_makes_no_event() {
    let mut f = Fixture::new();
    f.apply(1, (0..4).map(|n| create(&n.to_string())).collect()).unwrap();
    f.apply(1, vec![delete(1), delete(2), delete(3)]).unwrap();
    assert_eq!(f.apply(1, vec![purge(4)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(f.apply(2, vec![purge(1)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    assert_eq!(f.apply(1, vec![purge(1)]).unwrap(), []);
    // Also what is deleted in the same request.
    assert_eq!(f.apply(1, vec![empty_trash(2)]).unwrap(), []);
    assert_eq!(f.trash(1).len(), 1);
    assert_eq!(f.apply(1, vec![delete(4), empty_trash(4)]).unwrap().len(), 1);
    assert_eq!((f.trash(1), f.head(1)), (Vec::new(), 8));
    f.reopen();
    for id in 1..=4 {
        assert_eq!(f.apply(1, vec![restore(id)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    }
    assert_eq!(f.create(1, "next").id, TodoId(5));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn what_was_deleted_goes_after_its_running_time_whatever_the_clock_says() {
    let mut f = Fixture::new();
    f.apply(1, (0..1_200).map(|n| create(&n.to_string())).collect()).unwrap();
    f.apply(1, (1..=1_100).map(delete).collect()).unwrap();
    f.clock.set(i64::MAX / 2);
    f.reopen_after(DAY / 2);
    f.apply(1, vec![delete(1_101)]).unwrap();
    f.a_minute_passes();
    f.create(2, "afterwards");
    assert_eq!(f.trash(1).len(), 1_101, "half a day is not enough");
    f.reopen_after(DAY / 2 + TICK);
    f.wait_until("all parts of the purge", |f| f.trash(1).len() == 1);
    assert_eq!(f.apply(1, vec![restore(1)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    f.reopen();
    f.apply(1, vec![restore(1_101)]).unwrap();
    assert_eq!((f.todos(1).len(), f.check().unwrap()), (100, Vec::<String>::new()));
}

#[test]
fn of_too_many_the_oldest_go() {
    let mut f = Fixture::new();
    let count = MAX_TRASH as i64 + 700;
    for from in (0..count).step_by(700) {
        let ids = from + 1..=(from + 700).min(count);
        f.apply(1, ids.clone().map(|n| create(&n.to_string())).collect()).unwrap();
        f.apply(1, ids.map(delete).collect()).unwrap();
    }
    f.apply(2, vec![create("of another owner"), delete(count + 1)]).unwrap();
    // What was deleted today stays.
    f.a_minute_passes();
    f.create(2, "afterwards");
    assert_eq!(f.trash(1).len(), MAX_TRASH + 700);
    f.retention.trash = 30 * DAY;
    // At a start it does not wait for the next round.
    f.reopen_after(DAY + TICK);
    f.wait_until("the purge", |f| f.trash(1).len() == MAX_TRASH);
    assert_eq!(f.trash(2).len(), 1);
    assert_eq!(f.apply(1, vec![restore(1)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    f.apply(1, vec![restore(count)]).unwrap();
}

#[test]
fn of_far_too_many_the_oldest_go_today() {
    let mut f = Fixture::new();
    f.max_todos = MAX_TRASH + 100;
    f.reopen();
    for _ in 0..(MAX_TRASH + 700) / 100 {
        let first = f.apply(1, vec![create("a"); 100]).unwrap()[0].todo.id.0;
        f.apply(1, (first..first + 100).map(delete).collect()).unwrap();
    }
    f.a_minute_passes();
    f.wait_until("the purge", |f| f.trash(1).len() == MAX_TRASH + 100);
    assert_eq!(f.apply(1, vec![restore(600)]), Err(StoreError::Refused(Refusal::TodoNotFound)));
    f.apply(1, vec![restore(601)]).unwrap();
}
