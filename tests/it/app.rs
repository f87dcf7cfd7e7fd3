//! Starts the service and talks to it.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::rt::task::JoinHandle;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use todo_backend::app::{App, StartError, Stopper};
use todo_backend::auth::token::Keys;
use todo_backend::config::Config;
use todo_backend::domain::account::UserId;
use todo_backend::domain::change::Change;
use todo_backend::domain::clock::Timestamp;
use todo_backend::domain::todo::TodoId;
use todo_backend::store::Store;
use todo_backend::store::outbox::{Want, Wanted};

use crate::client::{Answer, CLIENT, RequestExt, read_answer};

/// Where the routes are that are served twice.
pub const PREFIXES: [&str; 2] = ["", "/v1"];

/// How long a test waits for what it expects, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Settings for a test: a temporary database, no sidecar, and `variables`.
pub fn config(variables: &[(&str, &str)]) -> Config {
    // Nothing listens on port 1.
    let defaults = [("DATABASE_URL", "sqlite::memory:"), ("DAPR_HTTP_ENDPOINT", "http://127.0.0.1:1")];
    let all: HashMap<&str, &str> = defaults.into_iter().chain(variables.iter().copied()).collect();
    Config::from_variables(all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap()
}

/// A running service.
pub struct TestApp {
    address: SocketAddr,
    store: Arc<Store>,
    keys: Keys,
    config: Config,
    stopper: Stopper,
    running: JoinHandle<Result<(), StartError>>,
}

impl TestApp {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(variables: &[(&str, &str)]) -> Self {
        Self::try_start(config(variables)).unwrap()
    }

    pub fn try_start(config: Config) -> Result<Self, StartError> {
        let app = App::build(config.clone(), TcpListener::bind("127.0.0.1:0").unwrap())?;
        Ok(Self {
            address: app.address(),
            store: app.store(),
            keys: Keys::new(&config),
            config,
            stopper: app.stopper(),
            running: actix_web::rt::spawn(app.run()),
        })
    }

    /// Stops as SIGTERM does, and waits for the end.
    pub async fn stop(self) {
        self.stopper.stop();
        self.running.await.unwrap().unwrap();
    }

    /// The service's time.
    pub fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    /// A valid token of an account.
    pub fn token(&self, username: &str) -> String {
        let user = self.store.user_by_name(username).unwrap();
        self.keys.issue(&user, self.config.clock.now().seconds()).unwrap()
    }

    pub fn user_id(&self, username: &str) -> UserId {
        self.store.user_by_name(username).unwrap().id
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The change log as it is on disk. There is no sidecar, so all of it is still to be published.
    pub fn log(&self) -> Vec<Arc<Change>> {
        let read = |known, wants| {
            let wanted = Wanted { known, told: known, wants, room: 1000, discover: 1000 };
            self.store.read_outbox(&wanted).unwrap()
        };
        let discovered = read(0, Vec::new()).discovered.unwrap();
        let want = |&(todo, version): &(TodoId, i64)| Want { todo, above: version - 1, limit: 1000 };
        let fed = read(discovered.known, discovered.todos.iter().map(want).collect()).fed;
        let mut changes: Vec<_> = fed.into_iter().flat_map(|fed| fed.changes).collect();
        changes.sort_unstable_by_key(|change| change.seq);
        changes
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

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.request("DELETE", path)
    }

    /// Makes a todo and returns its id.
    pub async fn create(&self, token: &str, body: Value) -> TodoId {
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
