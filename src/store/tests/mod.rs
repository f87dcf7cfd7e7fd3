//! The store from outside and from inside: groups, refusals, disks that fail, reopening, marks, and what the relay reads.

mod retention;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, MutexGuard};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::decide::Refusal;
use super::outbox::{Marks, Want};
use super::*;
use crate::domain::change::{Cursor, DeliveryState, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::{NewTodo, TodoPatch, Version};
use crate::domain::trace::TraceParent;

const OWNERS: [i64; 3] = [1, 2, 3];

type Answer = Result<Vec<Arc<Change>>, StoreError>;
type WalHook = fn(&mut rusqlite::hooks::Wal, i32) -> rusqlite::Result<()>;

/// A store in a directory of its own, and the clock that it reads.
struct Fixture {
    store: Option<Store>,
    clock: Arc<TestClock>,
    database: Database,
    retention: Retention,
    directory: tempfile::TempDir,
}

/// A clock that tests set, and in which they can hold the writer: it asks for the time when it decides.
#[derive(Default)]
struct TestClock {
    now: AtomicI64,
    asked: Mutex<u64>,
    was_asked: Condvar,
    gate: Mutex<()>,
}

impl TestClock {
    fn ask(&self) -> Timestamp {
        *self.asked.lock() += 1;
        self.was_asked.notify_all();
        drop(self.gate.lock());
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    fn set(&self, now: i64) {
        self.now.store(now, Ordering::Relaxed);
    }
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::File(directory.path().join("todos.db"));
        let retention = Retention { keep: Duration::from_secs(86_400), per_owner: 1_000_000 };
        let mut fixture = Self { store: None, clock: Arc::default(), database, retention, directory };
        fixture.open();
        fixture
    }

    fn open(&mut self) {
        let clock = Arc::clone(&self.clock);
        let clock = Clock::new(move || clock.ask());
        let hash = |_: &str| "no password".to_owned();
        let options = Options {
            database: &self.database,
            clock,
            demo_password_hash: Some(&hash),
            retention: self.retention,
            metrics: Arc::default(),
        };
        self.store = Some(Store::open(options).unwrap());
    }

    fn reopen(&mut self) {
        self.store = None;
        self.open();
    }

    fn database_path(&self) -> PathBuf {
        self.directory.path().join("todos.db")
    }

    /// A connection of the test's own.
    fn connection(&self) -> Connection {
        let connection = Connection::open(&self.path).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }

    /// Queues commands and does not wait.
    fn submit(&self, owner: i64, commands: Vec<Command>) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        assert!(self.queue.try_send(Job::Apply(Request { context: context(owner), commands, reply })).is_ok());
        answer
    }

    fn apply(&self, owner: i64, commands: Vec<Command>) -> Answer {
        self.submit(owner, commands).blocking_recv().unwrap()
    }

    fn create(&self, owner: i64, title: &str) -> Arc<Todo> {
        Arc::clone(&self.apply(owner, vec![create(title)]).unwrap()[0].todo)
    }

    fn todo(&self, owner: i64, id: TodoId) -> Option<Arc<Todo>> {
        Store::todo(self, UserId(owner), id)
    }

    fn todos(&self, owner: i64) -> Vec<Arc<Todo>> {
        Store::todos(self, UserId(owner))
    }

    fn mark(&self, place: i64, state: DeliveryState) {
        self.outbox().mark(Place(place), state);
    }

    /// Holds the writer at a command of its own; what is queued until the guard is dropped makes the next groups.
    fn hold(&self) -> (MutexGuard<'_, ()>, oneshot::Receiver<Answer>) {
        let gate = self.clock.gate.lock();
        let mut asked = self.clock.asked.lock();
        let before = *asked;
        let held = self.submit(OWNERS[0], vec![create("holds the writer")]);
        while *asked == before {
            self.clock.was_asked.wait(&mut asked);
        }
        (gate, held)
    }

    fn inject_fault(&self, inject: fn(&mut Connection)) {
        assert!(self.queue.send(Job::InjectFault(inject)).is_ok());
    }

    /// What is neither published nor parked, as the relay finds it.
    fn unpublished(&self) -> Vec<Arc<Change>> {
        let read = |known, wants| {
            let wanted = Wanted { known, told: known, wants, room: 10_000, discover: 10_000 };
            self.read_outbox(&wanted).unwrap()
        };
        let discovered = read(Cursor::START, Vec::new()).discovered.unwrap();
        let want = |&(todo, version): &(TodoId, Version)| Want { todo, above: version.previous(), limit: 10_000 };
        let fed = read(discovered.known, discovered.todos.iter().map(want).collect()).fed;
        let mut changes: Vec<_> = fed.into_iter().flat_map(|fed| fed.changes).collect();
        changes.sort_unstable_by_key(|change| change.place.0);
        changes
    }

    fn head(&self, owner: i64) -> i64 {
        let sql = "SELECT coalesce(max(revision), 0) FROM changes WHERE owner_id = ?1";
        self.connection().query_row(sql, [owner], |row| row.get(0)).unwrap()
    }

    /// Waits for what the writer does by itself.
    fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < Duration::from_secs(30), "waited for nothing: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What is in the database's tables, as text: to see that nothing has changed, or what has.
    fn dump(&self) -> String {
        let connection = self.connection();
        let tables = ["users", "todos", "changes", "sqlite_sequence"].map(|table| {
            let mut statement = connection.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                let values = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column));
                values.map(|value| value.map(|value| format!("{value:?}"))).collect::<Result<Vec<_>, _>>()
            };
            let rows: Vec<_> = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
            format!("{table}: {rows:#?}")
        });
        tables.join("\n")
    }
}

