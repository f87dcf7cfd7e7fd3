//! What clients see of the change log: what they have missed, what happens now, what happened to a todo.

pub mod changes;
pub mod entry;
pub mod history;
pub mod live;

use actix_web::web;

use super::error::ApiError;
use super::http::Endpoint;
use crate::domain::sync_token::SyncToken;
use crate::domain::validation::ValidationError;
use crate::store::history::Limit;

/// How far the owner's changes have come: a header of answers.
pub const SYNC_TOKEN: &str = "Sync-Token";

/// The most changes that are answered at once.
const MAX_LIMIT: i64 = 1000;
/// Changes are answered together until they take so much memory, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The routes about changes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/changes").get(changes::list).build())
        .service(Endpoint::new("/events").get(live::follow).build())
        .service(Endpoint::new("/todos/{id}/history").get(history::list).build());
}

/// So many changes as a client asks for, in an answer.
fn limit(sent: Option<i64>) -> Limit {
    Limit { changes: usize::try_from(sent.unwrap_or(MAX_LIMIT)).unwrap_or_default(), bytes: MAX_BYTES }
}

/// Reads a token that was answered before.
fn parse_token(text: &str, loc: &[&'static str]) -> Result<SyncToken, Vec<ValidationError>> {
    let msg = "Value error, this is no Sync-Token: send one as it was answered";
    SyncToken::parse(text).ok_or_else(|| vec![ValidationError::new("value_error", loc, msg, text)])
}

/// A stream of events ends although its client has done nothing.
fn log_broken_stream(error: &ApiError) {
    log::error!("a stream of events breaks off: {error}");
}
