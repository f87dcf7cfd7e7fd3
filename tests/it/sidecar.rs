//! A sidecar in this process: keeps what the relay publishes, and refuses or holds what a test wants.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::dev::ServerHandle;
use actix_web::rt::time::timeout;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::app::PATIENCE;

/// An event as it was published, with what consumers and the tests look at.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    pub id: String,
    /// Such as `todo.created`.
    #[serde(rename = "type")]
    pub kind: String,
    pub data: Data,
    /// The header of that name.
    #[serde(skip)]
    pub traceparent: String,
    /// The Kafka key that the sidecar was asked to use.
    #[serde(skip)]
    pub partition_key: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Data {
    pub id: i64,
    pub title: String,
    pub description: Option<String>,
    pub owner: i64,
    #[serde(default)]
    pub created_by: String,
    pub actor: String,
    #[serde(default)]
    pub scrubbed: bool,
    pub version: i64,
    pub revision: i64,
    pub changed: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

#[derive(Default)]
struct State {
    /// Events that were answered 204, in that order.
    accepted: watch::Sender<Vec<Event>>,
    /// Todos whose events are answered 500.
    refused: Mutex<HashSet<i64>>,
    /// Events that are not answered while they are in it.
    held: watch::Sender<HashSet<String>>,
    /// Events that were not answered at once.
    waiting: Mutex<Vec<String>>,
    allows_repeats: AtomicBool,
}

pub struct Sidecar {
    pub url: String,
    state: Arc<State>,
    handle: ServerHandle,
}

impl Sidecar {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let data = web::Data::from(Arc::clone(&state));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/v1.0/publish/{pubsub}/{topic}", web::post().to(publish))
                .route("/v1.0/healthz/outbound", web::get().to(HttpResponse::NoContent))
                .route("/v1.0/metadata", web::get().to(metadata))
        });
        let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, state, handle }
    }

    /// The events that were accepted, in that order.
    pub fn accepted(&self) -> Vec<Event> {
        self.state.accepted.borrow().clone()
    }

    /// The same, by their ids.
    pub fn accepted_ids(&self) -> Vec<String> {
        self.state.accepted.borrow().iter().map(|event| event.id.clone()).collect()
    }

    /// Waits until all of these events are accepted.
    pub async fn accepts(&self, ids: &HashSet<String>) {
        let missing = |accepted: &[Event]| {
            let accepted: HashSet<&str> = accepted.iter().map(|event| event.id.as_str()).collect();
            ids.iter().filter(|id| !accepted.contains(id.as_str())).cloned().collect::<Vec<_>>()
        };
        let mut accepted = self.state.accepted.subscribe();
        let arrived = accepted.wait_for(|accepted| missing(accepted).is_empty());
        let in_time = timeout(PATIENCE, arrived).await.is_ok();
        assert!(in_time, "not published within {PATIENCE:?}: {:?}", missing(&self.accepted()));
    }

    pub fn is_waiting(&self, event: &str) -> bool {
        self.state.waiting.lock().unwrap().iter().any(|id| id == event)
    }

    /// Leaves this event without an answer until it is released. The service may give up and send it again.
    pub fn hold(&self, event: &str) {
        self.allow_repeats();
        self.state.held.send_modify(|held| _ = held.insert(event.to_owned()));
    }

    pub fn release(&self, event: &str) {
        self.state.held.send_modify(|held| _ = held.remove(event));
    }

    /// Answers every event of this todo with 500.
    pub fn refuse(&self, todo: i64) {
        self.state.refused.lock().unwrap().insert(todo);
    }

    pub fn accept(&self, todo: i64) {
        self.state.refused.lock().unwrap().remove(&todo);
    }

    /// From now on an event may be published more than once.
    pub fn allow_repeats(&self) {
        self.state.allows_repeats.store(true, Ordering::Relaxed);
    }

    pub fn allows_repeats(&self) -> bool {
        self.state.allows_repeats.load(Ordering::Relaxed)
    }

    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }
}

async fn publish(request: HttpRequest, body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    let mut event: Event = serde_json::from_slice(&body).unwrap();
    event.traceparent = request.headers().get("traceparent").unwrap().to_str().unwrap().to_owned();
    event.partition_key = request.query_string().strip_prefix("metadata.partitionKey=").unwrap().to_owned();
    let mut held = state.held.subscribe();
    if held.borrow_and_update().contains(&event.id) {
        state.waiting.lock().unwrap().push(event.id.clone());
        held.wait_for(|held| !held.contains(&event.id)).await.unwrap();
    }
    if state.refused.lock().unwrap().contains(&event.data.id) {
        return HttpResponse::InternalServerError().body("refused");
    }
    state.accepted.send_modify(|accepted| accepted.push(event));
    HttpResponse::NoContent().finish()
}

async fn metadata() -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "id": "todo-backend",
        "components": [{"name": "kafka-pubsub", "type": "pubsub.kafka", "version": "v1"}],
        "subscriptions": [{"pubsubname": "kafka-pubsub", "topic": "todos"}],
    }))
}
