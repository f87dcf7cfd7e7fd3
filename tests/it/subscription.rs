//! What the sidecar calls: `/dapr/subscribe` and `/events/todos`.

use serde_json::{Value, json};

use crate::app::{TestApp, with_app, with_settings};
use crate::client::{Answer, RequestExt};

const MIB: usize = 1 << 20;

fn event(id: i64, version: i64) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("{id}-{version}"),
        "source": "/todo-backend/000000000000001f",
        "type": "todo.created",
        "subject": format!("todos/{id}"),
        "time": "2025-01-15T10:30:00.123Z",
        "datacontenttype": "application/json",
        "pubsubname": "kafka-pubsub",
        "topic": "todos",
        "data": {"id": id, "title": "Learn", "version": version},
    })
}

async fn deliver(app: &TestApp, body: impl Into<reqwest::Body>) -> Answer {
    let call = app.post("/events/todos").header("Content-Type", "application/cloudevents+json");
    call.body(body).answer().await
}

#[track_caller]
fn assert_status(answer: &Answer, status: &str) {
    assert_eq!((answer.status, answer.json()), (200, json!({ "status": status })));
}

#[actix_web::test]
async fn dapr_is_told_the_topic_the_route_and_the_dead_letter_topic() {
    with_settings(&[("APP_API_TOKEN", "secret")], async |app| {
        let answer = app.get("/dapr/subscribe").answer().await;
        let topic = json!({
            "pubsubname": "kafka-pubsub",
            "topic": "todos",
            "route": "/events/todos",
            "deadLetterTopic": "todos-dead-letter",
        });
        assert_eq!((answer.status, answer.json()), (200, json!([topic])));
    })
    .await;
}

#[actix_web::test]
async fn the_subscription_follows_the_settings() {
    with_settings(&[("KAFKA_TOPIC", "tasks"), ("DAPR_PUBSUB_NAME", "bus")], async |app| {
        let topic = &app.get("/dapr/subscribe").answer().await.json()[0];
        assert_eq!((&topic["topic"], &topic["pubsubname"]), (&json!("tasks"), &json!("bus")));
        assert_eq!(topic["deadLetterTopic"], "tasks-dead-letter");
    })
    .await;
}

#[actix_web::test]
async fn events_are_taken_also_when_they_come_again_or_late() {
    with_app(async |app| {
        for (id, version) in [(1, 1), (1, 1), (1, 3), (1, 2), (2, 1), (1, 3)] {
            assert_status(&deliver(app, event(id, version).to_string()).await, "SUCCESS");
        }
        let mut without_version = event(3, 1);
        without_version["data"] = json!("text of somebody else");
        without_version.as_object_mut().unwrap().remove("subject");
        assert_status(&deliver(app, without_version.to_string()).await, "SUCCESS");
        assert!(app.published().await.is_empty(), "an event changes nothing");
    })
    .await;
}

#[actix_web::test]
async fn what_is_no_cloud_event_is_dropped() {
    with_app(async |app| {
        let mut bodies: Vec<Vec<u8>> =
            ["", "{", "null", "[]", "{}", "\"x\"", "\u{0}"].into_iter().map(|body| body.as_bytes().to_vec()).collect();
        for name in ["id", "source", "type", "data"] {
            let mut event = event(1, 1);
            event.as_object_mut().unwrap().remove(name);
            bodies.push(event.to_string().into_bytes());
        }
        bodies.push(event(1, 1).to_string().replace("\"1-1\"", "7").into_bytes());
        bodies.push(event(1, 1).to_string().replace("Learn", "\\ud800").into_bytes());
        bodies.push([event(1, 1).to_string().as_bytes(), &[0xff]].concat());
        bodies.push("[".repeat(100_000).into_bytes());
        for body in bodies {
            let text = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let answer = deliver(app, body).await;
            assert_eq!((answer.status, answer.json()), (200, json!({"status": "DROP"})), "{text}");
        }
    })
    .await;
}

#[actix_web::test]
async fn an_event_of_one_mebibyte_is_taken_and_a_larger_one_is_dropped() {
    with_app(async |app| {
        let mut event = event(1, 1).to_string();
        event.push_str(&" ".repeat(MIB - event.len()));
        assert_status(&deliver(app, event.clone()).await, "SUCCESS");
        assert_status(&deliver(app, format!("{event} ")).await, "DROP");
        let (head, end) = (
            "POST /events/todos HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        );
        let chunked = |body: &str| format!("{head}Connection: close\r\n\r\n{:x}\r\n{body}\r\n{end}", body.len());
        assert_status(&app.raw(chunked(&event)).await, "SUCCESS");
        assert_status(&app.raw(chunked(&format!("{event} "))).await, "DROP");
    })
    .await;
}

#[actix_web::test]
async fn an_event_that_is_not_sent_as_json_is_415() {
    with_app(async |app| {
        let body = event(1, 1).to_string();
        // What a page may send anywhere without being asked for a preflight, and nothing at all.
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"] {
            for body in [body.clone(), "{".to_owned(), " ".repeat(MIB + 1)] {
                let answer = app.post("/events/todos").header("Content-Type", kind).body(body).answer().await;
                answer.assert_refused(415, "Content-Type must be application/cloudevents+json or application/json");
                assert_eq!(answer.header("accept"), Some("application/cloudevents+json, application/json"), "{kind}");
            }
        }
        for kind in ["application/cloudevents+json; charset=utf-8", "application/json", "Application/JSON"] {
            let answer = app.post("/events/todos").header("Content-Type", kind).body(body.clone()).answer().await;
            assert_status(&answer, "SUCCESS");
        }
    })
    .await;
}

#[actix_web::test]
async fn only_the_sidecar_with_the_right_token_is_heard() {
    with_settings(&[("APP_API_TOKEN", "right-token")], async |app| {
        let body = event(1, 1).to_string();
        for sent in [None, Some(""), Some("wrong"), Some("right-toke"), Some("right-tokens"), Some("Right-Token")] {
            for body in [body.clone(), "{".to_owned(), " ".repeat(MIB + 1)] {
                let call = app.post("/events/todos").body(body);
                let call = if let Some(token) = sent { call.header("dapr-api-token", token) } else { call };
                let answer = call.answer().await;
                answer.assert_refused(401, "Invalid or missing dapr-api-token");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{sent:?}");
            }
        }
        let call = app.post("/events/todos").header("dapr-api-token", "right-token");
        assert_status(&call.json_bytes(body).answer().await, "SUCCESS");
    })
    .await;
}

#[actix_web::test]
async fn a_users_token_does_not_open_the_subscription() {
    with_settings(&[("APP_API_TOKEN", "right-token")], async |app| {
        let call = app.post("/events/todos").bearer_auth(app.token("admin"));
        call.send_json(event(1, 1)).await.assert_refused(401, "Invalid or missing dapr-api-token");
    })
    .await;
}
