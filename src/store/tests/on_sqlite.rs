//! What only SQLite does: faults that it can be made to have, files that are copied, databases of earlier versions.

use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::erasing::OWNER;
use super::failing::{failing_group, seen};
use super::idempotency::repeated;
use super::sessions::start_session;
use super::*;
use crate::domain::session::SessionKey;
use crate::domain::todo::field::Field;
use crate::store::backend::Rule;
use crate::store::decide::Head;
use crate::store::maintenance;

type WalHook = fn(&mut Wal, i32) -> rusqlite::Result<()>;

impl Fixture {
    fn on_sqlite() -> Self {
        Self::on(TestDatabase::sqlite())
    }

    fn database_path(&self) -> PathBuf {
        self.database.path()
    }

    /// A file beside the database.
    fn beside(&self, name: &str) -> PathBuf {
        self.database_path().with_file_name(name)
    }

    /// A connection of the test's own.
    fn connection(&self) -> Connection {
        self.database.connection()
    }

    fn inject_fault(&self, inject: fn(&mut Connection)) {
        assert!(self.queue.send(Job::InjectFault(inject)).is_ok());
    }
}

/// SQLite reports the hook's error as the commit's, though the commit is done.
fn fails_after_commits(connection: &mut Connection) {
    let error = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR), None);
    connection.wal_hook(Some(move |_: &mut Wal, _| Err(error()))).unwrap();
}

#[test]
fn a_full_disk_is_not_applied_and_writes_recover() {
    let f = Fixture::on_sqlite();
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
    let f = Fixture::on_sqlite();
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
    let mut f = Fixture::on_sqlite();
    let todo = f.create(2, "v1");
    f.outbox().take(Cursor::START, Parts::ALL);
    f.inject_fault(fails_after_commits);
    assert_eq!(f.apply(2, vec![rename(todo.id.0, "v2"), create("new")]), Err(StoreError::Unknown));
    assert_eq!(f.todo(2, todo.id).unwrap().version, Version(2));
    assert_eq!(f.outbox().take(Cursor::START, Parts::ALL).0.len(), 2);
    f.inject_fault(|connection| connection.wal_hook(None::<WalHook>).unwrap());
    assert_eq!(numbers(&f.apply(2, vec![rename(todo.id.0, "v3")])), [(todo.id.0, 3, 4)]);
    let after = seen(&f);
    f.reopen();
    assert_eq!(seen(&f), after);
}

#[test]
fn only_a_write_says_that_writing_works_again() {
    let f = Fixture::on_sqlite();
    let other = f.connection();
    let commits_seen = || -> i64 { other.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap() };
    other.execute_batch("CREATE TRIGGER broken BEFORE INSERT ON changes BEGIN SELECT raise(ABORT, 'no'); END").unwrap();
    let before = commits_seen();
    assert_eq!(f.apply(1, vec![create("fails")]), Err(StoreError::NotApplied));
    f.wait_until("a try to write", |f| f.writable());
    assert_ne!(commits_seen(), before, "an empty transaction, which a full disk takes as well");
}

#[test]
fn an_accounts_commit_with_an_open_outcome_is_resolved_by_what_is_on_disk() {
    let mut f = Fixture::on_sqlite();
    let before = accounts::seen(&f);
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    for command in [register("alice"), accounts::disable(2)] {
        assert_eq!(f.apply_to_account(command), Err(StoreError::Unknown));
        assert_eq!(accounts::seen(&f), before);
    }
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    f.inject_fault(fails_after_commits);
    for command in [register("alice"), accounts::disable(2)] {
        assert_eq!(f.apply_to_account(command), Err(StoreError::Unknown));
    }
    assert!(f.account("alice").is_some());
    assert!(!f.account("user").unwrap().is_active());
    f.inject_fault(|connection| connection.wal_hook(None::<WalHook>).unwrap());
    let after = accounts::seen(&f);
    f.reopen();
    assert_eq!(accounts::seen(&f), after);
}

