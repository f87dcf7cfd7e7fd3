//! `/changes/{revision}/undo`: the opposite of what was done.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answer::{self, TaggedTodo};
use super::mutation::Mutation;
use crate::api::error::ApiError;
use crate::api::responses::{
    ChangeGone, ChangeNotFound, Invalid, ReadOnlyToken, Unauthenticated, Unavailable, UndoConflict,
};
use crate::domain::change::{Change, Epoch, Kind, Revision};
use crate::domain::todo::TodoId;
use crate::domain::validation::{Query, parse_number};
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
    "revision": 13, "event": "restored", "id": 1,
    "todo": {
        "id": 1, "title": "Learn Dapr", "description": null, "completed": false,
        "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
        "etag": "\"9f86d081884c7d65-1-3\"",
    },
}] }))]
pub struct UndoResult {
    /// The changes that were made, in their order; none if everything was as before already.
    changes: Vec<MadeChange>,
}

/// A change that was made.
#[derive(Serialize, ToSchema)]
pub struct MadeChange {
    /// Its number among the user's changes; with it, it can be undone itself.
    #[schema(value_type = i64, minimum = 1)]
    revision: Revision,
    /// `updated`, `deleted` or `restored`.
    #[schema(value_type = String)]
    event: &'static str,
    /// The todo's id.
    #[schema(value_type = i64)]
    id: TodoId,
    /// The todo after it; null after a deletion.
    #[schema(value_type = Option<crate::domain::todo::Todo>, required = true)]
    todo: Option<TaggedTodo>,
}

/// Undoes a change.
///
/// The opposite is made as a new change, which can be undone itself: what was created is deleted, what was deleted is restored,
/// and fields get the values that they had. A change's number is in the answer that it was made with (`Change-Revision`)
/// and in its event (`revision`).
///
/// Nothing that was done since is lost: where a later change is about the same field, or about whether the todo is deleted,
/// the answer is 409.
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
    let whole_batch = query.boolean("batch").unwrap_or(false);
    let revision = match (parse_number("revision", &revision), query.finish()) {
        (Ok(revision), Ok(())) => Revision(revision.ok_or(ApiError::ChangeNotFound)?),
        (revision, rest) => {
            let errors: Vec<_> = [revision.err(), rest.err()].into_iter().flatten().flatten().collect();
            return Err(errors.into());
        }
    };
    let identity = mutation.identity(&format!("/changes/{revision}/undo"), None);
    mutation.apply(identity, vec![Command::Undo { revision, whole_batch }], undone).await
}

fn undone(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    let made = |change: &Arc<Change>| MadeChange {
        revision: change.revision,
        event: change.kind.name(),
        id: change.todo.id,
        todo: (change.kind != Kind::Deleted).then(|| TaggedTodo::new(epoch, Arc::clone(&change.todo))),
    };
    let changes = applied.outcomes.iter().flat_map(Outcome::changes).map(made).collect();
    answer::json(epoch, applied, &UndoResult { changes })
}
