//! The error answers of the API as the document shows them, one type for each status.

// The types exist for the document only: answers are written in `error`.
#![allow(dead_code)]

use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::domain::todo::Todo;
use crate::domain::validation::ValidationError;

/// What went wrong, in one sentence.
#[derive(Serialize, ToSchema)]
#[schema(as = Error, example = json!({ "detail": "Todo not found" }))]
pub struct ErrorBody {
    /// What went wrong.
    detail: String,
}

/// Everything that is wrong with a request.
#[derive(Serialize, ToSchema)]
#[schema(as = ValidationErrors, example = json!({ "detail": [{
    "type": "string_too_short", "loc": ["body", "title"], "msg": "String should have at least 1 character",
    "input": "", "ctx": { "min_length": 1 },
}] }))]
pub struct ValidationErrors {
    /// One entry for each error.
    #[schema(min_items = 1)]
    detail: Vec<ValidationError>,
}

/// An OAuth2 error (RFC 6749, section 5.2).
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthError, example = json!({
    "error": "invalid_grant", "error_description": "Invalid username or password", "detail": "Invalid username or password",
}))]
pub struct OAuthError {
    /// `invalid_request`, `invalid_grant` or `unsupported_grant_type`.
    error: String,
    /// What went wrong.
    error_description: String,
    /// The same text, in the field that all errors of this API have.
    detail: String,
}

/// No token, or one that is not valid.
#[derive(IntoResponses)]
#[response(
    status = 401,
    description = "No token was sent, or it is invalid, has expired or was ended: refresh, or log in again.",
    headers(("WWW-Authenticate" = String, description = "`Bearer`, with an error code where a token was sent (RFC 6750).")),
    examples(
        ("no token" = (value = json!({ "detail": "Not authenticated" }))),
        ("not valid" = (value = json!({ "detail": "Invalid or expired token" }))),
    )
)]
pub struct Unauthenticated(ErrorBody);

/// Wrong name or password.
#[derive(IntoResponses)]
#[response(
    status = 401,
    description = "There is no such user, the password is wrong, or the account is disabled or deleted.",
    headers(("WWW-Authenticate" = String, description = "`Bearer`")),
    example = json!({ "detail": "Invalid username or password" })
)]
pub struct InvalidCredentials(ErrorBody);

/// The token allows something else.
#[derive(IntoResponses)]
#[response(
    status = 403,
    description = "The personal access token allows only reading.",
    headers(("WWW-Authenticate" = String, description = "`Bearer` with `insufficient_scope` (RFC 6750).")),
    example = json!({ "detail": "This token is read-only: create one with the scope write" })
)]
pub struct ReadOnlyToken(ErrorBody);

/// A personal access token where one has to log in.
#[derive(IntoResponses)]
#[response(
    status = 403,
    description = "Personal access tokens are only for todos.",
    headers(("WWW-Authenticate" = String, description = "`Bearer` with `insufficient_scope` (RFC 6750).")),
    example = json!({ "detail": "Personal access tokens are only for todos: log in" })
)]
pub struct PersonalTokenRefused(ErrorBody);

/// No such session.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "The account has no such session.",
    example = json!({ "detail": "Session not found" })
)]
pub struct SessionNotFound(ErrorBody);

/// No such personal access token.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "The account has no such personal access token.",
    example = json!({ "detail": "Token not found" })
)]
pub struct TokenNotFound(ErrorBody);

/// Too many personal access tokens.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The account has 100 personal access tokens already.",
    example = json!({ "detail": "This account has 100 personal access tokens, the most allowed: revoke one first" })
)]
pub struct TooManyTokens(ErrorBody);

/// No such todo.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "The user has no todo with this id, where it was looked for: a deleted one is in the trash.",
    example = json!({ "detail": "Todo not found" })
)]
pub struct TodoNotFound(ErrorBody);

/// A todo can't be restored.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The todo is not deleted, or the user has as many as it may.",
    examples(
        ("not deleted" = (value = json!({ "detail": "Todo is not deleted" }))),
        ("too many" = (value = json!({ "detail": "This user would have more than 100000 todos, the most allowed: delete some first" }))),
    )
)]
pub struct RestoreConflict(ErrorBody);

