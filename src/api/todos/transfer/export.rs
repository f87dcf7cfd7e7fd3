//! `GET /export`: everything that there is of a user's todos, a line each.

use std::sync::Arc;

use actix_web::http::{Method, header};
use actix_web::{HttpResponse, web};
use bytes::Bytes;
use futures_util::stream::{empty, unfold};
use serde::Serialize;
use tokio::task::yield_now;

use super::{NDJSON, Ndjson};
use crate::api::caching::private;
use crate::api::error::ApiError;
use crate::api::large_lists::{CHUNK_LEN, LargeList};
use crate::api::responses::{TooManyLists, Unauthenticated};
use crate::api::state::AppState;
use crate::api::sync::SYNC_TOKEN;
use crate::api::todos::answer::TaggedTodo;
use crate::api::todos::log_broken_export;
use crate::api::todos::trash::TrashedTodo;
use crate::api::user::AuthUser;
use crate::domain::account::UserId;
use crate::domain::change::{Change, Epoch, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::todo::field::Field;
use crate::domain::todo::{Todo, TodoId, Version};
use crate::store::history::{Limit, Span};

/// What is read from the log at once.
const PAGE: Limit = Limit { changes: 250, bytes: 1 << 20 };

/// A line about a change.
#[derive(Serialize)]
struct ChangeLine<'a> {
    revision: Revision,
    version: Version,
    event: &'static str,
    id: TodoId,
    at: Timestamp,
    actor: &'a str,
    changed: &'a [Field],
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a str>,
    todo: TaggedTodo,
}

/// Takes out all of the user's todos, and what has happened to them.
///
/// One JSON object a line: first the todos with their entity tags, as in `GET /todos?etags=true`, then those in the trash,
/// as in `GET /trash`, then the changes that the log still has, the oldest first, each with its `revision`, `version`,
/// `event` (`created`, `updated`, `deleted` or `restored`), `id`, `at`, `actor`, the `changed` fields, and the `todo` after it.
///
/// `POST /import` takes the todos back in.
#[utoipa::path(
    get, path = "/export", tag = "todos", operation_id = "exportTodos", security(("bearer" = []), ("password" = [])),
    responses(
        (
            status = 200, description = "The todos, the trash and the changes.",
            content((inline(Ndjson) = "application/x-ndjson", example = json!(concat!(
                r#"{"id":1,"title":"Learn Dapr","description":null,"completed":true,"created_at":"2025-01-15T10:30:00.000Z","#,
                r#""updated_at":"2025-01-16T08:00:00.000Z","etag":"\"9f86d081884c7d65-1-2\""}"#, "\n",
                r#"{"revision":1,"version":1,"event":"created","id":1,"at":"2025-01-15T10:30:00.000Z","actor":"user1","#,
                r#""changed":["title","description","completed"],"todo":{"id":1,"title":"Learn Dapr","description":null,"#,
                r#""completed":false,"created_at":"2025-01-15T10:30:00.000Z","updated_at":"2025-01-15T10:30:00.000Z","#,
                r#""etag":"\"9f86d081884c7d65-1-1\""}}"#, "\n",
            )))),
            headers(("Sync-Token" = String, description = "How far the user's changes have come; opaque."))
        ),
        Unauthenticated, TooManyLists,
    )
)]
pub async fn export(
    AuthUser { user, .. }: AuthUser,
    method: Method,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let ((view, trash), epoch) = (state.store.view_with_trash(user.id).await?, state.store.epoch());
    let mut response = HttpResponse::Ok();
    private(&mut response)
        .content_type(NDJSON)
        .insert_header((header::CONTENT_DISPOSITION, r#"attachment; filename="todos.ndjson""#))
        .insert_header((SYNC_TOKEN, state.store.sync_token(view.revision).to_string()));
    if method == Method::HEAD {
        return Ok(response.streaming(empty::<Result<Bytes, ApiError>>()));
    }
    let large = state.lists.begin(user.id).ok_or(ApiError::TooManyLists)?;
    let export = Export {
        owner: user.id,
        epoch,
        todos: Box::new(view.todos.into_todos()),
        trash: Box::new(trash.todos.into_iter()),
        // What is committed from now on is not in it.
        after: Revision(0),
        through: view.revision,
        state,
        _large: large,
    };
    Ok(response.streaming(unfold(export, |mut export| async move {
        // Other requests are served before the next chunk is built.
        yield_now().await;
        let lines = export.next().await;
        // The client sees that the answer breaks off, and nobody else anything.
        if let Err(error) = &lines {
            log_broken_export(error);
        }
        Some((lines.transpose()?, export))
    })))
}

/// What is not sent yet.
struct Export {
    owner: UserId,
    epoch: Epoch,
    todos: Box<dyn Iterator<Item = Arc<Todo>>>,
    trash: Box<dyn Iterator<Item = Arc<Todo>>>,
    after: Revision,
    through: Revision,
    state: web::Data<AppState>,
    _large: LargeList,
}

impl Export {
    /// The next lines; none after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut lines = Lines::default();
        while lines.0.len() < CHUNK_LEN {
            if let Some(todo) = self.todos.next() {
                lines.add(&TaggedTodo::new(self.epoch, todo))?;
            } else if let Some(todo) = self.trash.next() {
                lines.add(&TrashedTodo::new(self.epoch, todo))?;
            } else {
                if self.after == self.through {
                    break;
                }
                let (owner, after, through) = (self.owner, self.after, self.through);
                let span = Span { owner, after, through, only_last: false, limit: PAGE };
                let read = self.state.turns.during(owner, self.state.store.changes(span)).await;
                let page = read.map_err(ApiError::unreadable)?;
                self.after = page.through;
                page.changes.iter().try_for_each(|change| lines.add(&line(self.epoch, change)))?;
            }
        }
        Ok((!lines.0.is_empty()).then(|| lines.0.into()))
    }
}

fn line(epoch: Epoch, change: &Change) -> ChangeLine<'_> {
    ChangeLine {
        revision: change.revision,
        version: change.todo.version,
        event: change.kind.name(),
        id: change.todo.id,
        at: change.at,
        actor: &change.actor,
        changed: &change.changed,
        batch: change.batch,
        op: change.op.as_deref(),
        todo: TaggedTodo::new(epoch, Arc::clone(&change.todo)),
    }
}

#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, line: &impl Serialize) -> Result<(), ApiError> {
        let written = serde_json::to_writer(&mut self.0, line);
        written.map_err(|error| ApiError::internal("a line can't be written as JSON", error))?;
        self.0.push(b'\n');
        Ok(())
    }
}
