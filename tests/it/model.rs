//! Long random lives: what the API answers, what memory and the database have, and which events were published agree
//! with a simple model, after each step and after a restart.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::app::{TestApp, with_settings};
use crate::client::{Answer, RequestExt};

/// Fields that a random change may set.
const FIELDS: [&str; 6] = ["title", "description", "completed", "priority", "tags", "order"];

/// A todo as simply as it can be said.
#[derive(Debug, Clone, PartialEq)]
struct Todo {
    version: i64,
    fields: Map<String, Value>,
    /// The version that last changed each field.
    changed: BTreeMap<String, i64>,
}

/// What the service must hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    live: BTreeMap<i64, Todo>,
    trash: BTreeMap<i64, Todo>,
    last_id: i64,
    /// Kinds of events with ids, in commit order.
    events: Vec<(String, String)>,
}

/// A change that is asked for.
#[derive(Debug, Clone)]
enum Change {
    Create(Map<String, Value>),
    Put(i64, Map<String, Value>),
    /// With the version that the client knows, if it sends one, and whether it asks to merge.
    Patch(i64, Map<String, Value>, Option<i64>, bool),
    Delete(i64, Option<i64>),
    Restore(i64),
    Purge(i64),
    Empty,
    Batch(Vec<Change>),
}

use Change::{Batch, Create, Delete, Empty, Patch, Purge, Put, Restore};

impl Model {
    /// The status that the change is answered with; it is made if that is a success.
    fn apply(&mut self, change: &Change) -> u16 {
        match change {
            Create(fields) => {
                self.last_id += 1;
                let of_every_todo = json!({"title": null, "description": null, "completed": false});
                let mut todo =
                    Todo { version: 1, fields: of_every_todo.as_object().unwrap().clone(), changed: BTreeMap::new() };
                todo.set(fields);
                todo.changed.clear();
                self.live.insert(self.last_id, todo);
                self.published("created", self.last_id, 1);
                201
            }
            Put(id, fields) => {
                let Some(todo) = self.live.get_mut(id) else { return 404 };
                todo.version += 1;
                todo.set(fields);
                let version = todo.version;
                self.published("updated", *id, version);
                200
            }
            Patch(id, fields, known, merge) => {
                let Some(todo) = self.live.get_mut(id) else { return 404 };
                if let Some(known) = known.filter(|known| *known != todo.version) {
                    let newer = |name: &String| todo.changed.get(name).copied().unwrap_or(1) > known;
                    if !merge || known > todo.version || fields.keys().any(newer) {
                        return 412;
                    }
                }
                let mut after = todo.clone();
                after.version += 1;
                if after.set(fields) {
                    let version = after.version;
                    *todo = after;
                    self.published("updated", *id, version);
                }
                200
            }
            Delete(id, known) => {
                let Some(todo) = self.live.get(id) else { return 404 };
                if known.is_some_and(|known| known != todo.version) {
                    return 412;
                }
                let mut todo = self.live.remove(id).unwrap();
                todo.version += 1;
                self.published("deleted", *id, todo.version);
                self.trash.insert(*id, todo);
                204
            }
            Restore(id) => {
                if self.live.contains_key(id) {
                    return 409;
                }
                let Some(mut todo) = self.trash.remove(id) else { return 404 };
                todo.version += 1;
                self.published("restored", *id, todo.version);
                self.live.insert(*id, todo);
                200
            }
            Purge(id) => {
                if self.trash.remove(id).is_some() {
                    204
                } else {
                    404
                }
            }
            Empty => {
                self.trash.clear();
                200
            }
            Batch(changes) => {
                let mut after = self.clone();
                for change in changes {
                    let status = after.apply(change);
                    if status >= 300 {
                        return status;
                    }
                }
                *self = after;
                200
            }
        }
    }

    fn published(&mut self, kind: &str, id: i64, version: i64) {
        self.events.push((format!("todo.{kind}"), format!("{id}-{version}")));
    }
}

impl Todo {
    /// Sets fields, as its version; whether any is different now.
    fn set(&mut self, sent: &Map<String, Value>) -> bool {
        let before = self.fields.clone();
        for (name, value) in sent {
            let is_unset = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if is_unset && name != "description" {
                self.fields.shift_remove(name);
            } else {
                self.fields.insert(name.clone(), value.clone());
            }
            if self.fields.get(name) != before.get(name) {
                self.changed.insert(name.clone(), self.version);
            }
        }
        self.fields != before
    }
}

/// Some fields with random values, among them what they may be already.
fn random_fields(random: &mut SmallRng) -> Map<String, Value> {
    let mut fields = Map::new();
    for name in FIELDS.into_iter().filter(|_| random.random_bool(0.3)).collect::<Vec<_>>() {
        let value = match name {
            "title" => json!(["a", "b", "c"][random.random_range(0..3)]),
            "description" => [json!(null), json!("d"), json!("")][random.random_range(0..3)].clone(),
            "completed" => json!(random.random_bool(0.5)),
            "priority" => [json!(null), json!(0), json!(4)][random.random_range(0..3)].clone(),
            "tags" => [json!(null), json!([]), json!(["x", "y"])][random.random_range(0..3)].clone(),
            _ => [json!(null), json!(0.5)][random.random_range(0..2)].clone(),
        };
        fields.insert(name.to_owned(), value);
    }
    fields
}

