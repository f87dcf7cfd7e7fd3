//! Starts the service and talks to it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use actix_web::rt::task::JoinHandle;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use todo_backend::app::{App, StartError, Stopper};
use todo_backend::auth::token::Keys;
use todo_backend::config::Config;
use todo_backend::domain::account::UserId;
use todo_backend::domain::change::Change;
use todo_backend::domain::clock::Timestamp;
use todo_backend::domain::todo::TodoId;
use todo_backend::store::Store;
use todo_backend::store::outbox::{Want, Wanted};

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

/// Keeps no connections: a pool that outlives a test would hold on to the test's runtime.
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    let redirects = reqwest::redirect::Policy::none();
    Client::builder().no_proxy().redirect(redirects).pool_max_idle_per_host(0).build().unwrap()
});

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
    pub async fn converse(&self, send: impl FnOnce(&mut TcpStream) + std::marker::Send + 'static) -> Answer {
        let mut stream = self.connect();
        let conversation = actix_web::rt::task::spawn_blocking(move || {
            send(&mut stream);
            read_answer(&mut stream)
        });
        conversation.await.unwrap()
    }
}

/// Reads until the server closes, or until the body is as long as the answer says.
fn read_answer(stream: &mut TcpStream) -> Answer {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        bytes.extend_from_slice(&buffer[..count]);
        let answer = parse(&bytes);
        let complete =
            |answer: &Answer| answer.header("content-length").unwrap_or_default() == answer.body.len().to_string();
        if count == 0 || answer.as_ref().is_some_and(complete) {
            return answer.expect("an answer");
        }
    }
}

/// As much of an answer as there is, once its head is complete.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap());
    }
    Some(Answer { status, headers, body: body.to_owned() })
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    /// A header's value; `None` if it was not sent.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        assert!(self.headers.get_all(name).iter().count() <= 1, "{name} is sent twice: {:?}", self.headers);
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Where `Location` leads from the path of the request (RFC 9110, section 10.2.2).
    #[track_caller]
    pub fn location_from(&self, path: &str) -> String {
        let base = reqwest::Url::parse(&format!("http://service{path}")).unwrap();
        let target = base.join(self.header("location").expect("a location")).unwrap();
        target.as_str().strip_prefix("http://service").expect("the same origin").to_owned()
    }

    /// Asserts an error with exactly this `detail`.
    #[track_caller]
    pub fn assert_refused(&self, status: u16, detail: impl Into<Value>) {
        assert_eq!((self.status, self.json()), (status, json!({ "detail": detail.into() })));
        if status == 401 {
            let challenge = self.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer"), "{self:?}");
        }
    }
}

/// Shorter ways to send a request.
pub trait Send {
    /// A body that is said to be JSON, whatever it is.
    fn json_bytes(self, body: impl Into<reqwest::Body>) -> RequestBuilder;
    async fn answer(self) -> Answer;
    async fn send_json(self, body: Value) -> Answer;
    async fn send_form(self, encoded: &str) -> Answer;
}

impl Send for RequestBuilder {
    fn json_bytes(self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.header("Content-Type", "application/json").body(body)
    }

    async fn answer(self) -> Answer {
        let response = self.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap();
        Answer { status, headers, body }
    }

    async fn send_json(self, body: Value) -> Answer {
        self.json_bytes(body.to_string()).answer().await
    }

    async fn send_form(self, encoded: &str) -> Answer {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(encoded.to_owned()).answer().await
    }
}
