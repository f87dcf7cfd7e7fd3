//! `DELETE /todos`: moves many todos to the trash at once.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse};
use utoipa::IntoParams;

use super::answer::{self, Deleted};
use super::conditions::Conditions;
use super::list::{Selected, etag_prefix, selected};
use super::mutation::Mutation;
use crate::api::error::ApiError;
use crate::api::responses::{BulkPreconditionFailed, Invalid, ReadOnlyToken, Unauthenticated, Unavailable};
use crate::domain::todo::filter::Filter;
use crate::domain::todo::{Todo, TodoId};
use crate::domain::validation::{Query, ValidationError};
use crate::store::Command;
use crate::store::map::select::Selection;

/// Todos that one request deletes, at most.
const MAX_DELETED: usize = 500;
/// The same in bytes of their texts, but for the last one: what is deleted is written to the log as it was.
const MAX_DELETED_BYTES: usize = 2 << 20;

/// Which todos are deleted: exactly one of these, once.
// Parsed parameter by parameter.
#[allow(dead_code, reason = "for the document")]
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteParameters {
    /// `true`: those that are completed; `false`: the others.
    #[param(required = false)]
    completed: bool,
    /// `true`: all of them.
    #[param(required = false)]
    all: bool,
}

/// Deletes many todos, at most 500 at a time, or 2 MiB of text.
///
/// Those that are completed, those that are not, or all: without one of these parameters, and with any other one, nothing is
/// deleted. They go to the trash in one commit; a `todo.deleted` event follows for each.
///
/// `If-Match` can have the entity tag of a list: then nothing is deleted if anything has changed since.
#[utoipa::path(
    delete, path = "/todos", tag = "todos", operation_id = "deleteTodos", security(("bearer" = []), ("password" = [])),
    params(DeleteParameters),
    responses(
        (status = 200, description = "They were deleted, durably.", body = Deleted),
        Unauthenticated, ReadOnlyToken, BulkPreconditionFailed, Invalid, Unavailable,
    )
)]
pub async fn delete(
    mutation: Mutation,
    conditions: Conditions,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let completed = parse(request.query_string())?;
    let (state, user) = (&mutation.state, mutation.user().id);
    let filter = Filter { completed, ..Filter::default() };
    state.store.catch_up().await?;
    let selection = Selection { filter, limit: Some(MAX_DELETED), ..Selection::default() };
    // Whoever is waiting for the writer does not wait for the search.
    let Selected { todos, total, .. } = selected(state, user, state.store.view(user).await?.todos, &selection).await?;
    let mut bytes = 0;
    let has_room = |todo: &Arc<Todo>| {
        let has_room = bytes < MAX_DELETED_BYTES;
        bytes += todo.text_len();
        has_room
    };
    let todos: Vec<TodoId> = todos.take_while(has_room).map(|todo| todo.id).collect();
    let identity = mutation.identity("/todos", None);
    let condition = conditions.on_list(&etag_prefix(mutation.epoch(), user));
    let more = total > todos.len();
    let command = Command::DeleteMany { todos, completed, more, condition };
    mutation.apply(identity, vec![command], answer::deleted).await
}

/// Which todos are meant. Stricter than other routes: what is misspelt must not delete something else.
fn parse(encoded: &str) -> Result<Option<bool>, Vec<ValidationError>> {
    let mut query = Query::new(encoded);
    query.only_once(&["completed", "all"]);
    let (completed, all) = (query.boolean("completed"), query.boolean("all"));
    if all == Some(false) {
        query.refuse(ValidationError::not_one_of(vec!["query".into(), "all".into()], "true", "false"));
    }
    if query.last("completed").is_some() && query.last("all").is_some() {
        let msg = "Not together with completed";
        query.refuse(ValidationError::new("value_error", &["query", "all"], msg, all));
    }
    if query.last("completed").is_none() && query.last("all").is_none() {
        query.refuse(ValidationError::missing(&["query", "completed"], serde_json::Value::Null));
    }
    query.finish()?;
    Ok(completed)
}