/// Too many todos.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The user has as many todos as it may, or would have more (MAX_TODOS_PER_USER).",
    example = json!({ "detail": "This user would have more than 100000 todos, the most allowed: delete some first" })
)]
pub struct TooManyTodos(ErrorBody);

/// No such change.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "The user has made no change with this number.",
    example = json!({ "detail": "Change not found" })
)]
pub struct ChangeNotFound(ErrorBody);

/// It is too late to undo a change.
#[derive(IntoResponses)]
#[response(
    status = 410,
    description = "The log does not have the change any more, or what was before it, or its todo was removed for good.",
    example = json!({ "detail": "The change is too old, or its todo was removed: it can't be undone" })
)]
pub struct ChangeGone(ErrorBody);

/// Why a client can't catch up.
#[derive(Serialize, ToSchema)]
#[schema(as = SyncGap, example = json!({
    "detail": "The changes since are not all in the log any more: start over with GET /todos and the Sync-Token of its answer",
    "reason": "pruned",
}))]
pub struct SyncGapBody {
    /// What went wrong.
    detail: String,
    /// `pruned`: the log does not have the next changes any more. `foreign`: the token is of another database. `ahead`: it is of changes
    /// that this user has not had.
    reason: String,
}

/// A client can't catch up.
#[derive(IntoResponses)]
#[response(
    status = 410,
    description = "The client can't catch up from there: start over with `GET /todos` and the `Sync-Token` of its answer."
)]
pub struct SyncGap(SyncGapBody);

/// What is to be undone was changed again.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "detail": "Not undone: what conflict names was changed again since",
    "current": {
        "id": 1, "title": "Learn Dapr", "description": null, "completed": true,
        "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
    },
    "conflict": ["title"],
}))]
pub struct UndoConflictBody {
    /// What went wrong.
    detail: String,
    /// The todo as it is; in the trash, with `deleted_at`.
    #[schema(required = false)]
    current: Todo,
    /// What was changed again: names of fields, and `deleted_at` where that is whether it is deleted.
    #[schema(required = false)]
    conflict: Vec<String>,
}

/// What is to be undone was changed again.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "Fields, or whether the todo is deleted, were changed again since. Or it would be restored, and the user has \
        as many as it may. Nothing was changed.",
    headers(("ETag" = String, description = "The entity tag that the todo has."))
)]
pub struct UndoConflict(UndoConflictBody);

/// What the client has is what there is.
#[derive(IntoResponses)]
#[response(
    status = 304,
    description = "The client has it: `If-None-Match` names what there is.",
    headers(("ETag" = String, description = "The entity tag that was named."))
)]
pub struct NotModified;

/// The todo is not as the client expects.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "detail": "Precondition Failed",
    "current": {
        "id": 1, "title": "Learn Dapr", "description": null, "completed": true,
        "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
    },
}))]
pub struct PreconditionFailedBody {
    /// What went wrong.
    detail: String,
    /// The todo as it is.
    current: Todo,
    /// Only with `Prefer: merge`: the sent fields that have changed since.
    #[schema(required = false)]
    conflict: Vec<String>,
}

/// The todo is not as the client expects.
#[derive(IntoResponses)]
#[response(
    status = 412,
    description = "The todo is not one that `If-Match` names, or one that `If-None-Match` names. Nothing was changed.",
    headers(("ETag" = String, description = "The entity tag that the todo has."))
)]
pub struct PreconditionFailed(PreconditionFailedBody);

/// The list is not as the client expects.
#[derive(IntoResponses)]
#[response(
    status = 412,
    description = "The list is not one that `If-Match` names.",
    headers(("ETag" = String, description = "The entity tag that the list has.")),
    example = json!({ "detail": "Precondition Failed" })
)]
pub struct ListPreconditionFailed(ErrorBody);

/// The todos are not as the client expects.
#[derive(IntoResponses)]
#[response(
    status = 412,
    description = "Something has changed since the list that `If-Match` names. Nothing was deleted.",
    example = json!({ "detail": "Precondition Failed" })
)]
pub struct BulkPreconditionFailed(ErrorBody);

/// The trash is not as the client expects.
#[derive(IntoResponses)]
#[response(
    status = 412,
    description = "The trash has no entity tag: only `If-Match: *` holds.",
    example = json!({ "detail": "Precondition Failed" })
)]
pub struct TrashPreconditionFailed(ErrorBody);

