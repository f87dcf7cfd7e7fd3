//! Accounts: durable when they are answered, on a disk that fails, and in a database of an earlier version.

use super::*;
use crate::domain::todo::field::Field;

/// What the world sees of accounts.
fn seen(f: &Fixture) -> (Vec<User>, String) {
    let (users, count) = f.accounts(UserId(0), 100).now_or_never().unwrap().unwrap();
    assert_eq!(users.len(), count);
    (users.iter().map(|user| User::clone(user)).collect(), f.dump())
}

fn disable(id: i64) -> AccountCommand {
    AccountCommand::Update(UserId(id), AccountUpdate { enabled: Some(false), ..AccountUpdate::default() })
}

#[test]
fn every_command_is_on_disk_when_it_is_answered() {
    let mut f = Fixture::new();
    f.clock.set(7);
    let new = AccountUpdate { password_hash: Some("new".into()), ..AccountUpdate::default() };
    let change_password = AccountCommand::Update(UserId(4), new);
    let rehash = AccountCommand::Rehash { id: UserId(4), old: "new".into(), new: "better".into() };
    for command in [register("Alice"), change_password, rehash, disable(4), remove(4), register("bob")] {
        let account = f.apply_to_account(command).unwrap();
        if account.state == AccountState::Deleted {
            // It has no todos, so that is soon done.
            f.wait_until("the erasure", |f| f.is_erased(account.id.0));
        }
        let before = seen(&f);
        assert!(before.0.contains(&account));
        f.reopen();
        assert_eq!(seen(&f), before);
    }
    assert_eq!(f.account("BOB").unwrap().id, UserId(5));
    assert_eq!(f.apply_to_account(register("alice")), Err(StoreError::Refused(Refusal::NameTaken)));
    // An account that was made while the store is open is as good as one that was loaded.
    assert_eq!(numbers(&f.apply(5, vec![create("of bob")])), [(1, 1, 1)]);
    assert_eq!(f.unpublished()[0].created_by, "bob".into());
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
fn a_command_that_cannot_be_stored_leaves_nothing_behind() {
    let f = Fixture::new();
    let before = seen(&f);
    f.connection()
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON users BEGIN SELECT raise(ABORT, 'no'); END;
             CREATE TRIGGER broken_too BEFORE UPDATE ON users BEGIN SELECT raise(ABORT, 'no'); END",
        )
        .unwrap();
    for command in [register("alice"), disable(2), remove(2)] {
        assert_eq!(f.apply_to_account(command), Err(StoreError::NotApplied));
        assert_eq!(seen(&f), before);
    }
    f.connection().execute_batch("DROP TRIGGER broken; DROP TRIGGER broken_too").unwrap();
    assert_eq!(f.apply_to_account(register("alice")).unwrap().id, UserId(4));
}

#[test]
fn a_commit_with_an_open_outcome_is_resolved_by_what_is_on_disk() {
    let mut f = Fixture::new();
    let before = seen(&f);
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    for command in [register("alice"), disable(2)] {
        assert_eq!(f.apply_to_account(command), Err(StoreError::Unknown));
        assert_eq!(seen(&f), before);
    }
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    f.inject_fault(fails_after_commits);
    for command in [register("alice"), disable(2)] {
        assert_eq!(f.apply_to_account(command), Err(StoreError::Unknown));
    }
    assert!(f.account("alice").is_some());
    assert!(!f.account("user").unwrap().is_active());
    f.inject_fault(|connection| connection.wal_hook(None::<WalHook>).unwrap());
    let after = seen(&f);
    f.reopen();
    assert_eq!(seen(&f), after);
}

#[test]
fn demo_users_are_not_found_without_debug_and_make_room() {
    let mut f = Fixture::new();
    f.create(1, "of the demo admin");
    f.demo_users = false;
    f.reopen();
    assert_eq!(f.account("admin"), None);
    assert_eq!(f.account_count(), 0);
    let admin = f.apply_to_account(register("Admin")).unwrap();
    assert_eq!(f.account("admin"), Some(Arc::clone(&admin)));
    // What the demo user had goes, with events.
    f.wait_until("the erasure", |f| f.todo_count() == 0);
    let erased = f.unpublished().pop().unwrap();
    assert_eq!((erased.kind, erased.scrubbed, erased.todo.owner), (Kind::Deleted, true, UserId(1)));
    f.reopen();
    assert_eq!(f.account("admin"), Some(Arc::clone(&admin)));
}

