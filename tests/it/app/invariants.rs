//! What holds at the end of every test, and tests that a broken promise is seen.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::TcpStream;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use serde_json::{Value, json};
use todo_backend::domain::account::UserId;
use todo_backend::domain::todo::{Todo, TodoId, Version};
use todo_backend::store::OutboxCommand;

use super::{TestApp, eventually, ready, with_app, without_sidecar};
use crate::client::{CLIENT, RequestExt};
use crate::database::TestDatabase;
use crate::sidecar::{Event, Sidecar};

/// What has become of a change's event.
pub(super) const PENDING: i64 = 0;
pub(super) const PUBLISHED: i64 = 1;
const PARKED: i64 = 2;

/// A row of the change log.
pub(super) struct Logged {
    pub place: i64,
    pub todo: i64,
    pub version: i64,
    pub owner: i64,
    pub revision: i64,
    pub state: i64,
}

impl Logged {
    /// The id of its event.
    pub fn event_id(&self) -> String {
        format!("{}-{}", self.todo, self.version)
    }
}

impl TestApp {
    /// Asserts that every change was published as it should be, and that memory and database are in order.
    pub(super) async fn assert_invariants(&self) {
        if let Some(sidecar) = &self.sidecar {
            self.published().await;
            eventually("nothing is left in the outbox", async || self.pending().await == (0, 0)).await;
            self.assert_published_once_and_in_order(sidecar);
        } else {
            // On Postgres it is counted anew every two seconds, and a change between may be counted twice until then.
            eventually("what is left in the outbox is in the log", async || {
                let (counted, logged) = self.pending().await;
                counted == logged
            })
            .await;
        }
        assert!(read_log(&self.database).iter().all(|row| row.state != PARKED), "an event is parked");
        assert_eq!(self.problems(), *self.expected_problems.lock().unwrap(), "the database is in order");
        // A client that disconnected may have left a change that is being committed.
        eventually("memory has what the database has", async || self.todos_in_memory() == self.todos_on_disk()).await;
    }

    /// How many events wait, as the store counts them and as the log says.
    async fn pending(&self) -> (usize, usize) {
        // Before it does what an operator asks, here nothing, the store commits what became of events; otherwise it
        // waits up to a second for another reason to commit.
        let command = OutboxCommand::Skip { todo: TodoId(0), version: Version(0) };
        self.store.run_admin_command(None, command).await.unwrap();
        let log = read_log(&self.database);
        (self.store.outbox().pending(), log.iter().filter(|row| row.state == PENDING).count())
    }

    fn assert_published_once_and_in_order(&self, sidecar: &Sidecar) {
        let (accepted, log) = (sidecar.accepted(), read_log(&self.database));
        let logged: HashSet<_> = log.iter().map(|row| (row.event_id(), row.owner, row.revision)).collect();
        let [ids, floors] =
            ["id", "floor"].map(|column| self.database.numbers(&format!("SELECT {column} FROM users ORDER BY id")));
        let floors: HashMap<i64, i64> = ids.into_iter().zip(floors).collect();
        let mut versions: HashMap<i64, Vec<i64>> = HashMap::new();
        for Event { id, data, partition_key, .. } in accepted {
            assert_eq!(id, format!("{}-{}", data.id, data.version));
            assert_eq!(partition_key, data.id.to_string(), "the key keeps a todo's events in order");
            let is_pruned = floors.get(&data.owner).is_some_and(|&floor| data.revision <= floor);
            assert!(is_pruned || logged.contains(&(id.clone(), data.owner, data.revision)), "{id} is not in the log");
            let versions = versions.entry(data.id).or_default();
            if versions.contains(&data.version) {
                assert!(sidecar.allows_repeats(), "{id} was published twice");
            } else {
                assert!(versions.last() < Some(&data.version), "{id} came after {versions:?}");
                versions.push(data.version);
            }
        }
    }

    /// Every todo by id, whether it is in the trash or not: columns as JSON.
    fn todos_on_disk(&self) -> Vec<Value> {
        let is = |condition: &str| format!("CASE WHEN {condition} THEN 'true' ELSE 'false' END");
        let sql = format!(
            "SELECT id, owner_id, version, priority, tags, {}, {}, sort_order, title, description, due_at, field_versions
             FROM todos ORDER BY id",
            is("completed"),
            is("deleted_uptime IS NOT NULL")
        );
        let rows = self.database.rows(&sql).into_iter();
        let columns = |row: Vec<Option<String>>| {
            row.into_iter().enumerate().map(|(n, value)| match (n, value) {
                (_, None) => Value::Null,
                (..7, Some(json)) => serde_json::from_str(&json).unwrap(),
                (7, Some(number)) => json!(number.parse::<f64>().unwrap()),
                (_, Some(text)) => text.into(),
            })
        };
        rows.map(|row| Value::Array(columns(row).collect())).collect()
    }

