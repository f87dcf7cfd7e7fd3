//! A change as clients see it.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::change::{Change, Kind, Revision};
use crate::domain::clock::Timestamp;
use crate::domain::etag::EntityTag;
use crate::domain::todo::{Todo, TodoId};

/// What was done to a todo.
#[derive(Serialize, ToSchema)]
pub struct Happened {
    /// Its number among the user's changes; with it, it can be undone.
    #[schema(value_type = i64, minimum = 1)]
    revision: Revision,
    /// `created`, `updated`, `deleted` or `restored`.
    #[schema(value_type = String)]
    event: &'static str,
    /// The todo's id.
    #[schema(value_type = i64)]
    id: TodoId,
    /// The todo's entity tag; null after a deletion.
    #[schema(required = true)]
    etag: Option<String>,
}

impl Happened {
    /// What a change did.
    pub fn of(change: &Change) -> Self {
        let etag = todo(change).map(|todo| EntityTag::of(change.epoch, todo).quoted());
        Self { revision: change.revision, event: change.kind.name(), id: change.todo.id, etag }
    }
}

/// The todo after a change; none after a deletion.
pub fn todo(change: &Change) -> Option<&Arc<Todo>> {
    (change.kind != Kind::Deleted).then_some(&change.todo)
}

/// A change, and the todo after it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "revision": 13, "event": "updated", "id": 1, "etag": "\"9f86d081884c7d65-1-2\"", "at": "2025-01-16T08:00:00.000Z",
    "op": "3f0d7c1e-4c1b-4f0e-9a55-0d1c0d6b7c55",
    "todo": {
        "id": 1, "title": "Learn Dapr", "description": null, "completed": true,
        "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
    },
}))]
pub struct Entry {
    #[serde(flatten)]
    happened: Happened,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// The `Idempotency-Key` of the request, if it had one: a client knows its own changes by it.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<Arc<str>>,
    /// The todo after it; null after a deletion.
    #[schema(value_type = Option<Todo>, required = true)]
    todo: Option<Arc<Todo>>,
}

impl Entry {
    /// What clients see of a change.
    pub fn of(change: &Change) -> Self {
        Self { happened: Happened::of(change), at: change.at, op: change.op.clone(), todo: todo(change).cloned() }
    }
}
