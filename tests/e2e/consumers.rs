//! What consumers are promised: the example subscribers get every event, and every event is as docs/events.schema.json
//! says.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use todo_backend::events::dapr::http_client;

use serde_json::{Value, json};

use crate::process::Process;
use crate::stack::{PATIENCE, Stack, daprd, free_port, project, tool};

/// One of docs/examples, with a sidecar of its own.
struct Subscriber {
    application: Process,
    _sidecar: Process,
}

impl Subscriber {
    fn start(stack: &Stack, app_id: &'static str, interpreter: &str, file: &str) -> Self {
        let port = free_port();
        let mut command = Command::new(interpreter);
        command.arg(project().join("docs/examples").join(file)).env("APP_PORT", port.to_string());
        let application = Process::start(app_id, &mut command);
        let components = stack.directory.path().join(app_id);
        stack.copy_components("docs/examples/components", &components);
        let sidecar = Process::start("daprd", &mut daprd(app_id, port, free_port(), &components));
        Self { application, _sidecar: sidecar }
    }

    /// The events that it has printed.
    fn events(&self) -> Vec<String> {
        self.application.lines().into_iter().filter(|line| line.starts_with("todo.")).collect()
    }
}

#[actix_web::test]
async fn the_example_subscribers_print_every_event_once() {
    let mut stack = Stack::started();
    let demo = stack.client("demo", "demo123").await;
    let id = demo.create("before \"they\" start ✓").await;
    let subscribers = [
        Subscriber::start(&stack, "audit-node", "node", "subscriber.mjs"),
        Subscriber::start(&stack, "audit-python", tool("PYTHON"), "subscriber.py"),
    ];
    for subscriber in &subscribers {
        subscriber.application.wait_for(&format!("todo.created {id}-1 "), PATIENCE);
    }
    let path = format!("/todos/{id}");
    assert_eq!(demo.send("PUT", &path, Some(json!({"title": "renamed"}))).await.0, 200);
    let events = stack.events_until(|events| events.len() >= 2).await;
    // A duplicate that comes late, as after a timeout.
    publish(&stack, id, &events[0].body).await;
    stack.events_until(|events| events.len() >= 3).await;
    assert_eq!(demo.send("DELETE", &path, None).await.0, 204);
    assert_eq!(demo.send("POST", &format!("{path}/restore"), None).await.0, 200);
    for subscriber in &subscribers {
        subscriber.application.wait_for(&format!("todo.restored {id}-4 "), PATIENCE);
        assert_eq!(
            subscriber.events(),
            [
                format!(r#"todo.created {id}-1 "before \"they\" start ✓""#),
                format!(r#"todo.updated {id}-2 "renamed""#),
                format!(r#"todo.deleted {id}-3 "renamed""#),
                format!(r#"todo.restored {id}-4 "renamed""#),
            ]
        );
    }
    // They took nothing away from the service.
    stack.service().wait_for(&format!("Event received from todos: todo.restored {id}-4 "), PATIENCE);
}

#[actix_web::test]
async fn every_event_in_kafka_is_as_the_schema_says() {
    let stack = Stack::started();
    let admin = stack.client("admin", "admin123").await;
    let path = format!("/todos/{}", admin.create("with a description").await);
    for change in [json!({"description": "line 1\nline 2 ✓", "completed": true}), json!({"completed": true}), json!({})]
    {
        assert_eq!(admin.send("PUT", &path, Some(change)).await.0, 200);
    }
    assert_eq!(admin.send("DELETE", &path, None).await.0, 204);
    assert_eq!(admin.send("POST", &format!("{path}/restore"), None).await.0, 200);
    let optional = json!({"due_at": "2025-01-31T10:30:00+01:00", "priority": 4, "tags": ["dapr", "✓"], "order": 0.5});
    assert_eq!(admin.send("PUT", &path, Some(optional)).await.0, 200);
    assert_eq!(admin.send("PUT", &path, Some(json!({"due_at": "2025-01-31", "order": -1}))).await.0, 200);
    // Its todo's last event is scrubbed.
    let demo = stack.client("demo", "demo123").await;
    demo.create("gone with its account").await;
    assert_eq!(demo.send("DELETE", "/auth/me", Some(json!({"password": "demo123"}))).await.0, 204);
    let events: Vec<Value> =
        stack.events_until(|events| events.len() >= 10).await.into_iter().map(|event| event.body).collect();
    assert_eq!(verdicts(&events), ["valid"; 10], "{events:#?}");
    // Partitions are read one after the other.
    let (of_demo, events): (Vec<Value>, Vec<Value>) =
        events.into_iter().partition(|event| event["data"]["created_by"] == "demo");
    let scrubbed = &of_demo[1]["data"];
    assert_eq!((&scrubbed["scrubbed"], &scrubbed["title"]), (&json!(true), &json!("[deleted]")));

    // Nothing is sent that the schema does not describe, and nothing that it requires is missing.
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(project().join(SCHEMA)).unwrap()).unwrap();
    for event in &events {
        for attribute in event.as_object().unwrap().keys() {
            assert!(schema["properties"].get(attribute).is_some(), "{attribute} is not in the schema");
        }
        let data = &schema["properties"]["data"];
        let fields: BTreeSet<_> = event["data"].as_object().unwrap().keys().map(String::as_str).collect();
        let required = data["required"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
        let optional: &[&str] = if event["data"].get("due_at").is_some() { &OPTIONAL } else { &[] };
        assert_eq!(fields, required.clone().chain(optional.iter().copied()).collect());
        let described: BTreeSet<_> = data["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let not_always = OPTIONAL.into_iter().chain(["scrubbed"]);
        assert_eq!(described, required.chain(not_always).collect(), "those that are not always there");
    }

    let [created, updated, deleted, restored, full] = [0, 1, 4, 5, 6].map(|index| &events[index]);
    let mut broken = Vec::new();
    for attribute in schema["required"].as_array().unwrap() {
        broken.push(without(created, "", attribute.as_str().unwrap()));
    }
    for field in schema["properties"]["data"]["required"].as_array().unwrap() {
        broken.push(without(created, "/data", field.as_str().unwrap()));
    }
    for (event, pointer, value) in [
        (created, "/specversion", json!("0.3")),
        (created, "/id", json!("1")),
        (created, "/id", json!("1-2")),
        (created, "/source", json!("/todo-backend")),
        (created, "/type", json!("todo_created")),
        (created, "/type", json!("todo.updated")),
        (created, "/subject", json!("1")),
        (created, "/time", json!("2025-01-15T10:30:00")),
        (created, "/data", json!("{}")),
        (created, "/data/id", json!("1")),
        (created, "/data/title", json!("")),
        (created, "/data/completed", json!(1)),
        (created, "/data/created_at", json!(1_736_937_000)),
        (created, "/data/event", json!("todo.created")),
        (created, "/data/version", json!(2)),
        (created, "/data/changed", json!([])),
        (created, "/data/schema", json!(2)),
        (updated, "/data/version", json!(1)),
        (updated, "/data/revision", json!(0)),
        (updated, "/data/changed", json!("completed")),
        (updated, "/data/event", json!("todo_deleted")),
        (deleted, "/data/changed", json!(["title"])),
        (restored, "/type", json!("todo.updated")),
        (restored, "/data/changed", json!(["title"])),
        (full, "/data/due_at", json!("2025-01-31T10:30:00+01:00")),
        (full, "/data/priority", json!(5)),
        (full, "/data/tags", json!([])),
        (full, "/data/order", json!("1")),
        (deleted, "/traceparent", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
    ] {
        let mut event = event.clone();
        *event.pointer_mut(pointer).unwrap() = value;
        broken.push(event);
    }
    for (event, verdict) in broken.iter().zip(verdicts(&broken)) {
        assert_ne!(verdict, "valid", "{event:#}");
    }

    // What may be added later is allowed now.
    let mut later = created.clone();
    later["partitionkey"] = json!("1");
    later["data"]["assignee"] = json!(3);
    assert_eq!(verdicts(&[later]), ["valid"]);
}

/// Fields that are left out while they are not set.
const OPTIONAL: [&str; 4] = ["due_at", "priority", "tags", "order"];

const SCHEMA: &str = "docs/events.schema.json";

/// What tests/docs/validate.py says about each event.
fn verdicts(events: &[Value]) -> Vec<String> {
    let mut validator = Command::new(tool("PYTHON"))
        .args([project().join("tests/docs/validate.py"), project().join(SCHEMA)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    validator.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = validator.wait_with_output().unwrap();
    assert!(output.status.success(), "validate.py failed");
    let verdicts: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(verdicts.len(), events.len());
    verdicts
}

fn without(event: &Value, object: &str, key: &str) -> Value {
    let mut event = event.clone();
    assert!(event.pointer_mut(object).unwrap().as_object_mut().unwrap().remove(key).is_some(), "{key}");
    event
}

/// Publishes an event of a todo through the service's sidecar.
async fn publish(stack: &Stack, todo: i64, event: &Value) {
    let port = stack.sidecar_port();
    let url = format!("http://127.0.0.1:{port}/v1.0/publish/kafka-pubsub/todos?metadata.partitionKey={todo}");
    let http = http_client().build().unwrap();
    let request = http.post(url).header("content-type", "application/cloudevents+json").body(event.to_string());
    assert_eq!(request.send().await.unwrap().status(), 204);
}
