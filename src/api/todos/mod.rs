//! `/todos`, `/trash` and what else is about todos: reads come from memory, changes go through the store and are durable when they are
//! answered.

mod answer;
pub mod batch;
pub mod bulk;
mod conditions;
pub mod list;
mod mutation;
pub mod transfer;
pub mod trash;
pub mod undo;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, web};
use serde_json::{Map, Value};

use super::caching::private;
use super::error::ApiError;
use super::http::{Endpoint, JsonBody, MergePatch};
use super::responses::{
    Invalid, NotMergePatch, NotModified, PreconditionFailed, ReadOnlyToken, TodoNotFound, TooLarge, TooManyTodos,
    Unauthenticated, Unavailable, UnreadableBody,
};
use super::state::AppState;
use super::user::AuthUser;
use crate::domain::etag::EntityTag;
use crate::domain::todo::input::{NewTodo, TodoPatch};
use crate::domain::todo::schema::{TodoMergePatch, TodoUpdate};
use crate::domain::todo::{Todo, TodoId};
use crate::domain::validation::{BodyError, Fields, ValidationError, both, parse_id};
use crate::store::outcome::{Applied, Outcome};
use crate::store::{Command, Merge};
use conditions::Conditions;
use mutation::{Identity, Mutation};
use transfer::{export, import};

/// The routes of todos.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/todos").get(list::list).post(create).delete(bulk::delete).build())
        .service(Endpoint::new("/todos/{id}").get(read).put(update).patch(patch).delete(delete).build())
        .service(Endpoint::new("/todos/{id}/restore").post(trash::restore).build())
        .service(Endpoint::new("/trash").get(trash::list).delete(trash::empty).build())
        .service(Endpoint::new("/trash/{id}").delete(trash::purge).build())
        .service(Endpoint::new("/changes/{revision}/undo").post(undo::undo).build())
        .service(Endpoint::new("/export").get(export::export).build())
        .service(Endpoint::new("/import").post(import::import).body_limit(import::MAX_BODY_LEN).build())
        .service(Endpoint::new("/batch").post(batch::apply).body_limit(batch::MAX_BODY_LEN).build());
}

/// Creates a todo.
///
/// It is on disk before this is answered, and a `todo.created` event follows.
#[utoipa::path(
    post, path = "/todos", tag = "todos", operation_id = "createTodo", security(("bearer" = []), ("password" = [])),
    request_body = NewTodo,
    responses(
        (
            status = 201, description = "The todo was created; it is durable.", body = Todo,
            headers(("Location" = String, description = "The new todo, relative to this path."))
        ),
        UnreadableBody, Unauthenticated, ReadOnlyToken, TooManyTodos, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn create(mutation: Mutation, JsonBody(body): JsonBody) -> Result<HttpResponse, ApiError> {
    let body = body?;
    let identity = mutation.identity("/todos", Some(&body));
    let new = NewTodo::parse(Fields::new(body))?;
    mutation.apply(identity, vec![Command::Create(new)], answer::created).await
}

/// Reads one todo.
///
/// Another user's todo is answered as if it did not exist.
#[utoipa::path(
    get, path = "/todos/{id}", tag = "todos", operation_id = "getTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    responses(
        (status = 200, description = "The todo.", body = Todo),
        NotModified, Unauthenticated, TodoNotFound, PreconditionFailed, Invalid,
    )
)]
pub async fn read(
    AuthUser { user, .. }: AuthUser,
    id: web::Path<String>,
    conditions: Conditions,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let todo = state.store.todo(user.id, id).await?.ok_or(ApiError::TodoNotFound)?;
    let tag = EntityTag::of(state.store.epoch(), &todo);
    let (condition, etag) = (conditions.on(tag.epoch, id), tag.quoted());
    if !condition.matches(todo.version) {
        return Err(ApiError::PreconditionFailed { etag: Some(etag), current: Some(todo), conflict: Vec::new() });
    }
    let is_new = condition.is_new(todo.version);
    let mut response = HttpResponse::build(if is_new { StatusCode::OK } else { StatusCode::NOT_MODIFIED });
    private(&mut response).insert_header((header::ETAG, etag));
    Ok(if is_new { response.json(todo) } else { response.finish() })
}

