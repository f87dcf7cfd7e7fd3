//! Requests that are sent again after the service was killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{length, seed};
use crate::order::versions_in_order;
use crate::stack::{Client, Event, Stack};

/// The status, the headers that belong to an answer, its body, and whether it was repeated.
pub type Answer = (u16, Vec<Option<String>>, String, bool);

/// Sends a change with its key.
pub async fn ask(client: &Client, method: &str, path: &str, body: &Value, key: &str) -> Result<Answer, reqwest::Error> {
    let answer = client.respond(method, path, Some(body.clone()), &[("Idempotency-Key", key)]).await?;
    let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let headers = ["etag", "location", "sync-token", "change-revision", "content-type"].map(header).to_vec();
    let (status, repeated) = (answer.status().as_u16(), header("idempotent-replayed").is_some());
    Ok((status, headers, String::from_utf8(answer.bytes().await?.to_vec()).unwrap(), repeated))
}

#[actix_web::test]
async fn every_change_is_answered_again_after_a_kill() {
    let mut stack = Stack::started();
    let client = stack.client("demo", "demo123").await;
    let mut ids = Vec::new();
    for title in ["put", "patch", "delete", "restore", "purge", "batch", "undo"] {
        ids.push(client.create(title).await);
    }
    for id in &ids[3..5] {
        assert_eq!(client.send("DELETE", &format!("/todos/{id}"), None).await.0, 204);
    }
    let cases = [
        ("POST", "/todos".to_owned(), json!({"title": "new"})),
        ("PUT", format!("/todos/{}", ids[0]), json!({"completed": true})),
        ("PATCH", format!("/todos/{}", ids[1]), json!({"tags_add": ["x"]})),
        ("DELETE", format!("/todos/{}", ids[2]), json!({})),
        ("POST", format!("/todos/{}/restore", ids[3]), json!({})),
        ("DELETE", format!("/trash/{}", ids[4]), json!({})),
        (
            "POST",
            "/batch".to_owned(),
            json!({"operations": [{"op": "delete", "id": ids[5]}, {"op": "create", "todo": {"title": "b"}}]}),
        ),
        // The last creation of the seven.
        ("POST", "/changes/7/undo".to_owned(), json!({})),
        ("POST", "/import".to_owned(), json!([{"title": "a"}, {"title": "b", "completed": true}])),
        ("DELETE", "/todos?completed=true".to_owned(), json!({})),
        ("DELETE", "/trash".to_owned(), json!({})),
    ];
    let mut firsts = Vec::new();
    for (method, path, body) in &cases {
        let first = ask(&client, method, path, body, "kept").await.unwrap();
        assert!((200..300).contains(&first.0) && !first.3, "{method} {path}: {first:?}");
        firsts.push(first);
    }
    stack.service().kill();
    stack.start_service();
    let client = stack.client("demo", "demo123").await;
    for ((method, path, body), first) in cases.iter().zip(firsts) {
        let again = ask(&client, method, path, body, "kept").await.unwrap();
        assert_eq!(again, (first.0, first.1, first.2, true), "{method} {path}");
    }
    stack.wait_until_published().await;
    // Seven created, two deleted; then a creation, two updates, a deletion, a restoration, the batch's two, an undo, two
    // that were imported and two that were deleted together.
    let changes = |events: &[Event]| versions_in_order(events).values().sum::<i64>();
    let events = stack.events_until(|events| changes(events) >= 21).await;
    assert_eq!(changes(&events), 21);
    assert!(stack.run_service(&["check"]).contains("is good"));
}

/// Sends each change again with its key until it is answered.
async fn insist(client: Client, number: usize, stop: Arc<AtomicBool>) -> (usize, usize) {
    let (mut made, mut repeated) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let title = format!("client {number} todo {made}");
        loop {
            match ask(&client, "POST", "/todos", &json!({ "title": title }), &title).await {
                Ok((201, _, _, was_repeated)) => {
                    repeated += usize::from(was_repeated);
                    break;
                }
                Ok((503, ..)) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(other) => panic!("{other:?}"),
            }
        }
        made += 1;
    }
    (made, repeated)
}

#[actix_web::test]
async fn whoever_insists_through_kills_gets_each_change_once() {
    let mut random = SmallRng::seed_from_u64(seed("retries"));
    let mut stack = Stack::started();
    let client = stack.client("demo", "demo123").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..16).map(|number| actix_web::rt::spawn(insist(client.clone(), number, Arc::clone(&stop)))).collect();
    for _ in 0..length(6, 60) {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..900))).await;
        stack.service().kill();
        stack.start_service();
    }
    stop.store(true, Ordering::Relaxed);
    let (mut expected, mut repeated) = (BTreeMap::new(), 0);
    for (number, of_client) in clients.into_iter().enumerate() {
        let (made, again) = of_client.await.unwrap();
        repeated += again;
        expected.extend((0..made).map(|todo| (format!("client {number} todo {todo}"), 1)));
    }
    let todos = client.send("GET", "/todos", None).await.1;
    let mut found = BTreeMap::new();
    for todo in todos.as_array().unwrap() {
        *found.entry(todo["title"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    println!("retries: {} changes, {repeated} of them answered again", expected.len());
    assert_eq!(found, expected);
    stack.wait_until_published().await;
    let events = stack.events_until(|events| versions_in_order(events).len() >= expected.len()).await;
    assert_eq!(versions_in_order(&events).len(), expected.len());
}
