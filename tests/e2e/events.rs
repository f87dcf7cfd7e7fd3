//! The way of an event: API, sidecar, Kafka, sidecar, subscription.

use serde_json::json;
use todo_backend::events::dapr::http_client;

use crate::process::Process;
use crate::stack::{PATIENCE, SERVICE, Stack, free_port, project, tool};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[actix_web::test]
async fn every_kind_of_change_arrives_in_kafka_and_comes_back() {
    let mut stack = Stack::started();
    let admin = stack.client("admin", "admin123").await;
    let trace = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    let new = json!({"title": "Learn \"Dapr\" ✓", "description": "line 1\nline 2"});
    let headers = [("traceparent", trace.as_str())];
    let (status, todo) = admin.try_send("POST", "/todos", Some(new), &headers).await.unwrap();
    assert_eq!(status, 201);
    let path = format!("/todos/{}", todo["id"]);
    let (status, updated) = admin.send("PUT", &path, Some(json!({"completed": true}))).await;
    assert_eq!((status, &updated["completed"]), (200, &json!(true)));
    assert_eq!(admin.send("DELETE", &path, None).await.0, 204);

    let events = stack.events_until(|events| events.len() >= 3).await;
    let kinds: Vec<_> = events.iter().map(|event| event.text("type")).collect();
    assert_eq!(kinds, ["todo.created", "todo.updated", "todo.deleted"]);
    let source = events[0].text("source").to_owned();
    assert!(source.strip_prefix("/todo-backend/").is_some_and(|epoch| epoch.len() == 16), "{source}");
    for (event, version) in events.iter().zip(1..) {
        assert_eq!(event.key, todo["id"].to_string());
        assert_eq!(event.text("id"), format!("{}-{version}", todo["id"]));
        assert_eq!(event.text("source"), source);
        assert_eq!(event.text("subject"), format!("todos/{}", todo["id"]));
        assert_eq!(event.text("specversion"), "1.0");
        assert_eq!(event.text("datacontenttype"), "application/json");
        assert_eq!((event.text("pubsubname"), event.text("topic")), ("kafka-pubsub", "todos"));
        assert_eq!((event.number("version"), event.number("revision")), (version, version));
        assert_eq!(event.body["time"], event.body["data"]["updated_at"]);
    }
    let data = events[0].body["data"].as_object().unwrap();
    for field in ["id", "title", "description", "completed", "created_at", "updated_at"] {
        assert_eq!(data[field], todo[field], "{field}");
    }
    assert_eq!((&data["created_by"], &data["actor"]), (&json!("admin"), &json!("admin")));
    assert_eq!((&data["event"], &data["schema"]), (&json!("todo_created"), &json!(1)));
    assert_eq!(events[1].body["data"]["changed"], json!(["completed"]));
    assert_eq!(events[2].body["data"]["event"], "todo_deleted");
    // The request's trace goes on; daprd adds spans of its own to it.
    assert!(events[0].text("traceparent").starts_with(&format!("00-{TRACE_ID}-")), "{}", events[0].body);
    let other = events[1].text("traceparent");
    assert!(other.len() == 55 && !other.contains(TRACE_ID) && !other.contains(&"0".repeat(32)), "{other}");

    // Back through the subscription, in the seed's log format.
    let id = events[2].text("id");
    let line = stack.service().wait_for(&format!("Event received from todos: todo.deleted {id} "), PATIENCE);
    let (time, rest) = line.split_at(23);
    assert!(time.as_bytes()[10] == b' ' && time.as_bytes()[19] == b',', "{line}");
    assert!(rest.starts_with(" - events.subscription - INFO - Event received"), "{line}");
    let created = stack.service().wait_for("Event received from todos: todo.created", PATIENCE);
    assert!(created.contains(r"line 1\nline 2"), "{created}");
}

#[actix_web::test]
async fn dapr_run_starts_the_service_with_its_sidecar() {
    let mut stack = Stack::new();
    stack.start_kafka();
    let mut command = std::process::Command::new(tool("DAPR"));
    command
        .current_dir(stack.directory.path())
        .args(["run", "--app-id", "todo-backend", "--app-port", &stack.service_port().to_string()])
        .args(["--dapr-http-port", &stack.sidecar_port().to_string()])
        .args(["--metrics-port", &free_port().to_string()])
        .args(["--runtime-path", tool("DAPR_RUNTIME_PATH"), "--dapr-listen-addresses", "127.0.0.1"])
        .arg("--resources-path")
        .arg(stack.components())
        .arg("--")
        .arg(SERVICE)
        // What `dapr run` gives the app by itself is left to it; the port is the service's own setting.
        .env("PORT", stack.service_port().to_string());
    let mut cli = Process::start("dapr run", &mut command);
    cli.wait_for("You're up and running", PATIENCE);
    cli.wait_for("the Dapr sidecar at http://localhost:", PATIENCE);
    let user = stack.client("user", "user123").await;
    let id = user.create("through dapr run").await;
    let events = stack.events_until(|events| !events.is_empty()).await;
    assert_eq!((events[0].number("id"), &events[0].body["data"]["created_by"]), (id, &json!("user")));
    cli.wait_for("Event received from todos: todo.created", PATIENCE);
    cli.signal("INT");
    cli.wait(PATIENCE);
}

#[actix_web::test]
async fn an_event_that_the_service_cannot_take_goes_to_the_dead_letter_topic() {
    let stack = Stack::started();
    let http = http_client().build().unwrap();
    let url = format!("http://127.0.0.1:{}/v1.0/publish/kafka-pubsub/todos", stack.sidecar_port());
    let published = http
        .post(url)
        .header("content-type", "application/cloudevents+json")
        .body(r#"{"specversion":"1.0","id":"alien","source":"elsewhere","type":"alien"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(published.status(), 204);
    let dead = stack.topic_until("todos-dead-letter", |events| !events.is_empty()).await;
    assert_eq!(dead[0].text("id"), "alien");
}

#[test]
fn the_shipped_component_is_the_one_that_the_tests_use() {
    let shipped = std::fs::read_to_string(project().join("components/kafka-pubsub.yaml")).unwrap();
    assert_eq!(shipped.matches("\"localhost:9092\"").count(), 1, "the tests replace exactly the broker");
}
