//! The subscription: Dapr delivers the topic back to the service, which writes one log line for each event
//! (<https://docs.dapr.io/reference/api/pubsub_api/#provide-routes-for-dapr-to-deliver-topic-events>).

use std::collections::HashMap;
use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::event;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Secret};
use crate::error::ApiError;
use crate::http::{Endpoint, RawBody, content_type};
use crate::metrics::Metrics;
use crate::todos::model::TodoId;
use crate::validation::is_json;

/// Where Dapr delivers.
pub const ROUTE: &str = "/events/todos";
/// Largest event that is read, in bytes: above Kafka's limit of 1,000,000.
const MAX_EVENT: usize = 1 << 20;
/// Longest text about an event that is logged, in bytes: more than any todo makes.
const MAX_SHOWN: usize = 64 << 10;
/// Todos whose last version is remembered: at least this many, at most twice as many.
const REMEMBERED: usize = 50_000;

/// What the subscription knows.
pub struct Subscription {
    pubsub: String,
    topic: String,
    token: Option<Secret>,
    seen: Mutex<Seen>,
}

impl Subscription {
    /// The subscription to the topic that the relay publishes to.
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
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::at("/dapr/subscribe").get(subscriptions).done())
        .service(Endpoint::at(ROUTE).body_limit(MAX_EVENT).post(deliver).done());
}

/// Tells daprd what to deliver and where. daprd asks once: it must be answered from the first connection on.
async fn subscriptions(subscription: web::Data<Subscription>) -> HttpResponse {
    HttpResponse::Ok().json(json!([{
        "pubsubname": subscription.pubsub,
        "topic": subscription.topic,
        "route": ROUTE,
        "deadLetterTopic": subscription.dead_letter_topic(),
    }]))
}

/// The parts of an event that are looked at.
#[derive(Deserialize)]
struct Delivered {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    time: Option<String>,
    data: Value,
}

/// Takes one event. Answers SUCCESS or DROP: any 404 would be dropped silently, other codes are delivered again.
async fn deliver(
    _: FromSidecar,
    subscription: web::Data<Subscription>,
    metrics: web::Data<Metrics>,
    clock: web::Data<Clock>,
    body: Result<RawBody, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let body = match body {
        Ok(RawBody(body)) => body,
        Err(ApiError::PayloadTooLarge { limit }) => return Ok(dropped(&format!("it is larger than {limit} bytes"))),
        // The connection broke: daprd delivers again.
        Err(error) => return Err(error),
    };
    let event: Delivered = match serde_json::from_slice(&body) {
        Ok(event) => event,
        Err(problem) => return Ok(dropped(&format!("it is no CloudEvent of this service: {problem}"))),
    };
    let todo = event::parse_todo(&event.source, event.subject.as_deref().unwrap_or_default());
    let version = event.data.get("version").and_then(Value::as_i64);
    // What is not ours is taken, and not remembered: its texts could be of any length.
    let new = todo
        .zip(version)
        .is_none_or(|((epoch, todo), version)| subscription.seen.lock().advance((epoch.0, todo), version));
    if new {
        if let Some(at) = event.time.as_deref().and_then(Timestamp::parse) {
            metrics.delivered(Duration::from_millis(u64::try_from(clock.now().0 - at.0).unwrap_or_default()));
        }
        let topic = &subscription.topic;
        log::info!("Event received from {topic}: {}", shown(&format!("{} {} {}", event.kind, event.id, event.data)));
    } else {
        let topic = &subscription.topic;
        log::debug!("Event received again from {topic}: {}", shown(&format!("{} {}", event.kind, event.id)));
    }
    Ok(status("SUCCESS"))
}

fn dropped(why: &str) -> HttpResponse {
    log::warn!("an event was dropped: {}", shown(why));
    status("DROP")
}

/// The beginning of a text that somebody else has written.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_SHOWN)]
}

fn status(status: &'static str) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": status }))
}

/// A request of the sidecar, as far as that can be told before its body is read: it has the sidecar's token, and is JSON.
struct FromSidecar;

impl FromRequest for FromSidecar {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let subscription = request.app_data::<web::Data<Subscription>>();
        if !authorized(request, subscription.and_then(|subscription| subscription.token.as_ref())) {
            log::warn!(
                "an event without the right dapr-api-token was refused: APP_API_TOKEN differs between service and sidecar"
            );
            return ready(Err(ApiError::SidecarToken));
        }
        // Also keeps pages out: a browser sends JSON to another origin only after a preflight.
        ready(if is_json(content_type(request)) { Ok(Self) } else { Err(ApiError::NotJson) })
    }
}

/// Whether the request carries the token that the sidecar was told to send.
fn authorized(request: &HttpRequest, token: Option<&Secret>) -> bool {
    let Some(token) = token else { return true };
    let sent = request.headers().get("dapr-api-token").map(|value| value.as_bytes()).unwrap_or_default();
    sent.ct_eq(token.expose().as_bytes()).into()
}

/// Epoch and id.
type Key = (u64, TodoId);

/// The last version seen of each todo. Bounded: the ones that were not heard of for longest are forgotten,
/// in two generations.
#[derive(Default)]
struct Seen {
    young: HashMap<Key, i64>,
    old: HashMap<Key, i64>,
}

impl Seen {
    /// Notes a version; false if it is not newer than the last one.
    fn advance(&mut self, key: Key, version: i64) -> bool {
        let last = self.young.get(&key).or_else(|| self.old.get(&key)).copied();
        if last.is_some_and(|last| version <= last) {
            return false;
        }
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, version);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_newer_versions_are_new() {
        let mut seen = Seen::default();
        let news: Vec<bool> = [1, 1, 2, 1, 4, 3, 5].into_iter().map(|version| seen.advance((1, 1), version)).collect();
        assert_eq!(news, [true, false, true, false, true, false, true]);
        assert!(seen.advance((2, 1), 1), "another epoch has its own versions");
    }

    #[test]
    fn memory_is_bounded_and_the_latest_are_kept() {
        let mut seen = Seen::default();
        let remembered = REMEMBERED as TodoId;
        for todo in 0..5 * remembered {
            assert!(seen.advance((1, todo), 1));
        }
        assert!(seen.young.len() + seen.old.len() <= 2 * REMEMBERED);
        assert!(!seen.advance((1, 5 * remembered - 1), 1));
        assert!(!seen.advance((1, 4 * remembered), 1));
    }
}