impl std::ops::Deref for Fixture {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store.as_ref().unwrap()
    }
}

fn context(owner: i64) -> Context {
    Context { owner: UserId(owner), actor: format!("user {owner}").into(), trace: TraceParent::random() }
}

fn create(title: &str) -> Command {
    Command::Create(NewTodo { title: title.into(), description: None, completed: false })
}

fn delete(id: i64) -> Command {
    Command::Delete(TodoId(id))
}

fn rename(id: i64, title: &str) -> Command {
    Command::Update(TodoId(id), TodoPatch { title: Some(title.into()), ..TodoPatch::default() })
}

/// A change in short: todo, version, revision.
fn numbers(answer: &Answer) -> Vec<(i64, i64, i64)> {
    let numbers = |change: &Arc<Change>| (change.todo.id.0, change.todo.version.0, change.revision.0);
    answer.as_ref().unwrap().iter().map(numbers).collect()
}

fn wait(answers: Vec<oneshot::Receiver<Answer>>) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect()
}

// Groups.

#[test]
fn a_group_decides_each_command_on_top_of_the_earlier_ones() {
    let f = Fixture::new();
    let todo = f.create(2, "v1");
    let (gate, held) = f.hold();
    let answers = vec![
        f.submit(2, vec![rename(todo.id.0, "v2")]),
        f.submit(2, vec![rename(todo.id.0, "v3")]),
        f.submit(3, vec![create("of another owner")]),
        f.submit(2, vec![delete(todo.id.0)]),
        f.submit(2, vec![rename(todo.id.0, "too late")]),
        f.submit(2, vec![delete(todo.id.0)]),
        f.submit(2, vec![create("next")]),
    ];
    drop(gate);
    assert!(held.blocking_recv().unwrap().is_ok());
    let answers = wait(answers);
    let id = todo.id.0;
    assert_eq!(numbers(&answers[0]), [(id, 2, 2)]);
    assert_eq!(numbers(&answers[1]), [(id, 3, 3)]);
    assert_eq!(numbers(&answers[2]), [(id + 2, 1, 1)]);
    assert_eq!(numbers(&answers[3]), [(id, 4, 4)]);
    assert_eq!(answers[4], Err(StoreError::Refused(Refusal::NotFound)));
    assert_eq!(answers[5], Err(StoreError::Refused(Refusal::NotFound)));
    assert_eq!(numbers(&answers[6]), [(id + 3, 1, 5)]);
    let titles = |answer: &Answer| answer.as_ref().unwrap()[0].todo.title.to_string();
    assert_eq!([titles(&answers[0]), titles(&answers[1]), titles(&answers[3])], ["v2", "v3", "v3"]);
    assert_eq!(f.todo(2, todo.id), None);
    assert_eq!(f.todos(2).len(), 1);
}