/// A patch of another kind.
#[derive(IntoResponses)]
#[response(
    status = 415,
    description = "It is no kind of patch that is understood.",
    headers(("Accept-Patch" = String, description = "Those that are (RFC 5789).")),
    example = json!({ "detail": "Content-Type must be application/merge-patch+json or application/json" })
)]
pub struct NotMergePatch(ErrorBody);

/// What went wrong, and with which operation of the batch.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "detail": "Todo not found", "operation": 3 }))]
pub struct OperationError {
    /// What went wrong.
    detail: String,
    /// The index of the operation.
    #[schema(minimum = 0)]
    operation: u32,
}

/// A batch is about a todo that does not exist.
#[derive(IntoResponses)]
#[response(status = 404, description = "The user has no todo with the id or `ref` of this operation.")]
pub struct BatchNotFound(OperationError);

/// A batch restores a todo that is not deleted, or creates too many.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The todo of this operation can't be restored: it is not deleted. Or the user would have too many.",
    examples(
        ("not deleted" = (value = json!({ "detail": "Todo is not deleted", "operation": 3 }))),
        ("too many" = (value = json!({
            "detail": "This user would have more than 100000 todos, the most allowed: delete some first", "operation": 3,
        }))),
    )
)]
pub struct BatchConflict(OperationError);

/// A batch's operation is about a todo that is not as the client expects.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "detail": "Precondition Failed",
    "current": {
        "id": 1, "title": "Learn Dapr", "description": null, "completed": true,
        "created_at": "2025-01-15T10:30:00.000Z", "updated_at": "2025-01-16T08:00:00.000Z",
    },
    "operation": 3,
}))]
pub struct OperationPreconditionFailed {
    /// What went wrong.
    detail: String,
    /// The todo as it is.
    current: Todo,
    /// The index of the operation.
    #[schema(minimum = 0)]
    operation: u32,
}

/// A batch's operation is about a todo that is not as the client expects.
#[derive(IntoResponses)]
#[response(
    status = 412,
    description = "The todo of this operation is not one that its `if_match` names. Nothing was changed.",
    headers(("ETag" = String, description = "The entity tag that the todo has."))
)]
pub struct BatchPreconditionFailed(OperationPreconditionFailed);

/// Not an admin.
#[derive(IntoResponses)]
#[response(
    status = 403,
    description = "Requires the role admin, and a login rather than a personal access token.",
    example = json!({ "detail": "Not enough permissions" })
)]
pub struct Forbidden(ErrorBody);

/// No such parked event.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "No event with this id is parked.",
    example = json!({ "detail": "Event not parked" })
)]
pub struct EventNotParked(ErrorBody);

/// No such account.
#[derive(IntoResponses)]
#[response(
    status = 404,
    description = "There is no such account.",
    example = json!({ "detail": "User not found" })
)]
pub struct UserNotFound(ErrorBody);

/// Nobody can create an account for themselves.
#[derive(IntoResponses)]
#[response(
    status = 403,
    description = "Registration is closed: only admins can create accounts.",
    example = json!({ "detail": "Registration is closed: ask an admin for an account" })
)]
pub struct RegistrationClosed(ErrorBody);

/// The password that was asked for again is wrong.
#[derive(IntoResponses)]
#[response(
    status = 403,
    description = "The password is wrong, or it is a personal access token.",
    example = json!({ "detail": "Wrong password" })
)]
pub struct WrongPassword(ErrorBody);

/// The name is taken.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "Another account has this name, or had it.",
    example = json!({ "detail": "Username is taken" })
)]
pub struct NameTaken(ErrorBody);

/// The last admin.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "Nobody would be left who can administer accounts.",
    example = json!({ "detail": "This is the last active admin: make another account an admin first" })
)]
pub struct LastAdmin(ErrorBody);

/// The account is deleted.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The account is deleted.",
    example = json!({ "detail": "The account is deleted" })
)]
pub struct AccountDeleted(ErrorBody);

/// The account can't be changed that way.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The account is deleted, or nobody would be left who can administer accounts.",
    examples(
        ("deleted" = (value = json!({ "detail": "The account is deleted" }))),
        ("last admin" = (value = json!({ "detail": "This is the last active admin: make another account an admin first" }))),
    )
)]
pub struct AccountConflict(ErrorBody);

