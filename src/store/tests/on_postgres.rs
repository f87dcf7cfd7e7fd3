//! What only Postgres does: connections that break, servers that don't answer, others that are in the way. Run with
//! TEST_POSTGRES.

use std::process::Command as Program;

use super::*;
use crate::store::feed::News;

impl Fixture {
    pub fn on_postgres() -> Self {
        assert!(std::env::var_os("TEST_POSTGRES").is_some(), "bash tests/stack/with_postgres.sh -- cargo test …");
        Self::new()
    }

    /// Of the process of the server that works for the writer, if there is one just now.
    fn of_writers_backend(&self, what: &str) -> Vec<i64> {
        self.database.numbers(&format!(
            "SELECT {what} FROM pg_locks WHERE locktype = 'advisory' AND granted
             AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('todo-backend ' || current_schema(), 0)",
        ))
    }

    fn titles(&self) -> Vec<String> {
        let rows = self.database.rows("SELECT title FROM changes ORDER BY seq");
        rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
    }
}

fn signal(name: &str, pid: i64) {
    let sent = Program::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(sent.success(), "{name} to {pid}: the tests have to be root, or who runs the server");
}

/// While groups are committed, something happens to the writer's connection again and again.
fn storm(of_its_backend: &str, least: usize) {
    let mut f = Fixture::on_postgres();
    let (mut stored, mut refused, mut open, mut hit) = (Vec::new(), Vec::new(), 0, 0);
    // How much is stored of a round depends on how busy the machine is.
    let mut rounds = 0..400;
    while let Some(round) = rounds.next().filter(|round| *round < 40 || stored.len() <= least) {
        if round % 2 == 0 {
            // In the others, it may be looking for the database.
            f.wait_until("it goes on", |f| f.writable());
        }
        let title = |n: usize| format!("{round} {n}");
        let answers: Vec<_> = (0..20).map(|n| f.submit(1, vec![create(&title(n)), create(&title(n))])).collect();
        std::thread::sleep(Duration::from_millis(round % 7));
        hit += f.of_writers_backend(of_its_backend).len();
        for (n, answer) in wait(answers).into_iter().enumerate() {
            match answer {
                Ok(_) => stored.push(title(n)),
                Err(StoreError::NotApplied) => refused.push(title(n)),
                Err(StoreError::Unknown) => open += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(
        stored.len() > least && hit > 20,
        "{} were stored, {} refused, {open} open, it was hit {hit} times",
        stored.len(),
        refused.len()
    );
    let titles = f.titles();
    let count = |title: &String| titles.iter().filter(|other| *other == title).count();
    assert!(stored.iter().all(|title| count(title) == 2));
    assert!(refused.iter().all(|title| count(title) == 0), "what was not applied is stored");
    assert!(titles.len() <= 2 * (stored.len() + open), "{} of {}, {open} open", titles.len(), stored.len());
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
    let memory = f.todos(1);
    f.reopen();
    assert_eq!(f.todos(1), memory);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn connections_that_break_lose_nothing_and_store_nothing_twice() {
    storm("pg_terminate_backend(pid)::int", 400);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn statements_that_are_cancelled_leave_nothing_of_their_group() {
    storm("(pg_cancel_backend(pid) AND pg_sleep(0.001) IS NOT NULL AND pg_cancel_backend(pid))::int", 100);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_is_sent_to_a_server_that_hangs_is_stored_and_seen_or_neither() {
    let f = Fixture::on_postgres();
    for round in 0..2 {
        let todo = f.create(1, "before");
        let held_titles = |f: &Fixture| f.titles().iter().filter(|title| *title == "holds the writer").count();
        let (before, held_before) = (f.todos(1).len(), held_titles(&f));
        let (gate, held) = f.hold();
        let backend = f.of_writers_backend("pid")[0];
        signal("STOP", backend);
        // The turn has begun, and a group is decided. Its bytes arrive, and nobody reads them.
        drop(gate);
        let answer = held.blocking_recv().unwrap();
        assert!(matches!(answer, Err(StoreError::Unknown | StoreError::NotApplied)), "{answer:?}");
        assert!(!f.writable());
        assert_eq!(f.apply(1, vec![create("while nobody knows")]), Err(StoreError::NotApplied));
        assert_eq!(f.todos(1).len(), before, "it is not seen before it is known");
        signal("CONT", backend);
        f.wait_until("it is known", |f| f.writable());
        let is_stored = held_titles(&f) > held_before;
        assert!(!is_stored || answer.is_err_and(|error| error == StoreError::Unknown));
        assert_eq!(f.todos(1).len(), before + usize::from(is_stored), "round {round}");
        f.apply(1, vec![rename(todo.id.0, "goes on"), delete(todo.id.0), purge(todo.id.0)]).unwrap();
        assert_eq!(f.check().unwrap(), Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_is_in_the_way_for_a_moment_is_waited_for() {
    let f = Fixture::on_postgres();
    // For longer than a statement waits.
    f.database.execute("BEGIN; LOCK TABLE users IN EXCLUSIVE MODE");
    let answer = f.submit(1, vec![create("waits")]);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(f.todos(1).len(), 0);
    f.database.execute("COMMIT");
    assert_eq!(numbers(&answer.blocking_recv().unwrap()), [(1, 1, 1)]);
    assert!(f.writable());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_store_opens_only_a_database_of_a_version_that_it_knows() {
    let mut f = Fixture::on_postgres();
    let refusal = |f: &Fixture| f.try_open(DemoUsers::Existing, true).err().unwrap().to_string();
    f.create(1, "x");
    f.store = None;
    f.database.execute("UPDATE meta SET version = 99");
    assert!(
        refusal(&f).contains("was written by a newer todo-backend (schema 99, this one knows 2)"),
        "{}",
        refusal(&f)
    );
    f.database.execute("UPDATE meta SET version = 2");
    f.open();
    assert_eq!(f.todos(1).len(), 1);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_version_1_has_stored_goes_on_in_version_2() {
    let old = Fixture::on_postgres();
    old.apply(1, vec![create("x"), create("y"), rename(1, "renamed")]).unwrap();
    old.apply(2, vec![create("z"), create("deleted"), delete(4), create("parked")]).unwrap();
    old.start_session(1);
    old.marked([1, 4], DeliveryState::Published);
    old.marked([7], DeliveryState::Parked);
    let schema = old.database.rows("SELECT current_schema()")[0][0].clone().unwrap();
    let database = TestDatabase::new();
    database.execute(include_str!("../postgres/migrations/0001.sql"));
    // As two processes of version 1 have stored it, one after the other.
    database.execute(&format!(
        "INSERT INTO meta SELECT 1, epoch, uptime, production, next_user, next_todo, next_session, next_personal_token
             FROM {schema}.meta;
         INSERT INTO users SELECT * FROM {schema}.users;
         INSERT INTO sessions SELECT * FROM {schema}.sessions;
         INSERT INTO todos SELECT * FROM {schema}.todos;
         INSERT INTO changes SELECT 1, c.* FROM {schema}.changes AS c;
         INSERT INTO outbox SELECT 1, o.* FROM {schema}.outbox AS o;
         UPDATE changes SET stream = 3, pos = pos - 4 WHERE pos > 4;
         UPDATE outbox SET stream = 3, pos = pos - 4 WHERE pos > 4;
         INSERT INTO streams (id, head) OVERRIDING SYSTEM VALUE VALUES (1, 4), (3, 40)"
    ));
    let f = Fixture::on(database);
    for owner in OWNERS {
        assert_eq!((f.todos(owner), f.trash(owner)), (old.todos(owner), old.trash(owner)));
    }
    let waits = |f: &Fixture| -> Vec<_> {
        f.unpublished().iter().map(|change| (change.todo.id.0, change.todo.version.0, change.revision.0)).collect()
    };
    assert_eq!((waits(&f), states(&f)), (waits(&old), states(&old)));
    assert_eq!((f.epoch(), f.count("sessions")), (old.epoch(), 1));
    let places = f.database.numbers("SELECT seq FROM changes ORDER BY seq");
    let place = |stream: i64, nth: i64| stream << 40 | nth;
    assert_eq!(places, [(1, 1), (1, 2), (1, 3), (1, 4), (3, 1), (3, 2), (3, 3)].map(|(s, n)| place(s, n)));
    let next = f.apply(1, vec![rename(1, "goes on")]).unwrap();
    assert_eq!((next[0].place, next[0].revision), (Place(place(3, 41)), Revision(4)));
    assert_eq!(f.check().unwrap(), Vec::<String>::new());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_is_committed_while_it_is_looked_for_is_seen_in_its_order() {
    let f = Fixture::on_postgres();
    f.create(1, "x");
    let (mut follower, _) = f.follow(UserId(1)).now_or_never().unwrap().unwrap();
    f.database.execute("BEGIN; LOCK TABLE changes IN ACCESS EXCLUSIVE MODE");
    let a_record = "INSERT INTO records (number, kind, id, user_id) SELECT records + 1, 0, 1, 1 FROM meta;
         UPDATE meta SET records = records + 1";
    // So there is something to read.
    let other = TestDatabase::of_service(f.database.setting(), None);
    other.execute(a_record);
    let waiting = "SELECT count(*) FROM pg_stat_activity
         WHERE wait_event_type = 'Lock' AND query LIKE '%FROM changes AS c WHERE seq > $1%'";
    f.wait_until("who follows the log to get there", |_| other.number(waiting) > 0);
    // Somebody's access ends, and then a todo changes.
    f.database.execute(&format!(
        "CREATE TEMPORARY TABLE next ON COMMIT DROP AS SELECT * FROM changes WHERE seq = 1;
         UPDATE next SET seq = 2, revision = 2, version = 2;
         {a_record};
         INSERT INTO changes SELECT * FROM next;
         UPDATE meta SET head = 2;
         COMMIT"
    ));
    let (mut news, begin) = (Vec::new(), Instant::now());
    while !news.iter().any(|news| matches!(news, News::Changed(_))) {
        assert!(begin.elapsed() < 10 * TICK, "{news:?}");
        news.extend(follower.try_next());
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whoever looked may have given up, because it was locked for too long: then both records come together.
    assert!(news.len() > 1, "{news:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(f.catch_up()).unwrap();
    assert_eq!(follower.try_next().map(|news| format!("{news:?}")), None, "it was known when the change was seen");
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_others_have_committed_is_found_without_reading_the_log() {
    let f = Fixture::on_postgres();
    for _ in 0..20 {
        f.apply(1, (0..400).map(|n| create(&n.to_string())).collect()).unwrap();
    }
    let scans = || {
        // The server's processes report them once a second.
        std::thread::sleep(Duration::from_millis(1500));
        let of = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'changes' AND schemaname = current_schema()";
        f.database.number(of)
    };
    let before = scans();
    for n in 0..50 {
        f.create(2, &n.to_string());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(scans(), before, "the whole log was read");
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_new_epoch_ends_sessions_and_keeps_the_rest() {
    let mut f = Fixture::on_postgres();
    let Database::Postgres(settings) = f.database.setting().clone() else { panic!() };
    f.start_session(1);
    f.create(1, "kept");
    let epoch = f.epoch();
    assert!(renew_epoch(&settings).is_err(), "not while it is used");
    f.store = None;
    assert_eq!(check_postgres(&settings).unwrap(), Vec::<String>::new());
    let renewed = renew_epoch(&settings).unwrap();
    f.open();
    assert_eq!((f.epoch(), f.todos(1).len(), f.count("sessions")), (renewed, 1, 0));
    assert_ne!(epoch, renewed);
    f.store = None;
    // It is looked at before.
    f.database.execute("UPDATE todos SET version = 7");
    let refused = renew_epoch(&settings).unwrap_err().to_string();
    assert!(refused.contains("is not good, nothing was changed: "), "{refused}");
    f.database.execute("UPDATE todos SET version = 1");
    // Of nobody's.
    f.database.execute("DROP TABLE meta");
    assert!(check_postgres(&settings).unwrap_err().to_string().contains("has no tables of todo-backend"));
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_new_epoch_and_a_copy_wait_for_no_events_that_are_published_again() {
    let mut f = Fixture::on_postgres();
    let Database::Postgres(settings) = f.database.setting().clone() else { panic!() };
    f.apply(1, vec![create("x"), rename(1, "y")]).unwrap();
    f.marked([1, 2], DeliveryState::Published);
    f.operate(OutboxCommand::Republish { owner: UserId(1), from_revision: Revision(1) });
    f.marked([2], DeliveryState::Published);
    f.store = None;
    let problems = check_postgres(&settings).unwrap();
    assert!(problems.len() == 1 && problems[0].contains("but while events are published again"), "{problems:?}");
    let epoch = renew_epoch(&settings).unwrap();
    let file = TestDatabase::sqlite();
    copy_to_sqlite(&settings, &file.path(), &mut |_| {}).unwrap();
    assert_eq!(Fixture::on(file).epoch(), epoch);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn times_of_retention_are_the_databases_and_never_go_back() {
    let mut f = Fixture::on_postgres();
    let now = |f: &Fixture| f.database.number("SELECT extract(epoch FROM clock_timestamp())::bigint");
    let last = |f: &Fixture| f.database.number("SELECT uptime FROM changes ORDER BY seq DESC LIMIT 1");
    f.create(1, "x");
    assert!((now(&f) - 5..=now(&f)).contains(&last(&f)), "{} and {}", last(&f), now(&f));
    f.reopen_after(DAY);
    f.create(1, "y");
    let later = last(&f);
    assert!(later >= now(&f) + 86_390);
    f.database.execute("UPDATE meta SET uptime = 0");
    f.reopen();
    f.create(1, "z");
    assert!(last(&f) >= later, "the log itself says how late it is");
}
