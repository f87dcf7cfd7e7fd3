//! Personal access tokens: for scripts, which can't log in.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::fields::AccountFields;
use crate::api::audit::{self, Event};
use crate::api::caching::{created_not_stored, ok_not_stored};
use crate::api::error::ApiError;
use crate::api::http::JsonBody;
use crate::api::responses::{
    Invalid, PersonalTokenRefused, TokenNotFound, TooLarge, TooManyTokens, Unauthenticated, Unavailable, UnreadableBody,
};
use crate::api::state::AppState;
use crate::api::user::LoggedIn;
use crate::auth::opaque_tokens::PersonalSecret;
use crate::domain::clock::Timestamp;
use crate::domain::session::{PersonalToken, PersonalTokenId, Scope};
use crate::domain::validation::parse_id;
use crate::store::decide::sessions::SessionOutcome;
use crate::store::{NewPersonalToken, SessionCommand};

/// A personal access token. The token itself is only in the answer that creates it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": 3, "name": "backup script", "scope": "read",
    "token": "tdb_0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "created_at": "2025-01-15T10:30:00.000Z", "expires_at": null, "used_at": null,
}))]
pub struct PersonalTokenDetails {
    /// Revokes it at `DELETE /auth/tokens/{id}`.
    #[schema(value_type = i64)]
    id: PersonalTokenId,
    /// What its owner calls it.
    #[schema(value_type = String)]
    name: Arc<str>,
    // What it allows.
    #[schema(inline)]
    scope: Scope,
    /// The token itself, only when it was just created: send it as `Authorization: Bearer TOKEN`.
    #[schema(value_type = String, required = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it expires; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was used last; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    used_at: Option<Timestamp>,
}

impl PersonalTokenDetails {
    fn new(token: &PersonalToken, used_at: Option<Timestamp>, secret: Option<&PersonalSecret>) -> Self {
        Self {
            id: token.id,
            name: Arc::clone(&token.name),
            scope: token.scope,
            token: secret.map(ToString::to_string),
            created_at: token.created_at,
            expires_at: token.expires_at,
            used_at,
        }
    }
}

/// A new personal access token.
// Only for the document: the handler reads the body itself, to report every error.
#[allow(dead_code)]
#[derive(ToSchema)]
#[schema(example = json!({ "name": "backup script", "scope": "read" }))]
pub struct NewToken {
    /// What its owner calls it.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    // What it allows.
    #[schema(inline)]
    scope: Scope,
    /// When it expires: a time in the future, with its zone. Without it, or null: never.
    #[schema(required = false, value_type = Option<String>, format = DateTime)]
    expires_at: String,
}

/// Lists the personal access tokens of the account.
///
/// Without the tokens themselves, of which only hashes are stored. Expired ones are removed.
#[utoipa::path(
    get, path = "/auth/tokens", tag = "auth", operation_id = "listTokens",
    security(("bearer" = []), ("password" = [])),
    responses(
        (status = 200, description = "The tokens, by id.", body = Vec<PersonalTokenDetails>),
        Unauthenticated, PersonalTokenRefused,
    )
)]
pub async fn list(caller: LoggedIn, state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let tokens = state.store.personal_tokens(caller.user.id).await?;
    let details = tokens.iter().map(|(token, used_at)| PersonalTokenDetails::new(token, *used_at, None));
    Ok(ok_not_stored().json(details.collect::<Vec<_>>()))
}

/// Creates a personal access token.
///
/// For todos only, not under `/auth` and `/admin`. It outlives a new password, but not the account being disabled.
#[utoipa::path(
    post, path = "/auth/tokens", tag = "auth", operation_id = "createToken",
    security(("bearer" = []), ("password" = [])),
    request_body = NewToken,
    responses(
        (
            status = 201, description = "The token: it is not shown again.", body = PersonalTokenDetails,
            headers(("Location" = String, description = "The new token, relative to the request's URL."))
        ),
        UnreadableBody, Unauthenticated, PersonalTokenRefused, TooManyTokens, TooLarge, Invalid, Unavailable,
    )
)]
pub async fn create(
    request: HttpRequest,
    caller: LoggedIn,
    state: web::Data<AppState>,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, ApiError> {
    let mut fields = AccountFields::new(body, &["name", "scope"])?;
    let (name, scope) = (fields.token_name(), fields.scope());
    let expires_at = fields.future_time("expires_at", state.clock.now());
    let (name, scope) = fields.finish(name.zip(scope))?;
    let (user, secret) = (caller.user.id, PersonalSecret::new(rand::random()));
    let new = NewPersonalToken { user, name: name.into(), scope, hash: secret.hash(), expires_at };
    let command = SessionCommand::CreateToken(new);
    let SessionOutcome::Created(token) = state.store.apply_to_session(Some(caller.authority), command).await? else {
        return Err(ApiError::internal("a token can't be created", "the store answered something else"));
    };
    audit::record(&request, &state, Event::TokenCreated(&caller.user, token.id, scope));
    Ok(created_not_stored()
        // Relative to this path: a proxy may serve it under a prefix that it doesn't pass on.
        .insert_header((header::LOCATION, format!("tokens/{}", token.id)))
        .json(PersonalTokenDetails::new(&token, None, Some(&secret))))
}

/// Revokes a personal access token.
///
/// It ends at once.
#[utoipa::path(
    delete, path = "/auth/tokens/{id}", tag = "auth", operation_id = "deleteToken",
    security(("bearer" = []), ("password" = [])),
    params(("id" = i64, Path, description = "The token's id.", example = 3)),
    responses(
        (status = 204, description = "The token is revoked."),
        Unauthenticated, PersonalTokenRefused, TokenNotFound, Invalid, Unavailable,
    )
)]
pub async fn revoke(
    request: HttpRequest,
    caller: LoggedIn,
    id: web::Path<String>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let token = parse_id(&id)?.map(PersonalTokenId).ok_or(ApiError::TokenNotFound)?;
    let command = SessionCommand::RevokeToken { user: caller.user.id, token };
    state.store.apply_to_session(Some(caller.authority), command).await?;
    audit::record(&request, &state, Event::TokenRevoked(&caller.user, token));
    Ok(HttpResponse::NoContent().finish())
}
