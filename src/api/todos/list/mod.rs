//! `GET /todos`: all todos of a user, or those that have something in common, sorted, at once or page by page.

mod cursor;
mod query;
mod schema;

use std::sync::Arc;

use actix_web::http::header::{self, ContentType};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};

use super::answer::TaggedTodo;
use super::conditions::Conditions;
use crate::api::caching::private;
use crate::api::error::ApiError;
use crate::api::responses::{Invalid, ListPreconditionFailed, NotModified, TooManyLists, Unauthenticated};
use crate::api::state::AppState;
use crate::api::sync::SYNC_TOKEN;
use crate::api::user::AuthUser;
use crate::domain::account::UserId;
use crate::domain::change::Epoch;
use crate::domain::sync_token::SyncToken;
use crate::domain::todo::Todo;
use crate::domain::todo::sort::Key;
use crate::store::map::select::{Page, Selection, select};
use crate::store::map::todos::Todos;
use cursor::Cursor;
use query::ListQuery;
use schema::ListParameters;

/// Lists the user's todos.
///
/// All of them, in the order in which they were created, unless something else is asked for. A todo is in the list if it
/// has everything that the parameters say.
///
/// With `limit`, the answer is a page, and `Link` has the next one. A todo that does not change meanwhile is on exactly one
/// page, whatever happens to the others.
#[utoipa::path(
    get, path = "/todos", tag = "todos", operation_id = "listTodos", security(("bearer" = []), ("password" = [])),
    params(ListParameters),
    responses(
        (
            status = 200, description = "The todos.", body = Vec<Todo>,
            headers(
                ("ETag" = String, description = "Changes with every change of the user; weak."),
                (
                    "Sync-Token" = String,
                    description = "How far the user's changes have come, on the first page; on the others, what the first one said. Opaque."
                ),
                ("X-Total-Count" = i64, description = "The number of todos on all pages."),
                (
                    "Link" = String,
                    description = "If there are more: the next page, relative to the request's URL, with `rel=\"next\"`."
                ),
            )
        ),
        NotModified, Unauthenticated, ListPreconditionFailed, Invalid, TooManyLists,
    )
)]
pub async fn list(
    AuthUser { user, .. }: AuthUser,
    request: HttpRequest,
    conditions: Conditions,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let query = ListQuery::parse(request.query_string())?;
    let (view, epoch) = (state.store.view(user.id).await?, state.store.epoch());
    // Weak: an owner's revision says that nothing has changed, not which bytes were sent.
    let tag = format!("{}{}{}", etag_prefix(epoch, user.id), view.revision, query.etag_suffix);
    let etag = format!("W/\"{tag}\"");
    if !conditions.matches(&tag) {
        return Err(ApiError::PreconditionFailed { etag: Some(etag), current: None, conflict: Vec::new() });
    }
    let status = if conditions.is_new(&tag) { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
    let (first_epoch, first_revision) =
        query.cursor.as_ref().map_or((epoch, view.revision), |cursor| (cursor.epoch, cursor.revision));
    let mut response = HttpResponse::build(status);
    private(&mut response)
        .insert_header((header::ETAG, etag))
        .insert_header((SYNC_TOKEN, SyncToken { epoch: first_epoch, revision: first_revision }.to_string()));
    if status == StatusCode::NOT_MODIFIED {
        return Ok(response.finish());
    }
    let selected = selected(&state, user.id, view.todos, &query.selection).await?;
    response.content_type(ContentType::json()).insert_header(("X-Total-Count", selected.total.to_string()));
    if let Some(after) = selected.next {
        let cursor = Cursor { epoch: first_epoch, revision: first_revision, after };
        response.insert_header((header::LINK, format!("<todos?{}>; rel=\"next\"", query.next(&cursor))));
    }
    let (todos, with_content) = (selected.todos, request.method() != Method::HEAD);
    let body = if query.with_etags {
        let tagged = todos.map(move |todo| TaggedTodo::new(epoch, todo));
        state.lists.body(user.id, tagged, with_content)?
    } else {
        state.lists.body(user.id, todos, with_content)?
    };
    Ok(response.body(body))
}

/// What the entity tags of all lists of a user begin with; the user's revision follows.
pub fn etag_prefix(epoch: Epoch, user: UserId) -> String {
    format!("{epoch}-u{user}-")
}

/// Todos, and what is known about the list that they are from.
pub struct Selected {
    /// Those of the page.
    pub todos: Box<dyn Iterator<Item = Arc<Todo>>>,
    /// How many the whole list has.
    pub total: usize,
    next: Option<Key>,
}

/// Selects from a user's todos, off the threads that answer requests if that can take long.
pub async fn selected(
    state: &AppState,
    user: UserId,
    todos: Todos,
    selection: &Selection,
) -> Result<Selected, ApiError> {
    if selection.is_everything() {
        return Ok(Selected { total: todos.count(), todos: Box::new(todos.into_todos()), next: None });
    }
    let Page { todos, total, next } = if selection.is_quick(todos.count()) {
        select(&todos, selection)
    } else {
        let turn = state.turns.take(user).await;
        let selection = selection.clone();
        let page = web::block(move || {
            let page = select(&todos, &selection);
            // Only now, also if the client has gone meanwhile.
            drop(turn);
            page
        });
        page.await.map_err(|error| ApiError::internal("a list can't be selected", error))?
    };
    Ok(Selected { todos: Box::new(todos.into_iter()), total, next })
}
