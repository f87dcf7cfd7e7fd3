//! The bodies of `/batch` as the document shows them.

// The types exist for the document only, unless they are answered: bodies are parsed field by field.
#![allow(dead_code, missing_docs, reason = "for the document")]

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use crate::domain::todo::Todo;
use crate::domain::todo::input::NewTodo;
use crate::domain::todo::schema::TodoMergePatch;

/// Changes that are made together.
#[derive(ToSchema)]
#[schema(example = json!({ "operations": [
    { "op": "create", "ref": "a", "todo": { "title": "Learn Dapr" } },
    { "op": "update", "ref": "a", "todo": { "tags_add": ["dapr"] } },
    { "op": "delete", "id": 7, "if_match": "\"9f86d081884c7d65-7-3\"" },
] }))]
pub struct Batch {
    /// In the order in which they are made.
    #[schema(max_items = 100)]
    operations: Vec<Operation>,
}

/// One change of a batch. `ref` is the client's own name for a todo that the batch creates.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum Operation {
    Create(CreateOperation),
    Update(UpdateOperation),
    UpdateCreated(UpdateCreatedOperation),
    Delete(DeleteOperation),
    DeleteCreated(DeleteCreatedOperation),
    Restore(RestoreOperation),
}

/// Creates a todo.
#[derive(ToSchema)]
pub struct CreateOperation {
    #[schema(schema_with = create)]
    op: (),
    /// A name for the todo, by which later operations of the batch can refer to it; of equal ones, the last counts.
    #[schema(required = false, min_length = 1, max_length = 64)]
    r#ref: String,
    todo: NewTodo,
}

/// Changes a todo.
#[derive(ToSchema)]
pub struct UpdateOperation {
    #[schema(schema_with = update)]
    op: (),
    /// The todo's id.
    id: i64,
    /// As the header `If-Match`.
    #[schema(required = false)]
    if_match: String,
    todo: TodoMergePatch,
}

/// Changes a todo that the batch has created.
#[derive(ToSchema)]
pub struct UpdateCreatedOperation {
    #[schema(schema_with = update)]
    op: (),
    /// The name that the batch has given it.
    #[schema(min_length = 1, max_length = 64)]
    r#ref: String,
    todo: TodoMergePatch,
}

/// Moves a todo to the trash.
#[derive(ToSchema)]
pub struct DeleteOperation {
    #[schema(schema_with = delete)]
    op: (),
    /// The todo's id.
    id: i64,
    /// As the header `If-Match`.
    #[schema(required = false)]
    if_match: String,
}

/// Moves a todo that the batch has created to the trash.
#[derive(ToSchema)]
pub struct DeleteCreatedOperation {
    #[schema(schema_with = delete)]
    op: (),
    /// The name that the batch has given it.
    #[schema(min_length = 1, max_length = 64)]
    r#ref: String,
}

/// Takes a todo out of the trash.
#[derive(ToSchema)]
pub struct RestoreOperation {
    #[schema(schema_with = restore)]
    op: (),
    /// The todo's id.
    id: i64,
    /// As the header `If-Match`.
    #[schema(required = false)]
    if_match: String,
}

fn create() -> Schema {
    op("create")
}

fn update() -> Schema {
    op("update")
}

fn delete() -> Schema {
    op("delete")
}

fn restore() -> Schema {
    op("restore")
}

/// By this value the operations differ.
fn op(name: &'static str) -> Schema {
    let op = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([name]));
    op.description(Some("What is done.")).build().into()
}

/// What became of a batch.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "results": [
    {
        "status": 201,
        "todo": {
            "id": 8, "title": "Learn Dapr", "description": null, "completed": false,
            "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-15T10:30:00.000Z",
        },
        "etag": "\"9f86d081884c7d65-8-1\"",
    },
    { "status": 204, "todo": null, "etag": null },
] }))]
pub struct BatchResult {
    /// One for each operation.
    pub results: Vec<OperationResult>,
}

/// What became of one operation.
#[derive(Serialize, ToSchema)]
pub struct OperationResult {
    /// As if the operation had been a request of its own.
    pub status: u16,
    /// The todo after it; null after a deletion.
    #[schema(value_type = Option<Todo>, required = true)]
    pub todo: Option<Arc<Todo>>,
    /// The todo's entity tag; null after a deletion.
    #[schema(required = true)]
    pub etag: Option<String>,
}