fn random_change(random: &mut SmallRng, model: &Model, in_batch: bool) -> Change {
    // Some that never were.
    let id = random.random_range(1..=model.last_id + 2);
    let version = model.live.get(&id).map_or(1, |todo| todo.version);
    let known = |random: &mut SmallRng| {
        random
            .random_bool(0.5)
            .then(|| (version - i64::from(random.random_bool(0.4))).max(1) + i64::from(random.random_bool(0.1)))
    };
    match random.random_range(0..if in_batch { 12 } else { 18 }) {
        0..3 => {
            let mut fields = random_fields(random);
            fields.insert("title".into(), json!("new"));
            Create(fields)
        }
        3..7 => Patch(id, random_fields(random), known(random), !in_batch && random.random_bool(0.5)),
        7..9 => Delete(id, known(random)),
        9..12 => Restore(id),
        12 => Purge(id),
        13 if random.random_bool(0.2) => Empty,
        13..15 => Put(id, random_fields(random)),
        _ => Batch((0..random.random_range(0..6)).map(|_| random_change(random, model, true)).collect()),
    }
}

/// A change as an operation of a batch.
fn operation(change: &Change, epoch: &str) -> Value {
    let with_tag = |mut operation: Value, id: i64, known: Option<i64>| {
        if let Some(known) = known {
            operation["if_match"] = json!(format!("\"{epoch}-{id}-{known}\""));
        }
        operation
    };
    match change {
        Create(fields) => json!({"op": "create", "todo": fields}),
        Patch(id, fields, known, _) => with_tag(json!({"op": "update", "id": id, "todo": fields}), *id, *known),
        Delete(id, known) => with_tag(json!({"op": "delete", "id": id}), *id, *known),
        Restore(id) => json!({"op": "restore", "id": id}),
        Put(..) | Purge(_) | Empty | Batch(_) => unreachable!("no operation of a batch"),
    }
}

async fn send(app: &TestApp, change: &Change, key: Option<&str>) -> Answer {
    let epoch = app.store().epoch().to_string();
    let (method, path, body) = match change {
        Create(fields) => ("POST", "/todos".to_owned(), json!(fields)),
        Put(id, fields) => ("PUT", format!("/todos/{id}"), json!(fields)),
        Patch(id, fields, ..) => ("PATCH", format!("/todos/{id}"), json!(fields)),
        Delete(id, _) => ("DELETE", format!("/todos/{id}"), json!(null)),
        Restore(id) => ("POST", format!("/todos/{id}/restore"), json!(null)),
        Purge(id) => ("DELETE", format!("/trash/{id}"), json!(null)),
        Empty => ("DELETE", "/trash".to_owned(), json!(null)),
        Batch(changes) => {
            let operations: Vec<Value> = changes.iter().map(|change| operation(change, &epoch)).collect();
            ("POST", "/batch".to_owned(), json!({ "operations": operations }))
        }
    };
    let mut call = app.request(method, &path).bearer_auth(app.token("demo"));
    if let Patch(id, _, Some(known), _) | Delete(id, Some(known)) = change {
        call = call.header("If-Match", format!("\"{epoch}-{id}-{known}\""));
    }
    if let Patch(_, _, _, true) = change {
        call = call.header("Prefer", "merge");
    }
    if let Some(key) = key {
        call = call.header("Idempotency-Key", key);
    }
    call.send_json(body).await
}

/// Compares what the service shows with the model.
async fn check(app: &TestApp, model: &Model, context: &str) {
    let epoch = app.store().epoch();
    for (path, expected) in [("/todos?etags=true", &model.live), ("/trash", &model.trash)] {
        let answer = app.get(path).bearer_auth(app.token("demo")).answer().await;
        let sync = format!("{epoch}-{}", model.events.len());
        assert_eq!(answer.header("sync-token"), Some(&*sync), "{context}");
        let shown: BTreeMap<i64, (Value, Map<String, Value>)> = answer
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|todo| {
                let fields = FIELDS.into_iter().filter_map(|name| Some((name.to_owned(), todo.get(name)?.clone())));
                (todo["id"].as_i64().unwrap(), (todo["etag"].clone(), fields.collect()))
            })
            .collect();
        let expected = expected.iter().map(|(id, todo)| {
            let fields = FIELDS.into_iter().filter_map(|name| Some((name.to_owned(), todo.fields.get(name)?.clone())));
            (*id, (json!(format!("\"{epoch}-{id}-{}\"", todo.version)), fields.collect()))
        });
        assert_eq!(shown, expected.collect(), "{path} {context}");
    }
}

async fn live(app: &TestApp, random: &mut SmallRng, model: &mut Model, seed: u64) {
    for step in 0..80 {
        let change = random_change(random, model, false);
        let context = format!("seed {seed}, step {step}: {change:?}");
        let key = random.random_bool(0.5).then(|| format!("{seed} {} {step}", model.events.len()));
        let expected = model.apply(&change);
        let answer = send(app, &change, key.as_deref()).await;
        assert_eq!(answer.status, expected, "{context}: {}", answer.body);
        if key.is_some() && expected < 300 {
            let again = send(app, &change, key.as_deref()).await;
            assert_eq!((again.status, &again.body), (answer.status, &answer.body), "{context}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{context}");
        }
        check(app, model, &context).await;
    }
}

#[actix_web::test]
async fn the_service_agrees_with_a_simple_model() {
    for seed in 0..6 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut model = Model::default();
        let directory = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", directory.path().join("todos.db").display());
        for _life in 0..2 {
            let before = model.events.len();
            with_settings(&[("DATABASE_URL", database.as_str()), ("RATE_LIMIT_USER", "0")], async |app| {
                check(app, &model, "at the start").await;
                live(app, &mut random, &mut model, seed).await;
                let events = app.published().await.into_iter().map(|event| (event.kind, event.id));
                assert_eq!(events.collect::<Vec<_>>(), model.events[before..], "seed {seed}");
            })
            .await;
        }
    }
}