#[test]
fn one_batch_sees_its_own_changes() {
    let f = Fixture::new();
    let todo = f.create(1, "v1");
    let batch = vec![rename(todo.id.0, "v2"), create("new"), rename(todo.id.0 + 1, "newer"), delete(todo.id.0)];
    let answer = f.apply(1, batch);
    assert_eq!(numbers(&answer), [(1, 2, 2), (2, 1, 3), (2, 2, 4), (1, 3, 5)]);
    assert_eq!(f.todos(1).iter().map(|todo| (todo.id.0, &*todo.title)).collect::<Vec<_>>(), [(2, "newer")]);
}

#[test]
fn a_refused_command_leaves_no_trace() {
    let f = Fixture::new();
    let todo = f.create(1, "mine");
    let (gate, held) = f.hold();
    let answers = vec![
        f.submit(1, vec![create("before")]),
        // The batch creates, changes and deletes before it is refused.
        f.submit(1, vec![create("never"), rename(todo.id.0, "never"), delete(todo.id.0), rename(77, "x")]),
        // Another owner's todo is no todo.
        f.submit(2, vec![rename(todo.id.0, "stolen")]),
        f.submit(1, vec![rename(todo.id.0, "after"), create("after")]),
    ];
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    let answers = wait(answers);
    assert_eq!(numbers(&answers[0]), [(3, 1, 3)]);
    assert_eq!(answers[1], Err(StoreError::Refused(Refusal::NotFound)));
    assert_eq!(answers[2], Err(StoreError::Refused(Refusal::NotFound)));
    assert_eq!(numbers(&answers[3]), [(1, 2, 4), (4, 1, 5)]);
    assert_eq!((f.head(1), f.head(2)), (5, 0));
}

#[test]
fn a_group_has_at_most_512_operations_and_the_next_takes_the_rest() {
    let f = Fixture::new();
    // Seq 1 holds the writer; with batches of two, the groups are 2..=513, 514..=1025, 1026..=1201.
    let broken =
        "CREATE TRIGGER broken BEFORE INSERT ON changes WHEN new.seq = 1000 BEGIN SELECT raise(ABORT, 'no'); END";
    f.connection().execute_batch(broken).unwrap();
    let (gate, held) = f.hold();
    let answers: Vec<_> = (0..600).map(|_| f.submit(2, vec![create("a"), create("b")])).collect();
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    let answers = wait(answers);
    let (first, rest) = answers.split_at(256);
    assert!(first.iter().all(Result::is_ok));
    assert_eq!(numbers(&first[255]), [(512, 1, 511), (513, 1, 512)]);
    // The second group fails with all its members; the third takes over its numbers, and reaches seq 689.
    let (second, third) = rest.split_at(256);
    assert!(second.iter().all(|answer| *answer == Err(StoreError::NotApplied)));
    assert!(third.iter().all(Result::is_ok));
    assert_eq!(numbers(&third[0]), [(514, 1, 513), (515, 1, 514)]);
    assert_eq!(f.head(2), 512 + 176);
}

#[test]
fn a_full_queue_is_busy_and_works_again_once_it_is_not() {
    let f = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let apply = || runtime.block_on(Store::apply(&f, context(3), vec![create("one more")]));
    let (gate, held) = f.hold();
    let answers: Vec<_> = (0..MAX_QUEUED).map(|_| f.submit(2, vec![create("queued")])).collect();
    assert_eq!(apply(), Err(StoreError::Busy));
    drop(gate);
    held.blocking_recv().unwrap().unwrap();
    for (index, answer) in wait(answers).iter().enumerate() {
        assert_eq!(numbers(answer), [(index as i64 + 2, 1, index as i64 + 1)]);
    }
    assert_eq!(numbers(&apply()), [(MAX_QUEUED as i64 + 2, 1, 1)]);
    assert_eq!(f.todo_count(), MAX_QUEUED + 2);
    assert_eq!(f.outbox().pending(), MAX_QUEUED + 2);
}