/// Updates a todo.
///
/// Fields that are not sent stay as they are. A `todo.updated` event follows, even if nothing is different.
#[utoipa::path(
    put, path = "/todos/{id}", tag = "todos", operation_id = "updateTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    request_body = TodoUpdate,
    responses(
        (status = 200, description = "The todo after the update; it is durable.", body = Todo),
        UnreadableBody, Unauthenticated, ReadOnlyToken, TodoNotFound, PreconditionFailed, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn update(
    mutation: Mutation,
    conditions: Conditions,
    id: web::Path<String>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let (identity, id, patch) = parse_change(&mutation, &id, body, TodoPatch::parse_update)?;
    let condition = conditions.on(mutation.epoch(), id);
    let command = Command::Update { todo: id.into(), patch, always: true, condition };
    mutation.apply(identity, vec![command], answer::ok).await
}

/// Changes a todo.
///
/// Fields that are not sent stay as they are. If something is different now, a `todo.updated` event follows; otherwise the
/// todo keeps its version.
///
/// With `If-Match` and `Prefer: merge`, a todo that others have changed meanwhile is changed too, if they have not
/// changed the same fields. `tags_add` and `tags_remove` count as `tags`.
#[utoipa::path(
    patch, path = "/todos/{id}", tag = "todos", operation_id = "patchTodo", security(("bearer" = []), ("password" = [])),
    params(
        ("id" = i64, Path, description = "The todo's id.", example = 1),
        (
            "Prefer" = Option<String>, Header,
            description = "`merge`: with one entity tag in `If-Match`, the change is made although others have changed the \
                todo since, if none of the fields that it sends has changed (RFC 7240)."
        ),
    ),
    request_body(content((TodoMergePatch = "application/merge-patch+json"), (TodoMergePatch = "application/json"))),
    responses(
        (
            status = 200, description = "The todo after the change; it is durable.", body = Todo,
            headers(("Preference-Applied" = String, description = "`merge`, where that was asked for."))
        ),
        UnreadableBody, Unauthenticated, ReadOnlyToken, TodoNotFound, PreconditionFailed, TooLarge, NotMergePatch, Invalid,
        Unavailable,
    )
)]
pub async fn patch(
    mutation: Mutation,
    conditions: Conditions,
    id: web::Path<String>,
    MergePatch(body): MergePatch,
) -> Result<HttpResponse, ApiError> {
    let (identity, id, patch) = parse_change(&mutation, &id, body, TodoPatch::parse_merge_patch)?;
    let condition = conditions.on_patch(mutation.epoch(), id);
    let render = if condition.merge == Merge::No { answer::ok } else { answer::merged };
    let command = Command::Update { todo: id.into(), patch, always: false, condition };
    mutation.apply(identity, vec![command], render).await
}

/// Deletes a todo.
///
/// It goes to the trash, from which it can be restored. A `todo.deleted` event with its last state follows.
#[utoipa::path(
    delete, path = "/todos/{id}", tag = "todos", operation_id = "deleteTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    responses(
        (status = 204, description = "The todo was deleted, durably."),
        Unauthenticated, ReadOnlyToken, TodoNotFound, PreconditionFailed, Invalid, Unavailable,
    )
)]
pub async fn delete(
    mutation: Mutation,
    conditions: Conditions,
    id: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let identity = mutation.identity(&format!("/todos/{id}"), None);
    let command = Command::Delete(id.into(), conditions.on(mutation.epoch(), id));
    mutation.apply(identity, vec![command], answer::no_content).await
}

/// The request's identity, the id and the patch, or everything that is wrong with either.
fn parse_change(
    mutation: &Mutation,
    id: &str,
    body: Result<Map<String, Value>, BodyError>,
    parse: impl FnOnce(Fields) -> Result<TodoPatch, Vec<ValidationError>>,
) -> Result<(Identity, TodoId, TodoPatch), ApiError> {
    let id = parse_id(id);
    let path = format!("/todos/{}", id.as_ref().ok().copied().flatten().unwrap_or_default());
    let identity = mutation.identity(&path, body.as_ref().ok());
    let patch = match body {
        Ok(object) => parse(Fields::new(object)),
        // Invalid JSON is reported alone, as FastAPI does, which finds it before it checks anything else.
        Err(BodyError::Invalid(errors)) if errors.iter().all(|error| error.kind != "json_invalid") => Err(errors),
        Err(error) => return Err(error.into()),
    };
    let (id, patch) = both(id, patch)?;
    Ok((identity, existing(id)?, patch))
}

/// The id, if a todo can have it.
fn existing(id: Option<i64>) -> Result<TodoId, ApiError> {
    id.map(TodoId).ok_or(ApiError::TodoNotFound)
}

/// One line for many that were created.
fn log_imported(count: usize, username: &str) {
    log::info!("{count} todos imported by user: {username}");
}

/// An export ends before its end.
fn log_broken_export(error: &ApiError) {
    log::error!("an export breaks off: {error}");
}

/// One line for each change, as the original has them.
fn log_changes(applied: &Applied, username: &str) {
    for change in applied.outcomes.iter().flat_map(Outcome::changes) {
        log::info!("Todo {} with ID: {} by user: {username}", change.kind.name(), change.todo.id);
    }
}
