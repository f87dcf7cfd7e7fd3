//! Kafka, daprd and the service (postgres.rs: PostgreSQL) as processes on free ports: what a test starts, freezes, kills and starts again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use todo_backend::events::dapr::http_client;

use rskafka::client::ClientBuilder;
use rskafka::client::partition::UnknownTopicHandling;
use serde_json::Value;

use crate::postgres::Postgres;
use crate::process::Process;

/// The service's binary.
pub const SERVICE: &str = env!("CARGO_BIN_EXE_todo-backend");

/// How long anything of the stack may take to start, or an event to arrive, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Held by tests that use the ports which examples name.
pub static PORT_8000: Mutex<()> = Mutex::new(());

/// Partitions that the stack's Kafka gives a new topic.
const PARTITIONS: i32 = 4;

/// What `stack.sh env` found or built.
pub fn tool(name: &str) -> &'static str {
    static TOOLS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        // Its progress goes to standard error, which is passed on.
        let script =
            Command::new("bash").arg(script()).arg("env").stderr(std::process::Stdio::inherit()).output().unwrap();
        assert!(script.status.success(), "tests/stack/stack.sh env failed");
        let text = String::from_utf8(script.stdout).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    });
    tools.get(name).unwrap_or_else(|| panic!("stack.sh env does not name {name}"))
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn script() -> PathBuf {
    project().join("tests/stack/stack.sh")
}