#[test]
fn a_database_of_the_first_version_is_kept_before_it_is_migrated() {
    let mut f = Fixture::on_sqlite();
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
    std::fs::write(f.beside("todos.db.before-6.partial"), "half").unwrap();
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
    let kept = f.beside("todos.db.before-6");
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

#[test]
fn a_sessions_commit_with_an_open_outcome_is_resolved_by_what_is_on_disk() {
    let mut f = Fixture::on_sqlite();
    let refresh = f.start_session(1);
    let before = (f.seen(1), f.dump());
    let refresh_it = || f.session_command(SessionCommand::Refresh(refresh.clone()));
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    assert_eq!(refresh_it(), Err(StoreError::Unknown));
    assert_eq!(f.create_token(1), Err(StoreError::Unknown));
    assert_eq!((f.seen(1), f.dump()), before);
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    f.inject_fault(fails_after_commits);
    assert_eq!(refresh_it(), Err(StoreError::Unknown));
    assert_eq!(f.create_token(1), Err(StoreError::Unknown));
    f.inject_fault(|connection| connection.wal_hook(None::<WalHook>).unwrap());
    let after = f.seen(1);
    assert_eq!((after.0[0].rotated_at.len(), after.1.len()), (1, 1));
    f.reopen();
    assert_eq!(f.seen(1), after);
}

#[test]
fn what_began_and_ended_in_one_group_hides_nothing_of_a_commit_with_an_open_outcome() {
    let mut f = Fixture::on_sqlite();
    let before = (f.seen(1), f.dump());
    let in_one_group = |f: &Fixture| {
        let (held, _) = f.hold();
        let (session, began) = oneshot::channel();
        let command = start_session(1, &SessionKey([1; 32]), [2; 32]);
        let start = Request::Session { authority: None, command, reply: session };
        let (account, ended) = oneshot::channel();
        let end = Request::Account { authority: None, command: AccountCommand::LogOut(UserId(1)), reply: account };
        for request in [start, end] {
            assert!(f.queue.try_send(Job::Apply(request)).is_ok());
        }
        drop(held);
        (began.blocking_recv().unwrap().is_ok(), ended.blocking_recv().unwrap())
    };
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    assert_eq!(in_one_group(&f), (false, Err(StoreError::Unknown)));
    assert_eq!((f.seen(1), f.dump()), before);
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    assert_eq!(f.account("admin").unwrap().token_epoch, TokenEpoch(0), "nothing of it happened");
    let (began, ended) = in_one_group(&f);
    assert!(began && ended.is_ok());
    f.reopen();
    // The id that nobody has a token of is not used again either.
    assert_eq!(f.start_session(1).session.0, 2);
}

#[test]
fn a_restored_backup_has_no_sessions_and_no_personal_tokens() {
    let mut f = Fixture::on_sqlite();
    f.start_session(1);
    f.create_token(1).unwrap();
    f.create(1, "kept");
    let backup = f.beside("backup.db");
    maintenance::backup(&f.database_path(), &backup).unwrap();
    f.store = None;
    maintenance::restore(&f.database_path(), &backup).unwrap();
    f.open();
    assert_eq!((f.count("sessions"), f.count("personal_tokens"), f.todos(1).len()), (0, 0, 1));
}

#[test]
fn marks_survive_a_group_that_fails_and_are_committed_at_the_end() {
    let mut f = Fixture::on_sqlite();
    f.create(1, "a");
    f.create(1, "b");
    f.inject_fault(|connection| connection.commit_hook(Some(|| true)).unwrap());
    f.mark(1, DeliveryState::Published);
    assert_eq!(f.apply(1, vec![create("fails")]), Err(StoreError::Unknown));
    assert_eq!(f.outbox().marks(), Marks::from([(Place(1), DeliveryState::Published)]));
    f.inject_fault(|connection| connection.commit_hook(None::<fn() -> bool>).unwrap());
    f.reopen();
    assert_eq!(states(&f), [1, 0]);
    assert_eq!(f.outbox().pending(), 1);
}

#[test]
fn each_owner_has_a_fair_share_of_a_step_of_pruning() {
    let f = Fixture::on_sqlite();
    for (owner, changes) in [(1, 300), (2, 20), (3, 300)] {
        f.published(owner, changes);
    }
    let owners: Vec<(UserId, Head)> = [(1, 300), (2, 20), (3, 300)]
        .map(|(owner, revision)| (UserId(owner), Head { revision: Revision(revision), ..Head::default() }))
        .into();
    let rule = Rule { keep_from: 0, keep_any_from: i64::MAX, per_owner: 10 };
    let pruned = sqlite::retention::prune(&mut f.connection(), &owners, rule, 150).unwrap();
    let pruned: Vec<_> = pruned.iter().map(|pruned| (pruned.owner.0, pruned.through.0, pruned.more)).collect();
    // What the second one doesn't need goes to the third.
    assert_eq!(pruned, [(1, 50, true), (2, 10, false), (3, 90, true)]);
}

#[test]
fn running_time_is_saved_by_a_clean_stop() {
    let mut f = Fixture::on_sqlite();
    let begin = Instant::now();
    f.wait_until("two seconds", |_| begin.elapsed() >= Duration::from_secs(2));
    f.store = None;
    let uptime = |f: &Fixture| -> i64 {
        let connection = Connection::open(f.database_path()).unwrap();
        connection.query_row("SELECT uptime FROM meta", [], |row| row.get(0)).unwrap()
    };
    let saved = uptime(&f);
    assert!(saved >= 2, "{saved}");
    f.reopen();
    f.store = None;
    assert!(uptime(&f) >= saved);
}

#[test]
fn an_operation_that_is_done_in_part_does_not_say_that_nothing_was_changed() {
    let read_only = |connection: &mut Connection| connection.pragma_update(None, "query_only", true).unwrap();
    for then in [Job::InjectFault(read_only), Job::Close] {
        let mut f = Fixture::on_sqlite();
        f.published(2, 2500);
        let (gate, held) = f.hold();
        let again = f.ask(OutboxCommand::Republish { owner: UserId(2), from_revision: Revision(1) });
        assert!(f.queue.try_send(then).is_ok());
        drop(gate);
        held.blocking_recv().unwrap().unwrap();
        assert_eq!(again.blocking_recv(), Ok(Err(StoreError::Unknown)));
        f.reopen();
        assert_eq!(f.outbox().pending(), 1 + 1000, "the first part, and what held the writer");
        assert_eq!(f.operate(OutboxCommand::Republish { owner: UserId(2), from_revision: Revision(1) }), 1500);
    }
}

#[test]
fn an_operation_with_an_open_outcome_that_did_happen_is_followed() {
    let f = Fixture::on_sqlite();
    f.published(2, 5);
    f.inject_fault(fails_after_commits);
    let again = f.ask(OutboxCommand::Republish { owner: UserId(2), from_revision: Revision(4) });
    assert_eq!(again.blocking_recv().unwrap(), Err(StoreError::Unknown));
    assert_eq!((f.outbox().pending(), f.outbox().take_reload()), (2, true));
    assert_eq!(states(&f), [1, 1, 1, 0, 0]);
}

#[test]
fn a_backup_is_made_and_restored_also_while_events_are_published_again() {
    let mut f = Fixture::on_sqlite();
    f.published(2, 1);
    f.apply(2, vec![rename(1, "on its way")]).unwrap();
    f.operate(OutboxCommand::Republish { owner: UserId(2), from_revision: Revision(1) });
    f.marked([2], DeliveryState::Published);
    assert_eq!(states(&f), [0, 1]);
    let violations = f.check().unwrap();
    assert!(
        violations.len() == 1 && violations[0].ends_with("but while events are published again: todo 1"),
        "{violations:?}"
    );
    let copy = f.beside("copy.db");
    maintenance::backup(&f.database_path(), &copy).unwrap();
    f.store = None;
    maintenance::restore(&f.database_path(), &copy).unwrap();
}

#[test]
fn a_scrubbing_that_fails_is_tried_again_and_the_relay_looks_again() {
    for fault in [fails_after_commits, |connection: &mut Connection| connection.commit_hook(Some(|| true)).unwrap()] {
        let f = Fixture::on_sqlite();
        f.create_secrets(1);
        f.mark(1, DeliveryState::Parked);
        f.apply(1, vec![delete(9)]).unwrap_err();
        f.apply_to_account(remove(OWNER)).unwrap();
        f.wait_until("the deletions", |f| f.todos(OWNER).is_empty());
        // The part that scrubs, or the one that repeats it, meets the fault.
        f.inject_fault(fault);
        f.wait_until("a failure, or the end", |f| !f.writable() || f.is_erased(OWNER));
        f.inject_fault(|connection| {
            connection.wal_hook(None::<WalHook>).unwrap();
            connection.commit_hook(None::<fn() -> bool>).unwrap();
        });
        f.wait_until("the rest", |f| f.is_erased(OWNER));
        assert_eq!((f.secrets(), states(&f)), (0, vec![3, 0]));
        assert!(f.outbox().take_reload());
    }
}

#[test]
fn a_commit_whose_outcome_was_open_is_answered_when_it_is_sent_again() {
    let f = Fixture::on_sqlite();
    f.create(1, "a");
    f.inject_fault(fails_after_commits);
    let nothing = patch(1, TodoPatch { title: Some("a".into()), ..TodoPatch::default() });
    for (key, command) in [("k", create("b")), ("l", nothing), ("m", delete(1)), ("n", purge(1))] {
        assert_eq!(f.send(1, key, "a", command.clone()), Err(StoreError::Unknown), "{key}");
        repeated(f.send(1, key, "a", command));
    }
    assert_eq!((f.todos(1).len(), f.trash(1).len(), f.kept()), (1, 0, 4));
}