#[test]
fn what_was_queued_before_the_end_is_still_done() {
    let mut f = Fixture::new();
    let (gate, held) = f.hold();
    let answers: Vec<_> = (0..3).map(|_| f.submit(2, vec![create("late")])).collect();
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| f.close());
        drop(gate);
        closing.join().unwrap();
    });
    assert!(held.blocking_recv().unwrap().is_ok());
    assert!(wait(answers).iter().all(Result::is_ok));
    f.reopen();
    assert_eq!(f.todo_count(), 4);
}

// A database that fails.

/// A group with everything in it, while the database fails: what its members are told.
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
        Command::Create(NewTodo { title: title.into(), description: Some("d".repeat(10_000).into()), completed: false })
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

/// SQLite reports the hook's error as the commit's, though the commit is done.
fn fails_after_commits(connection: &mut Connection) {
    let error = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR), None);
    connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, _| Err(error()))).unwrap();
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

// Time, restarts, and long random lives.

#[test]
fn a_clock_that_jumps_back_does_not_take_changes_with_it() {
    let mut f = Fixture::new();
    let mut at = Vec::new();
    let mut apply = |f: &Fixture, now: i64, owner: i64, command: Command| {
        f.clock.set(now);
        let change = Arc::clone(&f.apply(owner, vec![command]).unwrap()[0]);
        at.push((change.at.0, change.todo.created_at.0, change.todo.updated_at.0));
    };
    apply(&f, 5_000, 1, create("a"));
    apply(&f, 1_000, 1, create("b"));
    apply(&f, 1_000, 1, rename(1, "a2"));
    // Owners have their own time.
    apply(&f, 2_000, 2, create("c"));
    f.reopen();
    apply(&f, 3_000, 1, delete(2));
    apply(&f, 6_000, 1, create("d"));
    assert_eq!(
        at,
        [
            (5_000, 5_000, 5_000),
            (5_000, 5_000, 5_000),
            (5_000, 5_000, 5_000),
            (2_000, 2_000, 2_000),
            (5_000, 5_000, 5_000),
            (6_000, 6_000, 6_000)
        ]
    );
}

#[test]
fn the_id_of_a_deleted_todo_is_never_used_again() {
    let mut f = Fixture::new();
    let todo = f.create(1, "last");
    f.apply(1, vec![delete(todo.id.0)]).unwrap();
    f.reopen();
    assert_eq!(f.create(2, "next").id.0, todo.id.0 + 1);
}

/// What the store must hold after some commands, as simply as it can be said.
#[derive(Default)]
struct Model {
    todos: BTreeMap<(i64, i64), (i64, String, bool)>,
    revisions: BTreeMap<i64, i64>,
    last_id: i64,
    /// (owner, todo, version, revision, kind), in commit order.
    log: Vec<(i64, i64, i64, i64, Kind)>,
}

impl Model {
    fn apply(&mut self, owner: i64, commands: &[Command]) -> Option<Vec<(i64, i64, i64)>> {
        let (mut todos, mut revision, mut last_id) =
            (self.todos.clone(), *self.revisions.get(&owner).unwrap_or(&0), self.last_id);
        let mut log = Vec::new();
        for command in commands {
            let (id, version, kind) = match command {
                Command::Create(new) => {
                    last_id += 1;
                    todos.insert((owner, last_id), (1, new.title.to_string(), new.completed));
                    (last_id, 1, Kind::Created)
                }
                Command::Update(id, patch) => {
                    let todo = todos.get_mut(&(owner, id.0))?;
                    todo.0 += 1;
                    todo.1 = patch.title.as_deref().unwrap_or(&todo.1).to_owned();
                    todo.2 = patch.completed.unwrap_or(todo.2);
                    (id.0, todo.0, Kind::Updated)
                }
                Command::Delete(id) => (id.0, todos.remove(&(owner, id.0))?.0 + 1, Kind::Deleted),
            };
            revision += 1;
            log.push((owner, id, version, revision, kind));
        }
        self.todos = todos;
        self.revisions.insert(owner, revision);
        self.last_id = last_id;
        self.log.extend(&log);
        Some(log.into_iter().map(|(_, id, version, revision, _)| (id, version, revision)).collect())
    }
}

