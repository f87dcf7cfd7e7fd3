//! One log line for each request, and its `X-Request-Id`.

use std::sync::Arc;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use log::Level;

use super::error::{limit, log_fault};
use super::state::AppState;
use crate::telemetry::metrics::method_name;

/// The header that carries a request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest request id that is accepted from a client, in bytes.
const MAX_ID_LEN: usize = 128;

/// The username of the account that makes the request: the extractor leaves it here for the log line.
pub struct Actor(pub Arc<str>);

/// The request's id, for lines about it in other logs.
pub struct RequestId(pub HeaderValue);

/// Middleware: logs method, route template, status, duration, user and request id. Never the query: older clients send
/// passwords in it.
pub async fn access_log(
    state: web::Data<AppState>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = Instant::now();
    let sent = request.headers().get(&X_REQUEST_ID).filter(|id| is_acceptable(id)).cloned();
    let id = sent.unwrap_or_else(random_id);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.call(request).await?;
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    let (request, took) = (response.request(), started.elapsed());
    let method = method_name(request.method().as_str());
    let (template, status) = (request.match_pattern(), response.status().as_u16());
    let (route, request_id) = (template.as_deref().unwrap_or("-"), id.to_str().unwrap_or_default());
    log_fault(response.response(), method, route, request_id);
    // Probes come every few seconds: their lines would drown all others.
    let probe = request.path().starts_with("/health") || request.path() == "/metrics";
    let level = if probe { Level::Debug } else { Level::Info };
    if log::log_enabled!(level) {
        let extensions = request.extensions();
        let user = extensions.get::<Actor>().map_or("-", |actor| actor.0.as_ref());
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let (whole, tenth) = (us / 1000, us / 100 % 10);
        let limit = limit(response.response());
        // Who is limited by address can be seen nowhere else.
        let address = limit.and(state.proxies.client(request).address).map(|address| address.to_string());
        let (limit, address) = (limit.unwrap_or_default(), address.as_deref().unwrap_or_default());
        let more = if limit.is_empty() { String::new() } else { format!(" limit={limit} address={address}") };
        log::log!(
            level, method, route, status, ms = us as f64 / 1e3, user, request_id, limit, address;
            "{method} {route} {status} {whole}.{tenth}ms user={user} request_id={request_id}{more}"
        );
    }
    state.metrics.request(method, template, status, took);
    Ok(response)
}

/// Letters, digits and common separators: an id from a client can't inject anything into a log.
fn is_acceptable(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    let allowed =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=');
    (1..=MAX_ID_LEN).contains(&id.len()) && id.iter().all(allowed)
}

fn random_id() -> HeaderValue {
    let id: u128 = rand::random();
    HeaderValue::try_from(format!("{id:032x}")).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_accepted() {
        for (id, accepted) in [("abc-123", true), ("", false), ("a b", false), ("a\"b", false), ("{}", false)] {
            assert_eq!(is_acceptable(&HeaderValue::from_str(id).unwrap()), accepted, "{id:?}");
        }
        assert!(is_acceptable(&HeaderValue::from_str(&"a".repeat(128)).unwrap()));
        assert!(!is_acceptable(&HeaderValue::from_str(&"a".repeat(129)).unwrap()));
        assert!(is_acceptable(&random_id()));
    }
}
