//! Runs the service with a sidecar of its own, talks to it, and asserts at the end that it kept its promises.
//! Most of what the tests know of the crate is imported here.

mod invariants;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::rt::task::JoinHandle;
use actix_web::rt::time::timeout;
use futures_util::FutureExt;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use todo_backend::app::StartError;
use todo_backend::config::{Config, Database};
use todo_backend::domain::account::{User, UserId};
use todo_backend::domain::change::{DeliveryState, Place};
use todo_backend::domain::todo::{Todo, TodoId};
use todo_backend::store::Store;
use todo_backend::store::error::StoreError;
use todo_backend::store::leases::Parts;
use tokio_util::sync::CancellationToken;

use self::invariants::{PENDING, PUBLISHED, read_log};
use crate::client::{Answer, CLIENT, RequestExt, read_answer};
use crate::database::TestDatabase;
use crate::sidecar::{Event, Sidecar};

pub use todo_backend::app::App;
pub use todo_backend::auth::token::Keys;
pub use todo_backend::domain::clock::{Clock, Timestamp};

/// Where the routes are that are served twice.
pub const PREFIXES: [&str; 2] = ["", "/v1"];

/// How long a test waits for what it expects, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds` says so; panics if that takes too long.
#[track_caller]
pub fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) -> impl Future<Output = ()> {
    let (caller, deadline) = (std::panic::Location::caller(), Instant::now() + PATIENCE);
    async move {
        while !holds().await {
            assert!(Instant::now() < deadline, "{caller}: not within {PATIENCE:?}: {what}");
            actix_web::rt::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Settings for a test: a temporary database, no sidecar, and `variables`. With TEST_POSTGRES set, the database is that
/// Postgres: see [`own_database`].
pub fn config(variables: &[(&str, &str)]) -> Config {
    let database = std::env::var("TEST_POSTGRES");
    let database = database.as_deref().unwrap_or("sqlite::memory:");
    // Nothing listens on port 1.
    let defaults = [("DATABASE_URL", database), ("DAPR_HTTP_ENDPOINT", "http://127.0.0.1:1")];
    let all: HashMap<&str, &str> = defaults.into_iter().chain(variables.iter().copied()).collect();
    Config::from_variables(all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap()
}

/// If the test has named no database, and it is Postgres: a schema of its own.
pub fn own_database(config: &mut Config) -> Option<TestDatabase> {
    let is_own = config.database == self::config(&[]).database && config.database != Database::Temporary;
    let database = is_own.then(TestDatabase::new)?;
    config.database = database.setting().clone();
    Some(database)
}

/// Runs `body` with a service and its sidecar; then asserts that every change was published and that the database is
/// in order, and stops both. They are stopped after a failure too, which is then the test's own.
pub async fn with_app<T>(body: impl AsyncFnOnce(&TestApp) -> T) -> T {
    with_settings(&[], body).await
}

/// As [`with_app`], with these settings.
pub async fn with_settings<T>(variables: &[(&str, &str)], body: impl AsyncFnOnce(&TestApp) -> T) -> T {
    with_config(config(variables), body).await
}

/// As [`with_app`], with what is no setting, such as another clock.
pub async fn with_config<T>(mut config: Config, body: impl AsyncFnOnce(&TestApp) -> T) -> T {
    let sidecar = Sidecar::start();
    config.sidecar_url = sidecar.url.clone();
    run(config, Some(sidecar), body).await
}

/// As [`with_settings`], but nothing listens where the sidecar should be: every change stays in the outbox.
pub async fn without_sidecar<T>(variables: &[(&str, &str)], body: impl AsyncFnOnce(&TestApp) -> T) -> T {
    run(config(variables), None, body).await
}

async fn run<T>(config: Config, sidecar: Option<Sidecar>, body: impl AsyncFnOnce(&TestApp) -> T) -> T {
    let app = TestApp::start(config, sidecar).await;
    let tested = async {
        let value = body(&app).await;
        app.assert_invariants().await;
        value
    };
    let outcome = AssertUnwindSafe(tested).catch_unwind().await;
    let stopped = app.stop().await;
    let value = outcome.unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(stopped, Ok(()), "the service stops");
    value
}

/// Why the service does not start with these settings.
pub async fn start_error(variables: &[(&str, &str)]) -> String {
    let mut config = config(variables);
    let _database = own_database(&mut config);
    let started = App::build(config, TcpListener::bind("127.0.0.1:0").unwrap()).await;
    started.err().expect("the start is refused").to_string()
}

/// What a read answers: at once, since everything is in memory.
#[track_caller]
fn ready<T>(read: impl Future<Output = Result<T, StoreError>>) -> T {
    read.now_or_never().expect("an answer at once").expect("an answer")
}

/// A running service.
pub struct TestApp {
    address: SocketAddr,
    store: Arc<Store>,
    keys: Keys,
    config: Config,
    stop: CancellationToken,
    running: JoinHandle<Result<(), StartError>>,
    database: TestDatabase,
    sidecar: Option<Sidecar>,
    /// Ids of events that were published, or given up, before this start.
    settled: HashSet<String>,
    expected_problems: Mutex<Vec<&'static str>>,
}

impl TestApp {
    async fn start(mut config: Config, sidecar: Option<Sidecar>) -> Self {
        let own = own_database(&mut config);
        let app = App::build(config.clone(), TcpListener::bind("127.0.0.1:0").unwrap()).await.unwrap();
        let store = app.store();
        let database = own.unwrap_or_else(|| TestDatabase::of_service(&config.database, store.path()));
        let log = read_log(&database).into_iter();
        let settled = log.filter(|row| row.state != PENDING).map(|row| row.event_id()).collect();
        let (address, stop) = (app.address(), app.stop_token());
        let running = actix_web::rt::spawn(app.run());
        // What becomes of an event is only stored by whoever publishes it.
        eventually("it publishes all events", async || store.leases().parts() == Parts::ALL).await;
        Self {
            address,
            keys: Keys::new(&config, store.epoch()),
            store,
            config,
            stop,
            running,
            database,
            sidecar,
            settled,
            expected_problems: Mutex::default(),
        }
    }

    /// Stops as SIGTERM does, and waits for the end.
    async fn stop(self) -> Result<(), String> {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.running).await;
        if let Some(sidecar) = &self.sidecar {
            sidecar.stop().await;
        }
        match ended {
            Ok(Ok(ended)) => ended.map_err(|error| error.to_string()),
            Ok(Err(panic)) => Err(panic.to_string()),
            Err(_) => Err(format!("it still runs after {PATIENCE:?}")),
        }
    }

    /// Says what the check of the database will find, because the test damages it.
    pub fn expect_problems(&self, problems: &[&'static str]) {
        self.expected_problems.lock().unwrap().extend(problems);
    }

    /// What the check of the database finds.
    pub fn problems(&self) -> Vec<String> {
        self.store.check().unwrap()
    }

    /// The sidecar that takes the events.
    pub fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().expect("a sidecar")
    }

    /// The events of all changes since the start, also of those that waited for it, in the order in which they were
    /// committed. Waits until they are published.
    pub async fn published(&self) -> Vec<Event> {
        let log = read_log(&self.database).into_iter().filter(|row| matches!(row.state, PENDING | PUBLISHED));
        let ids: Vec<String> = log.map(|row| row.event_id()).filter(|id| !self.settled.contains(id)).collect();
        self.sidecar().accepts(&ids.iter().cloned().collect()).await;
        let mut accepted: HashMap<String, Event> =
            self.sidecar().accepted().into_iter().map(|event| (event.id.clone(), event)).collect();
        ids.iter().filter_map(|id| accepted.remove(id)).collect()
    }

    /// Parks a change, as the relay does with one that is refused again and again; returns its revision.
    pub fn park(&self, todo: i64, version: i64) -> i64 {
        let log = read_log(&self.database);
        let change = log.iter().find(|row| (row.todo, row.version) == (todo, version)).expect("it is in the log");
        self.store.outbox().mark(Place(change.place), DeliveryState::Parked);
        change.revision
    }

    /// The service's time.
    pub fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// A valid token of an account.
    pub fn token(&self, username: &str) -> String {
        let user = self.account(username).unwrap();
        self.keys.issue(&user, None, self.config.clock.now().seconds()).unwrap()
    }

    /// Keys of other settings, for tokens of this database.
    pub fn keys_with(&self, variables: &[(&str, &str)]) -> Keys {
        Keys::new(&config(variables), self.store.epoch())
    }

    /// An account, as it is in memory.
    pub fn account(&self, username: &str) -> Option<Arc<User>> {
        ready(self.store.account_named(username))
    }

    pub fn user_id(&self, username: &str) -> i64 {
        self.account(username).unwrap().id.0
    }

    /// A todo of an account, as it is in memory.
    pub fn todo(&self, username: &str, id: i64) -> Option<Arc<Todo>> {
        ready(self.store.todo(UserId(self.user_id(username)), TodoId(id)))
    }

    /// All todos of an account, as they are in memory.
    pub fn todos(&self, username: &str) -> Vec<Arc<Todo>> {
        ready(self.store.view(UserId(self.user_id(username)))).todos.into_todos().collect()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The database, behind the service's back.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        CLIENT.request(method, format!("http://{}{path}", self.address))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request("GET", path)
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request("POST", path)
    }

    pub fn put(&self, path: &str) -> RequestBuilder {
        self.request("PUT", path)
    }

    pub fn patch(&self, path: &str) -> RequestBuilder {
        self.request("PATCH", path)
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.request("DELETE", path)
    }

    /// Creates a todo and returns its id.
    pub async fn create(&self, token: &str, body: Value) -> i64 {
        let answer = self.post("/todos").bearer_auth(token).send_json(body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["id"].as_i64().unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends bytes that no client library would, and reads the answer.
    pub async fn raw(&self, request: impl Into<Vec<u8>>) -> Answer {
        let request = request.into();
        self.converse(move |stream| stream.write_all(&request).unwrap()).await
    }

    /// Lets `send` write to a connection and then reads the answer. On another thread: blocking this one
    /// would block the service.
    pub async fn converse(&self, send: impl FnOnce(&mut TcpStream) + Send + 'static) -> Answer {
        let mut stream = self.connect();
        let conversation = actix_web::rt::task::spawn_blocking(move || {
            send(&mut stream);
            read_answer(&mut stream)
        });
        conversation.await.unwrap()
    }
}
