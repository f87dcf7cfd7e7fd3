//! `/trash`: what was deleted, until it is restored or removed for good.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::ContentType;
use actix_web::web;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{self, Deleted, TaggedTodo};
use super::conditions::Conditions;
use super::mutation::Mutation;
use super::{existing, parse_id};
use crate::api::caching::private;
use crate::api::error::ApiError;
use crate::api::responses::{
    Invalid, PreconditionFailed, ReadOnlyToken, RestoreConflict, TodoNotFound, TooManyLists, TrashPreconditionFailed,
    Unauthenticated, Unavailable,
};
use crate::api::state::AppState;
use crate::api::sync::SYNC_TOKEN;
use crate::api::user::AuthUser;
use crate::domain::change::Epoch;
use crate::domain::clock::Timestamp;
use crate::domain::todo::Todo;
use crate::store::Command;

/// A todo that was deleted.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 1, "title": "Learn Dapr", "description": "Publish and subscribe", "completed": false,
    "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
    "etag": "\"9f86d081884c7d65-1-2\"", "deleted_at": "2025-01-16T08:00:00.000Z",
}))]
pub struct TrashedTodo {
    #[serde(flatten)]
    todo: TaggedTodo,
    /// When it was deleted.
    #[schema(value_type = String, format = DateTime)]
    deleted_at: Timestamp,
}

impl TrashedTodo {
    /// A todo in the trash of the database with this epoch.
    pub fn new(epoch: Epoch, todo: Arc<Todo>) -> Self {
        // Its last change was its deletion.
        Self { deleted_at: todo.updated_at, todo: TaggedTodo::new(epoch, todo) }
    }
}

/// Todos that one request removes, at most.
const MAX_EMPTIED: usize = 500;

/// Lists the todos in the trash.
///
/// The one that was deleted last comes first. They stay for `TRASH_RETENTION_DAYS` (30) of running time; after a day of it, of
/// more than 10,000 the oldest go.
#[utoipa::path(
    get, path = "/trash", tag = "trash", operation_id = "listTrash", security(("bearer" = []), ("password" = [])),
    responses(
        (
            status = 200, description = "What was deleted.", body = Vec<TrashedTodo>,
            headers(("Sync-Token" = String, description = "How far the user's changes have come; opaque."))
        ),
        Unauthenticated, TooManyLists,
    )
)]
pub async fn list(
    AuthUser { user, .. }: AuthUser,
    method: Method,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let (trash, epoch) = (state.store.trash(user.id).await?, state.store.epoch());
    let body = state.lists.body(
        user.id,
        trash.todos.into_iter().map(move |todo| TrashedTodo::new(epoch, todo)),
        method != Method::HEAD,
    )?;
    Ok(private(&mut HttpResponse::Ok())
        .content_type(ContentType::json())
        .insert_header((SYNC_TOKEN, state.store.sync_token(trash.revision).to_string()))
        .body(body))
}

/// Restores a todo from the trash.
///
/// It is as it was, in a new version. A `todo.restored` event follows.
#[utoipa::path(
    post, path = "/todos/{id}/restore", tag = "trash", operation_id = "restoreTodo",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    responses(
        (status = 200, description = "The todo; that it is back is durable.", body = Todo),
        Unauthenticated, ReadOnlyToken, TodoNotFound, RestoreConflict, PreconditionFailed, Invalid, Unavailable,
    )
)]
pub async fn restore(
    mutation: Mutation,
    conditions: Conditions,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let identity = mutation.identity(&format!("/todos/{id}/restore"), None);
    let command = Command::Restore(id, conditions.on(mutation.epoch(), id));
    mutation.apply(identity, vec![command], answer::ok).await
}

/// Removes a todo from the trash for good.
///
/// No event follows: that the todo was deleted has been published already.
#[utoipa::path(
    delete, path = "/trash/{id}", tag = "trash", operation_id = "purgeTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    responses(
        (status = 204, description = "The todo was removed, durably."),
        Unauthenticated, ReadOnlyToken, TodoNotFound, PreconditionFailed, Invalid, Unavailable,
    )
)]
pub async fn purge(
    mutation: Mutation,
    conditions: Conditions,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let identity = mutation.identity(&format!("/trash/{id}"), None);
    let command = Command::Purge(id, conditions.on(mutation.epoch(), id));
    mutation.apply(identity, vec![command], answer::no_content).await
}

/// Removes todos from the trash for good, at most 500 at a time.
///
/// No events follow: that the todos were deleted has been published already.
#[utoipa::path(
    delete, path = "/trash", tag = "trash", operation_id = "emptyTrash", security(("bearer" = []), ("password" = [])),
    responses(
        (status = 200, description = "They are removed, durably.", body = Deleted),
        Unauthenticated, ReadOnlyToken, TrashPreconditionFailed, Invalid, Unavailable,
    )
)]
pub async fn empty(mutation: Mutation, conditions: Conditions) -> Result<HttpResponse, ApiError> {
    let identity = mutation.identity("/trash", None);
    mutation.state.store.catch_up().await?;
    let (todos, more) = mutation.state.store.first_in_trash(mutation.user().id, MAX_EMPTIED).await?;
    let command = Command::EmptyTrash { todos, more, condition: conditions.on_untagged() };
    mutation.apply(identity, vec![command], answer::deleted).await
}
