//! Every way a request can fail, and the one place where that becomes HTTP.

use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde_json::{Value, json};
use thiserror::Error;

use super::caching::private;
use super::limits;
use crate::auth::limits::Limited;
use crate::domain::todo::Todo;
use crate::domain::todo::field::Field;
use crate::domain::todo::tags::MAX_TAGS;
use crate::domain::validation::{BodyError, Location, ValidationError, location};
use crate::store::decide::Refusal;
use crate::store::error::{DatabaseError, StoreError};
use crate::store::history::{Gap, HistoryError};

/// Why a request failed. Bodies are `{"detail": …}`, like FastAPI's.
#[derive(Debug)]
pub enum ApiError {
    /// 422 with every error of the request.
    Invalid(Vec<ValidationError>),
    /// 400: the `Host` header is malformed.
    InvalidHost,
    /// 400: the body is not UTF-8, or is incomplete.
    UnreadableBody,
    /// 413: the body is too large.
    PayloadTooLarge {
        /// The largest body that is read, in bytes.
        limit: usize,
    },
    /// 415: the body is not sent as JSON.
    NotJson,
    /// 401: no `Authorization: Bearer …`.
    NotAuthenticated,
    /// 401: the token is not ours or has expired, or was ended together with others of its account.
    InvalidToken,
    /// 401 of `/auth/login`.
    InvalidCredentials,
    /// 400 of `/auth/token` (RFC 6749, section 5.2).
    OAuth {
        /// The error code of the RFC.
        code: &'static str,
        /// What went wrong, for people.
        description: &'static str,
    },
    /// 401: the sidecar sent no token, or a wrong one.
    SidecarToken,
    /// 403: only for admins.
    Forbidden,
    /// 403: the personal access token allows only reading (RFC 6750, section 3.1).
    ReadOnlyToken,
    /// 403: personal access tokens are for todos.
    PersonalToken,
    /// 404: the account has no such session.
    SessionNotFound,
    /// 404: the account has no such personal access token.
    TokenNotFound,
    /// 409: the account has as many personal access tokens as it may.
    TooManyTokens,
    /// 403: only admins can create accounts.
    RegistrationClosed,
    /// 403: a password was asked for again, and it was wrong. No 401, to which clients answer by logging out.
    WrongPassword,
    /// 404: no event with this id is parked.
    EventNotParked,
    /// 404: there is no such account.
    UserNotFound,
    /// 409: another account has this name, or had it.
    NameTaken,
    /// 409: nobody would be left who can administer accounts.
    LastAdmin,
    /// 409: the account is deleted.
    AccountDeleted,
    /// 404: no such todo of this user.
    TodoNotFound,
    /// 409: the todo can't be restored, because it is not deleted.
    NotDeleted,
    /// 409: the user has as many todos as it may.
    TooManyTodos {
        /// So many.
        limit: usize,
    },
    /// 404: the user has made no such change.
    ChangeNotFound,
    /// 410: a change can't be undone any more.
    ChangeGone,
    /// 409: a change can't be undone, because a later one is about the same.
    ChangedSince {
        /// The entity tag that the todo has.
        etag: String,
        /// The todo as it is.
        current: Arc<Todo>,
        /// Whether it is in the trash.
        is_trashed: bool,
        /// What both are about: names of fields, and `deleted_at`.
        conflict: Vec<&'static str>,
    },
    /// 410: a client can't catch up from where it is.
    SyncGap(Gap),
    /// 429: too many streams of events are open for this user.
    TooManyStreams {
        /// So many.
        limit: usize,
    },
    /// An import has ended before its end.
    Import {
        /// Todos that were imported until then.
        imported: usize,
        /// Why.
        error: Box<Self>,
    },
    /// 429: todos are being imported for this user.
    ImportRunning,
    /// 415: not a format of todos that can be imported.
    NotImportable,
    /// 412: what the request is about is not as the client expects.
    PreconditionFailed {
        /// The entity tag that it has, if it has one.
        etag: Option<String>,
        /// The todo, if it is one, as it is.
        current: Option<Arc<Todo>>,
        /// The sent fields that others have changed, if merging was asked for.
        conflict: Vec<Field>,
    },
    /// An operation of a batch is refused, as if it had been a request of its own.
    Operation {
        /// Its index.
        index: usize,
        /// Why.
        error: Box<Self>,
    },
    /// 415: not a kind of patch that is understood.
    NotMergePatch,
    /// 404: no such path.
    NotFound,
    /// 405: the path does not have this method.
    MethodNotAllowed {
        /// The methods that it has, separated by commas.
        allow: String,
    },
    /// 408: the body came too slowly.
    TooSlow,
    /// 414: the query is too long.
    QueryTooLong {
        /// The longest query, in bytes.
        limit: usize,
    },
    /// 429: a limit of requests, or of passwords, is reached.
    Limited(Limited),
    /// 429: too many large lists, or answers to batches, are being sent to this user.
    TooManyLists,
    /// 503: too many requests are waiting. Nothing was changed.
    Busy,
    /// 503: the store can't write. Nothing was changed.
    NotStored,
    /// 503: it is unknown whether the store wrote the change.
    OutcomeUnknown,
    /// 503: the database of the log can't be reached.
    LogUnavailable,
    /// 500: a fault of the service. The client learns nothing about it; `log_fault` logs it.
    Internal(Fault),
}

