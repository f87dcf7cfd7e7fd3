//! Limits of requests, and how an answer explains one (draft-ietf-httpapi-ratelimit-headers-10).

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, RETRY_AFTER};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponseBuilder, web};

use super::dapr;
use super::error::ApiError;
use super::state::AppState;
use crate::auth::limits::Limited;

/// What the limit is.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of it.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Middleware: limits requests by address. Not those of probes and of the sidecar, which are exempt by their routes.
pub async fn limit_addresses(
    state: web::Data<AppState>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let network = if is_exempt(request.path()) {
        None
    } else {
        state.proxies.report(request.request());
        state.proxies.client(request.request()).network
    };
    match network.map_or(Ok(()), |network| state.limits.request_from(network)) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(limited) => Ok(request.error_response(refuse(&state, limited)).map_into_right_body()),
    }
}

/// Counts that a limit was reached.
pub(super) fn refuse(state: &AppState, limited: Limited) -> ApiError {
    state.metrics.rate_limited(limited.policy);
    ApiError::Limited(limited)
}

fn is_exempt(path: &str) -> bool {
    matches!(path, "/health" | "/health/live" | "/health/ready" | "/metrics" | "/dapr/subscribe" | dapr::ROUTE)
}

/// Adds what the limit is and when to try again.
pub(super) fn explain(response: &mut HttpResponseBuilder, limited: &Limited) {
    let Limited { policy, quota, window, retry_after } = limited;
    response
        .insert_header((RETRY_AFTER, retry_after.to_string()))
        .insert_header((RATELIMIT_POLICY, format!("\"{policy}\";q={quota};w={window}")))
        .insert_header((RATELIMIT, format!("\"{policy}\";r=0;t={retry_after}")));
}
