//! A database that fails: nothing is half done, and all members of a group get the same answer.

use super::*;

/// A group with everything in it, while the database fails: the answers that its members get.
pub fn failing_group(f: &Fixture, todo: i64) -> Vec<Answer> {
    let (gate, held) = f.hold();
    let answers = vec![
        f.submit(1, vec![create("fails")]),
        f.submit(2, vec![rename(todo, "fails")]),
        f.submit(2, vec![rename(99, "was never there")]),
        f.submit(2, vec![delete(todo)]),
    ];
    drop(gate);
    // The group before is the holder's alone.
    held.blocking_recv().unwrap().unwrap_err();
    wait(answers)
}

/// What the world sees of the store.
pub fn seen(f: &Fixture) -> (Vec<Vec<Arc<Todo>>>, usize, usize, String) {
    (OWNERS.map(|owner| f.todos(owner)).into(), f.todo_count(), f.outbox().pending(), f.dump())
}

#[test]
fn a_group_that_cannot_be_stored_leaves_nothing_behind() {
    let mut f = Fixture::new();
    let todo = f.create(2, "stays");
    f.outbox().take(Cursor::START, Parts::ALL);
    let before = seen(&f);
    f.database.break_table("changes", "INSERT", "true");
    assert_eq!(failing_group(&f, todo.id.0), vec![Err(StoreError::NotApplied); 4]);
    assert_eq!(seen(&f), before);
    assert!(f.outbox().take(Cursor::START, Parts::ALL).0.is_empty());
    f.database.mend_table("changes", "INSERT");
    let answer = f.apply(2, vec![rename(todo.id.0, "goes on"), create("new")]);
    assert_eq!(numbers(&answer), [(todo.id.0, 2, 2), (todo.id.0 + 1, 1, 3)]);
    assert!(f.writable());
    let after = seen(&f);
    f.reopen();
    assert_eq!(seen(&f), after);
    assert_eq!(numbers(&f.apply(2, vec![create("newer")])), [(todo.id.0 + 2, 1, 4)]);
}