/// What failed, and why: one line with all causes.
#[derive(Debug, Error)]
#[error("{what}{}", causes(source.as_ref()))]
pub struct Fault {
    what: &'static str,
    source: Box<dyn Error>,
}

impl ApiError {
    /// A fault of the service: `what` can't be done, because of `source`.
    pub fn internal(what: &'static str, source: impl Into<Box<dyn Error>>) -> Self {
        Self::Internal(Fault { what, source: source.into() })
    }

    /// What happened can't be read from the log.
    pub fn unreadable(error: DatabaseError) -> Self {
        Self::unread("what happened can't be read", error)
    }

    /// The same for something else: `what` can't be read.
    pub fn unread(what: &'static str, error: DatabaseError) -> Self {
        if error.is_away() { Self::LogUnavailable } else { Self::internal(what, error) }
    }
}

/// Logs why a request was answered 500, with the request's id; nothing else does. All other 5xx are 503, about the
/// store or its queue: the store logs its state once, not for each request.
pub fn log_fault(response: &HttpResponse<impl MessageBody>, method: &str, route: &str, request_id: &str) {
    if let Some(ApiError::Internal(fault)) = response.error().and_then(|error| error.as_error()) {
        log::error!("{method} {route} failed: {fault} request_id={request_id}");
    }
}

/// The limit that a request was answered 429 for, except that of large lists.
pub fn limit(response: &HttpResponse<impl MessageBody>) -> Option<&'static str> {
    match response.error().and_then(|error| error.as_error()) {
        Some(ApiError::Limited(limited)) => Some(limited.policy),
        _ => None,
    }
}

/// An error and the errors behind it; many repeat the next one's text in their own, which is not said twice.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in successors(Some(error), |&error| error.source()).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