fn random_commands(random: &mut SmallRng, ids: i64) -> Vec<Command> {
    let count = if random.random_bool(0.8) { 1 } else { random.random_range(2..5) };
    let one = |_| {
        // Some that never were.
        let id = random.random_range(1..=ids + 2);
        let title = random.random_range(0..1000).to_string();
        match random.random_range(0..10) {
            0..3 => create(&title),
            3..5 => delete(id),
            5 => Command::Update(TodoId(id), TodoPatch { completed: Some(random.random()), ..TodoPatch::default() }),
            _ => rename(id, &title),
        }
    };
    (0..count).map(one).collect()
}

#[test]
fn random_lives_of_a_store_agree_with_a_simple_model() {
    for seed in 0..40 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut f, mut model) = (Fixture::new(), Model::default());
        for _ in 0..random.random_range(1..6) {
            f.clock.set(random.random_range(0..1_000));
            let (gate, held) = f.hold();
            let mut expected = vec![model.apply(OWNERS[0], &[create("holds the writer")])];
            let mut answers = vec![held];
            for _ in 0..random.random_range(0..40) {
                let owner = OWNERS[random.random_range(0..3)];
                let commands = random_commands(&mut random, model.last_id);
                expected.push(model.apply(owner, &commands));
                answers.push(f.submit(owner, commands));
            }
            drop(gate);
            let answers: Vec<_> = wait(answers).iter().map(|answer| answer.is_ok().then(|| numbers(answer))).collect();
            assert_eq!(answers, expected, "seed {seed}");
            if random.random_bool(0.5) {
                f.reopen();
            }
            check(&f, &model, seed);
        }
    }
}

fn check(f: &Fixture, model: &Model, seed: u64) {
    let todos: BTreeMap<_, _> = OWNERS
        .iter()
        .flat_map(|owner| f.todos(*owner))
        .map(|todo| ((todo.owner.0, todo.id.0), (todo.version.0, todo.title.to_string(), todo.completed)))
        .collect();
    assert_eq!(todos, model.todos, "seed {seed}");
    assert_eq!(f.todo_count(), model.todos.len());
    assert_eq!(f.outbox().pending(), model.log.len());
    let unpublished = f.unpublished();
    let log: Vec<_> = unpublished
        .iter()
        .map(|change| (change.todo.owner.0, change.todo.id.0, change.todo.version.0, change.revision.0, change.kind))
        .collect();
    assert_eq!(log, model.log, "seed {seed}");
    for owner in OWNERS {
        let at: Vec<_> = unpublished.iter().filter(|c| c.todo.owner.0 == owner).map(|c| c.at).collect();
        assert!(at.is_sorted(), "seed {seed}: time goes back");
    }
}

// Marks, and what the relay reads.

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
    assert_eq!(f.apply(1, vec![delete(9)]), Err(StoreError::Refused(Refusal::NotFound)));
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

#[test]
fn marks_survive_a_group_that_fails_and_are_committed_at_the_end() {
    let mut f = Fixture::new();
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

fn states(f: &Fixture) -> Vec<i64> {
    let connection = f.connection();
    let mut statement = connection.prepare("SELECT state FROM changes ORDER BY seq").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
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
                seq: change.place.0,
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
        assert_eq!(f.apply(1, vec![rename(99, "commits the marks")]), Err(StoreError::Refused(Refusal::NotFound)));
        // Held: so that no tick commits what is to be uncommitted.
        let (gate, held) = f.hold();
        for entry in &log {
            entry.marked.into_iter().for_each(|mark| f.mark(entry.seq, mark));
        }
        let known = if random.random_bool(0.3) { 0 } else { random.random_range(0..=log.len() as i64) };
        let want = |todo| Want {
            todo: TodoId(todo),
            above: Version(random.random_range(0..120)),
            limit: random.random_range(1..=100),
        };
        let wants: Vec<Want> = (1..=todos).map(want).collect();
        let (room, discover) = (random.random_range(1..=400), random.random_range(0..=todos as usize));
        let told = random.random_range(known..=log.len() as i64);
        let [known, told] = [known, told].map(|place| Cursor::up_to(Place(place)));
        let wanted = Wanted { known, told, wants, room, discover };
        compare(&f.read_outbox(&wanted).unwrap(), &log, &wanted, seed);
        drop(gate);
        held.blocking_recv().unwrap().unwrap();
    }
}

