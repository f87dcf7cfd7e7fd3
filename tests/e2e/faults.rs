//! Parts that start late, die and come back: nothing acknowledged is lost, and order holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::order::{all_arrived, versions_in_order};
use crate::stack::{Client, PATIENCE, Stack};

/// Makes a few todos and changes each several times; returns how many changes each todo has.
async fn some_changes(client: &Client, acknowledged: &mut BTreeMap<i64, i64>) {
    for title in 0..5 {
        let id = client.create(&format!("todo {title}")).await;
        acknowledged.insert(id, 1);
    }
    for round in 0..3 {
        for (id, version) in acknowledged.iter_mut() {
            let body = json!({"title": format!("round {round}"), "completed": round % 2 == 0});
            assert_eq!(client.send("PUT", &format!("/todos/{id}"), Some(body)).await.0, 200);
            *version += 1;
        }
    }
}

#[actix_web::test]
async fn nothing_is_missing_when_sidecar_and_service_die_in_between() {
    let mut acknowledged = BTreeMap::new();
    // The service is there before its sidecar.
    let mut stack = Stack::new();
    stack.start_service();
    stack.service().wait_for("no Dapr sidecar at http://localhost:", PATIENCE);
    let client = stack.client("admin", "admin123").await;
    some_changes(&client, &mut acknowledged).await;
    stack.start_kafka();
    stack.start_sidecar();
    stack.service().wait_for("publishing works again", PATIENCE);
    some_changes(&client, &mut acknowledged).await;
    stack.events_until(|events| all_arrived(events, &acknowledged)).await;
    // The sidecar dies, changes go on, it comes back.
    stack.sidecar().kill();
    some_changes(&client, &mut acknowledged).await;
    stack.start_sidecar();
    some_changes(&client, &mut acknowledged).await;
    // The service dies at once after an answer and comes back after its sidecar.
    some_changes(&client, &mut acknowledged).await;
    stack.service().kill();
    stack.start_service();
    some_changes(&stack.client("admin", "admin123").await, &mut acknowledged).await;

    let events = stack.events_until(|events| all_arrived(events, &acknowledged)).await;
    assert_eq!(versions_in_order(&events), acknowledged);
    let (status, todos) = stack.client("admin", "admin123").await.send("GET", "/todos", None).await;
    assert_eq!((status, todos.as_array().unwrap().len()), (200, acknowledged.len()));
}

#[actix_web::test]
async fn a_wrong_dapr_api_token_is_reported_and_recovered_from() {
    let mut stack = Stack::new();
    stack.sidecar_env = vec![("DAPR_API_TOKEN", "right".into()), ("APP_API_TOKEN", "for-the-app".into())];
    stack.service_env = vec![("DAPR_API_TOKEN", "wrong".into()), ("APP_API_TOKEN", "for-the-app".into())];
    stack.start_kafka();
    stack.start_sidecar();
    stack.start_service();
    let id = stack.client("demo", "demo123").await.create("waits for the right token").await;
    let line = stack.service().wait_for("cannot publish event", PATIENCE);
    assert!(line.contains("set DAPR_API_TOKEN") && line.contains("401"), "{line}");
    assert!(!line.contains("wrong") && !line.contains("right"), "a token is in the log: {line}");
    stack.service().kill();
    stack.service_env[0].1 = "right".into();
    stack.start_service();
    let events = stack.events_until(|events| !events.is_empty()).await;
    assert_eq!(versions_in_order(&events), BTreeMap::from([(id, 1)]));
    stack.service().wait_for("Event received from todos: todo.created", PATIENCE);
}

#[actix_web::test]
async fn sigterm_ends_with_status_0_and_leaves_nothing_behind() {
    let mut stack = Stack::started();
    let client = stack.client("admin", "admin123").await;
    let mut acknowledged = BTreeMap::new();
    some_changes(&client, &mut acknowledged).await;
    stack.events_until(|events| all_arrived(events, &acknowledged)).await;
    stack.service().signal("TERM");
    assert_eq!(stack.service().wait(Duration::from_secs(30)).code(), Some(0));
    stack.start_service();
    let line = stack.service().wait_for("events to publish", PATIENCE);
    assert!(line.contains(", 0 events to publish"), "the final marks are stored: {line}");
}
