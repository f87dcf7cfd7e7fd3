//! Events that are refused for ever. The real daprd can't be made to refuse one event of ours and take the others, so
//! a proxy stands before it here; everything that it lets through goes to the real daprd and the real Kafka.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use todo_backend::events::dapr::http_client;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use crate::stack::{Client, Event, PATIENCE, Stack};

/// What the proxy does with the events of some todos.
#[derive(Clone, Default)]
struct Proxy {
    /// Answered 500.
    refused: Arc<Mutex<BTreeSet<i64>>>,
    /// Not answered in time.
    held: Arc<Mutex<BTreeSet<i64>>>,
}

async fn forward(
    request: HttpRequest,
    body: web::Bytes,
    proxy: web::Data<Proxy>,
    target: web::Data<(reqwest::Client, String)>,
) -> HttpResponse {
    let todo = serde_json::from_slice::<Value>(&body).ok().and_then(|event| event["data"]["id"].as_i64());
    if todo.is_some_and(|todo| proxy.refused.lock().unwrap().contains(&todo)) {
        return HttpResponse::InternalServerError().body("refused by the test");
    }
    if todo.is_some_and(|todo| proxy.held.lock().unwrap().contains(&todo)) {
        // Longer than the relay waits.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let (http, sidecar) = &**target;
    let method = request.method().as_str().parse().unwrap();
    let mut forwarded = http.request(method, format!("{sidecar}{}", request.uri()));
    for name in ["content-type", "traceparent", "dapr-api-token"] {
        if let Some(value) = request.headers().get(name) {
            forwarded = forwarded.header(name, value.as_bytes());
        }
    }
    match forwarded.body(body.to_vec()).send().await {
        Ok(response) => {
            let status = actix_web::http::StatusCode::from_u16(response.status().as_u16()).unwrap();
            HttpResponse::build(status).body(response.bytes().await.unwrap_or_default())
        }
        Err(_) => HttpResponse::BadGateway().finish(),
    }
}

/// A running stack whose service reaches its sidecar through the proxy.
fn started() -> (Stack, Proxy) {
    let mut stack = Stack::new();
    let proxy = Proxy::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (data, http) = (web::Data::new(proxy.clone()), http_client().build().unwrap());
    let target = web::Data::new((http, format!("http://127.0.0.1:{}", stack.sidecar_port())));
    let server = HttpServer::new(move || {
        App::new().app_data(data.clone()).app_data(target.clone()).default_service(web::to(forward))
    });
    actix_web::rt::spawn(server.workers(1).disable_signals().listen(listener).unwrap().run());
    stack.service_env = vec![("DAPR_HTTP_ENDPOINT", format!("http://{address}"))];
    stack.start_kafka();
    stack.start_sidecar();
    stack.start_service();
    (stack, proxy)
}

async fn rename(client: &Client, id: i64, title: &str) {
    let (status, body) = client.send("PUT", &format!("/todos/{id}"), Some(json!({ "title": title }))).await;
    assert_eq!(status, 200, "{body}");
}

/// Keeps good todos changing until `count` events are parked; returns the list of them.
async fn until_parked(client: &Client, good: &[i64], count: usize) -> Value {
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        for id in good {
            rename(client, *id, "a good one changes").await;
        }
        let (status, parked) = client.send("GET", "/admin/events/parked", None).await;
        assert_eq!(status, 200, "{parked}");
        if parked.as_array().unwrap().len() == count {
            return parked;
        }
        assert!(Instant::now() < deadline, "not parked: {parked}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The versions of a todo's events, in the order in which they came.
fn versions(events: &[Event], todo: i64) -> Vec<i64> {
    events.iter().filter(|event| event.number("id") == todo).map(|event| event.number("version")).collect()
}

async fn metric(client: &Client, name: &str) -> i64 {
    let text = client.text("/metrics").await;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).split(' ').nth(1).unwrap().parse().unwrap()
}

#[actix_web::test]
async fn a_poison_event_parks_alone_until_an_operator_decides() {
    let (mut stack, proxy) = started();
    let admin = stack.client("admin", "admin123").await;
    let (poison, skipped) = (admin.create("poison").await, admin.create("given up").await);
    stack.wait_until_published().await;
    let good = [admin.create("good").await, admin.create("good too").await];
    proxy.refused.lock().unwrap().extend([poison, skipped]);
    for id in [poison, skipped] {
        rename(&admin, id, "refused").await;
        rename(&admin, id, "waits behind it").await;
    }
    let parked = until_parked(&admin, &good, 2).await;
    let ids: Vec<_> = parked.as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [format!("{poison}-2"), format!("{skipped}-2")]);
    assert_eq!(metric(&admin, "todo_backend_outbox_parked_events").await, 2);
    let user = stack.client("user", "user123").await;
    assert_eq!(user.send("GET", "/admin/events/parked", None).await.0, 403);

    // Parked stays parked over a restart, and everybody else's events flow.
    stack.service().kill();
    stack.start_service();
    let admin = stack.client("admin", "admin123").await;
    rename(&admin, good[0], "after the restart").await;
    let last = |events: &[Event]| events.iter().any(|event| event.body["data"]["title"] == "after the restart");
    let events = stack.events_until(last).await;
    assert_eq!((versions(&events, poison), versions(&events, skipped)), (vec![1], vec![1]));
    assert_eq!(admin.send("GET", "/admin/events/parked", None).await.1.as_array().unwrap().len(), 2);

    // The cause is gone: one is retried, the other given up.
    proxy.refused.lock().unwrap().clear();
    let path = |id: i64, action: &str| format!("/admin/events/{id}-2/{action}");
    assert_eq!(admin.send("POST", &path(poison, "retry"), None).await, (200, json!({ "events": 1 })));
    assert_eq!(admin.send("POST", &path(skipped, "skip"), None).await, (200, json!({ "events": 1 })));
    assert_eq!(admin.send("POST", &path(skipped, "retry"), None).await.0, 404);
    let all = |events: &[Event]| versions(events, poison).contains(&3) && versions(events, skipped).contains(&3);
    let events = stack.events_until(all).await;
    assert_eq!((versions(&events, poison), versions(&events, skipped)), (vec![1, 2, 3], vec![1, 3]));
    stack.wait_until_published().await;
    assert_eq!(metric(&admin, "todo_backend_outbox_parked_events").await, 0);

    // Everything again, for a consumer that lost it: all but the one that was given up.
    let body = json!({ "username": "admin", "from_revision": 1 });
    let (status, answer) = admin.send("POST", "/admin/events/republish", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    stack.wait_until_published().await;
    let again = |events: &[Event]| versions(events, poison).len() == 6 && versions(events, skipped).len() == 4;
    let events = stack.events_until(again).await;
    assert_eq!(versions(&events, poison), [1, 2, 3, 1, 2, 3]);
    assert_eq!(versions(&events, skipped), [1, 3, 1, 3]);
}

#[actix_web::test]
async fn an_event_without_an_answer_is_sent_again_and_never_parked() {
    let (mut stack, proxy) = started();
    let admin = stack.client("admin", "admin123").await;
    let slow = admin.create("slow").await;
    stack.wait_until_published().await;
    proxy.held.lock().unwrap().insert(slow);
    rename(&admin, slow, "no answer").await;
    stack.service().wait_for("no answer in time", PATIENCE);
    proxy.held.lock().unwrap().clear();
    let events = stack.events_until(|events| versions(events, slow).contains(&2)).await;
    assert_eq!(versions(&events, slow), [1, 2]);
    assert_eq!(admin.send("GET", "/admin/events/parked", None).await, (200, json!([])));
}
