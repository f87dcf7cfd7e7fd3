//! `/changes/{revision}/undo`: the opposite of what was done.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answer;
use super::mutation::Mutation;
use crate::api::error::ApiError;
use crate::api::responses::{
    ChangeGone, ChangeNotFound, Invalid, ReadOnlyToken, Unauthenticated, Unavailable, UndoConflict,
};
use crate::api::sync::entry::{self, Happened};
use crate::domain::change::{Change, Epoch, Revision};
use crate::domain::todo::Todo;
use crate::domain::validation::{Query, both, parse_number};
use crate::store::Command;
use crate::store::idempotency::KeptAnswer;
use crate::store::outcome::{Applied, Outcome};

/// How much is undone.
// Parsed parameter by parameter.
#[allow(dead_code, reason = "for the document")]
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UndoParameters {
    /// `true`: all that was changed by the same `POST /batch`, `DELETE /todos` or undo.
    #[param(required = false)]
    batch: bool,
}

/// What an undo did.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "changes": [{
    "revision": 13, "event": "restored", "id": 1, "etag": "\"9f86d081884c7d65-1-3\"",
    "todo": {
        "id": 1, "title": "Learn Dapr", "description": null, "completed": false,
        "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
    },
}] }))]
pub struct UndoResult {
    /// The changes that were made, in their order; none if there was nothing to be undone.
    changes: Vec<MadeChange>,
}

/// A change that was made; it is never a creation.
#[derive(Serialize, ToSchema)]
pub struct MadeChange {
    #[serde(flatten)]
    happened: Happened,
    /// The todo after it; null after a deletion. Not with `batch=true`: that can be many.
    #[schema(value_type = Option<Todo>, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<Option<Arc<Todo>>>,
}

/// Undoes a change.
///
/// The opposite is made as a new change, which can be undone itself: what was created is deleted, what was deleted is restored,
/// and fields get the values that they had. A change's number is in the answer that it was made with (`Change-Revision`)
/// and in its event (`revision`).
///
/// Nothing that was done since is lost: where the same field, or whether the todo is deleted, was changed again, the answer is
/// 409. An undo in between counts as if what it has undone had never been.
#[utoipa::path(
    post, path = "/changes/{revision}/undo", tag = "changes", operation_id = "undoChange",
    security(("bearer" = []), ("password" = [])),
    params(("revision" = i64, Path, description = "The change's number among those of the user.", example = 1), UndoParameters),
    responses(
        (status = 200, description = "It is undone, durably.", body = UndoResult),
        Unauthenticated, ReadOnlyToken, ChangeNotFound, UndoConflict, ChangeGone, Invalid, Unavailable,
    )
)]
pub async fn undo(
    mutation: Mutation,
    revision: web::Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    // What is misspelt must not undo something else.
    query.only_once(&["batch"]);
    let whole_batch = query.boolean("batch").unwrap_or(false);
    let (revision, ()) = both(parse_number("revision", &revision), query.finish())?;
    let revision = Revision(revision.ok_or(ApiError::ChangeNotFound)?);
    let identity = mutation.identity(&format!("/changes/{revision}/undo"), None);
    let answer = move |epoch, applied: &_| undone(epoch, applied, whole_batch);
    mutation.apply(identity, vec![Command::Undo { revision, whole_batch }], answer).await
}

fn undone(epoch: Epoch, applied: &Applied, whole_batch: bool) -> serde_json::Result<KeptAnswer> {
    let made = |change: &Arc<Change>| MadeChange {
        happened: Happened::of(change),
        todo: (!whole_batch).then(|| entry::todo(change).cloned()),
    };
    let changes = applied.outcomes.iter().flat_map(Outcome::changes).map(made).collect();
    answer::json(epoch, applied, &UndoResult { changes })
}
