//! What people do with their own accounts: create one, look at it, change its password, delete it.

use std::sync::Arc;

use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::AccountFields;
use super::{AccessToken, tried};
use crate::api::audit::{self, Event};
use crate::api::caching::{created_not_stored, ok_not_stored};
use crate::api::error::ApiError;
use crate::api::http::JsonBody;
use crate::api::responses::{
    Invalid, LastAdmin, NameTaken, PersonalTokenRefused, RegistrationClosed, TooLarge, Unauthenticated, Unavailable,
    UnreadableBody, WrongPassword,
};
use crate::api::state::AppState;
use crate::api::user::LoggedIn;
use crate::auth::password::{Turn, Verdict};
use crate::domain::account::{Role, User, UserId};
use crate::domain::clock::Timestamp;
use crate::store::{AccountCommand, NewAccount};

/// An account as its owner sees it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 4, "username": "alice", "role": "user", "created_at": "2025-01-15T10:30:00.000Z",
}))]
pub struct Account {
    /// Never changes.
    #[schema(value_type = i64)]
    id: UserId,
    /// Never changes.
    #[schema(value_type = String)]
    username: Arc<str>,
    // Decides which routes the account may use.
    #[schema(inline)]
    role: Role,
    /// When the account was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<&User> for Account {
    fn from(user: &User) -> Self {
        Self { id: user.id, username: Arc::clone(&user.username), role: user.role, created_at: user.created_at }
    }
}

/// A new account.
// This and what follows is only for the document: handlers read bodies themselves, to report every error.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "username": "alice", "password": "a long and private sentence" }))]
pub struct Registration {
    /// 1 to 64 letters, digits and `._@+-`. Names that differ only in case are the same.
    #[schema(pattern = "^[A-Za-z0-9._@+-]{1,64}$")]
    username: String,
    /// 8 to 256 bytes in UTF-8. Not one of the most common ones, not one character repeated, and not the account's name,
    /// `todo`, `todobackend` or `password` with a few digits and signs.
    #[schema(format = Password)]
    password: String,
}

/// The present password and the next one.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({
    "current_password": "a long and private sentence", "new_password": "another long and private sentence",
}))]
pub struct PasswordChange {
    /// The present one.
    #[schema(format = Password)]
    current_password: String,
    /// 8 to 256 bytes in UTF-8. Not one of the most common ones, not one character repeated, and not the account's name,
    /// `todo`, `todobackend` or `password` with a few digits and signs.
    #[schema(format = Password)]
    new_password: String,
}

/// The account's password, to be sure.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "password": "a long and private sentence" }))]
pub struct Confirmation {
    /// The account's password.
    #[schema(format = Password)]
    password: String,
}

/// Creates an account.
///
/// With the role user. Unless `REGISTRATION=open`, only admins can create accounts.
#[utoipa::path(
    post, path = "/auth/register", tag = "auth", operation_id = "register", security(()),
    request_body = Registration,
    responses(
        (status = 201, description = "The account was created; log in.", body = Account),
        UnreadableBody, RegistrationClosed, NameTaken, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn register(
    request: HttpRequest,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    if !state.registration_open {
        return Err(ApiError::RegistrationClosed);
    }
    let mut fields = AccountFields::new(body, &["username", "password"])?;
    let username = fields.username();
    let name = username.as_ref().map(ToString::to_string).unwrap_or_default();
    let password = fields.new_password("password", &name);
    let (username, password) = fields.finish(username.zip(password))?;
    let network = state.proxies.client(&request).network;
    let limited = |limited| audit::limited(&request, &state, limited, None);
    let attempt = state.limits.registration(network).map_err(limited)?;
    // The answer would be the same later, after the work of hashing.
    if state.store.account_named(&name).await?.is_some() {
        return Err(ApiError::NameTaken);
    }
    let (password_hash, _counts) = tried(attempt, state.passwords.hash(Turn::Newcomer, password).await)?;
    let new = NewAccount { username, password_hash, role: Role::User };
    let user = state.store.apply_to_account(None, AccountCommand::Create(new)).await?;
    audit::record(&request, &state, Event::Registered(&user));
    Ok(created_not_stored().json(Account::from(user.as_ref())))
}

/// Shows the account that is logged in.
///
/// Also whether a token still works, at little cost.
#[utoipa::path(
    get, path = "/auth/me", tag = "auth", operation_id = "getAccount", security(("bearer" = []), ("password" = [])),
    responses((status = 200, description = "The account.", body = Account), Unauthenticated, PersonalTokenRefused)
)]
pub async fn me(caller: LoggedIn) -> HttpResponse {
    ok_not_stored().json(Account::from(caller.user.as_ref()))
}

