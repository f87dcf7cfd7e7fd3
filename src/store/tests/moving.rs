//! Copies of SQLite databases on Postgres, and of those in files. Run with TEST_POSTGRES.

use super::idempotency::repeated;
use super::lives::random_commands;
use super::*;
use crate::domain::todo::tags::Tags;
use crate::store::moving::tables::TABLES;
use crate::store::postgres::error::PostgresError;

/// A store on SQLite that has had a life.
fn lived(seed: u64) -> Fixture {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut f = Fixture::on(TestDatabase::sqlite());
    let mut ids = 0;
    for round in 0..30 {
        f.clock.set(round * 1_000);
        let owner = OWNERS[random.random_range(0..3)];
        if let Ok(changes) = f.apply(owner, random_commands(&mut random, ids)) {
            ids = changes.iter().map(|change| change.todo.id.0).fold(ids, i64::max);
        }
        match random.random_range(0..12) {
            0 => drop(f.start_session(owner)),
            1 => drop(f.create_token(owner).unwrap()),
            2 => drop(f.send(owner, &format!("key {round}"), "a", create("with a key")).unwrap()),
            3 => f.logged_in(UserId(owner), Network::parse("10.0.0.7").unwrap(), Timestamp(round)),
            4 => f.logged_in(UserId(owner), Network::parse(&format!("10.0.0.{round}")).unwrap(), Timestamp(round)),
            5 => drop(f.apply_to_account(register(&format!("name{round}"))).unwrap()),
            6 => f.reopen_after(Duration::from_secs(3_600)),
            7 => f.a_minute_passes(),
            _ => {}
        }
    }
    // What Postgres stores in another way, or could take for something else.
    let everything = NewTodo {
        title: "\0 and \u{ffff}0 and \\".into(),
        description: Some("\u{ffff}\n\t\0".into()),
        tags: Tags::new(["a".into(), "b, c".into()]),
        priority: Some(4),
        order: Some(-0.5),
        ..NewTodo::default()
    };
    f.apply(1, vec![Command::Create(everything)]).unwrap();
    let gone = f.apply_to_account(register("gone")).unwrap().id;
    f.apply(gone.0, vec![create("of somebody who is gone")]).unwrap();
    f.apply_to_account(remove(gone.0)).unwrap();
    let places = |f: &Fixture, is_gone: bool| -> Vec<i64> {
        f.log().iter().filter(|change| (change[3] == gone.0) == is_gone).map(|change| change[0]).collect()
    };
    f.wait_until("nothing is left of who is gone", |f| {
        f.marked(places(f, true), DeliveryState::Published);
        f.is_erased(gone.0)
    });
    for (place, state) in places(&f, false).into_iter().zip([1, 1, 0, 2, 3, 1, 0].into_iter().cycle()) {
        f.database.set_state(state, &format!("seq = {place}"));
    }
    f
}

impl Fixture {
    /// Place, todo, version, owner, revision and delivery state of all changes.
    fn log(&self) -> Vec<[i64; 6]> {
        self.database.log()
    }

    /// What can be seen of it.
    fn shown(&self) -> Vec<String> {
        let of = |owner: i64| {
            let view = Store::view(self, UserId(owner)).now_or_never().unwrap().unwrap();
            format!("{:?} {:?} {:?} {:?}", view.revision, self.todos(owner), self.trash(owner), self.seen(owner))
        };
        let known = |(owner, n)| {
            self.is_known_there(UserId(owner), Network::parse(&format!("10.0.0.{n}")).unwrap(), Timestamp(99))
        };
        let mut shown: Vec<String> = OWNERS.iter().map(|owner| of(*owner)).collect();
        shown.push(format!("{:?}", (0..40).flat_map(|n| OWNERS.map(|owner| known((owner, n)))).collect::<Vec<_>>()));
        shown.push(format!("{:?}", self.unpublished()));
        shown
    }

    /// Copies the file of a store that is closed, and says after every step how far it is.
    fn copy_to(&self, target: &TestDatabase, step: &mut (dyn FnMut(Progress) + Send)) -> Result<Counts, DatabaseError> {
        copy(&self.database.path(), target, step)
    }
}

fn copy(path: &Path, target: &TestDatabase, step: &mut (dyn FnMut(Progress) + Send)) -> Result<Counts, DatabaseError> {
    copy_to_postgres(path, false, setting(target), step)
}

