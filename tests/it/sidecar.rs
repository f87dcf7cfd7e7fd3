//! A sidecar in this process: takes what the relay publishes, and refuses or holds what a test wants.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::Value;
use tokio::sync::watch;

use crate::app::TestApp;

#[derive(Default)]
struct State {
    /// Ids of events in the order in which they were accepted.
    accepted: Mutex<Vec<String>>,
    /// Todos whose events are answered 500.
    refused: Mutex<HashSet<i64>>,
    /// Events that are not answered while they are in it.
    held: watch::Sender<HashSet<String>>,
    /// Events that were not answered at once.
    waiting: Mutex<Vec<String>>,
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
                .route("/v1.0/publish/kafka-pubsub/todos", web::post().to(publish))
                .route("/v1.0/healthz/outbound", web::get().to(HttpResponse::NoContent))
        });
        let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Self { url, state, handle }
    }

    /// A service that publishes here.
    pub fn app(&self) -> TestApp {
        TestApp::with(&[("DAPR_HTTP_ENDPOINT", self.url.as_str())])
    }

    /// Ids of events in the order in which they were accepted.
    pub fn accepted(&self) -> Vec<String> {
        self.state.accepted.lock().unwrap().clone()
    }

    pub fn is_waiting(&self, event: &str) -> bool {
        self.state.waiting.lock().unwrap().iter().any(|id| id == event)
    }

    /// Leaves this event without an answer until it is released.
    pub fn hold(&self, event: &str) {
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

    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

async fn publish(body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    let event: Value = serde_json::from_slice(&body).unwrap();
    let (id, todo) = (event["id"].as_str().unwrap().to_owned(), event["data"]["id"].as_i64().unwrap());
    let mut held = state.held.subscribe();
    if held.borrow_and_update().contains(&id) {
        state.waiting.lock().unwrap().push(id.clone());
        held.wait_for(|held| !held.contains(&id)).await.unwrap();
    }
    if state.refused.lock().unwrap().contains(&todo) {
        return HttpResponse::InternalServerError().body("refused");
    }
    state.accepted.lock().unwrap().push(id);
    HttpResponse::NoContent().finish()
}