#[test]
fn a_database_of_production_gets_no_demo_users() {
    let mut f = Fixture::new();
    f.demo_users = false;
    f.reopen();
    // Nobody is in danger as long as nobody is there.
    f.demo_users = true;
    f.reopen();
    f.apply_to_account(register("alice")).unwrap();
    f.store = None;
    let before = std::fs::read(f.database_path()).unwrap();
    let refused = f.try_open(DemoUsers::Created(&|_| panic!("nobody is created")), true).err().unwrap().to_string();
    assert!(refused.starts_with("DEBUG is True, but people have accounts in the database "), "{refused}");
    assert_eq!(std::fs::read(f.database_path()).unwrap(), before);
    // What an earlier run in development created is not there either.
    assert_eq!(f.try_open(DemoUsers::Existing, true).unwrap().account_count(), 1);
}

#[test]
fn a_database_of_the_first_version_is_kept_before_it_is_migrated() {
    let mut f = Fixture::new();
    f.store = None;
    let path = f.database_path();
    std::fs::remove_file(&path).unwrap();
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../sqlite/migrations/0001.sql")).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 1;
         INSERT INTO meta VALUES ('00000000000000ff', 5);
         INSERT INTO users VALUES (1, 'admin', 'h', 'admin', 1, 3, 3, 4, 0), (8, 'left', 'h', 'user', 0, 3, 0, 0, 0);
         DELETE FROM users WHERE id = 8;
         INSERT INTO todos VALUES (1, 1, 2, 'kept', NULL, 0, 4, 4), (2, 1, 1, 'gone', NULL, 0, 4, 4);
         DELETE FROM todos WHERE id = 2;
         INSERT INTO changes (owner_id, revision, todo_id, version, kind, at, actor, changed, trace, title, completed,
                 created_at, updated_at, uptime, state)
             VALUES (1, 1, 1, 1, 0, 4, 'admin', 'title', '00-00000000000000000000000000000001-0000000000000001-00',
                     'kep', 0, 4, 4, 5, 1),
                 (1, 2, 1, 2, 1, 4, 'admin', 'title', '00-00000000000000000000000000000001-0000000000000001-00',
                     'kept', 0, 4, 4, 5, 1),
                 (1, 3, 2, 1, 2, 4, 'admin', 'title', '00-00000000000000000000000000000001-0000000000000001-00',
                     'gone', 0, 4, 4, 5, 0);",
    )
    .unwrap();
    drop(old);
    let line = f.try_open(DemoUsers::Existing, false).err().unwrap().to_string();
    assert!(line.contains("has schema 1, and this todo-backend knows 6: start the service once"), "{line}");
    // A copy that an attempt left half done.
    std::fs::write(f.directory.path().join("todos.db.before-6.partial"), "half").unwrap();
    assert_eq!(maintenance::check(&path).unwrap(), Vec::<String>::new(), "of the version that it has");

    f.open();
    assert_eq!((&*f.todos(1)[0].title, f.trash(1).len()), ("kept", 0));
    // Any of its fields may be as old as its version.
    assert!(Field::ALL.into_iter().all(|field| f.todos(1)[0].field_versions.get(field) == Version(2)));
    assert_eq!(f.account("ADMIN").unwrap().token_epoch, TokenEpoch(0));
    assert_eq!(numbers(&f.apply(1, vec![create("new")])), [(3, 1, 4)]);
    // Ids of accounts that are gone are not used again.
    assert_eq!(f.apply_to_account(register("alice")).unwrap().id.0, 11);
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
    let kept = f.directory.path().join("todos.db.before-6");
    let version = |path: &Path| -> i64 {
        Connection::open(path).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((version(&kept), version(&path)), (1, 6));
    assert_eq!(maintenance::check(&kept).unwrap(), Vec::<String>::new());
    // The way back: under a new epoch, since versions start over.
    let epoch = f.epoch();
    f.store = None;
    maintenance::restore(&path, &kept).unwrap();
    assert_eq!(version(&path), 1);
    f.open();
    assert_ne!(f.epoch(), epoch);
    // Only what is migrated is kept.
    std::fs::remove_file(&kept).unwrap();
    f.reopen();
    assert!(!kept.exists());
}
