//! Who is measured: how each is started, filled with the same todos, and asked for the same work.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_backend::events::dapr::http_client;

use crate::machine;

/// What a client can ask for.
#[derive(Clone, Copy)]
pub enum Work {
    /// One todo.
    Get,
    /// All 50 todos of a user.
    List,
    Create,
    /// One todo, again and again.
    Update,
}

impl Work {
    pub fn label(self, connections: u32) -> String {
        let what = match self {
            Work::Get => "GET one",
            Work::List => "GET list of 50",
            Work::Create => "POST",
            Work::Update => "PUT",
        };
        format!("{what}, {connections}")
    }
}

/// A request, as the load generator repeats it.
pub struct Request {
    pub method: &'static str,
    pub url: String,
    /// Empty for none.
    pub body: String,
    /// The user's token; empty for none.
    pub token: String,
}

pub struct Contender {
    pub name: &'static str,
    process: Child,
    /// The database server that it needs.
    server: Option<Child>,
    get: Request,
    list: Request,
    create: Request,
    update: Request,
}

impl Contender {
    pub fn request(&self, work: Work) -> &Request {
        match work {
            Work::Get => &self.get,
            Work::List => &self.list,
            Work::Create => &self.create,
            Work::Update => &self.update,
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(server) = &mut self.server {
            // One that is only killed leaves its children and its shared memory behind.
            let _ = Command::new("kill").args(["-INT", &server.id().to_string()]).status();
            let _ = server.wait();
        }
    }
}

/// Of the user who reads.
const TODOS: usize = 50;

fn new_todo() -> Value {
    json!({ "title": "Buy milk and bread", "description": "Two litres, and rye if there is any" })
}

/// This service as `make run` starts it, in release: default settings but the port, the file and no limit of requests; no sidecar, so that
/// events are stored and wait. Cargo builds it with the features of development's dependencies: tokio looks at a flag
/// each time it asks for the time.
pub async fn service(directory: &Path) -> Contender {
    let database = format!("sqlite:{}", directory.join("todos.db").display());
    serve("todo-backend", directory, &database).await
}

/// The same on a Postgres with its default settings: a commit is on its disk when it is answered, as on SQLite.
pub async fn on_postgres(directory: &Path) -> Contender {
    let port = free_port();
    let mut command = Command::new("bash");
    command.arg(machine::script("stack.sh")).arg("postgres").arg(directory.join("postgres")).arg(port.to_string());
    let server = start(&mut command, port);
    let database = format!("postgres://todo@127.0.0.1:{port}/postgres");
    let mut contender = serve("on Postgres", directory, &database).await;
    contender.server = Some(server);
    contender
}

async fn serve(name: &'static str, directory: &Path, database: &str) -> Contender {
    let port = free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_todo-backend"));
    command
        .current_dir(directory)
        .env_clear()
        .envs([
            ("DEBUG", "True"),
            // The load is that of one account.
            ("RATE_LIMIT_USER", "0"),
            ("PORT", &port.to_string()),
            ("DAPR_HTTP_ENDPOINT", &format!("http://127.0.0.1:{}", free_port())),
        ])
        .env("DATABASE_URL", database);
    let process = start(&mut command, port);

    let base = format!("http://127.0.0.1:{port}");
    let (reader, writer) = (login(&base, "user", "user123").await, login(&base, "demo", "demo123").await);
    let todos = format!("{base}/todos");
    let one = fill(&todos, &reader, &new_todo()).await;
    let own = call("POST", &todos, &writer, &new_todo()).await["id"].to_string();
    Contender {
        name,
        process,
        server: None,
        get: get(format!("{todos}/{one}"), &reader),
        list: get(todos.clone(), &reader),
        create: change("POST", todos.clone(), &writer, &new_todo()),
        update: change("PUT", format!("{todos}/{own}"), &writer, &new_todo()),
    }
}

async fn login(base: &str, name: &str, password: &str) -> String {
    let credentials = json!({ "username": name, "password": password });
    text(&call("POST", &format!("{base}/auth/login"), "", &credentials).await["access_token"])
}

/// Creates the todos of the one who reads, and returns one's id.
async fn fill(todos: &str, token: &str, todo: &Value) -> Value {
    for _ in 1..TODOS {
        call("POST", todos, token, todo).await;
    }
    call("POST", todos, token, todo).await["id"].take()
}

/// A bare actix handler that answers the same bytes as `service`.
pub async fn bare(service: &Contender) -> Contender {
    let port = free_port();
    let (todo, list) = (answer(&service.get).await, answer(&service.list).await);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bare", &port.to_string(), &todo, &list]);
    let process = start(&mut command, port);

    let todos = format!("http://127.0.0.1:{port}/todos");
    let one = format!("{todos}/1");
    // The same tokens: they are part of what a server has to read.
    let (reader, writer) = (&service.get.token, &service.create.token);
    Contender {
        name: "bare actix",
        process,
        server: None,
        get: get(one.clone(), reader),
        list: get(todos.clone(), reader),
        create: change("POST", todos, writer, &new_todo()),
        update: change("PUT", one, writer, &new_todo()),
    }
}

/// PocketBase as it comes, with a collection of todos that only their owner can reach.
pub async fn pocketbase(directory: &Path) -> Contender {
    let (port, data) = (free_port(), directory.join("pocketbase"));
    let binary = machine::pocketbase();
    let admin = ("admin@example.com", "a-password-for-the-bench");
    let created =
        Command::new(&binary).args(["superuser", "upsert", admin.0, admin.1, "--dir"]).arg(&data).output().unwrap();
    assert!(created.status.success(), "PocketBase takes no superuser: {created:?}");
    let mut command = Command::new(&binary);
    command.arg("serve").arg(format!("--http=127.0.0.1:{port}")).arg("--dir").arg(&data);
    let process = start(&mut command, port);

    let base = format!("http://127.0.0.1:{port}/api/collections");
    let sign_in = async |collection: &str, name: &str| {
        let credentials = json!({ "identity": name, "password": admin.1 });
        call("POST", &format!("{base}/{collection}/auth-with-password"), "", &credentials).await
    };
    let superuser = text(&sign_in("_superusers", admin.0).await["token"]);
    call("POST", &base, &superuser, &collection()).await;
    let sign_up = async |name: &str| {
        let user = json!({ "email": name, "password": admin.1, "passwordConfirm": admin.1 });
        call("POST", &format!("{base}/users/records"), &superuser, &user).await;
        let signed_in = sign_in("users", name).await;
        let mut todo = new_todo();
        todo["owner"] = signed_in["record"]["id"].clone();
        (text(&signed_in["token"]), todo)
    };
    let (reader, readers_todo) = sign_up("reader@example.com").await;
    let (writer, writers_todo) = sign_up("writer@example.com").await;

    let records = format!("{base}/todos/records");
    let one = text(&fill(&records, &reader, &readers_todo).await);
    let own = text(&call("POST", &records, &writer, &writers_todo).await["id"]);
    Contender {
        name: "PocketBase",
        process,
        server: None,
        get: get(format!("{records}/{one}"), &reader),
        // skipTotal: it need not count.
        list: get(format!("{records}?perPage={TODOS}&skipTotal=1"), &reader),
        create: change("POST", records.clone(), &writer, &writers_todo),
        update: change("PATCH", format!("{records}/{own}"), &writer, &new_todo()),
    }
}

fn collection() -> Value {
    let owner = "owner = @request.auth.id";
    json!({
        "name": "todos",
        "type": "base",
        "fields": [
            { "name": "title", "type": "text", "required": true },
            { "name": "description", "type": "text" },
            { "name": "completed", "type": "bool" },
            { "name": "owner", "type": "relation", "collectionId": "_pb_users_auth_", "maxSelect": 1, "required": true },
            { "name": "created", "type": "autodate", "onCreate": true },
            { "name": "updated", "type": "autodate", "onCreate": true, "onUpdate": true },
        ],
        "indexes": ["CREATE INDEX todos_by_owner ON todos (owner)"],
        "listRule": owner, "viewRule": owner, "updateRule": owner, "deleteRule": owner,
        "createRule": "@request.body.owner = @request.auth.id",
    })
}

fn get(url: String, token: &str) -> Request {
    Request { method: "GET", url, body: String::new(), token: token.to_owned() }
}

fn change(method: &'static str, url: String, token: &str, body: &Value) -> Request {
    Request { method, url, body: body.to_string(), token: token.to_owned() }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server and waits until it listens. Its output is nobody's, as is that of the others.
fn start(command: &mut Command, port: u16) -> Child {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert_eq!(child.try_wait().unwrap(), None, "{command:?} has ended");
        assert!(Instant::now() < deadline, "{command:?} does not listen on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no string but {value}")).to_owned()
}

/// The body of a successful answer.
async fn answer(request: &Request) -> String {
    let method = request.method.parse().unwrap();
    let mut sent = http_client().build().unwrap().request(method, &request.url);
    if !request.token.is_empty() {
        sent = sent.bearer_auth(&request.token);
    }
    if !request.body.is_empty() {
        sent = sent.header("Content-Type", "application/json").body(request.body.clone());
    }
    let response = sent.send().await.unwrap();
    let (status, body) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{} {}: {status} {body}", request.method, request.url);
    body
}

async fn call(method: &'static str, url: &str, token: &str, body: &Value) -> Value {
    serde_json::from_str(&answer(&change(method, url.to_owned(), token, body)).await).unwrap()
}