/// The body can't be read.
#[derive(IntoResponses)]
#[response(
    status = 400,
    description = "The body is not UTF-8, or is incomplete.",
    example = json!({ "detail": "There was an error parsing the body" })
)]
pub struct UnreadableBody(ErrorBody);

/// The body ends too early.
#[derive(IntoResponses)]
#[response(
    status = 400,
    description = "The body is incomplete.",
    example = json!({ "detail": "There was an error parsing the body" })
)]
pub struct IncompleteBody(ErrorBody);

/// The body is too large.
#[derive(IntoResponses)]
#[response(
    status = 413,
    description = "The body is larger than 256 KiB (16 KiB under `/auth`).",
    examples(
        ("elsewhere" = (value = json!({ "detail": "Request body is larger than 262144 bytes" }))),
        ("under /auth" = (value = json!({ "detail": "Request body is larger than 16384 bytes" }))),
    )
)]
pub struct TooLarge(ErrorBody);

/// A batch is too large.
#[derive(IntoResponses)]
#[response(
    status = 413,
    description = "The body is larger than 1 MiB.",
    example = json!({ "detail": "Request body is larger than 1048576 bytes" })
)]
pub struct BatchTooLarge(ErrorBody);

/// An import is too large.
#[derive(IntoResponses)]
#[response(
    status = 413,
    description = "The body is larger than 16 MiB.",
    example = json!({ "detail": "Request body is larger than 16777216 bytes" })
)]
pub struct ImportTooLarge(ErrorBody);

/// Todos in another format.
#[derive(IntoResponses)]
#[response(
    status = 415,
    description = "It is no format that can be imported.",
    headers(("Accept" = String, description = "Those that can.")),
    example = json!({ "detail": "Content-Type must be application/x-ndjson or application/json" })
)]
pub struct NotImportable(ErrorBody);

/// An import at a time.
#[derive(IntoResponses)]
#[response(
    status = 429,
    description = "Todos are being imported for this user already. Or a limit of requests is reached. Nothing was changed.",
    headers(
        ("Retry-After" = u32, description = "Seconds to wait before trying again."),
        ("RateLimit-Policy" = String, description = "For a limit of requests: `\"NAME\";q=QUOTA;w=SECONDS` (draft-ietf-httpapi-ratelimit-headers-10)."),
        ("RateLimit" = String, description = "For a limit of requests: `\"NAME\";r=0;t=SECONDS`."),
    ),
    example = json!({ "detail": "Todos are being imported for this user already" })
)]
pub struct ImportRunning(ErrorBody);

/// Errors of a batch.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "detail": [{
    "type": "string_too_short", "loc": ["body", "operations", 3, "todo", "title"],
    "msg": "String should have at least 1 character", "input": "", "ctx": { "min_length": 1 },
}] }))]
pub struct BatchErrors {
    /// One entry for each error of any operation.
    #[schema(min_items = 1)]
    detail: Vec<ValidationError>,
    /// The index of the operation, if one is refused that was valid by itself.
    #[schema(required = false, minimum = 0)]
    operation: u32,
}

/// A batch is not valid.
#[derive(IntoResponses)]
#[response(status = 422, description = "An operation, or the request, is not valid; all errors are listed.")]
pub struct BatchInvalid(BatchErrors);

/// The request is not valid.
#[derive(IntoResponses)]
#[response(status = 422, description = "The request is not valid; all errors are listed.")]
pub struct Invalid(ValidationErrors);

/// The body comes too slowly.
#[derive(IntoResponses)]
#[response(
    status = 408,
    description = "The body did not come in time: 20 s, and one more for each 500 bytes, unless the operator says otherwise.",
    example = json!({ "detail": "The request body came too slowly" })
)]
pub struct TooSlow(ErrorBody);

/// The query is too long.
#[derive(IntoResponses)]
#[response(
    status = 414,
    description = "The query is longer than 8 KiB; for a page of a list, than what leaves room for the cursor of the next one.",
    example = json!({ "detail": "The query is longer than 8192 bytes" })
)]
pub struct QueryTooLong(ErrorBody);