impl ApiError {
    /// `at`: where the todo is in the body, if it is there.
    fn refused(refusal: Refusal, mut at: Vec<Location>) -> Self {
        match refusal {
            Refusal::TodoNotFound => Self::TodoNotFound,
            Refusal::NotInTrash => Self::NotDeleted,
            Refusal::PreconditionFailed { current, etag, conflict } => {
                Self::PreconditionFailed { etag: Some(etag.quoted()), current: Some(current), conflict }
            }
            Refusal::TooManyTodos { limit } => Self::TooManyTodos { limit },
            Refusal::ChangeNotFound => Self::ChangeNotFound,
            Refusal::ChangeGone => Self::ChangeGone,
            Refusal::ChangedSince { current, is_trashed, etag, conflict } => {
                Self::ChangedSince { etag: etag.quoted(), current, is_trashed, conflict }
            }
            Refusal::NoSuchTrash | Refusal::ListChanged => {
                Self::PreconditionFailed { etag: None, current: None, conflict: Vec::new() }
            }
            Refusal::TooManyTags => {
                at.push("tags_add".into());
                let msg = format!("The todo would have more than {MAX_TAGS} tags");
                Self::Invalid(vec![
                    ValidationError::at("too_long", at, msg, Value::Null).with(json!({ "max_length": MAX_TAGS })),
                ])
            }
            Refusal::KeyReused => {
                let msg = "Another request had this key: use a new key";
                let loc = ["header", "Idempotency-Key"];
                Self::Invalid(vec![ValidationError::new("idempotency_key_reused", &loc, msg, Value::Null)])
            }
            Refusal::CannotMerge => {
                let msg = "With Prefer: merge, If-Match should be the one entity tag that the client knows";
                Self::Invalid(vec![ValidationError::new("value_error", &["header", "If-Match"], msg, Value::Null)])
            }
            Refusal::Unanswerable => Self::internal(
                "a request can't be answered",
                "what it needs can't be read, or its answer not be written",
            ),
            Refusal::NoLongerAllowed => Self::InvalidToken,
            Refusal::AccountNotFound => Self::UserNotFound,
            Refusal::AccountDeleted => Self::AccountDeleted,
            Refusal::NameTaken => Self::NameTaken,
            Refusal::LastAdmin => Self::LastAdmin,
            Refusal::InvalidGrant => {
                Self::OAuth { code: "invalid_grant", description: "Invalid or expired refresh token" }
            }
            Refusal::SessionNotFound => Self::SessionNotFound,
            Refusal::TokenNotFound => Self::TokenNotFound,
            Refusal::TooManyTokens => Self::TooManyTokens,
        }
    }
}