/// Compares with what [`Store::read_outbox`] promises, todo by todo.
fn compare(found: &Found, log: &[Logged], wanted: &Wanted, seed: u64) {
    let Wanted { room, discover, .. } = *wanted;
    let (known, told) = (wanted.known.place().0, wanted.told.place().0);
    let mut left = room;
    for (index, want) in wanted.wants.iter().enumerate() {
        let Some(fed) = found.fed.get(index) else {
            assert_eq!(left, 0, "seed {seed}: {} was left out", want.todo);
            continue;
        };
        let mut expected: Vec<i64> = log
            .iter()
            .filter(|e| e.todo == want.todo.0 && e.version > want.above.0 && e.seq <= told)
            .filter(|e| e.durable.or(e.marked).is_none())
            .map(|entry| entry.seq)
            .collect();
        let limit = want.limit.min(left);
        assert_eq!(fed.more, expected.len() > limit, "seed {seed}");
        expected.truncate(limit);
        assert_eq!((fed.todo, seqs(&fed.changes)), (want.todo, expected), "seed {seed}");
        left -= fed.changes.len();
    }
    let Some(discovered) = &found.discovered else {
        assert_eq!(discover, 0);
        return;
    };
    let mut expected: Vec<(TodoId, Version)> = Vec::new();
    // Who knows the log up to some place was told of what is parked, or parked it.
    let is_parked = |e: &&Logged| e.durable.or(e.marked) == Some(DeliveryState::Parked);
    let parked: HashSet<TodoId> =
        log.iter().filter(|_| known == 0).filter(is_parked).map(|entry| TodoId(entry.todo)).collect();
    assert_eq!(discovered.parked, parked, "seed {seed}");
    for entry in log.iter().filter(|e| e.seq > known && e.seq <= discovered.known.place().0 && e.durable.is_none()) {
        let new = entry.marked.is_none() && expected.iter().all(|(todo, _)| todo.0 != entry.todo);
        if new && !parked.contains(&TodoId(entry.todo)) {
            expected.push((TodoId(entry.todo), Version(entry.version)));
        }
    }
    assert_eq!(discovered.todos, expected, "seed {seed}");
    if discovered.behind {
        assert_eq!(discovered.todos.len(), discover, "seed {seed}");
    } else {
        assert_eq!(discovered.known.place().0, log.len() as i64, "seed {seed}");
    }
}

#[test]
fn a_todo_that_is_parked_but_not_durably_is_known_as_parked_however_little_the_first_look_sees() {
    let f = Fixture::new();
    let [_, _, poison] = ["one is enough", "stops the look", "poison"].map(|title| f.create(1, title));
    f.apply(1, vec![rename(poison.id.0, "behind it")]).unwrap();
    let look = |known| {
        f.read_outbox(&Wanted { known, told: known, wants: Vec::new(), room: 0, discover: 1 })
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
    parked.extend(look(first.known).parked);
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
    let look = |known| {
        f.read_outbox(&Wanted { known, told: known, wants: Vec::new(), room: 0, discover: 10 })
            .unwrap()
            .discovered
            .unwrap()
    };
    let first = look(Cursor::START);
    assert_eq!(
        (&first.todos[..], first.known.place(), first.behind),
        (&[(todo.id, Version(1))][..], Place(10_000), true)
    );
    let second = look(first.known);
    assert_eq!((&second.todos[..], second.behind), (&[(todo.id, Version(10_001)), (last.id, Version(1))][..], false));
}

fn seqs(changes: &[Arc<Change>]) -> Vec<i64> {
    changes.iter().map(|change| change.place.0).collect()
}