/// Changes the password.
///
/// All access tokens of the account end, and all sessions but the current one, whose refresh token goes on working; the
/// answer has a new access token. Personal access tokens stay.
#[utoipa::path(
    post, path = "/auth/password", tag = "auth", operation_id = "changePassword",
    security(("bearer" = []), ("password" = [])),
    request_body = PasswordChange,
    responses(
        (status = 200, description = "The password was changed.", body = AccessToken),
        UnreadableBody, Unauthenticated, WrongPassword, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn change_password(
    request: HttpRequest,
    caller: LoggedIn,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let session = caller.session();
    let LoggedIn { user, authority } = caller;
    let mut fields = AccountFields::new(body, &["current_password", "new_password"])?;
    let current = fields.password("current_password");
    let new = fields.new_password("new_password", &user.username);
    let (current, new) = fields.finish(current.zip(new))?;
    confirm(&request, &state, &user, current).await?;
    let password_hash = state.passwords.hash(Turn::Known(user.id), new).await?;
    let command = AccountCommand::ChangePassword { id: user.id, password_hash, keep: session };
    let user = state.store.apply_to_account(Some(authority), command).await?;
    if let Some(network) = state.proxies.client(&request).network {
        state.store.logged_in(user.id, network, state.clock.now());
    }
    audit::record(&request, &state, Event::PasswordChanged(&user));
    Ok(ok_not_stored().json(AccessToken::issue(&state, &user, session)?))
}

/// Deletes the account that is logged in.
///
/// Its tokens end at once, and its todos are deleted: for each of them a `todo.deleted` event without title and
/// description follows. The name stays taken. Events that were published before can't be taken back.
#[utoipa::path(
    delete, path = "/auth/me", tag = "auth", operation_id = "deleteAccount",
    security(("bearer" = []), ("password" = [])),
    request_body = Confirmation,
    responses(
        (status = 204, description = "The account is deleted."),
        UnreadableBody, Unauthenticated, WrongPassword, LastAdmin, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn delete(
    request: HttpRequest,
    LoggedIn { user, authority }: LoggedIn,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let mut fields = AccountFields::new(body, &["password"])?;
    let password = fields.password("password");
    let password = fields.finish(password)?;
    confirm(&request, &state, &user, password).await?;
    state.store.apply_to_account(Some(authority), AccountCommand::Delete(user.id)).await?;
    audit::record(&request, &state, Event::AccountDeleted(&user));
    Ok(HttpResponse::NoContent().finish())
}

/// Refuses if `password` is not the account's.
async fn confirm(request: &HttpRequest, state: &AppState, user: &User, password: String) -> Result<(), ApiError> {
    // Bodies can come slowly: a token that has ended since tries no password.
    LoggedIn::extract(request).await?;
    let limited = |limited| audit::limited(request, state, limited, Some(user));
    let attempt = state.limits.confirmation(user.id).map_err(limited)?;
    let checked = state.passwords.check(Turn::Known(user.id), password, Some(&user.password_hash)).await;
    match tried(attempt, checked)? {
        (Verdict::Right { .. }, attempt) => {
            attempt.give_back();
            Ok(())
        }
        (Verdict::Wrong, _) => {
            audit::record(request, state, Event::WrongPassword(user));
            Err(ApiError::WrongPassword)
        }
    }
}
