//! `/todos`: reads come from memory, changes go through the store and are durable when they are answered.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::model::{NewTodo, Todo, TodoId, TodoPatch};
use crate::auth::user::AuthUser;
use crate::error::ApiError;
use crate::http::{Endpoint, RawBody};
use crate::store::{Change, Command, Context, Store};
use crate::trace::TraceParent;
use crate::validation::{BodyError, Problem, parse_id, parse_object};

/// The routes under `/todos`.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::at("/todos").get(list).post(create).done())
        .service(Endpoint::at("/todos/{id}").get(read).put(update).delete(delete).done());
}

async fn list(AuthUser(user): AuthUser, store: web::Data<Store>) -> HttpResponse {
    private().json(store.todos(user.id))
}

async fn create(
    AuthUser(user): AuthUser,
    request: HttpRequest,
    store: web::Data<Store>,
    trace: TraceParent,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let new = NewTodo::parse(parse_object(&body)?)?;
    let context = Context { owner: user.id, actor: Arc::clone(&user.username), trace };
    let todo = apply_one(&store, context, Command::Create(new)).await?;
    log::info!("Todo created with ID: {} by user: {}", todo.id, user.username);
    let location = format!("{}/{}", request.path(), todo.id);
    Ok(HttpResponse::Created().insert_header((header::LOCATION, location)).json(todo))
}

async fn read(
    AuthUser(user): AuthUser,
    id: web::Path<String>,
    store: web::Data<Store>,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let todo = store.todo(user.id, id).ok_or(ApiError::TodoNotFound)?;
    Ok(private().json(todo))
}

async fn update(
    AuthUser(user): AuthUser,
    id: web::Path<String>,
    store: web::Data<Store>,
    trace: TraceParent,
    RawBody(body): RawBody,
) -> Result<HttpResponse, ApiError> {
    let (id, patch) = parse_update(&id, &body)?;
    let context = Context { owner: user.id, actor: Arc::clone(&user.username), trace };
    let todo = apply_one(&store, context, Command::Update(existing(id)?, patch)).await?;
    log::info!("Todo updated with ID: {} by user: {}", todo.id, user.username);
    Ok(private().json(todo))
}

async fn delete(
    AuthUser(user): AuthUser,
    id: web::Path<String>,
    store: web::Data<Store>,
    trace: TraceParent,
) -> Result<HttpResponse, ApiError> {
    let id = existing(parse_id(&id)?)?;
    let context = Context { owner: user.id, actor: Arc::clone(&user.username), trace };
    apply_one(&store, context, Command::Delete(id)).await?;
    log::info!("Todo deleted with ID: {id} by user: {}", user.username);
    Ok(HttpResponse::NoContent().finish())
}

/// Applies one command and returns the todo after it.
async fn apply_one(store: &Store, context: Context, command: Command) -> Result<Arc<Todo>, ApiError> {
    let changes = store.apply(context, vec![command]).await?;
    let todo = changes.first().map(|change: &Arc<Change>| Arc::clone(&change.todo));
    todo.ok_or(ApiError::Internal)
}

/// The id and the patch, or everything that is wrong with either.
fn parse_update(id: &str, body: &[u8]) -> Result<(Option<TodoId>, TodoPatch), ApiError> {
    let id = parse_id(id);
    let patch = match parse_object(body) {
        Ok(object) => TodoPatch::parse(object),
        // Bad JSON is told alone, as FastAPI does: it is found before anything else is looked at.
        Err(BodyError::Invalid(problems)) if problems.iter().all(|problem| problem.kind != "json_invalid") => {
            Err(problems)
        }
        Err(error) => return Err(error.into()),
    };
    match (id, patch) {
        (Ok(id), Ok(patch)) => Ok((id, patch)),
        (id, patch) => {
            let problems: Vec<Problem> = [id.err(), patch.err()].into_iter().flatten().flatten().collect();
            Err(problems.into())
        }
    }
}

/// An id that somebody could have.
fn existing(id: Option<TodoId>) -> Result<TodoId, ApiError> {
    id.ok_or(ApiError::TodoNotFound)
}

/// 200 with headers that keep one user's data out of another's browser.
fn private() -> actix_web::HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "private, no-cache"));
    response.append_header((header::VARY, "Authorization, Accept"));
    response
}
