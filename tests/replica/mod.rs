//! What a client makes of `GET /changes` and `GET /events`: a copy of a user's todos. For the tests in process and end to end.

use std::collections::BTreeMap;

use serde_json::Value;

/// An event of a stream, as a browser reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `None`: it has none; empty: the client forgets the one that it had.
    pub id: Option<String>,
    pub kind: String,
    pub data: Value,
    pub retry: Option<u64>,
}

/// The part of a stream that was received and not read yet.
#[derive(Debug, Default)]
pub struct Received(Vec<u8>);

impl Received {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next event that is complete.
    pub fn next(&mut self) -> Option<Event> {
        let end = self.0.windows(2).position(|two| two == b"\n\n")?;
        let event = parse(std::str::from_utf8(&self.0[..end]).unwrap());
        self.0.drain(..end + 2);
        Some(event)
    }

    /// Whether there is nothing of a next one.
    #[allow(dead_code, reason = "only in process")]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

/// The revision that a token names.
pub fn revision(token: &str) -> i64 {
    token.rsplit_once('-').unwrap().1.parse().unwrap()
}

/// A copy of a user's todos, with their entity tags.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    pub token: String,
    pub todos: BTreeMap<i64, Value>,
}

impl Replica {
    /// What `GET /todos?etags=true` answers, with its `Sync-Token`.
    pub fn new(todos: &Value, token: &str) -> Self {
        let todos = todos.as_array().unwrap().iter().map(|todo| (todo["id"].as_i64().unwrap(), todo.clone()));
        Self { token: token.to_owned(), todos: todos.collect() }
    }

    /// Applies an entry.
    fn apply(&mut self, entry: &Value) {
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

    /// Applies what `GET /changes` answers; returns how many entries it has, and whether there are more.
    pub fn read(&mut self, page: &Value) -> (usize, bool) {
        let entries = page["changes"].as_array().unwrap();
        let mut last = revision(&self.token);
        for entry in entries {
            assert!(entry["revision"].as_i64().unwrap() > last, "{entry} is not after {last}");
            last = entry["revision"].as_i64().unwrap();
            self.apply(entry);
        }
        self.token = page["next"].as_str().unwrap().to_owned();
        assert!(last <= revision(&self.token));
        (entries.len(), page["has_more"].as_bool().unwrap())
    }

    /// Applies an event if it is a change: none may be missing, and none come twice.
    pub fn hear(&mut self, event: &Event) {
        if ["created", "updated", "deleted", "restored"].contains(&event.kind.as_str()) {
            let id = event.id.as_ref().expect("an id");
            assert_eq!(revision(id), revision(&self.token) + 1, "none is missing, and none comes twice: {event:?}");
            assert_eq!((&event.data["revision"], &event.data["event"]), (&revision(id).into(), &(*event.kind).into()));
            self.apply(&event.data);
            self.token.clone_from(id);
        }
    }
}