impl From<Vec<ValidationError>> for ApiError {
    fn from(errors: Vec<ValidationError>) -> Self {
        Self::Invalid(errors)
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::NotText => Self::UnreadableBody,
            BodyError::Invalid(errors) => Self::Invalid(errors),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::refused(refusal, location(&["body"])),
            StoreError::OperationRefused { operation, refusal } => {
                let at = vec!["body".into(), "operations".into(), operation.into(), "todo".into()];
                Self::Operation { index: operation, error: Box::new(Self::refused(refusal, at)) }
            }
            StoreError::Busy => Self::Busy,
            StoreError::NotApplied => Self::NotStored,
            StoreError::Unknown => Self::OutcomeUnknown,
            StoreError::Unreadable => Self::LogUnavailable,
        }
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Gap(gap) => Self::SyncGap(gap),
            HistoryError::Database(error) => Self::unreadable(error),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::InvalidHost | Self::UnreadableBody | Self::OAuth { .. } => StatusCode::BAD_REQUEST,
            Self::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson | Self::NotMergePatch | Self::NotImportable => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::PreconditionFailed { .. } => StatusCode::PRECONDITION_FAILED,
            Self::Operation { error, .. } | Self::Import { error, .. } => error.status_code(),
            Self::NotAuthenticated | Self::InvalidToken | Self::InvalidCredentials | Self::SidecarToken => {
                StatusCode::UNAUTHORIZED
            }
            Self::Forbidden
            | Self::RegistrationClosed
            | Self::WrongPassword
            | Self::ReadOnlyToken
            | Self::PersonalToken => StatusCode::FORBIDDEN,
            Self::NameTaken
            | Self::LastAdmin
            | Self::AccountDeleted
            | Self::TooManyTokens
            | Self::TooManyTodos { .. }
            | Self::ChangedSince { .. }
            | Self::NotDeleted => StatusCode::CONFLICT,
            Self::ChangeGone | Self::SyncGap(_) => StatusCode::GONE,
            Self::TodoNotFound
            | Self::ChangeNotFound
            | Self::NotFound
            | Self::EventNotParked
            | Self::UserNotFound
            | Self::SessionNotFound
            | Self::TokenNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::QueryTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::Limited(_) | Self::TooManyLists | Self::TooManyStreams { .. } | Self::ImportRunning => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Busy | Self::NotStored | Self::OutcomeUnknown | Self::LogUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::Invalid(errors) => response.json(json!({ "detail": errors })),
            Self::InvalidHost => detail(&mut response, "The Host header is not HOST or HOST:PORT"),
            Self::UnreadableBody => detail(&mut response, "There was an error parsing the body"),
            Self::PayloadTooLarge { limit } => {
                detail(&mut response, &format!("Request body is larger than {limit} bytes"))
            }
            // RFC 9110, section 15.5.16: what would have been accepted.
            Self::NotJson => detail(
                response.insert_header((header::ACCEPT, "application/cloudevents+json, application/json")),
                "Content-Type must be application/cloudevents+json or application/json",
            ),
            // RFC 5789, section 2.2.
            Self::NotMergePatch => detail(
                response.insert_header(("Accept-Patch", "application/merge-patch+json, application/json")),
                "Content-Type must be application/merge-patch+json or application/json",
            ),
            Self::NotImportable => detail(
                response.insert_header((header::ACCEPT, "application/x-ndjson, application/json")),
                "Content-Type must be application/x-ndjson or application/json",
            ),
            Self::NotDeleted => detail(&mut response, "Todo is not deleted"),
            Self::TooManyTodos { limit } => detail(
                &mut response,
                &format!("This user would have more than {limit} todos, the most allowed: delete some first"),
            ),
            Self::ChangeNotFound => detail(&mut response, "Change not found"),
            Self::ChangeGone => {
                detail(&mut response, "The change is too old, or its todo was removed: it can't be undone")
            }
            Self::ChangedSince { etag, current, is_trashed, conflict } => {
                let detail = "Not undone: what conflict names was changed again since";
                let mut body = json!({ "detail": detail, "current": current, "conflict": conflict });
                if *is_trashed {
                    body["current"]["deleted_at"] = json!(current.updated_at);
                }
                private(response.insert_header((header::ETAG, etag.as_str()))).json(body)
            }
            Self::SyncGap(gap) => {
                let what = match gap {
                    Gap::Pruned => "The changes since are not all in the log any more",
                    Gap::Foreign => "The token is of another database, or from before a backup was restored",
                    Gap::Ahead => "The token is of changes that this user has not had",
                };
                let detail = format!("{what}: start over with GET /todos and the Sync-Token of its answer");
                response.insert_header((header::CACHE_CONTROL, "no-store"));
                response.json(json!({ "detail": detail, "reason": gap.name() }))
            }
            Self::TooManyStreams { limit } => retry(
                &mut response,
                30,
                &format!("This user follows events {limit} times already, the most allowed: close one first"),
            ),
            Self::Import { imported, error } => {
                let say = |detail: &str| format!("{imported} todos are imported, and then: {detail}");
                with(error, |body| {
                    body["imported"] = json!(imported);
                    if let Some(detail) = body["detail"].as_str().map(say) {
                        body["detail"] = detail.into();
                    }
                })
            }
            Self::ImportRunning => retry(&mut response, 1, "Todos are being imported for this user already"),
            Self::PreconditionFailed { etag, current, conflict } => {
                let mut body = json!({ "detail": "Precondition Failed" });
                if let Some(current) = current {
                    body["current"] = json!(current);
                }
                if !conflict.is_empty() {
                    body["conflict"] = json!(conflict);
                }
                if let Some(etag) = etag {
                    response.insert_header((header::ETAG, etag.as_str()));
                }
                private(&mut response).json(body)
            }
            Self::Operation { index, error } => with(error, |body| body["operation"] = json!(index)),
            Self::NotAuthenticated => challenge(&mut response, "Bearer", "Not authenticated"),
            Self::InvalidToken => challenge(
                &mut response,
                // RFC 6750, section 3.1: an error code only where a token was sent.
                r#"Bearer error="invalid_token", error_description="Invalid or expired token""#,
                "Invalid or expired token",
            ),
            Self::InvalidCredentials => challenge(&mut response, "Bearer", "Invalid username or password"),
            Self::OAuth { code, description } => response
                .insert_header((header::CACHE_CONTROL, "no-store"))
                .json(json!({ "error": code, "error_description": description, "detail": description })),
            Self::SidecarToken => challenge(&mut response, "Bearer", "Invalid or missing dapr-api-token"),
            Self::Forbidden => detail(&mut response, "Not enough permissions"),
            Self::ReadOnlyToken => challenge(
                &mut response,
                r#"Bearer error="insufficient_scope", scope="write""#,
                "This token is read-only: create one with the scope write",
            ),
            Self::PersonalToken => challenge(
                &mut response,
                r#"Bearer error="insufficient_scope""#,
                "Personal access tokens are only for todos: log in",
            ),
            Self::SessionNotFound => detail(&mut response, "Session not found"),
            Self::TokenNotFound => detail(&mut response, "Token not found"),
            Self::TooManyTokens => {
                detail(&mut response, "This account has 100 personal access tokens, the most allowed: revoke one first")
            }
            Self::RegistrationClosed => detail(&mut response, "Registration is closed: ask an admin for an account"),
            Self::WrongPassword => detail(&mut response, "Wrong password"),
            Self::NameTaken => detail(&mut response, "Username is taken"),
            Self::LastAdmin => {
                detail(&mut response, "This is the last active admin: make another account an admin first")
            }
            Self::AccountDeleted => detail(&mut response, "The account is deleted"),
            Self::EventNotParked => detail(&mut response, "Event not parked"),
            Self::UserNotFound => detail(&mut response, "User not found"),
            Self::TodoNotFound => detail(&mut response, "Todo not found"),
            Self::NotFound => detail(&mut response, "Not Found"),
            Self::MethodNotAllowed { allow } => {
                detail(response.insert_header((header::ALLOW, allow.as_str())), "Method Not Allowed")
            }
            Self::TooSlow => detail(&mut response, "The request body came too slowly"),
            Self::QueryTooLong { limit } => detail(&mut response, &format!("The query is longer than {limit} bytes")),
            Self::Limited(limited) => {
                limits::explain(&mut response, limited);
                detail(&mut response, &format!("Too many requests; try again in {} s", limited.retry_after))
            }
            Self::TooManyLists => retry(&mut response, 1, "Too many large answers are being sent to this user"),
            Self::Busy => retry(&mut response, 1, "Too many requests are waiting; nothing was changed, try again"),
            Self::NotStored => {
                retry(&mut response, 5, "The change could not be stored; nothing was changed, try again later")
            }
            Self::OutcomeUnknown => {
                retry(&mut response, 5, "It is not known whether the change was stored; look before you try again")
            }
            Self::LogUnavailable => retry(&mut response, 5, "The database can't be read now; try again later"),
            Self::Internal(_) => detail(&mut response, "Internal Server Error"),
        }
    }
}

