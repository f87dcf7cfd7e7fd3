//! What is answered about todos: the body, the version that it is, and how far the owner's changes have come.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{StatusCode, header::HeaderName};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::caching::private;
use crate::api::error::ApiError;
use crate::api::large_lists::{Counted, LargeList};
use crate::api::sync::SYNC_TOKEN;
use crate::domain::change::Epoch;
use crate::domain::etag::EntityTag;
use crate::domain::sync_token::SyncToken;
use crate::domain::todo::Todo;
use crate::store::idempotency::KeptAnswer;
use crate::store::outcome::{Applied, Outcome};

/// The number of the change that a request has made, or of the last of several: with it, they can be undone.
pub const CHANGE_REVISION: &str = "Change-Revision";
/// Set to `true` where an answer is repeated.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// RFC 7240, section 3.
const PREFERENCE_APPLIED: &str = "Preference-Applied";

/// A todo and its entity tag.
#[derive(Serialize, ToSchema)]
pub struct TaggedTodo {
    #[serde(flatten)]
    #[schema(value_type = Todo)]
    todo: Arc<Todo>,
    /// Its entity tag, for `If-Match`.
    etag: String,
}

impl TaggedTodo {
    /// A todo of the database with this epoch.
    pub fn new(epoch: Epoch, todo: Arc<Todo>) -> Self {
        Self { etag: EntityTag::of(epoch, &todo).quoted(), todo }
    }
}

/// How much was deleted, or removed.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "deleted": 3, "has_more": false }))]
pub struct Deleted {
    /// The number of todos.
    pub deleted: usize,
    /// Whether there are more: then send it again, with another key if it has one.
    pub has_more: bool,
}

/// 200 with a todo.
pub fn ok(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    with_todo(StatusCode::OK, epoch, applied, Vec::new())
}

/// 200 with a todo into which a patch was merged.
pub fn merged(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    with_todo(StatusCode::OK, epoch, applied, vec![(PREFERENCE_APPLIED.to_owned(), "merge".to_owned())])
}

/// 201 with a todo.
pub fn created(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    // Relative to this path: a proxy may serve it under a prefix that it doesn't pass on.
    let id = applied.outcomes.first().and_then(Outcome::todo).map(|todo| todo.id).unwrap_or_default();
    with_todo(StatusCode::CREATED, epoch, applied, vec![(header::LOCATION.to_string(), format!("todos/{id}"))])
}

/// 204.
pub fn no_content(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    Ok(KeptAnswer { status: StatusCode::NO_CONTENT.as_u16(), headers: headers(epoch, applied), body: Vec::new() })
}

/// How far the owner's changes have come, and which was the last that was made.
fn headers(epoch: Epoch, applied: &Applied) -> Vec<(String, String)> {
    let mut headers = vec![(SYNC_TOKEN.to_owned(), SyncToken { epoch, revision: applied.revision }.to_string())];
    let last = applied.outcomes.iter().flat_map(Outcome::changes).last();
    headers.extend(last.map(|change| (CHANGE_REVISION.to_owned(), change.revision.to_string())));
    headers
}

/// 200 with how much was deleted, or removed from the trash.
pub fn deleted(epoch: Epoch, applied: &Applied) -> serde_json::Result<KeptAnswer> {
    let (deleted, has_more) = match applied.outcomes.first() {
        Some(Outcome::Several { changes, more }) => (changes.len(), *more),
        Some(Outcome::Purged { count, more }) => (*count, *more),
        _ => (0, false),
    };
    json(epoch, applied, &Deleted { deleted, has_more })
}

/// 200 with any JSON.
pub fn json(epoch: Epoch, applied: &Applied, body: &impl Serialize) -> serde_json::Result<KeptAnswer> {
    let mut headers = headers(epoch, applied);
    headers.push((header::CONTENT_TYPE.to_string(), "application/json".to_owned()));
    Ok(KeptAnswer { status: StatusCode::OK.as_u16(), headers, body: serde_json::to_vec(body)? })
}

fn with_todo(
    status: StatusCode,
    epoch: Epoch,
    applied: &Applied,
    headers: Vec<(String, String)>,
) -> serde_json::Result<KeptAnswer> {
    let todo = applied.outcomes.first().and_then(Outcome::todo);
    let mut answer = json(epoch, applied, &todo)?;
    answer.status = status.as_u16();
    answer.headers.extend(headers);
    let etag = todo.map(|todo| (header::ETAG.to_string(), EntityTag::of(epoch, todo).quoted()));
    answer.headers.extend(etag);
    Ok(answer)
}

/// Sends an answer; `repeated`: it was given before. `large`: what it counts as if it is large.
pub fn send(answer: KeptAnswer, repeated: bool, large: Option<LargeList>) -> Result<HttpResponse, ApiError> {
    let damaged = |error| ApiError::internal("a kept answer can't be sent", error);
    let status = StatusCode::from_u16(answer.status).map_err(|error| damaged(error.to_string()))?;
    let mut response = HttpResponse::build(status);
    private(&mut response);
    for (name, value) in answer.headers {
        let name = HeaderName::try_from(name).map_err(|error| damaged(error.to_string()))?;
        response.insert_header((name, HeaderValue::try_from(value).map_err(|error| damaged(error.to_string()))?));
    }
    if repeated {
        response.insert_header((REPLAYED, HeaderValue::from_static("true")));
    }
    Ok(match large {
        Some(large) => response.body(Counted::body(answer.body, large)),
        None => response.body(answer.body),
    })
}
