//! Clients that follow a user's changes: what `GET /events` sends, and a copy of the todos that is kept up to date.

use std::collections::BTreeMap;

use actix_web::rt::time::timeout;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::app::{PATIENCE, TestApp};
use crate::client::RequestExt;

/// An event of a stream, as a browser reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `None`: it has none; empty: the client forgets the one that it had.
    pub id: Option<String>,
    pub kind: String,
    pub data: Value,
    pub retry: Option<u64>,
}

/// A stream that is being read.
pub struct Stream {
    response: Response,
    read: String,
}

impl Stream {
    /// Opens one that is answered 200.
    pub async fn open(call: RequestBuilder) -> Self {
        let response = call.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, read: String::new() }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let event = parse(event);
                self.read = rest.to_owned();
                return Some(event);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("an event in time");
            let Some(chunk) = chunk.unwrap() else {
                assert_eq!(self.read, "", "it ends between events");
                return None;
            };
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event, which is of this kind.
    #[track_caller]
    pub fn expect(&mut self, kind: &str) -> impl Future<Output = Event> {
        let caller = std::panic::Location::caller();
        async move {
            let event = self.next().await;
            assert_eq!(event.as_ref().map(|event| event.kind.as_str()), Some(kind), "{caller}: {event:?}");
            event.unwrap()
        }
    }

    /// That it ends, after an event that says why.
    #[track_caller]
    pub fn expect_end(&mut self, kind: &str, reason: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let last = self.next().await.expect("a last event");
            assert_eq!((last.kind.as_str(), &last.data["reason"]), (kind, &Value::from(reason)), "{caller}: {last:?}");
            assert_eq!(self.next().await, None, "{caller}");
        }
    }
}

fn parse(text: &str) -> Event {
    let mut event = Event { id: None, kind: "message".to_owned(), data: Value::Null, retry: None };
    for line in text.lines() {
        let (field, value) = line.split_once(": ").unwrap();
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.kind = value.to_owned(),
            "data" => event.data = serde_json::from_str(value).unwrap(),
            "retry" => event.retry = Some(value.parse().unwrap()),
            other => panic!("no field of an event: {other}"),
        }
    }
    event
}

/// A copy of a user's todos, with their entity tags.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    pub token: String,
    pub todos: BTreeMap<i64, Value>,
}

impl Replica {
    /// What there is.
    pub async fn new(app: &TestApp, user: &str) -> Self {
        let answer = app.get("/todos?etags=true").bearer_auth(app.token(user)).answer().await;
        let todos = answer.json().as_array().unwrap().clone();
        let token = answer.header("sync-token").unwrap().to_owned();
        Self { token, todos: todos.into_iter().map(|todo| (todo["id"].as_i64().unwrap(), todo)).collect() }
    }

    /// Applies an entry of `GET /changes`, or the data of an event.
    pub fn apply(&mut self, entry: &Value) {
        let id = entry["id"].as_i64().unwrap();
        if entry["todo"].is_null() {
            assert_eq!((&entry["event"], &entry["etag"]), (&Value::from("deleted"), &Value::Null), "{entry}");
            self.todos.remove(&id);
            return;
        }
        let mut todo = entry["todo"].clone();
        assert_eq!(todo["id"], id, "{entry}");
        todo["etag"] = entry["etag"].clone();
        self.todos.insert(id, todo);
    }

    /// Asks for what was missed until there is no more; returns how many entries there were.
    pub async fn catch_up(&mut self, app: &TestApp, user: &str, query: &str) -> usize {
        let mut entries = 0;
        loop {
            let path = format!("/changes?since={}{query}", self.token);
            let answer = app.get(&path).bearer_auth(app.token(user)).answer().await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let page = answer.json();
            assert_eq!(answer.header("sync-token"), page["next"].as_str());
            for entry in page["changes"].as_array().unwrap() {
                self.apply(entry);
                entries += 1;
            }
            self.token = page["next"].as_str().unwrap().to_owned();
            if page["has_more"] == false {
                return entries;
            }
        }
    }

    /// Reads a stream until it has come to this token.
    pub async fn follow(&mut self, stream: &mut Stream, until: &str) {
        while self.token != until {
            let event = stream.next().await.expect("more events");
            match event.kind.as_str() {
                "created" | "updated" | "deleted" | "restored" => {
                    assert_eq!(event.data["event"], *event.kind);
                    let revision = |token: &str| token.rsplit_once('-').unwrap().1.parse::<i64>().unwrap();
                    let id = event.id.expect("an id");
                    assert_eq!(revision(&id), revision(&self.token) + 1, "no change is missing, and none comes twice");
                    assert_eq!(event.data["revision"], revision(&id));
                    self.apply(&event.data);
                    self.token = id;
                }
                "heartbeat" | "delivery" => assert_eq!(event.id, None),
                other => panic!("{other}: {event:?}"),
            }
        }
    }
}
