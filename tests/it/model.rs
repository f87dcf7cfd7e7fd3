//! Long random lives: what the API answers, what memory and the database have, and which events were published agree
//! with a simple model, after each step and after a restart.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::app::{TestApp, with_settings};
use crate::client::{Answer, RequestExt};
use crate::database::TestDatabase;
use crate::follow::{Stream, catch_up, current, follow};
use crate::replica::Replica;

/// Fields that a random change may set.
const FIELDS: [&str; 6] = ["title", "description", "completed", "priority", "tags", "order"];

/// A todo as simply as it can be said.
#[derive(Debug, Clone, PartialEq)]
struct Todo {
    version: i64,
    fields: Map<String, Value>,
    /// The version that last changed each field.
    changed: BTreeMap<String, i64>,
    /// The version that each part is from: what is undone has never been. `deleted_at` is whether it is in the trash.
    origins: BTreeMap<String, i64>,
    is_live: bool,
}

/// What the service must hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    live: BTreeMap<i64, Todo>,
    trash: BTreeMap<i64, Todo>,
    last_id: i64,
    /// Kinds of events with ids, in commit order.
    events: Vec<(String, String)>,
    /// The same changes, as undo needs them.
    log: Vec<Entry>,
}

/// A change of one todo.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    id: i64,
    kind: &'static str,
    changed: Vec<String>,
    /// The todo before it; none before its creation.
    before: Option<Todo>,
    /// And after it.
    after: Todo,
    /// Where the request begins in the log, if its changes belong together.
    batch: Option<usize>,
}

/// What undoing changes of one todo takes.
struct Plan {
    id: i64,
    was_live: bool,
    /// Whether it goes to the trash, or comes back.
    moves: bool,
    /// What its fields become.
    fields: Map<String, Value>,
    /// The origins that its parts get back.
    origins: BTreeMap<String, i64>,
    /// Whether the changes together had changed anything.
    had_effect: bool,
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
    Import(Vec<Map<String, Value>>),
    /// Those that are completed, those that are not, or all.
    DeleteMany(Option<bool>),
    /// The number of a change, and whether with all that were made together with it.
    Undo(i64, bool),
}

use Change::{Batch, Create, Delete, DeleteMany, Empty, Import, Patch, Purge, Put, Restore, Undo};

