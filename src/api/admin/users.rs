//! `/admin/users`: accounts as operators see them. For the role admin.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::audit::{self, Event};
use crate::api::auth::fields::AccountFields;
use crate::api::caching::{created_not_stored, ok_not_stored};
use crate::api::error::ApiError;
use crate::api::http::JsonBody;
use crate::api::responses::{
    AccountConflict, Forbidden, Invalid, NameTaken, TooLarge, Unauthenticated, Unavailable, UnreadableBody,
    UserNotFound,
};
use crate::api::state::AppState;
use crate::api::user::Admin;
use crate::auth::password::Turn;
use crate::domain::account::{AccountState, Role, User, UserId, Username};
use crate::domain::clock::Timestamp;
use crate::domain::validation::{BodyError, Query, ValidationError, parse_id};
use crate::store::{AccountCommand, AccountUpdate, NewAccount};

/// Accounts in one answer, unless the request says otherwise.
const DEFAULT_LIMIT: i64 = 100;
/// Most accounts in one answer.
const MAX_LIMIT: i64 = 1000;

/// An account as operators see it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 4, "username": "alice", "role": "user", "state": "active", "created_at": "2025-01-15T10:30:00.000Z",
}))]
pub struct AccountDetails {
    /// Never changes.
    #[schema(value_type = i64)]
    id: UserId,
    /// Never changes, and stays taken after a deletion.
    #[schema(value_type = String)]
    username: Arc<str>,
    // Decides which routes the account may use.
    #[schema(inline)]
    role: Role,
    // Whether the account can be used.
    #[schema(inline)]
    state: AccountState,
    /// When the account was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<&User> for AccountDetails {
    fn from(user: &User) -> Self {
        let username = Arc::clone(&user.username);
        Self { id: user.id, username, role: user.role, state: user.state, created_at: user.created_at }
    }
}

/// A new account, with exactly one of a password and the hash of one.
// This and what follows is only for the document: handlers read bodies themselves, to report every error.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "username": "alice", "password": "a long and private sentence", "role": "user" }))]
pub struct NewUser {
    /// 1 to 64 letters, digits and `._@+-`. Names that differ only in case are the same.
    #[schema(pattern = "^[A-Za-z0-9._@+-]{1,64}$")]
    username: String,
    /// As for a registration.
    #[schema(format = Password, required = false)]
    password: String,
    /// Instead of a password: an argon2id PHC string, or a bcrypt hash of another service.
    #[schema(required = false)]
    password_hash: String,
    // What the account may do; user if it is not sent.
    #[schema(inline, required = false)]
    role: Role,
}

/// What to change about an account. What is not sent stays.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "state": "disabled" }))]
pub struct UserChange {
    // What the account may do.
    #[schema(inline, required = false)]
    role: Role,
    /// `active` or `disabled`.
    #[schema(required = false, pattern = "^(active|disabled)$")]
    state: String,
    /// A new password.
    #[schema(format = Password, required = false)]
    password: String,
}

/// Lists accounts.
///
/// By id. Deleted ones are among them, because their names stay taken.
#[utoipa::path(
    get, path = "/admin/users", tag = "admin", operation_id = "listUsers",
    security(("bearer" = []), ("password" = [])),
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 1000, description = "Accounts in the answer; 100 by default."),
        ("after" = Option<i64>, Query, minimum = 0, description = "Only accounts with a higher id."),
    ),
    responses(
        (
            status = 200, description = "The accounts.", body = Vec<AccountDetails>,
            headers(
                ("Link" = String, description = "If there are more: the next page, relative to the request's URL, with `rel=\"next\"`."),
                ("X-Total-Count" = i64, description = "The number of all accounts."),
            )
        ),
        Unauthenticated, Forbidden, Invalid,
    )
)]
pub async fn list(_: Admin, request: HttpRequest, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let mut query = Query::new(request.query_string());
    let limit = query.integer("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let after = UserId(query.integer("after", 0..=i64::MAX).unwrap_or_default());
    query.finish()?;
    // One more, to see whether there are more.
    let wanted = usize::try_from(limit).unwrap_or_default();
    let (mut accounts, count) = state.store.accounts(after, wanted + 1).await?;
    let has_more = accounts.len() > wanted;
    accounts.truncate(wanted);
    let mut response = ok_not_stored();
    response.insert_header(("X-Total-Count", count.to_string()));
    if let Some(last) = accounts.last().filter(|_| has_more) {
        let next = format!("<users?after={}&limit={limit}>; rel=\"next\"", last.id);
        response.insert_header((header::LINK, next));
    }
    Ok(response.json(accounts.iter().map(|user| AccountDetails::from(user.as_ref())).collect::<Vec<_>>()))
}

/// Creates an account.
///
/// Also while registration is closed.
#[utoipa::path(
    post, path = "/admin/users", tag = "admin", operation_id = "createUser",
    security(("bearer" = []), ("password" = [])),
    request_body = NewUser,
    responses(
        (
            status = 201, description = "The account was created.", body = AccountDetails,
            headers(("Location" = String, description = "The new account, relative to the request's URL."))
        ),
        UnreadableBody, Unauthenticated, Forbidden, NameTaken, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn create(
    request: HttpRequest,
    Admin { user: admin, authority }: Admin,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let (username, secret, role) = parse_new_user(body)?;
    if state.store.account_named(&username.to_string()).await?.is_some() {
        return Err(ApiError::NameTaken);
    }
    let password_hash = match secret {
        Secret::Password(password) => state.passwords.hash(Turn::Known(admin.id), password).await?,
        Secret::Hash(hash) => hash,
    };
    let new = NewAccount { username, password_hash, role };
    let user = state.store.apply_to_account(Some(authority), AccountCommand::Create(new)).await?;
    audit::record(&request, &state, Event::UserCreated { user: &user, by: &admin });
    // Relative to this path: a proxy may serve it under a prefix that it doesn't pass on.
    let location = format!("users/{}", user.id);
    Ok(created_not_stored().insert_header((header::LOCATION, location)).json(AccountDetails::from(user.as_ref())))
}

/// Shows an account.
///
/// Also a deleted one.
#[utoipa::path(
    get, path = "/admin/users/{id}", tag = "admin", operation_id = "getUser",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The account's id.", example = 4)),
    responses(
        (status = 200, description = "The account.", body = AccountDetails),
        Unauthenticated, Forbidden, UserNotFound, Invalid,
    )
)]
pub async fn read(_: Admin, id: web::Path<String>, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let user = find(&state, &id).await?;
    Ok(ok_not_stored().json(AccountDetails::from(user.as_ref())))
}

