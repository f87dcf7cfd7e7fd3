//! The subscription: Dapr delivers the topic back to the service, which writes one log line for each event
//! (<https://docs.dapr.io/reference/api/pubsub_api/#provide-routes-for-dapr-to-deliver-topic-events>).

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use super::http::{Endpoint, RawBody, content_type};
use super::state::AppState;
use crate::config::{Config, Secret};
use crate::domain::account::UserId;
use crate::domain::change::{Epoch, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::{TodoId, Version};
use crate::domain::validation::is_json;
use crate::events::dedupe::LastVersions;
use crate::events::event;
use crate::store::feed::{Delivery, Stage};

/// The route that Dapr delivers events to.
pub const ROUTE: &str = "/events/todos";
/// Largest event that is read, in bytes: above Kafka's limit of 1,000,000.
const MAX_EVENT_LEN: usize = 1 << 20;
/// Longest text about an event that is logged, in bytes: longer than any event of ours.
const MAX_LOGGED_LEN: usize = 64 << 10;

/// The subscription to the service's own topic.
pub struct Subscription {
    pubsub: String,
    topic: String,
    token: Option<Secret>,
    seen: Mutex<LastVersions>,
}

impl Subscription {
    /// Subscribes to the topic that the relay publishes to.
    pub fn new(config: &Config) -> Self {
        Self {
            pubsub: config.pubsub.clone(),
            topic: config.topic.clone(),
            token: config.app_api_token.clone(),
            seen: Mutex::default(),
        }
    }

    /// The topic for events that can't be delivered.
    pub fn dead_letter_topic(&self) -> String {
        format!("{}-dead-letter", self.topic)
    }
}

/// The routes that Dapr calls.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/dapr/subscribe").get(subscriptions).build())
        .service(Endpoint::new(ROUTE).body_limit(MAX_EVENT_LEN).post(deliver).build());
}

/// The subscriptions of this app. daprd asks once, as soon as the port accepts connections, so this must be served from
/// the start.
async fn subscriptions(state: web::Data<AppState>) -> HttpResponse {
    let subscription = &state.subscription;
    HttpResponse::Ok().json(json!([{
        "pubsubname": subscription.pubsub,
        "topic": subscription.topic,
        "route": ROUTE,
        "deadLetterTopic": subscription.dead_letter_topic(),
    }]))
}

/// The attributes of an event that the service reads.
#[derive(Deserialize)]
struct CloudEvent {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    time: Option<String>,
    data: Value,
}

/// Receives one event. Answers SUCCESS or DROP: after a 404, daprd drops the event silently; after other errors, it
/// delivers the event again.
async fn deliver(
    _: FromSidecar,
    state: web::Data<AppState>,
    body: Result<RawBody, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let body = match body {
        Ok(RawBody(body)) => body,
        Err(ApiError::PayloadTooLarge { limit }) => return Ok(dropped(&format!("it is larger than {limit} bytes"))),
        // The connection broke: daprd delivers again.
        Err(error) => return Err(error),
    };
    let event: CloudEvent = match serde_json::from_slice(&body) {
        Ok(event) => event,
        Err(error) => return Ok(dropped(&format!("it is not a CloudEvent of this service: {error}"))),
    };
    let todo = event::parse_todo(&event.source, event.subject.as_deref().unwrap_or_default());
    let version = event.data.get("version").and_then(Value::as_i64).map(Version);
    // Foreign events are accepted, but not remembered: their ids could be of any length.
    let new = todo
        .zip(version)
        .is_none_or(|((epoch, todo), version)| state.subscription.seen.lock().advance((epoch, todo), version));
    let topic = &state.subscription.topic;
    if new {
        tell_owner(&state, todo, &event.data).await;
        if let Some(at) = event.time.as_deref().and_then(Timestamp::parse) {
            let took = state.clock.now().0 - at.0;
            state.metrics.delivered(Duration::from_millis(u64::try_from(took).unwrap_or_default()));
        }
        log::info!(
            "Event received from {topic}: {}",
            truncated(&format!("{} {} {}", event.kind, event.id, event.data))
        );
    } else {
        log::debug!("Event received again from {topic}: {}", truncated(&format!("{} {}", event.kind, event.id)));
    }
    Ok(status("SUCCESS"))
}

/// Tells those who follow the owner of a todo that its event has come back, if it is one that the owner has or has in the trash.
async fn tell_owner(state: &AppState, todo: Option<(Epoch, TodoId)>, data: &Value) {
    let number = |name: &str| data.get(name).and_then(Value::as_i64);
    if let (Some((epoch, todo)), Some(owner), Some(revision)) = (todo, number("owner").map(UserId), number("revision"))
        && epoch == state.store.epoch()
        && state.store.has_todo(owner, todo).await.unwrap_or(false)
    {
        let delivered = Delivery { revision: Revision(revision), stage: Stage::Delivered, at: state.clock.now() };
        state.store.tell_delivery(owner, delivered);
    }
}

fn dropped(reason: &str) -> HttpResponse {
    log::warn!("an event was dropped: {}", truncated(reason));
    status("DROP")
}

/// The part of a text of unknown origin that may be logged.
fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOGGED_LEN)]
}

fn status(status: &'static str) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": status }))
}

/// A request from the sidecar, as far as can be known before its body is read: it has the sidecar's token, and is JSON.
struct FromSidecar;

impl FromRequest for FromSidecar {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(AppState::of(request).and_then(|state| check_sender(request, &state.subscription)).map(|()| Self))
    }
}

fn check_sender(request: &HttpRequest, subscription: &Subscription) -> Result<(), ApiError> {
    if !authorized(request, subscription.token.as_ref()) {
        log::warn!(
            "an event without the right dapr-api-token was refused: APP_API_TOKEN differs between service and sidecar"
        );
        return Err(ApiError::SidecarToken);
    }
    // Also keeps pages out: a browser sends JSON to another origin only after a preflight.
    if is_json(content_type(request)) { Ok(()) } else { Err(ApiError::NotJson) }
}

/// Whether the request carries the token that the sidecar is configured to send.
fn authorized(request: &HttpRequest, token: Option<&Secret>) -> bool {
    let Some(token) = token else { return true };
    let sent = request.headers().get("dapr-api-token").map(|value| value.as_bytes()).unwrap_or_default();
    sent.ct_eq(token.expose().as_bytes()).into()
}