impl Model {
    /// The status that the change is answered with; it is made if that is a success.
    fn apply(&mut self, change: &Change) -> u16 {
        match change {
            Create(fields) => {
                self.last_id += 1;
                let of_every_todo = json!({"title": null, "description": null, "completed": false});
                let mut todo = Todo::new(of_every_todo.as_object().unwrap().clone());
                todo.set(fields);
                (todo.changed, todo.origins) = (BTreeMap::new(), BTreeMap::new());
                let changed = todo.fields.keys().cloned().collect();
                self.live.insert(self.last_id, todo.clone());
                self.published("created", self.last_id, changed, None, todo);
                201
            }
            Put(id, fields) => {
                let Some(todo) = self.live.get_mut(id) else { return 404 };
                let before = todo.clone();
                todo.version += 1;
                let (changed, after) = (todo.set(fields), todo.clone());
                self.published("updated", *id, changed, Some(before), after);
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
                self.update(*id, fields);
                200
            }
            Delete(id, known) => {
                let Some(todo) = self.live.get(id) else { return 404 };
                if known.is_some_and(|known| known != todo.version) {
                    return 412;
                }
                self.delete(*id);
                204
            }
            Restore(id) => {
                if self.live.contains_key(id) {
                    return 409;
                }
                if !self.trash.contains_key(id) {
                    return 404;
                }
                self.restore(*id);
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
                    if let (412, Patch(id, ..) | Delete(id, _)) = (status, change)
                        && *id > self.last_id
                    {
                        // What the batch itself would have created was never there.
                        return 404;
                    }
                    if status >= 300 {
                        return status;
                    }
                }
                after.belong_together(self.log.len());
                *self = after;
                200
            }
            Import(todos) => {
                todos.iter().for_each(|todo| _ = self.apply(&Create(todo.clone())));
                200
            }
            DeleteMany(completed) => {
                let from = self.log.len();
                let is_wanted = |todo: &Todo| completed.is_none_or(|completed| todo.fields["completed"] == completed);
                let wanted: Vec<i64> =
                    self.live.iter().filter(|(_, todo)| is_wanted(todo)).map(|(id, _)| *id).collect();
                wanted.into_iter().for_each(|id| self.delete(id));
                self.belong_together(from);
                200
            }
            Undo(revision, whole_batch) => {
                let at = usize::try_from(*revision).ok().and_then(|revision| revision.checked_sub(1));
                let Some((at, target)) = at.and_then(|at| Some((at, self.log.get(at)?))) else { return 404 };
                let batch = target.batch.filter(|_| *whole_batch);
                let is_undone = |(n, entry): &(usize, &Entry)| *n == at || (batch.is_some() && entry.batch == batch);
                let undone: Vec<Entry> =
                    self.log.iter().enumerate().filter(is_undone).map(|(_, entry)| entry.clone()).collect();
                let mut ids: Vec<i64> = Vec::new();
                for entry in &undone {
                    if !ids.contains(&entry.id) {
                        ids.push(entry.id);
                    }
                }
                let mut plans = Vec::new();
                // What was done last is undone first.
                for id in ids.into_iter().rev() {
                    let of_todo: Vec<&Entry> = undone.iter().filter(|entry| entry.id == id).collect();
                    match self.plan(id, &of_todo) {
                        Err(410) if *whole_batch => {}
                        Err(status) => return status,
                        Ok(plan) => plans.push(plan),
                    }
                }
                if plans.is_empty() {
                    return 410;
                }
                let mut after = self.clone();
                // What goes makes room for what comes back.
                for was_live in [false, true] {
                    plans.iter().filter(|plan| plan.was_live == was_live).for_each(|plan| after.carry_out(plan));
                }
                if after.log.len() == self.log.len() && plans.iter().any(|plan| plan.had_effect) {
                    return 409;
                }
                if *whole_batch {
                    after.belong_together(self.log.len());
                }
                *self = after;
                200
            }
        }
    }

    /// What undoing changes of one todo takes, or why it can't be.
    fn plan(&self, id: i64, undone: &[&Entry]) -> Result<Plan, u16> {
        let now = self.live.get(&id).or_else(|| self.trash.get(&id)).ok_or(410_u16)?;
        let (before, then) = (&undone[0].before, &undone[undone.len() - 1].after);
        let was_live = before.as_ref().is_some_and(|before| before.is_live);
        let value = |todo: &Todo, name: &str| todo.fields.get(name).cloned().unwrap_or_default();
        let mut fields = Map::new();
        let mut had_effect = then.is_live != was_live;
        if let Some(before) = before {
            for name in FIELDS.into_iter().filter(|name| value(before, name) != value(then, name)) {
                had_effect = true;
                if value(before, name) != value(now, name) {
                    fields.insert(name.to_owned(), value(before, name));
                }
            }
        }
        let moves = then.is_live != was_live && now.is_live != was_live;
        let is_other = |name: &str| now.origin(name) != then.origin(name);
        let is_deleted_with_more = moves && !was_live && FIELDS.into_iter().any(is_other);
        let is_elsewhere = (moves || (!now.is_live && !fields.is_empty())) && is_other("deleted_at");
        if is_deleted_with_more || is_elsewhere || fields.keys().any(|name| is_other(name)) {
            return Err(409);
        }
        // What is undone has its origin again, also where the changes cancel each other out.
        let mut about: Vec<String> = undone.iter().flat_map(|entry| entry.changed.clone()).collect();
        if before.is_none() {
            about.clear();
        }
        about.extend(undone.iter().any(|entry| entry.kind != "updated").then(|| "deleted_at".to_owned()));
        let origin = |part: &String| before.as_ref().map_or(0, |before| before.origin(part));
        let origins =
            about.into_iter().filter(|part| !is_other(part)).map(|part| (part.clone(), origin(&part))).collect();
        Ok(Plan { id, was_live, moves, fields, origins, had_effect })
    }

    fn carry_out(&mut self, plan: &Plan) {
        let (Plan { id, was_live, moves, fields, origins, .. }, from) = (plan, self.log.len());
        if self.trash.contains_key(id) && (*moves || !fields.is_empty()) {
            self.restore(*id);
        }
        if !fields.is_empty() {
            self.update(*id, fields);
        }
        if !was_live && (*moves || !fields.is_empty()) {
            self.delete(*id);
        }
        // Not before all of it is as it was.
        if let Some(last) = self.log[from..].iter_mut().rfind(|entry| entry.id == *id) {
            last.after.origins.extend(origins.clone());
        } else {
            return;
        }
        if let Some(todo) = self.live.get_mut(id).or_else(|| self.trash.get_mut(id)) {
            todo.origins.extend(origins.clone());
        }
    }

    fn update(&mut self, id: i64, fields: &Map<String, Value>) {
        let todo = self.live.get_mut(&id).unwrap();
        let mut after = todo.clone();
        after.version += 1;
        let changed = after.set(fields);
        if !changed.is_empty() {
            let before = std::mem::replace(todo, after.clone());
            self.published("updated", id, changed, Some(before), after);
        }
    }

    fn delete(&mut self, id: i64) {
        let before = self.live.remove(&id).unwrap();
        let after = before.moved();
        self.trash.insert(id, after.clone());
        self.published("deleted", id, Vec::new(), Some(before), after);
    }

    fn restore(&mut self, id: i64) {
        let before = self.trash.remove(&id).unwrap();
        let after = before.moved();
        self.live.insert(id, after.clone());
        self.published("restored", id, Vec::new(), Some(before), after);
    }

    fn published(&mut self, kind: &'static str, id: i64, changed: Vec<String>, before: Option<Todo>, after: Todo) {
        self.events.push((format!("todo.{kind}"), format!("{id}-{}", after.version)));
        self.log.push(Entry { id, kind, changed, before, after, batch: None });
    }

    fn belong_together(&mut self, from: usize) {
        self.log[from..].iter_mut().for_each(|entry| entry.batch = Some(from));
    }
}