/// A port that nobody listens on, and that no other call returns. Below those that the system gives to connections and to
/// whoever asks for any: what is started on it later would find it taken.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at different ports.
    let first = u16::try_from(std::process::id() % 100).unwrap() * 200;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn listening(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

pub fn wait_until_listening(process: &mut Process, port: u16, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !listening(port) {
        assert!(process.running(), "{what} ended; it wrote:\n  {}", process.lines().join("\n  "));
        assert!(Instant::now() < deadline, "{what} does not listen on {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A sidecar for an application on `app_port`, with its own API on `http_port`.
pub fn daprd(app_id: &str, app_port: u16, http_port: u16, components: &Path) -> Command {
    let mut command = Command::new(tool("DAPRD"));
    command
        .args(["--app-id", app_id, "--dapr-listen-addresses", "127.0.0.1", "--enable-metrics=false"])
        .args(["--app-port", &app_port.to_string()])
        .args(["--dapr-http-port", &http_port.to_string()])
        .args(["--dapr-grpc-port", &free_port().to_string()])
        .args(["--dapr-internal-grpc-port", &free_port().to_string()])
        .arg("--resources-path")
        .arg(components);
    command
}

/// Ports, directories and processes of one test. Everything ends with it.
pub struct Stack {
    pub directory: tempfile::TempDir,
    pub kafka: Option<Process>,
    pub sidecar: Option<Process>,
    pub service: Option<Process>,
    /// Where the service stores. Without it, that is a file in `directory`.
    pub postgres: Option<Postgres>,
    kafka_port: u16,
    sidecar_port: u16,
    service_port: u16,
    /// Set for the sidecar and the service.
    pub sidecar_env: Vec<(&'static str, String)>,
    pub service_env: Vec<(&'static str, String)>,
}

impl Stack {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::on_kafka(free_port())
    }

    fn on_kafka(kafka_port: u16) -> Self {
        let stack = Self {
            directory: tempfile::tempdir().unwrap(),
            kafka: None,
            sidecar: None,
            service: None,
            postgres: None,
            kafka_port,
            sidecar_port: free_port(),
            service_port: free_port(),
            sidecar_env: Vec::new(),
            service_env: Vec::new(),
        };
        stack.copy_components("components", &stack.components());
        stack
    }

    /// Nothing runs yet but Postgres, for the service to store in.
    pub fn on_postgres() -> Self {
        Self { postgres: Some(Postgres::started()), ..Self::new() }
    }

    /// Another service with the same settings on the Postgres and the Kafka of this one, and a sidecar for it. They don't run yet.
    pub fn beside(&self) -> Self {
        let mut other = Self::on_kafka(self.kafka_port);
        other.sidecar_env.clone_from(&self.sidecar_env);
        other.service_env.clone_from(&self.service_env);
        let database = self.postgres.as_ref().expect("only Postgres serves several").url();
        // What the test has set comes last, and so it is what counts.
        other.service_env.insert(0, ("DATABASE_URL", database));
        other
    }

    /// Kafka, sidecar and service run.
    pub fn started() -> Self {
        let mut stack = Self::new();
        stack.start_kafka();
        stack.start_sidecar();
        stack.start_service();
        stack
    }

    /// Shipped components, with this stack's broker.
    pub fn copy_components(&self, shipped: &str, target: &Path) {
        std::fs::create_dir(target).unwrap();
        for entry in std::fs::read_dir(project().join(shipped)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("localhost:9092", &format!("localhost:{}", self.kafka_port));
            std::fs::write(target.join(path.file_name().unwrap()), text).unwrap();
        }
    }

    pub fn components(&self) -> PathBuf {
        self.directory.path().join("components")
    }

    pub fn sidecar_port(&self) -> u16 {
        self.sidecar_port
    }

    pub fn service_port(&self) -> u16 {
        self.service_port
    }

    /// Lets Kafka listen on a port of the test's choice.
    pub fn use_kafka_port(&mut self, port: u16) {
        assert!(!listening(port), "port {port} is in use: stop what listens there, this test needs it");
        self.kafka_port = port;
    }

    /// Lets the service listen on a port of the test's choice.
    pub fn use_service_port(&mut self, port: u16) {
        assert!(!listening(port), "port {port} is in use: stop what listens there, this test needs it");
        self.service_port = port;
    }

    fn kafka_command(&self) -> Command {
        let mut command = Command::new("bash");
        command.arg(script()).arg("kafka").arg(self.directory.path().join("kafka")).arg(self.kafka_port.to_string());
        command
    }

    pub fn start_kafka(&mut self) {
        let mut kafka = Process::start("kafka", &mut self.kafka_command());
        wait_until_listening(&mut kafka, self.kafka_port, "Kafka");
        self.kafka = Some(kafka);
    }

    fn sidecar_command(&self) -> Command {
        let mut command = daprd("todo-backend", self.service_port, self.sidecar_port, &self.components());
        command.envs(self.sidecar_env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts daprd; it exits at once when Kafka refuses connections.
    pub fn start_sidecar(&mut self) {
        let mut sidecar = Process::start("daprd", &mut self.sidecar_command());
        wait_until_listening(&mut sidecar, self.sidecar_port, "daprd");
        self.sidecar = Some(sidecar);
    }

    /// The service's binary with this stack's settings and nothing else from the environment.
    pub fn service_command(&self) -> Command {
        self.command(SERVICE)
    }

    /// A program that runs the service, in its directory and with the same environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PORT", self.service_port.to_string())
            .env("DAPR_HTTP_PORT", self.sidecar_port.to_string())
            // Load comes from a few accounts.
            .env("RATE_LIMIT_USER", "0")
            .envs(self.postgres.as_ref().map(|postgres| ("DATABASE_URL", postgres.url())))
            .envs(self.service_env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn start_service(&mut self) {
        self.start_service_as(&mut self.service_command());
    }

    /// Starts the service with a command of the test's choice.
    pub fn start_service_as(&mut self, command: &mut Command) {
        let mut service = Process::start("todo-backend", command);
        wait_until_listening(&mut service, self.service_port, "the service");
        // It listens before it has read its database: it is there when it answers.
        let mut connection = std::net::TcpStream::connect(("127.0.0.1", self.service_port)).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let answered = connection.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answered:?} {answer}\n  {}", service.lines().join("\n  "));
        self.service = Some(service);
    }

    pub fn service(&mut self) -> &mut Process {
        self.service.as_mut().unwrap()
    }

    pub fn postgres(&mut self) -> &mut Postgres {
        self.postgres.as_mut().unwrap()
    }

    pub fn kafka(&mut self) -> &mut Process {
        self.kafka.as_mut().unwrap()
    }

    /// Starts daprd without blocking the test's own clients.
    pub async fn start_sidecar_meanwhile(&mut self) {
        let mut sidecar = Process::start("daprd", &mut self.sidecar_command());
        while !listening(self.sidecar_port) {
            assert!(sidecar.running(), "daprd ended; it wrote:\n  {}", sidecar.lines().join("\n  "));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.sidecar = Some(sidecar);
    }

    /// Starts Kafka without blocking the test's own clients.
    pub async fn start_kafka_meanwhile(&mut self) {
        let mut kafka = Process::start("kafka", &mut self.kafka_command());
        while !listening(self.kafka_port) {
            assert!(kafka.running(), "Kafka ended; it wrote:\n  {}", kafka.lines().join("\n  "));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.kafka = Some(kafka);
    }

    /// Runs one of the binary's subcommands to its end, with the service's settings; returns what it wrote.
    pub fn run_service(&self, arguments: &[&str]) -> String {
        let output = self.service_command().args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// Waits until the service has no event left to publish.
    pub async fn wait_until_published(&self) {
        let url = format!("http://127.0.0.1:{}/health/ready", self.service_port);
        let http = http_client().build().unwrap();
        // A backlog after a long torture takes its time; getting nowhere does not.
        let (mut left, mut since) = (u64::MAX, Instant::now());
        loop {
            let body = http.get(&url).send().await.unwrap().bytes().await.unwrap();
            let ready: Value = serde_json::from_slice(&body).unwrap();
            let pending = ready["pending_events"].as_u64().unwrap();
            if pending == 0 {
                return;
            }
            if pending < left {
                (left, since) = (pending, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{pending} events are not published, and it gets no better");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn sidecar(&mut self) -> &mut Process {
        self.sidecar.as_mut().unwrap()
    }

    /// A client of the service that is logged in.
    pub async fn client(&self, username: &str, password: &str) -> Client {
        Self::client_at(self.service_port, username, password).await
    }

    /// The same, through what listens on this port in front of the service.
    pub async fn client_at(port: u16, username: &str, password: &str) -> Client {
        Client::log_in(format!("http://127.0.0.1:{port}"), username, password).await
    }

    /// Reads the topic from its beginning until `enough` says so; panics if that takes too long.
    pub async fn events_until(&self, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        self.topic_until("todos", enough).await
    }

    /// The same for any topic.
    pub async fn topic_until(&self, topic: &str, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        let reading = read_topic(self.kafka_port, topic, |new| {
            events.extend(new);
            enough(&events)
        });
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            let service = self.service.as_ref().map(Process::lines).unwrap_or_default();
            panic!(
                "the expected events are not in Kafka after {PATIENCE:?}; the service's last lines:\n  {}",
                service[service.len().saturating_sub(20)..].join("\n  ")
            );
        }
        events
    }

    /// Shows the events of the topic from its beginning, some at a time and also when there are no new ones, until that is enough.
    /// For who does not want to keep all of them.
    pub async fn each_event(&self, enough: impl FnMut(Vec<Event>) -> bool) {
        read_topic(self.kafka_port, "todos", enough).await;
    }
}

/// A record of the topic, read by a Kafka client that knows nothing of Dapr.
#[derive(Debug, Clone)]
pub struct Event {
    /// The Kafka key.
    pub key: String,
    /// The CloudEvent.
    pub body: Value,
}

impl Event {
    /// A CloudEvent attribute as text.
    pub fn text(&self, attribute: &str) -> &str {
        self.body[attribute].as_str().unwrap_or_default()
    }

    /// A number in the event's data.
    pub fn number(&self, field: &str) -> i64 {
        self.body["data"][field].as_i64().unwrap_or_else(|| panic!("no number {field} in {}", self.body))
    }
}

async fn read_topic(port: u16, topic: &str, mut enough: impl FnMut(Vec<Event>) -> bool) {
    let client = ClientBuilder::new(vec![format!("127.0.0.1:{port}")]).build().await.unwrap();
    let mut partitions = Vec::new();
    for partition in 0..PARTITIONS {
        partitions.push((client.partition_client(topic, partition, UnknownTopicHandling::Retry).await.unwrap(), 0));
    }
    loop {
        let mut events = Vec::new();
        for (partition, next) in &mut partitions {
            // A broker that was just started, or is being killed by the test, is asked again.
            let Ok((records, _)) = partition.fetch_records(*next, 1..10_000_000, 50).await else { continue };
            for record in records {
                *next = record.offset + 1;
                events.push(Event {
                    key: String::from_utf8(record.record.key.unwrap_or_default()).unwrap(),
                    body: serde_json::from_slice(&record.record.value.unwrap()).unwrap(),
                });
            }
        }
        if enough(events) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A logged-in HTTP client of the service.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    async fn log_in(base: String, username: &str, password: &str) -> Self {
        let http = http_client().timeout(PATIENCE).build().unwrap();
        let url = format!("{base}/auth/login?username={username}&password={password}");
        let response = http.post(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        Self { http, base, token: body["access_token"].as_str().unwrap().to_owned() }
    }

    /// The same client with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same client of what listens on another port.
    pub fn at(&self, port: u16) -> Self {
        Self { base: format!("http://127.0.0.1:{port}"), ..self.clone() }
    }

    /// The access token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request; `Err` if the connection broke.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<(u16, Value), reqwest::Error> {
        let response = self.respond(method, path, body, headers).await?;
        let status = response.status().as_u16();
        let body = response.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// Sends a form without a token; `Err` if the connection broke.
    pub async fn send_form(&self, path: &str, form: &[(&str, &str)]) -> Result<(u16, Value), reqwest::Error> {
        let encoded = form.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+")));
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(encoded.collect::<Vec<_>>().join("&")).send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null)))
    }

    /// The same, with the answer's headers.
    pub async fn respond(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<reqwest::Response, reqwest::Error> {
        let mut request =
            self.http.request(method.parse().unwrap(), format!("{}{path}", self.base)).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        request.send().await
    }

    /// Sends a request that must reach the service.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.try_send(method, path, body, &[]).await.unwrap()
    }

    /// The text at a path that needs no token.
    pub async fn text(&self, path: &str) -> String {
        let response = self.http.get(format!("{}{path}", self.base)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        String::from_utf8(response.bytes().await.unwrap().to_vec()).unwrap()
    }

    /// Makes a todo and returns its id.
    pub async fn create(&self, title: &str) -> i64 {
        let (status, todo) = self.send("POST", "/todos", Some(serde_json::json!({ "title": title }))).await;
        assert_eq!(status, 201, "{todo}");
        todo["id"].as_i64().unwrap()
    }
}
