//! `/admin/events`: operators list parked events, retry or skip them, and publish events again. For the role admin.

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::http::JsonBody;
use crate::api::responses::{
    AccountDeleted, EventNotParked, Forbidden, Invalid, LogUnavailable, TooLarge, Unauthenticated, Unavailable,
    UnreadableBody, UserNotFound,
};
use crate::api::state::AppState;
use crate::api::user::Admin;
use crate::domain::account::UserId;
use crate::domain::change::Revision;
use crate::domain::clock::Timestamp;
use crate::domain::todo::{TodoId, Version};
use crate::domain::validation::{Fields, ValidationError};
use crate::events::event;
use crate::store::{Authority, OutboxCommand, Store};

/// Most parked events in one answer.
const MAX_LISTED: usize = 1000;

/// An event that is parked, because the sidecar refused it repeatedly.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "3-2", "event": "todo_updated", "todo_id": 3, "version": 2, "owner": 1, "revision": 7, "actor": "admin",
    "at": "2025-01-15T10:30:00.000Z",
}))]
pub struct ParkedEvent {
    /// The CloudEvent's id: `{todo_id}-{version}`.
    id: String,
    /// What happened: `todo_created`, `todo_updated` or `todo_deleted`.
    event: String,
    /// The todo that changed. Its later events wait behind this one.
    #[schema(value_type = i64)]
    todo_id: TodoId,
    /// The todo's version after the change.
    #[schema(value_type = i64)]
    version: Version,
    /// The id of the account that owns the todo.
    #[schema(value_type = i64)]
    owner: UserId,
    /// The change's number among all changes of the owner's todos.
    #[schema(value_type = i64)]
    revision: Revision,
    /// The username of the account that made the change.
    #[schema(value_type = String)]
    actor: Arc<str>,
    /// When the change was made.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// Which events to publish again.
// Only for the document: the handler reads the body itself, to report every error.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "username": "admin", "from_revision": 1 }))]
pub struct Republish {
    /// The name of the account whose changes are published again.
    username: String,
    /// The first revision to publish; 1 means everything that the log still has.
    #[schema(minimum = 1, maximum = 9223372036854775807_i64)]
    from_revision: i64,
}

/// How many events the request affected.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "events": 1 }))]
pub struct Affected {
    /// The number of events.
    events: usize,
}

/// Lists parked events.
///
/// Oldest first, at most 1,000. An event is parked when it was refused 5 times while others were accepted.
#[utoipa::path(
    get, path = "/admin/events/parked", tag = "admin", operation_id = "listParkedEvents",
    security(("bearer" = []), ("password" = [])),
    responses(
        (status = 200, description = "The parked events.", body = Vec<ParkedEvent>),
        Unauthenticated, Forbidden, LogUnavailable,
    )
)]
pub async fn parked(_: Admin, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    const WHAT: &str = "parked events can't be read";
    let read = tokio::task::spawn_blocking(move || state.store.parked(MAX_LISTED)).await;
    let read = read.map_err(|panicked| ApiError::internal(WHAT, panicked))?;
    let changes = read.map_err(|error| ApiError::unread(WHAT, error))?;
    let events: Vec<ParkedEvent> = changes
        .iter()
        .map(|change| ParkedEvent {
            id: event::id(change),
            event: event::name(change),
            todo_id: change.todo.id,
            version: change.todo.version,
            owner: change.todo.owner,
            revision: change.revision,
            actor: Arc::clone(&change.actor),
            at: change.at,
        })
        .collect();
    Ok(HttpResponse::Ok().json(events))
}

/// Retries a parked event.
///
/// It is parked again if it is refused again.
#[utoipa::path(
    post, path = "/admin/events/{id}/retry", tag = "admin", operation_id = "retryParkedEvent",
    security(("bearer" = []), ("password" = [])),
    params(("id" = String, Path, description = "The event's id.", example = "3-2")),
    responses(
        (status = 200, description = "The event will be published.", body = Affected),
        Unauthenticated, Forbidden, EventNotParked, Unavailable,
    )
)]
pub async fn retry(
    Admin { user: admin, authority }: Admin,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let (todo, version) = parse_event_id(&id).ok_or(ApiError::EventNotParked)?;
    run_admin_command(&state.store, authority, OutboxCommand::Retry { todo, version }).await?;
    log::warn!("Parked event {todo}-{version} is retried by user: {}", admin.username);
    Ok(HttpResponse::Ok().json(Affected { events: 1 }))
}

/// Skips a parked event.
///
/// It is never published; later events of its todo are.
#[utoipa::path(
    post, path = "/admin/events/{id}/skip", tag = "admin", operation_id = "skipParkedEvent",
    security(("bearer" = []), ("password" = [])),
    params(("id" = String, Path, description = "The event's id.", example = "3-2")),
    responses(
        (status = 200, description = "The event was skipped.", body = Affected),
        Unauthenticated, Forbidden, EventNotParked, Unavailable,
    )
)]
pub async fn skip(
    Admin { user: admin, authority }: Admin,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let (todo, version) = parse_event_id(&id).ok_or(ApiError::EventNotParked)?;
    run_admin_command(&state.store, authority, OutboxCommand::Skip { todo, version }).await?;
    log::warn!("Parked event {todo}-{version} is skipped by user: {}", admin.username);
    Ok(HttpResponse::Ok().json(Affected { events: 1 }))
}

/// Publishes events again.
///
/// Everything that the log still has of one user's changes, from a revision on, for a consumer that lost them.
/// Consumers that already have them drop them by version.
#[utoipa::path(
    post, path = "/admin/events/republish", tag = "admin", operation_id = "republishEvents",
    security(("bearer" = []), ("password" = [])),
    request_body = Republish,
    responses(
        (status = 200, description = "The events will be published.", body = Affected),
        UnreadableBody, Unauthenticated, Forbidden, UserNotFound, AccountDeleted, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn republish(
    Admin { user: admin, authority }: Admin,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let (username, from_revision) = parse_republish(body?)?;
    let owner = state.store.account_named(&username).await?.ok_or(ApiError::UserNotFound)?.id;
    let command = OutboxCommand::Republish { owner, from_revision };
    let events = state.store.run_admin_command(Some(authority), command).await?;
    log::warn!(
        "{events} events of {username} from revision {from_revision} on are published again by user: {}",
        admin.username
    );
    Ok(HttpResponse::Ok().json(Affected { events }))
}

async fn run_admin_command(store: &Store, authority: Authority, command: OutboxCommand) -> Result<(), ApiError> {
    match store.run_admin_command(Some(authority), command).await? {
        0 => Err(ApiError::EventNotParked),
        _ => Ok(()),
    }
}

fn parse_event_id(id: &str) -> Option<(TodoId, Version)> {
    let (todo, version) = id.split_once('-')?;
    Some((TodoId(todo.parse().ok()?), Version(version.parse().ok()?)))
}

fn parse_republish(body: Map<String, Value>) -> Result<(String, Revision), Vec<ValidationError>> {
    let mut fields = Fields::new(body);
    fields.require(&["username", "from_revision"]);
    let username = fields.string("username", 0, usize::MAX);
    let from_revision = fields.integer("from_revision", 1..=i64::MAX);
    fields.finish()?;
    Ok((username.unwrap_or_default(), Revision(from_revision.unwrap_or(1))))
}