impl Todo {
    fn new(fields: Map<String, Value>) -> Self {
        Self { version: 1, fields, changed: BTreeMap::new(), origins: BTreeMap::new(), is_live: true }
    }

    fn origin(&self, part: &str) -> i64 {
        self.origins.get(part).copied().unwrap_or(1)
    }

    /// In the trash, or out of it.
    fn moved(&self) -> Self {
        let mut after = Self { version: self.version + 1, is_live: !self.is_live, ..self.clone() };
        after.origins.insert("deleted_at".into(), after.version);
        after
    }

    /// Sets fields, as its version; those that are different now.
    fn set(&mut self, sent: &Map<String, Value>) -> Vec<String> {
        let (before, mut changed) = (self.fields.clone(), Vec::new());
        for (name, value) in sent {
            let is_unset = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if is_unset && name != "description" {
                self.fields.shift_remove(name);
            } else {
                self.fields.insert(name.clone(), value.clone());
            }
            if self.fields.get(name) != before.get(name) {
                self.changed.insert(name.clone(), self.version);
                self.origins.insert(name.clone(), self.version);
                changed.push(name.clone());
            }
        }
        changed
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
    match random.random_range(0..if in_batch { 12 } else { 25 }) {
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
        13 if random.random_bool(0.2) => DeleteMany(random.random_bool(0.6).then(|| random.random())),
        13..15 => Put(id, random_fields(random)),
        15 if random.random_bool(0.4) => {
            let mut new = || {
                let mut fields = random_fields(random);
                fields.insert("title".into(), json!("imported"));
                fields
            };
            Import((0..3).map(|_| new()).collect())
        }
        16..21 => {
            let revisions = i64::try_from(model.log.len()).unwrap();
            // Most are about what was done lately.
            let from = if random.random_bool(0.8) { (revisions - 6).max(0) } else { 0 };
            Undo(random.random_range(from..=revisions + 1), random.random_bool(0.5))
        }
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
        Put(..) | Purge(_) | Empty | Batch(_) | Import(_) | DeleteMany(_) | Undo(..) => {
            unreachable!("no operation of a batch")
        }
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
        Import(todos) => ("POST", "/import".to_owned(), json!(todos)),
        DeleteMany(None) => ("DELETE", "/todos?all=true".to_owned(), json!(null)),
        DeleteMany(Some(completed)) => ("DELETE", format!("/todos?completed={completed}"), json!(null)),
        Undo(revision, batch) => ("POST", format!("/changes/{revision}/undo?batch={batch}"), json!(null)),
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

/// Clients that know the todos from the beginning and ask, each in its own way, for what has changed since.
struct Followers {
    /// Gets every change when it asks.
    plain: Replica,
    /// Gets only the last change of each todo.
    net: Replica,
    /// Hears each change.
    live: Replica,
}

impl Followers {
    /// Has some of them catch up, and compares what they have with what there is.
    async fn check(&mut self, app: &TestApp, stream: &mut Stream, random: &mut SmallRng, context: &str) {
        let now = current(app, "demo").await;
        follow(&mut self.live, stream, &now.token).await;
        assert_eq!(self.live, now, "{context}");
        let limit = random.random_range(1..20);
        if random.random_bool(0.2) {
            catch_up(&mut self.plain, app, "demo", &format!("&limit={limit}")).await;
            assert_eq!(self.plain, now, "{context}");
        }
        if random.random_bool(0.1) {
            catch_up(&mut self.net, app, "demo", &format!("&limit={limit}&net=true")).await;
            assert_eq!(self.net, now, "{context}");
        }
    }
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

async fn live(
    app: &TestApp,
    random: &mut SmallRng,
    model: &mut Model,
    followers: &mut Followers,
    seed: u64,
    undos: &mut BTreeMap<u16, usize>,
) {
    let call = app.get("/events").header("Last-Event-ID", &followers.live.token);
    let mut stream = Stream::open(call.bearer_auth(app.token("demo"))).await;
    stream.expect("ready").await;
    // Of their own: what the model does stays the same.
    let mut chance = SmallRng::seed_from_u64(seed);
    for step in 0..80 {
        let change = random_change(random, model, false);
        let context = format!("seed {seed}, step {step}: {change:?}");
        let key = random.random_bool(0.5).then(|| format!("{seed} {} {step}", model.events.len()));
        let before = model.events.len();
        let expected = model.apply(&change);
        let answer = send(app, &change, key.as_deref()).await;
        assert_eq!(answer.status, expected, "{context}: {}", answer.body);
        if expected < 300 && model.events.len() > before {
            assert_eq!(answer.header("change-revision"), Some(&*model.events.len().to_string()), "{context}");
        }
        *undos.entry(expected).or_insert(0) += usize::from(matches!(change, Undo(..)));
        if key.is_some() && expected < 300 {
            let again = send(app, &change, key.as_deref()).await;
            assert_eq!((again.status, &again.body), (answer.status, &answer.body), "{context}");
            assert_eq!(again.header("idempotent-replayed"), Some("true"), "{context}");
        }
        check(app, model, &context).await;
        followers.check(app, &mut stream, &mut chance, &context).await;
    }
}

#[actix_web::test]
async fn the_service_agrees_with_a_simple_model() {
    let mut undos = BTreeMap::new();
    for seed in 0..6 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut model, mut followers) = (Model::default(), None);
        let database = TestDatabase::new();
        for _life in 0..2 {
            let before = model.events.len();
            with_settings(&[("DATABASE_URL", database.url()), ("RATE_LIMIT_USER", "0")], async |app| {
                check(app, &model, "at the start").await;
                if followers.is_none() {
                    let new = current(app, "demo").await;
                    followers = Some(Followers { plain: new.clone(), net: new.clone(), live: new });
                }
                live(app, &mut random, &mut model, followers.as_mut().unwrap(), seed, &mut undos).await;
                let events = app.published().await.into_iter().map(|event| (event.kind, event.id));
                assert_eq!(events.collect::<Vec<_>>(), model.events[before..], "seed {seed}");
            })
            .await;
        }
    }
    assert!([200, 404, 409, 410].iter().all(|status| undos.get(status).is_some_and(|count| *count >= 5)), "{undos:?}");
}