/// Changes an account.
///
/// At least one of its role, its password, and whether it can be used. A new role ends its access tokens; a new password
/// its sessions, too; being disabled also its personal access tokens. The last active admin stays one.
#[utoipa::path(
    patch, path = "/admin/users/{id}", tag = "admin", operation_id = "updateUser",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The account's id.", example = 4)),
    request_body = UserChange,
    responses(
        (status = 200, description = "The account as it is now.", body = AccountDetails),
        UnreadableBody, Unauthenticated, Forbidden, UserNotFound, AccountConflict, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn update(
    request: HttpRequest,
    Admin { user: admin, authority }: Admin,
    id: web::Path<String>,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let user = find(&state, &id).await?;
    let mut fields = AccountFields::new(body, &[])?;
    let sent = ["role", "state", "password"].into_iter().any(|name| fields.has(name));
    let (role, enabled) = (fields.role(), fields.enabled());
    let password = fields.new_password("password", &user.username);
    if !sent {
        let msg = "Field required: at least one of role, state and password";
        fields.refuse(ValidationError::new("missing", &["body"], msg, Value::Null));
    }
    fields.finish(Some(()))?;
    let mut update = AccountUpdate { role, enabled, password_hash: None };
    if let Some(password) = password {
        update.password_hash = Some(state.passwords.hash(Turn::Known(admin.id), password).await?);
    }
    let what = describe(&update);
    let (epoch, command) = (user.token_epoch, AccountCommand::Update(user.id, update));
    let user = state.store.apply_to_account(Some(authority), command).await?;
    if user.token_epoch != epoch {
        audit::record(&request, &state, Event::UserChanged { user: &user, what: &what, by: &admin });
    }
    Ok(ok_not_stored().json(AccountDetails::from(user.as_ref())))
}

/// Deletes an account.
///
/// As its owner can, but without its password.
#[utoipa::path(
    delete, path = "/admin/users/{id}", tag = "admin", operation_id = "deleteUser",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The account's id.", example = 4)),
    responses(
        (status = 204, description = "The account is deleted."),
        Unauthenticated, Forbidden, UserNotFound, AccountConflict, Invalid, Unavailable,
    )
)]
pub async fn delete(
    request: HttpRequest,
    Admin { user: admin, authority }: Admin,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let user = find(&state, &id).await?;
    state.store.apply_to_account(Some(authority), AccountCommand::Delete(user.id)).await?;
    audit::record(&request, &state, Event::UserDeleted { user: &user, by: &admin });
    Ok(HttpResponse::NoContent().finish())
}

async fn find(state: &AppState, id: &str) -> Result<Arc<User>, ApiError> {
    let id = parse_id(id)?.map(UserId).ok_or(ApiError::UserNotFound)?;
    state.store.account(id).await?.ok_or(ApiError::UserNotFound)
}

/// How a new account's password is given.
enum Secret {
    Password(String),
    Hash(Box<str>),
}

fn parse_new_user(body: Result<Map<String, Value>, BodyError>) -> Result<(Username, Secret, Role), ApiError> {
    let mut fields = AccountFields::new(body, &["username"])?;
    let username = fields.username();
    let name = username.as_ref().map(ToString::to_string).unwrap_or_default();
    let given = fields.has("password") || fields.has("password_hash");
    let both = fields.has("password") && fields.has("password_hash");
    let (password, hash) = (fields.new_password("password", &name), fields.password_hash());
    let role = fields.role().unwrap_or(Role::User);
    if !given {
        let msg = "Field required: either password or password_hash";
        fields.refuse(ValidationError::new("missing", &["body", "password"], msg, Value::Null));
    }
    if both {
        let msg = "Only one of password and password_hash can be given";
        fields.refuse(ValidationError::new("value_error", &["body", "password_hash"], msg, Value::Null));
    }
    let secret = password.map(Secret::Password).or(hash.map(Secret::Hash));
    let (username, secret) = fields.finish(username.zip(secret))?;
    Ok((username, secret, role))
}

/// What an update changes, for the log.
fn describe(update: &AccountUpdate) -> String {
    let state = |enabled| if enabled { "enabled" } else { "disabled" };
    let parts = [
        update.role.map(|role| format!("role {}", role.name())),
        update.enabled.map(|enabled| state(enabled).to_owned()),
        update.password_hash.as_ref().map(|_| "password".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<String>>().join(", ")
}