fn setting(database: &TestDatabase) -> &Postgres {
    match database.setting() {
        Database::Postgres(setting) => setting,
        other => panic!("{other:?} is no Postgres"),
    }
}

/// Of a service that is started on it.
fn options(database: &TestDatabase) -> Options<'_> {
    Options {
        database: database.setting(),
        clock: Clock::system(),
        demo_users: DemoUsers::None,
        may_upgrade: true,
        retention: Retention { keep: DAY, per_owner: 1_000, trash: DAY },
        max_todos: 1_000,
        metrics: Arc::default(),
    }
}

fn location(database: &TestDatabase) -> String {
    setting(database).location()
}

fn refusal<T>(result: Result<T, DatabaseError>) -> String {
    result.err().expect("it is refused").to_string()
}

/// Ends the connection of whoever copies to it.
fn cut(target: &TestDatabase) {
    let sql = "SELECT pg_terminate_backend(pid)::int FROM pg_locks WHERE locktype = 'advisory' AND granted
         AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('todo-backend ' || current_schema(), 0)";
    assert_eq!(target.numbers(sql), [1]);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_copy_is_what_the_file_was_and_goes_on_as_it_would_have() {
    for seed in 0..5 {
        let mut old = lived(seed);
        let (shown, log, epoch) = (old.shown(), old.log(), old.epoch());
        let accounts = "SELECT id, lower(username), role, created_at, revision, last_at, floor, state, token_epoch, deleted_by \
                        FROM users ORDER BY id";
        let accounts_before = old.database.rows(accounts);
        let kept = old.kept();
        old.store = None;
        let target = TestDatabase::postgres_of_tests();
        let counts = old.copy_to(&target, &mut |_| {}).unwrap();
        let count = |name: &str| counts.iter().find(|(table, _)| *table == name).unwrap().1;
        assert_eq!(count("changes"), log.len() as u64);
        let mut new = Fixture::on(target);
        assert_eq!((new.log(), new.epoch(), new.kept()), (log, epoch, kept), "seed {seed}");
        assert_eq!((new.shown(), new.database.rows(accounts)), (shown.clone(), accounts_before), "seed {seed}");
        new.reopen();
        assert_eq!(new.shown(), shown, "seed {seed}");
        // Both go on in the same way, if somebody insists.
        let refused = refusal(Store::open(options(&old.database)));
        assert!(refused.contains(&format!("was moved to {}: set DATABASE_URL", location(&new.database))), "{refused}");
        let mark = refused.rsplit_once("or, if that was never used, remove ").unwrap().1;
        std::fs::remove_file(mark).unwrap();
        old.open();
        go_on_alike(seed, &old, &new, 100_000, "key", &(1, "key", create("next")));
    }
}

/// Does the same with both from a time on, and expects the same. `key` was not used before; `used`: by whom, and for what.
fn go_on_alike(seed: u64, old: &Fixture, new: &Fixture, from: i64, key: &str, used: &(i64, &str, Command)) {
    for f in [old, new] {
        f.clock.set(from);
    }
    let both = |what: &dyn Fn(&Fixture) -> String| assert_eq!(what(new), what(old), "seed {seed}");
    both(&|f| format!("{:?}", f.send(1, key, "a", create("next")).map(changes_of)));
    both(&|f| format!("{:?}", f.apply_to_account(register("next")).unwrap()));
    both(&|f| f.start_session(2).session.0.to_string());
    both(&|f| {
        let made = f.create_token(2).map(|made| matches!(made, SessionOutcome::Created(token) if token.id.0 > 0));
        format!("{made:?}")
    });
    let (user, key, command) = used;
    let again = |f: &Fixture| repeated(f.send(*user, key, "a", command.clone()));
    assert_eq!(again(new), again(old), "seed {seed}");
    both(&|f| format!("{:?}", f.check().unwrap()));
}

/// What was made, without what is random.
fn changes_of(answered: Answered) -> Vec<(Place, Revision, Arc<Todo>)> {
    changes(Ok(answered))
        .unwrap()
        .iter()
        .map(|change| (change.place, change.revision, Arc::clone(&change.todo)))
        .collect()
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn the_way_back_brings_what_has_happened_since() {
    for seed in 0..3 {
        let mut file = lived(seed);
        file.store = None;
        let postgres = TestDatabase::postgres_of_tests();
        file.copy_to(&postgres, &mut |_| {}).unwrap();
        let mut old = Fixture::on(postgres);
        old.clock.set(100_000);
        let created = old.apply(1, vec![create("\0 on Postgres \u{ffff}"), create("2"), create("3")]).unwrap();
        let id = created[0].todo.id;
        old.apply(1, vec![delete(id.0)]).unwrap();
        old.send(2, "key", "a", create("with a key")).unwrap();
        old.apply_to_account(register("since")).unwrap();
        old.start_session(1);
        let places: Vec<i64> = created.iter().map(|change| change.place.0).collect();
        old.marked(places[1..].to_vec(), DeliveryState::Published);
        let (log, shown, epoch, kept) = (old.log(), old.shown(), old.epoch(), old.kept());
        let target = TestDatabase::sqlite();
        let refused = |old: &Fixture| copy_to_sqlite(setting(&old.database), &target.path(), &mut |_| {});
        assert!(matches!(refused(&old), Err(DatabaseError::Postgres { source: PostgresError::Taken, .. })));
        assert!(!target.path().exists());
        old.store = None;
        let mut steps = Vec::new();
        let counts = copy_to_sqlite(setting(&old.database), &target.path(), &mut |step| steps.push(step)).unwrap();
        let rows = counts.iter().map(|(_, rows)| rows).sum();
        assert_eq!(steps, [Progress::Copied(rows, rows), Progress::Compared(rows, rows)]);
        // A second copy would begin where the first one did.
        let second = refused(&old).unwrap_err().to_string();
        assert!(second.contains("was moved to ") && second.contains("todos.db: set DATABASE_URL"), "{second}");
        let mut new = Fixture::on(target);
        assert_eq!((new.log(), new.epoch(), new.kept()), (log, epoch, kept), "seed {seed}");
        assert_eq!(new.shown(), shown, "seed {seed}");
        let refused = refusal(Store::open(options(&old.database)));
        assert!(refused.contains("todos.db: set DATABASE_URL"), "{refused}");
        old.database.execute(refused.rsplit_once("or, if that was never used, ").unwrap().1);
        old.open();
        go_on_alike(seed, &old, &new, 200_000, "another key", &(2, "key", create("with a key")));
        // And there again.
        let shown = new.shown();
        new.store = None;
        let again = TestDatabase::postgres_of_tests();
        new.copy_to(&again, &mut |_| {}).unwrap();
        assert_eq!(Fixture::on(again).shown(), shown, "seed {seed}");
    }
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn what_is_in_the_trash_is_there_for_as_long_as_it_would_have_been() {
    let mut old = Fixture::on(TestDatabase::sqlite());
    old.apply(1, vec![create("x"), delete(1)]).unwrap();
    old.reopen_after(DAY - Duration::from_secs(300));
    old.store = None;
    let target = TestDatabase::postgres_of_tests();
    old.copy_to(&target, &mut |_| {}).unwrap();
    let mut new = Fixture::on(target);
    new.a_minute_passes();
    new.create(2, "the minute is over");
    assert_eq!(new.trash(1).len(), 1);
    new.reopen_after(Duration::from_secs(600));
    new.wait_until("its time in the trash is over", |f| f.trash(1).is_empty());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_copy_that_is_broken_off_anywhere_is_taken_up_where_it_was() {
    let mut old = lived(7);
    let shown = old.shown();
    old.store = None;
    let mut steps = 0;
    let rows: u64 =
        old.copy_to(&TestDatabase::postgres_of_tests(), &mut |_| steps += 1).unwrap().iter().map(|it| it.1).sum();
    assert!(steps > 20, "{steps}");
    for at in 1..=steps {
        let target = TestDatabase::postgres_of_tests();
        let refused = refusal(old.copy_to(&target, &mut |_| {}));
        assert!(refused.contains("was moved to postgres://"), "{refused}");
        std::fs::remove_file(old.database.path().with_extension("db.moved")).unwrap();
        let mut step = 0;
        let error = refusal(old.copy_to(&target, &mut |_| {
            step += 1;
            if step == at {
                cut(&target);
            }
        }));
        assert!(error.starts_with("cannot use the database"), "{error}");
        let unfinished = "was begun and is not finished: run the same `todo-backend migrate-to` again";
        let error = check_postgres(setting(&target)).unwrap_err().to_string();
        assert!(error.contains(unfinished), "{error}");
        let there: i64 =
            TABLES.iter().map(|table| target.number(&format!("SELECT count(*) FROM {}", table.name))).sum();
        let mut begun_with = None;
        old.copy_to(&target, &mut |progress| match progress {
            Progress::Copied(done, all) if done > 0 => {
                assert_eq!(all, rows);
                begun_with.get_or_insert(done);
            }
            _ => {}
        })
        .unwrap();
        assert!(at == 1 || there > 0 && begun_with.is_some(), "{there} {begun_with:?}");
        let new = Fixture::on(target);
        assert_eq!(new.shown(), shown, "cut at step {at}");
    }
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn nothing_is_left_of_a_way_back_that_is_broken_off() {
    let mut old = lived(3);
    old.store = None;
    let postgres = TestDatabase::postgres_of_tests();
    old.copy_to(&postgres, &mut |_| {}).unwrap();
    // Rows that the connection has already brought are written before its end is noticed.
    let more = "INSERT INTO login_networks SELECT 1, format('11.%s.%s.%s', n / 65536, n / 256 % 256, n % 256), 1 FROM generate_series(1, 100000) AS n";
    postgres.execute(more);
    let target = TestDatabase::sqlite();
    std::fs::write(target.path(), "something").unwrap();
    let error = refusal(copy_to_sqlite(setting(&postgres), &target.path(), &mut |_| {}));
    assert!(error.ends_with("exists already; name another file"), "{error}");
    std::fs::remove_file(target.path()).unwrap();
    let error = refusal(copy_to_sqlite(setting(&postgres), &target.path(), &mut |progress| {
        if matches!(progress, Progress::Copied(1_000, _)) {
            cut(&postgres);
        }
    }));
    assert!(error.starts_with("cannot use the database"), "{error}");
    let left: Vec<_> =
        std::fs::read_dir(target.path().parent().unwrap()).unwrap().map(|it| it.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|it| it == "lock")), "{left:?}");
    // What a copy that was killed has left is no hindrance.
    std::fs::write(target.path().with_extension("db.partial"), "of another time").unwrap();
    copy_to_sqlite(setting(&postgres), &target.path(), &mut |_| {}).unwrap();
    assert_eq!(Fixture::on(target).check().unwrap(), Vec::<String>::new());
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_copy_that_is_not_what_the_file_is_is_refused() {
    let mut old = lived(1);
    old.store = None;
    let damages = [
        ("todos", "UPDATE todos SET description = 'y' WHERE id = (SELECT min(id) FROM todos)"),
        ("changes", "DELETE FROM changes WHERE seq = (SELECT min(seq) FROM changes)"),
        ("outbox", "INSERT INTO outbox SELECT 1, todo_id, version, owner_id, revision FROM changes WHERE seq = 1"),
        ("login_networks", "INSERT INTO login_networks SELECT user_id, 'zzz', 1 FROM login_networks LIMIT 1"),
    ];
    for (table, damage) in damages {
        let target = TestDatabase::postgres_of_tests();
        let error = refusal(old.copy_to(&target, &mut |progress| match progress {
            Progress::Copied(done, all) if done == all => target.execute(damage),
            _ => {}
        }));
        assert!(error.contains(&format!("no service starts on it: the row of {table} whose ")), "{error}");
        let service = refusal(Store::open(options(&target)));
        assert!(service.contains("is not finished"), "{service}");
    }
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn only_a_whole_database_is_copied_and_only_into_an_empty_one() {
    let mut old = lived(2);
    let target = TestDatabase::postgres_of_tests();
    let path = old.database.path();
    let error = refusal(copy(&path.with_extension("other"), &target, &mut |_| {}));
    assert!(error.starts_with("there is no database at "), "{error}");
    assert!(matches!(old.copy_to(&target, &mut |_| {}), Err(DatabaseError::Locked { .. })), "a service uses it");
    old.store = None;
    old.database.execute("PRAGMA user_version = 5");
    let error = refusal(old.copy_to(&target, &mut |_| {}));
    assert!(error.contains("has schema 5, and this todo-backend knows 6: start the service once"), "{error}");
    old.database.execute("PRAGMA user_version = 6; UPDATE users SET revision = revision + 1 WHERE id = 1");
    let error = refusal(old.copy_to(&target, &mut |_| {}));
    assert!(error.contains("is not good, nothing was changed"), "{error}");
    old.database.execute("UPDATE users SET revision = revision - 1 WHERE id = 1");
    assert_eq!(target.number("SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace"), 0);

    // A copy that was begun is one of that database, as it was then.
    let error = refusal(old.copy_to(&target, &mut |_| cut(&target)));
    assert!(error.starts_with("cannot use the database"), "{error}");
    old.open();
    old.create(1, "after the copy was begun");
    old.store = None;
    let error = refusal(old.copy_to(&target, &mut |_| {}));
    assert!(error.contains("of what this one was earlier, was begun in"), "{error}");

    let mut other = Fixture::on(TestDatabase::postgres_of_tests());
    assert!(matches!(
        old.copy_to(&other.database, &mut |_| {}),
        Err(DatabaseError::Postgres { source: PostgresError::Taken, .. })
    ));
    other.store = None;
    let error = refusal(old.copy_to(&other.database, &mut |_| {}));
    assert!(error.contains("has data already: migrate-to copies into an empty database"), "{error}");
    let target = TestDatabase::postgres_of_tests();
    old.copy_to(&target, &mut |_| {}).unwrap();
    assert_eq!(
        refusal(old.copy_to(&target, &mut |_| {})),
        format!(
            "{} is a finished copy of this database: start the service with that as DATABASE_URL",
            location(&target)
        )
    );
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn the_copy_of_a_backup_is_a_database_that_was_restored() {
    let mut old = Fixture::on(TestDatabase::sqlite());
    old.create(1, "in the backup");
    old.start_session(1);
    drop(old.create_token(1).unwrap());
    let backup = old.database.path().with_extension("backup");
    maintenance::backup(&old.database.path(), &backup).unwrap();
    old.create(1, "later");
    let target = TestDatabase::postgres_of_tests();
    let error = refusal(copy_to_postgres(&backup, true, setting(&target), &mut |_| cut(&target)));
    assert!(error.starts_with("cannot use the database"), "{error}");
    copy_to_postgres(&backup, true, setting(&target), &mut |_| {}).unwrap();
    let new = Fixture::on(target);
    assert_eq!((new.todos(1).len(), new.count("sessions"), new.count("personal_tokens")), (1, 0, 0));
    assert_ne!(new.epoch(), old.epoch());
    old.reopen();
    assert!(!backup.with_extension("backup.moved").exists(), "a backup can be restored as ever");
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn a_service_that_was_overlooked_writes_into_no_copy() {
    let target = TestDatabase::postgres_of_tests();
    let service = Store::open(options(&target)).unwrap();
    let epoch = service.epoch().to_string();
    drop(service);
    let mut old = lived(4);
    old.store = None;
    let error = refusal(old.copy_to(&target, &mut |_| cut(&target)));
    assert!(error.starts_with("cannot use the database"), "{error}");
    // It goes by the epoch and its row.
    assert_eq!(target.number(&format!("SELECT count(*) FROM meta WHERE epoch = '{epoch}'")), 0);
    assert_eq!(target.number("SELECT count(*) FROM processes"), 0);
}

#[test]
#[ignore = "needs TEST_POSTGRES, which tests/stack/with_postgres.sh sets"]
fn every_table_and_column_is_copied() {
    let (new, old) = (Fixture::on_postgres(), Fixture::on(TestDatabase::sqlite()));
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let first =
        |rows: Vec<Vec<Option<String>>>| sorted(rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect());
    let tables: Vec<String> = TABLES.iter().map(|table| table.name.to_owned()).collect();
    // Of processes that run, and what the log does not say to them.
    let of_processes = ["leases", "meta", "processes", "records"].map(str::to_owned);
    let there = first(
        new.database
            .rows("SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema()"),
    );
    assert_eq!(there, sorted([tables.clone(), of_processes.into()].concat()));
    let there = first(old.database.rows("SELECT name FROM sqlite_schema WHERE type = 'table'"));
    let of_sqlite = ["meta", "sqlite_sequence", "sqlite_stat1"];
    let copied = |name: &String| !of_sqlite.contains(&name.as_str());
    assert_eq!(
        there.into_iter().filter(copied).collect::<Vec<_>>(),
        sorted(tables.into_iter().filter(|name| name != "outbox").collect())
    );
    for table in &TABLES {
        let columns = sorted(table.names().map(str::to_owned).collect());
        assert_eq!(table.names().next(), Some(table.key));
        let sql = format!(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped",
            table.name
        );
        assert_eq!(first(new.database.rows(&sql)), columns, "{}", table.name);
        if table.name != "outbox" {
            let there = first(old.database.rows(&format!("SELECT name FROM pragma_table_info('{}')", table.name)));
            // What has become of a change's event is in another table.
            let there: Vec<String> =
                there.into_iter().filter(|name| table.name != "changes" || name != "state").collect();
            assert_eq!(there, columns, "{}", table.name);
        }
    }
}
