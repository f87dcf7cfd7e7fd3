//! `/batch`: several changes in one commit, all or none.

pub mod schema;

use std::collections::HashMap;

use actix_web::HttpResponse;
use serde_json::{Map, Value};

use super::answer;
use super::conditions::parse_if_match;
use super::mutation::Mutation;
use crate::api::error::ApiError;
use crate::api::http::JsonBody;
use crate::api::responses::{
    BatchConflict, BatchInvalid, BatchNotFound, BatchPreconditionFailed, BatchTooLarge, ReadOnlyToken, TooManyLists,
    Unauthenticated, Unavailable, UnreadableBody,
};
use crate::domain::change::{Epoch, Kind};
use crate::domain::etag::EntityTag;
use crate::domain::todo::TodoId;
use crate::domain::todo::input::{NewTodo, TodoPatch};
use crate::domain::validation::{Fields, ValidationError};
use crate::store::idempotency::KeptAnswer;
use crate::store::outcome::{Applied, Outcome};
use crate::store::{Command, Condition, Target};
use schema::{Batch, BatchResult, OperationResult};

/// Largest body, in bytes.
pub const MAX_BODY_LEN: usize = 1 << 20;
/// Most operations of a request.
const MAX_OPERATIONS: usize = 100;
/// Longest `ref`, in characters.
const MAX_REF_LEN: usize = 64;

/// Makes several changes in one commit.
///
/// All of them or none: if one is refused, the answer has its status, and `operation` says which it is. Each causes an
/// event, as if it had been a request of its own.
#[utoipa::path(
    post, path = "/batch", tag = "todos", operation_id = "applyBatch", security(("bearer" = []), ("password" = [])),
    request_body = Batch,
    responses(
        (status = 200, description = "All changes were made; they are durable.", body = BatchResult),
        UnreadableBody, Unauthenticated, ReadOnlyToken, BatchNotFound, BatchConflict, BatchPreconditionFailed,
        BatchTooLarge, BatchInvalid, TooManyLists, Unavailable,
    )
)]
pub async fn apply(mutation: Mutation, JsonBody(body): JsonBody) -> Result<HttpResponse, ApiError> {
    let body = body?;
    let identity = mutation.identity("/batch", Some(&body));
    let commands = parse(body, mutation.epoch())?;
    mutation.batch()?.apply(identity, commands, results).await
}

fn results(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    let result = |outcome: &Outcome| {
        let status = match outcome.changes().first().map(|change| change.kind) {
            Some(Kind::Created) => 201,
            Some(Kind::Deleted) => return OperationResult { status: 204, todo: None, etag: None },
            Some(Kind::Updated | Kind::Restored) | None => 200,
        };
        let todo = outcome.todo().cloned();
        let etag = todo.as_ref().map(|todo| EntityTag::of(epoch, todo).quoted());
        OperationResult { status, todo, etag }
    };
    answer::json(epoch, applied, &BatchResult { results: applied.outcomes.iter().map(result).collect() })
}

/// The commands of a body, or everything that is wrong with any of them.
fn parse(body: Map<String, Value>, epoch: Epoch) -> Result<Vec<Command>, Vec<ValidationError>> {
    let mut fields = Fields::new(body);
    fields.require(&["operations"]);
    let operations = fields.array("operations", MAX_OPERATIONS).unwrap_or_default();
    let mut refs = HashMap::new();
    let mut commands = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        let at = vec!["body".into(), "operations".into(), index.into()];
        match Fields::of(at, operation).and_then(|fields| parse_operation(fields, index, &mut refs, epoch)) {
            Ok(command) => commands.push(command),
            Err(errors) => fields.refuse_all(errors),
        }
    }
    fields.finish()?;
    Ok(commands)
}

/// `refs`: which operation has created the todo with this name.
fn parse_operation(
    mut fields: Fields,
    index: usize,
    refs: &mut HashMap<String, usize>,
    epoch: Epoch,
) -> Result<Command, Vec<ValidationError>> {
    fields.require(&["op"]);
    // It stays there: what is wrong with an operation shows all of it.
    match fields.peek_string("op").map(str::to_owned).as_deref() {
        Some("create") => {
            fields.require(&["todo"]);
            let name = fields.string("ref", 1, MAX_REF_LEN);
            let todo = parse_todo(&mut fields, NewTodo::parse);
            fields.finish()?;
            refs.extend(name.map(|name| (name, index)));
            Ok(Command::Create(todo.unwrap_or_default()))
        }
        Some("update") => {
            fields.require(&["todo"]);
            let (todo, condition) = parse_target(&mut fields, refs, epoch);
            let patch = parse_todo(&mut fields, TodoPatch::parse_merge_patch);
            fields.finish()?;
            Ok(Command::Update { todo, patch: patch.unwrap_or_default(), always: false, condition })
        }
        Some("delete") => {
            let (todo, condition) = parse_target(&mut fields, refs, epoch);
            fields.finish()?;
            Ok(Command::Delete(todo, condition))
        }
        Some("restore") => {
            fields.require(&["id"]);
            let (id, condition) = parse_known(&mut fields, epoch);
            fields.finish()?;
            Ok(Command::Restore(id, condition))
        }
        _ => {
            if let Some(sent) = fields.take("op") {
                let expected = "'create', 'update', 'delete' or 'restore'";
                fields.refuse(ValidationError::not_one_of(fields.location("op"), expected, sent));
            }
            fields.finish()?;
            // Without an `op` there is an error.
            Err(Vec::new())
        }
    }
}

/// The object in `todo`.
fn parse_todo<T>(fields: &mut Fields, parse: impl FnOnce(Fields) -> Result<T, Vec<ValidationError>>) -> Option<T> {
    let todo = fields.take("todo")?;
    let parsed = Fields::of(fields.location("todo"), todo).and_then(parse);
    parsed.map_err(|errors| fields.refuse_all(errors)).ok()
}

/// The todo that an operation is about: one with an id, or one that the batch has created.
fn parse_target(fields: &mut Fields, refs: &HashMap<String, usize>, epoch: Epoch) -> (Target, Condition) {
    if !fields.has("ref") {
        fields.require(&["id"]);
        let (id, condition) = parse_known(fields, epoch);
        return (id.into(), condition);
    }
    for name in ["id", "if_match"] {
        if fields.has(name) {
            let msg = "Not together with ref, which names a todo that the batch creates";
            fields.refuse(ValidationError::at("value_error", fields.location(name), msg, Value::Null));
        }
    }
    let name = fields.string("ref", 1, MAX_REF_LEN);
    // No operation has this index: the todo is not found.
    let created_by = name.and_then(|name| refs.get(&name).copied()).unwrap_or(usize::MAX);
    (Target::CreatedBy(created_by), Condition::default())
}

fn parse_known(fields: &mut Fields, epoch: Epoch) -> (TodoId, Condition) {
    let id = TodoId(fields.id("id").unwrap_or_default());
    let if_match = fields.string("if_match", 0, usize::MAX);
    (id, if_match.map(|tag| parse_if_match(&tag, epoch, id)).unwrap_or_default())
}