/// A limit is reached.
#[derive(IntoResponses)]
#[response(
    status = 429,
    description = "A limit of requests, or of passwords that are tried, is reached. Nothing was changed; nobody is logged \
        out by it.",
    headers(
        ("Retry-After" = u32, description = "Seconds to wait before trying again."),
        ("RateLimit-Policy" = String, description = "`\"NAME\";q=QUOTA;w=SECONDS` (draft-ietf-httpapi-ratelimit-headers-10)."),
        ("RateLimit" = String, description = "`\"NAME\";r=0;t=SECONDS`."),
    ),
    example = json!({ "detail": "Too many requests; try again in 5 s" })
)]
pub struct Limited(ErrorBody);

/// Too many large lists at once, or a limit is reached.
#[derive(IntoResponses)]
#[response(
    status = 429,
    description = "8 lists of more than 64 KiB, or batches, are being answered to this user already: read one of them to \
        its end first. Or a limit of requests is reached. Nothing was changed.",
    headers(
        ("Retry-After" = u32, description = "Seconds to wait before trying again."),
        ("RateLimit-Policy" = String, description = "For a limit of requests: `\"NAME\";q=QUOTA;w=SECONDS` (draft-ietf-httpapi-ratelimit-headers-10)."),
        ("RateLimit" = String, description = "For a limit of requests: `\"NAME\";r=0;t=SECONDS`."),
    ),
    examples(
        ("large answers" = (value = json!({ "detail": "Too many large answers are being sent to this user" }))),
        ("requests" = (value = json!({ "detail": "Too many requests; try again in 1 s" }))),
    )
)]
pub struct TooManyLists(ErrorBody);

/// Too many streams at once, or a limit is reached.
#[derive(IntoResponses)]
#[response(
    status = 429,
    description = "The user follows events 32 times already. Or a limit of requests is reached.",
    headers(
        ("Retry-After" = u32, description = "Seconds to wait before trying again."),
        ("RateLimit-Policy" = String, description = "For a limit of requests: `\"NAME\";q=QUOTA;w=SECONDS` (draft-ietf-httpapi-ratelimit-headers-10)."),
        ("RateLimit" = String, description = "For a limit of requests: `\"NAME\";r=0;t=SECONDS`."),
    ),
    examples(
        ("streams" = (value = json!({ "detail": "This user follows events 32 times already, the most allowed: close one first" }))),
        ("requests" = (value = json!({ "detail": "Too many requests; try again in 1 s" }))),
    )
)]
pub struct TooManyStreams(ErrorBody);

/// Why an import has ended.
#[derive(Serialize, ToSchema)]
#[schema(as = ImportError, example = json!({
    "detail": "1500 todos are imported, and then: The change could not be stored; nothing was changed, try again later",
    "imported": 1500,
}))]
pub struct ImportErrorBody {
    /// What went wrong.
    detail: String,
    /// The number of todos that are imported nevertheless, if there are any.
    #[schema(required = false)]
    imported: u32,
}

/// An import would make too many todos.
#[derive(IntoResponses)]
#[response(
    status = 409,
    description = "The user would have more todos than it may (MAX_TODOS_PER_USER).",
    example = json!({ "detail": "This user would have more than 100000 todos, the most allowed: delete some first" })
)]
pub struct ImportConflict(ImportErrorBody);

/// An import has to go on later.
#[derive(IntoResponses)]
#[response(
    status = 503,
    description = "Too many requests are waiting, or the database can't be written: send it again with the same key.",
    headers(("Retry-After" = u32, description = "Seconds to wait before trying again."))
)]
pub struct ImportUnavailable(ImportErrorBody);

/// The database of the log can't be reached.
#[derive(IntoResponses)]
#[response(
    status = 503,
    description = "The database can't be read.",
    headers(("Retry-After" = u32, description = "Seconds to wait before trying again.")),
    example = json!({ "detail": "The database can't be read now; try again later" })
)]
pub struct LogUnavailable(ErrorBody);

/// The store can't take the change now.
#[derive(IntoResponses)]
#[response(
    status = 503,
    description = "Too many requests are waiting, or the database can't be written. The detail says whether anything \
        was changed.",
    headers(("Retry-After" = u32, description = "Seconds to wait before trying again.")),
    example = json!({ "detail": "Too many requests are waiting; nothing was changed, try again" })
)]
pub struct Unavailable(ErrorBody);
