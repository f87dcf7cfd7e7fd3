//! What a disk can do to the service, and what an operator does with the database file. Only the service runs: without
//! a sidecar every change stays in the log as pending.
//! `TORTURE=1` makes these tests long, as `make torture` does.

mod backup;
mod failing;
mod full;
mod start;
mod torn;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};
use todo_backend::store::maintenance;

use crate::stack::{Client, Stack};

/// The short figure, or with TORTURE=1 the long one.
pub fn amount<T>(short: T, long: T) -> T {
    if std::env::var("TORTURE").is_ok_and(|value| value == "1") { long } else { short }
}

/// Where the service of a stack keeps its database by default.
pub fn database(stack: &Stack) -> PathBuf {
    stack.directory.path().join("data/todos.db")
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// What one change is called in [`Work`] and in [`logged`]: its title, which no other change has, or the deleted todo.
fn name(deleted: bool, id: i64, title: &str) -> String {
    if deleted { format!("deleted {id}") } else { title.to_owned() }
}

/// The names of all changes in the log, in its order.
pub fn logged(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare("SELECT kind = 2, todo_id, title FROM changes ORDER BY seq").unwrap();
    let names = statement.query_map([], |row| Ok(name(row.get(0)?, row.get(1)?, &row.get::<_, String>(2)?))).unwrap();
    names.map(Result::unwrap).collect()
}

pub fn assert_good(path: &Path) {
    assert_eq!(maintenance::check(path).unwrap(), Vec::<String>::new(), "{}", path.display());
}

/// How the service answered a change.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Answer {
    Done,
    /// 503, and nothing of it was stored.
    NotStored,
    /// 503, and it may have been stored.
    Unknown,
    /// The connection broke.
    None,
}

/// A client that creates, changes and deletes todos of its own, and records the answers.
pub struct Work {
    client: Client,
    label: String,
    description: String,
    steps: usize,
    todos: Vec<i64>,
    /// Names of the changes.
    pub done: Vec<String>,
    pub not_stored: Vec<String>,
    pub unknown: usize,
}

impl Work {
    /// `label` is in every title; `description` is how long each todo's description is, in bytes.
    pub fn new(client: Client, label: &str, description: usize) -> Self {
        Self {
            client,
            label: label.to_owned(),
            description: "d".repeat(description),
            steps: 0,
            todos: Vec::new(),
            done: Vec::new(),
            not_stored: Vec::new(),
            unknown: 0,
        }
    }

    /// One change. Panics on every answer that the service must not give.
    pub async fn step(&mut self) -> Answer {
        self.steps += 1;
        let title = format!("{}-{}", self.label, self.steps);
        let body = json!({"title": title, "description": self.description});
        let (method, id) = match (self.steps % 5, self.todos.last()) {
            (2, Some(&id)) => ("PUT", id),
            (4, Some(&id)) => ("DELETE", id),
            _ => ("POST", 0),
        };
        let path = if method == "POST" { "/todos".to_owned() } else { format!("/todos/{id}") };
        let body = (method != "DELETE").then_some(body);
        let Ok(response) = self.client.respond(method, &path, body, &[]).await else { return Answer::None };
        let status = response.status().as_u16();
        let retry = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let Ok(body) = response.bytes().await else { return Answer::None };
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let name = name(method == "DELETE", id, &title);
        match (method, status) {
            ("POST", 201) => self.todos.push(body["id"].as_i64().unwrap()),
            ("PUT", 200) => {}
            ("DELETE", 204) => {
                self.todos.pop();
            }
            (_, 503) => {
                assert_eq!(retry.as_deref(), Some("5"), "{body}");
                let text = body["detail"].as_str().unwrap_or_default();
                if text == "The change could not be stored; nothing was changed, try again later" {
                    self.not_stored.push(name);
                    return Answer::NotStored;
                }
                assert_eq!(text, "It is not known whether the change was stored; look before you try again");
                self.unknown += 1;
                // A deletion may have been done: the next one of the same todo would be a 404.
                if method == "DELETE" {
                    self.todos.pop();
                }
                return Answer::Unknown;
            }
            _ => panic!("{method} {path}: {status} {body}"),
        }
        self.done.push(name);
        Answer::Done
    }

    /// This many changes, all of which must be done.
    pub async fn steps(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.step().await, Answer::Done);
        }
    }

    /// Reads a todo, and now and then all of them: both must work whatever the disk does.
    pub async fn read(&self) {
        let path = match self.todos.last() {
            Some(id) if !self.steps.is_multiple_of(10) => format!("/todos/{id}"),
            _ => "/todos".to_owned(),
        };
        assert_eq!(self.client.send("GET", &path, None).await.0, 200);
    }
}

/// Clients for several owners, so that their changes meet in commit groups.
pub async fn workers(stack: &Stack, round: &str, count: usize, description: usize) -> Vec<Work> {
    let users = [("admin", "admin123"), ("user", "user123"), ("demo", "demo123")];
    let mut workers = Vec::new();
    for n in 0..count {
        let (username, password) = users[n % users.len()];
        let client = stack.client(username, password).await;
        workers.push(Work::new(client, &format!("{round}-{n}"), description));
    }
    workers
}

/// The log holds everything that was acknowledged, nothing that was refused, and agrees with the todos.
pub fn assert_kept(path: &Path, workers: &[Work]) {
    let log = logged(path);
    let names: BTreeSet<&String> = log.iter().collect();
    assert_eq!(names.len(), log.len(), "a change is in the log twice");
    for worker in workers {
        let missing: Vec<_> = worker.done.iter().filter(|name| !names.contains(name)).collect();
        assert!(missing.is_empty(), "acknowledged, but not in the log: {missing:?}");
        // A deletion that was refused and worked later has the same name.
        let refused = worker.not_stored.iter().filter(|name| !worker.done.contains(name));
        let stored: Vec<_> = refused.filter(|name| names.contains(name)).collect();
        assert!(stored.is_empty(), "answered as not stored, but in the log: {stored:?}");
    }
    assert_good(path);
}