    fn todos_in_memory(&self) -> Vec<Value> {
        let columns = |todo: &Todo, is_deleted: bool| {
            let todo_json = json!(todo);
            let tags = todo_json["tags"].clone();
            json!([
                todo.id,
                todo.owner,
                todo.version,
                todo.priority,
                tags,
                todo.completed,
                is_deleted,
                todo.order,
                todo.title,
                todo.description,
                todo.due_at,
                todo.field_versions.to_text(),
            ])
        };
        let owners = self.database.numbers("SELECT id FROM users UNION SELECT owner_id FROM todos");
        let mut todos: BTreeMap<TodoId, Value> = BTreeMap::new();
        for owner in owners.into_iter().map(UserId) {
            todos.extend(ready(self.store.view(owner)).todos.iter().map(|todo| (todo.id, columns(todo, false))));
            todos.extend(ready(self.store.trash(owner)).todos.iter().map(|todo| (todo.id, columns(todo, true))));
        }
        todos.into_values().collect()
    }

    /// How many todos and changes on disk have this title or description.
    pub fn rows_with(&self, text: &str) -> usize {
        let tables = "SELECT title, description FROM todos UNION ALL SELECT title, description FROM changes";
        let is_it = |value: &Option<String>| value.as_deref() == Some(text);
        self.database.rows(tables).iter().filter(|row| row.iter().any(is_it)).count()
    }
}

/// The change log in the order of its commits.
pub(super) fn read_log(database: &TestDatabase) -> Vec<Logged> {
    let log = database.log().into_iter();
    log.map(|[place, todo, version, owner, revision, state]| Logged { place, todo, version, owner, revision, state })
        .collect()
}

/// What the test that `run` is would fail with.
async fn failure(run: impl Future<Output = ()>) -> String {
    let panic = AssertUnwindSafe(run).catch_unwind().await.expect_err("it fails");
    panic.downcast::<String>().map_or_else(|panic| (*panic.downcast::<&str>().unwrap()).to_owned(), |text| *text)
}

/// Publishes an event that the service never had.
async fn forge(app: &TestApp, todo: i64, version: i64, key: i64) {
    let url = format!("{}/v1.0/publish/kafka-pubsub/todos?metadata.partitionKey={key}", app.sidecar().url);
    let event = json!({
        "id": format!("{todo}-{version}"), "type": "todo.created",
        "data": {"id": todo, "title": "x", "description": null, "owner": app.user_id("demo"), "actor": "demo",
            "version": version, "revision": version, "changed": []},
    });
    assert_eq!(CLIENT.post(url).header("traceparent", "x").send_json(event).await.status, 204);
}

/// Has a todo and its event published.
async fn publish_one(app: &TestApp) {
    app.create(&app.token("demo"), json!({"title": "x"})).await;
    app.published().await;
}

#[actix_web::test]
async fn a_body_that_fails_is_the_failure_and_its_service_is_stopped() {
    let address = OnceCell::new();
    let run = with_app(async |app| {
        address.set(app.connect().peer_addr().unwrap()).unwrap();
        panic!("the test's own");
    });
    assert_eq!(failure(run).await, "the test's own");
    assert!(TcpStream::connect(address.get().unwrap()).is_err());
}

#[actix_web::test]
async fn a_damaged_database_fails_the_test() {
    let run = with_app(async |app| {
        publish_one(app).await;
        app.database().execute("UPDATE todos SET title = 'y'");
    });
    let failure = failure(run).await;
    assert!(failure.contains("a todo is as its last change left it, in the trash or not: todo 1"), "{failure}");
}

#[actix_web::test]
async fn an_event_that_stays_parked_fails_the_test() {
    let run = without_sidecar(&[], async |app| {
        app.create(&app.token("demo"), json!({"title": "x"})).await;
        app.park(1, 1);
    });
    assert_eq!(failure(run).await, "an event is parked");
}

#[actix_web::test]
async fn an_event_that_comes_twice_fails_the_test() {
    let run = with_app(async |app| {
        publish_one(app).await;
        forge(app, 1, 1, 1).await;
    });
    assert_eq!(failure(run).await, "1-1 was published twice");
}

#[actix_web::test]
async fn an_event_of_no_change_fails_the_test() {
    let run = with_app(async |app| {
        publish_one(app).await;
        forge(app, 1, 2, 1).await;
    });
    assert_eq!(failure(run).await, "1-2 is not in the log");
}

#[actix_web::test]
async fn events_of_a_todo_in_the_wrong_order_fail_the_test() {
    let run = with_app(async |app| {
        forge(app, 1, 2, 1).await;
        app.create(&app.token("demo"), json!({"title": "x"})).await;
        let call = app.put("/todos/1").bearer_auth(app.token("demo"));
        assert_eq!(call.send_json(json!({"completed": true})).await.status, 200);
    });
    assert_eq!(failure(run).await, "1-1 came after [2]");
}

#[actix_web::test]
async fn an_event_with_the_key_of_another_todo_fails_the_test() {
    let run = with_app(async |app| {
        forge(app, 1, 1, 2).await;
        app.create(&app.token("demo"), json!({"title": "x"})).await;
    });
    let failure = failure(run).await;
    assert!(failure.contains("the key keeps a todo's events in order"), "{failure}");
}