fn detail(response: &mut HttpResponseBuilder, text: &str) -> HttpResponse {
    response.json(json!({ "detail": text }))
}

/// The answer to `error`, with something else in its body.
fn with(error: &ApiError, change: impl FnOnce(&mut Value)) -> HttpResponse {
    let (response, body) = error.error_response().into_parts();
    let body = body.try_into_bytes().ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut body: Value = body.unwrap_or_else(|| json!({}));
    change(&mut body);
    response.set_body(BoxBody::new(body.to_string()))
}

fn challenge(response: &mut HttpResponseBuilder, scheme: &str, text: &str) -> HttpResponse {
    detail(response.insert_header((header::WWW_AUTHENTICATE, scheme)), text)
}

fn retry(response: &mut HttpResponseBuilder, seconds: u32, text: &str) -> HttpResponse {
    detail(response.insert_header((header::RETRY_AFTER, seconds.to_string())), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn every_error_has_its_status_headers_and_body() {
        let error = ValidationError::missing(&["body"], Value::Null);
        let invalid_token = r#"Bearer error="invalid_token", error_description="Invalid or expired token""#;
        let table = [
            (ApiError::Invalid(vec![error.clone()]), 422, None, json!([error])),
            (ApiError::TooSlow, 408, None, json!("The request body came too slowly")),
            (ApiError::QueryTooLong { limit: 9 }, 414, None, json!("The query is longer than 9 bytes")),
            (
                ApiError::Limited(Limited { policy: "logins", quota: 30, window: 300, retry_after: 7 }),
                429,
                Some(("ratelimit-policy", "\"logins\";q=30;w=300")),
                json!("Too many requests; try again in 7 s"),
            ),
            (ApiError::InvalidHost, 400, None, json!("The Host header is not HOST or HOST:PORT")),
            (ApiError::UnreadableBody, 400, None, json!("There was an error parsing the body")),
            (ApiError::PayloadTooLarge { limit: 9 }, 413, None, json!("Request body is larger than 9 bytes")),
            (
                ApiError::NotJson,
                415,
                Some(("accept", "application/cloudevents+json, application/json")),
                json!("Content-Type must be application/cloudevents+json or application/json"),
            ),
            (ApiError::NotAuthenticated, 401, Some(("www-authenticate", "Bearer")), json!("Not authenticated")),
            (ApiError::InvalidToken, 401, Some(("www-authenticate", invalid_token)), json!("Invalid or expired token")),
            (
                ApiError::InvalidCredentials,
                401,
                Some(("www-authenticate", "Bearer")),
                json!("Invalid username or password"),
            ),
            (
                ApiError::OAuth { code: "invalid_grant", description: "no" },
                400,
                Some(("cache-control", "no-store")),
                json!("no"),
            ),
            (
                ApiError::SidecarToken,
                401,
                Some(("www-authenticate", "Bearer")),
                json!("Invalid or missing dapr-api-token"),
            ),
            (ApiError::Forbidden, 403, None, json!("Not enough permissions")),
            (
                ApiError::ReadOnlyToken,
                403,
                Some(("www-authenticate", r#"Bearer error="insufficient_scope", scope="write""#)),
                json!("This token is read-only: create one with the scope write"),
            ),
            (
                ApiError::PersonalToken,
                403,
                Some(("www-authenticate", r#"Bearer error="insufficient_scope""#)),
                json!("Personal access tokens are only for todos: log in"),
            ),
            (ApiError::SessionNotFound, 404, None, json!("Session not found")),
            (ApiError::TokenNotFound, 404, None, json!("Token not found")),
            (
                ApiError::TooManyTokens,
                409,
                None,
                json!("This account has 100 personal access tokens, the most allowed: revoke one first"),
            ),
            (ApiError::RegistrationClosed, 403, None, json!("Registration is closed: ask an admin for an account")),
            (ApiError::WrongPassword, 403, None, json!("Wrong password")),
            (ApiError::NameTaken, 409, None, json!("Username is taken")),
            (
                ApiError::LastAdmin,
                409,
                None,
                json!("This is the last active admin: make another account an admin first"),
            ),
            (ApiError::AccountDeleted, 409, None, json!("The account is deleted")),
            (ApiError::EventNotParked, 404, None, json!("Event not parked")),
            (ApiError::UserNotFound, 404, None, json!("User not found")),
            (ApiError::TodoNotFound, 404, None, json!("Todo not found")),
            (ApiError::NotDeleted, 409, None, json!("Todo is not deleted")),
            (
                ApiError::PreconditionFailed { etag: Some("\"x\"".into()), current: None, conflict: Vec::new() },
                412,
                Some(("etag", "\"x\"")),
                json!("Precondition Failed"),
            ),
            (
                ApiError::TooManyTodos { limit: 7 },
                409,
                None,
                json!("This user would have more than 7 todos, the most allowed: delete some first"),
            ),
            (ApiError::ChangeNotFound, 404, None, json!("Change not found")),
            (
                ApiError::ChangeGone,
                410,
                None,
                json!("The change is too old, or its todo was removed: it can't be undone"),
            ),
            (
                ApiError::Import { imported: 1500, error: Box::new(ApiError::NotStored) },
                503,
                Some(("retry-after", "5")),
                json!(
                    "1500 todos are imported, and then: The change could not be stored; nothing was changed, try again later"
                ),
            ),
            (
                ApiError::ImportRunning,
                429,
                Some(("retry-after", "1")),
                json!("Todos are being imported for this user already"),
            ),
            (
                ApiError::NotImportable,
                415,
                Some(("accept", "application/x-ndjson, application/json")),
                json!("Content-Type must be application/x-ndjson or application/json"),
            ),
            (
                ApiError::Operation { index: 3, error: Box::new(ApiError::TodoNotFound) },
                404,
                Some(("content-type", "application/json")),
                json!("Todo not found"),
            ),
            (
                ApiError::NotMergePatch,
                415,
                Some(("accept-patch", "application/merge-patch+json, application/json")),
                json!("Content-Type must be application/merge-patch+json or application/json"),
            ),
            (
                ApiError::SyncGap(Gap::Pruned),
                410,
                Some(("cache-control", "no-store")),
                json!(
                    "The changes since are not all in the log any more: start over with GET /todos and the Sync-Token of its answer"
                ),
            ),
            (
                ApiError::TooManyStreams { limit: 32 },
                429,
                Some(("retry-after", "30")),
                json!("This user follows events 32 times already, the most allowed: close one first"),
            ),
            (ApiError::NotFound, 404, None, json!("Not Found")),
            (
                ApiError::MethodNotAllowed { allow: "GET, HEAD".into() },
                405,
                Some(("allow", "GET, HEAD")),
                json!("Method Not Allowed"),
            ),
            (
                ApiError::TooManyLists,
                429,
                Some(("retry-after", "1")),
                json!("Too many large answers are being sent to this user"),
            ),
            (
                ApiError::Busy,
                503,
                Some(("retry-after", "1")),
                json!("Too many requests are waiting; nothing was changed, try again"),
            ),
            (
                ApiError::NotStored,
                503,
                Some(("retry-after", "5")),
                json!("The change could not be stored; nothing was changed, try again later"),
            ),
            (
                ApiError::OutcomeUnknown,
                503,
                Some(("retry-after", "5")),
                json!("It is not known whether the change was stored; look before you try again"),
            ),
            (
                ApiError::LogUnavailable,
                503,
                Some(("retry-after", "5")),
                json!("The database can't be read now; try again later"),
            ),
            (ApiError::internal("x", "secret"), 500, None, json!("Internal Server Error")),
        ];
        for (error, status, header, detail) in table {
            let response = error.error_response();
            assert_eq!(response.status().as_u16(), status, "{error}");
            if let Some((name, value)) = header {
                assert_eq!(response.headers().get(name).unwrap(), value, "{error}");
            }
            let body: Value = serde_json::from_slice(&to_bytes(response.into_body()).await.unwrap()).unwrap();
            assert_eq!(body["detail"], detail, "{error}");
        }
    }

    #[test]
    fn a_fault_says_each_of_its_causes_once() {
        #[derive(Debug, Error)]
        #[error("the disk: {0}")]
        struct Disk(#[source] std::io::Error);
        #[derive(Debug, Error)]
        #[error("a read failed")]
        struct Read(#[source] Disk);
        let error = Read(Disk(std::io::Error::other("it is gone")));
        let ApiError::Internal(fault) = ApiError::internal("events can't be listed", error) else { panic!() };
        assert_eq!(fault.to_string(), "events can't be listed: a read failed: the disk: it is gone");
    }
}
