//! A database that fails: nothing is half done, and all members of a group get the same answer.

use super::*;

/// A group with everything in it, while the database fails: the answers that its members get.
fn failing_group(f: &Fixture, todo: i64) -> Vec<Answer> {
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
fn seen(f: &Fixture) -> (Vec<Vec<Arc<Todo>>>, usize, usize, String) {
    (OWNERS.map(|owner| f.todos(owner)).into(), f.todo_count(), f.outbox().pending(), f.dump())
}

#[test]
fn a_group_that_cannot_be_stored_leaves_nothing_behind() {
    let mut f = Fixture::new();
    let todo = f.create(2, "stays");
    f.outbox().take(Cursor::START);
    let before = seen(&f);
    let other = f.connection();
    other.execute_batch("CREATE TRIGGER broken BEFORE INSERT ON changes BEGIN SELECT raise(ABORT, 'no'); END").unwrap();
    assert_eq!(failing_group(&f, todo.id.0), vec![Err(StoreError::NotApplied); 4]);
    assert_eq!(seen(&f), before);
    assert!(f.outbox().take(Cursor::START).0.is_empty());
    other.execute_batch("DROP TRIGGER broken").unwrap();
    let answer = f.apply(2, vec![rename(todo.id.0, "goes on"), create("new")]);
    assert_eq!(numbers(&answer), [(todo.id.0, 2, 2), (todo.id.0 + 1, 1, 3)]);
    assert!(f.writable());
    let after = seen(&f);
    f.reopen();
    assert_eq!(seen(&f), after);
    assert_eq!(numbers(&f.apply(2, vec![create("newer")])), [(todo.id.0 + 2, 1, 4)]);
}

#[test]
fn a_full_disk_is_not_applied_and_writes_recover() {
    let f = Fixture::new();
    let todo = f.create(2, "x");
    f.inject_fault(|connection| {
        // No page more than there is.
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    });
    let long = |title: &str| {
        Command::Create(NewTodo {
            title: title.into(),
            description: Some("d".repeat(10_000).into()),
            ..NewTodo::default()
        })
    };
    let before = seen(&f);
    assert_eq!(f.apply(1, vec![create("small"), long("large")]), Err(StoreError::NotApplied));
    assert_eq!(seen(&f), before);
    assert_eq!(f.todos(2), [todo]);
    f.inject_fault(|connection| {
        connection.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(())).unwrap();
    });
    assert_eq!(numbers(&f.apply(1, vec![long("large")])), [(2, 1, 1)]);
}

#[test]
fn a_commit_with_an_open_outcome_that_did_not_happen_leaves_nothing_behind() {
    let f = Fixture::new();
    let todo = f.create(2, "stays");
    let before = seen(&f);
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    assert_eq!(failing_group(&f, todo.id.0), vec![Err(StoreError::Unknown); 4]);
    assert!(!f.writable());
    assert_eq!(seen(&f), before);
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    assert_eq!(numbers(&f.apply(2, vec![rename(todo.id.0, "v2")])), [(todo.id.0, 2, 2)]);
}

#[test]
fn a_commit_with_an_open_outcome_that_did_happen_is_seen_by_everybody() {
    let mut f = Fixture::new();
    let todo = f.create(2, "v1");
    f.outbox().take(Cursor::START);
    f.inject_fault(fails_after_commits);
    assert_eq!(f.apply(2, vec![rename(todo.id.0, "v2"), create("new")]), Err(StoreError::Unknown));
    assert_eq!(f.todo(2, todo.id).unwrap().version, Version(2));
    assert_eq!(f.outbox().take(Cursor::START).0.len(), 2);
    f.inject_fault(|connection| connection.wal_hook(None::<WalHook>).unwrap());
    assert_eq!(numbers(&f.apply(2, vec![rename(todo.id.0, "v3")])), [(todo.id.0, 3, 4)]);
    let after = seen(&f);
    f.reopen();
    assert_eq!(seen(&f), after);
}

#[test]
fn only_a_write_says_that_writing_works_again() {
    let f = Fixture::new();
    let other = f.connection();
    let commits_seen = || -> i64 { other.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap() };
    other.execute_batch("CREATE TRIGGER broken BEFORE INSERT ON changes BEGIN SELECT raise(ABORT, 'no'); END").unwrap();
    let before = commits_seen();
    assert_eq!(f.apply(1, vec![create("fails")]), Err(StoreError::NotApplied));
    f.wait_until("a try to write", |f| f.writable());
    assert_ne!(commits_seen(), before, "an empty transaction, which a full disk takes as well");
}
