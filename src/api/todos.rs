//! `/todos`: reads come from memory, changes go through the store and are durable when they are answered.

use std::sync::Arc;

use actix_web::http::Method;
use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::http::{Endpoint, JsonBody};
use super::responses::{
    Invalid, ReadOnlyToken, TodoNotFound, TooLarge, TooManyLists, Unauthenticated, Unavailable, UnreadableBody,
};
use super::state::AppState;
use super::user::AuthUser;
use crate::domain::change::Change;
use crate::domain::todo::{NewTodo, Todo, TodoId, TodoPatch};
use crate::domain::trace::TraceParent;
use crate::domain::validation::{BodyError, ValidationError, parse_id};
use crate::store::{Command, Context, Store};

/// The routes under `/todos`.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/todos").get(list).post(create).build())
        .service(Endpoint::new("/todos/{id}").get(read).put(update).delete(delete).build());
}

/// Lists all todos of the user.
///
/// In the order in which they were created.
#[utoipa::path(
    get, path = "/todos", tag = "todos", operation_id = "listTodos", security(("bearer" = []), ("password" = [])),
    responses(
        (status = 200, description = "All todos of the user, by id.", body = Vec<Todo>),
        Unauthenticated, TooManyLists,
    )
)]
pub async fn list(
    AuthUser { user, .. }: AuthUser,
    method: Method,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let body = state.lists.body(user.id, state.store.view(user.id).await?.todos, method != Method::HEAD)?;
    Ok(private().content_type(ContentType::json()).body(body))
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
        UnreadableBody, Unauthenticated, ReadOnlyToken, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn create(
    AuthUser { user, authority }: AuthUser,
    state: web::Data<AppState>,
    trace: TraceParent,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let new = NewTodo::parse(body?)?;
    let context = Context::of(&user, authority, trace);
    let todo = apply_one(&state.store, context, Command::Create(new)).await?;
    log::info!("Todo created with ID: {} by user: {}", todo.id, user.username);
    // Relative to this path: a proxy may serve it under a prefix that it doesn't pass on.
    let location = format!("todos/{}", todo.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(todo))
}

/// Reads one todo.
///
/// Another user's todo is answered as if it did not exist.
#[utoipa::path(
    get, path = "/todos/{id}", tag = "todos", operation_id = "getTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    responses(
        (status = 200, description = "The todo.", body = Todo),
        Unauthenticated, TodoNotFound, Invalid,
    )
)]
pub async fn read(
    AuthUser { user, .. }: AuthUser,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let todo = state.store.todo(user.id, id).await?.ok_or(ApiError::TodoNotFound)?;
    Ok(private().json(todo))
}

/// Updates a todo.
///
/// Fields that are not sent stay as they are. A `todo.updated` event follows.
#[utoipa::path(
    put, path = "/todos/{id}", tag = "todos", operation_id = "updateTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    request_body = TodoPatch,
    responses(
        (status = 200, description = "The todo after the update; it is durable.", body = Todo),
        UnreadableBody, Unauthenticated, ReadOnlyToken, TodoNotFound, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn update(
    AuthUser { user, authority }: AuthUser,
    id: web::Path<String>,
    state: web::Data<AppState>,
    trace: TraceParent,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let (id, patch) = parse_update(&id, body)?;
    let context = Context::of(&user, authority, trace);
    let todo = apply_one(&state.store, context, Command::Update(existing(id)?, patch)).await?;
    log::info!("Todo updated with ID: {} by user: {}", todo.id, user.username);
    Ok(private().json(todo))
}

/// Deletes a todo.
///
/// A `todo.deleted` event with its last state follows.
#[utoipa::path(
    delete, path = "/todos/{id}", tag = "todos", operation_id = "deleteTodo", security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The todo's id.", example = 1)),
    responses(
        (status = 204, description = "The todo was deleted, durably."),
        Unauthenticated, ReadOnlyToken, TodoNotFound, Invalid, Unavailable,
    )
)]
pub async fn delete(
    AuthUser { user, authority }: AuthUser,
    id: web::Path<String>,
    state: web::Data<AppState>,
    trace: TraceParent,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let context = Context::of(&user, authority, trace);
    apply_one(&state.store, context, Command::Delete(id)).await?;
    log::info!("Todo deleted with ID: {id} by user: {}", user.username);
    Ok(HttpResponse::NoContent().finish())
}

/// Applies one command and returns the todo after it.
async fn apply_one(store: &Store, context: Context, command: Command) -> Result<Arc<Todo>, ApiError> {
    let changes = store.apply(context, vec![command]).await?;
    let todo = changes.first().map(|change: &Arc<Change>| Arc::clone(&change.todo));
    todo.ok_or_else(|| ApiError::internal("a todo can't be answered", "the store applied a command without a change"))
}

/// The id and the patch, or everything that is wrong with either.
fn parse_update(id: &str, body: Result<Map<String, Value>, BodyError>) -> Result<(Option<i64>, TodoPatch), ApiError> {
    let id = parse_id(id);
    let patch = match body {
        Ok(object) => TodoPatch::parse(object),
        // Invalid JSON is reported alone, as FastAPI does, which finds it before it checks anything else.
        Err(BodyError::Invalid(errors)) if errors.iter().all(|error| error.kind != "json_invalid") => Err(errors),
        Err(error) => return Err(error.into()),
    };
    match (id, patch) {
        (Ok(id), Ok(patch)) => Ok((id, patch)),
        (id, patch) => {
            let errors: Vec<ValidationError> = [id.err(), patch.err()].into_iter().flatten().flatten().collect();
            Err(errors.into())
        }
    }
}

/// The id, if a todo can have it.
fn existing(id: Option<i64>) -> Result<TodoId, ApiError> {
    id.map(TodoId).ok_or(ApiError::TodoNotFound)
}

/// 200 with headers that keep one user's data out of caches that others share.
fn private() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    response.append_header((header::VARY, "Authorization, Accept"));
    response
}
