//! `GET /events`: what happens, as it happens.

mod frames;
mod stream;

use actix_web::http::Method;
use actix_web::http::header::{CACHE_CONTROL, HeaderName, VARY};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{empty, unfold};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::parse_token;
use crate::api::error::ApiError;
use crate::api::responses::{Invalid, TooManyStreams, Unauthenticated};
use crate::api::state::AppState;
use crate::api::user::AuthUser;
use crate::connection::EVENT_STREAM;
use crate::domain::sync_token::SyncToken;
use crate::domain::validation::{Query, ValidationError, both};
use stream::Live;

/// Streams of a user at the same time.
pub const MAX_STREAMS: usize = 32;

/// Where a client goes on: what it sends when it connects again.
const LAST_EVENT_ID: &str = "last-event-id";
/// Asks nginx, and proxies that do likewise, to pass on what there is.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Where a client is, and what it wants to hear.
// Parsed parameter by parameter.
#[allow(dead_code, reason = "for the document")]
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StreamParameters {
    /// The `Sync-Token` of what the client has; none: only what happens from now on. `Last-Event-ID` counts more.
    #[param(required = false)]
    since: String,
    /// `true`: also `delivery` events, about how far each change's event has come.
    #[param(required = false)]
    delivery: bool,
}

/// One of the events of a stream, as browsers read it.
#[allow(dead_code, reason = "for the document")]
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "9f86d081884c7d65-13", "event": "deleted",
    "data": r#"{"revision":13,"event":"deleted","id":1,"etag":null,"at":"2025-01-16T08:00:00.000Z","todo":null}"#,
}))]
pub struct ServerSentEvent {
    /// A `Sync-Token`; empty: none counts any more.
    #[schema(required = false)]
    id: String,
    /// What it is.
    event: String,
    /// JSON.
    data: String,
    /// How long to wait before connecting again, in milliseconds.
    #[schema(required = false, minimum = 0)]
    retry: u32,
}

/// Follows what changes.
///
/// Server-sent events. The token is sent as in all requests, in `Authorization`: read the stream with `fetch`, not with
/// `EventSource`. The `id` of an event is a `Sync-Token`; whoever connects again with it, as `Last-Event-ID` or `since`, misses nothing.
///
/// * `ready` comes first, or `reset`. Its data: `{"head": TOKEN}`, how far the user's changes have come. What the client has missed follows.
/// * `created`, `updated`, `deleted`, `restored`: a change. Its data: an entry of `GET /changes`.
/// * `heartbeat` every 15 seconds, except while the client catches up. Where nothing comes for 35 seconds, the connection is dead: connect again.
/// * `reset`: there is a gap, as where `GET /changes` answers 410. Its data: `{"reason": "pruned" | "foreign" | "ahead"}`. Start over with `GET /todos`.
/// * `end`: the stream ends. Its data: `{"reason": "token_expired" | "token_ended" | "shutdown" | "unavailable"}`. Connect again; where it is about the token, with a fresh one.
/// * `delivery`, if that was asked for: `{"revision", "published_at"}` or `{"revision", "delivered_at"}`. On a best effort.
#[utoipa::path(
    get, path = "/events", tag = "changes", operation_id = "followChanges", security(("bearer" = []), ("password" = [])),
    params(
        StreamParameters,
        ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event that the client has applied."),
    ),
    responses(
        (
            status = 200, description = "Events, as long as the client reads them.",
            content((ServerSentEvent = "text/event-stream"))
        ),
        Unauthenticated, Invalid, TooManyStreams,
    )
)]
pub async fn follow(
    user: AuthUser,
    method: Method,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let since = position(&request, &query);
    let with_delivery = query.boolean("delivery").unwrap_or(false);
    let (since, ()) = both(since, query.finish())?;
    let mut response = HttpResponse::Ok();
    response
        .content_type(EVENT_STREAM)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((X_ACCEL_BUFFERING, "no"))
        .append_header((VARY, "Authorization"));
    if method == Method::HEAD {
        return Ok(response.streaming(empty::<Result<Bytes, ApiError>>()));
    }
    let slot = state.streams.begin(user.user.id).ok_or(ApiError::TooManyStreams { limit: MAX_STREAMS })?;
    let live = Live::begin(state.into_inner(), request, user, slot, since, with_delivery).await?;
    Ok(response.streaming(unfold(live, |mut live| async { Some((Ok::<_, ApiError>(live.next().await?), live)) })))
}

/// Where the client is, if it says so.
fn position(request: &HttpRequest, query: &Query) -> Result<Option<SyncToken>, Vec<ValidationError>> {
    let ids = request.headers().get_all(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()));
    // Of several, none counts: together, they are no token.
    let id = ids.filter(|id| !id.is_empty()).collect::<Vec<_>>().join(", ");
    let token = match (Some(id).filter(|id| !id.is_empty()), query.last("since")) {
        (Some(id), _) => parse_token(&id, &["header", "Last-Event-ID"]),
        (None, Some(since)) => parse_token(&since, &["query", "since"]),
        (None, None) => return Ok(None),
    };
    token.map(Some)
}
