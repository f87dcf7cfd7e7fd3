//! `POST /import`: many todos at once, in several commits.

use actix_web::HttpResponse;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::yield_now;
use utoipa::ToSchema;

use super::{NDJSON, Ndjson};
use crate::api::error::ApiError;
use crate::api::http::StreamedBody;
use crate::api::responses::{
    ImportConflict, ImportRunning, ImportTooLarge, ImportUnavailable, IncompleteBody, Invalid, NotImportable,
    ReadOnlyToken, Unauthenticated,
};
use crate::api::todos::mutation::{Content, Mutation};
use crate::api::todos::{answer, log_imported};
use crate::domain::todo::import::Import;
use crate::domain::validation::{ValidationError, is_json, is_one_of};
use crate::store::Command;

/// Largest body, in bytes.
pub const MAX_BODY_LEN: usize = 16 << 20;
/// Todos of one request, at most.
const MAX_TODOS: usize = 10_000;

/// What an import did.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "imported": 1234, "skipped": 56 }))]
pub struct Imported {
    /// The number of todos that were created.
    imported: usize,
    /// The number of items that are no live todos: those of an export about the trash and about changes.
    skipped: usize,
}

/// Creates many todos.
///
/// The body is an export, or other todos with one JSON object a line, or an array of todos, such as the answer of
/// `GET /todos`: at most 10,000 of them. They get new ids; `created_at` is kept. Lines about the trash and about changes are
/// skipped.
///
/// If any todo is not valid, none is created. Otherwise they are created up to 500 at a time, each time in one commit. If that ends
/// before the end, the answer says in `imported` how many there are already. With an `Idempotency-Key`, the same request can
/// be sent again, also when there was no answer: it goes on where it has ended.
#[utoipa::path(
    post, path = "/import", tag = "todos", operation_id = "importTodos", security(("bearer" = []), ("password" = [])),
    request_body(
        content((inline(Ndjson) = "application/x-ndjson")),
        description = "Todos, each on a line, such as `{\"title\":\"Learn Dapr\",\"completed\":true}`. An array of them is taken, too, \
            also as `application/json`."
    ),
    responses(
        (status = 200, description = "All todos were created; they are durable.", body = Imported),
        IncompleteBody, Unauthenticated, ReadOnlyToken, ImportConflict, ImportTooLarge, NotImportable, Invalid, ImportRunning,
        ImportUnavailable,
    )
)]
pub async fn import(mutation: Mutation, mut body: StreamedBody) -> Result<HttpResponse, ApiError> {
    if !is_json(body.content_type())
        && !is_one_of(body.content_type(), &[NDJSON, "application/ndjson", "application/jsonl"])
    {
        return Err(ApiError::NotImportable);
    }
    // Until the end: all todos are in memory.
    let _running = mutation.state.imports.begin(mutation.user().id).ok_or(ApiError::ImportRunning)?;
    let mut content = mutation.content("/import");
    let mut import = read(&mut body, &mut content).await?;
    let (total, skipped, mut imported) = (import.todos.len(), import.skipped, 0);
    let mut part = 0;
    loop {
        let group = import.group(true).unwrap_or_default();
        let done = imported + group.len();
        let identity = mutation.identity_of_part("/import", part, imported..done, &content);
        let answer = move |epoch, applied: &_| answer::json(epoch, applied, &Imported { imported: done, skipped });
        let commands = group.into_iter().map(Command::Create).collect();
        let committed = mutation.commit(identity, commands, total - imported, answer).await;
        let (answer, applied) = committed.map_err(|error| match imported {
            0 => error,
            imported => ApiError::Import { imported, error: Box::new(error) },
        })?;
        if applied.is_some() {
            log_imported(done - imported, &mutation.user().username);
        }
        (imported, part) = (done, part + 1);
        if imported == total {
            return mutation.send(answer, applied.is_none());
        }
    }
}

/// All todos of a body, or everything that is wrong with it.
async fn read(body: &mut StreamedBody, content: &mut Content) -> Result<Import, ApiError> {
    let (mut import, mut is_empty) = (Import::default(), true);
    loop {
        let piece = body.next().await?;
        is_empty &= piece.as_ref().is_none_or(|piece| piece.is_empty());
        import.read(piece.as_deref(), |item| content.add(item))?;
        // Others are served before the next piece is read, which may be there already.
        yield_now().await;
        if import.todos.len() > MAX_TODOS {
            let msg = format!("One import should have at most {MAX_TODOS} todos: split it");
            let error = ValidationError::new("too_long", &["body"], msg, Value::Null);
            return Err(import.refused(error.with(json!({ "max_length": MAX_TODOS }))).into());
        }
        if piece.is_none() {
            let missing = || vec![ValidationError::missing(&["body"], Value::Null)].into();
            return if is_empty { Err(missing()) } else { Ok(import) };
        }
    }
}
