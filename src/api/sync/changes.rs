//! `GET /changes`: what a client has missed.

use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::entry::Entry;
use super::{MAX_LIMIT, SYNC_TOKEN, limit, parse_token};
use crate::api::caching::private;
use crate::api::error::ApiError;
use crate::api::responses::{Invalid, LogUnavailable, SyncGap, TooManyLists, Unauthenticated};
use crate::api::state::AppState;
use crate::api::user::AuthUser;
use crate::domain::sync_token::SyncToken;
use crate::domain::validation::{Query, ValidationError, both};

/// Where a client is, and what it wants.
// Parsed parameter by parameter.
#[allow(dead_code, reason = "for the document")]
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ChangesParameters {
    /// The `Sync-Token` of what the client has.
    since: String,
    /// Changes, at most. There can be fewer although there are more to come.
    #[param(required = false, minimum = 1, maximum = 1000, default = 1000)]
    limit: u16,
    /// `true`: of several changes of a todo, only the last one.
    #[param(required = false)]
    net: bool,
}

/// Changes that a client has missed.
#[derive(Serialize, ToSchema)]
pub struct Changes {
    /// In their order.
    changes: Vec<Entry>,
    /// The token of what the client has when it has applied them: its next `since`.
    #[schema(value_type = String, example = "9f86d081884c7d65-13")]
    next: SyncToken,
    /// Whether there are more: then ask again at once.
    has_more: bool,
}

/// Lists what has changed.
///
/// Each entry has the todo after the change: to apply it is to put the todo in the place of the one with its `id`, or to remove
/// that one. A client that has a list and its `Sync-Token`, and has applied all changes since, has what `GET /todos` answers.
///
/// Where the changes after `since` are not all in the log any more, the answer is 410: start over with `GET /todos`.
#[utoipa::path(
    get, path = "/changes", tag = "changes", operation_id = "listChanges", security(("bearer" = []), ("password" = [])),
    params(ChangesParameters),
    responses(
        (
            status = 200, description = "What has changed.", body = Changes,
            headers(("Sync-Token" = String, description = "The same as `next`."))
        ),
        Unauthenticated, SyncGap, Invalid, TooManyLists, LogUnavailable,
    )
)]
pub async fn list(
    AuthUser { user, .. }: AuthUser,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let since = match query.last("since") {
        None => Err(vec![ValidationError::missing(&["query", "since"], Value::Null)]),
        Some(text) => parse_token(&text, &["query", "since"]),
    };
    let most = limit(query.integer("limit", 1..=MAX_LIMIT));
    let net = query.boolean("net").unwrap_or(false);
    let (since, ()) = both(since, query.finish())?;
    let page = state.turns.during(user.id, state.store.changes_since(user.id, since, net, most)).await?;
    let next = state.store.sync_token(page.through);
    let changes = Changes { changes: page.changes.iter().map(Entry::of).collect(), next, has_more: page.more };
    Ok(private(&mut HttpResponse::Ok())
        .content_type(ContentType::json())
        .insert_header((SYNC_TOKEN, next.to_string()))
        .body(state.lists.json(user.id, &changes)?))
}
