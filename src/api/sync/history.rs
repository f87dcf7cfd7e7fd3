//! `GET /todos/{id}/history`: who changed what, and when.

use std::sync::Arc;

use actix_web::http::header::{ContentType, LINK};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{MAX_LIMIT, limit};
use crate::api::caching::private;
use crate::api::error::ApiError;
use crate::api::responses::{Invalid, LogUnavailable, TodoNotFound, TooManyLists, Unauthenticated};
use crate::api::state::AppState;
use crate::api::user::AuthUser;
use crate::domain::change::{Change, Kind, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::input::TodoPatch;
use crate::domain::todo::{Todo, TodoId, Version};
use crate::domain::validation::{Query, both, parse_id};
use crate::store::history::{Limit, Past};

/// Which part of a history is wanted.
// Parsed parameter by parameter.
#[allow(dead_code, reason = "for the document")]
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryParameters {
    /// Changes, at most. There can be fewer although there are more.
    #[param(required = false, minimum = 1, maximum = 1000, default = 1000)]
    limit: u16,
    /// Only what came after this `version`.
    #[param(required = false, minimum = 0)]
    after: i64,
}

/// A change of a todo.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "revision": 13, "version": 2, "event": "updated", "at": "2025-01-16T08:00:00.000Z", "actor": "user1",
    "changes": { "title": ["Learn Kafka", "Learn Dapr"] },
}))]
pub struct HistoryEntry {
    /// Its number among the user's changes; with it, it can be undone.
    #[schema(value_type = i64, minimum = 1)]
    revision: Revision,
    /// The version of the todo that it made.
    #[schema(value_type = i64, minimum = 1)]
    version: Version,
    /// `created`, `updated`, `deleted` or `restored`.
    #[schema(value_type = String)]
    event: &'static str,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The username of whoever made it.
    #[schema(value_type = String)]
    actor: Arc<str>,
    /// For each field that was changed, what it was and what it is since: `"title": ["before", "after"]`. Null where what
    /// it was is not known any more.
    #[schema(value_type = Option<HashMap<String, Vec<Value>>>, required = true)]
    changes: Option<Map<String, Value>>,
}

/// Lists what happened to a todo.
///
/// The first comes first. Also of one that was deleted, as long as the log has its changes.
#[utoipa::path(
    get, path = "/todos/{id}/history", tag = "changes", operation_id = "getTodoHistory",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1), HistoryParameters),
    responses(
        (
            status = 200, description = "What the log still has of it.", body = Vec<HistoryEntry>,
            headers(("Link" = String, description = "Where there are more: `<URL>; rel=\"next\"` (RFC 8288)."))
        ),
        Unauthenticated, TodoNotFound, Invalid, TooManyLists, LogUnavailable,
    )
)]
pub async fn list(
    AuthUser { user, .. }: AuthUser,
    id: web::Path<String>,
    request: HttpRequest,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let sent = query.integer("limit", 1..=MAX_LIMIT);
    let after = Version(query.integer("after", 0..=i64::MAX).unwrap_or_default());
    let (id, ()) = both(parse_id(&id), query.finish())?;
    let id = TodoId(id.ok_or(ApiError::TodoNotFound)?);
    let most = limit(sent);
    // And the one before, which says what was there.
    let with_previous = Limit { changes: most.changes + 1, ..most };
    let read = state.store.changes_of(user.id, id, after.previous(), with_previous);
    let (pasts, mut more) = state.turns.during(user.id, read).await.map_err(ApiError::unreadable)?;
    if pasts.is_empty() && !state.store.has_todo(user.id, id).await? {
        return Err(ApiError::TodoNotFound);
    }
    let mut entries = Vec::with_capacity(pasts.len());
    let mut previous: Option<&Todo> = None;
    for past in &pasts {
        if entries.len() == most.changes {
            more = true;
            break;
        }
        if past.change.todo.version > after {
            entries.push(entry(past, previous)?);
        }
        previous = Some(&past.change.todo);
    }
    let mut response = HttpResponse::Ok();
    if let Some(last) = entries.last().filter(|_| more) {
        let limit = sent.map(|limit| format!("&limit={limit}")).unwrap_or_default();
        response.insert_header((LINK, format!("<history?after={}{limit}>; rel=\"next\"", last.version)));
    }
    Ok(private(&mut response).content_type(ContentType::json()).body(state.lists.json(user.id, &entries)?))
}

/// `previous`: the todo right before, if the log has it.
fn entry(past: &Past, previous: Option<&Todo>) -> Result<HistoryEntry, ApiError> {
    let Past { change, before } = past;
    let Change { revision, kind, at, actor, changed, todo, .. } = change;
    let before = match (before, kind, previous) {
        (Some(before), ..) => Some(serde_json::to_value(&before.values)),
        (None, Kind::Created, _) => Some(Ok(Value::default())),
        // Changes that an earlier version has logged don't say what they have replaced.
        (None, _, Some(previous)) => Some(serde_json::to_value(TodoPatch::to(previous, changed))),
        (None, _, None) => None,
    };
    let unwritable = |error| ApiError::internal("a history can't be written as JSON", error);
    let after = serde_json::to_value(TodoPatch::to(todo, changed)).map_err(unwritable)?;
    let before = before.transpose().map_err(unwritable)?;
    let changes = before.map(|before| {
        let pair = |field: &&'static str| (before.get(*field).cloned().unwrap_or_default(), after[*field].clone());
        let names = changed.iter().map(|field| field.name());
        let pairs = names.map(|name| (name, pair(&name))).filter(|(_, (old, new))| old != new);
        pairs.map(|(name, (old, new))| (name.to_owned(), Value::Array(vec![old, new]))).collect()
    });
    Ok(HistoryEntry {
        revision: *revision,
        version: todo.version,
        event: kind.name(),
        at: *at,
        actor: Arc::clone(actor),
        changes,
    })
}
