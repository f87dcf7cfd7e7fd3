//! The store from outside and from inside, on a database of its own for each test: an SQLite file or, with TEST_POSTGRES set,
//! a schema of that Postgres. All tests hold on both, but for those of `on_sqlite` and `on_postgres`.

mod accounts;
mod changes;
#[path = "../../../tests/database/mod.rs"]
mod database;
mod erasing;
mod failing;
mod groups;
mod idempotency;
mod lives;
mod moving;
mod on_postgres;
mod on_sqlite;
mod outbox;
mod replicas;
mod retention;
mod searches;
mod sessions;
mod trash;
mod undo;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::{Condvar, MutexGuard};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::decide::Refusal;
use super::idempotency::{Idempotency, KeptAnswer};
use super::leases::Parts;
use super::outbox::{Marks, Want};
use super::outcome::Outcome;
use super::*;
use crate::config;
use crate::domain::account::{Role, TokenEpoch, Username};
use crate::domain::change::{Cursor, DeliveryState, Kind, Place, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::Version;
use crate::domain::todo::input::{NewTodo, TodoPatch};
use crate::domain::trace::TraceParent;
use database::TestDatabase;

const OWNERS: [i64; 3] = [1, 2, 3];
const DAY: Duration = Duration::from_secs(86_400);
/// How soon after a start the writer looks at what has had its time.
const TICK: Duration = Duration::from_secs(1);

type Answer = Result<Vec<Arc<Change>>, StoreError>;

/// A store in a directory of its own, and the clock that it reads.
struct Fixture {
    store: Option<Store>,
    clock: Arc<TestClock>,
    database: TestDatabase,
    retention: Retention,
    max_todos: usize,
    demo_users: bool,
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
    /// Whether other processes can be on the same database.
    fn is_shared(&self) -> bool {
        matches!(self.log, ChangeLog::Postgres(_))
    }

    fn new() -> Self {
        Self::on(TestDatabase::new())
    }

    fn on(database: TestDatabase) -> Self {
        let retention = Retention { keep: 30 * DAY, per_owner: 1_000_000, trash: DAY };
        let mut fixture =
            Self { store: None, clock: Arc::default(), database, retention, max_todos: 1_000_000, demo_users: true };
        fixture.open();
        fixture
    }

    fn open(&mut self) {
        let hash = |_: &str| "no password".to_owned();
        let demo_users = || if self.demo_users { DemoUsers::Created(&hash) } else { DemoUsers::None };
        // A process that another test starts has this one's descriptors, and so its locks, until it executes its program.
        let begin = Instant::now();
        let opened = loop {
            match self.try_open(demo_users(), true) {
                Err(DatabaseError::Locked { .. }) if begin.elapsed() < TICK => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => break opened,
            }
        };
        let store = opened.unwrap();
        store.take_leases();
        while !store.leases().keep_house() {
            assert!(begin.elapsed() < 10 * TICK, "another store keeps house");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.store = Some(store);
    }

    /// Another store on the same database.
    fn try_open(&self, demo_users: DemoUsers<'_>, may_upgrade: bool) -> Result<Store, DatabaseError> {
        let clock = Arc::clone(&self.clock);
        Store::open(Options {
            database: self.database.setting(),
            clock: Clock::new(move || clock.ask()),
            demo_users,
            may_upgrade,
            retention: self.retention,
            max_todos: self.max_todos,
            metrics: Arc::default(),
        })
    }

    fn reopen(&mut self) {
        self.store = None;
        self.open();
    }

    /// Another life, in which so much more running time has passed.
    fn reopen_after(&mut self, time: Duration) {
        self.store = None;
        self.database.let_time_pass(time);
        self.open();
    }

    /// Queues commands and does not wait.
    fn submit(&self, owner: i64, commands: Vec<Command>) -> Pending {
        Pending(self.submit_request(owner, commands.into()))
    }

    fn submit_request(&self, owner: i64, commands: Commands) -> oneshot::Receiver<Result<Answered, StoreError>> {
        let (reply, answer) = oneshot::channel();
        assert!(self.queue.try_send(Job::Apply(Request::Todos { context: context(owner), commands, reply })).is_ok());
        answer
    }

    fn apply(&self, owner: i64, commands: Vec<Command>) -> Answer {
        self.submit(owner, commands).blocking_recv().unwrap()
    }

    fn create(&self, owner: i64, title: &str) -> Arc<Todo> {
        Arc::clone(&self.apply(owner, vec![create(title)]).unwrap()[0].todo)
    }

    fn apply_to_account(&self, command: AccountCommand) -> Result<Arc<User>, StoreError> {
        let (reply, answer) = oneshot::channel();
        assert!(self.queue.try_send(Job::Apply(Request::Account { authority: None, command, reply })).is_ok());
        answer.blocking_recv().unwrap()
    }

    fn account(&self, name: &str) -> Option<Arc<User>> {
        self.account_named(name).now_or_never().unwrap().unwrap()
    }

    fn todo(&self, owner: i64, id: TodoId) -> Option<Arc<Todo>> {
        Store::todo(self, UserId(owner), id).now_or_never().unwrap().unwrap()
    }

    fn todos(&self, owner: i64) -> Vec<Arc<Todo>> {
        Store::view(self, UserId(owner)).now_or_never().unwrap().unwrap().todos.into_todos().collect()
    }

    fn trash(&self, owner: i64) -> Vec<Arc<Todo>> {
        Store::trash(self, UserId(owner)).now_or_never().unwrap().unwrap().todos
    }

    /// Whether nothing is left of a deleted account.
    fn is_erased(&self, id: i64) -> bool {
        self.database.number(&format!("SELECT count(*) FROM users WHERE id = {id} AND erased")) == 1
    }

    fn mark(&self, place: i64, state: DeliveryState) {
        self.outbox().mark(Place(place), state);
    }

    /// Holds the writer at a command of its own; what is queued until the guard is dropped makes the next groups.
    fn hold(&self) -> (MutexGuard<'_, ()>, Pending) {
        let gate = self.clock.gate.lock();
        let mut asked = self.clock.asked.lock();
        let before = *asked;
        let held = self.submit(OWNERS[0], vec![create("holds the writer")]);
        while *asked == before {
            self.clock.was_asked.wait(&mut asked);
        }
        (gate, held)
    }

    /// Lets the writer do what it does once a minute, before what is asked of it next.
    fn a_minute_passes(&self) {
        assert!(self.queue.send(Job::MinuteIsOver).is_ok());
    }

    /// What is neither published nor parked, as the relay finds it.
    fn unpublished(&self) -> Vec<Arc<Change>> {
        let read = |known, wants| {
            let wanted = Wanted {
                read_through: known,
                announced_through: known,
                wants,
                room: 10_000,
                discover: 10_000,
                parts: Parts::ALL,
            };
            self.read_outbox(&wanted).unwrap()
        };
        let discovered = read(Cursor::START, Vec::new()).discovered.unwrap();
        let want = |&(todo, version): &(TodoId, Version)| Want { todo, above: version.previous(), limit: 10_000 };
        let fed = read(discovered.read_through, discovered.todos.iter().map(want).collect()).fed;
        let mut changes: Vec<_> = fed.into_iter().flat_map(|fed| fed.changes).collect();
        changes.sort_unstable_by_key(|change| change.place.0);
        changes
    }

    fn head(&self, owner: i64) -> i64 {
        self.database.number(&format!("SELECT coalesce(max(revision), 0) FROM changes WHERE owner_id = {owner}"))
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
        self.database.dump()
    }
}

impl std::ops::Deref for Fixture {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.store.as_ref().unwrap()
    }
}

fn context(owner: i64) -> Context {
    let (owner, actor) = (UserId(owner), format!("user {owner}").into());
    let authority = Some(Authority { account: owner, epoch: TokenEpoch(0), means: Means::Login });
    Context { owner, actor, authority, trace: TraceParent::random() }
}

fn create(title: &str) -> Command {
    Command::Create(NewTodo { title: title.into(), ..NewTodo::default() })
}

fn delete(id: i64) -> Command {
    Command::Delete(TodoId(id).into(), Condition::default())
}

fn restore(id: i64) -> Command {
    Command::Restore(TodoId(id), Condition::default())
}

fn purge(id: i64) -> Command {
    Command::Purge(TodoId(id), Condition::default())
}

/// Of the todos with the first ids.
fn empty_trash(ids: i64) -> Command {
    Command::EmptyTrash { todos: (1..=ids).map(TodoId).collect(), more: false, condition: Condition::default() }
}

/// As PATCH does.
fn patch(id: i64, patch: TodoPatch) -> Command {
    Command::Update { todo: TodoId(id).into(), patch, always: false, condition: Condition::default() }
}

/// As PUT does.
fn put(id: i64, patch: TodoPatch) -> Command {
    Command::Update { todo: TodoId(id).into(), patch, always: true, condition: Condition::default() }
}

fn rename(id: i64, title: &str) -> Command {
    put(id, TodoPatch { title: Some(title.into()), ..TodoPatch::default() })
}

fn register(name: &str) -> AccountCommand {
    let username = Username::parse(name).unwrap();
    AccountCommand::Create(NewAccount { username, password_hash: "hash".into(), role: Role::User })
}

fn remove(id: i64) -> AccountCommand {
    AccountCommand::Delete(UserId(id))
}

/// A change in short: todo, version, revision.
fn numbers(answer: &Answer) -> Vec<(i64, i64, i64)> {
    let numbers = |change: &Arc<Change>| (change.todo.id.0, change.todo.version.0, change.revision.0);
    answer.as_ref().unwrap().iter().map(numbers).collect()
}

/// What will be answered.
struct Pending(oneshot::Receiver<Result<Answered, StoreError>>);

impl Pending {
    fn blocking_recv(self) -> Result<Answer, oneshot::error::RecvError> {
        self.0.blocking_recv().map(changes)
    }
}

/// The changes of an answer.
fn changes(answered: Result<Answered, StoreError>) -> Answer {
    match answered? {
        Answered::Applied(applied, _) => {
            Ok(applied.outcomes.iter().flat_map(|outcome| outcome.changes().to_vec()).collect())
        }
        Answered::Repeated(_) => panic!("no request is repeated"),
    }
}

fn wait(answers: Vec<Pending>) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect()
}

/// The delivery states of all changes, in commit order.
fn states(f: &Fixture) -> Vec<i64> {
    f.database.states()
}

/// The number of a change among those since the start, on SQLite among all.
fn nth(place: Place) -> i64 {
    place.0 & ((1 << 40) - 1)
}
