//! `/auth`: logging in, and what people do with their own accounts.

pub mod account;
pub mod fields;
pub mod login;
pub mod personal_tokens;
pub mod sessions;

use actix_web::web;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::ApiError;
use super::http::Endpoint;
use super::state::AppState;
use crate::auth::limits::Attempt;
use crate::auth::opaque_tokens::RefreshToken;
use crate::auth::password::CheckError;
use crate::domain::account::User;
use crate::domain::session::SessionId;
use crate::domain::validation::ValidationError;

/// Largest body that is read, in bytes. Anybody can send one, so it may take only a little memory.
const MAX_CREDENTIALS_LEN: usize = 16 << 10;

/// The routes under `/auth`.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(Endpoint::new("/auth/login").body_limit(MAX_CREDENTIALS_LEN).post(login::login).build())
        .service(Endpoint::new("/auth/token").body_limit(MAX_CREDENTIALS_LEN).post(login::token).build())
        .service(Endpoint::new("/auth/register").body_limit(MAX_CREDENTIALS_LEN).post(account::register).build())
        .service(Endpoint::new("/auth/revoke").body_limit(MAX_CREDENTIALS_LEN).post(sessions::revoke).build())
        .service(Endpoint::new("/auth/logout-all").body_limit(MAX_CREDENTIALS_LEN).post(sessions::log_out).build())
        .service(Endpoint::new("/auth/sessions").get(sessions::list).build())
        .service(Endpoint::new("/auth/sessions/{id}").delete(sessions::end).build())
        .service(
            Endpoint::new("/auth/tokens")
                .body_limit(MAX_CREDENTIALS_LEN)
                .get(personal_tokens::list)
                .post(personal_tokens::create)
                .build(),
        )
        .service(Endpoint::new("/auth/tokens/{id}").delete(personal_tokens::revoke).build())
        .service(
            Endpoint::new("/auth/me").body_limit(MAX_CREDENTIALS_LEN).get(account::me).delete(account::delete).build(),
        )
        .service(
            Endpoint::new("/auth/password").body_limit(MAX_CREDENTIALS_LEN).post(account::change_password).build(),
        );
}

/// The answer to a login, a refresh or a new password.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln", "token_type": "bearer", "expires_in": 1800,
    "refresh_token": "tdr_7_c5a1f09b3de24e6788796a5b4c3d2e1f0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
}))]
pub struct AccessToken {
    /// A JWT: send it as `Authorization: Bearer TOKEN`.
    access_token: String,
    /// Always `bearer`.
    token_type: &'static str,
    /// How long the token is valid, in seconds. Not from `/auth/login`.
    #[schema(value_type = u64, required = false, minimum = 1)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    /// Only from `/auth/token`: exchange it there, once, for the next pair (`grant_type=refresh_token`).
    #[schema(required = false, value_type = String)]
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl AccessToken {
    /// A new token for `user`, in a session or in none.
    fn issue(state: &AppState, user: &User, session: Option<SessionId>) -> Result<Self, ApiError> {
        let token = state.keys.issue(user, session, state.clock.now().seconds());
        let access_token = token.map_err(|error| ApiError::internal("a token can't be issued", error))?;
        let expires_in = Some(state.keys.ttl().as_secs());
        Ok(Self { access_token, token_type: "bearer", expires_in, refresh_token: None })
    }

    /// As the original answered a login.
    fn only(self) -> Self {
        Self { expires_in: None, ..self }
    }

    fn with_refresh_token(self, token: &RefreshToken) -> Self {
        Self { refresh_token: Some(token.to_string()), ..self }
    }
}

impl From<CheckError> for ApiError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Busy => Self::Busy,
            failed => Self::internal("a password can't be hashed or checked", failed),
        }
    }
}

/// What became of an attempt. One that was not looked at does not count.
fn tried<T>(attempt: Attempt, outcome: Result<T, CheckError>) -> Result<(T, Attempt), ApiError> {
    match outcome {
        Ok(value) => Ok((value, attempt)),
        Err(error) => {
            if matches!(error, CheckError::Busy) {
                attempt.give_back();
            }
            Err(error.into())
        }
    }
}

/// Errors about a body that may contain a password, without what was sent.
fn without_input(mut errors: Vec<ValidationError>) -> Vec<ValidationError> {
    // For invalid JSON, `input` is `{}` anyway.
    for error in errors.iter_mut().filter(|error| error.kind != "json_invalid") {
        error.input = Value::Null;
    }
    errors
}
